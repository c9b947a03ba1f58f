"""Decoding for models that run packed, with a key/value cache of our own: prompts once, and a slot a completion."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import torch

from posttrain.arrays import ints
from posttrain.batch.packing import Span, nodes_of, prefix_forest
from posttrain.engine.base import Request
from posttrain.engine.local.rows import Row, RowDecoder, extend
from posttrain.models.attention import AttentionPlan, plan_for
from posttrain.models.language_model import LanguageModel

PREFILL_TOKENS = 2048
"""Prompt tokens that go through the model at once."""

PromptIds = tuple[int, ...]


class SlotDecoder(RowDecoder):
    """Completions of one prompt read its keys and values together. The slot of a row that ends goes to the next
    request, or once none is left to the last active row: active slots stay dense."""

    def __init__(self, lm: LanguageModel, slots: int, version: int) -> None:
        super().__init__(lm, slots, version)
        self.prompts: list[PromptIds] = []  # in the order of their slots
        self.first_logits: dict[PromptIds, torch.Tensor] = {}  # [V] after each prompt
        self.of_prompts = _Cache()
        self.of_rows = _Cache()
        self.sharing: _Sharing | None = None  # None once rows or prompts have changed

    def admit(self, queue: deque[Request]) -> None:
        self._forget_prompts(queue)
        while queue and len(self.active) < self.slots:
            new = [queue.popleft() for _ in range(min(len(queue), self.slots - len(self.active)))]
            self._prefill([r.prompt_ids for r in new])
            rows = [Row(request, self.version) for request in new]
            self.active += rows
            self.sharing = None
            extend(self.lm, rows, torch.stack([self.first_logits[r.prompt_ids] for r in new]))
            self.drop_ended()
            self._forget_prompts(queue)

    def step(self) -> None:
        if not self.active:
            return
        if self.sharing is None:
            self.sharing = _Sharing(self.active, self.prompts, self.lm.device)
        own = [len(row.token_ids) - 1 for row in self.active]
        layers, _, heads, _, dim = self.of_prompts.values.shape
        self.of_rows.grow(layers, len(self.active), heads, max(own) + 1, dim, self.lm.device)
        plan = _DecodePlan(self.of_prompts, self.of_rows, self.sharing, own)
        ids = torch.tensor([row.token_ids[-1] for row in self.active])
        logits = self.lm.next_logits(ids, torch.tensor([row.length for row in self.active]), plan)
        self.forwarded_tokens += len(own)
        extend(self.lm, self.active, logits)
        self.drop_ended()

    def drop_ended(self) -> None:
        for slot in reversed(range(len(self.active))):
            row = self.active[slot]
            if row.stop_reason is None:
                continue
            self.ended.append(row)
            last = self.active.pop()
            if slot < len(self.active):
                self.active[slot] = last
                self.of_rows.move(len(self.active), slot, len(last.token_ids) - 1)
            self.sharing = None

    def _forget_prompts(self, queue: deque[Request]) -> None:
        """Free the slots of prompts that no active row and no waiting request needs."""
        if self.sharing is not None:
            return
        needed = {row.request.prompt_ids for row in self.active} | {r.prompt_ids for r in queue}
        for slot in reversed(range(len(self.prompts))):
            if self.prompts[slot] not in needed:
                del self.first_logits[self.prompts[slot]]
                last = self.prompts.pop()
                if slot < len(self.prompts):
                    self.prompts[slot] = last
                    self.of_prompts.move(len(self.prompts), slot, len(last))

    def _prefill(self, prompts: Sequence[PromptIds]) -> None:
        """Forward the prompts that are not known yet, packed, some thousand tokens at a time; what prompts of one pass
        have in common (a system prompt) is forwarded once."""
        todo = deque(p for p in dict.fromkeys(prompts) if p not in self.first_logits)
        while todo:
            part = [todo.popleft()]
            while todo and sum(map(len, part)) + len(todo[0]) <= PREFILL_TOKENS:
                part.append(todo.popleft())
            spans = prefix_forest([(ints(prompt), len(prompt) - 1) for prompt in part])  # the last token is its own
            plan = _PrefillPlan(plan_for(nodes_of(spans), self.lm.compute))
            ids = torch.tensor([t for span in spans for t in part[span.row][span.start : span.stop]])
            positions = torch.cat([torch.arange(span.start, span.stop) for span in spans])
            hidden = self.lm.hidden_states(ids, positions, plan)
            self.forwarded_tokens += len(ids)
            kept = torch.stack([plan.kept[layer] for layer in sorted(plan.kept)])
            paths = [path.to(hidden.device) for path in _token_paths(spans)]
            ends = torch.stack([path[-1] for path, span in zip(paths, spans, strict=True) if span.leaf])
            logits = iter(self.lm.head(hidden[ends]))
            layers, _, heads, _, dim = kept.shape
            slots, longest = len(self.prompts) + len(part), max(map(len, part))
            self.of_prompts.grow(layers, slots, heads, longest, dim, hidden.device)
            for path, span in zip(paths, spans, strict=True):
                if span.leaf:
                    self.of_prompts.put(len(self.prompts), kept.index_select(3, path))
                    self.prompts.append(part[span.row])
                    self.first_logits[part[span.row]] = next(logits)


class _Cache:
    """Keys [layers, slots, key heads, D, tokens], laid out as the products with them read them, and values [layers,
    slots, key heads, tokens, D]. What was never written is 0."""

    def __init__(self) -> None:
        self.keys = torch.empty(0, 0, 0, 0, 0)
        self.values = torch.empty(0, 0, 0, 0, 0)

    def grow(self, layers: int, slots: int, heads: int, tokens: int, dim: int, device: torch.device) -> None:
        """Make room for so many slots of so many tokens, and some more."""
        have_slots, have_tokens = self.values.shape[1], self.values.shape[3]
        if slots <= have_slots and tokens <= have_tokens:
            return
        slots = have_slots if slots <= have_slots else max(slots, have_slots * 3 // 2)
        tokens = have_tokens if tokens <= have_tokens else max(tokens, have_tokens * 3 // 2, 16)
        keys = torch.zeros(layers, slots, heads, dim, tokens, device=device)
        values = torch.zeros(layers, slots, heads, tokens, dim, device=device)
        if have_slots:
            keys[:, :have_slots, :, :, :have_tokens] = self.keys
            values[:, :have_slots, :, :have_tokens] = self.values
        self.keys, self.values = keys, values

    def put(self, slot: int, kept: torch.Tensor) -> None:
        self.keys[:, slot, :, :, : kept.shape[3]] = kept[:, 0].transpose(2, 3)
        self.values[:, slot, :, : kept.shape[3]] = kept[:, 1]

    def move(self, source: int, target: int, tokens: int) -> None:
        if not tokens:
            return  # the slot may not even exist yet
        self.keys[:, target, :, :, :tokens] = self.keys[:, source, :, :, :tokens]
        self.values[:, target, :, :tokens] = self.values[:, source, :, :tokens]


class _Sharing:
    """Which rows read which prompt, as long as neither changes.

    `members` [P*m]: for each prompt its rows, the last one repeated up to the largest number m of rows a prompt has;
    `place` [R]: where each row stands in that; `hidden` [R, 1, 1, T]: minus infinity past the end of the row's prompt,
    or None if all prompts are of one length; `alone`: whether row i is the one reader of prompt i, for every i."""

    def __init__(self, rows: Sequence[Row], prompts: Sequence[PromptIds], device: torch.device) -> None:
        slot_of = {ids: slot for slot, ids in enumerate(prompts)}
        slots = [slot_of[row.request.prompt_ids] for row in rows]
        readers: list[list[int]] = [[] for _ in prompts]
        for i, slot in enumerate(slots):
            readers[slot].append(i)
        self.prompts = len(prompts)
        self.most = max(map(len, readers))
        self.tokens = max(map(len, prompts))
        # a prompt that waits for its next row has none: any row stands in
        padded = [(r + [r[-1]] * (self.most - len(r))) if r else [0] * self.most for r in readers]
        self.alone = slots == list(range(len(prompts)))  # a prompt a row, in order
        position = {i: slot * self.most + k for slot, r in enumerate(readers) for k, i in enumerate(r)}
        self.members = torch.tensor([i for r in padded for i in r], device=device)
        self.place = torch.tensor([position[i] for i in range(len(rows))], device=device)
        lengths = torch.tensor([len(prompts[slot]) for slot in slots], device=device)
        self.hidden = None
        if len(set(map(len, prompts))) > 1:
            past = torch.arange(self.tokens, device=device)[None] >= lengths[:, None]
            self.hidden = torch.zeros(past.shape, device=device).masked_fill_(past, float("-inf"))[:, None, None]


class _PrefillPlan:
    """Forest attention that also keeps every layer's keys and values [2, key heads, N, D]."""

    def __init__(self, forest: AttentionPlan) -> None:
        self.forest = forest
        self.kept: dict[int, torch.Tensor] = {}

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float
    ) -> torch.Tensor:
        self.kept[layer] = torch.stack([key[0], value[0]])
        return self.forest.attend(layer, query, key, value, scaling)


