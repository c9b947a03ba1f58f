"""Scores of whole responses, or of their steps, by a model with a score head."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch

from posttrain.batch.packing import Branch, Tree, micro_batches, pack, share_prefix
from posttrain.batch.types import Batch
from posttrain.chat import Ids
from posttrain.models.language_model import LanguageModel


def response_tree(
    prompt_ids: Ids,
    responses: Sequence[Ids],
    weight: float = 1.0,
    row: Mapping[str, float | Sequence[float]] | None = None,
) -> Tree:
    """A prompt with its responses, of each of which the last token is scored, at a `weight`. Each carries `row`."""
    ids = [prompt_ids + response for response in responses]
    return share_prefix([Branch.of(i, (False,) * (len(i) - 1) + (True,), weight, row=row) for i in ids])


def score_batches(
    lm: LanguageModel, trees: Sequence[Tree], micro_batch_tokens: int
) -> Iterator[tuple[Batch, torch.Tensor]]:
    """The batches of some trees with the scores [M, K] of their responses, in order and without gradients."""
    for part in micro_batches(trees, micro_batch_tokens):
        batch = pack(part).to(lm.device)
        with torch.no_grad():
            scores = lm.scores(batch)
        yield batch, scores


def branch_scores(lm: LanguageModel, trees: Sequence[Tree], micro_batch_tokens: int) -> list[torch.Tensor]:
    """The scores [n, K] at the n marked tokens of each branch, in order and without gradients."""
    marked = [sum(branch.mask) for tree in trees for branch in tree.branches]
    found = [scores for _, scores in score_batches(lm, trees, micro_batch_tokens)]
    return list(torch.cat(found).split(marked)) if found else []
