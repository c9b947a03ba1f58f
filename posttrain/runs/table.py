"""Rows that show themselves as a table: in a terminal, in a notebook and in Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from itertools import chain
from typing import Any

from posttrain.text import printable

ENDS = 10
"""Rows shown of either end of a long table."""
TEXT_WIDTH, TEXT_COLUMNS = 40, 9
"""The longest value and the most columns that a terminal gets; a notebook scrolls."""
HTML_WIDTH = 300


class Table(list[dict[str, Any]]):
    """A list of rows, as pandas and json take it, that prints as a table. Nested values are left out where it is shown,
    and numbers rounded to four digits; the rows themselves have everything."""

    @property
    def columns(self) -> list[str]:
        """Every key of a row, in the order of their first row."""
        return list(dict.fromkeys(chain.from_iterable(self)))

    def column(self, name: str) -> list[Any]:
        """The value of each row, None where a row has none. Raises KeyError where no row has one."""
        if name not in self.columns:
            raise KeyError(f"{name!r}; there are {', '.join(self.columns) or 'no rows'}")
        return [row.get(name) for row in self]

    def __str__(self) -> str:
        names = self._shown()
        head, more = names[:TEXT_COLUMNS], len(names) - TEXT_COLUMNS
        lines = [head, *(["…"] * len(head) if row is None else _cells(row, head, TEXT_WIDTH) for row in self._ends())]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)
        return (text or "no rows") + (f"\nand {more} more columns" if more > 0 else "")

    __repr__ = __str__

    def _repr_markdown_(self) -> str:
        names = self._shown()
        rows = (["…"] * len(names) if row is None else _cells(row, names, HTML_WIDTH) for row in self._ends())
        lines = [names, ["---"] * len(names), *([c.replace("|", "\\|") for c in row] for row in rows)]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def _repr_html_(self) -> str:
        names = self._shown()
        rows = (["…"] * len(names) if row is None else _cells(row, names, HTML_WIDTH) for row in self._ends())
        body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
        head = "".join(f"<th>{escape(name)}</th>" for name in names)
        return f'<div style="overflow-x:auto"><table><tr>{head}</tr>{body}</table></div>'

    def _shown(self) -> list[str]:
        nested = {name for row in self for name, value in row.items() if isinstance(value, list | tuple | Mapping)}
        return [name for name in self.columns if name not in nested]

    def _ends(self) -> Iterator[dict[str, Any] | None]:
        """The rows, of a long table both ends with None between."""
        if len(self) <= 2 * ENDS + 1:
            yield from self
        else:
            yield from (*self[:ENDS], None, *self[-ENDS:])


def _cells(row: Mapping[str, Any], names: list[str], width: int) -> list[str]:
    return [_cell(row.get(name), width) for name in names]


def _cell(value: Any, width: int) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    text = "" if value is None else " ".join(printable(str(value)).split())
    return text if len(text) <= width else text[: width - 1] + "…"
