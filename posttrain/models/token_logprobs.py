"""Log-probabilities of given tokens from hidden states, in the one place where logits of training are made.

The logits of all tokens x the whole vocabulary never exist at once: they are made in chunks, and made again in the
backward pass. Where one chunk holds them all they are kept for it instead.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from posttrain.batch.types import KeptPlaces
from posttrain.models.compute import Compute
from posttrain.models.kernels import products_for
from posttrain.models.layers.compiled import fast, is_compiled_for
from posttrain.models.layers.products import Products

CHUNK_ELEMENTS = 1 << 26
"""Logits held at once: 2^26 floats are 256 MiB."""
CUDA_CHUNKS = 4
"""Times as many on CUDA, since each chunk reads and writes the gradient of the whole head once more."""


class TokenOutputs(NamedTuple):
    """`logprobs` [M]; `entropy` [M] in nats and `values` [M] of the value head if asked for. All differentiable."""

    logprobs: torch.Tensor
    entropy: torch.Tensor | None = None
    values: torch.Tensor | None = None


class RewardOutputs(NamedTuple):
    """`scores` [M, K] by the K outputs of a reward head, differentiable."""

    scores: torch.Tensor


class ValueOutputs(NamedTuple):
    """`values` [M] of a critic, differentiable."""

    values: torch.Tensor


def token_logprobs(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    *,
    bias: torch.Tensor | None = None,
    temperature: float = 1.0,
    kept: KeptPlaces | None = None,
    entropy: bool = False,
    products: Products | None = None,
) -> TokenOutputs:
    """log softmax(W h / temperature)[target] for each row, over the kept tokens if there are some.

    hidden [M, H], weight [V, H], bias [V], targets [M] int64; results in float32 [M], and so are logits and the sum of
    the weight's gradient, whatever type `products` see (None: that of the weight). `kept` are the token ids that
    sampling kept for each row, so that the ratio to the sampler's logprob is right under top-k and top-p.
    """
    products = products or products_for(Compute.of(weight))
    logprobs, entropies = _ChunkedLogprobs.apply(products, hidden, weight, bias, targets, temperature, kept, entropy)
    return TokenOutputs(logprobs, entropies if entropy else None)


def logprobs_from_logits(
    logits: torch.Tensor,
    targets: torch.Tensor,
    *,
    temperature: float = 1.0,
    kept: KeptPlaces | None = None,
    entropy: bool = False,
) -> TokenOutputs:
    """The same numbers as `token_logprobs` from logits [M, V] that a model has already made: the plain form."""
    log_p = restrict(logits.float() / temperature, kept).log_softmax(-1)
    chosen = log_p.gather(1, targets[:, None])[:, 0]
    if not entropy:
        return TokenOutputs(chosen, None)
    return TokenOutputs(chosen, -(log_p.exp() * log_p.masked_fill(log_p.isneginf(), 0.0)).sum(-1))


def chunk_rows(weight: torch.Tensor, heads: int = 1) -> int:
    """Rows whose logits by each of `heads` heads like this weight [V, H] are held at once."""
    return max(1, CHUNK_ELEMENTS * (CUDA_CHUNKS if weight.is_cuda else 1) // (heads * weight.shape[0]))


def _logits(
    products: Products,
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    temperature: float,
    kept: KeptPlaces | None,
) -> torch.Tensor:
    logits = products.logits(hidden, weight, bias).float()
    if temperature != 1.0:
        logits /= temperature
    return restrict(logits, kept)


def restrict(logits: torch.Tensor, kept: KeptPlaces | None) -> torch.Tensor:
    """Minus infinity for the tokens that truncated sampling left out."""
    if kept is None:
        return logits
    left_out = torch.ones(logits.shape, dtype=torch.bool, device=logits.device)
    left_out[kept.indices()] = False
    return logits.masked_fill(left_out, float("-inf"))


def _statistics(
    products: Products, logits: torch.Tensor, targets: torch.Tensor, entropy: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """The target's log-probability, log Σ exp and the entropy of each row of logits [R, V]."""
    if is_compiled_for(logits):
        return _row_statistics(logits, targets, entropy)
    log_z = torch.cat([block.logsumexp(-1) for block in products.blocks(logits)])
    logprobs = logits.gather(1, targets[:, None])[:, 0] - log_z
    if not entropy:
        return logprobs, log_z, None
    p = (logits - log_z[:, None]).exp_()
    return logprobs, log_z, log_z - p.mul_(logits.nan_to_num(neginf=0.0)).sum(-1)


