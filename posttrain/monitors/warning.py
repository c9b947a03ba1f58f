"""What the monitors that only warn are made of.

Each looks at every step for a sign, mostly a change since the beginning of the run, and warns once. None of them tests
a hypothesis: how often they warn of runs in which nothing is wrong was measured (docs/monitors.md) and is no guarantee.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from posttrain.alerts import Alert, StepRecord
from posttrain.monitors.alarms import Suspect, alarm, worst
from posttrain.monitors.stopping import Observed

Floats = NDArray[np.float64]
FIRST, RECENT = 20, 10
"""Steps of the beginning of a run, and steps that are compared with them."""
NOISE = 4.0
"""Standard errors by which two means must differ."""


class Sign(NamedTuple):
    """Something worth a warning: what was measured, what it should not exceed (or fall below), and both in words."""

    value: float
    threshold: float
    reason: str


class Looked(NamedTuple):
    """What a look at a step found, and the answers that speak for it."""

    sign: Sign | None = None
    suspects: Sequence[Suspect] = ()


Look = Callable[[StepRecord], Looked]
"""It sees each step once, in order."""
Judge = Callable[[Floats, Floats], tuple[float, float, bool]]
"""From the first values of a run and the last ones: a value, a threshold, and whether that is a sign."""


class WarningMonitor:
    """Warns of the first sign."""

    def __init__(self, monitor: str, look: Look) -> None:
        self.monitor, self._look = monitor, look
        self._suspects: list[Suspect] = []
        self._silent = False

    def __call__(self, record: StepRecord) -> Iterator[Alert]:
        if self._silent:
            return
        sign, suspects = self._look(record)
        self._suspects = worst(suspects, self._suspects)
        if sign is not None:
            self._silent = True
            value, threshold, reason = sign
            yield alarm(self.monitor, record, reason, value=value, threshold=threshold, suspects=self._suspects)


class Comparison:
    """The last values of a run beside its first ones, which are apart from them. `words` get `value`, `threshold` and
    `first`, the mean of the first values."""

    def __init__(self, judge: Judge, words: str, *, first: int = FIRST, recent: int = RECENT) -> None:
        self._judge, self._words, self._begins = judge, words, first
        self._first: list[float] = []
        self._recent: deque[float] = deque(maxlen=recent)

    def add(self, values: Sequence[float]) -> Sign | None:
        """The sign that there is with these values."""
        missing = self._begins - len(self._first)
        self._first += values[:missing]
        self._recent.extend(values[missing:])
        if not values or len(self._recent) < (self._recent.maxlen or 0):
            return None
        first = np.array(self._first)
        value, threshold, found = self._judge(first, np.array(self._recent))
        if not found:
            return None
        mean = float(first.mean()) if len(first) else math.nan
        return Sign(value, threshold, self._words.format(value=value, threshold=threshold, first=mean))


def compared(observe: Callable[[StepRecord], Observed], comparison: Comparison) -> Look:
    """A look that compares what it observes."""

    def look(record: StepRecord) -> Looked:
        values, suspects = observe(record)
        return Looked(comparison.add(values), suspects)

    return look


def noise(first: Floats, recent: Floats, errors: float = NOISE) -> float:
    """So many standard errors of the difference of the means, by the spread of the first values."""
    spread = float(first.std(ddof=1)) if len(first) > 1 else 0.0
    return errors * spread * math.sqrt(1 / len(first) + 1 / len(recent))


def risen(margin: float, errors: float = NOISE) -> Judge:
    """The mean is higher by more than the margin, and by more than noise."""

    def judge(first: Floats, recent: Floats) -> tuple[float, float, bool]:
        value, threshold = float(recent.mean()), float(first.mean()) + max(margin, noise(first, recent, errors))
        return value, threshold, value > threshold

    return judge


def changed(margin: float) -> Judge:
    """The mean is higher or lower by more than the margin, and by more than noise. The threshold is on its side."""

    def judge(first: Floats, recent: Floats) -> tuple[float, float, bool]:
        value, before, most = float(recent.mean()), float(first.mean()), max(margin, noise(first, recent))
        return value, before + math.copysign(most, value - before), abs(value - before) > most

    return judge


def times(factor: float) -> Judge:
    """The mean has grown beyond, or for a factor below 1 fallen below, so many times that of the beginning. Where that
    is 0, there is nothing to compare with."""

    def judge(first: Floats, recent: Floats) -> tuple[float, float, bool]:
        value, threshold = float(recent.mean()), factor * float(first.mean())
        return value, threshold, (value > threshold if factor > 1 else value < threshold) and threshold > 0

    return judge


def crossed(limit: float) -> Judge:
    """The mean is above the limit and was not at the beginning."""

    def judge(first: Floats, recent: Floats) -> tuple[float, float, bool]:
        value = float(recent.mean())
        return value, limit, value > limit and float(first.mean()) <= limit

    return judge
