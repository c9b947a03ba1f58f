"""From advantages to training trees and the loss of a micro-batch, and the numbers that are logged about a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import pvariance

import torch

from posttrain.batch.packing import Branch, Tree, share_prefix
from posttrain.batch.types import Batch, LossOutput
from posttrain.config import RlConfig
from posttrain.losses.policy import PolicyLoss, importance_weights, kl_k1, policy_loss, value_loss
from posttrain.models.token_logprobs import TokenOutputs
from posttrain.rollout import prompt_ids
from posttrain.train.rl.advantages import PerToken, Signal, sampler_logprobs
from posttrain.types import Group, Rollout

SHARES = ("entropy", "clip_fraction", "policy_kl", "mismatch_kl")
"""Metrics of a loss that are means over tokens by weight."""


def loss_choices(config: RlConfig, beta: float) -> PolicyLoss:
    """What the configuration says of the policy loss, with the KL coefficient of the step."""
    return PolicyLoss(
        surrogate=config.surrogate,
        clip_low=config.clip,
        clip_high=config.clip if config.clip_high is None else config.clip_high,
        dual_clip=config.dual_clip,
        kl=config.kl_estimator if beta and config.kl_in == "loss" else None,  # type: ignore[arg-type]
        beta=beta,
        entropy_bonus=config.entropy_bonus,
    )


def step_trees(
    config: RlConfig, signals: Sequence[Sequence[Signal]], extras: Mapping[str, PerToken], keep_flat: bool
) -> list[Tree]:
    """A tree a group; `extras` holds per-token numbers by the names that the loss asks for.

    With R scored responses, T their sampled tokens and n those of one, a token weighs 1/(R n) (`sequence`), 1/T
    (`token`), 1/(R L) with L the longest response there can be (`constant`), or 1/R (`sum`). Responses without
    advantages have no gradient, so a group of them is left out unless `keep_flat` (a KL, an entropy term or a critic
    needs it); they stay in the denominators either way."""
    members = [s for group in signals for s in group]
    responses, tokens = len(members), sum(s.rollout.response_length for s in members)

    def weight(length: int) -> float:
        whole = {"sequence": length, "token": tokens / responses, "constant": config.longest_response, "sum": 1}
        return 1.0 / (responses * whole[config.normalisation])

    trees = []
    for group in signals:
        if not group or not (keep_flat or any(not s.flat for s in group)):
            continue
        branches = [
            branch
            for s in group
            for branch in branches_of(s.rollout, weight(s.rollout.response_length), _extras(s, extras))
        ]
        trees.append(share_prefix(branches))
    return trees


def _extras(signal: Signal, extras: Mapping[str, PerToken]) -> dict[str, tuple[float, ...]]:
    out = {name: values[id(signal.rollout)] for name, values in extras.items() if values}
    out["advantages"] = signal.advantages
    out["sampler_logprobs"] = tuple(sampler_logprobs(signal.rollout))
    if signal.returns:
        out["returns"] = signal.returns
    return out


def branches_of(
    rollout: Rollout, weight: float = 0.0, extras: Mapping[str, tuple[float, ...]] | None = None
) -> list[Branch]:
    """A rollout's token rows, one a segment; what the policy sampled is trained, at `weight` a token. `extras` run over
    the sampled tokens of all segments."""
    out = []
    start = 0
    for segment in rollout.segments:
        count = segment.sampled_count
        if not count:
            continue
        kept = None
        if segment.supports is not None:
            kept = tuple(k for k, sampled in zip(segment.supports, segment.sampled, strict=True) if sampled)
        own = {name: values[start : start + count] for name, values in (extras or {}).items()}
        out.append(Branch(segment.token_ids, segment.sampled, (weight,) * count, own, supports=kept))
        start += count
    return out


def rollout_trees(groups: Sequence[Sequence[Rollout]]) -> list[Tree]:
    """A tree a group, to read numbers of all sampled tokens; see `by_rollout`."""
    members = [[branch for r in group for branch in branches_of(r)] for group in groups]
    return [share_prefix(branches) for branches in members if branches]


def by_rollout(groups: Sequence[Sequence[Rollout]], values: Sequence[tuple[float, ...]]) -> PerToken:
    """The numbers of the branches of `rollout_trees` joined for each rollout."""
    rest = iter(values)
    return {
        id(r): tuple(x for s in r.segments if s.sampled_count for x in next(rest)) for group in groups for r in group
    }


def batch_loss(
    batch: Batch, outputs: TokenOutputs, *, config: RlConfig, choices: PolicyLoss, mismatch: str
) -> LossOutput:
    """The policy loss of a micro-batch, and the value loss where a head on the policy gives values.

    Without proximal log-probabilities the step is the only one on its batch, so the ratio is 1 by construction and the
    policy's own values, detached, stand for them."""
    proximal = batch.token.get("proximal_logprobs", outputs.logprobs.detach())
    sampler, sequence = batch.token["sampler_logprobs"], batch.sequence[batch.mask]
    importance = None
    if mismatch != "off":
        importance = importance_weights(proximal, sampler, mismatch, config.mismatch_limit, sequence)  # type: ignore[arg-type]
    result = policy_loss(
        choices,
        outputs.logprobs,
        proximal,
        batch.token["advantages"],
        batch.weights,
        sequence=sequence,
        ref_logprobs=batch.token["ref_logprobs"] if choices.kl is not None else None,
        importance=importance,
        entropy=outputs.entropy,
    )
    # KL(sampler‖trainer) from the sampler's own samples, which is without bias however far apart they are
    metrics = dict(result.metrics) | {"mismatch_kl": float((batch.weights * kl_k1(sampler, proximal)).sum())}
    if outputs.values is None:
        return LossOutput(result.loss, metrics)
    of_values = critic_loss(batch, outputs, clip=config.value_clip)
    return LossOutput(result.loss + config.value_coefficient * of_values.loss, metrics | dict(of_values.metrics))


