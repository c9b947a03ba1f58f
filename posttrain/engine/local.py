"""The local engine: batched decoding on the training weights, with a key/value cache of our own.

Rows of different lengths decode together, each in a slot of one cache. A prompt is prefilled once for all requests that
share it; prefills are packed like training rows. When a row ends its slot goes to the next request in order, or, once
none is left, to the last active row, so that the active slots stay dense.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from posttrain.data.packing import Span, nodes_of, radix
from posttrain.engine.base import Request
from posttrain.engine.sampling import Draw, draw
from posttrain.engine.weights import copy_weights
from posttrain.models.attention import ForestPlan
from posttrain.models.language_model import LanguageModel
from posttrain.types import Completion, InputError, StopReason

PREFILL_TOKENS = 2048
"""Prompt tokens that go through the model at once."""


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
        self._cancelled: set[int] = set()

    def generate(
        self, requests: Sequence[Request], deadline_seconds: float | None = None
    ) -> Iterator[tuple[int, Completion]]:
        for request in requests:
            self._check(request)
        self._cancelled.clear()
        end = None if deadline_seconds is None else time.monotonic() + deadline_seconds
        decoder: _SlotDecoder | _GroupDecoder = _SlotDecoder(self) if self.lm.packed else _GroupDecoder(self)
        queue = deque(requests)
        while queue or decoder.active:
            if end is not None and time.monotonic() > end:
                self._cancelled |= {r.id for r in queue} | {row.request.id for row in decoder.active}
            for row in list(decoder.active):
                if row.request.id in self._cancelled:
                    row.stop_reason = "cancelled"
            for request in [r for r in queue if r.id in self._cancelled]:
                queue.remove(request)
                yield request.id, Completion((), (), (), "cancelled")
            with torch.inference_mode():
                decoder.drop_ended()
                decoder.admit(queue)
                decoder.step()
                ended, decoder.ended = decoder.ended, []
            for row in ended:
                yield row.request.id, row.completion()

    def cancel(self, request_id: int) -> None:
        self._cancelled.add(request_id)

    def update(self, weights: Mapping[str, torch.Tensor] | Path | None, version: int) -> None:
        if weights is not None:
            copy_weights(self.lm.module, weights)
        self.version = version

    def _check(self, request: Request) -> None:
        need = len(request.prompt_ids) + request.sampling.max_new_tokens
        if need > self.lm.context:
            raise InputError(
                f"request {request.id}: a prompt of {len(request.prompt_ids)} tokens and max_new_tokens="
                f"{request.sampling.max_new_tokens} need {need}, but {self.lm.name} has a context of "
                f"{self.lm.context}; shorten the prompt or lower max_new_tokens"
            )


class _Row:
    """A completion being decoded."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.rng = np.random.Generator(np.random.Philox(request.seed))
        self.token_ids: list[int] = []
        self.logprobs: list[float] = []
        self.versions: list[int] = []
        self.supports: list[tuple[int, ...]] = []
        self.stop_reason: StopReason | None = None

    @property
    def length(self) -> int:
        """Tokens whose keys and values are in the cache: all but the newest."""
        return len(self.request.prompt_ids) + len(self.token_ids) - 1

    def completion(self) -> Completion:
        assert self.stop_reason is not None
        return Completion(
            tuple(self.token_ids),
            tuple(self.logprobs),
            tuple(self.versions),
            self.stop_reason,
            tuple(self.supports) if self.request.sampling.truncated else None,
        )


def _extend(engine: LocalEngine, rows: Sequence[_Row], logits: torch.Tensor) -> None:
    """Draw the next token of every row from logits [R, V], and mark the rows that end with it."""
    kinds: dict[object, list[int]] = {}
    for i, row in enumerate(rows):
        kinds.setdefault(row.request.sampling, []).append(i)
    for members in kinds.values():
        sampling = rows[members[0]].request.sampling
        uniforms = [rows[i].rng.random() for i in members]
        drawn = draw(logits if len(members) == len(rows) else logits[members], sampling, uniforms)
        _append(engine, [rows[i] for i in members], drawn)


def _append(engine: LocalEngine, rows: Sequence[_Row], drawn: Draw) -> None:
    tokens, logprobs = drawn.tokens.tolist(), drawn.logprobs.tolist()
    for i, row in enumerate(rows):
        sampling = row.request.sampling
        row.token_ids.append(tokens[i])
        row.logprobs.append(logprobs[i])
        row.versions.append(engine.version)
        if drawn.supports is not None:
            row.supports.append(drawn.supports[i])
        if tokens[i] in engine.lm.chat.end_ids or (sampling.stop and _stops(engine, row)):
            row.stop_reason = "stop"
        elif len(row.token_ids) == sampling.max_new_tokens:
            row.stop_reason = "length"


