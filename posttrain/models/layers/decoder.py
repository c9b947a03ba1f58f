"""The layers of the common decoder families with fewer passes over memory, for training and prefill.

Transformers' modules and parameters stay as they are, adapters beside the linear layers included; only what happens
between the matrix products is done by functions that save less for the backward pass and read it fewer times.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.models.llama.modeling_llama import LlamaForCausalLM
from transformers.models.mistral.modeling_mistral import MistralForCausalLM
from transformers.models.qwen2.modeling_qwen2 import Qwen2ForCausalLM
from transformers.models.qwen3.modeling_qwen3 import Qwen3ForCausalLM

from posttrain.models.attention import AttentionPlan
from posttrain.models.layers.elementwise import (
    norm_gradients,
    normalise,
    normalise_wide,
    normalised,
    rotate,
    swiglu,
    swiglu_gradients,
    wide,
)
from posttrain.models.layers.products import Linear, Products
from posttrain.models.layers.recompute import recomputed

FAMILIES = (LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM)
"""Pre-norm decoders: RMSNorm, rotary positions over the whole head, SwiGLU, a linear head."""


def is_supported(module: PreTrainedModel) -> bool:
    """Whether this file's functions compute what the module's own layers do."""
    return type(module) in FAMILIES and getattr(module.config, "hidden_act", None) == "silu"


def hidden_states(
    body: Any,
    token_ids: torch.Tensor,
    position_ids: torch.Tensor,
    plan: AttentionPlan,
    products: Products,
    sparse: bool = False,
    recompute: bool = False,
) -> torch.Tensor:
    """Last hidden states [N, H] in float32 of N packed tokens that attend as `plan` says. `body` is the `.model` of a
    family.

    With `sparse` so is the gradient of the embedding: added to the dense one that a head of the same matrix has, it
    changes these N rows alone, where a dense one is a whole matrix of mostly zeros. With `recompute` the backward pass
    has one layer's intermediate results at a time: it makes them again from the layer's input."""
    x = wide(nn.functional.embedding(token_ids, body.embed_tokens.weight, sparse=sparse))
    angles = half_angles(body.rotary_emb, x, position_ids)
    run = recomputed(decoder_layer) if recompute and torch.is_grad_enabled() else decoder_layer
    for i, layer in enumerate(body.layers):
        x = run(layer, x, angles, plan, i, products)
    return _norm(body.norm, x)


def decoder_layer(
    layer: Any,
    x: torch.Tensor,
    angles: tuple[torch.Tensor, torch.Tensor],
    plan: AttentionPlan,
    index: int,
    products: Products,
) -> torch.Tensor:
    """The residual stream [N, H] after the layer of that index, from the one before it."""
    attention, mlp = layer.self_attn, layer.mlp
    projected = _norm_linears(products, layer.input_layernorm, x, attention.q_proj, attention.k_proj, attention.v_proj)
    query, key, value = (t.view(len(x), -1, attention.head_dim) for t in projected)
    if hasattr(attention, "q_norm"):
        query, key = _norm(attention.q_norm, query), _norm(attention.k_norm, key)
    query, key = (Rotate.apply(t, *angles, products.dtype) for t in (query, key))
    query, key, value = (t.transpose(0, 1)[None] for t in (query, key, value))
    attended = plan.attend(index, query, key, value, attention.scaling)
    x = x + project(products, attention.o_proj, attended.reshape(len(x), -1))
    gate, up = _norm_linears(products, layer.post_attention_layernorm, x, mlp.gate_proj, mlp.up_proj)
    return x + _swiglu_linear(products, gate, up, mlp.down_proj)


def half_angles(rotary: Any, x: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosine and sine [N, 1, D/2] of the rotary positions; the model's two halves of a head have the same angles."""
    cos, sin = rotary(x, position_ids[None])
    half = cos.shape[-1] // 2
    return cos[0, :, None, :half].contiguous(), sin[0, :, None, :half].contiguous()


