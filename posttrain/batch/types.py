"""A batch of training: a packed forest of token rows, and what a loss reads beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Node:
    """A run of `length` tokens of a packed forest. It follows the last token of the node `parent` (-1: it is a root),
    which stands before it; the nodes of a forest are laid out in order."""

    parent: int
    length: int


@dataclass(frozen=True)
class Batch:
    """A packed forest: many sequences in one row that do not see each other, shared prefixes held once.

    Shapes: N packed tokens, M = number of True in `mask`, S = sequences of the batch.
    `parent[i]` is the index of the token before token i on its path, -1 at a root; token i is predicted (and a value
    read) at `parent[i]`, and attends to its ancestors and itself. `sequence[i]` numbers the one sequence a trained
    token belongs to (-1 in a shared prefix). The per-token tensors below have length M, in the order of the mask.
    `weights` are the step's normalisers spread over its tokens: a loss is sum(weights * per-token loss), so that
    micro-batches, packing and ranks add up to the same number."""

    token_ids: torch.Tensor  # [N] int64
    position_ids: torch.Tensor  # [N] int64
    parent: torch.Tensor  # [N] int64
    sequence: torch.Tensor  # [N] int64
    mask: torch.Tensor  # [N] bool, True = trained
    nodes: tuple[Node, ...]
    sequences: int  # S
    weights: torch.Tensor  # [M] float32
    advantages: torch.Tensor | None = None  # [M]
    sampler_logprobs: torch.Tensor | None = None  # [M]
    proximal_logprobs: torch.Tensor | None = None  # [M]
    ref_logprobs: torch.Tensor | None = None  # [M]
    returns: torch.Tensor | None = None  # [M]
    values: torch.Tensor | None = None  # [M]
    supports: tuple[tuple[int, ...], ...] | None = None  # M kept supports when sampling was truncated

    def __post_init__(self) -> None:
        n = len(self.token_ids)
        for name in ("position_ids", "parent", "sequence", "mask"):
            if getattr(self, name).shape != (n,):
                raise ValueError(f"{name} has shape {tuple(getattr(self, name).shape)}, not ({n},)")
        if sum(node.length for node in self.nodes) != n:
            raise ValueError(f"the nodes hold {sum(node.length for node in self.nodes)} tokens, not {n}")
        m = int(self.mask.sum())
        for name in (
            "weights",
            "advantages",
            "sampler_logprobs",
            "proximal_logprobs",
            "ref_logprobs",
            "returns",
            "values",
        ):
            value = getattr(self, name)
            if value is not None and value.shape != (m,):
                raise ValueError(f"{name} has shape {tuple(value.shape)}, not ({m},)")
        if self.supports is not None and len(self.supports) != m:
            raise ValueError(f"{len(self.supports)} supports for {m} trained tokens")
        if bool((self.parent[self.mask] < 0).any()):
            raise ValueError("a root token has nothing to be predicted from and cannot be trained")


@dataclass(frozen=True)
class LossOutput:
    """A scalar to differentiate, and detached numbers to log (sums over the micro-batch, already weighted). `entries`
    are detached numbers of each entry, of which a step logs what is no sum."""

    loss: torch.Tensor
    metrics: Mapping[str, float] = field(default_factory=dict)
    entries: Mapping[str, torch.Tensor] = field(default_factory=dict)
