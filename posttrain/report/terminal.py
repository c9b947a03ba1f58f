"""A comparison on the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table as Drawn

from posttrain.config.evaluation import RETENTION_SUITE
from posttrain.report.tables import Table, cost_table, result_table
from posttrain.report.words import summary
from posttrain.runs.comparison import Comparison, sections
from posttrain.text import cell, printable

NOT_IN_TERMINAL = ("truncated", "truncated %")
SHORT = {"response length": "tokens"}
"""Headers of the terminal, where a page has room for more."""


def print_comparison(comparison: Comparison, page: object, notes: Sequence[str] = ()) -> None:
    """Print tables and sentences, further `notes`, and where the page is."""
    console = Console()
    for table in format_tables(comparison):
        console.print(table)
    for sentence in (*summary(comparison), *notes):
        console.print(f"- {printable(sentence)}", highlight=False, markup=False)
    console.print(f"\nreport: {printable(page)}", highlight=False, markup=False, soft_wrap=True)


def format_tables(comparison: Comparison) -> list[Drawn]:
    """Tables for 80 columns where stage names are short: a table a suite, then costs; a suite whose evaluations cannot
    be compared has several. Shares are in per cent; brackets hold 95% intervals."""
    drawn = []
    for part in sections(comparison):
        table = _drawn(result_table(part), ": what was not trained" * (part.suite == RETENTION_SUITE))
        table.caption, table.caption_justify = "95% intervals in brackets", "left"
        drawn.append(table)
    return [*drawn, _drawn(cost_table(comparison))]


def _drawn(table: Table, more: str = "") -> Drawn:
    """Without lines between the columns, which would take a quarter of a terminal's width."""
    title = f"\n{cell(table.title)}{more}"
    drawn = Drawn(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0), pad_edge=False)
    drawn.add_column("stage", overflow="fold")
    shown = [i for i, name in enumerate(table.head) if name not in NOT_IN_TERMINAL]
    for i in shown:
        header = cell(SHORT.get(table.head[i], table.head[i]))
        if i < table.texts:
            drawn.add_column(header, overflow="fold")
        else:
            drawn.add_column(header, justify="right")
    for row in table.rows:
        drawn.add_row(cell(row.name), *(cell(row.cells[i].replace(" [", "\n[")) for i in shown))
    return drawn