class RmsNorm(torch.autograd.Function):
    """y = w x r, r = 1 / sqrt(mean(x^2) + eps) (Zhang & Sennrich, arXiv:1910.07467), over the last dimension, in
    float32."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        rows = x.flatten(0, -2)
        y, r = normalise_wide(rows, weight, eps)
        ctx.save_for_backward(rows, weight, r)
        return y.view(x.shape)

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, r = ctx.saved_tensors
        dx, dw = norm_gradients(g.reshape(x.shape), x, weight, r, ctx.needs_input_grad[1])
        return dx.view(g.shape), dw, None


class NormLinears(torch.autograd.Function):
    """Linear layers of the output h of one RMSNorm: x -> (h W1', h W2', ...), biases None or added. h is made again in
    the backward pass instead of being kept."""

    @staticmethod
    def forward(
        ctx: Any, products: Products, x: torch.Tensor, norm: torch.Tensor, eps: float, *layers: torch.Tensor | None
    ) -> tuple[torch.Tensor, ...]:
        h, r = normalise(x, norm, eps, products.dtype)
        weights = [products.rounded(w) for w in layers[::2] if w is not None]
        ctx.save_for_backward(x, norm, r, *weights)
        ctx.products = products
        return tuple(products.linear(h, w, b) for w, b in zip(weights, layers[1::2], strict=True))

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, norm, r, *weights = ctx.saved_tensors
        products, needed = ctx.products, ctx.needs_input_grad
        h = normalised(x, norm, r, products.dtype) if any(needed[4::2]) else None
        out: list[torch.Tensor | None] = []
        dh: torch.Tensor | None = None
        for i, (g, w) in enumerate(zip(grads, weights, strict=True)):
            out.append(products.weight_gradient(g, h) if needed[4 + 2 * i] else None)
            out.append(wide(g).sum(0) if needed[5 + 2 * i] else None)
            dw = products.input_gradient(g, w)
            dh = wide(dw) if dh is None else dh.add_(dw)
        assert dh is not None
        return None, *norm_gradients(dh, x, norm, r, needed[2]), None, *out


class SwiGlu(torch.autograd.Function):
    """y = silu(gate) up (Shazeer, arXiv:2002.05202). silu(gate) is made again in the backward pass."""

    @staticmethod
    def forward(ctx: Any, products: Products, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(gate, up)
        ctx.products = products
        return swiglu(gate, up, products.dtype)

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        gate, up = ctx.saved_tensors
        return None, *swiglu_gradients(g, gate, up, ctx.products.dtype, False)[:2]


class SwiGluLinear(torch.autograd.Function):
    """(silu(gate) up) W' + b, with the input of the product made again in the backward pass instead of being kept."""

    @staticmethod
    def forward(
        ctx: Any,
        products: Products,
        gate: torch.Tensor,
        up: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
    ) -> torch.Tensor:
        weight = products.rounded(weight)
        ctx.save_for_backward(gate, up, weight)
        ctx.products = products
        return products.linear(swiglu(gate, up, products.dtype), weight, bias)

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        gate, up, weight = ctx.saved_tensors
        products, needed = ctx.products, ctx.needs_input_grad
        ds = products.input_gradient(g, weight)
        dgate, dup, y = swiglu_gradients(ds, gate, up, products.dtype, needed[3])
        dw = products.weight_gradient(g, y) if needed[3] else None
        return None, dgate, dup, dw, wide(g).sum(0) if needed[4] else None


