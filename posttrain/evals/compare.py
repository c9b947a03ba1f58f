"""Comparing runs: evaluations with intervals, paired contrasts, costs. Everything is read from run folders."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.markup import escape
from rich.table import Table

from posttrain.comparison import (
    PERPLEXITY,
    RETENTION,
    RUNS_FILE,
    Comparison,
    Contrast,
    Cost,
    Estimate,
    StageResult,
    evaluation_names,
    format_estimate,
    format_quantity,
    label,
    root_of,
    share_names,
    summary,
)
from posttrain.evals.stats import Transform, bootstrap_mean, is_binary, paired_bootstrap, wilson_interval
from posttrain.runlog import read_jsonl, write_atomic
from posttrain.types import InputError

if TYPE_CHECKING:
    from posttrain.config import CompareConfig

__all__ = ["compare", "compare_runs", "format_tables", "summary"]

MAIN_SUITE = "held_out"
OURS = {"compare.json", RUNS_FILE, "report.html"}
"""What a comparison writes, and may replace."""
TEXT_NLL = "retention/text_nll"
SEED = 0
NOT_IN_TERMINAL = ("truncated",)
SHORT = {"response_length": "tokens"}
"""Headers of the terminal, where a page has room for more."""

Scores = dict[str, dict[str, float | None]]
"""Evaluation name -> task id -> value; None where the task could not be scored."""


def compare(
    runs: Mapping[str, Path],
    parents: Mapping[str, str | None],
    out: Path,
    costs: Mapping[str, Sequence[Path]] | None = None,
    others: Mapping[str, tuple[str | None, Path]] | None = None,
) -> Comparison:
    """Compare the runs and write `OUT/compare.json`.

    `parents` names the run each one started from, None for a start. `costs` lists folders whose cost belongs to a run
    as well, such as the one in which its data was sampled. A run without `cost.json` cost nothing. `others` are stages
    that are not compared, each with what it started from and its folder: what they cost is told too. Contrasts are of
    every run against its parent, against its start, and against each earlier run with the same parent; only tasks that
    both have scored count, and one task alone gives none."""
    scores = {name: read_scores(folder) for name, folder in runs.items()}
    stages: dict[str, StageResult] = {}
    for name, folder in runs.items():
        stages[name] = {
            "parent": parents[name],
            **_cost([folder, *(costs or {}).get(name, ())]),
            "evaluations": {e: _estimate(e, values) for e, values in scores[name].items()},
        }
    contrasts = [c for of, against in _pairs(stages) for c in _contrasts(of, against, scores[of], scores[against])]
    comparison: Comparison = {"stages": stages, "contrasts": contrasts}
    if others:
        comparison["others"] = {
            name: {
                "parent": parent,
                **_cost([folder]),
                "charged_to": [of for of, folders in (costs or {}).items() if folder in folders],
            }
            for name, (parent, folder) in others.items()
        }
        comparison["total"] = _cost([*runs.values(), *(folder for _, folder in others.values())])
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / "compare.json", json.dumps(comparison, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    return comparison


def read_scores(folder: Path) -> Scores:
    """Every value in `FOLDER/evaluations/SUITE.jsonl`. Names carry their suite, `retention/reading`, except in the
    suite `held_out`. Raises InputError for a line that is not one of ours."""
    scores: Scores = {}
    files = sorted((folder / "evaluations").glob("*.jsonl"), key=lambda f: (f.stem != MAIN_SUITE, f.stem))
    for file in files:
        prefix = "" if file.stem == MAIN_SUITE else f"{file.stem}/"
        try:
            for row in read_jsonl(file):
                # ids may be row numbers: tasks of two files are the same only if their prompts are
                task = f"{row['task']}\n{row['prompt']}" if "prompt" in row else row["task"]
                for name, value in row["values"].items():
                    scores.setdefault(prefix + name, {})[task] = value
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise InputError(f"{file}: not the results of an evaluation ({error!r}); evaluate again") from error
    return {PERPLEXITY if name == TEXT_NLL else name: values for name, values in scores.items()}


def _cost(folders: Sequence[Path]) -> Cost:
    """The sum over the folders' `cost.json`."""
    costs = [json.loads((f / "cost.json").read_text()) for f in folders if (f / "cost.json").exists()]
    return {
        "seconds": sum(c["seconds"] for c in costs),
        "tokens": sum(c["tokens"] for c in costs),
        "flops": sum(c["flops"] for c in costs),
    }


