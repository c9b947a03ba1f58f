"""Counted floating-point operations: matrix products and attention, a multiply-add as two, nothing recomputed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from posttrain.types import Node


@dataclass(frozen=True)
class FlopCounter:
    """What one model costs.

    `linear` is the number of weights a token is multiplied with outside the head, `head` those of the head, and
    `attention` = 4 x layers x heads x head dimension: the operations for one query seeing one key."""

    linear: int
    head: int
    attention: int

    @staticmethod
    def of(module: PreTrainedModel) -> FlopCounter:
        config = module.config.get_text_config()
        output = module.get_output_embeddings()
        linear = sum(_matrix_size(m) for m in module.modules() if m is not output)
        dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return FlopCounter(
            linear, output.weight.numel(), 4 * config.num_hidden_layers * config.num_attention_heads * dim
        )

    def forward(self, nodes: Sequence[Node], predicted: int) -> float:
        """A forward pass over a forest with `predicted` positions through the head."""
        tokens = pairs = 0
        depths: list[int] = []  # tokens from the root to the end of each node
        for node in nodes:
            before = depths[node.parent] if node.parent >= 0 else 0
            depths.append(before + node.length)
            tokens += node.length
            pairs += node.length * before + node.length * (node.length + 1) // 2
        return 2.0 * self.linear * tokens + 2.0 * self.head * predicted + float(self.attention) * pairs

    def training(self, nodes: Sequence[Node], predicted: int, frozen: bool) -> float:
        """Forward and backward: the backward is twice the forward with all weights trained, once with frozen ones
        (LoRA: only the gradient of the activations passes through the large matrices)."""
        return (2.0 if frozen else 3.0) * self.forward(nodes, predicted)


def _matrix_size(module: torch.nn.Module) -> int:
    """Weights of a linear layer or GPT-2's Conv1D; an embedding is a look-up and costs nothing."""
    weight = getattr(module, "weight", None)
    if not isinstance(weight, torch.Tensor) or weight.dim() != 2 or isinstance(module, torch.nn.Embedding):
        return 0
    return weight.numel()
