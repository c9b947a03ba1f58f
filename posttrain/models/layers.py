"""The layers of the common decoder families with fewer passes over memory, for training and prefill.

Transformers' modules and parameters stay as they are, adapters beside the linear layers included; only what happens
between the matrix products is done by functions that save less for the backward pass and read it fewer times.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel
from transformers.models.llama.modeling_llama import LlamaForCausalLM
from transformers.models.mistral.modeling_mistral import MistralForCausalLM
from transformers.models.qwen2.modeling_qwen2 import Qwen2ForCausalLM
from transformers.models.qwen3.modeling_qwen3 import Qwen3ForCausalLM

from posttrain.models.attention import AttentionPlan

FAMILIES = (LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM)
"""Pre-norm decoders: RMSNorm, rotary positions over the whole head, SwiGLU, a linear head."""


class Products:
    """By torch's own kernels, which serve any device. A device may have others (see `kernels.products_for`)."""

    def linear(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """x W' + b for x [.., in] and W [out, in]; no gradients of its own."""
        return F.linear(x, weight, bias)

    def input_gradient(self, g: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """g W, the gradient of the input of `linear` from that of its output [N, out]."""
        return g @ weight

    def prepack_linear(self, weight: torch.Tensor, bias: torch.Tensor | None) -> Callable[[torch.Tensor], torch.Tensor]:
        """`linear` with a weight that is laid out once for the kernel, perhaps a copy: for many products."""
        return lambda x: F.linear(x, weight, bias)

    def blocks(self, rows: torch.Tensor) -> Sequence[torch.Tensor]:
        """The rows of a large tensor in parts that element-wise work goes over one after the other."""
        return (rows,)

    def use_in(self, module: nn.Module) -> None:
        """Let the linear layers of a model compute by these products; parameters and names stay as they are."""


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
) -> torch.Tensor:
    """Last hidden states [N, H] of N packed tokens that attend as `plan` says. `body` is the `.model` of a family.

    With `sparse` so is the gradient of the embedding: added to the dense one that a head of the same matrix has, it
    changes these N rows alone, where a dense one is a whole matrix of mostly zeros."""
    x = nn.functional.embedding(token_ids, body.embed_tokens.weight, sparse=sparse)
    cos, sin = half_angles(body.rotary_emb, x, position_ids)
    for i, layer in enumerate(body.layers):
        attention, mlp = layer.self_attn, layer.mlp
        projected = _norm_linears(
            products, layer.input_layernorm, x, attention.q_proj, attention.k_proj, attention.v_proj
        )
        query, key, value = (t.view(len(x), -1, attention.head_dim) for t in projected)
        if hasattr(attention, "q_norm"):
            query, key = _norm(attention.q_norm, query), _norm(attention.k_norm, key)
        query, key = Rotate.apply(query, cos, sin), Rotate.apply(key, cos, sin)
        query, key, value = (t.transpose(0, 1)[None] for t in (query, key, value))
        attended = plan.attend(i, query, key, value, attention.scaling)
        x = x + project(products, attention.o_proj, attended.reshape(len(x), -1))
        gate, up = _norm_linears(products, layer.post_attention_layernorm, x, mlp.gate_proj, mlp.up_proj)
        x = x + _swiglu_linear(products, gate, up, mlp.down_proj)
    return _norm(body.norm, x)


def half_angles(rotary: Any, x: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosine and sine [N, 1, D/2] of the rotary positions; the model's two halves of a head have the same angles."""
    cos, sin = rotary(x, position_ids[None])
    half = cos.shape[-1] // 2
    return cos[0, :, None, :half].contiguous(), sin[0, :, None, :half].contiguous()


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """(a, b) -> (a cos - b sin, b cos + a sin) on [N, heads, D], with the halves of each head as a and b."""
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    (a, b), (c, d) = x.chunk(2, dim=-1), out.chunk(2, dim=-1)
    torch.mul(a, cos, out=c)
    c.addcmul_(b, sin, value=-1)
    torch.mul(b, cos, out=d)
    d.addcmul_(a, sin)
    return out


def inverse_rms(x: torch.Tensor, eps: float) -> torch.Tensor:
    """1 / sqrt(mean(x^2) + eps) over the last dimension, kept as size 1."""
    norm: torch.Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()


class RmsNorm(torch.autograd.Function):
    """y = w x r, r = 1 / sqrt(mean(x^2) + eps) (Zhang & Sennrich, arXiv:1910.07467), over the last dimension."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        r = inverse_rms(x, eps)
        ctx.save_for_backward(x, weight, r)
        return (x * r).mul_(weight)

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, r = ctx.saved_tensors
        return *_norm_gradients(g, x * r, weight, r, ctx.needs_input_grad[1]), None


def _norm_gradients(
    g: torch.Tensor, n: torch.Tensor, weight: torch.Tensor, r: torch.Tensor, of_weight: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """With g the gradient of y and n = x r: dx = r (g w - n mean(g w n)), dw = sum(g n) over rows."""
    gn = g * n
    dw = gn.flatten(0, -2).sum(0) if of_weight else None
    mean = (gn @ weight).div_(n.shape[-1]).unsqueeze(-1)
    return torch.mul(g, weight, out=gn).addcmul_(n, mean, value=-1).mul_(r), dw


class NormLinears(torch.autograd.Function):
    """Linear layers of the output h of one RMSNorm: x -> (h W1', h W2', ...), biases None or added. h is made again in
    the backward pass instead of being kept."""

    @staticmethod
    def forward(
        ctx: Any, products: Products, x: torch.Tensor, norm: torch.Tensor, eps: float, *layers: torch.Tensor | None
    ) -> tuple[torch.Tensor, ...]:
        r = inverse_rms(x, eps)
        ctx.save_for_backward(x, norm, r, *layers[::2])
        ctx.products = products
        h = (x * r).mul_(norm)
        return tuple(products.linear(h, w, b) for w, b in zip(layers[::2], layers[1::2], strict=True) if w is not None)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, norm, r, *weights = ctx.saved_tensors
        n = x * r
        h = n * norm
        out: list[torch.Tensor | None] = []
        dh: torch.Tensor | None = None
        for i, (g, w) in enumerate(zip(grads, weights, strict=True)):
            out.append(g.T @ h if ctx.needs_input_grad[4 + 2 * i] else None)
            out.append(g.sum(0) if ctx.needs_input_grad[5 + 2 * i] else None)
            dw = ctx.products.input_gradient(g, w)
            dh = dw if dh is None else dh.add_(dw)
        assert dh is not None
        return None, *_norm_gradients(dh, n, norm, r, ctx.needs_input_grad[2]), None, *out


class SwiGlu(torch.autograd.Function):
    """y = silu(gate) up (Shazeer, arXiv:2002.05202). silu(gate) is made again in the backward pass."""

    @staticmethod
    def forward(ctx: Any, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(gate, up)
        return nn.functional.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        gate, up = ctx.saved_tensors
        return torch.ops.aten.silu_backward(g * up, gate), nn.functional.silu(gate).mul_(g)


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
        ctx.save_for_backward(gate, up, weight)
        ctx.products = products
        return products.linear(nn.functional.silu(gate).mul_(up), weight, bias)

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        gate, up, weight = ctx.saved_tensors
        active = nn.functional.silu(gate)
        ds = ctx.products.input_gradient(g, weight)
        dup = active * ds
        dw = g.T @ active.mul_(up) if ctx.needs_input_grad[3] else None
        db = g.sum(0) if ctx.needs_input_grad[4] else None
        return None, torch.ops.aten.silu_backward(ds.mul_(up), gate), dup, dw, db


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
        down = products.linear(x, a)
        ctx.save_for_backward(x, weight, a, b, down)
        ctx.scale, ctx.products = scale, products
        return products.linear(x, weight, bias).addmm_(down, b.T, alpha=scale)

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, a, b, down = ctx.saved_tensors
        up = g @ b
        dx = ctx.products.input_gradient(g, weight).addmm_(up, a, alpha=ctx.scale) if ctx.needs_input_grad[0] else None
        return dx, None, None, (up.T @ x).mul_(ctx.scale), (g.T @ down).mul_(ctx.scale), None, None


class Rotate(torch.autograd.Function):
    """`rotate`; its gradient is the rotation by the opposite angle."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(cos, sin)
        return rotate(x, cos, sin)

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        cos, sin = ctx.saved_tensors
        return rotate(g, cos, -sin), None, None


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
    return project(products, layer, SwiGlu.apply(gate, up))


def project(products: Products, layer: Any, x: torch.Tensor) -> torch.Tensor:
    """A linear layer, by `LowRank` where one adapter is beside it that trains nothing else, or DoRA's lengths."""
    name = layer.active_adapters[0] if len(getattr(layer, "active_adapters", ())) == 1 else None
    if name is None or layer.disable_adapters or layer.merged or layer.weight.requires_grad:
        out: torch.Tensor = layer(x)
        return out
    a, b, dropout = layer.lora_A[name], layer.lora_B[name], layer.lora_dropout[name]
    dora = name in layer.lora_magnitude_vector
    if b.bias is not None or not isinstance(dropout, nn.Identity) or (layer.lora_variant and not dora):
        return layer(x)
    bias = None if dora else layer.bias
    out = LowRank.apply(x, layer.weight, bias, a.weight, b.weight, layer.scaling[name], products)
    if dora:
        out = out * dora_scale(layer, name)
        return out if layer.bias is None else out + layer.bias
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
