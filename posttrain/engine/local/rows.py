"""Completions while they are decoded."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence

import numpy as np
import torch

from posttrain.arrays import Ints, KeptTokens, floats, ints
from posttrain.engine.base import Request
from posttrain.engine.local.sampling import Draw, draw
from posttrain.models.language_model import LanguageModel
from posttrain.types import Completion, StopReason


class Row:
    """A completion being decoded."""

    def __init__(self, request: Request, version: int) -> None:
        self.request = request
        self.version = version
        self.rng = np.random.Generator(np.random.Philox(request.seed))
        self.token_ids: list[int] = []
        self.logprobs: list[float] = []
        self.kept: list[Ints] = []
        self.stop_reason: StopReason | None = None

    @property
    def length(self) -> int:
        """Tokens whose keys and values are in the cache: all but the newest."""
        return len(self.request.prompt_ids) + len(self.token_ids) - 1

    def completion(self) -> Completion:
        assert self.stop_reason is not None
        return Completion(
            ints(self.token_ids),
            floats(self.logprobs),
            ints([self.version] * len(self.token_ids)),
            self.stop_reason,
            KeptTokens.of(self.kept) if self.request.sampling.truncated else None,
        )


class RowDecoder(ABC):
    """Rows being decoded: `active`, and `ended` until they are taken. `forwarded_tokens` went through the model."""

    def __init__(self, lm: LanguageModel, slots: int, version: int) -> None:
        self.lm = lm
        self.slots = slots
        self.version = version
        self.active: list[Row] = []
        self.ended: list[Row] = []
        self.forwarded_tokens = 0

    @abstractmethod
    def admit(self, queue: deque[Request]) -> None:
        """Take requests from the front of the queue while there is room, and draw their first tokens."""

    @abstractmethod
    def step(self) -> None:
        """Forward the newest token of every active row and draw the next."""

    @abstractmethod
    def drop_ended(self) -> None:
        """Move rows that have a stop reason from `active` to `ended`."""


def extend(lm: LanguageModel, rows: Sequence[Row], logits: torch.Tensor) -> None:
    """Draw the next token of every row from logits [R, V], and mark the rows that end with it."""
    kinds: dict[object, list[int]] = {}
    for i, row in enumerate(rows):
        kinds.setdefault(row.request.sampling, []).append(i)
    for members in kinds.values():
        sampling = rows[members[0]].request.sampling
        uniforms = [rows[i].rng.random() for i in members]
        drawn = draw(logits if len(members) == len(rows) else logits[members], sampling, uniforms)
        _append(lm, [rows[i] for i in members], drawn)


def _append(lm: LanguageModel, rows: Sequence[Row], drawn: Draw) -> None:
    tokens, logprobs = drawn.tokens.tolist(), drawn.logprobs.tolist()
    for i, row in enumerate(rows):
        sampling = row.request.sampling
        row.token_ids.append(tokens[i])
        row.logprobs.append(logprobs[i])
        if drawn.kept is not None:
            row.kept.append(drawn.kept[i])
        if tokens[i] in lm.chat.end_ids or (sampling.stop and _stops(lm, row)):
            row.stop_reason = "stop"
        elif len(row.token_ids) == sampling.max_new_tokens:
            row.stop_reason = "length"


def _stops(lm: LanguageModel, row: Row) -> bool:
    """Whether a stop string ends in the newest token: it reaches back no further than one token a byte."""
    stops = row.request.sampling.stop
    reach = max(len(s.encode()) for s in stops) + 1
    tail = lm.tokenizer.decode(row.token_ids[-reach:])
    return any(s in tail for s in stops)
