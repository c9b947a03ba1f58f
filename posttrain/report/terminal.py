"""A comparison on the terminal."""

from __future__ import annotations

from rich.table import Table

from posttrain.config.evaluation import RETENTION_SUITE
from posttrain.runs.comparison import Comparison, Section, Spent, sections
from posttrain.text import cell
from posttrain.wording import format_estimate, format_quantity

NOT_IN_TERMINAL = ("truncated",)
SHORT = {"response length": "tokens"}
"""Headers of the terminal, where a page has room for more."""


def format_tables(comparison: Comparison) -> list[Table]:
    """Tables for 80 columns where stage names are short: a table a suite, then costs; a suite whose evaluations cannot
    be compared has several. Shares are in per cent; brackets hold 95% intervals."""
    return [*(_result_table(comparison, part) for part in sections(comparison)), _cost_table(comparison)]


def _result_table(comparison: Comparison, part: Section) -> Table:
    table = _table(part.title + (": what was not trained" if part.suite == RETENTION_SUITE else ""))
    table.caption, table.caption_justify = "95% intervals in brackets", "left"
    names = [n for n in part.names if n.rpartition("/")[2] not in NOT_IN_TERMINAL]
    for name in names:
        label = part.label(name)
        table.add_column(cell(SHORT.get(label, label)) + (" %" if name in part.shares else ""), justify="right")
    for stage in part.stages:
        found = comparison["stages"][stage]["evaluations"]
        cells = [format_estimate(found.get(n), n in part.shares) for n in names]
        table.add_row(cell(stage), *(cell(text.replace(" [", "\n[")) for text in cells))
    return table


def _table(title: str) -> Table:
    """Without lines between the columns, which would take a quarter of a terminal's width."""
    table = Table(title=f"\n{cell(title)}", title_justify="left", box=None, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("stage", overflow="fold")
    return table


def _cost_table(comparison: Comparison) -> Table:
    table = _table("Cost")
    table.add_column("from", overflow="fold")
    for name in ("seconds", "tokens", "FLOPs"):
        table.add_column(name, justify="right")
    for stage, result in [*comparison["stages"].items(), *comparison.get("others", {}).items()]:
        table.add_row(cell(stage), cell(result["parent"] or "–"), *_spent(result))
    if "total" in comparison:
        table.add_row("all", "", *_spent(comparison["total"]))
    return table


def _spent(cost: Spent) -> tuple[str, str, str]:
    return f"{cost['seconds']:.0f}", format_quantity(cost["tokens"]), format_quantity(cost["flops"])
