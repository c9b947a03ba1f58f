"""Rows that show themselves as a table: in a terminal, in a notebook and in Markdown."""

from __future__ import annotations

from collections.abc import Mapping
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
    """A list of rows, as pandas and json take it, that prints as a table: a mapping as a column a key (`parts/math`),
    lists left out, numbers rounded to four digits. The rows themselves have everything."""

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
        head, more = names[:TEXT_COLUMNS], names[TEXT_COLUMNS:]
        lines = [head, *self._cells(head, TEXT_WIDTH)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)
        plural = "" if len(more) == 1 else "s"
        return (text or "no rows") + (f"\nand {len(more)} more column{plural}: {', '.join(more)}" if more else "")

    __repr__ = __str__

    def _repr_markdown_(self) -> str:
        names = self._shown()
        rows = ([c.replace("|", "\\|") for c in row] for row in self._cells(names, HTML_WIDTH))
        lines = [names, ["---"] * len(names), *rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def _repr_html_(self) -> str:
        names = self._shown()
        cells = ("".join(f"<td>{escape(cell)}</td>" for cell in row) for row in self._cells(names, HTML_WIDTH))
        body = "".join(f"<tr>{row}</tr>" for row in cells)
        head = "".join(f"<th>{escape(name)}</th>" for name in names)
        return f'<div style="overflow-x:auto"><table><tr>{head}</tr>{body}</table></div>'

    def _shown(self) -> list[str]:
        flat = [_flat(row) for row in self]
        lists = {name for row in flat for name, value in row.items() if isinstance(value, list | tuple | Mapping)}
        return [name for name in dict.fromkeys(chain.from_iterable(flat)) if name not in lists]

    def _cells(self, names: list[str], width: int) -> list[list[str]]:
        """The rows as texts, of a long table both ends with dots between."""
        long = len(self) > 2 * ENDS + 1
        shown = [_flat(row) for row in ([*self[:ENDS], *self[-ENDS:]] if long else self)]
        cells = [[_cell(row.get(name), width) for name in names] for row in shown]
        return [*cells[:ENDS], ["…"] * len(names), *cells[ENDS:]] if long else cells


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row with the keys of a mapping in its place."""
    flat: dict[str, Any] = {}
    for name, value in row.items():
        flat |= {f"{name}/{key}": v for key, v in value.items()} if isinstance(value, Mapping) else {name: value}
    return flat


def _cell(value: Any, width: int) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    text = "" if value is None else " ".join(printable(str(value)).split())
    return text if len(text) <= width else text[: width - 1] + "…"
