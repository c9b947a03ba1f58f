"""Matrix products with the weights of linear layers, by the kernels that are faster on a CPU.

In float32 on a CPU torch multiplies by MKL; oneDNN, which torch has as well, is faster where few rows meet a large
matrix, and with AVX-512 for any number of rows. With AVX2 alone it loses with a transposed matrix, as gradients of
inputs have it (docs/log.md). Elsewhere these functions are torch's own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

WIDE = torch.backends.cpu.get_cpu_capability().startswith("AVX512")
"""Whether this processor has vector registers of 512 bits."""
PACKED_FOR = 64
"""Rows that the layout of `packed` is chosen for. It serves any number."""


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """x W' + b for x [.., in] and W [out, in]; no gradients of its own."""
    if not (_by_onednn(weight) and x.numel()):
        return F.linear(x, weight, bias)
    out: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return out


def input_gradient(g: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """g W, the gradient of the input of `linear` from that of its output [N, out]."""
    return linear(g, weight.T) if _by_onednn(weight) and WIDE else g @ weight


def packed(weight: torch.Tensor, bias: torch.Tensor | None) -> Callable[[torch.Tensor], torch.Tensor]:
    """`linear` with a weight that is laid out once for the kernel: a copy, for many products of few rows."""
    if not _by_onednn(weight):
        return lambda x: F.linear(x, weight, bias)
    laid_out = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), PACKED_FOR)
    product = torch.ops.mkldnn._linear_pointwise
    return lambda x: product(x, laid_out, bias, "none", [], "")


class Linear(nn.Linear):
    """`torch.nn.Linear` that computes and differentiates by these products."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = _Linear.apply(x, self.weight, self.bias)
        return out


def adopt(module: nn.Module) -> None:
    """Let the linear layers of a model compute by these products; parameters and names stay as they are."""
    for layer in module.modules():
        if type(layer) is nn.Linear and _by_onednn(layer.weight):
            layer.__class__ = Linear


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        return linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        rows = g.flatten(0, -2)
        dx = input_gradient(g, weight) if ctx.needs_input_grad[0] else None
        dw = rows.T @ x.flatten(0, -2) if ctx.needs_input_grad[1] else None
        return dx, dw, rows.sum(0) if ctx.needs_input_grad[2] else None


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
    ) -> torch.Tensor:
        down = linear(x, a)
        ctx.save_for_backward(x, weight, a, b, down)
        ctx.scale = scale
        return linear(x, weight, bias).addmm_(down, b.T, alpha=scale)

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor | float | None, ...]:
        x, weight, a, b, down = ctx.saved_tensors
        up = g @ b
        dx = input_gradient(g, weight).addmm_(up, a, alpha=ctx.scale) if ctx.needs_input_grad[0] else None
        return dx, None, None, (up.T @ x).mul_(ctx.scale), (g.T @ down).mul_(ctx.scale), None


def _by_onednn(weight: torch.Tensor) -> bool:
    return weight.device.type == "cpu" and weight.dtype == torch.float32 and torch.backends.mkldnn.is_available()
