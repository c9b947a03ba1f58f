"""A7: the reference answers of other tasks."""

from __future__ import annotations

import numpy as np

from posttrain.audits.answers import same
from posttrain.audits.answers.texts import shared_words
from posttrain.audits.probes.accepted import CODE_TASKS, SHARE_ACCEPTED, Accepted, accepted
from posttrain.audits.probes.base import Found, Result
from posttrain.audits.subject import PAID, Subject
from posttrain.runs.audit import Severity
from posttrain.stats import estimate, share

ROUNDS = 4
CRITICAL_SHARE, HIGH_SHARE = 0.5, 0.25
HIGH_MEAN = 0.55
SHARE_PAID = "share paid"


def swapped(subject: Subject) -> Result:
    """A7. Each task is answered with the reference answers of ROUNDS other tasks that differ from its own. Rule, for
    the share that is paid like the right answer: critical where its lower bound is above 0.5, high above 0.25, else a
    note if two tasks or more pay one. A lower share may be answers that are right: a task may have several (a divisor,
    a colouring), and what is nearly right is A4's.

    High too where the scaled reward less the share of words that the two answers have in common has a mean over tasks
    with a lower bound of at least 0.55: a reward that grades so hardly tells right from wrong (1 - |error| pays any
    probability two thirds). Answers that are much alike may get much.

    Measured beside it is the share that gets more than half of the scale, as canaries of a run count; its upper bound
    is their null."""
    attempts, alike = [], []
    for i in subject.some(CODE_TASKS):
        for k in range(1, ROUNDS + 1):
            other = subject.other(i, k)
            if same(subject.tasks[i], other.text):
                continue  # the same answer in other words
            attempts.append(subject.answer(i, other.text, other.kind))
            alike.append(shared_words(subject.tasks[i].gold, other.text))
    scales = subject.scales(attempts)
    measured = {SHARE_PAID: share(int((scales > PAID).sum()), len(attempts))}
    title, advice = "the reference answers of other tasks are paid", "The reward does not compare with the reference "
    advice += "answer of the task, or compares too loosely."
    found = [
        Found(kind, severity, title, SHARE_ACCEPTED, paid.rate, paid.shown, None, advice)
        for kind, paid in accepted(subject, attempts).items()
        if (severity := _severity(paid)) is not None
    ]
    beyond, tasks = scales - np.array(alike), np.array([attempt.task for attempt in attempts])
    mean = estimate([float(beyond[tasks == i].mean()) for i in np.unique(tasks)])
    if (mean["low"] or 0.0) >= HIGH_MEAN and all(each.severity == "note" for each in found):
        title = "the reference answers of other tasks get most of what the right ones get"
        shown, measure = attempts[int(scales.argmax())], "scaled reward beyond the words in common"
        found = [Found(shown.kind, "high", title, measure, mean, shown, None, advice)]
    return Result(found, len(attempts), measured)


def _severity(paid: Accepted) -> Severity | None:
    low = paid.rate["low"] or 0.0
    if low > HIGH_SHARE:
        return "critical" if low > CRITICAL_SHARE else "high"
    return "note" if paid.severity is not None else None
