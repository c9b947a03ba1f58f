"""Drawing tokens from logits, and the log-probability with which each was drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from posttrain.arrays import Ints, ints
from posttrain.types import Sampling

TOP_P_FIRST_TRY = 512
"""Tokens looked at before a whole sort: nearly always they hold the nucleus."""
BLOCK = 1024
"""Neighbouring tokens whose mass is added up before one of them is looked for."""


class Draw(NamedTuple):
    """`tokens` [R], `logprobs` [R] of the distribution drawn from; each row's kept token ids if some were cut."""

    tokens: torch.Tensor
    logprobs: torch.Tensor
    kept: list[Ints] | None


def draw(logits: torch.Tensor, sampling: Sampling, uniforms: Sequence[float]) -> Draw:
    """One token a row from logits [R, V].

    Greedy (temperature 0) takes the largest logit, the first of equals, and reports its log-probability at temperature
    1. Otherwise the row's uniform number in [0, 1) is put through the inverse distribution function of
    softmax(logits/temperature), restricted first to the `top_k` most likely tokens and then to the smallest set of
    them with at least `top_p` of the mass."""
    logits = logits.float()
    if sampling.temperature == 0:
        tokens = logits.argmax(-1)
        return Draw(tokens, _chosen(logits, tokens) - logits.logsumexp(-1), None)
    scaled = logits / sampling.temperature
    u = torch.tensor(uniforms, dtype=torch.float64, device=logits.device)[:, None]
    if not sampling.truncated:
        top = scaled.amax(-1, keepdim=True)
        tokens, total = _inverse_cdf_in_blocks((scaled - top).exp_(), u)
        return Draw(tokens, _chosen(scaled, tokens) - top[:, 0] - total.log().float(), None)
    values, ids, keep = _kept(scaled, sampling)
    values = values.masked_fill(~keep, float("-inf"))
    log_z = values.logsumexp(-1)
    place = _inverse_cdf((values - log_z[:, None]).exp_(), u)
    rows = zip(ids.cpu().numpy(), keep.cpu().numpy(), strict=True)
    return Draw(_chosen(ids, place), _chosen(values, place) - log_z, [ints(np.sort(row[kept])) for row, kept in rows])


def _kept(scaled: torch.Tensor, sampling: Sampling) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The likeliest tokens in falling order: their values and ids [R, K], and which of them are kept [R, K]."""
    vocabulary = scaled.shape[1]
    if sampling.top_k:
        values, ids = scaled.topk(min(sampling.top_k, vocabulary), dim=-1)
        log_z = values.logsumexp(-1, keepdim=True)
    else:
        values, ids = scaled.topk(min(TOP_P_FIRST_TRY, vocabulary), dim=-1)
        log_z = scaled.logsumexp(-1, keepdim=True)
    p = (values - log_z).exp().double()
    before = p.cumsum(-1) - p
    if not sampling.top_k and values.shape[1] < vocabulary and bool((before[:, -1] + p[:, -1] < sampling.top_p).any()):
        values, ids = scaled.sort(dim=-1, descending=True, stable=True)
        p = (values - log_z).exp().double()
        before = p.cumsum(-1) - p
    return values, ids, before < sampling.top_p


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
    before = sums.cumsum(-1).gather(1, block) - own
    rest = ((u * total[:, None] - before) / own).clamp(0, 1)
    ids = block * BLOCK + torch.arange(BLOCK, device=mass.device)
    inside = mass.gather(1, ids.clamp(max=vocabulary - 1)).masked_fill_(ids >= vocabulary, 0.0)
    return block[:, 0] * BLOCK + _inverse_cdf(inside, rest), total


def _inverse_cdf(p: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """The first index whose cumulative probability exceeds u times the total."""
    cumulative = p.cumsum(-1, dtype=torch.float64)
    total = cumulative[:, -1:].contiguous()
    index = torch.searchsorted(cumulative, u * total, right=True)[:, 0]
    # u < 1, but u * total may round up to the total: then the last token that has any probability
    last = torch.searchsorted(cumulative, total)[:, 0]
    return torch.minimum(index, last)


def _chosen(values: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    return values.gather(1, index[:, None])[:, 0]
