"""From scored groups to advantages: what each algorithm makes of the scores of a step.

Everything here is over the whole step, before any micro-batch: baselines, standard deviations, whitening.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import pstdev
from typing import get_args

import numpy as np

from posttrain.arrays import Comparable, Floats, ints
from posttrain.config import RlConfig
from posttrain.losses.advantages import (
    ZERO_VARIANCE,
    decoupled,
    divided_by_deviation,
    gae,
    group_centred,
    leave_one_out,
    returns_to_go,
    whitened,
)
from posttrain.rewards.rules.length import overlong
from posttrain.types import Group, Rollout, Score, Status

KL_PRECISION = {"float32": 1e-4, "bfloat16": 1e-1}
"""Nats by which sampler and trainer may differ on a response, by the type of products: a spread of rewards that is no
more than β times this comes from rounding, and dividing by it would train on noise."""


@dataclass(frozen=True, eq=False)
class TrainingRow(Comparable):
    """A rollout on its way to the loss. `reward` is that of the whole response, None where there is none to train on
    (no score, or no token). The arrays [T] have a number of each token that the policy sampled: log-probabilities by
    the sampler, the reference and the policy before the step, a critic's `values` and their targets `returns`.
    `advantages` are None where the row is not trained on."""

    rollout: Rollout
    score: Score
    reward: float | None
    sampler_logprobs: Floats
    ref_logprobs: Floats | None = None
    values: Floats | None = None
    proximal_logprobs: Floats | None = None
    advantages: Floats | None = None
    returns: Floats | None = None

    @property
    def is_zero(self) -> bool:
        """Whether the policy has nothing to learn from it."""
        return self.advantages is None or not self.advantages.any()


Rows = Sequence[Sequence[TrainingRow]]
"""Rows of groups."""


def scored_rows(groups: Sequence[Group], reward: Callable[[Rollout, Score], float | None] | None = None) -> Rows:
    """A row for each rollout of each group. Its reward is the score's total, or what `reward` makes of a total."""

    def row(rollout: Rollout, score: Score) -> TrainingRow:
        total = score.total if rollout.response_length else None
        changed = total if reward is None or total is None else reward(rollout, score)
        return TrainingRow(rollout, score, changed, rollout.sampler_logprobs)

    return [[row(r, s) for r, s in zip(group.rollouts, group.scores, strict=True)] for group in groups]


def with_advantages(
    config: RlConfig, rows: Rows, *, beta: float = 0.0, weights: Mapping[str, float], dtype: str = "float32"
) -> Rows:
    """The rows with the advantages of those to train on: rows with a reward, in groups with as many of them as the
    baseline needs.

    `beta` counts where the KL goes into the reward: each token loses β·(log π − log π_ref), the k1 estimate, π being
    what it was sampled with, in `dtype`. `weights` are those of the rewards, for gdpo."""
    scored = [[row for row in group if row.reward is not None] for group in rows]
    least = 2 if config.groups_matter or config.aggregation == "gdpo" else 1
    scored = [group if len(group) >= least else [] for group in scored]
    noise = beta * KL_PRECISION[dtype] if config.kl_in == "reward" else 0.0
    if config.aggregation == "gdpo":
        found = iter(_decoupled(scored, weights))
    elif config.baseline == "critic":
        found = iter(_by_critic(config, scored, beta, noise))
    else:
        found = iter(_by_group(config, scored, beta, noise))
    return [
        [next(found) if group and row.reward is not None else row for row in members]
        for members, group in zip(rows, scored, strict=True)
    ]


def overlong_penalty(config: RlConfig, rollout: Rollout) -> float:
    """DAPO's soft overlong punishment (see `rewards.lengths.overlong`) over the last `overlong_share` of the length."""
    limit = config.longest_response
    tokens = range(rollout.response_length)
    return overlong("", tokens, max_tokens=limit, cache_tokens=round(config.overlong_share * limit))


