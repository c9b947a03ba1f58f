"""From a file or a hub id to rows, each with the place it came from.

JSONL, JSON and CSV are read here, so that every error names file and line; Parquet and the hub go through libraries
that are imported only then. A row that cannot be read becomes a `RawRow` with a `problem`: `read_rows` raises the first
one, `posttrain check-data` collects them.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import parse_qsl

from posttrain.types import InputError

EXTENSIONS = (".jsonl", ".json", ".csv", ".parquet")
MAX_DIGITS = 4300
"""Python reads no longer integer; it would raise an error without a place."""
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(\?.*)?")


@dataclass(frozen=True)
class RawRow:
    """One row as it stands in the file. `where` is "path:line"; `problem` says why it could not be read."""

    where: str
    columns: dict[str, Any] = field(default_factory=dict)
    problem: str | None = None

    def checked(self) -> dict[str, Any]:
        """The columns. Raises InputError for a row that could not be read."""
        if self.problem is not None:
            raise InputError(f"{self.where}: {self.problem}")
        return self.columns


def read_rows(source: str) -> list[tuple[dict[str, Any], str]]:
    """All rows of a file or hub id as (columns, where).

    Raises InputError for the first row that cannot be read, and as `iter_rows` does."""
    return [(row.checked(), row.where) for row in iter_rows(source)]


def iter_rows(source: str) -> list[RawRow]:
    """All rows of a JSONL, JSON, CSV or Parquet file, or of a hub id `owner/name?split=…&config=…`.

    Raises InputError if there is no such file, it cannot be read at all, or it has no rows."""
    path = Path(source)
    if path.is_dir():
        raise InputError(f"{source} is a directory; name one file in it ({', '.join(EXTENSIONS)})")
    if not path.exists():
        if HUB_ID.fullmatch(source) and path.suffix not in EXTENSIONS and not path.parent.is_dir():
            return _hub_rows(source)
        raise InputError(
            f"no such file: {source}. Give a path ending in {', '.join(EXTENSIONS)} or a hub id owner/name"
        )
    if path.suffix not in EXTENSIONS:
        raise InputError(f"{source}: cannot read files ending in {path.suffix!r}; use one of {', '.join(EXTENSIONS)}")
    if path.suffix == ".parquet":
        rows = _parquet_rows(path)
    else:
        data = read_bytes(path)
        if not data.strip():
            raise InputError(f"{source} is empty")
        parse = {".jsonl": parse_jsonl, ".json": _json_rows, ".csv": _csv_rows}[path.suffix]
        rows = list(parse(data, source))
    if not rows:
        raise InputError(f"{source} has no rows")
    return rows


def parse_jsonl(data: bytes, name: str) -> Iterator[RawRow]:
    """One JSON object a line; blank lines are skipped. Lines end at a newline byte only: text may hold U+2028.
    `name` stands for the file in "name:line"."""
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if not line.strip():
            continue
        where = f"{name}:{number}"
        try:
            value = json.loads(line.decode("utf-8"), **_STRICT)
        except UnicodeDecodeError as error:
            yield RawRow(where, problem=f"not UTF-8 (byte {error.object[error.start]:#04x}); save the file as UTF-8")
        except json.JSONDecodeError as error:
            yield RawRow(where, problem=f"broken JSON: {error.msg} at column {error.colno}")
        except (_JsonFault, RecursionError) as error:
            yield RawRow(where, problem=f"broken JSON: {error}")
        else:
            yield _object_row(value, where)


class _JsonFault(ValueError):
    """JSON that Python would read, or fail on, without a word of help: a key given twice, NaN, endless digits."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _JsonFault(f"the key {next(key for key in keys if keys.count(key) > 1)!r} stands twice in one object")
    return out


def _no_constant(name: str) -> NoReturn:
    raise _JsonFault(f"{name} is not JSON; use null")


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise _JsonFault(f"a number of {len(digits)} digits is too long; write it as text")
    return int(digits)


_STRICT: Mapping[str, Any] = {
    "object_pairs_hook": _object,
    "parse_constant": _no_constant,
    "parse_int": _integer,
}


def _object_row(value: Any, where: str) -> RawRow:
    if not isinstance(value, dict):
        return RawRow(where, problem=f"a row must be a JSON object like {{...}}, not {_json_name(value)}")
    if not value:
        return RawRow(where, problem="the object has no columns")
    return _row(where, value)


def _row(where: str, columns: dict[str, Any]) -> RawRow:
    """The row, unless it holds something that no tokenizer, reward or JSON file could take."""
    for name, value in columns.items():
        if fault := _fault(name) or _fault(value):
            return RawRow(where, problem=f"column {name!r} holds {fault}")
    return RawRow(where, columns)


def _fault(value: Any) -> str | None:
    """What is wrong with a value, or with a part of a list or an object."""
    if isinstance(value, float) and not math.isfinite(value):
        return f"{value}, which is no number; use null where there is none"
    if isinstance(value, str):
        half = next((c for c in value if "\ud800" <= c <= "\udfff"), None) if not value.isascii() else None
        return half and f"half a character (the surrogate U+{ord(half):04X}); write the whole one or remove it"
    if isinstance(value, Mapping):
        value = [*value, *value.values()]
    if isinstance(value, list | tuple):
        return next(filter(None, map(_fault, value)), None)
    return None


