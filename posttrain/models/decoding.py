"""A decoding step of the common decoder families with few, large operations: one product for queries, keys and values,
one for gate and up, norms multiplied into the matrices, matrices laid out once (`Products.prepack_linear`). The result
is the model's own up to rounding; other families decode through transformers' layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from transformers import PreTrainedModel

from posttrain.models.attention import AttentionPlan
from posttrain.models.layers import Products, dora_scale, half_angles, inverse_rms, is_supported, rotate

Linear = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class _Layer:
    qkv: Linear
    out: Linear
    gate_up: Linear
    down: Linear
    query_norm: Any
    key_norm: Any
    norm_eps: tuple[float, float]
    scaling: float


class Decoder:
    """Logits of the next token, from copies of the weights taken when it is made: about as much memory as the model."""

    def __init__(self, module: PreTrainedModel, products: Products) -> None:
        if not is_supported(module):
            raise ValueError(f"{type(module).__name__} is not of a family that this decoder knows")
        config = module.config.get_text_config()
        body = module.model
        self.heads: int = config.num_attention_heads
        self.key_heads: int = config.num_key_value_heads
        self.embedding: torch.Tensor = body.embed_tokens.weight
        self.rotary = body.rotary_emb
        with torch.no_grad():
            self.layers = [self._layer(layer, products) for layer in body.layers]
            self.head = _linear(products, [module.lm_head], body.norm.weight)
        self.final_eps: float = body.norm.variance_epsilon

    def logits(self, token_ids: torch.Tensor, position_ids: torch.Tensor, plan: AttentionPlan) -> torch.Tensor:
        """[R, V] for one token of each of R rows at `position_ids` [R], attending as `plan` says."""
        x = F.embedding(token_ids.to(self.embedding.device), self.embedding)
        cos, sin = half_angles(self.rotary, x, position_ids.to(x.device))
        for i, layer in enumerate(self.layers):
            rows = layer.qkv(_normalise(x, layer.norm_eps[0])).view(len(x), self.heads + 2 * self.key_heads, -1)
            query, key, value = rows.split([self.heads, self.key_heads, self.key_heads], dim=1)
            if layer.query_norm is not None:
                query, key = layer.query_norm(query), layer.key_norm(key)
            query, key = rotate(query, cos, sin), rotate(key, cos, sin)
            attended = plan.attend(
                i, query.transpose(0, 1)[None], key.transpose(0, 1)[None], value.transpose(0, 1)[None], layer.scaling
            )
            x = x + layer.out(attended.reshape(len(x), -1))
            gate, up = layer.gate_up(_normalise(x, layer.norm_eps[1])).chunk(2, dim=-1)
            x = x + layer.down(F.silu(gate).mul_(up))
        return self.head(_normalise(x, self.final_eps))

    def _layer(self, layer: Any, products: Products) -> _Layer:
        attention, mlp = layer.self_attn, layer.mlp
        before, after = layer.input_layernorm, layer.post_attention_layernorm
        return _Layer(
            qkv=_linear(products, [attention.q_proj, attention.k_proj, attention.v_proj], before.weight),
            out=_linear(products, [attention.o_proj]),
            gate_up=_linear(products, [mlp.gate_proj, mlp.up_proj], after.weight),
            down=_linear(products, [mlp.down_proj]),
            query_norm=getattr(attention, "q_norm", None),
            key_norm=getattr(attention, "k_norm", None),
            norm_eps=(before.variance_epsilon, after.variance_epsilon),
            scaling=attention.scaling,
        )


def _normalise(x: torch.Tensor, eps: float) -> torch.Tensor:
    return x * inverse_rms(x, eps)


def _linear(products: Products, parts: Sequence[Any], norm: torch.Tensor | None = None) -> Linear:
    weight = torch.cat([_weight(part) for part in parts])
    if norm is not None:
        weight = weight * norm
    biases = [getattr(part, "base_layer", part).bias for part in parts]
    bias = None
    if any(b is not None for b in biases):
        bias = torch.cat(
            [weight.new_zeros(p.out_features) if b is None else b.detach() for p, b in zip(parts, biases, strict=True)]
        )
    return products.prepack_linear(weight, bias)


def _weight(part: Any) -> torch.Tensor:
    base = getattr(part, "base_layer", part).weight
    assert isinstance(base, torch.Tensor)
    if not hasattr(part, "base_layer") or part.disable_adapters or part.merged:
        return base.detach()
    weight = base.detach().clone()
    for name in part.active_adapters:
        weight += part.get_delta_weight(name)
        if name in part.lora_magnitude_vector:
            weight *= dora_scale(part, name).detach()[:, None]
    return weight