@fast
def _row_statistics(
    logits: torch.Tensor, targets: torch.Tensor, entropy: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    highest = logits.amax(-1, keepdim=True)
    e = (logits - highest).exp()
    total = e.sum(-1)
    log_z = highest[:, 0] + total.log()
    logprobs = logits.gather(1, targets[:, None])[:, 0] - log_z
    if not entropy:
        return logprobs, log_z, None
    return logprobs, log_z, log_z - (e * logits.masked_fill(logits.isneginf(), 0.0)).sum(-1) / total


def _slopes(
    products: Products,
    logits: torch.Tensor,
    log_z: torch.Tensor,
    targets: torch.Tensor,
    scale: torch.Tensor,
    of_entropy: tuple[torch.Tensor, torch.Tensor] | None,
) -> torch.Tensor:
    """d loss / d logits [R, V] in the type of products, from d loss / d log p [R] as `scale`, and d loss / d H [R] with
    the entropies H [R]. Overwrites the logits."""
    slope, entropies = of_entropy or (None, None)
    if is_compiled_for(logits):
        return _row_slopes(logits, log_z, targets, scale, slope, entropies, products.dtype)
    scale, log_z = scale[:, None], log_z[:, None]
    if slope is None or entropies is None:
        for d, z, s in zip(*map(products.blocks, (logits, log_z, scale)), strict=True):
            d.sub_(z).exp_().mul_(-s)
    else:
        log_p = logits.sub_(log_z)
        more = slope[:, None] * (log_p.masked_fill(log_p.isneginf(), 0.0) + entropies[:, None])
        logits = log_p.exp_().mul_(-(more + scale))
    return products.rounded(logits.scatter_add_(1, targets[:, None], scale))


def _target_slopes(
    logits: torch.Tensor,
    log_z: torch.Tensor,
    targets: torch.Tensor,
    scale: torch.Tensor,
    of_entropy: tuple[torch.Tensor, torch.Tensor] | None,
) -> torch.Tensor:
    """The slopes [R] of the targets' own logits, not rounded.

    In bfloat16 the slope s (1 - p) of an unlikely target becomes s, or what s is rounded to: for all tokens with the
    same s the same error, which no number of tokens makes smaller. The slopes of other tokens, -s p, are rounded up as
    often as down."""
    log_p = logits.gather(1, targets[:, None])[:, 0] - log_z
    factor = scale
    if of_entropy is not None:
        slope, entropies = of_entropy
        factor = scale + slope * (log_p.masked_fill(log_p.isneginf(), 0.0) + entropies)
    return scale - log_p.exp() * factor


@fast
def _row_slopes(
    logits: torch.Tensor,
    log_z: torch.Tensor,
    targets: torch.Tensor,
    scale: torch.Tensor,
    slope: torch.Tensor | None,
    entropies: torch.Tensor | None,
    dtype: torch.dtype,
) -> torch.Tensor:
    log_p = logits - log_z[:, None]
    chosen = torch.arange(logits.shape[1], device=logits.device) == targets[:, None]
    factor = scale[:, None]
    if slope is not None and entropies is not None:
        factor = factor + slope[:, None] * (log_p.masked_fill(log_p.isneginf(), 0.0) + entropies[:, None])
    return torch.where(chosen, scale[:, None], 0.0).sub(log_p.exp() * factor).to(dtype)


class _ChunkedLogprobs(torch.autograd.Function):
    """d log p(y) / d logits = onehot(y) - p and dH / d logits = -p (log p + H); logits are made again in chunks."""

    @staticmethod
    def forward(
        ctx: Any,
        products: Products,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        temperature: float,
        kept: KeptPlaces | None,
        entropy: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        hidden, weight = products.rounded(hidden), products.rounded(weight)
        chunk = chunk_rows(weight)
        logprobs = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        log_z = torch.empty_like(logprobs)
        entropies = torch.empty(len(hidden) if entropy else 0, dtype=torch.float32, device=hidden.device)
        logits = None
        for i in range(0, len(hidden), chunk):
            part = slice(i, i + chunk)
            logits = _logits(products, hidden[part], weight, bias, temperature, kept and kept[part])
            logprobs[part], log_z[part], of_rows = _statistics(products, logits, targets[part], entropy)
            if of_rows is not None:
                entropies[part] = of_rows
        ctx.save_for_backward(hidden, weight, bias, targets, log_z, entropies)
        ctx.products, ctx.temperature, ctx.kept, ctx.chunk = products, temperature, kept, chunk
        ctx.logits = logits if len(hidden) <= chunk else None
        ctx.set_materialize_grads(False)
        return logprobs, entropies

    @staticmethod
    def backward(
        ctx: Any, grad: torch.Tensor | None, of_entropy: torch.Tensor | None
    ) -> tuple[torch.Tensor | None, ...]:
        hidden, weight, bias, targets, log_z, entropies = ctx.saved_tensors
        products = ctx.products
        if grad is None:
            grad = torch.zeros_like(log_z)
        grad_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[1] else None
        grad_weight = weight_total(weight, empty=len(hidden) > 0) if ctx.needs_input_grad[2] else None
        whole, ctx.logits = ctx.logits, None  # overwritten below
        grad_bias = torch.zeros_like(bias) if bias is not None and ctx.needs_input_grad[3] else None
        for i in range(0, len(hidden), ctx.chunk):
            part = slice(i, i + ctx.chunk)
            logits = whole
            if logits is None:
                kept = ctx.kept and ctx.kept[part]
                logits = _logits(products, hidden[part], weight, bias, ctx.temperature, kept)
            scale = grad[part] / ctx.temperature
            slope = None if of_entropy is None else (of_entropy[part] / ctx.temperature, entropies[part])
            given = (log_z[part], targets[part], scale, slope)
            exact = _target_slopes(logits, *given) if products.dtype != torch.float32 else None
            d = _slopes(products, logits, *given).to(hidden.dtype)
            if grad_hidden is not None:
                grad_hidden[part] = products.input_gradient(d, weight)
            if grad_weight is not None:
                products.add_weight_gradient(grad_weight, d, hidden[part], first=i == 0)
            if grad_bias is not None:
                grad_bias += d.sum(0, dtype=grad_bias.dtype)
            if exact is not None:
                lost = exact - d.gather(1, targets[part, None])[:, 0]
                if grad_weight is not None:
                    grad_weight.index_add_(0, targets[part], lost[:, None] * hidden[part])
                if grad_bias is not None:
                    grad_bias.index_add_(0, targets[part], lost.to(grad_bias.dtype))
        return None, grad_hidden, grad_weight, grad_bias, None, None, None, None


def weight_total(weight: torch.Tensor, empty: bool) -> torch.Tensor:
    """Where the gradients of a head's weight from all chunks are summed, in float32 at least; zeros, or not yet
    written."""
    make = torch.empty_like if empty else torch.zeros_like
    return make(weight, dtype=torch.promote_types(weight.dtype, torch.float32))
