"""A16: groups whose rewards are all equal, which teach nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from posttrain.arrays import Floats
from posttrain.audits.probes.base import Found, Result, alone
from posttrain.audits.probes.style.places import chosen
from posttrain.audits.subject import Subject

GROUP = 8
"""The rollouts of a group, as by default in `posttrain rl`."""
PASS_RATES = (0.05, 0.25, 0.5, 0.75, 0.95)
WRONG = 3
"""Wrong answers to a task, one of code: reference answers of other tasks."""
WARN = 0.1
"""A reward of 0 and 1 has 0.8% at a pass rate of a half."""
DIGITS = 2
"""Scaled rewards that differ by less than 0.01 are equal: their difference is lost in the noise of training."""


def no_variance(subject: Subject) -> Result:
    """A16. The share of groups of 8 in which all rewards are equal, at pass rates from 0.05 to 0.95.

    A rollout is right with the pass rate p, and then gets what the reference answer gets; else it gets what one of
    some wrong answers gets, each as likely. Σ_v (p·P(v | right) + (1 − p)·P(v | wrong))^8 over the values v of a task,
    the mean over tasks; of a reward of 0 and 1 that is p^8 + (1 − p)^8. A note where it is above 0.1 at p = 0.5: the
    reward often gives right and wrong answers the same. Source: groups without variance have no gradient, DAPO
    (arXiv:2503.14476)."""
    tasks, several = chosen(subject), 1 if subject.is_code else WRONG
    right = [subject.honest(i) for i in tasks]
    wrong = [
        subject.answer(i, subject.other(i, step).text, "answer of another task")
        for step in range(1, several + 1)
        for i in tasks
    ]
    scales = subject.scales([*right, *wrong]).reshape(1 + several, len(tasks)).T
    shares = {p: float(np.mean([equal_groups(row[:1], row[1:], p) for row in scales])) for p in PASS_RATES}
    measured = {f"groups without variance at a pass rate of {p:g}": alone(v, len(tasks)) for p, v in shares.items()}
    if shares[0.5] <= WARN:
        return Result((), scales.size, measured)
    title = "groups whose rewards are all equal: right and wrong answers often get the same"
    measure, effect = "share of groups of 8 at a pass rate of 0.5", alone(shares[0.5], len(tasks))
    advice = "Such groups teach nothing. See which right answers are not paid."
    shown = right[int(np.argmin(scales[:, 0]))]
    note = Found("no variance", "note", title, measure, effect, shown, None, advice)
    return Result([note], scales.size, measured)


def equal_groups(
    right: Sequence[float] | Floats, wrong: Sequence[float] | Floats, p: float, size: int = GROUP
) -> float:
    """The probability that all `size` rewards of a group are equal, where each answer is right with probability p and
    gets one of the values for right or for wrong answers, each as likely."""
    chances: dict[float, float] = {}
    for values, chance in ((right, p), (wrong, 1 - p)):
        for value in values:
            key = round(float(value), DIGITS) + 0.0
            chances[key] = chances.get(key, 0.0) + chance / len(values)
    return sum(chance**size for chance in chances.values())
