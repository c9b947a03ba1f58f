"""A limit to what a template of somebody else's may take."""

from __future__ import annotations

import ctypes
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn


class OutOfProcessorTime(Exception):
    """What ran has used up its processor time."""


@contextmanager
def processor_limit(seconds: float) -> Iterator[None]:
    """Raise OutOfProcessorTime in what runs here once it has computed for so long: this process, in its main thread,
    else this thread alone. Time that other processes take does not count. Only Python code can be stopped, and in other
    threads only where the system has a clock for each (macOS has none, and Windows not even for the main thread)."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield from _watched(seconds)
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


def _watched(seconds: float) -> Iterator[None]:
    """The limit in a thread that gets no signals: another one reads its clock."""
    if not hasattr(time, "pthread_getcpuclockid"):
        yield
        return
    thread, ended = threading.get_ident(), threading.Event()
    clock = time.pthread_getcpuclockid(thread)
    end = time.clock_gettime(clock) + seconds

    def watch() -> None:
        while not ended.wait(max(0.01, end - time.clock_gettime(clock))):
            if time.clock_gettime(clock) >= end:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(OutOfProcessorTime))
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()  # what it has raised reaches this thread in here at the latest
