"""How much work a call is, whatever else the machine does."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable


def effort(call: Callable[[], object]) -> float:
    """Processor time of a call, with that of its children that have ended, in plain loops of a hundred thousand rounds:
    about 2 ms each on an idle core. They are timed before and after it, so that what slows the call slows them."""
    before = _spent(_loop)
    spent = _spent(call)
    return spent / max(before, _spent(_loop))


def _loop() -> None:
    for _ in range(100_000):
        pass


def _spent(call: Callable[[], object]) -> float:
    begun = _processor_seconds()
    call()
    return _processor_seconds() - begun


def _processor_seconds() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime
