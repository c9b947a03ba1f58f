"""What happens between the matrix products of a decoder layer: float32 inside, whatever comes in and goes out.

Each function takes the type of its result: that of the product which reads it. float32 leaves double precision alone.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from posttrain.models.layers.compiled import fast, is_compiled_for


def rounded(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """x in a type of fewer bits; with float32 x itself, which is float32 or double precision."""
    return x if dtype == torch.float32 else x.to(dtype)


def wide(x: torch.Tensor) -> torch.Tensor:
    """x in float32, or in double precision if it has that."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def inverse_rms(x: torch.Tensor, eps: float) -> torch.Tensor:
    """1 / sqrt(mean(x^2) + eps) over the last dimension, kept as size 1."""
    norm: torch.Tensor = torch.linalg.vector_norm(wide(x), dim=-1, keepdim=True)
    return norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()


@fast
def normalise(x: torch.Tensor, weight: torch.Tensor, eps: float, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    """w x r with r = `inverse_rms`, and r."""
    r = inverse_rms(x, eps)
    return rounded((wide(x) * r).mul_(weight), dtype), r


@fast
def normalise_wide(x: torch.Tensor, weight: torch.Tensor, eps: float) -> tuple[torch.Tensor, ...]:
    """`normalise` without rounding."""
    return normalise(x, weight, eps, torch.float32)


@fast
def normalised(x: torch.Tensor, weight: torch.Tensor, r: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """w x r, with the r that `normalise` gave."""
    return rounded((wide(x) * r).mul_(weight), dtype)


def norm_gradients(
    g: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, r: torch.Tensor, of_weight: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Of y = w n, n = x r, with g the gradient of y: dx = r (g w - n mean(g w n)), dw = sum(g n) over rows."""
    if is_compiled_for(g):
        dx, gn = _norm_slopes(g, x, weight, r, of_weight)
        # outside: a compiled sum over a number of rows that is not known beforehand is not split among the processors
        return dx, None if gn is None else gn.flatten(0, -2).sum(0)
    n = wide(x) * r
    gn = g * n
    dw = gn.flatten(0, -2).sum(0) if of_weight else None
    mean = (gn @ wide(weight)).div_(n.shape[-1]).unsqueeze(-1)
    return torch.mul(g, weight, out=gn).addcmul_(n, mean, value=-1).mul_(r), dw


@fast
def _norm_slopes(
    g: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, r: torch.Tensor, of_weight: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """dx of `norm_gradients`, and g n."""
    n = wide(x) * r
    gw = wide(g) * weight
    return (gw - n * (gw * n).mean(-1, keepdim=True)) * r, wide(g) * n if of_weight else None


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """(a, b) -> (a cos - b sin, b cos + a sin) on [N, heads, D], with the halves of each head as a and b."""
    a, b = wide(x).chunk(2, dim=-1)
    return rounded(torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1), dtype)


def _rotate_in_place(
    x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    x = wide(x)
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    (a, b), (c, d) = x.chunk(2, dim=-1), out.chunk(2, dim=-1)
    torch.mul(a, cos, out=c)
    c.addcmul_(b, sin, value=-1)
    torch.mul(b, cos, out=d)
    d.addcmul_(a, sin)
    return rounded(out, dtype)


rotate = fast(_rotate, eager=_rotate_in_place)


@fast
def swiglu(gate: torch.Tensor, up: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """silu(gate) up."""
    return rounded(F.silu(wide(gate)).mul_(up), dtype)


@fast
def swiglu_gradients(
    g: torch.Tensor, gate: torch.Tensor, up: torch.Tensor, dtype: torch.dtype, again: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Gradients of gate and up from that of `swiglu`, and `again` what it gave, if asked for."""
    active = F.silu(wide(gate))
    of_up = rounded(active * g, dtype)
    y = rounded(active.mul_(up), dtype) if again else None
    of_gate = torch.ops.aten.silu_backward(wide(g) * up, wide(gate))
    return rounded(of_gate, dtype), of_up, y