def _transform(evaluation: str) -> Transform | None:
    """Perplexity is exp of the mean negative log-likelihood over the windows of the text."""
    return np.exp if evaluation == PERPLEXITY else None


def _estimate(evaluation: str, values: Mapping[str, float | None]) -> Estimate:
    scored = [v for v in values.values() if v is not None]
    if not scored:
        return {"value": None, "low": None, "high": None, "n": 0}
    transform = _transform(evaluation)
    if transform is None and is_binary(scored):
        interval = wilson_interval(scored)
    else:
        interval = bootstrap_mean(scored, SEED, transform=transform)
    return {"value": interval.value, "low": interval.low, "high": interval.high, "n": interval.n}


def _pairs(stages: dict[str, StageResult]) -> Iterator[tuple[str, str]]:
    """(of, against): parents first, then starts, then siblings."""
    for name, stage in stages.items():
        if stage["parent"] is not None:
            yield name, stage["parent"]
    for name, stage in stages.items():
        if stage["parent"] not in (None, start := root_of(stages, name)):
            yield name, start
    for earlier, later in combinations(stages, 2):
        if stages[earlier]["parent"] == stages[later]["parent"]:
            yield later, earlier


def _contrasts(of: str, against: str, a: Scores, b: Scores) -> Iterator[Contrast]:
    for evaluation in a:
        theirs = b.get(evaluation, {})
        paired = [(v, w) for t, v in a[evaluation].items() if v is not None and (w := theirs.get(t)) is not None]
        if len(paired) < 2:
            continue
        interval = paired_bootstrap(
            [v for v, _ in paired], [w for _, w in paired], SEED, transform=_transform(evaluation)
        )
        yield {
            "of": of,
            "against": against,
            "evaluation": evaluation,
            "value": interval.value,
            "low": interval.low,
            "high": interval.high,
            "n": interval.n,
        }


# -- on the terminal --------------------------------------------------------------------------------------------------


def format_tables(comparison: Comparison) -> list[Table]:
    """Tables for 80 columns where stage names are short: results, retention where it was measured, costs. Shares are in
    per cent; brackets hold 95% intervals."""
    names = [n for n in evaluation_names(comparison) if n not in NOT_IN_TERMINAL]
    kept = [n for n in names if n.startswith(RETENTION)]
    results = [n for n in names if n not in kept]
    tables = []
    if results:
        tables.append(_result_table("Results", comparison, results))
    if kept:
        tables.append(_result_table("Retention: what was not trained", comparison, kept))
    return [*tables, _cost_table(comparison)]


def _result_table(title: str, comparison: Comparison, names: list[str]) -> Table:
    shares = share_names(comparison)
    table = _table(title)
    for name in names:
        table.add_column(SHORT.get(name, label(name)) + (" %" if name in shares else ""), justify="right")
    for stage, result in comparison["stages"].items():
        cells = [format_estimate(result["evaluations"].get(n), n in shares) for n in names]
        table.add_row(escape(stage), *(escape(cell.replace(" [", "\n[")) for cell in cells))
    return table


