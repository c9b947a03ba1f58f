"""Decoding for models that do not run packed, by transformers' own cache."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import torch

from posttrain.engine.base import Request
from posttrain.engine.local.rows import Row, RowDecoder, extend


class GroupDecoder(RowDecoder):
    """The rows of one prompt, in step, never padded: recurrent and sliding-window layers stay right."""

    cache: Any = None

    def admit(self, queue: deque[Request]) -> None:
        if self.active or not queue:
            return
        prompt = queue[0].prompt_ids
        new: list[Request] = []
        while queue and queue[0].prompt_ids == prompt and len(new) < self.slots:
            new.append(queue.popleft())
        outputs = self.lm.module(input_ids=torch.tensor([prompt], device=self.lm.device), use_cache=True)
        self.forwarded_tokens += len(prompt)
        self.cache = outputs.past_key_values
        if len(new) > 1:
            self._keep_rows([0] * len(new))
        self.active = [Row(request, self.version) for request in new]
        extend(self.lm, self.active, outputs.logits[:, -1].expand(len(new), -1))
        self.drop_ended()

    def step(self) -> None:
        if not self.active:
            return
        ids = torch.tensor([[row.token_ids[-1]] for row in self.active], device=self.lm.device)
        outputs = self.lm.module(input_ids=ids, past_key_values=self.cache, use_cache=True)
        self.forwarded_tokens += len(self.active)
        extend(self.lm, self.active, outputs.logits[:, -1])
        self.drop_ended()

    def drop_ended(self) -> None:
        keep = [i for i, row in enumerate(self.active) if row.stop_reason is None]
        if len(keep) == len(self.active):
            return
        self.ended += [row for row in self.active if row.stop_reason is not None]
        self.active = [self.active[i] for i in keep]
        if keep:
            self._keep_rows(keep)

    def _keep_rows(self, rows: Sequence[int]) -> None:
        """The cache with these of its rows, perhaps repeated. What beam search uses is the one way that every kind of
        layer has; recurrent ones cannot repeat or select rows by transformers' functions of that name."""
        self.cache.reorder_cache(torch.tensor(rows, device=self.lm.device))
