"""From advantages to training trees and the loss of a micro-batch, and the numbers that are logged about a step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import pvariance
from typing import Any

import numpy as np
import torch

from posttrain.arrays import Floats, floats
from posttrain.batch.packing import Branch, Tree, share_prefix
from posttrain.batch.types import Batch, LossOutput, Metrics
from posttrain.config import RlConfig
from posttrain.losses.policy import PolicyLoss, importance_weights, kl_k1, policy_loss, value_loss
from posttrain.models.token_logprobs import TokenOutputs, ValueOutputs
from posttrain.train.rl.advantages import Rows, TrainingRow
from posttrain.types import Group, Rollout

SHARES = ("entropy", "clip_fraction", "policy_kl", "mismatch_kl")
"""Metrics of a loss that are means over tokens by weight."""
TOKEN_NUMBERS = ("advantages", "sampler_logprobs", "ref_logprobs", "values", "returns", "proximal_logprobs")
"""What a branch carries of a row, where the row has it."""


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


def step_trees(config: RlConfig, rows: Rows, keep_zero_advantage: bool) -> list[Tree]:
    """A tree a group of rows that are trained on.

    With R scored responses, T their sampled tokens and n those of one, a token weighs 1/(R n) (`sequence`), 1/T
    (`token`), 1/(R L) with L the longest response there can be (`constant`), or 1/R (`sum`). Responses whose advantages
    are 0 have no gradient, so a group of them is left out unless `keep_zero_advantage` (a KL, an entropy term or a
    critic needs it); they stay in the denominators either way."""
    lengths = [len(row.sampler_logprobs) for group in rows for row in group]

    def weight(length: int) -> float:
        mean = sum(lengths) / len(lengths)
        whole = {"sequence": length, "token": mean, "constant": config.longest_response, "sum": 1}
        return 1.0 / (len(lengths) * whole[config.normalisation])

    trees = []
    for group in rows:
        if not group or not (keep_zero_advantage or any(not row.is_zero for row in group)):
            continue
        branches = []
        for row in group:
            token = {name: values for name in TOKEN_NUMBERS if (values := getattr(row, name)) is not None}
            branches += branches_of(row.rollout, weight(len(row.sampler_logprobs)), token)
        trees.append(share_prefix(branches))
    return trees


def branches_of(rollout: Rollout, weight: float = 0.0, token: Mapping[str, Floats] | None = None) -> list[Branch]:
    """A rollout's token rows, one a segment; what the policy sampled is trained, at `weight` a token. The numbers of
    `token` run over the sampled tokens of all segments."""
    out = []
    start = 0
    for segment in rollout.segments:
        count = segment.sampled_count
        if not count:
            continue
        own = {name: values[start : start + count] for name, values in (token or {}).items()}
        kept = segment.kept_token_ids and segment.kept_token_ids.where(segment.sampled)
        out.append(Branch.of(segment.token_ids, segment.sampled, weight, own, kept_token_ids=kept))
        start += count
    return out


def with_numbers(rows: Rows, name: str, read: Callable[[list[Tree]], list[Floats]]) -> Rows:
    """The rows with what `read` says of each sampled token, under a name; it reads a tree a group."""
    members = [[branch for row in group for branch in branches_of(row.rollout)] for group in rows]
    found = iter(read([share_prefix(branches) for branches in members if branches]))

    def filled(row: TrainingRow) -> TrainingRow:
        numbers: Any = np.concatenate([floats([]), *(next(found) for s in row.rollout.segments if s.sampled_count)])
        return replace(row, **{name: numbers})

    return [[filled(row) for row in group] for group in rows]


def batch_loss(
    batch: Batch, outputs: TokenOutputs, *, config: RlConfig, choices: PolicyLoss, mismatch: str
) -> LossOutput:
    """The policy loss of a micro-batch, and the value loss of a head on the policy. Without proximal log-probabilities
    the step is the only one on its batch: the ratio is 1, and the policy's own values, detached, stand for them."""
    proximal = batch.token.get("proximal_logprobs", outputs.logprobs.detach())
    sampler, sequence = batch.token["sampler_logprobs"], batch.sequence
    importance = None
    if mismatch != "off":
        limit = config.mismatch_limit
        importance = importance_weights(proximal, sampler, mismatch, limit, sequence, batch.sequences)  # type: ignore[arg-type]
    result = policy_loss(
        choices,
        outputs.logprobs,
        proximal,
        batch.token["advantages"],
        batch.weights,
        sequence=sequence,
        sequences=batch.sequences,
        ref_logprobs=batch.token["ref_logprobs"] if choices.kl is not None else None,
        importance=importance,
        entropy=outputs.entropy,
    )
    # KL(sampler‖trainer) from the sampler's own samples, which is without bias however far apart they are
    metrics: Metrics = {**result.metrics, "mismatch_kl": (batch.weights * kl_k1(sampler, proximal)).sum()}
    if outputs.values is None:
        return LossOutput(result.loss, metrics)
    of_values = critic_loss(batch, outputs, clip=config.value_clip)
    return LossOutput(result.loss + config.value_coefficient * of_values.loss, metrics | dict(of_values.metrics))