def _penalties(config: RlConfig, row: TrainingRow, beta: float) -> Floats:
    """What the KL takes off each token's reward."""
    if not beta or config.kl_in != "reward":
        return np.zeros(len(row.sampler_logprobs))
    assert row.ref_logprobs is not None
    return beta * (row.sampler_logprobs - row.ref_logprobs)


def _by_token(config: RlConfig, row: TrainingRow, beta: float) -> Floats:
    """Rewards [T]: minus the penalty at each token, plus the reward at the last."""
    assert row.reward is not None
    out = -_penalties(config, row, beta)
    out[-1] += row.reward
    return out


def _by_group(config: RlConfig, groups: Rows, beta: float, noise: float) -> list[TrainingRow]:
    """Without a critic: returns to go, or one advantage a response."""
    rows = [row for group in groups for row in group]
    if config.baseline == "none" and config.scale != "group":
        advantages = [returns_to_go(_by_token(config, row, beta), config.gamma) for row in rows]
    else:
        by_response = [a for group in groups for a in _by_response(config, group, beta, noise)]
        advantages = [np.full(len(row.sampler_logprobs), a) for row, a in zip(rows, by_response, strict=True)]
    if config.scale == "batch":
        advantages = whitened(advantages, noise)
    return [replace(row, advantages=a) for row, a in zip(rows, advantages, strict=True)]


def _by_response(config: RlConfig, group: Sequence[TrainingRow], beta: float, noise: float) -> list[float]:
    if not group:
        return []
    rewards = [(row.reward or 0.0) - sum(_penalties(config, row, beta).tolist()) for row in group]
    if noise and pstdev(rewards) < noise:
        rewards = [0.0] * len(rewards)
    if config.baseline == "leave-one-out":
        advantages = leave_one_out(rewards)
    else:
        advantages = group_centred(rewards) if config.baseline == "group" else rewards
    if config.scale == "group":
        sigma = pstdev(rewards)
        advantages = [a / sigma if sigma >= ZERO_VARIANCE else 0.0 for a in advantages]
    return advantages


def _by_critic(config: RlConfig, groups: Rows, beta: float, noise: float) -> list[TrainingRow]:
    rows = [row for group in groups for row in group]
    rewards = [_by_token(config, row, beta) for row in rows]
    if config.whiten_rewards:
        rewards = divided_by_deviation(rewards)
    values = [row.values for row in rows if row.values is not None]
    estimates = [gae(r, v, config.gamma, config.gae_lambda) for r, v in zip(rewards, values, strict=True)]
    advantages = [a for a, _ in estimates]
    if config.scale == "batch":
        advantages = whitened(advantages, noise)
    found = zip(rows, advantages, estimates, strict=True)
    return [replace(row, advantages=a, returns=returns) for row, a, (_, returns) in found]


def _decoupled(groups: Rows, weights: Mapping[str, float]) -> list[TrainingRow]:
    parts = [[[row.score.parts.get(name) for name in weights] for row in group] for group in groups]
    advantages = [a for group in decoupled(parts, list(weights.values())) for a in group]
    rows = [row for group in groups for row in group]
    return [replace(r, advantages=np.full(len(r.sampler_logprobs), a)) for r, a in zip(rows, advantages, strict=True)]


def trainable(rollout: Rollout, vocabulary: int) -> bool:
    """Whether a line can be trained on: known tokens, drawn with a probability of at most 1 but for rounding."""
    ids = np.concatenate([ints([]), *(segment.token_ids for segment in rollout.segments)])
    drawn = rollout.sampler_logprobs
    known = bool(((ids >= 0) & (ids < vocabulary)).all())
    drawable = bool((drawn <= 1e-3).all() and np.isfinite(drawn).all()) and (
        len(drawn) > 0 or rollout.status == "failed"
    )
    return known and drawable and rollout.status in get_args(Status)
