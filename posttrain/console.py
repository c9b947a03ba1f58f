"""What long work shows on standard error: a bar in a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

from posttrain.config.base import RENAMED
from posttrain.text import printable
from posttrain.wording import described

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

PLAIN_LINE_SECONDS, NOTEBOOK_SECONDS = 10.0, 0.3


def format_numbers(numbers: Mapping[str, float | None]) -> str:
    """`loss 1.234  reward 0.5`: four significant digits, large numbers without an exponent; numbers that were not
    computed are left out."""
    return "  ".join(f"{name} {_number(value)}" for name, value in numbers.items() if value is not None)


def _number(value: float) -> str:
    return f"{value:.0f}" if 1e4 <= abs(value) < 1e9 else f"{value:.4g}"


_worded: Callable[[str], str] = str


@contextmanager
def speaking(words: Callable[[str], str]) -> Iterator[None]:
    """Have all that is said in here, in whatever thread, go through `words`, and then as before."""
    global _worded
    before = _worded

    def both(text: str) -> str:
        return before(words(text))

    _worded = both
    try:
        yield
    finally:
        _worded = before


def info(text: str) -> None:
    """Say on standard error where long work is."""
    print(printable(_worded(text)), file=sys.stderr, flush=True)


def warn(text: str) -> None:
    """Say on standard error what a user should know though the work goes on."""
    info(f"warning: {text}")


def loading(name: str) -> None:
    """Say that a model is to be loaded, which takes some seconds with the libraries it needs. In a notebook the
    progress of the work takes the line's place."""
    global _begun
    text = f"loading {short_path(name)}"
    if (line := _notebook_line()) is None:
        info(text)
    else:
        line(printable(text))
        _begun = _cell(), line


info_once, _warn_once = cache(info), cache(warn)
"""The same, once a process: stages of a recipe read the same files."""


def current_names(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by the names that options have now; a warning names an old one once a process."""
    for old, new in RENAMED.items():
        if old in settings:
            _warn_once(f"{old} is called {new} now; the old name is read for one version more")
    return {RENAMED.get(name, name): value for name, value in settings.items()}


def print_numbers(numbers: Mapping[str, Any], *, lists: bool = True) -> None:
    """Print what was measured on standard error, a number a line, with what is in lists or without it."""
    for name, words in described(numbers, lists=lists):
        print(printable(f"{name:32} {words}"), file=sys.stderr, flush=True)


def short_path(name: str) -> str:
    """The last two parts of a path, enough beside a bar: `sft/model`. A hub id stays whole."""
    return str(Path(*Path(name).parts[-2:]))


class Progress:
    """The progress of one stage, as a context manager.

    In a terminal: a bar, the step, the time left and the latest numbers; in a notebook one line that changes. Elsewhere
    (a file, a pipe, CI): the first step, the last one, and in between one line at most every `seconds`. `total` is None
    where the length is unknown.
    `unit` is what is counted: steps, or `rows`, `tasks`.
    """

    def __init__(
        self,
        title: str,
        total: int | None,
        *,
        unit: str = "step",
        stream: TextIO | None = None,
        seconds: float = PLAIN_LINE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        global _begun
        self._title = title = printable(title)
        self._total = total
        self._unit = unit
        self._stream = sys.stderr if stream is None else stream
        self._seconds = seconds
        self._clock = clock
        self._last_line: float | None = None
        self._shown = _notebook_line() if stream is None else None
        if self._shown is not None and _begun is not None and _begun[0] == _cell():
            self._shown, _begun = _begun[1], None
        self._bar = _bar(self._stream) if self._stream.isatty() else None
        self._task = None if self._bar is None else self._bar.add_task(title, total=total, unit=unit, numbers="")

    def __enter__(self) -> Progress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, step: int, numbers: Mapping[str, float | None] | None = None) -> None:
        """So many steps (or what `unit` says) are done; `numbers` are shown beside it."""
        text = printable(format_numbers(numbers or {}))
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=step, numbers=text)
            return
        now = self._clock()
        seconds = self._seconds if self._shown is None else NOTEBOOK_SECONDS
        if self._last_line is None or step == self._total or now - self._last_line >= seconds:
            self._last_line = now
            of = "" if self._total is None else f"/{self._total}"
            (self._shown or self._write)(f"{self._title}: {self._unit} {step}{of}  {text}".rstrip())

    def _write(self, line: str) -> None:
        print(printable(line), file=self._stream, flush=True)


_begun: tuple[int, Callable[[str], None]] | None = None
"""The line in which a notebook's cell has said that it is loading, with the number of the cell."""


def _cell() -> int:
    return int(sys.modules["IPython"].get_ipython().execution_count)


def _notebook_line() -> Callable[[str], None] | None:
    """Shows a text in the output of a notebook's cell, each in the place of the one before; None outside notebooks."""
    ipython: Any = sys.modules.get("IPython")
    if ipython is None or not hasattr(ipython.get_ipython(), "kernel"):
        return None
    place: Any = None

    def show(text: str) -> None:
        nonlocal place
        data = {"text/plain": text}
        if place is None:
            place = ipython.display.display(data, raw=True, display_id=True)
        else:
            place.update(data, raw=True)

    return show


def _bar(stream: TextIO) -> Bar:
    # imported for terminals alone, since commands that read data begin faster without it
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[unit]}", markup=False),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[numbers]}", markup=False),
        console=Console(file=stream),
    )
