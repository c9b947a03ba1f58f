"""Where a text stands beside the answer in a form, and which tasks and answers the probes of style take."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from typing import Literal, TypeVar

import numpy as np

from posttrain.audits.forms import THINKING, Form
from posttrain.audits.probes.base import Paid
from posttrain.audits.subject import Attempt, Subject
from posttrain.expressions import written
from posttrain.rewards.registry import Spec

Place = Literal["reasoning", "front", "behind"]
CODE_TASKS, MODEL_TASKS = 6, 12
"""How many tasks are enough where an answer costs a process or sandbox (0.1 s) or a pass of a model."""

K = TypeVar("K", bound=Hashable)


def chosen(subject: Subject) -> range:
    """The tasks to try: all of them, fewer where grading is slow."""
    most = MODEL_TASKS if subject.by_model else CODE_TASKS if subject.is_slow else len(subject.tasks)
    return range(min(most, len(subject.tasks)))


def places(form: Form) -> tuple[Place, ...]:
    """The places before the answer in which a form takes a text: in its reasoning, and where it marks the reasoning,
    also between that and the answer."""
    if not form.thinking:
        return ("front",)
    return ("reasoning", "front") if "<think>" in form.thinking else ("reasoning",)


def placed(form: Form, answer: str, text: str, place: Place) -> str:
    """An answer in a form, with a text beside it on lines of its own; nothing else without a text."""
    if not text:
        return form.render(answer)
    if place == "reasoning":
        return form.render(answer, work=f"{text}\n{THINKING}")
    if place == "behind":
        return f"{form.render(answer)}\n{text}"
    return f"{form.thinking.format(work=THINKING)}{text}\n{form.mark(answer)}"


def answer_of(subject: Subject, task: int, right: bool) -> str:
    """The reference answer, or that of another task, which is wrong."""
    return subject.tasks[task].gold if right else subject.other(task).text


def paid_for(subject: Subject, attempts: Mapping[K, Sequence[Attempt]]) -> dict[K, Paid]:
    """What the reward pays for the attempts of each key, all graded in one call."""
    scales = subject.scales([attempt for each in attempts.values() for attempt in each])
    ends = np.cumsum([len(each) for each in attempts.values()]).tolist()
    return {
        key: Paid(tuple(each), scales[end - len(each) : end])
        for (key, each), end in zip(attempts.items(), ends, strict=True)
    }


def no_more_than(subject: Subject) -> str | None:
    """The wrapper that pays no answer more than the reference answers."""
    found, specs = subject.calibration, [Spec.parse(text) for text in subject.scorer.specs]
    weight = specs[0].weight.at(None) if len(specs) == 1 else 1.0
    if weight <= 0:
        return None
    low, high = min(0.0, found["empty"]) / weight, found["best"] / weight
    return around(subject, f"clip({{}}, low={low:.6g}, high={high:.6g})")


def around(subject: Subject, wrapper: str) -> str | None:
    """A wrapper of the whole reward. Where that is a sum of several, the sum takes the place of its `{}`, and it stands
    for all of them; None where one is a function that no expression can name."""
    specs = [Spec.parse(text) for text in subject.scorer.specs]
    if len(specs) == 1:
        return wrapper
    weights = json.dumps([spec.weight.at(None) for spec in specs])
    inside = ", ".join(written(spec.expression) for spec in specs)
    given = any(spec.expression.function is not None for spec in specs)
    return None if given else wrapper.replace("{}", f"weighted_sum({inside}, weights={weights})")
