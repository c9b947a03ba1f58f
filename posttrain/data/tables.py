"""Rows of tables: CSV, tab-separated text, Parquet."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from posttrain.data.raw import RawRow, checked_row, decode
from posttrain.systems import need_package
from posttrain.text import first_line
from posttrain.types import InputError

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}

TOOLS = ("tools", "functions")
"""Columns that hold schemas, whatever these say."""


def csv_rows(data: bytes, name: str, separator: str = ",") -> Iterator[RawRow]:
    """Rows of a CSV file with a header; all values are text. A cell may span lines: a row's line is its first."""
    text = decode(data, name)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=separator)
    header: list[str] | None = None
    while True:
        where = f"{name}:{reader.line_num + 1}"
        try:
            with _cells_up_to(len(text)):
                cells = next(reader, None)
        except csv.Error as error:
            quoted = "a cell that begins with a quote must be quoted whole, quotes in it doubled"
            yield RawRow(where, problem=f"broken CSV: {error}; {quoted}", ends=True)
            return
        if cells is None:
            return
        if not cells:
            continue
        if header is None:
            header = _header(cells, where, separator)
        elif len(cells) != len(header):
            said = f"{len(cells)} cells, but the header has {len(header)} columns; quote {SEPARATORS[separator]}"
            yield RawRow(where, problem=said)
        else:
            yield RawRow(where, dict(zip(header, cells, strict=True)))


@contextmanager
def _cells_up_to(characters: int) -> Iterator[None]:
    """The limit of the csv module, 131,072 characters unless somebody sets it, belongs to the whole process."""
    before = csv.field_size_limit(max(characters, 1))
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _header(cells: list[str], where: str, separator: str) -> list[str]:
    header = [cell.strip() for cell in cells]
    if len(header) == 1:
        for other, word in SEPARATORS.items():
            if other != separator and other in cells[0].strip():
                raise InputError(
                    f"{where}: the header is one column, {cells[0]!r}, and seems to be separated by {word}; save the "
                    f"table with {SEPARATORS[separator]}"
                    + (", or name the file .tsv" if other == "\t" else ", or name the file .csv" * (other == ","))
                )
    if "" in header:
        raise InputError(
            f"{where}: column {header.index('') + 1} of the CSV header has no name; name or remove it (pandas writes "
            "none with index=False)"
        )
    if doubled := [cell for cell in header if header.count(cell) > 1]:
        raise InputError(f"{where}: the CSV header names {doubled[0]!r} twice; rename one")
    return header


def parquet_rows(path: Path) -> list[RawRow]:
    """Rows of a Parquet file; `where` counts them from 1. Raises InputError where it cannot be read."""
    need_package("pyarrow", f"{path}: a Parquet file")
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
        maps = "strict" if "map<" in str(table.schema) else None
        parts = (part.to_pylist(maps_as_pydicts=maps) for part in table.to_batches(max_chunksize=1000))
        rows = [from_arrow(row) for part in parts for row in part]
    except (pyarrow.ArrowException, OSError, KeyError) as error:  # KeyError: a map that has a key twice
        raise InputError(f"{path}: not a Parquet file that can be read: {first_line(error).rstrip('.')}") from None
    return [checked_row(f"{path}:{i}", row) for i, row in enumerate(rows, start=1)]


def from_arrow(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of an Arrow table without the nulls in the objects of messages, tools and calls: there all objects of a
    column have the fields of all the others, and what one lacks is null. A null that was meant cannot be told apart."""
    return {name: _without_nulls(value) if name in TOOLS else _as_written(value) for name, value in row.items()}


def _as_written(value: Any) -> Any:
    """A value of a column, which may be or hold messages, tools or calls whatever the name of the column."""
    if any(map(_is_ours, value if isinstance(value, list) else [value])):
        return _without_nulls(value)
    return {name: _as_written(part) for name, part in value.items()} if isinstance(value, dict) else value


def _is_ours(item: Any) -> bool:
    """Whether an object is a message, the schema of a tool, or a call."""
    keys = set(item) if isinstance(item, dict) else set()
    named = "name" in keys and bool(keys & {"parameters", "arguments"})
    return named or bool(keys & {"role", "from", "function"})


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: part if type(part) is str else _without_nulls(part) for key, part in value.items() if part is not None
        }
    if isinstance(value, list | tuple):
        return [_without_nulls(part) for part in value]
    return value
