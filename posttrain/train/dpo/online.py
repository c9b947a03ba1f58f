"""Online DPO: pairs of the policy's own samples, which a reward or a judge ranks, by the losses of the DPO family."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from posttrain.alerts import Observer
from posttrain.arrays import Floats
from posttrain.batch.types import Metrics
from posttrain.chat.template_date import on_one_date
from posttrain.config import OnlineDpoConfig
from posttrain.config.compute import on_its_device
from posttrain.data.formats import load_tasks
from posttrain.engine.open import open_engine
from posttrain.rollout import sampling_flops
from posttrain.rows import TaskColumns
from posttrain.runs.log import RunLog
from posttrain.train.data_order import bounded_steps
from posttrain.train.dataset_stage import load_rows
from posttrain.train.dpo.data import Example, counts_of, example_trees
from posttrain.train.dpo.reference import MovingReference
from posttrain.train.dpo.stage import DIAGNOSTICS, StepLoss, described, primary_term
from posttrain.train.loop import Prepared, StepResult, load_trained, make_policy, train
from posttrain.train.rl.advantages import Rows, TrainingRow, scored_rows
from posttrain.train.rl.batch import group_metrics, kl_metrics, with_numbers
from posttrain.train.rl.rollouts import Rollouts, RolloutStage, fit_task_rows
from posttrain.train.rl.sources import open_sources

STATE = "online.json"
Pair = tuple[TrainingRow, TrainingRow]
"""A better and a worse rollout."""


@on_its_device
@on_one_date
def train_online_dpo(config: OnlineDpoConfig, observers: Sequence[Observer] = ()) -> None:
    """Train `config.model` on pairs of its own samples and write the run folder `config.out`. Raises InputError for bad
    input, before anything is written, and RunFailed when surely too many rollouts could not be scored."""
    terms = config.terms()
    train(config, partial(_prepare, config), primary_term(terms).spec.learning_rate, observers, described(terms))


def _prepare(config: OnlineDpoConfig, stack: ExitStack) -> Prepared:
    rows, held_out = load_rows(config, load_tasks)
    columns = TaskColumns([*rows, *held_out])
    sources = open_sources(config, columns, stack)
    lm = load_trained(config)
    tasks = fit_task_rows(config, lm, rows, held_out)
    rollouts = Rollouts(config, tasks.train, lm, open_engine(config, lm), sources)
    total = bounded_steps(config, len(tasks.train), rollouts.prompts)

    def stage(log: RunLog, rate: float) -> OnlineDpo:
        return OnlineDpo(config, make_policy(lm, config, rate, total), rollouts, tasks.held_out, log, total)

    return Prepared(lm, tasks.train, tasks.fitted, stage, (sources.writes_date,))


@dataclass
class OnlineDpo(RolloutStage):
    """See `Stage`. Online AI feedback (Guo et al. 2024, arXiv:2402.04792) on the rollouts of online RL: a step samples
    groups, takes a pair of each (`with_signs`) and makes one optimizer step on the pairs.

    The losses read log-probabilities at temperature 1, whatever the pairs were sampled with."""

    kind = "online-dpo"
    shown = ("reward", "sealed_reward", "kl", "margin", "accuracy", "response_length", "loss")

    def __post_init__(self) -> None:
        config = self.config
        self.terms = config.terms()
        self.reference: MovingReference | None = None
        if any(term.reference for term in self.terms):
            self.reference = MovingReference(self.policy, config.reference_every, config.reference_mix or 1.0)

    def step(self, n: int) -> StepResult:
        step = self.rollouts.step(n)
        self.policy.flops += sampling_flops(self.rollouts.lm.flops, step.all)
        groups = step.trained
        rows: Rows = [with_signs(group) for group in scored_rows(groups)]
        self.rollouts.record(self.log, n, step, rows)
        rows = self._with_reference(rows)
        pairs = [pair for group in rows for pair in pairs_of(group)]
        metrics: dict[str, Any] = group_metrics(groups, rows) | kl_metrics(rows) | {"pairs": len(pairs)}
        metrics |= self.rollouts.regraded_metrics(step)
        metrics |= {f"weight/{name}": weight for name, weight in self.rollouts.sources.curriculum(n).items()}
        metrics |= {"sampled_groups": len(step.all)} if self.config.max_refills else {}
        metrics |= dict.fromkeys(("loss", *DIAGNOSTICS)) | self._gradient(pairs) | self.policy.step()
        if not pairs:
            reason = "no group had unequal scores: there was no pair, and nothing was trained"
            self.log.event("no_loss_token", step=n, reason=reason)
        if self.reference is not None:
            self.reference.follow(n)
        self.rollouts.engine.update(None, n)
        return StepResult(metrics, step.all, [row for group in rows for row in group])

    def save(self, folder: Path) -> None:
        (folder / STATE).write_text(json.dumps({"position": self.rollouts.position}))
        if self.reference is not None:
            self.reference.save(folder)

    def load(self, folder: Path) -> None:
        self.rollouts.go_to(json.loads((folder / STATE).read_text())["position"])
        if self.reference is not None:
            self.reference.load(folder)

    def _gradient(self, pairs: Sequence[Pair]) -> Metrics:
        rollouts = [(chosen.rollout, rejected.rollout) for chosen, rejected in pairs]
        examples = [
            Example("", chosen.prompt_ids, (chosen.sampled_ids, rejected.sampled_ids), (True, False), chosen.task_id)
            for chosen, rejected in rollouts
        ]
        given: list[Floats] | None = None
        if self.reference is not None and self.config.draws_the_policy:
            given = [row.ref_logprobs for pair in pairs for row in pair if row.ref_logprobs is not None]
        elif self.reference is not None:
            given = self.reference.logprobs(examples)
        loss = StepLoss(self.terms, counts_of(examples))
        trees = example_trees(examples, given, self.config.ld_alpha)
        return self.policy.forward_backward(trees, loss) | loss.weights()

    def _with_reference(self, rows: Rows) -> Rows:
        """The rows with log π_ref of every sampled token, as the sampler draws, where a loss needs a reference."""
        if self.reference is None:
            return rows
        with self.reference.reference.active():
            return with_numbers(
                rows, "ref_logprobs", partial(self.policy.logprobs, temperature=self.config.temperature)
            )


def with_signs(rows: Sequence[TrainingRow]) -> list[TrainingRow]:
    """The rows of a group with advantages: +1 on the first with the highest score, −1 on the first with the lowest, 0
    on others and where the two are equal in score or tokens; none where fewer than two have a score."""
    scored = [(row.reward, i) for i, row in enumerate(rows) if row.reward is not None]
    if len(scored) < 2:
        return list(rows)
    (high, best), (low, worst) = (pick(scored, key=lambda entry: entry[0]) for pick in (max, min))
    tie = high == low or rows[best].rollout.sampled_ids == rows[worst].rollout.sampled_ids
    signs = {i: 0.0 if tie else float(i == best) - float(i == worst) for _, i in scored}
    return [
        replace(row, advantages=np.full(len(row.sampler_logprobs), signs[i])) if i in signs else row
        for i, row in enumerate(rows)
    ]


def pairs_of(rows: Sequence[TrainingRow]) -> list[Pair]:
    better = [row for row in rows if row.advantages is not None and row.advantages[0] > 0]
    worse = [row for row in rows if row.advantages is not None and row.advantages[0] < 0]
    return list(zip(better, worse, strict=True))
