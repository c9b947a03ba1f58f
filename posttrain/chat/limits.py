"""A limit to what a template of somebody else's may take."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn


class OutOfProcessorTime(Exception):
    """What ran has used up its processor time."""


@contextmanager
def processor_limit(seconds: float) -> Iterator[None]:
    """Raise OutOfProcessorTime in what runs here once this process has computed for so long meanwhile. Time that other
    processes take does not count. Only Python code can be stopped, and only in the main thread; elsewhere there is no
    limit."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGVTALRM, _stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    raise OutOfProcessorTime
