"""What is audited: a reward, tasks with golds, and how answers are graded on one scale."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from posttrain.arrays import Floats
from posttrain.audits.forms import CODE_FORMS, FORMS, Form, shown_forms
from posttrain.audits.golds import GoldTask
from posttrain.audits.guard import Guard
from posttrain.audits.search.source import Source, source_of
from posttrain.audits.servers import QUIET
from posttrain.rewards.registry import JUDGES, Spec
from posttrain.rewards.scorer import Scorer
from posttrain.runs.audit import Calibrated
from posttrain.stats import share
from posttrain.types import InputError, Message, Sample, Score, Task

PAID = 0.5
"""An answer is paid if it gets at least this share of the scale."""
MIN_SCALE = 0.05
"""Calibration needs C - F of at least this share of the range of rewards that were seen."""
NEAR = 0.02
"""Forms whose reward is so near to the best, as a share of the scale, are equally good."""
CODE_TASKS = 8
"""Tasks that are enough where each answer starts sandboxes, 24 ms each."""
SLOW, TIMED, TIMES = 0.015, 4, 5
"""Seconds of an answer from which a reward starts a process for it or the like, the answers that are timed together,
and how often: a busy machine may be late some of these times."""
SEARCH_CALLS = 2000
SHOWN = 80
"""Characters of an answer in an error."""
CHARACTERS_A_TOKEN = 4


@dataclass(frozen=True)
class Attempt:
    """An answer to the task of that index, made to find out what a reward pays. `kind` is what it tries, a few words;
    `columns` replace columns of the task (the answer of another task), `prompt` the text of its prompt (of a
    conversation that of the last message). `right`: whether it answers the task, by its construction."""

    task: int
    text: str
    kind: str
    right: bool = False
    columns: Mapping[str, Any] = field(default_factory=dict)
    prompt: str | None = None

    def posed(self, task: Task) -> Task:
        """The task with this attempt's columns and prompt."""
        given, prompt = self.prompt, task.prompt
        if given is not None:
            prompt = given if isinstance(prompt, str) else (*prompt[:-1], replace(prompt[-1], content=given))
        return replace(task, prompt=prompt, columns={**task.columns, **self.columns})


class Uncalibrated(InputError):
    """A reward cannot be audited: it does not pay the reference answers more than the empty one."""


