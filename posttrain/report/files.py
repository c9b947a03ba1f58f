"""What a page shows of a run folder, read from its files. They may come from somebody else, or be damaged: what is not
of the form that we write is refused with its file and line."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from posttrain.report import charts
from posttrain.runs.files import CostFile, SampleText, TaskLine, checked
from posttrain.runs.log import numbered_jsonl, read_file, read_object
from posttrain.runs.records import Comparison, Lead, ranked, root_of, sections
from posttrain.types import InputError
from posttrain.wording import described

MAIN_CURVES = (
    "reward",
    "eval/reward",
    "eval/accuracy",
    "eval/loss",
    "accuracy",
    "loss",
    "kl",
    "margin",
    "response_length",
    "entropy",
)
"""What a reader looks at first, in this order: what the run is to raise or lower, then what it may do on the way."""
NOT_CURVES = ("step",)


class StepLine(TypedDict):
    """What a page reads of a line of `metrics.jsonl`, beside its numbers."""

    step: int


class EventLine(TypedDict):
    """Of `events.jsonl`."""

    event: str


class RolloutLine(SampleText):
    """Of `rollouts.jsonl`."""

    step: int
    task: str


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
        drawn = (self._curve(n) for n in (names or known) if n in known)
        return [c for c in drawn if c is not None]

    def _curve(self, name: str) -> charts.Curve | None:
        """An evaluation comes every few steps only: its line goes from one to the next and is not broken between."""
        rows = [row for row in self.metrics if row.get(name) is not None or not name.startswith("eval")]
        steps = [float(row["step"]) for row in rows]
        return charts.curve(name, steps, [finite(row.get(name)) for row in rows])


def read_run(name: str, folder: Path) -> RunFiles:
    """Read a run folder. Raises InputError for a file that is damaged, with its line."""
    suites = sorted((folder / "evaluations").glob("*.jsonl"))
    cost = read_object(folder / "cost.json")
    return RunFiles(
        name=name,
        folder=folder,
        config=read_text(folder / "config.yaml"),
        lineage=read_text(folder / "lineage.json"),
        metrics=_lines(folder / "metrics.jsonl", StepLine),
        events=_lines(folder / "events.jsonl", EventLine),
        cost=checked(cost, CostFile, folder / "cost.json") if cost else {},
        evaluations={f.stem: _lines(f, TaskLine) for f in suites},
        settings={f.stem: read_text(f.with_suffix(".json")) for f in suites},
        measured=_measured(folder),
    )


def read_comparison(folder: Path) -> Comparison:
    """The `compare.json` of a folder. Raises InputError where it is not of the form that we write."""
    file = folder / "compare.json"
    found: Comparison = checked(read_object(file), Comparison, file)  # type: ignore[assignment]
    stages = found["stages"]
    try:
        for name in stages:
            root_of(stages, name)
    except (KeyError, ValueError) as error:
        raise InputError(f"{file}: damaged, the parents of its stages lead nowhere ({error})") from None
    named = [stage for c in found["contrasts"] for stage in (c["of"], c["against"])]
    if unknown := [name for name in named if name not in stages]:
        raise InputError(f"{file}: damaged, a contrast is of {unknown[0]!r}, which is no stage")
    for part in sections(found):
        lead = found.get("leads", {}).get(part.suite)
        if lead is not None and part.headline is not None and not _is_lead(lead, ranked(stages, part.headline)):
            raise InputError(f"{file}: damaged, the lead of {part.suite} is not over the stages that have its values")
    return found


def _is_lead(lead: Lead, scored: list[str]) -> bool:
    """Whether a lead is of one scored stage over others, each once."""
    over = [c["against"] for c in lead["others"]]
    named = {lead["of"], *over, *(c["of"] for c in lead["others"])}
    if "gain" in lead:
        named |= {lead["gain"]["of"], lead["gain"]["against"]}
    return named <= set(scored) and lead["of"] not in over and len(set(over)) == len(over)


def _lines(path: Path, form: type) -> list[dict[str, Any]]:
    return [checked(row, form, where) for where, row in numbered_jsonl(path)]


def _measured(folder: Path) -> dict[str, list[tuple[str, str]]]:
    files = [f for f in sorted((folder / "evaluations").glob("*.json")) if not f.with_suffix(".jsonl").exists()]
    found = {f.stem.replace("_", " "): list(described(read_object(f))) for f in (*files, folder / "adversarial.json")}
    return {name: numbers for name, numbers in found.items() if numbers}


def finite(value: object) -> float | None:
    """A finite number of a metric; None for anything else, a whole number that no float holds among them."""
    try:
        known = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return None
    return float(value) if known else None  # type: ignore[arg-type]


def read_text(path: Path) -> str:
    """The text of a file, "" where there is none. Raises InputError where it is not UTF-8."""
    try:
        return (read_file(path) or b"").decode()
    except UnicodeDecodeError:
        raise InputError(f"{path}: damaged, it is not UTF-8") from None
