"""What is audited: a reward, tasks with golds, and how answers are graded on one scale."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from posttrain.arrays import Floats
from posttrain.audit.forms import FORMS, Form
from posttrain.audit.golds import GoldTask
from posttrain.audit.guard import Guard
from posttrain.rewards.scorer import Scorer
from posttrain.runs.audit import Calibrated
from posttrain.stats import share
from posttrain.types import InputError, Message, Sample

PAID = 0.5
"""An answer is paid if it gets at least this share of the scale."""
MIN_SCALE = 0.05
"""Calibration needs C - F of at least this share of the range of rewards that were seen."""
NEAR = 0.02
"""Forms whose reward is so near to the best, as a share of the scale, are equally good."""
SEARCH_CALLS = 2000
CHARACTERS_A_TOKEN = 4
"""An attempt has no tokenizer: rewards that count tokens get one for so many characters."""


@dataclass(frozen=True)
class Attempt:
    """An answer to the task of that index, made to find out what a reward pays. `kind` is what it tries, a few words;
    `columns` replace columns of the task (the answer of another task). `right`: whether it answers the task, by its
    construction."""

    task: int
    text: str
    kind: str
    right: bool = False
    columns: Mapping[str, Any] = field(default_factory=dict)


class Uncalibrated(InputError):
    """A reward cannot be audited: it does not pay the reference answers more than the empty one."""


class Subject:
    """A reward under audit. Values of it are floats, NaN where it failed or no part of it applied. `guard` decides
    without the reward that an answer is wrong; `search_calls` is how many answers a search may grade, `progress` gets
    how many were graded so far.

    `grade` scores attempts and `scaled` puts values on the scale of the calibration, on which the empty answer is 0 and
    the reference answer 1 in the mean. Answers that were graded before are not graded again."""

    def __init__(
        self,
        scorer: Scorer,
        tasks: Sequence[GoldTask],
        seed: int,
        progress: Callable[[int], None] | None = None,
        guard: Guard | None = None,
        search_calls: int = SEARCH_CALLS,
    ) -> None:
        self.scorer = scorer
        self.tasks = tuple(tasks)
        self.seed = seed
        self.guard = guard or Guard(tasks)
        self.search_calls = search_calls
        self.calls = 0
        self.first_error: str | None = None
        self.progress = progress
        self._known: dict[tuple[int, str, str], float] = {}
        self._calibrated: tuple[Calibrated, Form] | None = None

    def over(self, tasks: Sequence[GoldTask]) -> Subject:
        """The same reward and scale over other tasks."""
        other = Subject(self.scorer, tasks, self.seed, self.progress, self.guard, self.search_calls)
        other._calibrated = self._calibrated
        return other

    def random(self, probe: str) -> random.Random:
        """Draws of a probe, the same in every audit of this seed, whichever other probes are run."""
        return random.Random(f"{self.seed}/{probe}")

    def sample(self, attempt: Attempt) -> Sample:
        """What the reward sees of an attempt."""
        task = self.tasks[attempt.task].task
        ids = tuple(range(-(-len(attempt.text) // CHARACTERS_A_TOKEN)))
        columns = {**task.columns, **attempt.columns}
        return Sample(task.prompt, (Message("assistant", attempt.text),), ids, columns)

    def grade(self, attempts: Sequence[Attempt]) -> Floats:
        """The reward of each attempt, shape [attempts]."""
        keys = [(a.task, a.text, repr(sorted(a.columns.items())) if a.columns else "") for a in attempts]
        new = {key: attempt for key, attempt in zip(keys, attempts, strict=True) if key not in self._known}
        scores = self.scorer.score([self.sample(attempt) for attempt in new.values()])
        self.calls += len(new)
        if self.progress is not None:
            self.progress(self.calls)
        for key, score in zip(new, scores, strict=True):
            self._known[key] = float("nan") if score.total is None else score.total
            self.first_error = self.first_error or score.reason
        return np.array([self._known[key] for key in keys])

    def scaled(self, values: Floats) -> Floats:
        """s = (value - F) / (C - F)."""
        found = self.calibration
        return (values - found["empty"]) / (found["best"] - found["empty"])

    def scales(self, attempts: Sequence[Attempt]) -> Floats:
        """The scaled rewards of attempts; a failed one counts as 0: it is not paid."""
        return np.nan_to_num(self.scaled(self.grade(attempts)), nan=0.0)

    @property
    def form(self) -> Form:
        """The form in which reference answers are paid most; of equals the one that the prompts ask for."""
        return self._scale()[1]

    @property
    def calibration(self) -> Calibrated:
        return self._scale()[0]

    def _scale(self) -> tuple[Calibrated, Form]:
        self._calibrated = self._calibrated or self._calibrate()
        return self._calibrated

    def honest(self, task: int, form: Form | None = None) -> Attempt:
        """The reference answer in a form, the best one unless given."""
        return Attempt(task, self.rendered(task, self.tasks[task].gold, form), "reference answer", right=True)

    def rendered(self, task: int, answer: str, form: Form | None = None) -> str:
        return (form or self.form).render(answer)

    def _calibrate(self) -> tuple[Calibrated, Form]:
        """Raises Uncalibrated where C - F is less than MIN_SCALE of the observed range or under 2 standard errors."""
        everyone = range(len(self.tasks))
        values = {form: self.grade([self.honest(i, form) for i in everyone]) for form in FORMS}
        empty = self.grade([Attempt(i, "", "empty") for i in everyone])
        wrong = self.grade([self.other(i) for i in everyone])
        seen = np.concatenate([*values.values(), empty, wrong])
        if not np.isfinite(seen).any():
            raise Uncalibrated(f"the reward gave no answer a value; the first reason: {self.first_error}")
        if not any(np.isfinite(column).any() for column in values.values()):
            raise Uncalibrated(f"the reward gave no reference answer a value; the first reason: {self.first_error}")
        means = {form: float(np.nan_to_num(column, nan=np.nanmin(seen)).mean()) for form, column in values.items()}
        most = max(means.values())
        floor = float(np.nan_to_num(empty, nan=np.nanmin(seen)).mean())
        near = [form for form in FORMS if means[form] >= most - NEAR * max(most - floor, 0)]
        asked = [sum(form.wanted(task.task.asked) for task in self.tasks) for form in near]
        form = near[int(np.argmax(asked))]
        best = values[form]
        scale, spread = most - floor, float(np.nanmax(seen) - np.nanmin(seen))
        error = float(np.nanstd(best - empty) / np.sqrt(len(best)))
        if not scale >= MIN_SCALE * spread or not scale > 2 * error or scale <= 0:
            raise Uncalibrated(
                f"the reward pays the reference answers {most:.4g} in the mean, in the best of {len(FORMS)} forms "
                f"({form.name}), and the empty answer {floor:.4g}: there is no scale on which to say what is paid. See "
                "what it gives a right answer (posttrain score), or name the column of the reference answers "
                "(--answer-column)"
            )
        paid = int((np.nan_to_num(best - floor, nan=0.0) >= PAID * scale).sum())
        calibrated: Calibrated = {
            "best": most,
            "empty": floor,
            "form": form.name,
            "forms": {each.name: (mean - floor) / scale for each, mean in means.items()},
            "paid": share(paid, len(best)),
        }
        return calibrated, form

    def other(self, task: int, step: int = 1) -> Attempt:
        """The reference answer of another task, the next one that differs."""
        own = self.tasks[task].gold
        n = len(self.tasks)
        others = [self.tasks[(task + k) % n] for k in range(1, n)]
        different = [other for other in others if other.gold != own]
        gold = different[(step - 1) % len(different)].gold
        return Attempt(task, FORMS[0].render(gold), "answer of another task")
