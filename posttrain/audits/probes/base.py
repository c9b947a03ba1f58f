"""What probes share: what they return, and how answers that are paid become findings."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from posttrain.arrays import Floats
from posttrain.audits.subject import PAID, Attempt, Subject
from posttrain.runs.audit import SEVERITIES, Severity
from posttrain.stats import FEW_TASKS, Estimate, difference, estimate, share


@dataclass(frozen=True)
class Found:
    """A finding of a probe. `shown` is the attempt that shows it best; `wrapper` is the reward expression that closes
    it, with `{}` for the reward, or without to stand in place of all rewards."""

    kind: str
    severity: Severity
    title: str
    measure: str
    effect: Estimate
    shown: Attempt | None
    wrapper: str | None = None
    advice: str = ""


@dataclass(frozen=True)
class Result:
    """What a probe found with `n` graded answers, and what it measured beside its findings. With a `reason` it was not
    run."""

    findings: Sequence[Found] = ()
    n: int = 0
    measured: Mapping[str, Estimate] = field(default_factory=dict)
    reason: str | None = None


Probe = Callable[[Subject], Result]
K = TypeVar("K", bound=Hashable)


def not_run(reason: str) -> Result:
    return Result(reason=reason)


@dataclass(frozen=True)
class Paid:
    """What a reward pays for the attempts of one kind: their scaled rewards, and the one that is paid most (of equals
    the shortest)."""

    attempts: tuple[Attempt, ...]
    scales: Floats

    @property
    def mean(self) -> Estimate:
        return estimate(self.scales.tolist())

    @property
    def rate(self) -> Estimate:
        """The share that gets at least half of the scale, with Wilson's interval."""
        return share(int((self.scales >= PAID).sum()), len(self.scales))

    @property
    def best(self) -> Attempt:
        pairs = zip(self.attempts, self.scales.tolist(), strict=True)
        return min(pairs, key=lambda pair: (-round(pair[1], 6), len(pair[0].text)))[0]


def by_kind(subject: Subject, attempts: Sequence[Attempt]) -> dict[str, Paid]:
    """What the reward pays, for each kind of attempt in the order in which they come."""
    scales, kinds = subject.scales(attempts), places_of(attempt.kind for attempt in attempts)
    return {kind: Paid(tuple(attempts[i] for i in places), scales[places]) for kind, places in kinds.items()}


def places_of(keys: Iterable[K]) -> dict[K, list[int]]:
    """The indices of each key, in the order in which the keys come."""
    found: dict[K, list[int]] = {}
    for i, key in enumerate(keys):
        found.setdefault(key, []).append(i)
    return found


def worst_first(found: Iterable[Found]) -> list[Found]:
    """By severity, then by the size of the effect."""
    return sorted(found, key=lambda each: (SEVERITIES.index(each.severity), -(each.effect["value"] or 0.0)))


def alone(value: float | None, n: int = 0) -> Estimate:
    """A number without an interval."""
    return {"value": value, "low": None, "high": None, "n": n}


CRITICAL_SCALE, HIGH_SCALE, CRITICAL_RATE = 0.9, 0.3, 0.5


def paid_severity(paid: Paid) -> Severity | None:
    """critical: the mean scaled reward is at least 0.9, or the lower bound of the share that is paid at least 0.5.
    high: the mean is at least 0.3."""
    mean, low = paid.mean["value"] or 0.0, paid.rate["low"] or 0.0
    if mean >= CRITICAL_SCALE or low >= CRITICAL_RATE:
        return "critical"
    return "high" if mean >= HIGH_SCALE else None


CRITICAL_GAIN, HIGH_GAIN = 0.3, 0.05
MIN_PAIRS = 6
"""The least and the greatest of so many differences enclose their median with a probability of 1 - 2^-5, 97%."""


def gained(after: Floats, before: Floats, comparisons: int = 1) -> Estimate:
    """mean(after - before) over tasks, paired, as one of several `comparisons` (Bonferroni).

    The interval is the bootstrap's from FEW_TASKS tasks on; of MIN_PAIRS to 9 tasks it spans the least and the greatest
    difference; of fewer there is none."""
    apart = after - before
    n, value = len(apart), float(apart.mean()) if len(apart) else None
    if n < MIN_PAIRS or value is None:
        return alone(value, n)
    if n < FEW_TASKS:
        return {"value": value, "low": float(apart.min()), "high": float(apart.max()), "n": n}
    return difference(after.tolist(), before.tolist(), comparisons=comparisons)


def paid_gain(after: Floats, before: Floats, comparisons: int = 1) -> tuple[Severity, Estimate] | None:
    """A gain that is a fault. critical: a mean above 0.3 of the scale, high: above 0.05; both where the interval (see
    `gained`) is above 0. None where it is no fault."""
    if not len(after) or float((after - before).mean()) <= HIGH_GAIN:
        return None  # without the cost of an interval
    gain = gained(after, before, comparisons)
    if (gain["low"] or 0.0) <= 0:
        return None
    return ("critical" if (gain["value"] or 0.0) > CRITICAL_GAIN else "high"), gain
