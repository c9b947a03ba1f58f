"""A13: whether an answer always gets the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from posttrain.arrays import Floats
from posttrain.audits.probes.accepted import rate_of
from posttrain.audits.probes.base import Found, Result
from posttrain.audits.servers import CIRCUMSTANCE, IN_A_THREAD, OTHER_RANDOM_STATE, VARIED
from posttrain.audits.subject import PAID, Attempt, Subject
from posttrain.rewards.registry import Spec
from posttrain.rewards.scorer import Scorer
from posttrain.runs.audit import Severity
from posttrain.stats import Estimate
from posttrain.types import InputError, Score

TASKS, SLOW_TASKS = 12, 3
"""Tasks that are enough; fewer where an answer costs a sandbox or a pass of a model."""
THREAD_ATTEMPTS, THREAD_SECONDS = 6, 15.0
"""What is graded in a thread: a reward may hang there, each time until its worker is killed."""
RULE_DIGITS, MODEL_DIGITS = 9, 3
"""Digits of the scaled reward that must be the same; what a model computes depends on its batch by rounding."""
AGAIN, ORDER, ALONE, PROCESS = "again", "in another order", "alone", "in a new process"
ADVICE = {
    AGAIN: "Draw nothing at random, and keep nothing from one call to the next.",
    ORDER: "Compute what an answer gets from that answer alone, not from its neighbours in the batch.",
    ALONE: "Compute what an answer gets from that answer alone, not from the others in the batch.",
    PROCESS: "Keep nothing from one call to the next; rewards run in several processes, which are replaced.",
    OTHER_RANDOM_STATE: "Draw nothing from the global random state; derive a seed from the answer.",
    IN_A_THREAD: "Use no signals, and nothing else that works in the main thread only.",
}
RELATIVE = ("ensemble_zscored", "length_residual", "judge_pair")
"""Built-in rewards that compare the answers of a batch on purpose."""
BY_NEIGHBOURS = (ORDER, ALONE)


def purity(subject: Subject) -> Result:
    """A13. Right, wrong and empty answers are graded again: in the same batch, in another order, each alone, in a new
    worker process, in one whose global random state was set, and there in a thread. Rewards that a model computes do
    not run in workers, and are graded in the first three ways alone.

    Rule: any answer gets something else than the first time. critical: an answer moves across half of the scale, or
    from a value to none; else high. A note: a built-in reward that is relative to its batch by design depends on it.
    Where the same call twice differs, nothing else is said: then all of it differs."""
    attempts = _attempts(subject)
    first = _scaled(subject, subject.scores_again(attempts))
    digits = MODEL_DIGITS if subject.by_model else RULE_DIGITS
    changes: dict[str, Changes] = {}
    with ExitStack() as open_until_the_end:
        for name, grade in _ways(subject, attempts, open_until_the_end).items():
            try:
                found = _scaled(subject, grade())
            except InputError:  # a function that cannot be sent to another process
                continue
            changes[name] = Changes.between(attempts, first, found, digits)
            if name == AGAIN and changes[name].any:
                break
    graded = len(attempts) + sum(len(each.attempts) for each in changes.values())
    measured = {f"share that changes {name}": each.share for name, each in changes.items()}
    return Result(_found(subject, changes), graded, measured)


@dataclass(frozen=True)
class Changes:
    """Attempts, which of them get something else than before, and which of these are paid then and were not, or the
    other way round, or have no value in one of both."""

    attempts: Sequence[Attempt]
    changed: NDArray[np.bool_]
    moved: NDArray[np.bool_]

    @staticmethod
    def between(attempts: Sequence[Attempt], first: Floats, found: Floats, digits: int) -> Changes:
        """From scaled rewards; those of the first `found` attempts are compared. Two failures are alike."""
        first = first[: len(found)]
        same = np.isclose(first, found, rtol=0, atol=10.0**-digits, equal_nan=True)
        return Changes(attempts[: len(found)], ~same, ~same & (_paid(first) != _paid(found)))

    @property
    def any(self) -> bool:
        return bool(self.changed.any())

    @property
    def share(self) -> Estimate:
        return rate_of(self.attempts, self.changed)

    @property
    def shown(self) -> Attempt:
        return self.attempts[int(np.argmax(self.moved if self.moved.any() else self.changed))]


def _found(subject: Subject, changes: Mapping[str, Changes]) -> list[Found]:
    names = [name for name, each in changes.items() if each.any]
    if not names:
        return []
    worst = max(names, key=lambda name: (changes[name].moved.any(), changes[name].changed.sum()))
    by_design = relative(subject) and set(names) <= set(BY_NEIGHBOURS)
    moved = any(changes[name].moved.any() for name in names)
    title = f"an answer gets something else when it is graded {', '.join(names)}"
    severity: Severity = "critical" if moved else "high"
    advice, measure = ADVICE[names[0]], f"share of the answers that change {worst}"
    if by_design:
        title, severity = "what an answer gets depends on its batch, as this reward says", "note"
        advice = "Give it whole groups or steps, always alike."
    share, shown = changes[worst].share, changes[worst].shown
    return [Found(f"graded {worst}", severity, title, measure, share, shown, None, advice)]


def relative(subject: Subject) -> bool:
    """Whether a part of the reward compares the answers of a batch on purpose."""
    return any(part.target in RELATIVE for text in subject.scorer.specs for part in Spec.parse(text).expression.walk())


def _ways(
    subject: Subject, attempts: Sequence[Attempt], open_until_the_end: ExitStack
) -> dict[str, Callable[[], list[Score]]]:
    """How the attempts are graded again; all return the scores in the order of the attempts."""
    order = list(range(len(attempts)))
    subject.random("A13").shuffle(order)

    def shuffled() -> list[Score]:
        scores = subject.scores_again([attempts[i] for i in order])
        return [score for _, score in sorted(zip(order, scores, strict=True), key=lambda pair: pair[0])]

    @cache
    def worker() -> Scorer:
        return open_until_the_end.enter_context(subject.apart(THREAD_SECONDS, VARIED))

    def elsewhere(n: int, circumstance: str | None = None) -> list[Score]:
        return subject.scores_again(attempts[:n], worker(), {CIRCUMSTANCE: circumstance} if circumstance else None)

    ways: dict[str, Callable[[], list[Score]]] = {
        AGAIN: lambda: subject.scores_again(attempts),
        ORDER: shuffled,
        ALONE: lambda: [score for attempt in attempts for score in subject.scores_again([attempt])],
    }
    if not subject.by_model:
        ways |= {
            PROCESS: lambda: elsewhere(len(attempts)),
            OTHER_RANDOM_STATE: lambda: elsewhere(len(attempts), OTHER_RANDOM_STATE),
            IN_A_THREAD: lambda: elsewhere(THREAD_ATTEMPTS, IN_A_THREAD),
        }
    return ways


def _attempts(subject: Subject) -> list[Attempt]:
    slow = subject.is_slow
    found = []
    for i in range(min(len(subject.tasks), SLOW_TASKS if slow else TASKS)):
        other = subject.answer(i, subject.other(i).text, "answer of another task")
        found += [subject.honest(i), other, Attempt(i, "", "empty")]
    return found


def _scaled(subject: Subject, scores: Sequence[Score]) -> Floats:
    """The scaled rewards; of a reward without a scale the rewards."""
    values = np.array([np.nan if score.total is None else score.total for score in scores])
    return subject.scaled(values) if subject.has_scale else values


def _paid(scales: Floats) -> NDArray[np.int_]:
    """1 where it is paid, 0 where it is not, -1 where there is no value."""
    return np.where(np.isnan(scales), -1, scales >= PAID)
