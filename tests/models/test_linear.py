"""Products with weights, by whichever kernel: against torch's own, for few and many rows."""

from __future__ import annotations

import pytest
import torch

from posttrain.models.cpu.linear import PRODUCTS, OneDnnLinear
from posttrain.models.layers.decoder import LowRank
from posttrain.models.layers.products import Products


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rows", [0, 1, 7, 64, 300])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("products", [PRODUCTS, Products()], ids=["cpu", "any device"])
def test_products_are_those_of_torch(products: Products, rows: int, biased: bool, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(rows)
    x, weight, g = (
        torch.randn(shape, generator=generator, dtype=dtype) for shape in ((rows, 40), (96, 40), (rows, 96))
    )
    bias = torch.randn(96, generator=generator, dtype=dtype) if biased else None
    expected = torch.nn.functional.linear(x, weight, bias)
    torch.testing.assert_close(products.linear(x, weight, bias), expected)
    torch.testing.assert_close(products.prepack_linear(weight, bias)(x), expected)
    torch.testing.assert_close(products.input_gradient(g, weight), g @ weight)


def test_rows_that_do_not_lie_one_after_the_other() -> None:
    x = torch.randn(64, 2, 40)[:, 1]
    weight = torch.randn(40, 96).T
    torch.testing.assert_close(PRODUCTS.linear(x, weight), torch.nn.functional.linear(x, weight))
    torch.testing.assert_close(PRODUCTS.prepack_linear(weight, None)(x), torch.nn.functional.linear(x, weight))


@pytest.mark.parametrize("bias", [False, True])
def test_layers_that_use_onednn_are_linear_layers(bias: bool) -> None:
    """Values and gradients of three-dimensional input; double precision is left alone."""
    layers = torch.nn.Sequential(torch.nn.Linear(6, 4, bias=bias), torch.nn.Linear(6, 4, bias=bias).double())
    plain = torch.nn.Linear(6, 4, bias=bias)
    plain.load_state_dict(layers[0].state_dict())
    PRODUCTS.use_in(layers)
    assert type(layers[0]) is OneDnnLinear and type(layers[1]) is torch.nn.Linear
    x = torch.randn(2, 3, 6, requires_grad=True)
    weigh = torch.randn(2, 3, 4)
    results = []
    for layer in (layers[0], plain):
        out = layer(x)
        results.append((out, *torch.autograd.grad((out * weigh).sum(), [x, *layer.parameters()])))
    torch.testing.assert_close(*results)


def test_a_low_rank_product() -> None:
    """Against its formula, with gradients by finite differences; the frozen weight and bias get none."""
    generator = torch.Generator().manual_seed(1)
    x, weight, bias, a, b = (
        torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((3, 6), (4, 6), (4,), (2, 6), (4, 2))
    )
    trained = [t.requires_grad_() for t in (x, a, b)]
    expected = torch.nn.functional.linear(x, weight + 0.5 * b @ a, bias)
    torch.testing.assert_close(LowRank.apply(x, weight, bias, a, b, 0.5, PRODUCTS), expected)
    assert torch.autograd.gradcheck(lambda x, a, b: LowRank.apply(x, weight, bias, a, b, 0.5, PRODUCTS), trained)
