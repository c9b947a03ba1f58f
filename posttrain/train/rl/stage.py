"""The stage of online RL: a step is sampling, scoring, advantages and optimizer steps."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from posttrain.batch.packing import Tree
from posttrain.config import RlConfig
from posttrain.models.read import logprobs_at
from posttrain.rollout import sampling_flops
from posttrain.runs.log import RunLog
from posttrain.train.loop import StepResult
from posttrain.train.policy import Policy
from posttrain.train.rl.advantages import PerToken, Signal, overlong_penalty, step_signals
from posttrain.train.rl.batch import (
    SHARES,
    batch_loss,
    by_rollout,
    explained_variance,
    group_metrics,
    kl_metrics,
    loss_choices,
    mean,
    rollout_trees,
    step_trees,
)
from posttrain.train.rl.controllers import AdaptiveKl, Constraints, restore, state
from posttrain.train.rl.critic import Critic, HeadCritic
from posttrain.train.rl.dry_run import describe
from posttrain.train.rl.pretraining_mix import PretrainingMix
from posttrain.train.rl.rollouts import Rollouts, RolloutStage
from posttrain.types import Group, Rollout, Task

STATE = "rl.json"


class Rl(RolloutStage):
    """See `Stage`. The algorithm is in the configuration: what advantages are (`signals.py`), what the loss is
    (`rl_batch.py`), and what both need (reference, critic, proximal log-probabilities), which is computed only then."""

    kind = "rl"
    shown = ("reward", "kl", "grad_norm", "response_length", "loss")

    def __init__(
        self,
        config: RlConfig,
        policy: Policy,
        rollouts: Rollouts,
        held_out: Sequence[Task],
        log: RunLog,
        total_steps: int | None,
        critic: Critic | None,
        mix: PretrainingMix | None,
    ) -> None:
        self.config = config
        self.policy = policy
        super().__init__(rollouts, held_out)
        self.log = log
        self.total_steps = total_steps
        self.constraints = Constraints(config.constraint, config.constraint_rate)
        self.critic = critic
        self.mix = mix
        self.kl = AdaptiveKl(config.beta, config.kl_target)
        self.reference = policy.reference(moves=config.reference_every is not None) if config.has_kl else None
        self.mismatch = config.mismatch
        if config.mismatch == "auto":
            self.mismatch = "token-truncate" if config.replay else "off"

    def step(self, n: int) -> StepResult:
        """Sample and score a batch of groups (or take the recorded one), then train on it."""
        config, sources = self.config, self.rollouts.sources
        step = self.rollouts.step(n)
        if step.new or config.replay is None:
            self.policy.flops += sampling_flops(self.rollouts.lm.flops, step.all)
        groups = step.used or step.all  # where no refill brought one that differs, the step has nothing to learn
        members = [g.rollouts for g in groups]
        references, values = self._references(members), self._values(members)
        signals = self._signals(n, groups, references, values)
        self.rollouts.record(self.log, n, step, signals)
        metrics = group_metrics(groups, signals) | kl_metrics(groups, references)
        metrics |= {f"weight/{name}": weight for name, weight in sources.curriculum(n).items()}
        metrics |= {f"multiplier/{name}": value for name, value in self.constraints.multipliers.items()}
        metrics |= {"beta": self.kl.beta} if config.kl_target is not None else {}
        metrics |= {"explained_variance": explained_variance(signals, values)} if self.critic else {}
        if config.overlong_share:
            metrics["overlong"] = mean([overlong_penalty(config, r) for group in members for r in group])
        metrics |= {"sampled_groups": len(step.all)} if config.max_refills else {}
        metrics |= self._train(n, signals, references, values)
        self.kl.update(metrics["kl_sequence"])
        self.constraints.update(groups)
        if self.reference is not None and config.reference_every and n % config.reference_every == 0:
            self.reference.follow()
        self.rollouts.engine.update(None, n)
        return StepResult(metrics, step.all, [signal for group in signals for signal in group])

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
        members = [g.rollouts for g in step.all]
        signals = self._signals(1, step.all, self._references(members), self._values(members))
        steps = "as many steps as its operations allow" if self.total_steps is None else f"{self.total_steps} steps"
        length = (
            f"The run would take {steps} of {self.config.batch_size} rollouts, from {len(self.rollouts.tasks)} tasks."
        )
        return f"{length}\n\n{describe(self.rollouts.lm, step.all, signals)}"

    def _signals(self, n: int, groups: Sequence[Group], references: PerToken, values: PerToken) -> list[list[Signal]]:
        return step_signals(
            self.config,
            groups,
            beta=self.kl.beta,
            references=references,
            values=values,
            adjust=self.constraints.adjusted if self.constraints.levels else None,
            weights=self.rollouts.sources.weights(n),
        )

    def _references(self, groups: Sequence[Sequence[Rollout]]) -> PerToken:
        """log π_ref of every sampled token; empty where no KL is asked for."""
        if self.reference is None:
            return {}
        with self.reference.active():
            return by_rollout(groups, self.policy.logprobs(rollout_trees(groups), self.config.temperature))

    def _values(self, groups: Sequence[Sequence[Rollout]]) -> PerToken:
        return by_rollout(groups, self.critic.values(rollout_trees(groups))) if self.critic else {}

    def _train(
        self, n: int, signals: Sequence[Sequence[Signal]], references: PerToken, values: PerToken
    ) -> dict[str, Any]:
        """`updates_per_batch` x `minibatches` optimizer steps on the groups of a step."""
        config, in_loss = self.config, self.config.has_kl and self.config.kl_in == "loss"
        extras = {"values": values, "ref_logprobs": references if in_loss else {}, "proximal_logprobs": {}}
        if config.updates_per_step > 1:
            members = [[s.rollout for s in group] for group in signals]
            now = self.policy.logprobs(rollout_trees(members), config.temperature)
            extras["proximal_logprobs"] = by_rollout(members, now)
        keep_flat = in_loss or config.entropy_bonus > 0 or self.critic is not None
        size = -(-len(signals) // config.minibatches)  # a short batch has smaller minibatches, or fewer
        updates: list[dict[str, float]] = []
        for _ in range(config.updates_per_batch):
            for i in range(0, len(signals), size):
                updates.append(self._update(step_trees(config, signals[i : i + size], extras, keep_flat)))
                if config.kl_stop is not None and updates[-1].get("policy_kl", 0.0) > config.kl_stop:
                    self.log.event("kl_stop", step=n, updates=len(updates), policy_kl=updates[-1]["policy_kl"])
                    return _averaged(updates)
        if not any("loss" in u for u in updates):
            self.log.event("no_loss_token", step=n)
        return _averaged(updates)

    def _update(self, trees: Sequence[Tree]) -> dict[str, float]:
        """An optimizer step of the policy, and of a critic."""
        config = self.config
        choices = loss_choices(config, self.kl.beta)
        loss = partial(batch_loss, config=config, choices=choices, mismatch=self.mismatch)
        with_values = isinstance(self.critic, HeadCritic)
        what = logprobs_at(config.temperature, entropy=True, values=with_values)
        metrics = self.policy.forward_backward(trees, loss, what)
        covered = sum(w for tree in trees for b in tree.branches for w in b.weights)
        metrics = {name: v / covered if name in SHARES and covered else v for name, v in metrics.items()}
        if self.mix is not None:
            metrics |= self.mix.forward_backward(self.policy)
        metrics |= self.policy.step()
        return metrics | (self.critic.train(trees) if self.critic is not None and trees else {})


def _averaged(updates: Sequence[dict[str, float]]) -> dict[str, Any]:
    """The mean of each number over the optimizer steps that have it."""
    always = ("loss", "clip_fraction", "entropy", "grad_norm", "learning_rate")
    names = dict.fromkeys((*always, *(name for u in updates for name in u)))
    return {name: mean([u[name] for u in updates if name in u]) for name in names}
