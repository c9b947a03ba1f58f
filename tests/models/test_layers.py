"""The functions between the matrix products: values against their plain form, gradients against finite differences."""

from __future__ import annotations

from functools import partial

import torch
from torch.autograd import gradcheck
from transformers.models.llama.modeling_llama import LlamaRMSNorm, rotate_half

from posttrain.models.cpu.linear import PRODUCTS
from posttrain.models.layers.decoder import NormLinears, RmsNorm, Rotate, SwiGlu, SwiGluLinear


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()


def test_rms_norm() -> None:
    """By hand: (3, 4) has the mean square 12.5; weights (1, 2) give 3/sqrt(12.5) and 8/sqrt(12.5)."""
    y = RmsNorm.apply(torch.tensor([[3.0, 4.0]]), torch.tensor([1.0, 2.0]), 0.0)
    torch.testing.assert_close(y, torch.tensor([[3.0, 8.0]]) / 12.5**0.5)
    norm = LlamaRMSNorm(6, eps=1e-2)
    x = random(4, 6)
    torch.testing.assert_close(RmsNorm.apply(x.float(), norm.weight, 1e-2), norm(x.float()))
    assert gradcheck(lambda x, w: RmsNorm.apply(x, w, 1e-2), (random(3, 2, 5), random(5, seed=1)))


def test_swiglu() -> None:
    gate, up = random(3, 5), random(3, 5, seed=1)
    torch.testing.assert_close(SwiGlu.apply(PRODUCTS, gate, up), torch.nn.functional.silu(gate) * up)
    assert gradcheck(partial(SwiGlu.apply, PRODUCTS), (gate, up))


def test_rotate() -> None:
    """By hand: a quarter turn takes (a, b) = (1, 2) to (-2, 1)."""
    quarter = (torch.zeros(1, 1, 1), torch.ones(1, 1, 1))
    torch.testing.assert_close(Rotate.apply(torch.tensor([[[1.0, 2.0]]]), *quarter), torch.tensor([[[-2.0, 1.0]]]))
    x, angle = random(3, 2, 6), torch.arange(9, dtype=torch.float64).view(3, 1, 3)
    cos, sin = angle.cos(), angle.sin()
    both = (torch.cat([cos, cos], -1), torch.cat([sin, sin], -1))
    torch.testing.assert_close(Rotate.apply(x, cos, sin), x * both[0] + rotate_half(x) * both[1])
    assert gradcheck(lambda x: Rotate.apply(x, cos, sin), (x,))


def test_linears_of_a_norm() -> None:
    x, norm, first, second, bias = random(4, 6), random(6), random(3, 6), random(2, 6), random(2)
    h = RmsNorm.apply(x, norm, 1e-2)
    linear = torch.nn.functional.linear
    both = NormLinears.apply(PRODUCTS, x, norm, 1e-2, first, None, second, bias)
    torch.testing.assert_close(both, (linear(h, first), linear(h, second, bias)))
    computed = lambda *t: NormLinears.apply(PRODUCTS, t[0], t[1], 1e-2, t[2], None, *t[3:])  # noqa: E731
    assert gradcheck(computed, (x, norm, first, second, bias))


def test_linear_of_a_swiglu() -> None:
    gate, up, weight, bias = random(3, 5), random(3, 5, seed=1), random(4, 5), random(4)
    expected = torch.nn.functional.linear(SwiGlu.apply(PRODUCTS, gate, up), weight, bias)
    torch.testing.assert_close(SwiGluLinear.apply(PRODUCTS, gate, up, weight, bias), expected)
    assert gradcheck(lambda *t: SwiGluLinear.apply(PRODUCTS, *t), (gate, up, weight, bias))
