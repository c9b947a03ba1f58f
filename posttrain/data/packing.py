"""From token rows to packed forests.

A `Branch` is one trained sequence (or what follows a shared trunk of it); a `Tree` is a trunk with its branches; `pack`
puts trees into one `Batch`. Nothing is padded here, and nothing is cut: the caller decides on lengths.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from posttrain.types import Batch, TreeShape

EXTRAS = ("advantages", "sampler_logprobs", "proximal_logprobs", "ref_logprobs", "returns", "values")


@dataclass(frozen=True)
class Branch:
    """Tokens of one sequence, which of them are trained, and the weight of each trained one in the loss.

    `extras` holds further per-token numbers of the trained tokens by the name of the Batch field they go to."""

    token_ids: tuple[int, ...]
    mask: tuple[bool, ...]
    weights: tuple[float, ...]
    extras: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    supports: tuple[tuple[int, ...], ...] | None = None

    def __post_init__(self) -> None:
        if len(self.token_ids) != len(self.mask):
            raise ValueError(f"{len(self.token_ids)} tokens but a mask of {len(self.mask)}")
        trained = sum(self.mask)
        for name, values in (("weights", self.weights), *self.extras.items()):
            if len(values) != trained:
                raise ValueError(f"{name} has {len(values)} values for {trained} trained tokens")


@dataclass(frozen=True)
class Tree:
    """`trunk` tokens, none of them trained, shared by the branches that follow."""

    trunk: tuple[int, ...]
    branches: tuple[Branch, ...]

    @property
    def shape(self) -> TreeShape:
        return TreeShape(len(self.trunk), tuple(len(b.token_ids) for b in self.branches))


def share_prefix(branches: Sequence[Branch]) -> Tree:
    """The tree whose trunk is the longest common prefix of the branches that none of them trains."""
    if len(branches) == 1:
        return Tree((), (branches[0],))
    limit = min(b.mask.index(True) if True in b.mask else len(b.mask) for b in branches)
    first = branches[0].token_ids
    n = 0
    while n < limit and all(b.token_ids[n] == first[n] for b in branches):
        n += 1
    rest = [Branch(b.token_ids[n:], b.mask[n:], b.weights, b.extras, b.supports) for b in branches]
    return Tree(first[:n], tuple(rest))


def pack(trees: Sequence[Tree]) -> Batch:
    """One row of N tokens: trees one after the other, in each the trunk and then its branches in order.

    A branch's position ids go on from its trunk; its first token's parent is the trunk's last token."""
    ids: list[int] = []
    positions: list[int] = []
    parents: list[int] = []
    sequences: list[int] = []
    mask: list[bool] = []
    weights: list[float] = []
    sequence = 0
    for tree in trees:
        root = len(ids)
        trunk = len(tree.trunk)
        ids += tree.trunk
        positions += range(trunk)
        parents += [-1, *range(root, root + trunk - 1)] if trunk else []
        sequences += [-1] * trunk
        mask += [False] * trunk
        for branch in tree.branches:
            start, n = len(ids), len(branch.token_ids)
            ids += branch.token_ids
            positions += range(trunk, trunk + n)
            parents += [root + trunk - 1 if trunk else -1, *range(start, start + n - 1)] if n else []
            sequences += [sequence] * n
            mask += branch.mask
            weights += branch.weights
            sequence += 1
    branches = [b for tree in trees for b in tree.branches]
    return Batch(
        token_ids=torch.tensor(ids, dtype=torch.long),
        position_ids=torch.tensor(positions, dtype=torch.long),
        parent=torch.tensor(parents, dtype=torch.long),
        sequence=torch.tensor(sequences, dtype=torch.long),
        mask=torch.tensor(mask, dtype=torch.bool),
        trees=tuple(tree.shape for tree in trees),
        sequences=sequence,
        weights=torch.tensor(weights, dtype=torch.float32),
        supports=_supports(branches),
        **{name: _extra(branches, name) for name in EXTRAS},
    )


def micro_batches(trees: Iterable[Tree], max_tokens: int) -> Iterator[list[Tree]]:
    """Trees in order, in lists of at most `max_tokens` tokens; a larger tree stands alone."""
    current: list[Tree] = []
    size = 0
    for tree in trees:
        if current and size + tree.shape.size > max_tokens:
            yield current
            current, size = [], 0
        current.append(tree)
        size += tree.shape.size
    if current:
        yield current


def _extra(branches: Sequence[Branch], name: str) -> torch.Tensor | None:
    """The values of one per-token field, if the branches carry it: all or none of them."""
    have = [name in b.extras for b in branches]
    if not any(have):
        return None
    if not all(have):
        raise ValueError(f"only some branches carry {name}")
    return torch.tensor([v for b in branches for v in b.extras[name]], dtype=torch.float32)


def _supports(branches: Sequence[Branch]) -> tuple[tuple[int, ...], ...] | None:
    have = [b.supports is not None for b in branches]
    if not any(have):
        return None
    if not all(have):
        raise ValueError("only some branches carry supports")
    return tuple(kept for b in branches for kept in b.supports or ())
