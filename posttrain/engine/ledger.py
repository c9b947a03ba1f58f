"""A file in which all processes that share a budget count the requests and tokens that they have used."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from posttrain.systems import need_posix
from posttrain.types import InputError


@dataclass
class Spent:
    """Requests made, and tokens that their answers used."""

    requests: int = 0
    tokens: int = 0


@contextmanager
def counted(ledger: Path) -> Iterator[Spent]:
    """What the file holds, to be read and added to, locked meanwhile. Raises InputError for a file not ours."""
    need_posix("Counting requests and tokens together")
    import fcntl  # Windows has none

    with _opened(ledger) as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)  # whoever is killed lets go of it
        spent = _read(stream.read(), ledger)
        yield spent
        os.pwrite(stream.fileno(), f"{spent.requests:12} {spent.tokens:15}\n".encode(), 0)


def _opened(ledger: Path) -> IO[str]:
    """A ledger to read and write; never through a symbolic link (somebody else's) or a pipe. Raises InputError."""
    try:
        ledger.parent.mkdir(parents=True, exist_ok=True)
        if ledger.exists() and not ledger.is_file():
            raise OSError(errno.EINVAL, "it is no file")
        descriptor = os.open(ledger, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
    except OSError as error:
        raise InputError(f"{ledger} must count requests and tokens, and cannot be opened ({error.strerror})") from None
    return os.fdopen(descriptor, "r+", encoding="utf-8", errors="replace")


def _read(text: str, ledger: Path) -> Spent:
    words = text.split()
    if not words:
        return Spent()
    if len(words) != 2 or not all(word.isascii() and word.isdigit() for word in words):
        raise InputError(
            f"{ledger} counts requests and tokens, but holds {' '.join(words)[:80]!r}; delete it to count anew"
        )
    return Spent(*map(int, words))
