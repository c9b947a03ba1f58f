"""How many completions the memory of a device holds."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from posttrain.batch.types import Node
from posttrain.engine.base import Request
from posttrain.engine.local.plans import PrefillPlan
from posttrain.models.attention import plan_for
from posttrain.models.language_model import LanguageModel
from posttrain.types import InputError

SHARE = 0.9
"""Of the memory that is free: prefill and steps need some beside the cache."""
LOGIT_BYTES = 24
"""Bytes a row and token of the vocabulary while a token is drawn: logits of the prompt and the step, the same divided
by the temperature, their exponentials, sums."""

log = logging.getLogger("posttrain")


@dataclass(frozen=True)
class Room:
    """`slots` completions at once, of `row_tokens` tokens each after prompts of `prompt_tokens`; `like`: keys and
    values of one token [layers, 2, key heads, 1, D]."""

    slots: int
    prompt_tokens: int
    row_tokens: int
    like: torch.Tensor


def free_memory(device: torch.device) -> int | None:
    """Bytes of a CUDA device that an engine may take; None for other devices, whose caches grow with what they hold."""
    if device.type != "cuda":
        return None
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(SHARE * (torch.cuda.mem_get_info(device)[0] + unused))


def room_for(lm: LanguageModel, requests: Sequence[Request], slots: int, memory: int) -> Room:
    """Room for as many of `slots` completions as `memory` bytes hold, each with the longest prompt and the most new
    tokens of the requests. Raises InputError where not one such fits."""
    like = _one_token(lm)
    token_bytes = like.numel() * like.element_size()
    row_bytes = LOGIT_BYTES * lm.vocabulary

    def needed(prompt: int, new: int) -> int:
        return (_rounded(prompt) + _rounded(new)) * token_bytes + row_bytes

    def check(prompt: int, new: int, what: str) -> None:
        if needed(prompt, new) > memory:
            raise InputError(
                f"{what} need {needed(prompt, new) / 1e9:.3g} GB in {lm.name}, but {memory / 1e9:.3g} GB are free on "
                f"{lm.device}; shorten the prompt, lower max_new_tokens or use a smaller model"
            )

    for request in requests:
        prompt, new = len(request.prompt_ids), request.sampling.max_new_tokens
        check(
            prompt,
            new,
            f"request {request.id}: keys and values of a prompt of {prompt} tokens and max_new_tokens={new}",
        )
    by_prompt = max(requests, key=lambda request: len(request.prompt_ids))
    by_answer = max(requests, key=lambda request: request.sampling.max_new_tokens)
    longest, most = len(by_prompt.prompt_ids), by_answer.sampling.max_new_tokens
    # a slot serves any of the requests
    check(
        longest,
        most,
        f"request {by_prompt.id} with a prompt of {longest} tokens and request {by_answer.id} with max_new_tokens="
        f"{most} decode in one cache: its keys and values",
    )
    fit = memory // needed(longest, most)
    if fit < min(slots, len(requests)):
        log.info(
            f"decodes {fit} completions at once and not {slots}: {memory / 1e9:.3g} GB hold no more of {longest} "
            f"prompt tokens and {most} new ones"
        )
    return Room(min(slots, fit, len(requests)), _rounded(longest), _rounded(most), like)


def _rounded(tokens: int) -> int:
    """Up to a multiple of 8, which products of half-size types want."""
    return -(-tokens // 8) * 8


def _one_token(lm: LanguageModel) -> torch.Tensor:
    before = lm.forwarded_tokens
    with torch.inference_mode():
        plan = PrefillPlan(plan_for([Node(-1, 1)], lm.compute), lm.compute.dtype)
        lm.hidden_states(torch.zeros(1, dtype=torch.long), torch.zeros(1, dtype=torch.long), plan)
    lm.forwarded_tokens = before
    return plan.stacked()
