"""From a file or a hub id to rows, each with the place it came from.

JSONL, JSON, CSV and tab-separated text are read here and in `tables.py`, so that every error names file and line;
Parquet and the hub go through libraries that are imported only then. A row that cannot be read becomes a `RawRow` with
a `problem`: a run raises the first one, `posttrain check-data` collects them.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from posttrain.console import info_once
from posttrain.data.raw import RawRow, checked_row, decode, read_bytes
from posttrain.data.sources import WHOLE, Source, Split, parse_source, split_sources, weighted
from posttrain.data.tables import csv_rows, from_arrow, parquet_rows
from posttrain.text import first_line
from posttrain.types import InputError

EXTENSIONS = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
FILES = f"{', '.join(EXTENSIONS)} (text also with .gz)"
MAX_DIGITS = 4300
"""Python reads no longer integer; it would raise an error without a place."""
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
NOT_A_LIST = "a .json file must hold one list of objects; one object a line is a .jsonl file"
ONE_LIST = f"leave ?split= out, or take a part of it as {WHOLE}[:90%]"
ONE_A_LINE = "; a .jsonl file has one whole object a line, and a list of objects is a .json file"
ROW_LISTS = {"messages", "conversations", "conversation", "prompt", "completion", "chosen", "rejected", "tools"}
"""Lists of objects that are a column of one row and no list of rows."""
HUB_OPTIONS = {"split": "split", "config": "name", "revision": "revision"}
"""What follows the ? of a hub id, and the argument of `datasets.load_dataset` that it is."""


def iter_rows(text: str) -> list[RawRow]:
    """All rows of the sources of `text`: JSONL, JSON, CSV, tab-separated or Parquet files, or hub ids
    `owner/name?split=…&config=…&revision=…`, each perhaps with a weight, joined by commas.

    Raises InputError if there is no such file, it cannot be read at all, or it has no rows."""
    parts = split_sources(text)
    rows: list[RawRow] = []
    for part in parts:
        source = parse_source(part)
        own = _source_rows(source, part)
        if len(parts) == 1 and source.weight == 1:
            return own
        taken = weighted(len(own), source.weight)
        if source.weight != 1:
            info_once(f"{part}: {len(taken)} rows of the {len(own)} there are")
        first = len(rows)  # a row keeps its number among those of its source, for the ids of tasks
        for i, copy in taken:
            columns = own[i].columns
            if copy and columns.get("id") is not None:  # ids are unique
                columns = columns | {"id": f"{columns['id']}#{copy + 1}"}
            rows.append(replace(own[i], columns=columns, index=first + i + copy * len(own)))
    return rows


def _source_rows(source: Source, text: str) -> list[RawRow]:
    path = Path(source.name)
    if not check_source(source):
        return _hub_rows(source, text)
    kind = extension(path)
    if unknown := sorted(set(source.options) - {"split"}):
        raise InputError(f"{text}: unknown option {unknown[0]!r}; a file takes ?split=… alone")
    split = Split.parse(source.options.get("split"), text)
    if kind != ".json" and split.name not in (None, WHOLE):
        raise InputError(f"{text}: a {kind} file has no split {split.name!r}; {ONE_LIST}")
    if kind == ".parquet":
        rows = parquet_rows(path)
    else:
        data = read_bytes(path)
        if not data.strip():
            raise InputError(f"{source.name} is empty")
        if kind == ".jsonl":
            parsed = parse_jsonl(data, source.name)
        elif kind == ".json":
            parsed = _json_rows(data, source.name, split.name)
        else:
            parsed = csv_rows(data, source.name, "\t" if kind == ".tsv" else ",")
        rows = list(parsed)
    if not rows:
        raise InputError(f"{source.name} has no rows")
    if rows[-1].ends and split.is_part:
        rows[-1].checked()  # how many rows follow is not known, and so which the part has
    if not (taken := split.of(rows)):
        raise InputError(f"{text}: the slice takes none of the {len(rows)} rows")
    return taken


def check_source(source: Source) -> bool:
    """Whether a source is a file of a form that can be read; else it is an id of the hub. Raises InputError for a file
    that is not there, or of another form. It is not opened."""
    path = Path(source.name)
    if os.path.isdir(path):
        raise InputError(f"{source.name} is a directory; name one file in it ({FILES})")
    kind = extension(path)
    if not os.path.exists(path):
        if HUB_ID.fullmatch(source.name) and kind not in EXTENSIONS and not os.path.isdir(path.parent):
            return False
        raise InputError(f"no such file: {source.name}. Give a path ending in {FILES} or a hub id owner/name")
    if kind not in EXTENSIONS or (kind == ".parquet" and path.suffix == ".gz"):
        raise InputError(f"{source.name}: cannot read files ending in {path.suffix!r}; use one of {FILES}")
    return True


def replay_file(source: str) -> Path:
    """The recorded rollouts that `--replay` names. Raises InputError where there is no such file."""
    path = Path(source)
    if not path.is_file():
        raise InputError(f"--replay {source}: no such file; give the rollouts.jsonl of a run")
    return path


def extension(path: Path) -> str:
    """What a name ends in, but for `.gz`."""
    return (path.with_suffix("") if path.suffix == ".gz" else path).suffix.lower()


def parse_jsonl(data: bytes, name: str) -> Iterator[RawRow]:
    """One JSON object a line; blank lines are skipped. Lines end at a newline byte only: text may hold U+2028.
    `name` stands for the file in "name:line"."""
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if not line.strip():
            continue
        where = f"{name}:{number}"
        try:
            value = _DECODER.decode(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            yield RawRow(where, problem=f"not UTF-8 (byte {error.object[error.start]:#04x}); save the file as UTF-8")
        except json.JSONDecodeError as error:
            spread = ONE_A_LINE if number == 1 and error.pos >= len(line.decode().rstrip()) else ""
            yield RawRow(where, problem=f"broken JSON: {error.msg} at column {error.colno}{spread}")
        except (_JsonFault, RecursionError) as error:
            yield RawRow(where, problem=f"broken JSON: {error}")
        else:
            yield _object_row(value, where, ONE_A_LINE)


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


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_no_constant, parse_int=_integer)


def _object_row(value: Any, where: str, advice: str = "") -> RawRow:
    if not isinstance(value, dict):
        names = {list: "a list", str: "a string", bool: "true or false", type(None): "null"}
        found = names.get(type(value), "a number")
        return RawRow(where, problem=f"a row must be a JSON object like {{...}}, not {found}{advice}")
    if not value:
        return RawRow(where, problem="the object has no columns")
    return checked_row(where, value)


def _json_rows(data: bytes, name: str, split: str | None) -> Iterator[RawRow]:
    """The objects of one JSON list, each with the line it begins on. What follows a syntax error is not read.

    In place of the list may stand an object with the list under one key, `split` where there are several."""
    text = decode(data, name)
    position, line, counted = _skip_space(text, 0), 1, 0
    if text[position : position + 1] == "{":
        position = _list_in_object(text, position, name, split)
    elif split not in (None, WHOLE):
        raise InputError(f"{name}: is one list and has no split {split!r}; {ONE_LIST}")
    elif text[position : position + 1] != "[":
        raise InputError(f"{name}: {NOT_A_LIST}")
    position = _skip_space(text, position + 1)
    ended = text[position : position + 1] == "]"
    while not ended:
        line, counted = line + text.count("\n", counted, position), position
        where = f"{name}:{line}"
        try:
            value, position = _DECODER.raw_decode(text, position)
        except json.JSONDecodeError as error:
            problem = f"broken JSON: {error.msg} at column {error.colno}"
            yield RawRow(f"{name}:{error.lineno}", problem=problem, ends=True)
            return
        except (_JsonFault, RecursionError) as error:
            yield RawRow(where, problem=f"broken JSON: {error}", ends=True)
            return
        yield _object_row(value, where)
        position = _skip_space(text, position)
        follows = text[position : position + 1]
        if follows not in (",", "]") or not follows:
            line += text.count("\n", counted, position)
            yield RawRow(f"{name}:{line}", problem="broken JSON: expected ',' or ']' after an object", ends=True)
            return
        ended = follows == "]"
        position = _skip_space(text, position + 1)


def _list_in_object(text: str, position: int, name: str, split: str | None) -> int:
    """Where the list of rows begins in an object such as `{"train": [...], "test": [...]}`. Raises InputError where
    there is none, and where there are several and `split` names none of them."""
    lists: dict[str, int] = {}
    follows = text[_skip_space(text, position + 1) :][:1].replace('"', ",")
    try:
        while follows == ",":
            key, position = _DECODER.raw_decode(text, _skip_space(text, position + 1))
            position = _skip_space(text, position)
            if text[position : position + 1] != ":":
                raise json.JSONDecodeError("Expecting ':' delimiter", text, position)
            begins = _skip_space(text, position + 1)
            value, position = _DECODER.raw_decode(text, begins)
            if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
                lists[key] = begins
            position = _skip_space(text, position)
            follows = text[position : position + 1]
    except json.JSONDecodeError as error:
        raise InputError(f"{name}:{error.lineno}: broken JSON: {error.msg} at column {error.colno}") from None
    except (_JsonFault, RecursionError) as error:
        raise InputError(f"{name}: broken JSON: {error}") from None
    if follows != "}" or _skip_space(text, position + 1) < len(text) or not lists or set(lists) & ROW_LISTS:
        raise InputError(f"{name}: {NOT_A_LIST}")
    if split is None and len(lists) == 1:
        split = next(iter(lists))
        info_once(f"{name}: read the rows of {split!r}")
    if split not in lists:
        has = ", ".join(map(repr, lists))
        which = f"has no list {split!r}, but {has}" if split else f"has several lists, {has}"
        raise InputError(f"{name}: {which}; choose one, as in {name}?split={next(iter(lists))}")
    return lists[split]


def _skip_space(text: str, position: int) -> int:
    while position < len(text) and text[position] in " \t\r\n":
        position += 1
    return position


def _hub_rows(source: Source, text: str) -> list[RawRow]:
    """Rows of a data set of the Hugging Face hub; `where` counts rows from 1."""
    if unknown := sorted(set(source.options) - set(HUB_OPTIONS)):
        raise InputError(f"{text}: unknown option {unknown[0]!r}; a hub id takes ?split=…, &config=… and &revision=…")
    if importlib.util.find_spec("datasets") is None:
        raise InputError(
            f"no such file: {text}; as an id of the Hugging Face hub it needs the package datasets, which is not "
            "installed; check the path, or run: pip install 'posttrain[datasets]'"
        )
    import datasets

    options = {"split": "train"} | dict(source.options)
    try:
        loaded = datasets.load_dataset(source.name, **{HUB_OPTIONS[key]: value for key, value in options.items()})
    except (OSError, ValueError, RuntimeError) as error:
        reason = first_line(error).rstrip(".")
        raise InputError(
            f"no such file: {text}, and as a hub id it could not be loaded ({reason}). Check the path, "
            "or the id, its split, config and revision and the network; a download saved as Parquet or JSONL works "
            "without one"
        ) from None
    rows = [checked_row(f"{source.name}:{i}", from_arrow(row)) for i, row in enumerate(loaded, start=1)]
    if not rows:
        raise InputError(f"{text} has no rows")
    return rows
