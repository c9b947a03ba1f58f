"""What a model says of the trained tokens of a forest, read over micro-batches without gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch

from posttrain.batch.packing import Branch, Tree, micro_batches, pack, share_prefix
from posttrain.batch.types import Batch


def read_branches(
    trees: Sequence[Tree], micro_batch_tokens: int, read: Callable[[Batch], torch.Tensor]
) -> Iterator[torch.Tensor]:
    """The rows [n, ...] that `read` gives for the n trained tokens of each branch, in order. `read` is a function such
    as `LanguageModel.values`: from a batch to a row for each of its trained tokens."""
    for part in micro_batches(trees, micro_batch_tokens):
        batch = pack(part)
        with torch.no_grad():
            rows = read(batch)
        yield from rows.split([int(sum(branch.mask)) for tree in part for branch in tree.branches])


def response_tree(prompt_ids: tuple[int, ...], responses: Sequence[tuple[int, ...]]) -> Tree:
    """A prompt with its responses, of each of which the last token is scored."""
    rows = [prompt_ids + ids for ids in responses]
    return share_prefix([Branch(row, (False,) * (len(row) - 1) + (True,), (1.0,)) for row in rows])
