"""From scored groups to advantages: what each algorithm makes of the scores of a step.

Everything here is over the whole step, before any micro-batch: baselines, standard deviations, whitening.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import pstdev
from typing import TypeVar, get_args

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

T = TypeVar("T")
PerToken = Mapping[int, tuple[float, ...]]
"""Numbers of a rollout's sampled tokens by `id(rollout)`."""

KL_PRECISION = 1e-4
"""Nats by which sampler and trainer may differ on a response in float32: a spread of rewards that is no more than β
times this comes from rounding, and dividing by it would train on noise."""


@dataclass(frozen=True)
class Signal:
    """A scored rollout with an advantage, and where there is a critic a target, for each token it sampled."""

    rollout: Rollout
    advantages: tuple[float, ...]
    returns: tuple[float, ...] = ()

    @property
    def flat(self) -> bool:
        """Whether the policy has nothing to learn from it."""
        return not any(self.advantages)


@dataclass(frozen=True)
class Scored:
    """A rollout that can be trained on: its reward for the whole response, and what the KL takes off each token."""

    rollout: Rollout
    reward: float
    penalties: tuple[float, ...]

    @property
    def by_token(self) -> list[float]:
        """Rewards [T]: minus the penalty at each token, plus the score at the last."""
        out = [-p for p in self.penalties]
        out[-1] += self.reward
        return out

    @property
    def whole(self) -> float:
        return self.reward - sum(self.penalties)


def step_signals(
    config: RlConfig,
    groups: Sequence[Group],
    *,
    beta: float = 0.0,
    references: PerToken | None = None,
    values: PerToken | None = None,
    adjust: Callable[[Score], float] | None = None,
    weights: Mapping[str, float] | None = None,
) -> list[list[Signal]]:
    """The rollouts to train on, group by group, with their advantages.

    Unscored rollouts are left out, and a group with fewer scored ones than its baseline needs is empty. `beta` and the
    `references` count where the KL goes into the reward: each token loses β·(log π − log π_ref), the k1 estimate, π
    being what it was sampled with. `values` are a critic's, `adjust` changes a score (constraints), and `weights` are
    those of the rewards, for gdpo."""
    if config.aggregation == "gdpo":
        return _decoupled_signals(groups, weights or {})
    in_reward = beta if config.kl_in == "reward" else 0.0
    scored = [_scored(config, group, in_reward, references or {}, adjust) for group in groups]
    least = 2 if config.groups_matter else 1
    scored = [members if len(members) >= least else [] for members in scored]
    noise = in_reward * KL_PRECISION
    if config.baseline == "critic":
        return _by_critic(config, scored, values or {}, noise)
    if config.baseline == "none" and config.scale != "group":
        advantages = [[returns_to_go(s.by_token, config.gamma) for s in members] for members in scored]
    else:
        advantages = [_by_response(config, members, noise) for members in scored]
    if config.scale == "batch":
        advantages = _by_group(whitened([a for members in advantages for a in members], noise), advantages)
    return [
        [Signal(s.rollout, tuple(a)) for s, a in zip(members, of_group, strict=True)]
        for members, of_group in zip(scored, advantages, strict=True)
    ]


def overlong_penalty(config: RlConfig, rollout: Rollout) -> float:
    """DAPO's soft overlong punishment (see `rewards.lengths.overlong`) over the last `overlong_share` of the length."""
    limit = config.longest_response
    tokens = range(rollout.response_length)
    return overlong("", tokens, max_tokens=limit, cache_tokens=round(config.overlong_share * limit))


def _scored(
    config: RlConfig,
    group: Group,
    beta: float,
    references: PerToken,
    adjust: Callable[[Score], float] | None,
) -> list[Scored]:
    out = []
    for rollout, score in zip(group.rollouts, group.scores, strict=True):
        if score.total is None or not rollout.response_length:
            continue
        penalties = (0.0,) * rollout.response_length
        if beta:
            pairs = zip(sampler_logprobs(rollout), references[id(rollout)], strict=True)
            penalties = tuple(beta * (policy - reference) for policy, reference in pairs)
        reward = adjust(score) if adjust else score.total
        if config.overlong_share:
            reward += overlong_penalty(config, rollout)
        out.append(Scored(rollout, reward, penalties))
    return out


def _by_response(config: RlConfig, members: Sequence[Scored], noise: float) -> list[list[float]]:
    """One advantage a response, for each of its tokens."""
    if not members:
        return []
    rewards = [s.whole for s in members]
    if noise and pstdev(rewards) < noise:
        rewards = [0.0] * len(rewards)
    if config.baseline == "leave-one-out":
        advantages = leave_one_out(rewards)
    else:
        advantages = group_centred(rewards) if config.baseline == "group" else rewards
    if config.scale == "group":
        sigma = pstdev(rewards)
        advantages = [a / sigma if sigma >= ZERO_VARIANCE else 0.0 for a in advantages]
    return [[a] * s.rollout.response_length for a, s in zip(advantages, members, strict=True)]


def _by_critic(
    config: RlConfig, scored: Sequence[Sequence[Scored]], values: PerToken, noise: float
) -> list[list[Signal]]:
    flat = [s for members in scored for s in members]
    rewards = [s.by_token for s in flat]
    if config.whiten_rewards:
        rewards = divided_by_deviation(rewards)
    estimates = [
        gae(r, values[id(s.rollout)], config.gamma, config.gae_lambda) for r, s in zip(rewards, flat, strict=True)
    ]
    advantages = [a for a, _ in estimates]
    if config.scale == "batch":
        advantages = whitened(advantages, noise)
    signals = [
        Signal(s.rollout, tuple(a), tuple(returns))
        for s, a, (_, returns) in zip(flat, advantages, estimates, strict=True)
    ]
    return _by_group(signals, scored)


def _decoupled_signals(groups: Sequence[Group], weights: Mapping[str, float]) -> list[list[Signal]]:
    scored = [
        [(r, s) for r, s in zip(g.rollouts, g.scores, strict=True) if s.total is not None and r.response_length]
        for g in groups
    ]
    scored = [members if len(members) > 1 else [] for members in scored]
    parts = [[[s.parts.get(name) for name in weights] for _, s in members] for members in scored]
    advantages = decoupled(parts, list(weights.values()))
    return [
        [Signal(r, (a,) * r.response_length) for (r, _), a in zip(members, values, strict=True)]
        for members, values in zip(scored, advantages, strict=True)
    ]


def _by_group(flat: Sequence[T], like: Sequence[Sequence[object]]) -> list[list[T]]:
    """A flat list cut into lists of the lengths of `like`."""
    rest = iter(flat)
    return [[next(rest) for _ in members] for members in like]


def sampler_logprobs(rollout: Rollout) -> list[float]:
    return [p for s in rollout.segments for p, sampled in zip(s.sampler_logprobs, s.sampled, strict=True) if sampled]


def trainable(rollout: Rollout, vocabulary: int) -> bool:
    """Whether what a line held can be trained on: tokens of a vocabulary of this size, drawn with a probability of at
    most 1 but for rounding; none only where sampling failed. Raises TypeError for what is not even numbers."""
    ids = [token for segment in rollout.segments for token in segment.token_ids]
    drawn = sampler_logprobs(rollout)
    known = all(type(token) is int and 0 <= token < vocabulary for token in ids)
    drawable = all(math.isfinite(p) and p <= 1e-3 for p in drawn) and (bool(drawn) or rollout.status == "failed")
    return known and drawable and rollout.status in get_args(Status)