def critic_loss(batch: Batch, outputs: TokenOutputs, *, clip: float | None) -> LossOutput:
    """The value loss of a micro-batch."""
    assert outputs.values is not None
    return value_loss(outputs.values, batch.token["returns"], batch.weights, batch.token["values"], clip)


def group_metrics(groups: Sequence[Group], signals: Sequence[Sequence[Signal]]) -> dict[str, float | None]:
    """What the rollouts of a step were like: means over rollouts, and shares of rollouts or of groups.

    `zero_variance_groups` counts groups whose advantages are all 0: a KL in the reward tells equal scores apart."""
    rollouts = [r for g in groups for r in g.rollouts]
    scores = [s for g in groups for s in g.scores]
    totals = [s.total for s in scores if s.total is not None]
    parts = sorted({name for s in scores for name in s.parts})
    flat = [members for members in signals if members and all(s.flat for s in members)]
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
    """KL(π‖π_ref) in nats, π being what the rollouts were sampled from: `kl`, k1 = log π − log π_ref averaged over
    tokens, and `kl_sequence`, k1 summed over a rollout and averaged over rollouts. Without bias, and so perhaps below 0
    by chance. Both models are at hand one after the other only, so that the sum over the vocabulary is not to be had.
    Truncated sampling is compared over the tokens it kept. Null where no reference is asked for."""
    rollouts = [r for g in groups for r in g.rollouts if references.get(id(r))]
    if not rollouts:
        return {"kl": None, "kl_sequence": None}
    policy = torch.tensor([p for r in rollouts for p in sampler_logprobs(r)])
    reference = torch.tensor([p for r in rollouts for p in references[id(r)]])
    return {
        "kl": float(kl_k1(policy, reference).mean()),
        "kl_sequence": float(kl_k1(policy, reference).sum()) / len(rollouts),
    }


def explained_variance(signals: Sequence[Sequence[Signal]], values: PerToken) -> float | None:
    """1 − Var(R − V)/Var(R) over the step's tokens: 1 for a critic that knows the returns, 0 for one that says the same
    everywhere; None where the returns do not differ."""
    pairs = [(r, v) for group in signals for s in group for r, v in zip(s.returns, values[id(s.rollout)], strict=True)]
    spread = pvariance([r for r, _ in pairs]) if pairs else 0.0
    return 1 - pvariance([r - v for r, v in pairs]) / spread if spread > 1e-12 else None


def mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
