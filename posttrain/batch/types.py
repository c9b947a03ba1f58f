"""A batch of training: a packed forest of token rows, and what a loss reads beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from posttrain.arrays import KeptTokens

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Node:
    """A run of `length` tokens of a packed forest. It follows the last token of the node `parent` (-1: it is a root),
    which stands before it; the nodes of a forest are laid out in order."""

    parent: int
    length: int


GIVEN_BY: Mapping[str, str] = {
    "advantages": "rl",
    "sampler_logprobs": "rl",
    "proximal_logprobs": "rl with several optimizer steps a batch",
    "ref_logprobs": "rl with a KL in the loss, and dpo with a loss that has a reference",
    "values": "rl with a critic",
    "returns": "rl with a critic",
    "share": "dpo",
    "desirable": "dpo",
    "probability": "dpo and reward-model",
    "margin": "reward-model",
    "member_weights": "reward-model",
    "slopes": "reward-model with --length-head",
    "label": "reward-model on answers in steps",
}
"""The stages whose branches carry a name."""


class Named(dict[str, "torch.Tensor"]):
    """float32 tensors by name. A name that is missing raises KeyError, saying which stage gives it."""

    def __missing__(self, name: str) -> torch.Tensor:
        stages = f", which the branches of {GIVEN_BY[name]} carry" if name in GIVEN_BY else ""
        raise KeyError(f"this batch has no {name!r}{stages}; it has: {', '.join(self) or 'nothing'}")


@dataclass(frozen=True)
class Batch:
    """A packed forest: many sequences in one row that do not see each other, shared prefixes held once.

    Shapes: N packed tokens, M = number of True in `mask`, S = sequences of the batch.
    `parent[i]` is the index of the token before token i on its path, -1 at a root; token i is predicted (and a value
    read) at `parent[i]`, and attends to its ancestors and itself. `sequence[i]` numbers the one sequence a trained
    token belongs to (-1 in a shared prefix).
    `weights` are the step's normalisers spread over its trained tokens, in the order of the mask, and nothing else: a
    loss is sum(weights * per-token loss), so that micro-batches, packing and ranks add up to the same number. What
    else a loss reads has a name: `token` holds a number of each trained token, `row` of each sequence."""

    token_ids: torch.Tensor  # [N] int64
    position_ids: torch.Tensor  # [N] int64
    parent: torch.Tensor  # [N] int64
    sequence: torch.Tensor  # [N] int64
    mask: torch.Tensor  # [N] bool, True = trained
    nodes: tuple[Node, ...]
    sequences: int  # S
    weights: torch.Tensor  # [M] float32
    token: Named = field(default_factory=Named)  # [M] each
    row: Named = field(default_factory=Named)  # [S] or [S, K] each
    kept_token_ids: KeptTokens | None = None  # of M tokens, when sampling was truncated; in main memory

    def __post_init__(self) -> None:
        n = len(self.token_ids)
        for name in ("position_ids", "parent", "sequence", "mask"):
            if getattr(self, name).shape != (n,):
                raise ValueError(f"{name} has shape {tuple(getattr(self, name).shape)}, not ({n},)")
        if sum(node.length for node in self.nodes) != n:
            raise ValueError(f"the nodes hold {sum(node.length for node in self.nodes)} tokens, not {n}")
        m = int(self.mask.sum())
        for name, value in (("weights", self.weights), *self.token.items()):
            if value.shape != (m,):
                raise ValueError(f"{name} has shape {tuple(value.shape)}, not ({m},)")
        for name, value in self.row.items():
            if len(value) != self.sequences:
                raise ValueError(f"{name} has {len(value)} entries for {self.sequences} sequences")
        if self.kept_token_ids is not None and len(self.kept_token_ids) != m:
            raise ValueError(f"kept tokens of {len(self.kept_token_ids)} for {m} trained tokens")
        if bool((self.parent[self.mask] < 0).any()):
            raise ValueError("a root token has nothing to be predicted from and cannot be trained")

    def to(self, device: torch.device) -> Batch:
        """The batch with its tensors on a device; itself where they are there."""
        if self.token_ids.device == device:
            return self
        tensors = ("token_ids", "position_ids", "parent", "sequence", "mask", "weights")
        moved: dict[str, Any] = {name: getattr(self, name).to(device) for name in tensors}
        for kind in ("token", "row"):
            moved[kind] = Named({name: value.to(device) for name, value in getattr(self, kind).items()})
        return replace(self, **moved)


@dataclass(frozen=True)
class LossOutput:
    """A scalar to differentiate, and detached numbers to log (sums over the micro-batch, already weighted). `entries`
    are detached numbers of each entry, of which a step logs what is no sum."""

    loss: torch.Tensor
    metrics: Mapping[str, float] = field(default_factory=dict)
    entries: Mapping[str, torch.Tensor] = field(default_factory=dict)
