"""A decoding step of the common decoder families with few, large operations: one product for queries, keys and values,
one for gate and up, matrices laid out once (`Products.prepack_linear`), in float32 with the norms multiplied into them.
The result is the model's own up to rounding; other families decode through transformers' layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from transformers import PreTrainedModel

from posttrain.models.attention import AttentionPlan
from posttrain.models.layers import Products, dora_scale, fast, half_angles, inverse_rms, is_supported, rotate
from posttrain.models.layers.elementwise import rounded, swiglu, wide
from posttrain.models.layers.products import Product


@dataclass(frozen=True)
class _Norm:
    """`weight`: None if it is multiplied into the matrices that read the norm, or if there is no norm."""

    weight: torch.Tensor | None
    eps: float


@dataclass(frozen=True)
class _Layer:
    before: _Norm
    qkv: Product
    head_norms: _Norm
    scaling: float
    out: Product
    after: _Norm
    gate_up: Product
    down: Product


class Decoder:
    """Logits of the next token, from copies of the weights taken when it is made: about as much memory as the model has
    in the type that products see."""

    def __init__(self, module: PreTrainedModel, products: Products) -> None:
        if not is_supported(module):
            raise ValueError(f"{type(module).__name__} is not of a family that this decoder knows")
        config = module.config.get_text_config()
        body = module.model
        self.products = products
        self.heads: int = config.num_attention_heads
        self.key_heads: int = config.num_key_value_heads
        self.embedding: torch.Tensor = body.embed_tokens.weight
        self.rotary = body.rotary_emb
        with torch.no_grad():
            self.layers = [self._layer(layer) for layer in body.layers]
            self.norm, (weight, bias) = self._norm_and_weights(body.norm, [module.lm_head])
            self.head = products.prepack_logits(weight, bias)

    def logits(self, token_ids: torch.Tensor, position_ids: torch.Tensor, plan: AttentionPlan) -> torch.Tensor:
        """[R, V] in float32 for one token of each of R rows at `position_ids` [R], attending as `plan` says."""
        dtype, keys = self.products.dtype, self.heads + self.key_heads
        x = wide(F.embedding(token_ids.to(self.embedding.device), self.embedding))
        cos, sin = half_angles(self.rotary, x, position_ids.to(x.device))
        h = _normalised(x, self.layers[0].before.weight, self.layers[0].before.eps, dtype)
        for i, layer in enumerate(self.layers):
            rows = layer.qkv(h).view(len(x), keys + self.key_heads, -1)
            norms = layer.head_norms
            query, key = _query_and_key(
                rows[:, :keys], cos, sin, norms.weight, norms.eps, self.heads, layer.scaling, dtype
            )
            query, key, value = (part.transpose(0, 1)[None] for part in (query, key, rows[:, keys:]))
            attended = plan.attend(i, query, key, value, 1.0)
            x, h = _added(x, layer.out(attended.reshape(len(x), -1)), layer.after.weight, layer.after.eps, dtype)
            gate, up = layer.gate_up(h).chunk(2, dim=-1)
            norm = self.layers[i + 1].before if i + 1 < len(self.layers) else self.norm
            x, h = _added(x, layer.down(swiglu(gate, up, dtype)), norm.weight, norm.eps, dtype)
        return self.head(h)

    def _layer(self, layer: Any) -> _Layer:
        attention, mlp = layer.self_attn, layer.mlp
        before, qkv = self._norm_and_weights(
            layer.input_layernorm, [attention.q_proj, attention.k_proj, attention.v_proj]
        )
        after, gate_up = self._norm_and_weights(layer.post_attention_layernorm, [mlp.gate_proj, mlp.up_proj])
        return _Layer(
            before=before,
            qkv=self.products.prepack_linear(*qkv),
            head_norms=self._head_norms(attention),
            scaling=attention.scaling,
            out=self.products.prepack_linear(*_stacked([attention.o_proj])),
            after=after,
            gate_up=self.products.prepack_linear(*gate_up),
            down=self.products.prepack_linear(*_stacked([mlp.down_proj])),
        )

    def _norm_and_weights(
        self, norm: Any, parts: Sequence[Any]
    ) -> tuple[_Norm, tuple[torch.Tensor, torch.Tensor | None]]:
        """A norm and the linear layers that read it. In a type of fewer bits than float32 the norm stays by itself:
        multiplied into the weights it would have them rounded once more."""
        weight, bias = _stacked(parts)
        if self.products.dtype == torch.float32:
            return _Norm(None, norm.variance_epsilon), (weight * norm.weight, bias)
        return _Norm(wide(norm.weight.detach()), norm.variance_epsilon), (weight, bias)

    def _head_norms(self, attention: Any) -> _Norm:
        """Of all query and key heads [heads + key heads, D], if they have norms."""
        if not hasattr(attention, "q_norm"):
            return _Norm(None, 0.0)
        parts = [(attention.q_norm, self.heads), (attention.k_norm, self.key_heads)]
        weight = torch.cat([wide(norm.weight.detach()).expand(heads, -1) for norm, heads in parts])
        return _Norm(weight, attention.q_norm.variance_epsilon)


@fast
def _normalised(x: torch.Tensor, weight: torch.Tensor | None, eps: float, dtype: torch.dtype) -> torch.Tensor:
    n = x * inverse_rms(x, eps)
    return rounded(n if weight is None else n.mul_(weight), dtype)


@fast
def _added(
    x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor | None, eps: float, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """The residual stream x + y, and what the next product reads of it."""
    x = x + y
    n = x * inverse_rms(x, eps)
    return x, rounded(n if weight is None else n.mul_(weight), dtype)


@fast
def _query_and_key(
    x: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    weight: torch.Tensor | None,
    eps: float,
    heads: int,
    scaling: float,
    dtype: torch.dtype,
) -> tuple[torch.Tensor, torch.Tensor]:
    """From queries and keys [R, heads + key heads, D] the two apart, with their norms if there are some, rotated, the
    queries scaled."""
    x = wide(x)
    if weight is not None:
        x = weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps))
    x = rotate(x, cos, sin)
    # queries of their own: products would copy a part of x
    return rounded(x[:, :heads] * scaling, dtype), rounded(x[:, heads:], dtype)


def _stacked(parts: Sequence[Any]) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Weight and bias of linear layers that read the same, one below the other."""
    weights = [_weight(part) for part in parts]
    weight = torch.cat(weights) if len(weights) > 1 else weights[0]
    biases = [getattr(part, "base_layer", part).bias for part in parts]
    if all(b is None for b in biases):
        return weight, None
    return weight, torch.cat(
        [weight.new_zeros(p.out_features) if b is None else b.detach() for p, b in zip(parts, biases, strict=True)]
    )


def _weight(part: Any) -> torch.Tensor:
    base = getattr(part, "base_layer", part).weight
    assert isinstance(base, torch.Tensor)
    if not hasattr(part, "base_layer") or part.disable_adapters or part.merged:
        return base.detach()
    weight = wide(base.detach()).clone()
    for name in part.active_adapters:
        weight += part.get_delta_weight(name)
        if name in part.lora_magnitude_vector:
            weight *= dora_scale(part, name).detach()[:, None]
    return weight
