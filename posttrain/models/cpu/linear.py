"""Matrix products by oneDNN.

In float32 on a CPU torch multiplies by MKL; oneDNN, which torch has as well, is faster where few rows meet a large
matrix, and with AVX-512 for any number of rows. With AVX2 alone it loses with a transposed matrix, as gradients of
inputs have it (docs/log.md). In other types these are torch's own products.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from posttrain.models.layers.products import Linear, Product, Products

WIDE = torch.backends.cpu.get_cpu_capability().startswith("AVX512")
"""Whether this processor has vector registers of 512 bits."""
PACKED_FOR = 64
"""Rows that the layout of `prepack_linear` is chosen for. It serves any number."""
BLOCK_ROWS = 64
"""Rows of logits that element-wise work goes over at a time, so that its passes find them in a cache."""


class CpuProducts(Products):
    def linear(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        if not (self._by_onednn(weight) and x.numel()):
            return super().linear(x, weight, bias)
        out: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return out

    def input_gradient(self, g: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return self.linear(g, weight.T) if self._by_onednn(weight) and WIDE else super().input_gradient(g, weight)

    def prepack_linear(self, weight: torch.Tensor, bias: torch.Tensor | None) -> Product:
        if not self._by_onednn(weight):
            return super().prepack_linear(weight, bias)
        laid_out = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), PACKED_FOR)
        product = torch.ops.mkldnn._linear_pointwise
        return lambda x: product(x, laid_out, bias, "none", [], "")

    def blocks(self, rows: torch.Tensor) -> Sequence[torch.Tensor]:
        return rows.split(BLOCK_ROWS)

    def use_in(self, module: Any) -> None:
        for layer in module.modules():
            if type(layer) in (nn.Linear, OneDnnLinear):
                layer.__class__ = OneDnnLinear if self._by_onednn(layer.weight) else nn.Linear
        super().use_in(module)

    def _by_onednn(self, weight: torch.Tensor) -> bool:
        own = weight.device.type == "cpu" and weight.dtype == self.dtype == torch.float32
        return own and torch.backends.mkldnn.is_available()


PRODUCTS = CpuProducts()


class OneDnnLinear(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = Linear.apply(PRODUCTS, x, self.weight, self.bias)
        return out