class Subject:
    """A reward under audit. Values of it are floats, NaN where it failed or no part of it applied. `guard` decides
    without the reward that an answer is wrong; `search_calls` is how many answers a search may grade, `progress` gets
    how many were graded so far.

    `grade` scores attempts and `scaled` puts values on the scale of the calibration, on which the empty answer is 0 and
    the reference answer 1 in the mean. Answers that were graded before are not graded again. Of a reward that pays the
    empty answer as much as the reference answers `has_scale` is False, and what needs the scale raises Uncalibrated."""

    def __init__(
        self,
        scorer: Scorer,
        tasks: Sequence[GoldTask],
        seed: int,
        progress: Callable[[int], None] | None = None,
        guard: Guard | None = None,
        search_calls: int = SEARCH_CALLS,
        policy: str | None = None,
    ) -> None:
        self.scorer = scorer
        self.tasks = tuple(tasks)
        self.is_code = any(task.type == "code" for task in tasks)
        self.seed = seed
        self.guard = guard or Guard(tasks)
        self.search_calls, self.policy = search_calls, policy
        self.calls = 0
        self.first_error: str | None = None
        self.progress = progress
        self.known: dict[tuple[int, str, str | None, str], Score] = {}
        """The scores of all answers that were graded, in the order in which they were."""
        self.by_source = False
        self._calibrated: tuple[Calibrated | None, Form] | None = None
        self._slow: bool | None = None

    def over(self, tasks: Sequence[GoldTask]) -> Subject:
        """The same reward, scale and forms over other tasks."""
        other = Subject(self.scorer, tasks, self.seed, self.progress, self.guard, self.search_calls, self.policy)
        other._calibrated, other._slow = self._calibrated, self._slow
        other.by_source, other.source = self.by_source, self.source
        return other

    def apart(self, seconds: float | None = None, server: str = QUIET) -> Scorer:
        """The same reward in one worker process of its own, which is killed where an answer takes longer than `seconds`
        or than the audit's limit; also where the audit's own rewards run in this process. Raises InputError for a
        function that cannot travel."""
        limit = min(seconds or self.scorer.timeout_seconds, self.scorer.timeout_seconds)
        return Scorer(self.scorer.specs, columns=self.scorer.columns, timeout_seconds=limit, workers=1, server=server)

    @property
    def by_model(self) -> bool:
        return by_model(self.scorer)

    @cached_property
    def source(self) -> Source:
        """What the source of the reward gives away."""
        return source_of(self.scorer.specs, self.scorer.columns)

    def random(self, probe: str) -> random.Random:
        """Draws of a probe, the same in every audit of this seed, whichever other probes are run."""
        return random.Random(f"{self.seed}/{probe}")

    def sample(self, attempt: Attempt) -> Sample:
        """What the reward sees of an attempt."""
        return sample_of(attempt.posed(self.tasks[attempt.task].task), attempt.text)

    def grade(self, attempts: Sequence[Attempt]) -> Floats:
        """The reward of each attempt, shape [attempts]."""
        return np.array([score.total for score in self.scores(attempts)], float)

    def scores(self, attempts: Sequence[Attempt]) -> list[Score]:
        """The score of each attempt, with its parts."""
        keys = list(map(_key, attempts))
        new = {key: attempt for key, attempt in zip(keys, attempts, strict=True) if key not in self.known}
        for key, score in zip(new, self.scores_again(list(new.values())), strict=True):
            self.known[key] = score
            self.first_error = self.first_error or score.reason
        return [self.known[key] for key in keys]

    def scores_again(
        self, attempts: Sequence[Attempt], scorer: Scorer | None = None, state: Mapping[str, Any] | None = None
    ) -> list[Score]:
        """The score of each attempt, graded now, by the audit's scorer or another one. It is not kept (`keep`)."""
        scores = (scorer or self.scorer).score([self.sample(attempt) for attempt in attempts], state)
        self.calls += len(attempts)
        if self.progress is not None:
            self.progress(self.calls)
        return scores

    def keep(self, attempts: Sequence[Attempt], scores: Sequence[Score]) -> None:
        """Take these for the scores of attempts, so that they are not graded again."""
        self.known |= dict(zip(map(_key, attempts), scores, strict=True))

    def scaled(self, values: Floats) -> Floats:
        """s = (value - F) / (C - F)."""
        empty, best = self.calibration["empty"], self.calibration["best"]
        return (values - empty) / (best - empty)

    def scales(self, attempts: Sequence[Attempt]) -> Floats:
        """The scaled rewards of attempts; a failed one counts as 0: it is not paid."""
        _ = self.calibration  # which raises, where there is none, before anything is graded
        return np.nan_to_num(self.scaled(self.grade(attempts)), nan=0.0)

    @property
    def is_slow(self) -> bool:
        """Whether an answer costs a model, a sandbox, or SLOW seconds each time that it is tried."""
        if self._slow is None:
            self._slow = self.by_model or self.is_code or all(self._seconds() > SLOW for _ in range(TIMES))
        return self._slow

    def _seconds(self) -> float:
        """What a reference answer takes, in the mean."""
        attempts = [self.honest(i) for i in range(min(TIMED, len(self.tasks)))]
        started = time.monotonic()
        self.scores_again(attempts)
        return (time.monotonic() - started) / len(attempts)

    def some(self, of_code: int) -> range:
        """The tasks, of code only the first `of_code`: a program takes a sandbox, 24 ms or more."""
        return range(min(len(self.tasks), of_code) if self.is_code else len(self.tasks))

    @property
    def tried(self) -> tuple[Form, ...]:
        """The forms of the calibration: known ones, those that the prompts show, and, where none of these is paid
        (`by_source`), those that the reward's source reads."""
        read = self.source.forms if self.by_source else ()
        return CODE_FORMS if self.is_code else (*FORMS, *shown_forms([task.prompt for task in self.tasks]), *read)

    @property
    def form(self) -> Form:
        """The form in which reference answers are paid most; of equals the one that the prompts ask for."""
        return self._scale()[1]

    @property
    def has_scale(self) -> bool:
        return self._scale()[0] is not None

    @property
    def calibration(self) -> Calibrated:
        if (found := self._scale()[0]) is None:
            raise Uncalibrated("no scale: the empty answer is paid as much as the reference answers")
        return found

    def _scale(self) -> tuple[Calibrated | None, Form]:
        self._calibrated = self._calibrated or self._calibrate()
        return self._calibrated

    def honest(self, task: int, form: Form | None = None) -> Attempt:
        """The reference answer in a form, the best one unless given."""
        return Attempt(task, (form or self.form).render(self.tasks[task].gold), "reference answer", right=True)

    def answer(self, task: int, text: str, kind: str, right: bool = False) -> Attempt:
        """An answer in the form that is paid best."""
        return Attempt(task, self.form.render(text), kind, right)

    def _calibrate(self) -> tuple[Calibrated | None, Form]:
        """There is no scale where C - F is less than MIN_SCALE of the observed range or under 2 standard errors: None
        where `pays_empty` says so, else it raises Uncalibrated."""
        forms, everyone = self.tried, self.some(CODE_TASKS)
        values = {form: self.grade([self.honest(i, form) for i in everyone]) for form in forms}
        empty = self.grade([Attempt(i, "", "empty") for i in everyone])
        if not self.by_source and not (np.stack([*values.values()]) > empty).any():
            self.by_source = True
            return self._calibrate()
        leader = max(forms, key=lambda form: float(np.nansum(values[form])))
        others = [self.other(i) for i in everyone]
        wrong = self.grade([*others, *(replace(other, text=leader.render(other.text)) for other in others)])
        seen = np.stack([*values.values(), empty, *wrong.reshape(2, -1)])
        for some, what in ((seen, "answer"), (np.stack([*values.values()]), "reference answer")):
            if not np.isfinite(some).any():
                first = (self.first_error or "no part of it applied") + self._numbers()
                raise Uncalibrated(f"the reward gave no {what} a value; the first reason: {first}")
        means = {form: float(np.nan_to_num(column, nan=np.nanmin(seen)).mean()) for form, column in values.items()}
        empty = np.nan_to_num(empty, nan=np.nanmin(seen))
        most, floor = max(means.values()), float(empty.mean())
        near = [form for form in forms if means[form] >= most - NEAR * max(most - floor, 0)]
        form = max(near, key=lambda form: sum(form.wanted(task.prompt) for task in self.tasks))
        best = values[form]
        scale, spread = most - floor, float(np.nanmax(seen) - np.nanmin(seen))
        error = float(np.nanstd(best - empty) / np.sqrt(len(best)))
        if not scale >= MIN_SCALE * spread or not scale > 2 * error or scale <= 0:
            if pays_empty(best, empty, seen):
                return None, form
            raise Uncalibrated(
                f"the reward pays the reference answers {most:.4g} in the mean, in the best of {len(forms)} forms "
                f"({form.name}), and the empty answer {floor:.4g}: there is no scale on which to say what is paid. "
                f"The last forms tried on task {self.tasks[0].task.id}: "
                + ", ".join(repr(each.render(self.tasks[0].gold)[:SHOWN]) for each in [form, *forms[-2:]])
                + ". See what it gives a right answer (posttrain score), show its form in the prompts in quotes "
                "('Total: <number>'), or name the column of the reference answers (--answer-column)"
            )
        paid = share(int((np.nan_to_num(best - floor, nan=0.0) >= PAID * scale).sum()), len(best))
        forms_paid = {e.name: (mean - floor) / scale for e, mean in sorted(means.items(), key=lambda each: each[1])}
        return Calibrated(best=most, empty=floor, form=form.name, forms=forms_paid, paid=paid), form

    def _numbers(self) -> str:
        """What to do about reference columns of numbers, which functions often take for text."""
        columns = [n for n in self.tasks[0].references if isinstance(self.tasks[0].columns.get(n), int | float)]
        return f". The column {columns[0]!r} holds numbers; the reward may want str({columns[0]})" if columns else ""

    def other(self, task: int, step: int = 1) -> Attempt:
        """The reference answer of another task, the next one that differs."""
        n, own = len(self.tasks), self.tasks[task].gold
        different = [gold for k in range(1, n) if (gold := self.tasks[(task + k) % n].gold) != own]
        return Attempt(task, different[(step - 1) % len(different)], "answer of another task")