def critic_loss(batch: Batch, outputs: TokenOutputs | ValueOutputs, *, clip: float | None) -> LossOutput:
    """The value loss of a micro-batch."""
    assert outputs.values is not None
    return value_loss(outputs.values, batch.token["returns"], batch.weights, batch.token["values"], clip)


def group_metrics(groups: Sequence[Group], rows: Rows) -> dict[str, float | None]:
    """What the rollouts of a step were like: means over rollouts, and shares of rollouts or of groups.

    `zero_variance_groups` counts groups whose advantages are all 0: a KL in the reward tells equal scores apart."""
    rollouts = [r for g in groups for r in g.rollouts]
    scores = [s for g in groups for s in g.scores]
    totals = [s.total for s in scores if s.total is not None]
    parts = sorted({name for s in scores for name in s.parts})
    trained = [[row for row in group if row.advantages is not None] for group in rows]
    zero = [group for group in trained if group and all(row.is_zero for row in group)]
    return {
        "reward": mean(totals),
        **{f"reward/{name}": mean([v for s in scores if (v := s.parts.get(name)) is not None]) for name in parts},
        "response_length": mean([r.response_length for r in rollouts]),
        "truncated": mean([float(r.status == "truncated") for r in rollouts]),
        "unscored": mean([float(s.total is None) for s in scores]),
        "zero_variance_groups": len(zero) / len(groups),
        "dropped_groups": mean([float(not group) for group in trained]),
        "tokens": sum(len(g.rollouts[0].prompt_ids) + sum(r.response_length for r in g.rollouts) for g in groups),
    }


def kl_metrics(rows: Rows) -> dict[str, float | None]:
    """KL(π‖π_ref) in nats, π being what the rollouts were sampled from: `kl`, k1 = log π − log π_ref averaged over
    tokens, and `kl_sequence`, k1 summed over a rollout and averaged over rollouts. Without bias, and so perhaps below 0
    by chance. Both models are at hand one after the other only, so that the sum over the vocabulary is not to be had.
    Truncated sampling is compared over the tokens it kept. Null where no reference is asked for."""
    both = [(row.sampler_logprobs, row.ref_logprobs) for group in rows for row in group if row.ref_logprobs is not None]
    both = [(policy, reference) for policy, reference in both if len(reference)]
    if not both:
        return {"kl": None, "kl_sequence": None}
    policy, reference = (torch.from_numpy(np.concatenate(numbers)).float() for numbers in zip(*both, strict=True))
    return {
        "kl": float(kl_k1(policy, reference).mean()),
        "kl_sequence": float(kl_k1(policy, reference).sum()) / len(both),
    }


def explained_variance(rows: Rows) -> float | None:
    """1 − Var(R − V)/Var(R) over the step's tokens: 1 for a critic that knows the returns, 0 for one that says the same
    everywhere; None where the returns do not differ."""
    found = [row for group in rows for row in group]
    known = [(r.returns, r.values) for r in found if r.returns is not None and r.values is not None]
    returns = [x for targets, _ in known for x in targets.tolist()]
    errors = [x for targets, values in known for x in (targets - values).tolist()]
    spread = pvariance(returns) if returns else 0.0
    return 1 - pvariance(errors) / spread if spread > 1e-12 else None


def mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
