"""A7: the reference answers of other tasks."""

from __future__ import annotations

from posttrain.audits.answers import same
from posttrain.audits.probes.accepted import CODE_TASKS, SHARE_ACCEPTED, Accepted, accepted
from posttrain.audits.probes.base import Found, Result
from posttrain.audits.subject import PAID, Attempt, Subject
from posttrain.runs.audit import Severity
from posttrain.stats import share

ROUNDS = 4
CRITICAL_SHARE, HIGH_SHARE = 0.5, 0.25
SHARE_PAID = "share paid"


def swapped(subject: Subject) -> Result:
    """A7. Each task is answered with the reference answers of ROUNDS other tasks that differ from its own. Rule, for
    the share that is paid like the right answer: critical where its lower bound is above 0.5, high above 0.25, else a
    note if two tasks or more pay one. A lower share may be answers that are right: a task may have several (a divisor,
    a colouring), and what is nearly right is A4's.

    Measured beside it is the share that gets more than half of the scale, as canaries of a run count; its upper bound
    is their null."""
    attempts = []
    for i in subject.some(CODE_TASKS):
        for k in range(1, ROUNDS + 1):
            other = subject.other(i, k)
            if same(subject.tasks[i], other.text):
                continue  # the same answer in other words
            attempts.append(Attempt(i, subject.rendered(i, other.text), other.kind))
    measured = {SHARE_PAID: share(int((subject.scales(attempts) > PAID).sum()), len(attempts))}
    found = [
        Found(
            kind,
            severity,
            "the reference answers of other tasks are paid",
            SHARE_ACCEPTED,
            paid.rate,
            paid.shown,
            None,
            "The reward does not compare with the reference answer of the task, or compares too loosely.",
        )
        for kind, paid in accepted(subject, attempts).items()
        if (severity := _severity(paid)) is not None
    ]
    return Result(found, len(attempts), measured)


def _severity(paid: Accepted) -> Severity | None:
    low = paid.rate["low"] or 0.0
    if low > HIGH_SHARE:
        return "critical" if low > CRITICAL_SHARE else "high"
    return "note" if paid.severity is not None else None
