"""The tables of a comparison: rows and columns in words, which the terminal and the page draw."""

from __future__ import annotations

from dataclasses import dataclass

from posttrain.runs.comparison import Comparison, OtherStage, Section, Spent, StageResult
from posttrain.wording import format_estimate, format_quantity


@dataclass(frozen=True)
class Row:
    """A line: the name of a stage and its cells. `bar` is from 0 to 1; `note` and `page`, a link, say more."""

    name: str
    cells: tuple[str, ...]
    bar: float | None = None
    note: str = ""
    page: str = ""


@dataclass(frozen=True)
class Table:
    """`head` names the columns after the first, the stage's; `texts` of them hold words and not numbers."""

    title: str
    head: tuple[str, ...]
    rows: tuple[Row, ...]
    texts: int = 0


def result_table(part: Section) -> Table:
    """The values of a suite with their intervals, shares in per cent."""
    head = tuple(part.label(name) + (" %" if name in part.shares else "") for name in part.names)
    found = {stage: part.comparison["stages"][stage]["evaluations"] for stage in part.stages}
    rows = (
        Row(stage, tuple(format_estimate(values.get(name), name in part.shares) for name in part.names))
        for stage, values in found.items()
    )
    return Table(part.title, head, tuple(rows))


def cost_table(comparison: Comparison) -> Table:
    """What every stage spent, those that are not compared after the others, and the sum."""
    stages, others = comparison["stages"], comparison.get("others", {})
    most = max((stage["flops"] for stage in stages.values()), default=0) or 1
    rows = [Row(name, _spent(stage), bar=stage["flops"] / most) for name, stage in stages.items()]
    rows += [
        Row(name, _spent(other), note=_charged(other), page=f"{name}/report.html") for name, other in others.items()
    ]
    if "total" in comparison:
        rows.append(Row("all", ("", *_numbers(comparison["total"])), note="each once"))
    return Table("Cost", ("from", "seconds", "tokens", "FLOPs"), tuple(rows), texts=1)


def _spent(stage: StageResult | OtherStage) -> tuple[str, ...]:
    return (stage["parent"] or "–", *_numbers(stage))


def _numbers(cost: Spent) -> tuple[str, ...]:
    return f"{cost['seconds']:.0f}", format_quantity(cost["tokens"]), format_quantity(cost["flops"])


def _charged(other: OtherStage) -> str:
    return f"in {', '.join(other['charged_to'])}" if other["charged_to"] else ""
