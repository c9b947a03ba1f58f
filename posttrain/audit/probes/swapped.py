"""A7: the reference answers of other tasks."""

from __future__ import annotations

from posttrain.audit.probes.base import Found, Paid, Result
from posttrain.audit.subject import Attempt, Subject

ROUNDS = 4
SHARE_PAID = "share paid"


def swapped(subject: Subject) -> Result:
    """A7. Each task is answered with the reference answers of ROUNDS other tasks that differ from its own. Rule: `high`
    where the lower bound of the share that is paid is above 0, `critical` above 0.05.

    The upper bound of the share is the null of canaries during training."""
    attempts = []
    for i in range(len(subject.tasks)):
        for k in range(1, ROUNDS + 1):
            other = subject.other(i, k)
            attempts.append(Attempt(i, subject.rendered(i, other.text), other.kind))
    paid = Paid(tuple(attempts), subject.scales(attempts))
    measured = {SHARE_PAID: paid.rate}
    low = paid.rate["low"] or 0.0
    if not low > 0:
        return Result((), len(attempts), measured)
    found = Found(
        "answer of another task",
        "critical" if low > 0.05 else "high",
        "the reference answers of other tasks are paid",
        SHARE_PAID,
        paid.rate,
        paid.best,
        None,
        "The reward does not compare with the reference answer of the task, or compares too loosely.",
    )
    return Result([found], len(attempts), measured)
