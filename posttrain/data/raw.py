"""A row as it stands in a file, and the bytes it is read from."""

from __future__ import annotations

import gzip
import io
import math
import re
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from posttrain.text import first_line
from posttrain.types import InputError

UNPACKED_BYTES = 1 << 32
"""What a compressed file may unpack to: a small one can hold more than a machine has memory."""
HALF = re.compile("[\ud800-\udfff]")
"""Half a character: a surrogate that stands alone."""


@dataclass(frozen=True)
class RawRow:
    """One row as it stands in the file. `where` is "path:line"; `problem` says why it could not be read. `index` is its
    place among all rows of the sources, where that is not its place in the list; `ends` that nothing after it could be
    read."""

    where: str
    columns: dict[str, Any] = field(default_factory=dict)
    problem: str | None = None
    index: int | None = None
    ends: bool = False

    def checked(self) -> dict[str, Any]:
        """The columns. Raises InputError for a row that could not be read."""
        if self.problem is not None:
            raise InputError(f"{self.where}: {self.problem}")
        return self.columns


def checked_row(where: str, columns: dict[str, Any]) -> RawRow:
    """The row, unless it holds something that no tokenizer, reward or JSON file could take."""
    for name, value in columns.items():
        if fault := _fault(name) or _fault(value):
            return RawRow(where, problem=f"column {name!r} holds {fault}")
    return RawRow(where, columns)


def _fault(value: Any) -> str | None:
    """What is wrong with a value, or with a part of a list or an object."""
    if isinstance(value, str):
        half = None if value.isascii() else HALF.search(value)
        return half and f"half a character (the surrogate U+{ord(half[0]):04X}); write the whole one or remove it"
    if isinstance(value, float) and not math.isfinite(value):
        return f"{value}, which is no number; use null where there is none"
    if isinstance(value, dict):
        value = [*value, *value.values()]
    for part in value if isinstance(value, list | tuple) else ():
        # most parts are short texts
        if not (type(part) is str and part.isascii()) and (fault := _fault(part)):
            return fault
    return None


def read_bytes(path: Path) -> bytes:
    """The content of a file, unpacked where its name ends in `.gz`. Raises InputError where it cannot be read, and
    where it unpacks to more than `UNPACKED_BYTES`."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    if path.suffix != ".gz":
        return data
    try:
        with gzip.open(io.BytesIO(data)) as stream:
            content = stream.read(UNPACKED_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: not a whole gzip file: {first_line(error).rstrip('.')}") from None
    if len(content) > UNPACKED_BYTES:
        raise InputError(
            f"{path}: unpacks to more than {UNPACKED_BYTES / 2**30:g} GiB; unpack it yourself if that is meant"
        )
    return content


def decode(data: bytes, name: str) -> str:
    """UTF-8 text. Raises InputError naming the line of the first byte that is none."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        byte = data[error.start]
        raise InputError(f"{name}:{line}: not UTF-8 (byte {byte:#04x}); save the file as UTF-8") from None