def pays_empty(best: Floats, empty: Floats, seen: Floats) -> bool:
    """Whether a reward pays the reference answers (`best`), and the empty answer as much, on more than half of the
    tasks (the lower bound of the share).

    A reference answer is paid where it gets more than 0 and as much as any answer to its task. Where no answer gets
    less than half of that, 1 is the least that counts: a reward that knows the form of no answer may give all alike.
    `seen` has the values of all answers, shape [answers, tasks]."""
    low, top = np.nanmin(seen), np.fmax.reduce(seen)
    slack = MIN_SCALE * (top - low)
    paid = (best > 0) & (best >= top - slack) & ((low <= PAID * best) | (best >= 1))
    return (share(int((paid & (empty >= best - slack)).sum()), len(best))["low"] or 0.0) >= PAID


def _key(attempt: Attempt) -> tuple[int, str, str | None, str]:
    return attempt.task, attempt.text, attempt.prompt, repr(sorted(attempt.columns.items()))


def sample_of(task: Task, text: str) -> Sample:
    """An answer to a task as a reward sees it; rewards that count tokens get one for CHARACTERS_A_TOKEN characters."""
    ids = tuple(range(-(-len(text) // CHARACTERS_A_TOKEN)))
    return Sample(task.prompt, (Message("assistant", text),), ids, task.columns)


def by_model(scorer: Scorer) -> bool:
    """Whether a model computes some part of a reward: a reward model, or a judge."""
    parts = (part for text in scorer.specs for part in Spec.parse(text).expression.walk())
    return any(part.models or part.target in JUDGES for part in parts)
