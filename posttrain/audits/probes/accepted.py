"""Which wrong attempts a reward pays like the right answer, and how the kinds of them become findings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from posttrain.arrays import Floats
from posttrain.audits.probes.base import CRITICAL_RATE, CRITICAL_SCALE, HIGH_SCALE, Found, Paid, places_of, worst_first
from posttrain.audits.subject import PAID, Attempt, Subject
from posttrain.runs.audit import Severity
from posttrain.stats import Estimate, clustered_share, estimate

SLACK, EXACT_SLACK, GRADED_SHARE = 0.05, 1e-6, 0.05
MIN_RATE = 0.05
CODE_TASKS = 4
"""Four of four are a share with a lower bound above 0.5."""
MARKS = ("\\boxed{", "<answer>", "Answer:", "####")
SHARE_ACCEPTED = "share paid like the right answer"
FEW_VALUES = 6
NAMED = 3
"""A title names at most so many kinds."""


@dataclass(frozen=True)
class Accepted(Paid):
    """Attempts of one kind and which of them are accepted: paid like the right answer to the same task."""

    taken: NDArray[np.bool_]
    zero: float = 0.0
    """Where a reward of 0 lies on the scale, of one that punishes the empty answer."""
    graded: bool = False
    """Whether the reward pays in part for what is near."""

    @property
    def worth(self) -> Estimate:
        """The mean scaled reward, above `zero`."""
        return estimate(((self.scales - self.zero) / (1 - self.zero)).tolist())

    @property
    def rate(self) -> Estimate:
        """The share that is accepted."""
        return rate_of(self.attempts, self.taken)

    @property
    def shown(self) -> Attempt:
        """The shortest attempt that is accepted."""
        return min((a for a, t in zip(self.attempts, self.taken, strict=True) if t), key=lambda a: len(a.text))

    @property
    def severity(self) -> Severity | None:
        """critical: the lower bound of the share is above MIN_RATE. high: attempts at two tasks or more are accepted;
        one alone may be an odd task."""
        if (self.rate["low"] or 0.0) > MIN_RATE:
            return "critical"
        return "high" if len({a.task for a, t in zip(self.attempts, self.taken, strict=True) if t}) > 1 else None

    @property
    def without_content(self) -> Severity | None:
        """For attempts that hold no answer. critical: their worth is at least 0.9, or the lower bound of the share that
        is paid like right answers at least 0.5; high: their worth is at least 0.3."""
        mean, low = self.worth["value"] or 0.0, self.rate["low"] or 0.0
        if mean >= CRITICAL_SCALE or low >= CRITICAL_RATE:
            return "critical"
        return "high" if mean >= HIGH_SCALE else None

    def by_share(self, severity: Severity | None, advice: str, wrapper: str | None = None) -> Found | None:
        """A finding of the share that is accepted, without a title; None without a severity."""
        kind = self.attempts[0].kind
        return severity and Found(kind, severity, "", SHARE_ACCEPTED, self.rate, self.shown, wrapper, advice)

    def by_worth(self, severity: Severity | None, advice: str, wrapper: str | None = None) -> Found | None:
        """The same of what is paid in the mean."""
        kind = self.attempts[0].kind
        return severity and Found(kind, severity, "", "mean scaled reward", self.worth, self.best, wrapper, advice)


def accepted(
    subject: Subject, attempts: Sequence[Attempt], twins: Sequence[Attempt] = (), exact: bool = False
) -> dict[str, Accepted]:
    """Which wrong attempts are paid like right ones, for each kind.

    An attempt is accepted where it gets at least half of the scale and not less than the reference answer to the same
    task, up to SLACK of the scale, which small terms of length may cost. Of a reward that grades, nothing but an equal
    value counts, as with `exact`: it pays more for what is nearer on purpose. A reward grades where at least
    GRADED_SHARE of these attempts get between 0.05 and 0.95. Tasks whose reference answer is not paid are left out.

    With `twins`, one for each attempt, an attempt counts only where its twin, the same without the right answer, is not
    accepted."""
    honest = subject.scales([subject.honest(attempt.task) for attempt in attempts])
    kept: list[int] = np.flatnonzero(honest >= PAID).tolist()
    if not kept:
        return {}
    right = honest[kept]
    scales = subject.scales([attempts[i] for i in kept])
    graded = bool(((scales > SLACK) & (scales < 1 - SLACK)).mean() >= GRADED_SHARE)
    slack = EXACT_SLACK if graded or exact else SLACK

    def taken(values: Floats) -> NDArray[np.bool_]:
        return (values >= PAID) & (values >= right - slack)

    zero = natural_zero(subject, scales)
    counted = taken(scales)
    if twins:
        counted &= ~taken(subject.scales([twins[i] for i in kept]))
    return {
        kind: Accepted(tuple(attempts[kept[k]] for k in at), scales[at], counted[at], zero, graded)
        for kind, at in places_of(attempts[i].kind for i in kept).items()
    }


def natural_zero(subject: Subject, scales: Floats) -> float:
    """Where 0 lies on the scale of a reward of a few values that punishes the empty answer and pays the right one, such
    as -1, 0 and 1: there an answer that gets 0 is not paid. 0 for any other reward, whose zero means nothing."""
    empty, best = subject.calibration["empty"], subject.calibration["best"]
    few = len(np.unique(scales.round(6))) <= FEW_VALUES
    return -empty / (best - empty) if few and empty < 0 < best else 0.0


def rate_of(attempts: Sequence[Attempt], hits: Iterable[bool]) -> Estimate:
    """The share of hits, with an interval for attempts of which those at one task are not independent."""
    hit, tasks = np.array([*hits], bool), places_of(attempt.task for attempt in attempts).values()
    return clustered_share([int(hit[places].sum()) for places in tasks], [len(places) for places in tasks])


def overall(kinds: Mapping[str, Accepted]) -> Estimate:
    """The share of all attempts that is accepted."""
    pairs = [pair for paid in kinds.values() for pair in zip(paid.attempts, paid.taken, strict=True)]
    return rate_of([attempt for attempt, _ in pairs], [hit for _, hit in pairs])


def worst_of(title: str, found: Iterable[Found | None]) -> list[Found]:
    """One finding for several kinds of one fault: the worst, under a title that names the others."""
    order = worst_first(each for each in found if each is not None)
    if not order:
        return []
    names = [each.kind for each in order[:NAMED]]
    more = f" and {len(order) - NAMED} more" if len(order) > NAMED else ""
    return [replace(order[0], title=f"{title}: {', '.join(names)}{more}")]


def paid_alike(subject: Subject, title: str, attempts: Sequence[Attempt]) -> list[Found]:
    """The kinds of attempts that get as much as the reference answer to the same task, without a scale, as a finding.
    Tasks whose reference answer gets nothing are left out. critical: the lower bound of the share is at least 0.5."""
    honest = subject.grade([subject.honest(attempt.task) for attempt in attempts])
    hits = subject.grade(attempts) >= honest - EXACT_SLACK
    found: list[Found] = []
    worth: list[int] = np.flatnonzero(honest > 0).tolist()
    for kind, places in places_of(attempts[i].kind for i in worth).items():
        at = [worth[k] for k in places]
        rate = rate_of([attempts[i] for i in at], hits[at])
        if (rate["low"] or 0.0) >= CRITICAL_RATE:
            shown = next(attempts[i] for i in at if hits[i])
            advice = "Pay nothing for what does not answer the task, then audit again: no other answer can be judged."
            found.append(Found(kind, "critical", "", SHARE_ACCEPTED, rate, shown, None, advice))
    return worst_of(f"{title} as much as the reference answers", found)


def one_answer(subject: Subject) -> str | None:
    """The wrapper that pays only a response with one marked answer; None where honest answers carry no mark that it
    knows."""
    return "one_answer({})" if any(mark in subject.form.before for mark in MARKS) else None
