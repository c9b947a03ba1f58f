"""A15: rewards that are sums of parts, and whether the form of an answer outweighs what it says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np

from posttrain.arrays import Floats
from posttrain.audits.forms import FORMS, Form
from posttrain.audits.probes.base import Found, Paid, Result, alone, gained, paid_gain
from posttrain.audits.probes.style.places import answer_of, chosen, paid_for, placed, places
from posttrain.audits.probes.style.texts import STYLES
from posttrain.audits.subject import Attempt, Subject
from posttrain.expressions import Expression, written
from posttrain.rewards.registry import Spec
from posttrain.stats import Estimate

SOME_PAY = 0.05
"""Forms in which the reference answers get less of the scale are not tried with wrong answers."""
RECOGNISED = 0.5
"""A form is recognised where right answers beat wrong ones by this share of what they do in the best form."""
FLIP = 0.01
SMALL, LARGE = 0.01, 0.9
"""Shares of the variance below and above which a part is noted."""
FORMAT_AT_MOST, TASK_AT_LEAST = 0.1, 0.5
"""How much of its range a part that looks at the form, and one that looks at the answer, moves from wrong to right."""


@dataclass(frozen=True)
class Part:
    """A part of a sum: its name among the parts of a score, its weight and its expression."""

    name: str
    weight: float
    expression: Expression


def composite(subject: Subject) -> Result:
    """A15. Right answers in each form that the reward recognises (plain), against wrong ones in each form and style.

    Rule: wrong answers in some dress get more than right ones in another, beyond 0.01 of the scale and with an interval
    above 0: critical. A form is recognised where right answers surely beat wrong ones by 0.05 of the scale, and by half
    of what they do in the best form, so that a right answer that the reward cannot find is no fault here.

    Of a sum (several rewards, or weighted_sum) the share of each part in the variance of the whole is measured over all
    answers that were graded: Cov(w·part, total) / Var(total), which add up to 1. A part below 0.01 or above 0.9 is a
    note."""
    parts = parts_of(subject)
    right, wrong, styled = _graded(subject, parts)
    n = sum(len(each.scales) for group in (right, wrong, styled) for each in group.values())
    found = [] if (flip := _flip(subject, parts, right, wrong, styled)) is None else [flip]
    shares = variance_shares(subject, parts)
    measured = {name: alone(value, len(subject.known)) for name, value in shares.items()}
    found += [_note(name, each) for name, each in measured.items() if not SMALL <= (each["value"] or 0.0) <= LARGE]
    return Result(found, n, {f"share of the variance, {name}": each for name, each in measured.items()})


def parts_of(subject: Subject) -> list[Part]:
    """The parts of a reward that is a sum; none of another."""
    specs = [Spec.parse(text) for text in subject.scorer.specs]
    if len(specs) > 1:
        return [Part(spec.name, spec.weight.at(None), spec.expression) for spec in specs]
    (spec,) = specs
    inside = spec.expression.arguments
    if spec.expression.target != "weighted_sum":
        return []
    weights = spec.expression.options.get("weights") or [1.0] * len(inside)
    names = [f"{spec.name}/{part.renamed or part.target.rpartition(':')[2]}" for part in inside]
    return [Part(*each) for each in zip(names, weights, inside, strict=True)]


def variance_shares(subject: Subject, parts: Sequence[Part]) -> dict[str, float]:
    """Cov(w·part, total) / Var(total) over all scores that have a total and all parts; empty where nothing varies."""
    scores = [
        s for s in subject.known.values() if s.total is not None and all(s.parts.get(p.name) is not None for p in parts)
    ]
    total = np.array([score.total for score in scores], dtype=float)
    if len(parts) < 2 or len(total) < 2 or not total.std() > 0:
        return {}
    apart = total - total.mean()
    columns = {part.name: part.weight * np.array([s.parts[part.name] for s in scores], dtype=float) for part in parts}
    return {name: float((column - column.mean()) @ apart / (apart @ apart)) for name, column in columns.items()}


Dressed = dict[str, Paid]


def _graded(subject: Subject, parts: Sequence[Part]) -> tuple[Dressed, Dressed, Dressed]:
    """What right and wrong answers get in each form, and wrong answers in each style, in the best form."""
    shares = subject.calibration["forms"]
    slow = subject.is_code and not parts
    forms = [form for form in FORMS if form == subject.form or (shares.get(form.name, 0.0) >= SOME_PAY and not slow)]
    place = places(subject.form)[-1]
    attempts: dict[tuple[str, str], list[Attempt]] = {}

    def add(group: str, i: int, name: str, form: Form, text: str = "") -> None:
        right = group == "right"
        whole = placed(form, answer_of(subject, i, right), text, place)
        attempts.setdefault((group, name), []).append(Attempt(i, whole, f"{group}, {name}", right))

    for i in chosen(subject):
        for form in forms:
            add("right", i, form.name, form)
            add("wrong", i, form.name, form)
        for style in () if subject.is_code else STYLES:
            add("styled", i, style.name, subject.form, style.of(subject.tasks[i]))
    paid = paid_for(subject, attempts)
    right, wrong, styled = (
        {name: each for (group, name), each in paid.items() if group == wanted}
        for wanted in ("right", "wrong", "styled")
    )
    return right, wrong, styled


def _flip(subject: Subject, parts: Sequence[Part], right: Dressed, wrong: Dressed, styled: Dressed) -> Found | None:
    gaps = {
        name: float((right[name].scales - wrong[name].scales).mean())
        for name in right
        if paid_gain(right[name].scales, wrong[name].scales) is not None
    }
    recognised = [name for name, gap in gaps.items() if gap >= RECOGNISED * max(gaps.values())]
    if not recognised:
        return None  # the reward tells no right answer from a wrong one, which is another probe's fault
    plain = min(recognised, key=lambda name: float(right[name].scales.mean()))
    dressed = wrong | styled
    dress = max(dressed, key=lambda name: float(dressed[name].scales.mean()))
    apart = dressed[dress].scales - right[plain].scales
    if float(apart.mean()) <= FLIP or not ((gain := gained(apart, np.zeros(len(apart))))["low"] or 0.0) > 0:
        return None
    shown = dressed[dress].attempts[int(np.argmax(apart))]
    title, measure = f"wrong answers ({dress}) get more than right ones ({plain})", "difference in scaled reward"
    advice = "Let the form be a condition of the reward for the answer, and not a sum with it."
    return Found("form over content", "critical", title, measure, gain, shown, _gate(subject, parts), advice)


def _gate(subject: Subject, parts: Sequence[Part]) -> str | None:
    """`gate(FORMAT, TASK)` of a sum in which each part looks either at the form or at the answer; None of another, and
    where a part is no expression but a function. It stands for all rewards and has no `{}`."""
    tasks = list(chosen(subject))
    best = _values(subject, parts, [subject.honest(i) for i in tasks])
    other = _values(subject, parts, [subject.answer(i, subject.other(i).text, "") for i in tasks])
    bare = _values(subject, parts, [subject.honest(i, FORMS[0]) for i in tasks])
    conditions, answers = [], []
    for part, high, low, plain in zip(parts, best, other, bare, strict=True):
        reach = max(high.max(), low.max(), plain.max()) - min(high.min(), low.min(), plain.min())
        moved = float((high - low).mean())
        if part.expression.function is not None or not reach > 0:
            return None
        if moved >= TASK_AT_LEAST * reach and part.weight > 0:
            answers.append(part)
        elif abs(moved) <= FORMAT_AT_MOST * reach:
            conditions.append((part, float(high.min())))
        else:
            return None
    if not conditions or not answers:
        return None
    return reduce(lambda inside, each: _gated(each[0], each[1], inside), conditions, _summed(answers))


def _values(subject: Subject, parts: Sequence[Part], attempts: Sequence[Attempt]) -> list[Floats]:
    """The values of each part, 0 where it has none."""
    scores = subject.scores(attempts)
    return [np.array([score.parts.get(part.name) or 0.0 for score in scores]) for part in parts]


def _gated(condition: Part, threshold: float, inside: str) -> str:
    limit = "" if threshold == 1 else f", threshold={threshold:.6g}"
    return f"gate({_written(condition)}, {inside}{limit})"


def _summed(answers: Sequence[Part]) -> str:
    if len(answers) == 1:
        return _written(answers[0])
    weights = json.dumps([part.weight for part in answers])
    return f"weighted_sum({', '.join(map(_written, answers))}, weights={weights})"


def _written(part: Part) -> str:
    return written(replace(part.expression, renamed=None))


def _note(name: str, share: Estimate) -> Found:
    what = "hardly counts" if (share["value"] or 0.0) < SMALL else "is nearly all that counts"
    title, measure = f"a part of the sum {what}: {name}", "share of the variance of the sum"
    advice = "Weigh the parts by how much they vary, or leave one out."
    return Found(f"variance of {name}", "note", title, measure, share, None, None, advice)
