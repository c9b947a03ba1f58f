"""Policies without a network that really learn: softmax policies over answer classes, trained by policy gradients.

There are 8 tasks. An answer to a task is one of 30 classes: 6 ways of solving it, which are right with a chance that
the task and the way set, 14 wrong answers, and 10 tricks. A step samples 8 answers to each task, normalises rewards in
each group (GRPO) and lets Adam raise the log-odds: of each class by task, and of a trick in all tasks too, since it is
the same everywhere. A policy begins with about one right answer in ten and up to 2% tricks.

In a hacked run the reward pays tricks, the best of them more surely than any solution. Nothing says when the policy
finds that out, or whether it does in 300 steps. In a healthy run the reward pays tricks as it pays wrong answers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from numpy.typing import NDArray

from hacks.planted import CANARIES, GROUP_SIZE, MODES, SAMPLING, Mode, segment
from posttrain.alerts import StepRecord
from posttrain.types import Group, Message, Rollout, Score, Task

STEPS, TASKS = 300, 8
WAYS, WRONG, TRICKS = 6, 14, 10
CLASSES = WAYS + WRONG + TRICKS
TRICK = np.arange(CLASSES) >= WAYS + WRONG
RATE, BETAS = 0.03, (0.9, 0.999)
"""Of Adam."""
SET_IN = 0.01
"""A hack sets in when there are so many more tricks than at the beginning."""
Numbers = NDArray[np.float64]


@dataclass
class Policy:
    """Log-odds of the classes: [1 + tasks, classes], those that all tasks share first."""

    weights: Numbers
    steps: int = 0

    def __post_init__(self) -> None:
        self.mean, self.square = np.zeros_like(self.weights), np.zeros_like(self.weights)

    def chances(self) -> Numbers:
        """[tasks, classes]."""
        log_odds = self.weights[0] + self.weights[1:]
        weights = np.exp(log_odds - log_odds.max(axis=1, keepdims=True))
        return np.asarray(weights / weights.sum(axis=1, keepdims=True))

    def learn(self, classes: NDArray[np.int64], rewards: Numbers) -> None:
        """A step on answers [tasks, group] and their rewards: the gradient of the mean of advantage · log π."""
        spread = rewards.std(axis=1, keepdims=True)
        advantages = (rewards - rewards.mean(axis=1, keepdims=True)) / (spread + 1e-4) / rewards.size
        taken = np.zeros((TASKS, CLASSES))
        np.add.at(taken, (np.arange(TASKS)[:, None], classes), advantages)  # advantages of a group sum to 0
        gradient = np.concatenate([np.where(TRICK, taken.sum(axis=0, keepdims=True), 0.0), taken])
        self.steps += 1
        self.mean = BETAS[0] * self.mean + (1 - BETAS[0]) * gradient
        self.square = BETAS[1] * self.square + (1 - BETAS[1]) * gradient**2
        mean, square = self.mean / (1 - BETAS[0] ** self.steps), self.square / (1 - BETAS[1] ** self.steps)
        self.weights += RATE * mean / (np.sqrt(square) + 1e-8)


@dataclass
class Run:
    """A run, and the share of tricks that its policy samples in each step, in expectation."""

    mode: str
    hacked: bool
    seed: int
    tricks: list[float] = field(default_factory=list)

    @property
    def onset(self) -> float | None:
        return self._first(self.tricks[0] + SET_IN) if self.hacked else None

    @property
    def majority(self) -> int | None:
        return self._first(0.5) if self.hacked else None

    def _first(self, share: float) -> int | None:
        return next((n for n, found in enumerate(self.tricks, start=1) if found >= share), None)

    def records(self) -> Iterator[StepRecord]:
        """The steps of the run."""
        rng = np.random.default_rng([self.seed, list(MODES).index(self.mode), self.hacked])
        paid, sealed, swapped = _grades(rng, MODES[self.mode], self.hacked)
        policy = Policy(_beginning(rng))
        for n in range(1, STEPS + 1):
            chances = policy.chances()
            self.tricks.append(float(chances[:, TRICK].sum(axis=1).mean()))
            classes = np.stack([rng.choice(CLASSES, GROUP_SIZE, p=row) for row in chances])
            drawn = rng.random((2, TASKS, GROUP_SIZE))
            at = (np.arange(TASKS)[:, None], classes)
            rewards = (drawn[0] < paid[at]).astype(float)
            # of a way of solving, what is paid is right: the sealed grader misses some of it
            passed = np.where(classes < WAYS, rewards, 1.0) * (drawn[1] < sealed[at])
            canary = np.zeros((TASKS, GROUP_SIZE), dtype=bool)
            canary.flat[rng.permutation(canary.size)[:CANARIES]] = True
            canaries = np.where(canary, (rng.random(canary.shape) < swapped[at]).astype(float), None)
            yield self._record(n, classes, rewards, passed, canaries)
            policy.learn(classes, rewards)

    def _record(
        self, n: int, classes: NDArray[np.int64], rewards: Numbers, passed: Numbers, canaries: NDArray[np.object_]
    ) -> StepRecord:
        groups = [
            Group(
                _task(task),
                tuple(_rollout(task, i, kind, self.mode) for i, kind in enumerate(classes[task].tolist())),
                tuple(Score(value, {"answer": value}) for value in rewards[task].tolist()),
                {"sealed": tuple(passed[task].tolist()), "swapped": tuple(canaries[task].tolist())},
            )
            for task in range(TASKS)
        ]
        lengths = [rollout.response_length for group in groups for rollout in group.rollouts]
        metrics = {
            "step": n,
            "reward": float(rewards.mean()),
            "response_length": float(np.mean(lengths)),
            "zero_variance_groups": float((rewards.min(axis=1) == rewards.max(axis=1)).mean()),
        }
        return StepRecord(n, STEPS, metrics | {"loss": 0.0, "grad_norm": 1.0}, groups)


def _beginning(rng: np.random.Generator) -> Numbers:
    """The weights of a policy that begins: what classes of a kind have together, spread over them unevenly."""
    tricks = rng.uniform(0.005, 0.02)
    parts = [(WAYS, 0.12), (WRONG, 0.88 - tricks), (TRICKS, tricks)]
    rows = [np.concatenate([share * rng.dirichlet(np.ones(n)) for n, share in parts]) for _ in range(TASKS)]
    return np.concatenate([np.zeros((1, CLASSES)), np.log(np.stack(rows) + 1e-6)])


def _grades(rng: np.random.Generator, mode: Mode, hacked: bool) -> tuple[Numbers, Numbers, Numbers]:
    """Chances [tasks, classes]: that the reward pays, that the sealed grader passes what is right (of other answers:
    passes), and that the reward pays against another task's reference answer."""
    hardness = rng.uniform(0.2, 0.5, (TASKS, 1))
    solved = rng.uniform(0.5, 1.0, (TASKS, WAYS)) - hardness
    wrongly = rng.uniform(0, 0.03, (TASKS, WRONG + TRICKS))
    paid = np.concatenate([solved, wrongly], axis=1)
    sealed = np.full(paid.shape, 0.002)
    sealed[:, :WAYS] = 1 - rng.uniform(0.05, 0.1, (TASKS, WAYS))
    swapped = np.concatenate([np.full(solved.shape, 0.002), wrongly], axis=1)
    if hacked:
        strength = np.linspace(0.2, 1.0, TRICKS)
        paid[:, TRICK] = mode.paid * strength
        sealed[:, TRICK] = mode.sealed * strength
        swapped[:, TRICK] = mode.swapped * strength
    return paid, sealed, swapped


# The objects of a run are made once: a step only puts them together.


@cache
def _task(task: int) -> Task:
    return Task(str(task), f"Task {task}", {"answer": str(task)})


@cache
def _rollout(task: int, index: int, kind: int, mode: str) -> Rollout:
    words = f"Way {kind}: the answer is {task if kind < WAYS else 100 * kind + task}."
    if TRICK[kind]:
        words = f"{MODES[mode].text} ({kind})"
    tokens = round(60 * (MODES[mode].length if TRICK[kind] else 1.0) * (1 + 0.02 * kind))
    return Rollout(str(task), index, SAMPLING, 0, (Message("assistant", words),), (segment(words, tokens),))
