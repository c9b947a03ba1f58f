"""A batch of training: a packed forest of token rows, and what a loss reads beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from posttrain.arrays import KeptTokens


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


class Named(dict[str, torch.Tensor]):
    """Tensors by name. A name that is missing raises KeyError, saying which stage gives it."""

    def __missing__(self, name: str) -> torch.Tensor:
        stages = f", which the branches of {GIVEN_BY[name]} carry" if name in GIVEN_BY else ""
        raise KeyError(f"this batch has no {name!r}{stages}; it has: {', '.join(self) or 'nothing'}")


@dataclass(frozen=True)
class KeptPlaces:
    """The token ids to which truncated sampling restricted each of M trained tokens: those of token i are
    `values[offsets[i]:offsets[i + 1]]`. The offsets stay in main memory, where a slice reads them without a wait."""

    values: torch.Tensor  # [K] int32
    counts: torch.Tensor  # [M] int64, how many each token has
    offsets: NDArray[np.int64]  # [M + 1]

    @staticmethod
    def of(parts: Sequence[KeptTokens]) -> KeptPlaces:
        """Those of several runs of tokens, one after the other."""
        values, counts = (np.concatenate(arrays) for arrays in zip(*((p.values, p.counts) for p in parts), strict=True))
        offsets = np.concatenate([[0], np.cumsum(counts)])
        return KeptPlaces(torch.from_numpy(values), torch.from_numpy(counts), offsets)

    def __len__(self) -> int:
        return len(self.counts)

    def __getitem__(self, tokens: slice) -> KeptPlaces:
        offsets = self.offsets[tokens.start : tokens.stop + 1]
        return KeptPlaces(self.values[offsets[0] : offsets[-1]], self.counts[tokens], offsets - offsets[0])

    def indices(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Row and column of each of the K kept tokens in logits [M, V]."""
        return torch.repeat_interleave(self.counts, output_size=len(self.values)), self.values

    def to(self, device: torch.device) -> KeptPlaces:
        return replace(self, values=moved(self.values, device), counts=moved(self.counts, device))


@dataclass(frozen=True)
class Batch:
    """A packed forest: many sequences in one row that do not see each other, shared prefixes held once.

    Shapes: N packed tokens, M trained ones, S sequences.
    Trained token i is token `trained[i]` of the N. It is predicted (and a value read) at the token before it on its
    path, which is token `parent[i]`, and attends to its ancestors and itself; it belongs to sequence `sequence[i]`.
    `weights` are the step's normalisers spread over its trained tokens and nothing else: a loss is
    sum(weights * per-token loss), so that micro-batches, packing and ranks add up to the same number. What else a loss
    reads has a name: `token` holds a number of each trained token, `row` of each sequence, and `index`, for what is
    true or false of a sequence, the sequences of which `NAME` is true and those of which it is false, as `not NAME`.

    All that is selected by is an index, never a mask: how many a mask selects is only known to the device."""

    token_ids: torch.Tensor  # [N] int64
    position_ids: torch.Tensor  # [N] int64
    trained: torch.Tensor  # [M] int64
    parent: torch.Tensor  # [M] int64
    sequence: torch.Tensor  # [M] int64
    nodes: tuple[Node, ...]
    sequences: int  # S
    weights: torch.Tensor  # [M] float32
    token: Named = field(default_factory=Named)  # [M] float32 each
    row: Named = field(default_factory=Named)  # [S] or [S, K] float32 each
    index: Named = field(default_factory=Named)  # [S] int64 at most each
    kept_token_ids: KeptPlaces | None = None  # when sampling was truncated

    def __post_init__(self) -> None:
        n, m = len(self.token_ids), len(self.trained)
        if self.position_ids.shape != (n,):
            raise ValueError(f"position_ids has shape {tuple(self.position_ids.shape)}, not ({n},)")
        if sum(node.length for node in self.nodes) != n:
            raise ValueError(f"the nodes hold {sum(node.length for node in self.nodes)} tokens, not {n}")
        of_trained = (("parent", self.parent), ("sequence", self.sequence), ("weights", self.weights))
        for name, value in (*of_trained, *self.token.items()):
            if value.shape != (m,):
                raise ValueError(f"{name} has shape {tuple(value.shape)}, not ({m},)")
        for name, value in self.row.items():
            if len(value) != self.sequences:
                raise ValueError(f"{name} has {len(value)} entries for {self.sequences} sequences")
        if self.kept_token_ids is not None and len(self.kept_token_ids) != m:
            raise ValueError(f"kept tokens of {len(self.kept_token_ids)} for {m} trained tokens")
        if self.parent.is_cpu and bool((self.parent < 0).any()):
            raise ValueError("a root token has nothing to be predicted from and cannot be trained")

    def to(self, device: torch.device) -> Batch:
        """The batch with its tensors on a device; itself where they are there. Does not wait for the device."""
        if self.token_ids.device == device:
            return self
        move = partial(moved, device=device)
        tensors = ("token_ids", "position_ids", "trained", "parent", "sequence", "weights")
        there: dict[str, Any] = {name: move(getattr(self, name)) for name in tensors}
        for kind in ("token", "row", "index"):
            there[kind] = Named({name: move(value) for name, value in getattr(self, kind).items()})
        return replace(self, **there, kept_token_ids=self.kept_token_ids and self.kept_token_ids.to(device))


def moved(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor of main memory on a device. CUDA copies from pinned memory when the work before is done; from other
    memory the copy would be waited for."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


Metrics = dict[str, torch.Tensor | float]
"""Numbers to log, by name; tensors of one number each, all on one device, until `read_numbers` reads them."""


@dataclass(frozen=True)
class LossOutput:
    """A scalar to differentiate, and numbers to log (sums over the micro-batch, already weighted), as detached tensors
    of one number or as floats: a tensor is not waited for. `entries` are detached numbers of each entry, of which a
    step logs what is no sum."""

    loss: torch.Tensor
    metrics: Mapping[str, torch.Tensor | float] = field(default_factory=dict)
    entries: Mapping[str, torch.Tensor] = field(default_factory=dict)


def number(value: torch.Tensor) -> torch.Tensor:
    """A tensor of one number, detached and in float64: what is computed from it is rounded as Python's floats are."""
    return value.detach().to(torch.float32 if value.device.type == "mps" else torch.float64)  # Apple's has no float64


def read_numbers(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics with tensors as floats, by one copy from their device."""
    tensors = {name: number(value) for name, value in metrics.items() if isinstance(value, torch.Tensor)}
    floats = torch.stack(list(tensors.values())).tolist() if tensors else []
    return {**metrics, **dict(zip(tensors, floats, strict=True))}
