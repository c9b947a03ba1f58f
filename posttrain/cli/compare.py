"""`posttrain compare`: compares run folders, prints tables and sentences, writes a page."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from posttrain.evals.compare import compare
from posttrain.evals.runs import check_run, find_parents, name_runs
from posttrain.report.terminal import print_comparison
from posttrain.runs.comparison import RUNS_FILE
from posttrain.runs.log import write_atomic
from posttrain.types import InputError

if TYPE_CHECKING:
    from posttrain.config import CompareConfig


OURS = {"compare.json", RUNS_FILE, "report.html"}
"""What a comparison writes, and may replace."""


def compare_runs(config: CompareConfig, write_report: Callable[[Path], Path]) -> None:
    """`posttrain compare`: write `compare.json` and, by `write_report`, `report.html`; print tables and sentences.

    An earlier comparison in `--out` is replaced. Raises InputError for a folder that is missing or is not a run, for an
    `--out` that holds anything else than a comparison, and, without `loose`, for evaluations that were not made
    alike."""
    for run in config.runs:
        check_run(run)
    _check_out(config.out)
    runs = name_runs(config.runs)
    comparison = compare(runs, find_parents(runs), config.out, loose=config.loose)
    places = {name: os.path.relpath(folder, config.out) for name, folder in runs.items()}
    write_atomic(config.out / RUNS_FILE, json.dumps(places, indent=1, ensure_ascii=False) + "\n")
    page = write_report(config.out)
    print_comparison(comparison, page)


def _check_out(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out}: is a file; give a folder")
    held = {p.name for p in out.iterdir()} - OURS if out.exists() else set()
    if runs := sorted(held & {"config.yaml", "recipe.yaml", "lineage.json", "evaluations"}):
        raise InputError(f"--out {out}: holds a run ({runs[0]}); choose another folder")
    if held:
        raise InputError(f"--out {out}: not empty and not a comparison; choose another folder")