class LowRank(torch.autograd.Function):
    """x (W + s B A)' + b for x [N, in], W [out, in], A [r, in] and B [out, r]: a linear layer with a LoRA adapter
    (Hu et al. 2021, arXiv:2106.09685), whose weights alone are trained. What the adapter gives is added in place."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        a: torch.Tensor,
        b: torch.Tensor,
        scale: float,
        products: Products,
    ) -> torch.Tensor:
        x, weight, a, b = (products.rounded(t) for t in (x, weight, a, b))
        down = products.linear(x, a)
        ctx.save_for_backward(x, weight, a, b, down)
        ctx.scale, ctx.products = scale, products
        return products.linear(x, weight, bias).addmm_(down, b.T, alpha=scale)

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, a, b, down = ctx.saved_tensors
        products = ctx.products
        up = g @ b
        dx = products.input_gradient(g, weight).addmm_(up, a, alpha=ctx.scale) if ctx.needs_input_grad[0] else None
        of_a, of_b = products.weight_gradient(up, x), products.weight_gradient(g, down)
        return dx, None, None, of_a.mul_(ctx.scale), of_b.mul_(ctx.scale), None, None


class Rotate(torch.autograd.Function):
    """`rotate`; its gradient is the rotation by the opposite angle."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, dtype: torch.dtype = torch.float32
    ) -> torch.Tensor:
        ctx.save_for_backward(cos, sin)
        ctx.dtype = x.dtype
        return rotate(x, cos, sin, dtype)

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        cos, sin = ctx.saved_tensors
        return rotate(g, cos, -sin, ctx.dtype), None, None, None


def _norm(norm: Any, x: torch.Tensor) -> torch.Tensor:
    out: torch.Tensor = RmsNorm.apply(x, norm.weight, norm.variance_epsilon)
    return out


def _norm_linears(products: Products, norm: Any, x: torch.Tensor, *layers: nn.Module) -> tuple[torch.Tensor, ...]:
    if all(isinstance(layer, nn.Linear) for layer in layers):
        flat = [tensor for layer in layers for tensor in (layer.weight, layer.bias)]
        out: tuple[torch.Tensor, ...] = NormLinears.apply(products, x, norm.weight, norm.variance_epsilon, *flat)
        return out
    h = _norm(norm, x)  # adapters beside the layers read it too
    return tuple(project(products, layer, h) for layer in layers)


def _swiglu_linear(products: Products, gate: torch.Tensor, up: torch.Tensor, layer: nn.Module) -> torch.Tensor:
    if isinstance(layer, nn.Linear):
        out: torch.Tensor = SwiGluLinear.apply(products, gate, up, layer.weight, layer.bias)
        return out
    return project(products, layer, SwiGlu.apply(products, gate, up))


def project(products: Products, layer: Any, x: torch.Tensor) -> torch.Tensor:
    """A linear layer, by `LowRank` where one adapter is beside it that trains nothing else, or the lengths of DoRA."""
    out: torch.Tensor
    if isinstance(layer, nn.Linear):
        out = Linear.apply(products, x, layer.weight, layer.bias)
    elif _is_low_rank(layer):
        name = layer.active_adapters[0]
        dora = name in layer.lora_magnitude_vector
        a, b, bias = layer.lora_A[name].weight, layer.lora_B[name].weight, None if dora else layer.bias
        out = LowRank.apply(x, layer.weight, bias, a, b, layer.scaling[name], products)
        if dora:
            out = out * dora_scale(layer, name)
            out = products.rounded(out if layer.bias is None else out + layer.bias)
    else:
        with products.autocast(x.device):
            out = layer(x)
    return out


def dora_scale(layer: Any, name: str) -> torch.Tensor:
    """m / ‖W + s B A‖ by row, [out]: what DoRA multiplies the output of a layer with an adapter by (Liu et al. 2024,
    arXiv:2402.09353). m is trained; the norm counts as a constant, as in section 4.3 there."""
    a, b = layer.lora_A[name].weight, layer.lora_B[name].weight
    with torch.no_grad():
        weight = torch.addmm(layer.weight.to(a.dtype), b, a, alpha=layer.scaling[name])
        norm = torch.linalg.vector_norm(weight, dim=1)
    magnitude: torch.Tensor = layer.lora_magnitude_vector[name].weight
    return magnitude / norm


def _is_low_rank(layer: Any) -> bool:
    """Whether a layer with adapters has one active that is LoRA or DoRA, without dropout, and trains nothing else."""
    if len(getattr(layer, "active_adapters", ())) != 1 or layer.disable_adapters or layer.merged:
        return False
    name = layer.active_adapters[0]
    known = name not in layer.lora_variant or name in layer.lora_magnitude_vector
    plain = known and layer.lora_B[name].bias is None and not layer.weight.requires_grad
    return plain and isinstance(layer.lora_dropout[name], nn.Identity)
