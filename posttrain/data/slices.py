"""Parts of a file: `?split=train[:90%]`, written as `datasets` writes a slice of a split."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from posttrain.types import InputError

Row = TypeVar("Row")

WHOLE = "train"
"""What the rows of a file are called that names no lists; `datasets` calls them so too."""
SPLIT = re.compile(r"(?P<name>[^\[\]]*)(?:\[(?P<first>-?\d+%?)?:(?P<last>-?\d+%?)?\])?")


@dataclass(frozen=True)
class Split:
    """A list of rows by its name, and from where to where it is read: rows from 0, negative ones from the end, or
    percentages, None for the end of the list."""

    name: str | None = None
    first: str | None = None
    last: str | None = None

    @classmethod
    def parse(cls, text: str | None, source: str) -> Split:
        """Raises InputError, naming the `source`, for what is no split."""
        if text is None:
            return cls()
        match = SPLIT.fullmatch(text)
        percentages = [int(end[:-1]) for end in (match.groups()[1:] if match else ()) if end and end.endswith("%")]
        if match is None or any(abs(share) > 100 for share in percentages):
            raise InputError(f"{source}: cannot read split={text}; write NAME, NAME[:90%], NAME[90%:] or NAME[100:200]")
        return cls(match["name"] or None, match["first"], match["last"])

    @property
    def is_part(self) -> bool:
        """Whether rows may be left out."""
        return (self.first, self.last) != (None, None)

    def of(self, rows: Sequence[Row]) -> list[Row]:
        """The rows of the slice, in their order."""
        return list(rows[_index(self.first, len(rows)) : _index(self.last, len(rows))])


def _index(end: str | None, count: int) -> int | None:
    """A percentage is rounded to the closest row, half up, so that `[:90%]` and `[90%:]` share none and lose none."""
    if end is None or not end.endswith("%"):
        return None if end is None else int(end)
    share = int(end[:-1])
    return (share if share >= 0 else 100 + share) * count * 2 // 200 + ((share * count * 2) % 200 >= 100)
