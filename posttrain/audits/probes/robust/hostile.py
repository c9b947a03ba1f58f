"""A12: hostile input."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from posttrain.audits.answers import same
from posttrain.audits.probes.accepted import SLACK, Accepted, one_answer, rate_of, worst_of
from posttrain.audits.probes.base import Found, Result, alone, by_kind, not_run, places_of
from posttrain.audits.probes.robust.hostile_texts import COMPUTED, ENDLESS, LONG, REPEATED, SHORT
from posttrain.audits.subject import PAID, Attempt, Subject
from posttrain.rewards.scorer import Scorer
from posttrain.runs.audit import Severity
from posttrain.types import InputError, Score

TASKS = 2
DEADLINE = 5.0
"""Seconds for one answer: less than in training, or an audit would wait long."""
SLOW, TOGETHER = 1.0, 30.0
"""Seconds that 95% of the answers may take at most, and that those which take longer may take together."""
LOST, P95 = "share without a score", "seconds, 95th percentile"
Clock = Callable[[], float]


@dataclass(frozen=True)
class Graded:
    """What became of hostile answers, and how many seconds each took; `again` has those of the kinds that were not
    tried again, once for each answer that was left out."""

    attempts: Sequence[Attempt]
    scores: Sequence[Score]
    seconds: Sequence[float]
    again: Sequence[float] = ()

    @property
    def lost(self) -> list[bool]:
        """Which answers have no score for a reason."""
        return [score.reason is not None for score in self.scores]

    @property
    def failed(self) -> dict[str, list[int]]:
        """The places of these, by kind."""
        kinds = places_of(attempt.kind for attempt in self.attempts)
        failed = {kind: [i for i in places if self.lost[i]] for kind, places in kinds.items()}
        return {kind: places for kind, places in failed.items() if places}


def hostile(subject: Subject, clock: Clock = time.monotonic) -> Result:
    """A12. About 50 hostile texts, bare and in the form of the answer, to two tasks, one after the other, in a worker
    process of their own that is killed after 5 seconds for an answer. A kind that takes more than a second is tried
    once, and such kinds may take 30 seconds together.

    Rules. An answer has no score, because the reward raised, gave no finite number, took too long or lost its process:
    high where more than one kind of text does that, medium for one; a sample without a score is lost for training. A
    note where only texts of 4,000 characters and more raise, or those of 100,000 do anything of it: a policy gains
    nothing by them. Paid: as answers without content (A1). Slow: the 95th percentile is above one second, high; not
    judged where a model, a sandbox or a process grades. Of a reward without a scale nothing is said of what is paid.
    Code is not tried with texts that are harmful to compute, as a program may be until its own limit."""
    attempts = _attempts(subject)
    with ExitStack() as stack:
        try:
            limit = None if subject.is_code else DEADLINE  # programs have the audit's own
            own_process = None if subject.by_model else stack.enter_context(subject.apart(limit))
        except InputError as error:
            return not_run(f"hostile answers are graded in another process, and the reward does not go there: {error}")
        graded = grade_each(subject, attempts, own_process, clock)
    subject.keep(graded.attempts, graded.scores)
    found = [*_unscored(graded), *(_paid(subject, graded) if subject.has_scale else [])]
    p95 = float(np.percentile([*graded.seconds, *graded.again], 95))
    if p95 > SLOW and not subject.is_slow:
        found.append(_slow(graded, p95))
    measured = {
        LOST: rate_of(graded.attempts, graded.lost),
        P95: alone(p95, len(graded.attempts)),
    }
    return Result(found, len(graded.attempts), measured)


def grade_each(subject: Subject, attempts: Sequence[Attempt], scorer: Scorer | None, clock: Clock) -> Graded:
    """One answer a call. In a process of their own, a kind that took more than SLOW seconds or lost its process is not
    tried again, and nothing more is tried when such kinds took TOGETHER seconds."""
    slow: dict[str, float] = {}
    again: list[float] = []
    graded: list[tuple[Attempt, Score, float]] = []
    for attempt in attempts:
        if attempt.kind in slow:
            again.append(slow[attempt.kind])
            continue
        if sum(slow.values()) > TOGETHER:
            break
        before = clock()
        (score,) = subject.scores_again([attempt], scorer)
        seconds = clock() - before
        graded.append((attempt, score, seconds))
        if scorer is not None and (seconds > SLOW or was_lost(score)):
            slow[attempt.kind] = seconds
        if scorer is not None and was_lost(score):
            subject.scores_again([Attempt(0, "", "empty")], scorer)  # starts a new worker, off the clock
    kept, scores, taken = zip(*graded, strict=True)
    return Graded(kept, scores, taken, again)


def was_lost(score: Score) -> bool:
    """Whether the worker was killed, or ended by itself."""
    return score.reason is not None and any(word in score.reason for word in ("timed out", "the worker process"))


def _attempts(subject: Subject) -> list[Attempt]:
    """Bare and in the form, of code in the form alone; without those that would be right."""
    texts = {**SHORT, **REPEATED, **({} if subject.is_code else COMPUTED)}
    if subject.by_model:
        texts = {kind: text for kind, text in texts.items() if len(text) <= LONG}  # more costs too much
    found = []
    for i in range(1 if subject.is_slow else min(TASKS, len(subject.tasks))):
        for kind, text in texts.items():
            if not same(subject.tasks[i], text):
                whole = dict.fromkeys(([] if subject.is_code else [text]) + [subject.form.render(text)])
                found += [Attempt(i, each, kind) for each in whole]
    return found


def _unscored(graded: Graded) -> list[Found]:
    failed = graded.failed
    if not failed:
        return []

    def short(i: int) -> bool:
        return len(graded.attempts[i].text) < (ENDLESS if was_lost(graded.scores[i]) else LONG)

    failed = {kind: [i for i in places if short(i)] or places for kind, places in failed.items()}
    kinds = [kind for kind, places in failed.items() if short(places[0])]
    severity: Severity = "high" if len(kinds) > 1 else "medium" if kinds else "note"
    places = [i for kind in kinds or failed for i in failed[kind]]
    shortest = min(places, key=lambda i: len(graded.attempts[i].text))
    shown, named = graded.attempts[shortest], ", ".join((kinds or list(failed))[:3])
    more = f" and {len(kinds) - 3} more" if len(kinds) > 3 else ""
    title, rate = f"hostile answers have no score: {named}{more}", rate_of(graded.attempts, graded.lost)
    advice = f"Give every text a finite number, in time. The first reason: {graded.scores[shortest].reason}"
    return [Found(shown.kind, severity, title, LOST, rate, shown if kinds else None, None, advice)]


def _paid(subject: Subject, graded: Graded) -> list[Found]:
    """Kinds that are paid."""
    honest = subject.scales([subject.honest(i) for i in range(1 + max(a.task for a in graded.attempts))])
    tried = [a for a in graded.attempts if honest[a.task] >= PAID or not a.text]
    advice, found = "Pay only what compares equal to the reference; what cannot be read is wrong.", []
    for each in by_kind(subject, tried).values():
        right = honest[[attempt.task for attempt in each.attempts]]
        paid = Accepted(each.attempts, each.scales, (each.scales >= PAID) & (each.scales >= right - SLACK))
        if each.scales.max() >= PAID:
            found.append(paid.by_worth("critical" if paid.taken.any() else "high", advice, one_answer(subject)))
    return worst_of("a hostile answer is paid", found)


def _slow(graded: Graded, p95: float) -> Found:
    slowest, n = graded.attempts[int(np.argmax(graded.seconds))], len(graded.attempts)
    title = f"hostile answers are graded slowly, the slowest: {slowest.kind}"
    advice = "Bound what is read and computed of an answer, such as its length and the size of numbers."
    shown = slowest if len(slowest.text) < ENDLESS else None
    return Found(slowest.kind, "high", title, P95, alone(p95, n), shown, None, advice)
