"""`posttrain compare`: prints the tables and sentences of a comparison, and where its page is."""

from __future__ import annotations

from posttrain.api.commands import compare
from posttrain.config import CompareConfig
from posttrain.report.terminal import format_tables
from posttrain.text import printable


def compare_runs(config: CompareConfig) -> None:
    """Compare the runs, write `compare.json` and `report.html`, and print what they show. Raises as `compare` does."""
    from rich.console import Console

    comparison = compare(config.runs, out=config.out, loose=config.loose)
    console = Console()
    for table in format_tables(comparison.data):
        console.print(table)
    for sentence in comparison.sentences:
        console.print(f"- {printable(sentence)}", highlight=False, markup=False)
    page = comparison.report()
    console.print(f"\nreport: {printable(page)}", highlight=False, markup=False, soft_wrap=True)
