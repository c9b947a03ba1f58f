"""What a model says of the trained tokens of packed rows, a micro-batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from posttrain.batch.packing import Tree, micro_batches, pack
from posttrain.batch.types import Batch
from posttrain.models.language_model import LanguageModel
from posttrain.models.token_logprobs import RewardOutputs, TokenOutputs, ValueOutputs


@dataclass(frozen=True)
class Reading:
    """What is read at each trained token: a forward pass, and whether it goes through the language-model head, whose
    operations are counted then."""

    forward: Callable[[LanguageModel, Batch], TokenOutputs | RewardOutputs | ValueOutputs]
    head: bool = True


def logprobs_at(temperature: float = 1.0, *, entropy: bool = False, values: bool = False) -> Reading:
    """Log-probabilities at a temperature; see `LanguageModel.logprobs`."""
    return Reading(lambda lm, batch: lm.logprobs(batch, temperature, entropy, values))


LOGPROBS = logprobs_at()
SCORES = Reading(lambda lm, batch: RewardOutputs(lm.scores(batch)), head=False)
"""Scores [M, K] of a reward model."""
VALUES = Reading(lambda lm, batch: ValueOutputs(lm.values(batch)), head=False)
"""Values of a critic."""


def read(
    lm: LanguageModel, trees: Sequence[Tree], micro_batch_tokens: int, what: Reading = LOGPROBS
) -> Iterator[tuple[Batch, torch.Tensor]]:
    """The batches of some trees with what is read of their trained tokens, [M] or [M, K], in order and without
    gradients."""
    for part in micro_batches(trees, micro_batch_tokens):
        batch = pack(part).to(lm.device)
        with torch.no_grad():
            values = what.forward(lm, batch)[0]
        yield batch, values


def by_branch(trees: Sequence[Tree], values: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The values of all batches of some trees as a tensor a branch, in order."""
    marked = [branch.trained for tree in trees for branch in tree.branches]
    return list(torch.cat(list(values)).split(marked)) if values else []
