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

CHUNK_ELEMENTS = 1 << 26
"""Logits held at once: 2^26 floats are 256 MiB."""


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
) -> TokenOutputs:
    """log softmax(W h / temperature)[target] for each row, over the kept tokens if there are some.

    hidden [M, H], weight [V, H], bias [V], targets [M] int64; results in float32 [M]. `kept` are the token ids
    that sampling kept for each row, so that the ratio to the sampler's logprob is right under top-k and top-p.
    """
    logprobs, entropies = _ChunkedLogprobs.apply(hidden, weight, bias, targets, temperature, kept, entropy)
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


def _logits(
    hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, temperature: float, kept: KeptPlaces | None
) -> torch.Tensor:
    logits = products_for(Compute.of(weight)).linear(hidden, weight, bias).float()
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


class _ChunkedLogprobs(torch.autograd.Function):
    """d log p(y) / d logits = onehot(y) - p and dH / d logits = -p (log p + H); logits are made again in chunks."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        temperature: float,
        kept: KeptPlaces | None,
        entropy: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        products = products_for(Compute.of(weight))
        chunk = max(1, CHUNK_ELEMENTS // weight.shape[0])
        logprobs = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        log_z = torch.empty_like(logprobs)
        entropies = torch.empty(len(hidden) if entropy else 0, dtype=torch.float32, device=hidden.device)
        logits = None
        for i in range(0, len(hidden), chunk):
            part = slice(i, i + chunk)
            logits = _logits(hidden[part], weight, bias, temperature, kept and kept[part])
            log_z[part] = torch.cat([block.logsumexp(-1) for block in products.blocks(logits)])
            logprobs[part] = logits.gather(1, targets[part, None])[:, 0] - log_z[part]
            if entropy:
                p = (logits - log_z[part, None]).exp_()
                entropies[part] = log_z[part] - p.mul_(logits.nan_to_num(neginf=0.0)).sum(-1)
        ctx.save_for_backward(hidden, weight, bias, targets, log_z, entropies)
        ctx.temperature, ctx.kept, ctx.chunk = temperature, kept, chunk
        ctx.logits = logits if len(hidden) <= chunk else None
        ctx.set_materialize_grads(False)
        return logprobs, entropies

    @staticmethod
    def backward(
        ctx: Any, grad: torch.Tensor | None, of_entropy: torch.Tensor | None
    ) -> tuple[torch.Tensor | None, ...]:
        hidden, weight, bias, targets, log_z, entropies = ctx.saved_tensors
        products = products_for(Compute.of(weight))
        if grad is None:
            grad = torch.zeros_like(log_z)
        grad_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        empty = torch.empty_like if len(hidden) else torch.zeros_like  # the first chunk fills it
        grad_weight = empty(weight) if ctx.needs_input_grad[1] else None
        whole, ctx.logits = ctx.logits, None  # overwritten below
        grad_bias = torch.zeros_like(bias) if bias is not None and ctx.needs_input_grad[2] else None
        for i in range(0, len(hidden), ctx.chunk):
            part = slice(i, i + ctx.chunk)
            logits = whole
            if logits is None:
                logits = _logits(hidden[part], weight, bias, ctx.temperature, ctx.kept and ctx.kept[part])
            scale = grad[part, None] / ctx.temperature
            if of_entropy is None:
                for d, z, s in zip(*map(products.blocks, (logits, log_z[part, None], scale)), strict=True):
                    d.sub_(z).exp_().mul_(-s)
            else:
                log_p = logits.sub_(log_z[part, None])
                slope = of_entropy[part, None] / ctx.temperature
                more = slope * (log_p.masked_fill(log_p.isneginf(), 0.0) + entropies[part, None])
                logits = log_p.exp_().mul_(-(more + scale))
            d = logits.scatter_add_(1, targets[part, None], scale).to(hidden.dtype)
            if grad_hidden is not None:
                grad_hidden[part] = products.input_gradient(d, weight)
            if grad_weight is not None:
                torch.addmm(grad_weight, d.T, hidden[part], beta=float(i > 0), out=grad_weight)
            if grad_bias is not None:
                grad_bias += d.sum(0)
        return grad_hidden, grad_weight, grad_bias, None, None, None, None
