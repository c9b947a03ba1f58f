"""Counted floating-point operations: matrix products and attention, a multiply-add as two, nothing recomputed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import PreTrainedModel

from posttrain.batch.types import Node


@dataclass(frozen=True)
class FlopCounter:
    """What one model costs, with the LoRA adapter that it has.

    `linear` is the number of weights a token is multiplied with outside the head, `head` those of the head, and
    `attention` = 4 x layers x heads x head dimension: the operations for one query seeing one key. A query sees the
    keys before it and its own; no operation is counted for the others.

    With an adapter, `adapter` is the number of its weights, `unreached` the number of weights (of matrices and of the
    adapters beside them) whose input needs no gradient because nothing before them is trained, and `merge` the
    operations of adding the adapter to the weights before decoding, 0 where decoding runs with the adapter beside
    them. DoRA multiplies its matrices once a pass for the lengths of rows, `norms` operations."""

    linear: int
    head: int
    attention: int
    adapter: int = 0
    unreached: int = 0
    merge: int = 0
    norms: int = 0

    @staticmethod
    def of(module: PreTrainedModel, merges: bool = False) -> FlopCounter:
        """The counter of a model as it is now; `merges` says whether decoding merges its adapter into the weights."""
        config = module.config.get_text_config()
        output = module.get_output_embeddings()
        linear = sum(_matrix_size(m) for m in module.modules() if m is not output) + _expert_size(module, config)
        dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        attention = 4 * config.num_hidden_layers * config.num_attention_heads * dim
        plain = FlopCounter(linear, output.weight.numel(), attention)
        layers: list[Any] = [m for m in module.modules() if hasattr(m, "lora_A")]
        return plain._beside(module, layers, merges) if layers else plain

    def _beside(self, module: PreTrainedModel, layers: Sequence[Any], merges: bool) -> FlopCounter:
        """The counter of a model with adapters beside these layers, whose weights `linear` counts so far."""
        pairs = [pair for layer in layers for pair in _adapters(layer)]
        adapter = sum(a.numel() + b.numel() for a, b in pairs)
        first = _without_input_gradient(module, layers)
        unreached = sum(layer.weight.numel() + sum(a.numel() for a, _ in _adapters(layer)) for layer in first)
        product = sum(2 * b.numel() * a.shape[1] for a, b in pairs)
        return replace(
            self,
            linear=self.linear - adapter,
            adapter=adapter,
            unreached=unreached,
            merge=product if merges else 0,
            norms=product if any(layer.lora_magnitude_vector for layer in layers) else 0,
        )

    def without_adapter(self) -> FlopCounter:
        return replace(self, adapter=0, unreached=0, merge=0, norms=0)

    def forward(self, nodes: Sequence[Node], predicted: int) -> float:
        """A forward pass over a forest with `predicted` positions through the head."""
        tokens, pairs = _tokens_and_pairs(nodes)
        products = 2.0 * (self.linear + self.adapter) * tokens + 2.0 * self.head * predicted
        return products + self.attention * pairs + self.norms

    def training(self, nodes: Sequence[Node], predicted: int) -> float:
        """Forward and backward. Backward, a matrix product costs as much again for the gradient of its input and for
        that of its weights, and attention twice its forward pass; so three forward passes in all. With an adapter the
        model's own matrices and head have no gradient of their weights, and what reads the embedding alone has no
        gradient of its input."""
        once = self.forward(nodes, predicted)
        if not self.adapter:
            return 3.0 * once
        tokens, _ = _tokens_and_pairs(nodes)
        frozen = 2.0 * (self.linear + self.unreached) * tokens + 2.0 * self.head * predicted
        return 3.0 * once - frozen - 2.0 * self.norms  # norms count as constants

    def sampling(self, nodes: Sequence[Node], decoded: int, predicted: int) -> float:
        """A forest's forward pass of which `decoded` tokens go one at a time, by merged weights with a `merge`."""
        return self.forward(nodes, predicted) - (2.0 * self.adapter * decoded if self.merge else 0.0)


def _tokens_and_pairs(nodes: Sequence[Node]) -> tuple[int, int]:
    tokens = pairs = 0
    depths: list[int] = []  # tokens from the root to the end of each node
    for node in nodes:
        before = depths[node.parent] if node.parent >= 0 else 0
        depths.append(before + node.length)
        tokens += node.length
        pairs += node.length * before + node.length * (node.length + 1) // 2
    return tokens, pairs


def _matrix_size(module: torch.nn.Module) -> int:
    """Weights of a linear layer or GPT-2's Conv1D; an embedding is a look-up and costs nothing."""
    if hasattr(module, "lora_A"):
        return 0  # its own weight is that of the layer inside it, which is a module too
    weight = getattr(module, "weight", None)
    if not isinstance(weight, torch.Tensor) or weight.dim() != 2 or isinstance(module, torch.nn.Embedding):
        return 0
    return weight.numel()


def _expert_size(module: torch.nn.Module, config: Any) -> int:
    """Weights of the experts that a token is sent to. The matrices of all experts of a layer are one tensor of three
    dimensions, the first of which is their number."""
    chosen = getattr(config, "num_experts_per_tok", None)
    if not chosen:
        return 0
    matrices = [
        weight
        for layer in module.modules()
        if hasattr(layer, "num_experts")
        for weight in layer.parameters(recurse=False)
        if weight.dim() == 3
    ]
    return sum(chosen * weight[0].numel() for weight in matrices)


def _adapters(layer: Any) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(layer.lora_A[name].weight, layer.lora_B[name].weight) for name in layer.active_adapters]


def _without_input_gradient(module: PreTrainedModel, layers: Sequence[torch.nn.Module]) -> list[Any]:
    """Which of the layers read nothing that depends on trained weights: seen in a pass over one token."""
    found: list[Any] = []

    def see(layer: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if not inputs[0].requires_grad:
            found.append(layer)

    hooks = [layer.register_forward_pre_hook(see) for layer in layers]
    try:
        with torch.enable_grad():
            module(input_ids=torch.zeros(1, 1, dtype=torch.long, device=module.device), use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return found
