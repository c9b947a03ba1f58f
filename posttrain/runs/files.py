"""The files of a run folder: written whole, read line by line, and refused where they are damaged or links."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from posttrain.runs.rollouts import by_step, locate
from posttrain.tool_calls import no_constant
from posttrain.types import InputError

ROLLOUTS = "rollouts.jsonl"


def write_atomic(path: Path, content: str | memoryview) -> None:
    """Write a file whole or not at all. A link in its place is replaced; what the link points to is left alone."""
    scratch = path.with_name(f".{path.name}.partial")
    try:
        scratch.unlink(missing_ok=True)  # what a kill left, or a link that somebody put there
        with scratch.open("xb") as stream:
            stream.write(content.encode(errors="replace") if isinstance(content, str) else content)
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a JSONL file of ours; a torn last line is dropped. A missing file is empty.

    Raises InputError, naming the line, where one is no JSON object."""
    return [row for _, row in numbered_jsonl(path)]


def numbered_jsonl(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """`read_jsonl` with the place of each line, "path:line"."""
    lines = enumerate((read_file(path) or b"").split(b"\n")[:-1], start=1)
    return [(where, parse_object(line, where)) for where, line in ((f"{path}:{i}", line) for i, line in lines if line)]


def read_recorded(path: Path, read: Callable[[dict[str, Any]], object]) -> list[dict[str, Any]]:
    """`read_jsonl` of lines that a resume goes on from, each of a whole `step`. Raises InputError, naming the line,
    where `read` fails on one."""
    rows = []
    for where, row in numbered_jsonl(path):
        try:
            if type(row["step"]) is not int:
                raise TypeError(f"its step is {row['step']!r}")
            read(row)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{where}: damaged, it is no line of this run ({type(error).__name__}: {error})") from None
        rows.append(row)
    return rows


def read_rollouts(out: Path, read: Callable[[dict[str, Any]], object]) -> dict[int, list[dict[str, Any]]]:
    """`read_recorded` of a run's `rollouts.jsonl` by step; `segments_of` reads the token rows of each."""
    return by_step(read_recorded(out / ROLLOUTS, lambda row: read(locate(row, out))))


def read_metrics(out: Path) -> list[dict[str, Any]]:
    """`read_recorded` of a run's `metrics.jsonl`, of which every line says what its step cost."""
    return read_recorded(
        out / "metrics.jsonl", lambda row: [row[name] + 0.0 for name in ("tokens", "flops", "step_seconds")]
    )


def read_file(path: Path) -> bytes | None:
    """The content of a file, None if it is missing. Raises InputError for what is no file, as a folder or a
    pipe, from which nothing may ever come."""
    if not path.exists():
        return None
    if not path.is_file():
        raise InputError(f"{path}: damaged, it is no file")
    return path.read_bytes()


def parse_object(data: bytes | str, where: str) -> dict[str, Any]:
    """A JSON object of ours. Raises InputError, which begins with `where`, for anything else."""
    try:
        value = json.loads(data, parse_constant=no_constant)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: damaged, it is no JSON ({' '.join(str(error).split())[:100]})") from None
    if not isinstance(value, dict):
        raise InputError(f"{where}: damaged, it holds no JSON object")
    return value


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file; {} if the file is missing. Raises InputError for anything else."""
    data = read_file(path)
    return {} if data is None else parse_object(data, str(path))


def refuse_links(*places: Path) -> None:
    """Raise InputError for what is neither a file nor a folder at these places of a run folder, or below: through a
    symbolic link whoever made it could have us write elsewhere, and a pipe could keep us waiting."""
    for place in places:
        below = (Path(root, name) for root, folders, files in os.walk(place) for name in (*folders, *files))
        for found in (place, *below):
            if found.is_symlink():
                raise InputError(f"{found} is a symbolic link, and nothing is written through links; remove it")
            if found.exists() and not found.is_file() and not found.is_dir():
                raise InputError(f"{found} is neither a file nor a folder; remove it")
