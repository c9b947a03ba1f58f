"""Matrix products with the weights of linear layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import nn


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
