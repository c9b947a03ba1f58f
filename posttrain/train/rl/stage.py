"""The stage of online RL: a step is sampling, scoring, advantages and optimizer steps."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from posttrain.batch.packing import Tree
from posttrain.batch.types import Metrics
from posttrain.models import LanguageModel
from posttrain.models.read import logprobs_at
from posttrain.rollout import sampling_flops
from posttrain.train.loop import StepResult
from posttrain.train.rl.advantages import Rows, TrainingRow, overlong_penalty, scored_rows, with_advantages
from posttrain.train.rl.batch import (
    SHARES,
    batch_loss,
    explained_variance,
    group_metrics,
    kl_metrics,
    loss_choices,
    mean,
    step_trees,
    with_numbers,
)
from posttrain.train.rl.controllers import AdaptiveKl, Constraints, restore, state
from posttrain.train.rl.critic import Critic
from posttrain.train.rl.pretraining_mix import PretrainingMix
from posttrain.train.rl.rollouts import RolloutStage
from posttrain.types import Group, Rollout, Score, Segment

STATE = "rl.json"
DESCRIBED = 10
"""Rollouts that a dry run shows."""
LEGEND = "What stands between « and » was sampled, and is trained where there is an advantage."


@dataclass
class Rl(RolloutStage):
    """See `Stage`. The algorithm is in the configuration: what advantages are (`advantages.py`), what the loss is
    (`batch.py`), and what both need (reference, critic, proximal log-probabilities), which is computed only then."""

    critic: Critic | None
    mix: PretrainingMix | None
    kind = "rl"
    shown = ("reward", "sealed_reward", "kl", "grad_norm", "response_length", "loss")

    def __post_init__(self) -> None:
        config, policy = self.config, self.policy
        self.constraints = Constraints(config.constraint, config.constraint_rate)
        self.kl = AdaptiveKl(config.beta, config.kl_target)
        self.reference = policy.reference(moves=config.reference_every is not None) if config.has_kl else None
        self.mismatch = config.mismatch
        if config.mismatch == "auto":
            exact = policy.compute.dtype_name == "float32" and not config.replay
            self.mismatch = "off" if exact else "token-truncate"

    def step(self, n: int) -> StepResult:
        """Sample and score a batch of groups (or take the recorded one), then train on it."""
        config, sources = self.config, self.rollouts.sources
        step = self.rollouts.step(n)
        if step.new or config.replay is None:
            self.policy.flops += sampling_flops(self.rollouts.lm.flops, step.all)
        groups = step.trained
        rows = self._rows(n, groups)
        self.rollouts.record(self.log, n, step, rows)
        metrics = group_metrics(groups, rows) | kl_metrics(rows) | self.rollouts.regraded_metrics(step)
        metrics |= {f"weight/{name}": weight for name, weight in sources.curriculum(n).items()}
        metrics |= {f"multiplier/{name}": value for name, value in self.constraints.multipliers.items()}
        metrics |= {"beta": self.kl.beta} if config.kl_target is not None else {}
        metrics |= {"explained_variance": explained_variance(rows)} if self.critic else {}
        if config.overlong_share:
            metrics["overlong"] = mean([overlong_penalty(config, row.rollout) for group in rows for row in group])
        metrics |= {"sampled_groups": len(step.all)} if config.max_refills else {}
        metrics |= self._train(n, [[row for row in group if row.advantages is not None] for group in rows])
        self.kl.update(metrics["kl_sequence"])
        self.constraints.update(groups)
        if self.reference is not None and config.reference_every and n % config.reference_every == 0:
            self.reference.follow()
        self.rollouts.engine.update(None, n)
        return StepResult(metrics, step.all, [row for group in rows for row in group])

    def save(self, folder: Path) -> None:
        saved = state(self.kl, self.constraints) | {"position": self.rollouts.position}
        (folder / STATE).write_text(json.dumps(saved))
        if self.reference is not None:
            self.reference.save(folder)
        if self.critic is not None:
            self.critic.save(folder)

    def load(self, folder: Path) -> None:
        saved = json.loads((folder / STATE).read_text())
        restore(self.kl, self.constraints, saved)
        self.rollouts.go_to(saved["position"])
        if self.reference is not None:
            self.reference.load(folder)
        if self.critic is not None:
            self.critic.load(folder)

    def describe(self) -> str:
        """What the first rollouts would be trained on, as text."""
        step = self.rollouts.step(1)
        rows = self._rows(1, step.all)
        steps = "as many steps as its operations allow" if self.total_steps is None else f"{self.total_steps} steps"
        length = (
            f"The run would take {steps} of {self.config.batch_size} rollouts, from {len(self.rollouts.tasks)} tasks."
        )
        blocks = [_described(self.rollouts.lm, row, len(group)) for group in rows for row in group]
        return "\n\n".join([length, LEGEND, *blocks[:DESCRIBED]])

    def _rows(self, n: int, groups: Sequence[Group]) -> Rows:
        """The rollouts of a step with their advantages, and what those and the loss need of other models."""
        config, policy = self.config, self.policy
        rows = scored_rows(groups, self._reward)
        if self.reference is not None:
            with self.reference.active():
                rows = with_numbers(rows, "ref_logprobs", partial(policy.logprobs, temperature=config.temperature))
        if self.critic is not None:
            rows = with_numbers(rows, "values", self.critic.values)
        weights, dtype = self.rollouts.sources.weights(n), policy.compute.dtype_name
        return with_advantages(config, rows, beta=self.kl.beta, weights=weights, dtype=dtype)

    def _reward(self, rollout: Rollout, score: Score) -> float:
        """The total of a score with the constraints' share, less what a response loses that is too long."""
        reward = self.constraints.adjusted(score)
        return reward + overlong_penalty(self.config, rollout) if self.config.overlong_share else reward

    def _train(self, n: int, rows: Rows) -> dict[str, Any]:
        """`updates_per_batch` x `minibatches` optimizer steps on the rows of a step that are trained on."""
        config = self.config
        if config.updates_per_step > 1:
            now = partial(self.policy.logprobs, temperature=config.temperature)
            rows = with_numbers(rows, "proximal_logprobs", now)
        in_loss = config.has_kl and config.kl_in == "loss"
        keep_zero = in_loss or config.entropy_bonus > 0 or self.critic is not None
        size = -(-len(rows) // config.minibatches)  # a short batch has smaller minibatches, or fewer
        updates: list[Metrics] = []
        for _ in range(config.updates_per_batch):
            for i in range(0, len(rows), size):
                updates.append(self._update(step_trees(config, rows[i : i + size], keep_zero)))
                if config.kl_stop is None:
                    continue
                policy_kl = float(updates[-1].get("policy_kl", 0.0))
                if policy_kl > config.kl_stop:
                    self.log.event("kl_stop", step=n, updates=len(updates), policy_kl=policy_kl)
                    return _averaged(updates)
        if not any("loss" in u for u in updates):
            reason = "no group had unequal scores: nothing was trained"
            self.log.event("no_loss_token", step=n, reason=reason)
        return _averaged(updates)

    def _update(self, trees: Sequence[Tree]) -> Metrics:
        """An optimizer step of the policy, and of a critic."""
        config = self.config
        choices = loss_choices(config, self.kl.beta)
        loss = partial(batch_loss, config=config, choices=choices, mismatch=self.mismatch)
        with_values = type(self.critic) is Critic
        what = logprobs_at(config.temperature, entropy=True, values=with_values)
        metrics = self.policy.forward_backward(trees, loss, what)
        covered = sum(w for tree in trees for b in tree.branches for w in b.weights.tolist())
        metrics = {name: v / covered if name in SHARES and covered else v for name, v in metrics.items()}
        if self.mix is not None:
            metrics |= self.mix.forward_backward(self.policy)
        metrics |= self.policy.step()
        return metrics | (self.critic.train(trees) if self.critic is not None and trees else {})


def _averaged(updates: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The mean of each number over the optimizer steps that have it."""
    always = ("loss", "clip_fraction", "entropy", "grad_norm", "learning_rate")
    names = dict.fromkeys((*always, *(name for u in updates for name in u)))
    return {name: mean([u[name] for u in updates if name in u]) for name in names}


def _described(lm: LanguageModel, row: TrainingRow, group_size: int) -> str:
    rollout, score = row.rollout, row.score
    parts = ", ".join(f"{name} {'–' if value is None else f'{value:.4g}'}" for name, value in score.parts.items())
    worth = (
        f"score {score.total:.4g}" if score.total is not None else f"no score: {score.reason or 'no reward applied'}"
    )
    advantage = "not trained on"
    if row.advantages is not None:
        low, high = row.advantages.min(), row.advantages.max()
        advantage = f"advantage {low:+.3f}" if low == high else f"advantages {low:+.3f} to {high:+.3f}"
    head = [
        f"task {rollout.task_id}, rollout {rollout.index + 1} of {group_size}",
        rollout.status,
        f"{worth} ({parts})" if parts else worth,
        advantage,
        f"{rollout.response_length} tokens sampled",
    ]
    return "\n".join([" · ".join(head), *(_marked(lm, segment) for segment in rollout.segments)])


def _marked(lm: LanguageModel, segment: Segment) -> str:
    out = []
    tokens = zip(segment.token_ids.tolist(), segment.sampled.tolist(), strict=True)
    for sampled, run in groupby(tokens, key=lambda pair: pair[1]):
        text = lm.tokenizer.decode([token for token, _ in run], skip_special_tokens=False)
        out.append(f"«{text}»" if sampled else str(text))
    return "".join(out)
