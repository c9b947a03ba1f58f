"""Completions while they are decoded."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from posttrain.arrays import Ints, KeptTokens, floats, ints
from posttrain.engine.base import Request
from posttrain.engine.local.sampling import Draw, draw, drawing_device
from posttrain.models.language_model import LanguageModel
from posttrain.types import Completion, Sampling, StopReason

UNIFORMS = 256
"""Uniform numbers that a row draws at a time: what it draws does not depend on how many."""


class Row:
    """A completion being decoded."""

    def __init__(self, request: Request, version: int) -> None:
        self.request = request
        self.version = version
        self.token_ids: list[int] = []
        self.logprobs: list[float] = []
        self.kept_ids: list[Ints] = []
        self.kept_counts: list[int] = []
        self.stop_reason: StopReason | None = None
        self._rng = np.random.Generator(np.random.Philox(request.seed))
        self._uniforms: list[float] = []
        self._first = 0  # the token that the first of them is for

    def uniforms(self, count: int) -> list[float]:
        """The numbers in [0, 1) with which the next tokens are drawn: token i has the i-th of the request's seed."""
        at = len(self.token_ids) - self._first
        if at + count > len(self._uniforms):
            self._uniforms = self._uniforms[at:] + self._rng.random(max(count, UNIFORMS)).tolist()
            self._first, at = len(self.token_ids), 0
        return self._uniforms[at : at + count]

    def completion(self) -> Completion:
        assert self.stop_reason is not None
        kept = KeptTokens.counted(np.concatenate(self.kept_ids or [ints([])]), self.kept_counts)
        return Completion(
            ints(self.token_ids),
            floats(self.logprobs),
            ints([self.version] * len(self.token_ids)),
            self.stop_reason,
            kept if self.request.sampling.truncated else None,
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
        """Forward the newest token of every active row and draw the next; perhaps some steps of this."""

    @abstractmethod
    def drop_ended(self) -> None:
        """Move rows that have a stop reason from `active` to `ended`."""


class Kind(NamedTuple):
    """Rows that draw alike: their places, and as a tensor unless they are all."""

    sampling: Sampling
    rows: list[int]
    places: torch.Tensor | None


def kinds_of(rows: Sequence[Row], device: torch.device) -> list[Kind]:
    kinds: dict[tuple[float, int, float], list[int]] = {}
    for i, row in enumerate(rows):
        sampling = row.request.sampling
        kinds.setdefault((sampling.temperature, sampling.top_k, sampling.top_p), []).append(i)
    return [
        Kind(
            rows[members[0]].request.sampling, members, torch.tensor(members, device=device) if len(kinds) > 1 else None
        )
        for members in kinds.values()
    ]


def draw_rows(logits: torch.Tensor, kinds: Sequence[Kind], uniforms: torch.Tensor, whole: bool) -> list[Draw]:
    """The next tokens of all rows from logits [R, V] and float64 numbers [R], a `Draw` a kind. With `whole` every row
    is settled, at the price of asking the device."""
    draws = []
    logits = logits.to(uniforms.device)
    for kind in kinds:
        own, u = (t if kind.places is None else t[kind.places] for t in (logits, uniforms))
        drawn = draw(own, kind.sampling, u)
        if whole and drawn.settled is not None and not bool(drawn.settled.all()):
            drawn = draw(own, kind.sampling, u, whole=True)
        draws.append(drawn)
    return draws


def extend(lm: LanguageModel, rows: Sequence[Row], logits: torch.Tensor, kinds: Sequence[Kind] | None = None) -> None:
    """Draw the next token of every row from logits [R, V], and mark the rows that end with it."""
    device = drawing_device(logits.device)
    kinds = kinds or kinds_of(rows, device)
    uniforms = torch.tensor([row.uniforms(1)[0] for row in rows], dtype=torch.float64, device=device)
    for kind, drawn in zip(kinds, draw_rows(logits, kinds, uniforms, whole=True), strict=True):
        tokens, logprobs = drawn.tokens.tolist(), drawn.logprobs.tolist()
        kept = None if drawn.kept is None else np.sort(drawn.kept.cpu().numpy(), axis=-1)
        for k, i in enumerate(kind.rows):
            append(lm, rows[i], [tokens[k]], [logprobs[k]], None if kept is None else kept[k : k + 1])


def append(
    lm: LanguageModel, row: Row, tokens: Sequence[int], logprobs: Sequence[float], kept: Ints | None = None
) -> None:
    """Add tokens up to the one that ends the row, which is then marked. `kept` [tokens, K]: ids in rising order after
    as many times -1 as fill the rest."""
    sampling = row.request.sampling
    before = len(row.token_ids)
    for token in tokens:
        row.token_ids.append(token)
        if token in lm.chat.end_ids or (sampling.stop and _stops(lm, row)):
            row.stop_reason = "stop"
        elif len(row.token_ids) == sampling.max_new_tokens:
            row.stop_reason = "length"
        if row.stop_reason is not None:
            break
    new = len(row.token_ids) - before
    row.logprobs += logprobs[:new]
    if kept is not None:
        present = kept[:new] >= 0
        row.kept_ids.append(kept[:new][present])
        row.kept_counts += present.sum(-1).tolist()


def _stops(lm: LanguageModel, row: Row) -> bool:
    """Whether a stop string ends in the newest token: it reaches back no further than one token a byte."""
    stops = row.request.sampling.stop
    reach = max(len(s.encode()) for s in stops) + 1
    tail = lm.tokenizer.decode(row.token_ids[-reach:])
    return any(s in tail for s in stops)
