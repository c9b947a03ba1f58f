"""One self-contained HTML page from the files of a run folder or a pipeline's folder; it needs no network."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from posttrain.comparison import (
    PERPLEXITY,
    RETENTION,
    RUNS_FILE,
    Comparison,
    Contrast,
    described,
    evaluation_names,
    format_difference,
    format_estimate,
    format_number,
    format_quantity,
    headline,
    label,
    root_of,
    share_names,
    summary,
    verdict,
)
from posttrain.report import charts
from posttrain.runlog import read_jsonl, write_atomic
from posttrain.types import InputError

MAIN_CURVES = ("loss", "reward", "kl", "response_length", "margin", "accuracy", "eval/loss", "entropy")
NOT_CURVES = ("step",)
SHOWN_TASKS = 6
SHOWN_ROLLOUTS = 4
SHOWN_EVENTS = 50
LONGEST_TEXT = 2000


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


def write_report(folder: Path) -> Path:
    """Write `FOLDER/report.html`, of a pipeline or comparison where the folder has a `compare.json`, else of one run.
    Raises InputError for a folder that is neither."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give a run folder or a pipeline's folder")
    if (folder / "compare.json").exists():
        page = _render("pipeline.jinja", _pipeline_view(folder))
    elif any((folder / name).exists() for name in ("config.yaml", "metrics.jsonl", "evaluations")):
        page = _render("run.jinja", _run_view(folder))
    else:
        raise InputError(
            f"{folder}: not a run folder (no config.yaml, metrics.jsonl or evaluations) and not a pipeline's folder "
            "(no compare.json, which is written when every stage has finished)"
        )
    out = folder / "report.html"
    write_atomic(out, page)
    return out


def read_run(name: str, folder: Path) -> RunFiles:
    """Read a run folder."""
    suites = sorted((folder / "evaluations").glob("*.jsonl"))
    return RunFiles(
        name=name,
        folder=folder,
        config=_text(folder / "config.yaml"),
        lineage=_text(folder / "lineage.json"),
        metrics=read_jsonl(folder / "metrics.jsonl"),
        events=read_jsonl(folder / "events.jsonl"),
        cost=_object(folder / "cost.json"),
        evaluations={f.stem: read_jsonl(f) for f in suites},
        settings={f.stem: _text(f.with_suffix(".json")) for f in suites},
        measured=_measured(folder),
    )


