"""The element-wise functions of a decoding step in the form that CUDA compiles, traced on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from posttrain.engine.local import plans, table
from posttrain.models import decoding

SIZES = [(8, 4, 2, 128, 128), (16, 4, 4, 128, 256), (40, 8, 5, 256, 128)]
"""Rows, prompts, the most rows of a prompt, prompt tokens, own tokens."""


def normal(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)


def places(rows: int, within: int) -> torch.Tensor:
    return torch.arange(rows) % within


FUNCTIONS: dict[Callable[..., Any], Callable[[int, int, int, int, int], tuple[Any, ...]]] = {
    decoding._normalised: lambda r, p, m, t, w: (normal(r, 32), normal(32), 1e-5, torch.bfloat16),
    decoding._added: lambda r, p, m, t, w: (
        *(normal(r, 32), normal(r, 32, dtype=torch.bfloat16)),
        *(normal(32), 1e-5, torch.bfloat16),
    ),
    decoding._query_and_key: lambda r, p, m, t, w: (
        *(normal(r, 6, 8, dtype=torch.bfloat16), normal(r, 1, 4), normal(r, 1, 4)),
        *(normal(6, 8), 1e-5, 4, 0.35, torch.bfloat16),
    ),
    plans._gathered: lambda r, p, m, t, w: (normal(r, 2, 3, 8), places(p * m, r), m),
    plans._weights: lambda r, p, m, t, w: (
        *(normal(r, 2, 3, w), normal(p, 2, m * 3, t), places(r, p * m)),
        *(normal(r, 1, 1, w), normal(r, 1, 1, t), torch.bfloat16),
    ),
    plans._together: lambda r, p, m, t, w: (
        *(normal(r, 2, 3, 8), normal(p, 2, m * 3, 8)),
        *(places(r, p * m), torch.bfloat16),
    ),
    table._advanced: lambda r, p, m, t, w: (
        *(places(r, 7), places(r, 5), places(r, 9) + 1, places(r, 11)),
        *(places(r, 2) > 0, torch.tensor([2, 5])),
    ),
}


@pytest.mark.stress
@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
def test_functions_compile_whole_and_at_most_twice(function: Any) -> None:
    """Without a break, for steps of three sizes, with the results of the plain function, and no input is changed."""
    plain = function.__wrapped__
    torch._dynamo.reset()
    counters.clear()
    compiled = torch.compile(plain, dynamic=True, backend="aot_eager", fullgraph=True)
    with torch.inference_mode():
        for sizes in SIZES:
            given, same = FUNCTIONS[function](*sizes), FUNCTIONS[function](*sizes)
            results, expected = compiled(*given), plain(*same)
            torch.testing.assert_close(results, expected, rtol=1e-2, atol=1e-2)
            for now, before in zip(given, FUNCTIONS[function](*sizes), strict=True):
                assert not isinstance(now, torch.Tensor) or torch.equal(now, before)
    assert counters["stats"]["unique_graphs"] <= 2