def _table(title: str) -> Table:
    """Without lines between the columns, which would take a quarter of a terminal's width."""
    table = Table(title=f"\n{title}", title_justify="left", box=None, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("stage", overflow="fold")
    return table


def _cost_table(comparison: Comparison) -> Table:
    table = _table("Cost")
    table.add_column("from", overflow="fold")
    for name in ("seconds", "tokens", "FLOPs"):
        table.add_column(name, justify="right")
    for stage, result in [*comparison["stages"].items(), *comparison.get("others", {}).items()]:
        table.add_row(escape(stage), escape(result["parent"] or "–"), *_spent(result))
    if "total" in comparison:
        table.add_row("all", "", *_spent(comparison["total"]))
    return table


def _spent(cost: Cost) -> tuple[str, str, str]:
    return f"{cost['seconds']:.0f}", format_quantity(cost["tokens"]), format_quantity(cost["flops"])


# -- the command ------------------------------------------------------------------------------------------------------


def compare_runs(config: CompareConfig, write_report: Callable[[Path], Path]) -> None:
    """`posttrain compare`: write `compare.json` and, by `write_report`, `report.html`; print tables and sentences.

    An earlier comparison in `--out` is replaced. Raises InputError for a folder that is missing or is not a run, and
    for an `--out` that holds anything else than a comparison."""
    from rich.console import Console

    for run in config.runs:
        _check_run(run)
    _check_out(config.out)
    runs = name_runs(config.runs)
    comparison = compare(runs, _find_parents(runs), config.out)
    places = {name: os.path.relpath(folder, config.out) for name, folder in runs.items()}
    write_atomic(config.out / RUNS_FILE, json.dumps(places, indent=1, ensure_ascii=False) + "\n")
    page = write_report(config.out)
    console = Console()
    for table in format_tables(comparison):
        console.print(table)
    for sentence in summary(comparison):
        console.print(f"- {sentence}", highlight=False, markup=False)
    console.print(f"\nreport: {page}", highlight=False, markup=False, soft_wrap=True)


def _check_run(run: Path) -> None:
    if not run.is_dir():
        raise InputError(f"{run}: no such folder; give run folders, such as runs/quickstart/sft")
    if (run / "recipe.yaml").exists() or (run / "compare.json").exists():
        stages = sorted(str(p.parent) for p in run.glob("*/evaluations"))
        raise InputError(f"{run}: holds several runs; give them one by one: {' '.join(stages) or 'none is finished'}")
    if (run / "config.yaml").exists() and not (run / "lineage.json").exists():
        raise InputError(f"{run}: the run is not finished; continue it with --resume first")
    if not any((run / name).exists() for name in ("config.yaml", "lineage.json", "evaluations")):
        raise InputError(f"{run}: not a run folder (no config.yaml, lineage.json or evaluations in it)")


def _check_out(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out}: is a file; give a folder")
    held = {p.name for p in out.iterdir()} - OURS if out.exists() else set()
    if runs := sorted(held & {"config.yaml", "recipe.yaml", "lineage.json", "evaluations"}):
        raise InputError(f"--out {out}: holds a run ({runs[0]}); choose another folder")
    if held:
        raise InputError(f"--out {out}: not empty and not a comparison; choose another folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {out}: cannot be made ({error.strerror}); choose another folder") from error


def name_runs(folders: Sequence[Path]) -> dict[str, Path]:
    """Runs by the name of their folder; where two share it, with the folder above: `a/sft` and `b/sft`; where that is
    not enough, by their whole path. Raises InputError for a run given twice."""
    paths = [folder.resolve() for folder in folders]
    for path, count in Counter(paths).items():
        if count > 1:
            raise InputError(f"{path}: given twice; give each run once")
    names = [path.name for path in paths]
    for longer in (lambda p: f"{p.parent.name}/{p.name}", str):
        counts = Counter(names)
        names = [longer(p) if counts[n] > 1 else n for n, p in zip(names, paths, strict=True)]
    return dict(zip(names, paths, strict=True))


def _find_parents(runs: Mapping[str, Path]) -> dict[str, str | None]:
    """For every run the one among `runs` it was trained from: by the path in its lineage, else by the hash of the
    weights, so that moved folders and evaluations of a start are found too."""
    lineage = {name: _json(folder / "lineage.json") for name, folder in runs.items()}
    hashes = {name: lineage[name].get("weights_hash") or _evaluated_hash(folder) for name, folder in runs.items()}
    places = {place: name for name, folder in runs.items() for place in (folder, folder / "model")}
    parents: dict[str, str | None] = {}
    for name in runs:
        given = [places.get(Path(p).resolve()) for p in lineage[name].get("parents", [])]
        start = lineage[name].get("parent_weights_hash")
        # A run that changed no weight has the hash of its parent; every twin of it would look like its parent.
        same = [n for n, h in hashes.items() if h is not None and h == start and h != hashes[name]]
        parents[name] = next((p for p in [*given, *same] if p is not None and p != name), None)
    return parents


def _evaluated_hash(folder: Path) -> str | None:
    """The weights that the evaluations in the folder are about."""
    for file in sorted((folder / "evaluations").glob("*.json")):
        if found := _json(file).get("weights_hash"):
            return str(found)
    return None


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
