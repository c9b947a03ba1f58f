"""Matrix products with weights, in the type that products see.

Only products and attention see bfloat16: their inputs are rounded to it, from copies that live for one pass, and what
they sum is summed in float32. Everything between them is float32, and is rounded once, into the next product.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from posttrain.models.layers.elementwise import rounded, wide

Product = Callable[[torch.Tensor], torch.Tensor]


class Products:
    """By torch's own kernels, which serve any device. A device may have others (see `kernels.products_for`).

    With `dtype` float32 nothing is rounded, and double precision stays what it is."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        self.dtype = dtype

    def rounded(self, x: torch.Tensor) -> torch.Tensor:
        """x as products see it; itself where it is that already."""
        return rounded(x, self.dtype)

    def linear(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """x W' + b in `dtype` for x [.., in] and W [out, in]; no gradients of its own."""
        return F.linear(self.rounded(x), self.rounded(weight), None if bias is None else self.rounded(bias))

    def logits(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """`linear` for x [N, in], not rounded at its end: float32 from inputs of `dtype`."""
        if self.dtype == torch.float32:
            return self.linear(x, weight, bias)
        out = self._unrounded(x, weight.T)
        return out if bias is None else out.add_(bias)

    def input_gradient(self, g: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """g W in `dtype`, the gradient of the input of `linear` from that of its output [N, out]."""
        return self.rounded(g) @ self.rounded(weight)

    def weight_gradient(self, g: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """g' x [out, in] in float32, the gradient of the weight, for g [N, out] and x [N, in]."""
        return self._unrounded(g.T, x)

    def add_weight_gradient(self, total: torch.Tensor, g: torch.Tensor, x: torch.Tensor, *, first: bool) -> None:
        """Add `weight_gradient` to the float32 `total`, or with `first` write it there."""
        a, b, beta = self.rounded(g).T, self.rounded(x), float(not first)
        if a.is_cuda and a.dtype != total.dtype:
            torch.addmm(total, a, b, out_dtype=total.dtype, beta=beta, out=total)
        else:
            torch.addmm(total, a.to(total.dtype), b.to(total.dtype), beta=beta, out=total)

    def prepack_linear(self, weight: torch.Tensor, bias: torch.Tensor | None) -> Product:
        """`linear` with a weight that is laid out once for the kernel, perhaps a copy: for many products."""
        weight, bias = self.rounded(weight), None if bias is None else self.rounded(bias)
        return lambda x: F.linear(self.rounded(x), weight, bias)

    def prepack_logits(self, weight: torch.Tensor, bias: torch.Tensor | None) -> Product:
        """`logits` with a weight that is laid out once."""
        if self.dtype == torch.float32:
            return self.prepack_linear(weight, bias)
        weight = self.rounded(weight)
        if not weight.is_cuda:
            wide = weight.float()  # once, and not for every token
            return lambda x: F.linear(self.rounded(x).float(), wide, bias)
        return lambda x: self.logits(x, weight, bias)

    def blocks(self, rows: torch.Tensor) -> Sequence[torch.Tensor]:
        """The rows of a large tensor in parts that element-wise work goes over one after the other."""
        return (rows,)

    def use_in(self, module: Any) -> None:
        """Let a model that runs by its own layers compute by these products as far as `autocast` does not: in bfloat16
        its head gives float32 logits. Parameters and names stay as they are."""
        if self.dtype != torch.float32:
            head: Any = module.get_output_embeddings()
            if type(head) in (nn.Linear, Head):
                head.__class__, head.products = Head, self

    def autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        """Within, torch's own layers round the inputs of their products to `dtype`."""
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(device.type, dtype=self.dtype)

    def _unrounded(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        a, b = self.rounded(a), self.rounded(b)
        if self.dtype == torch.float32:
            return a @ b
        if a.is_cuda:
            out: torch.Tensor = torch.mm(a, b, out_dtype=torch.float32)
            return out
        return a.float() @ b.float()


class WideProducts(Products):
    """float32 products with weights that are held in fewer bits."""

    def rounded(self, x: torch.Tensor) -> torch.Tensor:
        return wide(x)


class Linear(torch.autograd.Function):
    """x W' + b by given products, for x [.., in] and W [out, in]; with `logits` float32 (see `Products.logits`)."""

    @staticmethod
    def forward(
        ctx: Any,
        products: Products,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        logits: bool = False,
    ) -> torch.Tensor:
        x, weight = products.rounded(x), products.rounded(weight)
        ctx.save_for_backward(x, weight)
        ctx.products = products
        return (products.logits if logits else products.linear)(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        rows = g.flatten(0, -2)
        dx = ctx.products.input_gradient(g, weight) if ctx.needs_input_grad[1] else None
        dw = ctx.products.weight_gradient(rows, x.flatten(0, -2)) if ctx.needs_input_grad[2] else None
        return None, dx, dw, wide(rows).sum(0) if ctx.needs_input_grad[3] else None, None


class Head(nn.Linear):
    """A language-model head by its `products`: float32 logits, within `autocast` too."""

    products: Products

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(x.device.type, enabled=False):
            rows = x.flatten(0, -2)
            out: torch.Tensor = Linear.apply(self.products, rows, self.weight, self.bias, True)
            return out.unflatten(0, x.shape[:-1])
