"""The local engine: batched decoding on the training weights. Rows of different lengths decode together; a prompt is
prefilled once for all requests that share it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

import torch

from posttrain.engine.base import Request
from posttrain.engine.local.groups import GroupDecoder
from posttrain.engine.local.slots import SlotDecoder
from posttrain.models.language_model import LanguageModel
from posttrain.types import Completion, InputError


class LocalEngine:
    """See `Engine`. `slots` completions decode at once. `forwarded_tokens` counts what went through the model: the
    distinct tokens of the prompts' forest, and of each completion all tokens but the last."""

    def __init__(self, lm: LanguageModel, slots: int = 64) -> None:
        if slots < 1:
            raise ValueError("an engine needs at least one slot")
        self.lm = lm
        self.slots = slots
        self.version = 0
        self.forwarded_tokens = 0

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[int, Completion]]:
        for request in requests:
            self._check(request)
        self.lm.prepare_decoding()
        kind = SlotDecoder if self.lm.packed else GroupDecoder
        decoder: SlotDecoder | GroupDecoder = kind(self.lm, self.slots, self.version)
        queue = deque(requests)
        while queue or decoder.active:
            with torch.inference_mode():
                decoder.admit(queue)
                decoder.step()
            ended, decoder.ended = decoder.ended, []
            self.forwarded_tokens, decoder.forwarded_tokens = self.forwarded_tokens + decoder.forwarded_tokens, 0
            for row in ended:
                yield row.request.id, row.completion()

    def pause(self) -> None:
        self.lm.release_decoding()

    def update(self, version: int) -> None:
        self.version = version

    def _check(self, request: Request) -> None:
        need = len(request.prompt_ids) + request.sampling.max_new_tokens
        if need > self.lm.context:
            raise InputError(
                f"request {request.id}: a prompt of {len(request.prompt_ids)} tokens and max_new_tokens="
                f"{request.sampling.max_new_tokens} need {need}, but {self.lm.name} has a context of "
                f"{self.lm.context}; shorten the prompt or lower max_new_tokens"
            )