def _stops(engine: LocalEngine, row: _Row) -> bool:
    """Whether a stop string ends in the newest token: it reaches back no further than one token a byte."""
    stops = row.request.sampling.stop
    reach = max(len(s.encode()) for s in stops) + 1
    tail = engine.lm.tokenizer.decode(row.token_ids[-reach:])
    return any(s in tail for s in stops)


class _Prefix:
    """Keys and values of a prompt [layers, 2, key heads, P, D], and the logits [V] after it."""

    def __init__(self, cache: torch.Tensor, logits: torch.Tensor) -> None:
        self.cache = cache
        self.logits = logits


class _PrefillPlan:
    """Forest attention that also keeps every layer's keys and values [key heads, N, D]."""

    def __init__(self, forest: ForestPlan) -> None:
        self.forest = forest
        self.kept: dict[int, torch.Tensor] = {}

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float
    ) -> torch.Tensor:
        self.kept[layer] = torch.stack([key[0], value[0]])
        return self.forest.attend(layer, query, key, value, scaling)


class _DecodePlan:
    """One new token for each of the first R slots, attending to its slot's cache and itself."""

    def __init__(self, cache: torch.Tensor, lengths: Sequence[int]) -> None:
        self.cache = cache
        self.rows = torch.arange(len(lengths), device=cache.device)
        self.place = torch.tensor(lengths, device=cache.device)
        self.width = max(lengths) + 1
        self.mask = (torch.arange(self.width, device=cache.device)[None] <= self.place[:, None])[:, None, None, :]

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float
    ) -> torch.Tensor:
        r, heads, dim = len(self.rows), query.shape[1], query.shape[3]
        keys, values = self.cache[layer]
        keys[self.rows, :, self.place] = key[0].transpose(0, 1)
        values[self.rows, :, self.place] = value[0].transpose(0, 1)
        # the query heads that share a key head stand in for query positions: no copy of keys or values
        grouped = query[0].transpose(0, 1).reshape(r, keys.shape[1], -1, dim)
        out = F.scaled_dot_product_attention(
            grouped, keys[:r, :, : self.width], values[:r, :, : self.width], attn_mask=self.mask, scale=scaling
        )
        return out.reshape(r, heads, dim)


