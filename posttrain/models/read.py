"""What a model says of the trained tokens of packed rows, a micro-batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from posttrain.batch.packing import Tree, micro_batches, pack
from posttrain.batch.types import Batch
from posttrain.models.language_model import LanguageModel
from posttrain.models.token_logprobs import RewardOutputs, TokenOutputs, ValueOutputs


@dataclass(frozen=True)
class Reading:
    """A forward pass, and whether it goes through the language-model head, whose operations then count."""

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
) -> list[torch.Tensor]:
    """What is read at the n trained tokens of each branch, [n] or [n, K], in order, in main memory and without
    gradients."""
    return read_by(lm, trees, micro_batch_tokens, lambda batch: what.forward(lm, batch)[0])


@torch.no_grad()
def read_by(
    lm: LanguageModel, trees: Sequence[Tree], micro_batch_tokens: int, function: Callable[[Batch], torch.Tensor]
) -> list[torch.Tensor]:
    """`read` by a function from a batch on the model's device to a row for each of its trained tokens. The device is
    waited for once."""
    found = [function(pack(part).to(lm.device)) for part in micro_batches(trees, micro_batch_tokens)]
    sizes = [branch.trained for tree in trees for branch in tree.branches]
    return list(torch.cat(found).cpu().split(sizes)) if found else []
