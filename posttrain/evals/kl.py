"""How far the answers of an evaluation are from what the start model would have said."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from posttrain.batch.packing import Branch, share_prefix
from posttrain.batch.types import Batch
from posttrain.models import LanguageModel
from posttrain.models.divergence import batch_sampling_kl
from posttrain.models.read import read_by
from posttrain.models.token_logprobs import CHUNK_ELEMENTS
from posttrain.types import Rollout

FORWARD_TOKENS = 4096
"""Tokens of one forward pass of a packed model."""

KlOfAnswers = Callable[[Sequence[Sequence[Rollout]]], tuple[list[list[float]], float]]
"""`kl_of_answers` of two models."""


def kl_of_answers(
    policy: LanguageModel, start: LanguageModel, groups: Sequence[Sequence[Rollout]]
) -> tuple[list[list[float]], float]:
    """Of each answer of each group Σ over its tokens, the end token included, of KL(π ‖ π_start) before the token (see
    `sampling_kl`), in nats; and the operations of both models' forward passes.

    The mean over answers sampled from π is without bias for KL(π ‖ π_start) of whole answers. `groups` share their
    prompts, and every answer has been sampled at one temperature above 0."""
    answers = [rollout for group in groups for rollout in group]
    if not answers:
        return [[] for _ in groups], 0.0
    packed = policy.packed and start.packed
    trees = [share_prefix([_branch(r) for r in group]) for group in groups if group]
    if not packed:  # logits of every token at once, and nothing is shared
        trees = [share_prefix([_branch(rollout)]) for rollout in answers]
    limit = FORWARD_TOKENS if packed else max(1, CHUNK_ELEMENTS // (2 * policy.vocabulary))
    flops = 0.0

    def read(batch: Batch) -> torch.Tensor:
        nonlocal flops
        values = batch_sampling_kl(policy, start, batch, answers[0].sampling.temperature)
        flops += policy.flops.forward(batch.nodes, len(values)) + start.flops.forward(batch.nodes, len(values))
        return values

    sums = [sum(values.tolist()) for values in read_by(policy, trees, limit, read)]
    found = iter(sums)
    return [[next(found) for _ in group] for group in groups], flops


def _branch(rollout: Rollout) -> Branch:
    (segment,) = rollout.segments
    kept = segment.kept_token_ids and segment.kept_token_ids.where(segment.sampled)
    return Branch.of(segment.token_ids, segment.sampled, 0.0, kept_token_ids=kept)
