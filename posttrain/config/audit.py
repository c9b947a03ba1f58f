"""Auditing a reward before training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from posttrain.config.base import Columns, Group, Named, NonNegativeInt, PositiveFloat, PositiveInt, Seed
from posttrain.config.compute import ComputeOptions
from posttrain.functions import FunctionText

STEPS = 30


class AuditConfig(ComputeOptions):
    """Attack a reward before training with it: answers that should not be paid, and right ones that should be.

    Of rewards that run code it runs programs that cheat; these are harmless, and run where the reward runs programs, in
    a worker process if the reward has no sandbox.

    Writes `audit.json`, `audit.sarif`, `report.html` and the answers that show each finding. Ends with exit code 1
    where a finding is critical."""

    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "posttrain audit --reward math --data examples/data/math_tasks.jsonl --out runs/audit",
    )

    AUDIT: ClassVar[Group] = Group("Reward and tasks")
    reward: Annotated[tuple[Named, ...], Field(min_length=1)]
    """What is audited; as in `posttrain rl`. Several are audited as their weighted sum."""
    data: str
    """Tasks: rows with a `prompt`, the columns that the reward reads, and a reference answer; or a built-in set."""
    out: Path
    """Folder of the audit. An earlier audit there is replaced."""
    columns: Columns = None
    """Columns that have other names, as in training: `prompt=question`."""
    answer_column: str | None = None
    """Column with the reference answer. Default: the first of `answer`, `solution`, `ground_truth`, `completion` and
    the like that the tasks have."""
    limit: PositiveInt | None = None
    """Audit on at most so many tasks, drawn by `seed`. Default: 40, and 12 where a model computes the reward."""
    PROBES: ClassVar[Group] = Group("Probes")
    only: tuple[str, ...] = ()
    """Run only these probes: `A1`, `A17`. Default: all that fit the reward and the tasks."""
    calls: NonNegativeInt = 2000
    """Answers that the search (A17) may grade."""
    judge: Named | None = None
    """A reward that decides where the reference answer is free text that an answer is wrong: one that it pays less than
    0.5. It must be another than the audited one. Without it what needs such a decision is not run there."""
    train: bool = False
    """Train a small policy against the reward too (A19), first on answers in the right form, half of them wrong, then
    by RL, and report wrong answers that it learns to be paid for. Takes minutes; an audit that was stopped begins
    anew."""
    policy: str | None = None
    """The model whose answers are tried; as in training. With `train` the one that is trained; default: `tiny-random`,
    which learns from the demonstrations alone and makes a step of RL in under a second. Of a reward that a model
    computes the one that is to be trained with it: the best of n of its answers say how far it can be optimised
    (A18)."""
    train_steps: PositiveInt = STEPS
    """Steps of RL in each of the three legs of `train`, each with a smaller KL penalty than the one before."""
    fix: bool = False
    """Look for wrappers that close what was found, audit the wrapped reward again, and say how many honest answers it
    pays on tasks that neither audit has seen."""
    seed: Seed = 0
    """Seed of the draws of tasks and answers."""
    TIMEOUT: ClassVar[Group] = Group("Reward and tasks")
    reward_timeout: PositiveFloat = 30.0
    """Seconds a reward may take for one batch of one worker before it is killed."""
    reward_workers: NonNegativeInt | None = None
    """As in `posttrain rl`: processes that rewards run in."""

    @model_validator(mode="after")
    def _trains(self) -> AuditConfig:
        if self.train_steps != STEPS and not self.train:
            raise ValueError("train_steps has no effect here; it needs train")
        if self.fix and any(isinstance(reward, FunctionText) for reward in self.reward):
            raise ValueError(
                "fix writes the mended reward as an expression, which a function of Python has no place in; name it by "
                "its file: pt.audit('rewards.py:my_reward', …), or leave fix out"
            )
        return self
