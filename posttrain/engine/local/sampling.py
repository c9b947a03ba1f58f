"""Drawing tokens from logits, and the log-probability with which each was drawn."""

from __future__ import annotations

from typing import NamedTuple

import torch

from posttrain.types import Sampling

TOP_P_FIRST_TRY = 512
"""Tokens looked at before a whole sort: nearly always they hold the nucleus."""
BLOCK = 1024
"""Neighbouring tokens whose mass is added up before one of them is looked for."""


def drawing_device(device: torch.device) -> torch.device:
    """Where the rows of a device are drawn: the CPU for those that have no double precision."""
    return torch.device("cpu") if device.type == "mps" else device


class Draw(NamedTuple):
    """`tokens` [R], `logprobs` [R] of the distribution drawn from; where some were cut each row's kept token ids
    [R, K], -1 beside them. `settled` [R] is False for rows whose nucleus is larger than what was looked at, which have
    to be drawn again with `whole`, and None where that cannot be."""

    tokens: torch.Tensor
    logprobs: torch.Tensor
    kept: torch.Tensor | None = None
    settled: torch.Tensor | None = None


def draw(logits: torch.Tensor, sampling: Sampling, uniforms: torch.Tensor, whole: bool = False) -> Draw:
    """One token a row from logits [R, V]; nothing is read from the device.

    Greedy (temperature 0) takes the largest logit, the first of equals, and reports its log-probability at temperature
    1. Otherwise the row's uniform number in [0, 1), float64 [R], is put through the inverse distribution function of
    softmax(logits/temperature), restricted first to the `top_k` most likely tokens and then to the smallest set of
    them with at least `top_p` of the mass. `whole` sorts the vocabulary for that."""
    logits = logits.float()
    if sampling.temperature == 0:
        tokens = logits.argmax(-1)
        return Draw(tokens, _chosen(logits, tokens) - logits.logsumexp(-1))
    scaled = logits / sampling.temperature
    u = uniforms[:, None]
    if not sampling.truncated:
        top = scaled.amax(-1, keepdim=True)
        tokens, total = _inverse_cdf_in_blocks((scaled - top).exp_(), u)
        return Draw(tokens, _chosen(scaled, tokens) - top[:, 0] - total.log().float())
    values, ids, keep, settled = _kept(scaled, sampling, whole)
    values = values.masked_fill(~keep, float("-inf"))
    log_z = values.logsumexp(-1)
    place = _inverse_cdf((values - log_z[:, None]).exp_(), u)
    return Draw(_chosen(ids, place), _chosen(values, place) - log_z, ids.int().masked_fill_(~keep, -1), settled)


def _kept(
    scaled: torch.Tensor, sampling: Sampling, whole: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """The likeliest tokens in falling order: their values and ids [R, K], which of them are kept [R, K], and whether
    these are all [R]."""
    vocabulary = scaled.shape[1]
    if sampling.top_k:
        values, ids = scaled.topk(min(sampling.top_k, vocabulary), dim=-1)
        log_z = values.logsumexp(-1, keepdim=True)
    elif whole:
        values, ids = scaled.sort(dim=-1, descending=True, stable=True)
        log_z = scaled.logsumexp(-1, keepdim=True)
    else:
        values, ids = scaled.topk(min(TOP_P_FIRST_TRY, vocabulary), dim=-1)
        log_z = scaled.logsumexp(-1, keepdim=True)
    p = (values - log_z).exp().double()
    before = _running_sum(p) - p
    all_seen = sampling.top_k or values.shape[1] == vocabulary
    settled = None if all_seen else before[:, -1] + p[:, -1] >= sampling.top_p
    return values, ids, before < sampling.top_p, settled


def _inverse_cdf_in_blocks(mass: torch.Tensor, u: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """`_inverse_cdf` of rows of unnormalised float32 mass [R, V], and their totals [R] in float64.

    The block is drawn first and a token in it second, so that no running sum over the vocabulary is made."""
    rows, vocabulary = mass.shape
    whole = vocabulary // BLOCK
    sums = mass[:, : whole * BLOCK].view(rows, whole, BLOCK).sum(-1)
    if vocabulary % BLOCK:
        sums = torch.cat([sums, mass[:, whole * BLOCK :].sum(-1, keepdim=True)], dim=1)
    sums = sums.double()
    total = sums.sum(-1)
    block = _inverse_cdf(sums, u)[:, None]
    own = sums.gather(1, block)
    before = _running_sum(sums).gather(1, block) - own
    rest = ((u * total[:, None] - before) / own).clamp(0, 1)
    ids = block * BLOCK + torch.arange(BLOCK, device=mass.device)
    inside = mass.gather(1, ids.clamp(max=vocabulary - 1)).masked_fill_(ids >= vocabulary, 0.0)
    return block[:, 0] * BLOCK + _inverse_cdf(inside, rest), total


def _inverse_cdf(p: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """The first index whose cumulative probability exceeds u times the total."""
    cumulative = _running_sum(p)
    total = cumulative[:, -1:].contiguous()
    index = torch.searchsorted(cumulative, u * total, right=True)[:, 0]
    # u < 1, but u * total may round up to the total: then the last token that has any probability
    last = torch.searchsorted(cumulative, total)[:, 0]
    return torch.minimum(index, last)


def _running_sum(p: torch.Tensor) -> torch.Tensor:
    """Over the last dimension, in float64. What torch has on CUDA may sum in another order each time, and is refused
    where that is not allowed."""
    if p.is_cuda and torch.are_deterministic_algorithms_enabled():
        return doubling_sum(p.double())
    return p.cumsum(-1, dtype=torch.float64)


def doubling_sum(p: torch.Tensor) -> torch.Tensor:
    """The running sum by log2(n) additions of whole rows (Hillis & Steele 1986, doi:10.1145/7902.7903)."""
    step = 1
    while step < p.shape[-1]:
        p = p + torch.nn.functional.pad(p[..., :-step], (step, 0))
        step *= 2
    return p


def _chosen(values: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    return values.gather(1, index[:, None])[:, 0]