def _json_name(value: Any) -> str:
    names = {list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _json_rows(data: bytes, name: str) -> Iterator[RawRow]:
    """The objects of one JSON list, each with the line it begins on. What follows a syntax error is not read."""
    text = _decode(data, name)
    decoder = json.JSONDecoder(**_STRICT)
    position, line, counted = _skip_space(text, 0), 1, 0
    if text[position : position + 1] != "[":
        raise InputError(f"{name}: a .json file must hold one list of objects; one object a line is a .jsonl file")
    position = _skip_space(text, position + 1)
    ended = text[position : position + 1] == "]"
    while not ended:
        line, counted = line + text.count("\n", counted, position), position
        where = f"{name}:{line}"
        try:
            value, position = decoder.raw_decode(text, position)
        except json.JSONDecodeError as error:
            yield RawRow(f"{name}:{error.lineno}", problem=f"broken JSON: {error.msg} at column {error.colno}")
            return
        except (_JsonFault, RecursionError) as error:
            yield RawRow(where, problem=f"broken JSON: {error}")
            return
        yield _object_row(value, where)
        position = _skip_space(text, position)
        follows = text[position : position + 1]
        if follows not in (",", "]") or not follows:
            line += text.count("\n", counted, position)
            yield RawRow(f"{name}:{line}", problem="broken JSON: expected ',' or ']' after an object")
            return
        ended = follows == "]"
        position = _skip_space(text, position + 1)


def _skip_space(text: str, position: int) -> int:
    while position < len(text) and text[position] in " \t\r\n":
        position += 1
    return position


def _csv_rows(data: bytes, name: str) -> Iterator[RawRow]:
    """Rows of a CSV file with a header; all values are text. A cell may span lines: a row's line is its first."""
    reader = csv.reader(io.StringIO(_decode(data, name), newline=""), strict=True)
    header: list[str] | None = None
    while True:
        where = f"{name}:{reader.line_num + 1}"
        try:
            cells = next(reader, None)
        except csv.Error as error:
            yield RawRow(where, problem=f"broken CSV: {error}")
            return
        if cells is None:
            return
        if not cells:
            continue
        if header is None:
            header = _csv_header(cells, where)
        elif len(cells) != len(header):
            yield RawRow(where, problem=f"{len(cells)} cells, but the header has {len(header)} columns; quote commas")
        else:
            yield RawRow(where, dict(zip(header, cells, strict=True)))


def _csv_header(cells: list[str], where: str) -> list[str]:
    header = [cell.strip() for cell in cells]
    if "" in header:
        raise InputError(f"{where}: column {header.index('') + 1} of the CSV header has no name")
    if doubled := [cell for cell in header if header.count(cell) > 1]:
        raise InputError(f"{where}: the CSV header names {doubled[0]!r} twice; rename one")
    return header


def read_bytes(path: Path) -> bytes:
    """The content of a file. Raises InputError where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None


def _decode(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        byte = data[error.start]
        raise InputError(f"{name}:{line}: not UTF-8 (byte {byte:#04x}); save the file as UTF-8") from None


def _parquet_rows(path: Path) -> list[RawRow]:
    import pyarrow
    import pyarrow.parquet

    try:
        rows = pyarrow.parquet.read_table(path).to_pylist(maps_as_pydicts="strict")
    except (pyarrow.ArrowException, OSError, KeyError) as error:  # KeyError: a map that has a key twice
        raise InputError(f"{path}: not a Parquet file that can be read: {_first_line(error)}") from None
    return [_row(f"{path}:{i}", _from_arrow(row)) for i, row in enumerate(rows, start=1)]


def _hub_rows(source: str) -> list[RawRow]:
    """Rows of a data set of the Hugging Face hub; `where` counts rows from 1."""
    hub_id, _, query = source.partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    if unknown := sorted(set(options) - {"split", "config"}):
        raise InputError(f"{source}: unknown option {unknown[0]!r}; a hub id takes ?split=… and &config=…")
    import datasets

    try:
        loaded = datasets.load_dataset(hub_id, options.get("config"), split=options.get("split", "train"))
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(
            f"no such file: {source}, and as a hub id it could not be loaded ({_first_line(error)}). Check the path, "
            "or the id, its split and the network; a download saved as Parquet or JSONL works without one"
        ) from None
    rows = [_row(f"{hub_id}:{i}", _from_arrow(row)) for i, row in enumerate(loaded, start=1)]
    if not rows:
        raise InputError(f"{source} has no rows")
    return rows


def _from_arrow(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of an Arrow table without the nulls in the objects of conversations and tools: there all objects of a
    column have the fields of all the others, and what one lacks is null. A null that was meant cannot be told apart."""
    return {
        name: _without_nulls(value) if name == "tools" or _is_conversation(value) else value
        for name, value in row.items()
    }


def _is_conversation(value: Any) -> bool:
    return isinstance(value, list) and any(
        isinstance(turn, Mapping) and turn.keys() & {"role", "from"} for turn in value
    )


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nulls(part) for key, part in value.items() if part is not None}
    if isinstance(value, list | tuple):
        return [_without_nulls(part) for part in value]
    return value


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
