"""`posttrain compare`: compares run folders, prints tables and sentences, writes a page."""

from __future__ import annotations

from posttrain.api.commands import compare
from posttrain.config import CompareConfig
from posttrain.report.terminal import print_comparison


def compare_runs(config: CompareConfig) -> None:
    """Compare the runs, write `compare.json` and `report.html`, and print what they show. Raises as `compare` does."""
    comparison = compare(config.runs, out=config.out, loose=config.loose)
    print_comparison(comparison.data, comparison.report())