class _DecodePlan:
    """One new token for each of the first R slots, attending to its prompt, its own tokens and itself: scores against a
    prompt for all its rows together, against own tokens a row at a time; one softmax goes over both."""

    def __init__(self, of_prompts: _Cache, of_rows: _Cache, sharing: _Sharing, own: Sequence[int]) -> None:
        self.of_prompts, self.of_rows, self.sharing = of_prompts, of_rows, sharing
        device = of_rows.values.device
        self.rows = torch.arange(len(own), device=device)
        self.place = torch.tensor(own, device=device)
        self.width = max(own) + 1
        self.hidden = None
        if min(own) + 1 < self.width:
            past = torch.arange(self.width, device=device)[None] > self.place[:, None]
            self.hidden = torch.zeros(past.shape, device=device).masked_fill_(past, float("-inf"))[:, None, None]

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float
    ) -> torch.Tensor:
        sharing, r, heads, dim = self.sharing, len(self.rows), query.shape[1], query.shape[3]
        keys, values = self.of_rows.keys[layer], self.of_rows.values[layer]
        keys[self.rows, :, :, self.place] = key[0].transpose(0, 1)
        values[self.rows, :, self.place] = value[0].transpose(0, 1)
        # the query heads that share a key head stand next to each other: no copy of keys or values
        q = (query[0].transpose(0, 1) * scaling).reshape(r, keys.shape[1], -1, dim)
        prompt_keys = self.of_prompts.keys[layer, : sharing.prompts, :, :, : sharing.tokens]
        prompt_values = self.of_prompts.values[layer, : sharing.prompts, :, : sharing.tokens]
        scores = torch.cat(
            [
                _add(self._by_row(torch.matmul(self._by_prompt(q), prompt_keys)), sharing.hidden),
                _add(torch.matmul(q, keys[:r, :, :, : self.width]), self.hidden),
            ],
            dim=-1,
        )
        to_prompt, to_own = scores.softmax(-1).split([sharing.tokens, self.width], dim=-1)
        out = self._by_row(torch.matmul(self._by_prompt(to_prompt), prompt_values))
        out = out + torch.matmul(to_own, values[:r, :, : self.width])
        return out.reshape(r, heads, dim)

    def _by_prompt(self, x: torch.Tensor) -> torch.Tensor:
        """[R, key heads, group, *] -> [P, key heads, m * group, *]"""
        if self.sharing.alone:
            return x
        sharing, (_, heads, group, size) = self.sharing, x.shape
        x = x.index_select(0, sharing.members).view(sharing.prompts, sharing.most, heads, group, size)
        return x.transpose(1, 2).reshape(sharing.prompts, heads, sharing.most * group, size)

    def _by_row(self, x: torch.Tensor) -> torch.Tensor:
        """The inverse of `_by_prompt`."""
        if self.sharing.alone:
            return x
        sharing, (prompts, heads, _, size) = self.sharing, x.shape
        x = x.view(prompts, heads, sharing.most, -1, size).transpose(1, 2)
        return x.reshape(prompts * sharing.most, heads, -1, size).index_select(0, sharing.place)


def _add(scores: torch.Tensor, hidden: torch.Tensor | None) -> torch.Tensor:
    return scores if hidden is None else scores.add_(hidden)


def _token_paths(spans: Sequence[Span]) -> list[torch.Tensor]:
    """The packed indices of the tokens from the root to the end of each span."""
    paths: list[torch.Tensor] = []
    start = 0
    for span in spans:
        own = torch.arange(start, start + span.stop - span.start)
        paths.append(own if span.parent < 0 else torch.cat([paths[span.parent], own]))
        start += len(own)
    return paths