def _measured(folder: Path) -> dict[str, list[tuple[str, str]]]:
    files = [f for f in sorted((folder / "evaluations").glob("*.json")) if not f.with_suffix(".jsonl").exists()]
    found = {f.stem.replace("_", " "): list(described(_object(f))) for f in (*files, folder / "adversarial.json")}
    return {name: numbers for name, numbers in found.items() if numbers}


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _object(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _render(template: str, view: Mapping[str, Any]) -> str:
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["quantity"] = format_quantity
    environment.filters["shortened"] = _shortened
    environment.filters["score"] = _score
    environment.globals["charts"] = charts
    return environment.get_template(template).render(view)


def _shortened(text: str) -> str:
    left_out = len(text) - LONGEST_TEXT
    return text if left_out <= 0 else f"{text[:LONGEST_TEXT]} … ({left_out} more characters)"


def _score(value: float | None) -> str:
    return "not scored" if value is None else f"score {value:.3g}"


# -- one run ----------------------------------------------------------------------------------------------------------


def _run_view(folder: Path) -> dict[str, Any]:
    run = read_run(folder.resolve().name, folder)
    first, last = _rollout_samples(folder / "rollouts.jsonl")
    main = run.curves(MAIN_CURVES)
    shown = {c.title for c in main}
    return {
        "title": run.name,
        "run": run,
        "main_curves": main,
        "other_curves": [c for c in run.curves() if c.title not in shown],
        "means": _means(run),
        "events": run.events[-SHOWN_EVENTS:],
        "first_rollouts": first,
        "last_rollouts": last,
    }


def _means(run: RunFiles) -> list[tuple[str, str, int]]:
    """(evaluation, mean, tasks scored), without intervals: those are `posttrain compare`'s."""
    out = []
    for suite, rows in run.evaluations.items():
        for name in dict.fromkeys(n for row in rows for n in row["values"]):
            values = [v for row in rows if (v := row["values"].get(name)) is not None]
            if values:
                out.append((f"{suite}/{name}", format_number(sum(values) / len(values), share=False), len(values)))
    return out


def _rollout_samples(path: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The first and the last rollouts of a run. Only these lines are parsed: the file can be large."""
    if not path.exists():
        return [], []
    first: list[str] = []
    last: deque[str] = deque(maxlen=SHOWN_ROLLOUTS)
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            if not line.endswith("\n"):
                break  # torn by a kill
            (first if len(first) < SHOWN_ROLLOUTS else last).append(line)
    return [json.loads(line) for line in first], [json.loads(line) for line in last]


# -- a pipeline -------------------------------------------------------------------------------------------------------


def _pipeline_view(folder: Path) -> dict[str, Any]:
    comparison: Comparison = json.loads((folder / "compare.json").read_text(encoding="utf-8"))
    places = _object(folder / RUNS_FILE)
    runs = [read_run(name, folder / places.get(name, name)) for name in comparison["stages"]]
    names = evaluation_names(comparison)
    shares = share_names(comparison)
    return {
        "title": folder.resolve().name,
        "description": (yaml.safe_load(_text(folder / "recipe.yaml")) or {}).get("description", ""),
        "sentences": summary(comparison),
        "stages": comparison["stages"],
        "results": _result_table(comparison, [n for n in names if not n.startswith(RETENTION)], shares),
        "retention": _result_table(comparison, [n for n in names if n.startswith(RETENTION)], shares),
        "headline": label(headline(comparison) or ""),
        "headline_forest": _stage_forest(comparison, shares),
        "headline_contrasts": _contrast_forest(comparison, shares),
        "retention_forest": _retention_forest(comparison, shares),
        "contrasts": [_contrast_row(c, shares) for c in comparison["contrasts"]],
        "others": comparison.get("others", {}),
        "total": comparison.get("total"),
        "most_flops": max((s["flops"] for s in comparison["stages"].values()), default=0) or 1,
        "runs": runs,
        "curves": {run.name: run.curves(MAIN_CURVES) for run in runs},
        "samples": _samples(runs),
    }


def _result_table(comparison: Comparison, names: list[str], shares: set[str]) -> dict[str, Any]:
    """Head and rows of a table of stages by evaluations."""
    rows = [
        (stage, [format_estimate(result["evaluations"].get(n), n in shares) for n in names])
        for stage, result in comparison["stages"].items()
    ]
    return {"head": [label(n) + (" %" if n in shares else "") for n in names], "rows": rows}


def _stage_forest(comparison: Comparison, shares: set[str]) -> charts.Forest | None:
    main = headline(comparison)
    rows = []
    for stage, result in comparison["stages"].items():
        e = result["evaluations"].get(main or "")
        if e is not None and e["value"] is not None and e["low"] is not None and e["high"] is not None:
            scale = 100 if main in shares else 1
            words = format_estimate(e, main in shares)
            rows.append((stage, e["value"] * scale, e["low"] * scale, e["high"] * scale, words))
    return charts.forest(rows, differences=False)


def _difference(name: str, contrast: Contrast, shares: set[str]) -> tuple[str, float, float, float, str]:
    share = contrast["evaluation"] in shares
    scale = 100 if share else 1
    value, low, high = (contrast[k] * scale for k in ("value", "low", "high"))
    return name, value, low, high, format_difference(contrast, share).replace(" points", "")


def _contrast_forest(comparison: Comparison, shares: set[str]) -> charts.Forest | None:
    main = headline(comparison)
    rows = [
        _difference(f"{c['of']} − {c['against']}", c, shares)
        for c in comparison["contrasts"]
        if c["evaluation"] == main
    ]
    return charts.forest(rows, differences=True)


def _retention_forest(comparison: Comparison, shares: set[str]) -> charts.Forest | None:
    """Every stage against its start, in points; perplexity has another unit and is in the table alone."""
    rows = [
        _difference(f"{c['of']}: {label(c['evaluation'])}", c, shares)
        for c in comparison["contrasts"]
        if c["evaluation"].startswith(RETENTION)
        and c["evaluation"] != PERPLEXITY
        and c["against"] == root_of(comparison["stages"], c["of"])
    ]
    return charts.forest(rows, differences=True)


def _contrast_row(contrast: Contrast, shares: set[str]) -> dict[str, Any]:
    said = {"up": "higher", "down": "lower", "none": "no difference shown", "few": "too few tasks"}
    return {
        "of": contrast["of"],
        "against": contrast["against"],
        "evaluation": label(contrast["evaluation"]),
        "difference": format_difference(contrast, contrast["evaluation"] in shares),
        "verdict": said[verdict(contrast)],
        "n": contrast["n"],
    }


def _samples(runs: list[RunFiles]) -> list[dict[str, Any]]:
    """The first answers of every run to the same held-out tasks; tasks on which the runs' scores differ come first."""
    tables = {run.name: {row["task"]: row for row in run.evaluations.get("held_out", [])} for run in runs}
    tables = {name: rows for name, rows in tables.items() if rows}
    if not tables:
        return []
    common = [
        t for t in next(iter(tables.values())) if all(t in rows and rows[t]["samples"] for rows in tables.values())
    ]

    def agreed(task: str) -> bool:
        return len({rows[task]["samples"][0]["score"] for rows in tables.values()}) == 1

    chosen = sorted(common, key=agreed)[:SHOWN_TASKS]
    return [
        {
            "task": task,
            "prompt": next((p for rows in tables.values() if (p := rows[task].get("prompt"))), ""),
            "answers": [(name, rows[task]["samples"][0]) for name, rows in tables.items()],
        }
        for task in chosen
    ]
