"""From scored groups to training trees, and the numbers that are logged about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import pstdev

import torch

from posttrain.advantages import decoupled, group_normalised
from posttrain.data.packing import Branch, Tree, share_prefix
from posttrain.losses import clipped_policy_loss, kl_k1, kl_k3
from posttrain.models.head import TokenOutputs
from posttrain.rollout import prompt_ids
from posttrain.types import Batch, Group, LossOutput, Rollout

PerToken = Mapping[int, tuple[float, ...]]
"""Numbers of a rollout's sampled tokens by `id(rollout)`."""


KL_PRECISION = 1e-4
"""Nats by which sampler and trainer may differ on a response in float32: a spread of rewards that is no more than β
times this comes from rounding, and dividing by it would train on noise."""


@dataclass(frozen=True)
class Signal:
    """A scored rollout with its advantage."""

    rollout: Rollout
    advantage: float


def group_signals(
    groups: Sequence[Group], references: PerToken, reward_beta: float, gdpo: Mapping[str, float] | None = None
) -> list[list[Signal]]:
    """The rollouts to train on, group by group, with their advantages.

    Unscored rollouts are left out, and a group with fewer than two scored ones is empty. `gdpo` maps each reward to its
    weight: then their parts are normalised one by one (`advantages.decoupled`). Else the total is, and with `reward_beta` the score
    loses β·Σ_t (log π − log π_ref), the k1 estimate, before the advantage is taken."""
    if gdpo is not None:
        return _decoupled_signals(groups, gdpo)
    out: list[list[Signal]] = []
    for group in groups:
        scored = [(r, s.total) for r, s in zip(group.rollouts, group.scores, strict=True) if s.total is not None]
        if len(scored) < 2:
            out.append([])
            continue
        rewards = [total - (reward_beta * k1_sum(r, references) if reward_beta else 0.0) for r, total in scored]
        if reward_beta and pstdev(rewards) < reward_beta * KL_PRECISION:
            rewards = [0.0] * len(rewards)
        advantages = group_normalised(rewards)
        out.append([Signal(r, a) for (r, _), a in zip(scored, advantages, strict=True)])
    return out


def _decoupled_signals(groups: Sequence[Group], weights: Mapping[str, float]) -> list[list[Signal]]:
    scored = [[(r, s) for r, s in zip(g.rollouts, g.scores, strict=True) if s.total is not None] for g in groups]
    scored = [members if len(members) > 1 else [] for members in scored]
    parts = [[[s.parts.get(name) for name in weights] for _, s in members] for members in scored]
    advantages = decoupled(parts, list(weights.values()))
    return [
        [Signal(r, a) for (r, _), a in zip(members, values, strict=True)]
        for members, values in zip(scored, advantages, strict=True)
    ]


def step_trees(
    signals: Sequence[Sequence[Signal]], proximal: PerToken, references: PerToken, keep_flat: bool
) -> list[Tree]:
    """A tree a group. Each token weighs 1/(scored responses x length of its response): the mean over responses of their
    token means. A group without variance has no gradient, so its work is left out unless `keep_flat` (a KL or entropy
    term needs it); its responses stay in the denominator either way."""
    responses = sum(map(len, signals))
    trees = []
    for members in signals:
        if not members or not (keep_flat or any(s.advantage for s in members)):
            continue
        branches = []
        for s in members:
            extras = {"advantages": (s.advantage,) * s.rollout.response_length}
            if proximal:
                extras["proximal_logprobs"] = proximal[id(s.rollout)]
            if references:
                extras["ref_logprobs"] = references[id(s.rollout)]
            branches.append(branch_of(s.rollout, 1.0 / (responses * s.rollout.response_length), extras))
        trees.append(share_prefix(branches))
    return trees


def branch_of(rollout: Rollout, weight: float, extras: Mapping[str, tuple[float, ...]] | None = None) -> Branch:
    """A rollout's token row; what the policy sampled is trained, at `weight` a token."""
    (segment,) = rollout.segments
    kept = None
    if segment.supports is not None:
        kept = tuple(k for k, sampled in zip(segment.supports, segment.sampled, strict=True) if sampled)
    return Branch(segment.token_ids, segment.sampled, (weight,) * segment.sampled_count, dict(extras or {}), kept)


def policy_loss(batch: Batch, outputs: TokenOutputs, *, clip: float, beta: float) -> LossOutput:
    """The clipped surrogate of a micro-batch. Without proximal log-probabilities the step is the only one on its batch,
    and the policy is its own proximal policy: the ratio is 1 with the policy's gradient."""
    device = outputs.logprobs.device
    if batch.advantages is None:
        raise ValueError("a policy loss needs advantages")
    proximal = batch.proximal_logprobs
    return clipped_policy_loss(
        outputs.logprobs,
        outputs.logprobs.detach() if proximal is None else proximal.to(device),
        batch.advantages.to(device),
        batch.weights.to(device),
        clip,
        None if batch.ref_logprobs is None else batch.ref_logprobs.to(device),
        beta,
    )


def sampler_logprobs(rollout: Rollout) -> list[float]:
    return [p for s in rollout.segments for p, sampled in zip(s.sampler_logprobs, s.sampled, strict=True) if sampled]


def k1_sum(rollout: Rollout, references: PerToken) -> float:
    """Σ_t log π(y_t) − log π_ref(y_t) of one rollout, π being what it was sampled with."""
    return sum(sampler_logprobs(rollout)) - sum(references[id(rollout)])


def group_metrics(groups: Sequence[Group], signals: Sequence[Sequence[Signal]]) -> dict[str, float | None]:
    """What the rollouts of a step were like: means over rollouts, and shares of rollouts or of groups.

    `zero_variance_groups` counts groups whose advantages are all 0: a KL in the reward tells equal scores apart."""
    rollouts = [r for g in groups for r in g.rollouts]
    scores = [s for g in groups for s in g.scores]
    totals = [s.total for s in scores if s.total is not None]
    parts = sorted({name for s in scores for name in s.parts})
    flat = [members for members in signals if members and not any(s.advantage for s in members)]
    return {
        "reward": mean(totals),
        **{f"reward/{name}": mean([v for s in scores if (v := s.parts.get(name)) is not None]) for name in parts},
        "response_length": mean([r.response_length for r in rollouts]),
        "truncated": mean([float(r.status == "truncated") for r in rollouts]),
        "unscored": mean([float(s.total is None) for s in scores]),
        "zero_variance_groups": len(flat) / len(groups),
        "dropped_groups": mean([float(not members) for members in signals]),
        "tokens": sum(len(prompt_ids(g.rollouts[0])) + sum(r.response_length for r in g.rollouts) for g in groups),
    }


def kl_metrics(groups: Sequence[Group], references: PerToken) -> dict[str, float | None]:
    """`kl`: the k3 estimate a token; `kl_sequence`: k1 summed over a rollout, averaged over rollouts. Both of the
    sampling policy against the reference, in nats; null where no reference is asked for."""
    rollouts = [r for g in groups for r in g.rollouts if id(r) in references]
    if not rollouts:
        return {"kl": None, "kl_sequence": None}
    policy = torch.tensor([p for r in rollouts for p in sampler_logprobs(r)])
    reference = torch.tensor([p for r in rollouts for p in references[id(r)]])
    return {
        "kl": float(kl_k3(policy, reference).mean()),
        "kl_sequence": float(kl_k1(policy, reference).sum()) / len(rollouts),
    }


def mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
