"""What a command has done as data, for `--json`, mostly read from what it wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain.cli.next_steps import best_held_out
from posttrain.config import EvalConfig
from posttrain.report.words import summary
from posttrain.runs.comparison import read_comparison
from posttrain.runs.reader import Run
from posttrain.runs.records import Evaluation, Lineage
from posttrain.stats import estimate

if TYPE_CHECKING:
    from posttrain.data.check import Report
    from posttrain.train.check_data import TokenReport


def trained(out: Path) -> dict[str, Any]:
    """A run that made a model: where it is, its last line of metrics, its best step on held-out data, cost, events, and
    evaluations by suite."""
    from posttrain.evals.run import summarise

    run = Run(out)
    metrics = run.metrics
    return {
        "out": out,
        "model": run.model,
        "report": out / "report.html",
        "steps": metrics[-1]["step"] if metrics else 0,
        "metrics": metrics[-1] if metrics else None,
        "held_out": best_held_out(metrics) or None,
        "cost": run.cost,
        "events": run.events,
        "evaluations": {name: summarise(evaluation.rows) for name, evaluation in run.evaluations.items()},
        "measured": run.measured,
    }


def made_data(out: Path, file: str) -> dict[str, Any]:
    """A run that made data: the file, how many rows it has from how many tasks, and what was left out, by why."""
    run = Run(out)
    made = run.lineage or Lineage()
    counts = {name: getattr(made, name) for name in ("rows", "of_tasks", "dropped")}
    return {"out": out, "data": out / file, **counts, "cost": run.cost, "events": run.events}


def evaluated(config: EvalConfig, evaluation: Evaluation) -> dict[str, Any]:
    """Values with their intervals. `graded`: the reward gave other values than 0 and 1, so that `accuracy` is its
    mean."""
    from posttrain.evals.run import summarise  # brings torch

    return {
        "model": config.model,
        "suite": config.file,
        "values": summarise(evaluation.rows),
        "graded": evaluation.graded,
        "left_out": evaluation.settings.get("left_out", 0),
        "settings": evaluation.settings,
        "file": None if config.out is None else config.out / "evaluations" / f"{config.file}.json",
    }


def compared(out: Path) -> dict[str, Any]:
    """What a comparison's folder holds, and what that says in sentences."""
    found = read_comparison(out)
    return {"out": out, "report": out / "report.html", "sentences": summary(found), "comparison": found}


def scored(lines: str) -> dict[str, Any]:
    """The scores, which were written as lines, and their mean over the rows that have one."""
    scores = [json.loads(line) for line in lines.splitlines()]
    failed = sum(row["error"] is not None for row in scores)
    return {"scores": scores, "mean": estimate(row["score"] for row in scores), "failed": failed}


def checked(report: Report, tokens: TokenReport | None) -> dict[str, Any]:
    """What was found in a file, and what a model makes of its rows."""
    found = None
    if tokens is not None:
        left_out = [{"where": row.where, "reason": row.reason} for row in tokens.fitted.left_out]
        found = {**vars(tokens), "fitted": tokens.fitted.rows - len(left_out), "left_out": left_out, "ok": tokens.ok}
    return {**vars(report), "ok": report.ok, "tokens": found}
