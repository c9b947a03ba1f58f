"""What a page shows of a run folder, read from its files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posttrain.report import charts
from posttrain.runlog import read_jsonl
from posttrain.wording import described

MAIN_CURVES = ("loss", "reward", "kl", "response_length", "margin", "accuracy", "eval/loss", "entropy")
NOT_CURVES = ("step",)


@dataclass(frozen=True)
class RunFiles:
    """What a page shows of one run folder; whatever is missing is empty."""

    name: str
    folder: Path
    config: str
    lineage: str
    metrics: list[dict[str, Any]]
    events: list[dict[str, Any]]
    cost: dict[str, Any]
    evaluations: dict[str, list[dict[str, Any]]]
    settings: dict[str, str]
    measured: dict[str, list[tuple[str, str]]]
    """Numbers that are not of tasks: a reward model's on held-out pairs, those of adversarial rounds."""

    def curves(self, names: tuple[str, ...] | None = None) -> list[charts.Curve]:
        """Drawings of the metrics `names`, or of all."""
        if not self.metrics:
            return []
        known = dict.fromkeys(k for row in self.metrics for k in row if k not in NOT_CURVES)
        steps = [float(row["step"]) for row in self.metrics]
        wanted = [n for n in (names or known) if n in known]
        drawn = (charts.curve(n, steps, [_number(row.get(n)) for row in self.metrics]) for n in wanted)
        return [c for c in drawn if c is not None]


def read_run(name: str, folder: Path) -> RunFiles:
    """Read a run folder."""
    suites = sorted((folder / "evaluations").glob("*.jsonl"))
    return RunFiles(
        name=name,
        folder=folder,
        config=read_text(folder / "config.yaml"),
        lineage=read_text(folder / "lineage.json"),
        metrics=read_jsonl(folder / "metrics.jsonl"),
        events=read_jsonl(folder / "events.jsonl"),
        cost=read_object(folder / "cost.json"),
        evaluations={f.stem: read_jsonl(f) for f in suites},
        settings={f.stem: read_text(f.with_suffix(".json")) for f in suites},
        measured=_measured(folder),
    )


def _measured(folder: Path) -> dict[str, list[tuple[str, str]]]:
    files = [f for f in sorted((folder / "evaluations").glob("*.json")) if not f.with_suffix(".jsonl").exists()]
    found = {f.stem.replace("_", " "): list(described(read_object(f))) for f in (*files, folder / "adversarial.json")}
    return {name: numbers for name, numbers in found.items() if numbers}


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None


def read_text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


def read_object(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