class _SlotDecoder:
    """Decoding for models that run packed: rows of any lengths in the slots of one cache."""

    def __init__(self, engine: LocalEngine) -> None:
        self.engine = engine
        self.lm = engine.lm
        self.active: list[_Row] = []
        self.ended: list[_Row] = []
        self.prefixes: dict[tuple[int, ...], _Prefix] = {}
        self.cache: torch.Tensor | None = None  # [layers, 2, slots, key heads, capacity, D]

    def admit(self, queue: deque[Request]) -> None:
        """Fill the free slots from the queue, in order, and draw the first token of every new row."""
        while queue and len(self.active) < self.engine.slots:
            new = [queue.popleft() for _ in range(min(len(queue), self.engine.slots - len(self.active)))]
            self._prefill([r.prompt_ids for r in new])
            rows = [_Row(request) for request in new]
            first = len(self.active)
            for i, row in enumerate(rows):
                self._place(first + i, self.prefixes[row.request.prompt_ids])
            self.active += rows
            _extend(self.engine, rows, torch.stack([self.prefixes[r.prompt_ids].logits for r in new]))
            waiting = Counter(r.prompt_ids for r in queue)
            self.prefixes = {ids: p for ids, p in self.prefixes.items() if waiting[ids]}
            self.drop_ended()

    def step(self) -> None:
        """Forward the newest token of every active row and draw the next."""
        if not self.active:
            return
        lengths = [row.length for row in self.active]
        self._grow(max(lengths) + 1)
        assert self.cache is not None
        ids = torch.tensor([row.token_ids[-1] for row in self.active])
        hidden = self.lm.hidden_states(ids, torch.tensor(lengths), _DecodePlan(self.cache, lengths))
        self.engine.forwarded_tokens += len(lengths)
        _extend(self.engine, self.active, self.lm.head(hidden))
        self.drop_ended()

    def drop_ended(self) -> None:
        """Take ended rows out; the last active row moves into each hole."""
        for slot in reversed(range(len(self.active))):
            row = self.active[slot]
            if row.stop_reason is None:
                continue
            self.ended.append(row)
            last = self.active.pop()
            if slot < len(self.active):
                assert self.cache is not None
                self.active[slot] = last
                self.cache[:, :, slot, :, : last.length] = self.cache[:, :, len(self.active), :, : last.length]

    def _prefill(self, prompts: Sequence[tuple[int, ...]]) -> None:
        """Forward the prompts that are not known yet, packed, some thousand tokens at a time; what prompts of one pass
        have in common (a system prompt) is forwarded once."""
        todo = [p for p in dict.fromkeys(prompts) if p not in self.prefixes]
        while todo:
            part = [todo.pop(0)]
            while todo and sum(map(len, part)) + len(todo[0]) <= PREFILL_TOKENS:
                part.append(todo.pop(0))
            spans = radix([(prompt, len(prompt) - 1) for prompt in part])  # a prompt's last token is its own
            plan = _PrefillPlan(ForestPlan(nodes_of(spans), self.lm.device))
            ids = torch.tensor([t for span in spans for t in part[span.row][span.start : span.stop]])
            positions = torch.cat([torch.arange(span.start, span.stop) for span in spans])
            hidden = self.lm.hidden_states(ids, positions, plan)
            self.engine.forwarded_tokens += len(ids)
            kept = torch.stack([plan.kept[layer] for layer in sorted(plan.kept)])
            paths = _token_paths(spans)
            ends = torch.stack([paths[i][-1] for i, span in enumerate(spans) if span.leaf]).to(hidden.device)
            logits = iter(self.lm.head(hidden[ends]))
            for path, span in zip(paths, spans, strict=True):
                if span.leaf:
                    self.prefixes[part[span.row]] = _Prefix(kept.index_select(3, path.to(kept.device)), next(logits))

    def _place(self, slot: int, prefix: _Prefix) -> None:
        layers, _, heads, length, dim = prefix.cache.shape
        if self.cache is None:
            self.cache = prefix.cache.new_empty(layers, 2, self.engine.slots, heads, 0, dim)
        self._grow(length + 1)
        self.cache[:, :, slot, :, :length] = prefix.cache

    def _grow(self, capacity: int) -> None:
        assert self.cache is not None
        have = self.cache.shape[4]
        if capacity > have:
            shape = list(self.cache.shape)
            shape[4] = max(capacity, have + have // 2, 64)
            bigger = self.cache.new_zeros(shape)
            bigger[:, :, :, :, :have] = self.cache
            self.cache = bigger


def _token_paths(spans: Sequence[Span]) -> list[torch.Tensor]:
    """The packed indices of the tokens from the root to the end of each span."""
    paths: list[torch.Tensor] = []
    start = 0
    for span in spans:
        own = torch.arange(start, start + span.stop - span.start)
        paths.append(own if span.parent < 0 else torch.cat([paths[span.parent], own]))
        start += len(own)
    return paths


class _GroupDecoder:
    """Decoding for every other model, by transformers' own cache: the rows of one prompt at a time, in step, so that
    no row is ever padded (recurrent and sliding-window layers stay right)."""

    def __init__(self, engine: LocalEngine) -> None:
        self.engine = engine
        self.lm = engine.lm
        self.active: list[_Row] = []
        self.ended: list[_Row] = []
        self.cache: object = None

    def admit(self, queue: deque[Request]) -> None:
        if self.active or not queue:
            return
        prompt = queue[0].prompt_ids
        new: list[Request] = []
        while queue and queue[0].prompt_ids == prompt and len(new) < self.engine.slots:
            new.append(queue.popleft())
        outputs = self.lm.module(input_ids=torch.tensor([prompt], device=self.lm.device), use_cache=True)
        self.engine.forwarded_tokens += len(prompt)
        self.cache = outputs.past_key_values
        if len(new) > 1:
            self._keep_rows([0] * len(new))
        self.active = [_Row(request) for request in new]
        _extend(self.engine, self.active, outputs.logits[:, -1].expand(len(new), -1))
        self.drop_ended()

    def step(self) -> None:
        if not self.active:
            return
        ids = torch.tensor([[row.token_ids[-1]] for row in self.active], device=self.lm.device)
        outputs = self.lm.module(input_ids=ids, past_key_values=self.cache, use_cache=True)
        self.engine.forwarded_tokens += len(self.active)
        _extend(self.engine, self.active, outputs.logits[:, -1])
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
        self.cache.reorder_cache(torch.tensor(rows, device=self.lm.device))  # type: ignore[attr-defined]
