"""The local engine: batched decoding on the training weights. Rows of different lengths decode together; a prompt is
prefilled once for all requests that share it."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch

from posttrain.arrays import floats, ints
from posttrain.engine.base import Request
from posttrain.engine.local.graphs import Pace, pace_for
from posttrain.engine.local.groups import GroupDecoder
from posttrain.engine.local.room import free_memory, room_for
from posttrain.engine.local.rows import RowDecoder
from posttrain.engine.local.slots import SlotDecoder
from posttrain.engine.local.weights import copy_weights
from posttrain.models.language_model import LanguageModel
from posttrain.types import Completion, InputError


class LocalEngine:
    """See `Engine`. `slots` completions decode at once, or as many as fit in `memory` bytes: on CUDA what is free when
    `generate` begins, else without a limit. `pace`: how often the host reads what was decoded, by default what suits
    the device; cancelling, the deadline and stop strings take effect then, and completions are the same for any.
    `forwarded_tokens` counts what went through the model: the distinct tokens of the prompts' forest, and of each
    completion all tokens but the last."""

    def __init__(self, lm: LanguageModel, slots: int = 64, pace: Pace | None = None, memory: int | None = None) -> None:
        if slots < 1:
            raise ValueError("an engine needs at least one slot")
        self.lm = lm
        self.slots = slots
        self.pace = pace or pace_for(lm.device)
        self.memory = memory
        self.version = 0
        self.forwarded_tokens = 0
        self._cancelled: set[int] = set()

    def generate(
        self, requests: Sequence[Request], deadline_seconds: float | None = None
    ) -> Iterator[tuple[int, Completion]]:
        for request in requests:
            self._check(request)
        self._cancelled.clear()
        end = None if deadline_seconds is None else time.monotonic() + deadline_seconds
        self.lm.prepare_decoding()
        decoder = self._decoder(requests)
        queue = deque(requests)
        while queue or decoder.active:
            if end is not None and time.monotonic() > end:
                self._cancelled |= {r.id for r in queue} | {row.request.id for row in decoder.active}
            for row in list(decoder.active):
                if row.request.id in self._cancelled:
                    row.stop_reason = "cancelled"
            for request in [r for r in queue if r.id in self._cancelled]:
                queue.remove(request)
                yield request.id, Completion(ints([]), floats([]), ints([]), "cancelled")
            with torch.inference_mode():
                decoder.drop_ended()
                decoder.admit(queue)
                decoder.step()
            ended, decoder.ended = decoder.ended, []
            self.forwarded_tokens, decoder.forwarded_tokens = self.forwarded_tokens + decoder.forwarded_tokens, 0
            for row in ended:
                yield row.request.id, row.completion()

    def cancel(self, request_id: int) -> None:
        self._cancelled.add(request_id)

    def pause(self) -> None:
        self.lm.release_decoding()

    def update(self, weights: Mapping[str, torch.Tensor] | Path | None, version: int) -> None:
        if weights is not None:
            copy_weights(self.lm.module, weights)
        self.version = version

    def _decoder(self, requests: Sequence[Request]) -> RowDecoder:
        if not self.lm.packed:
            return GroupDecoder(self.lm, self.slots, self.version)
        memory = free_memory(self.lm.device) if self.memory is None else self.memory
        fixed = requests and (memory is not None or self.pace.capture is not None)
        room = room_for(self.lm, requests, self.slots, sys.maxsize if memory is None else memory) if fixed else None
        return SlotDecoder(self.lm, self.slots, self.version, self.pace, room)

    def _check(self, request: Request) -> None:
        need = len(request.prompt_ids) + request.sampling.max_new_tokens
        if need > self.lm.context:
            raise InputError(
                f"request {request.id}: a prompt of {len(request.prompt_ids)} tokens and max_new_tokens="
                f"{request.sampling.max_new_tokens} need {need}, but {self.lm.name} has a context of "
                f"{self.lm.context}; shorten the prompt or lower max_new_tokens"
            )
