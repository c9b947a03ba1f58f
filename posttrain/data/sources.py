"""How a source of rows is written: `NAME?key=value&key=value*WEIGHT`, several joined by commas.

A path that exists is taken as it stands, whatever characters it has. Paths are relative to `folder`, if the
caller passes one.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar
from urllib.parse import parse_qsl

from posttrain.types import InputError

Row = TypeVar("Row")
WEIGHT = re.compile(r"(?P<name>.+)\*(?P<weight>\d+(?:\.\d*)?|\.\d+)$")
WHOLE = "train"
"""What the rows of a file are called that names no lists; `datasets` calls them so too."""
SPLIT = re.compile(r"(?P<name>[^\[\]]*)(?:\[(?P<first>-?\d+%?)?:(?P<last>-?\d+%?)?\])?")


@dataclass(frozen=True)
class Source:
    """A file or hub id, its options, and how often its rows are taken."""

    name: str
    options: Mapping[str, str] = field(default_factory=dict)
    weight: float = 1.0

    @property
    def is_file(self) -> bool:
        return os.path.isfile(self.name)


@dataclass(frozen=True)
class Split:
    """A part of a file, as in `?split=train[:90%]`: a list of rows by its name, and from where to where it is read, as
    `datasets` writes it: rows from 0, negative ones from the end, or percentages, None for the end of the list."""

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


def split_sources(text: str, folder: str = "") -> list[str]:
    """The sources that are joined by commas; a comma in the name of a file that exists joins nothing. Raises InputError
    for an empty one."""
    parts, sources = text.split(","), []
    while parts:
        starts = (",".join(parts[:n]).strip() for n in range(len(parts), 1, -1))
        whole = next((s for s in starts if _exists(WEIGHT.sub(r"\g<name>", s), folder)), parts[0].strip())
        parts = parts[whole.count(",") + 1 :]
        sources.append(whole)
    if len(sources) > 1 and "" in sources:
        raise InputError(f"{text}: an empty name between commas")
    return sources


def split_weight(text: str, folder: str = "") -> tuple[str, float]:
    """The source without its weight, and the weight, 1 where none is given. Raises InputError for a weight of 0, and
    for what follows the * of a file and is no weight."""
    if _exists(text, folder):
        return text, 1.0
    match = WEIGHT.fullmatch(text)
    if match is None:
        name, _, weight = text.rpartition("*")
        if _exists(name.strip(), folder):
            raise InputError(f"{text}: what follows the * must be a number above 0, as in {name}*0.3, not {weight!r}")
        return text, 1.0
    if not float(match["weight"]):
        raise InputError(f"{text}: the weight after * must be above 0; leave the source out instead")
    return match["name"], float(match["weight"])


def parse_source(text: str, folder: str = "") -> Source:
    """One source. Raises InputError for a weight of 0 and an option that is given twice."""
    name, weight = split_weight(text, folder)
    if _exists(name, folder):
        return Source(name, weight=weight)
    name, _, query = name.partition("?")
    pairs = parse_qsl(query, keep_blank_values=True)
    if len(options := dict(pairs)) < len(pairs):
        raise InputError(f"{text}: an option is given twice")
    return Source(name, options, weight)


def with_names(text: str, folder: str, named: Callable[[str], str]) -> str:
    """The sources of `text`, as they are read in `folder`, with each name as `named` has it; options and weights
    stay."""
    parts = split_sources(text, folder)
    names = [parse_source(part, folder).name for part in parts]
    return ",".join(named(name) + part[len(name) :] for name, part in zip(names, parts, strict=True))


def _exists(name: str, folder: str) -> bool:
    return bool(name) and os.path.exists(os.path.join(folder, name))


def weighted(count: int, weight: float) -> list[tuple[int, int]]:
    """Which of `count` rows a weight takes, as (row, copy) in order: every row ⌊weight⌋ times, and of the rest that
    share of the rows, at least one in all, drawn without replacement.

    The draw depends on the count alone: it is the same in every run, and a smaller share is part of a larger one."""
    copies = int(weight)
    drawn = round((weight - copies) * count)
    order = random.Random(0).sample(range(count), count)
    chosen = sorted(order[: max(drawn, 0 if copies else 1)])
    return [*((i, copy) for copy in range(copies) for i in range(count)), *((i, copies) for i in chosen)]


def data_files(text: str) -> list[Path]:
    """The files among the sources; a hub id or a built-in set has none."""
    return [Path(source.name) for source in map(parse_source, split_sources(text)) if source.is_file]
