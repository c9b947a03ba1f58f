"""Decoding for models that run packed, with a key/value cache of our own: prompts once, and a slot a completion."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch

from posttrain.arrays import ints
from posttrain.batch.packing import RowNode, nodes_of, prefix_forest
from posttrain.engine.base import Request
from posttrain.engine.local.caches import Cache
from posttrain.engine.local.graphs import Pace, Step
from posttrain.engine.local.plans import DecodePlan, PrefillPlan
from posttrain.engine.local.room import Room
from posttrain.engine.local.rows import Row, RowDecoder, append, draw_rows, extend
from posttrain.engine.local.table import Prompt, Seating, Table
from posttrain.models.attention import plan_for
from posttrain.models.language_model import LanguageModel

PREFILL_TOKENS = {"cuda": 1 << 14}
"""Prompt tokens that go through the model at once on a kind of device, if they are not 2,048."""


class SlotDecoder(RowDecoder):
    """Completions of one prompt read its keys and values together. The slot of a row that ends goes to the next
    request, or once none is left to the last active row: active slots stay dense.

    With `room` the caches are made at once and never move; without it they grow with what they hold."""

    def __init__(self, lm: LanguageModel, slots: int, version: int, pace: Pace, room: Room | None) -> None:
        super().__init__(lm, room.slots if room else slots, version)
        self.pace, self.room = pace, room
        self.prompts: list[Prompt] = []  # in the order of their slots
        self.first_logits: dict[Prompt, torch.Tensor] = {}  # [V] after each prompt
        self.of_prompts, self.of_rows = Cache(), Cache()
        if room:
            self.of_prompts.reserve(room.slots, room.prompt_tokens, room.like)
            self.of_rows.reserve(room.slots, room.row_tokens, room.like)
        self.table: Table | None = None  # None once rows or prompts have changed
        self.tables: dict[object, Table] = {}
        self.capture = pace.capture() if pace.capture else None
        self.captured: dict[object, Step] = {}
        self.unsettled = False  # whether a row waits for a draw from the whole vocabulary

    def admit(self, queue: deque[Request]) -> None:
        self._forget_prompts(queue)
        while queue and len(self.active) < self.slots:
            new = [queue.popleft() for _ in range(min(len(queue), self.slots - len(self.active)))]
            self._prefill([r.prompt_ids for r in new])
            rows = [Row(request, self.version) for request in new]
            self.active += rows
            self.table = None
            extend(self.lm, rows, torch.stack([self.first_logits[r.prompt_ids] for r in new]))
            self.drop_ended()
            self._forget_prompts(queue)

    def step(self) -> None:
        if not self.active:
            return
        table = self.table = self.table or self._seated()
        if self.pace == Pace():
            self._step(table)
        else:
            self._steps(table)
        self.drop_ended()

    def _step(self, table: Table) -> None:
        """One step, which is read at once."""
        counts = [len(row.token_ids) for row in self.active]
        width = self._width(table, max(counts))
        logits = _logits(self.lm, DecodePlan(self.of_prompts, self.of_rows, table, width, min(counts) == width))
        self.forwarded_tokens += len(counts)
        extend(self.lm, self.active, logits, table.kinds)
        table.follow(self.active)

    def _steps(self, table: Table) -> None:
        """As many steps as the pace has between two reads. A row that is not settled waits for a step of its own."""
        counts = [len(row.token_ids) for row in self.active]
        left = max(row.request.sampling.max_new_tokens - n for row, n in zip(self.active, counts, strict=True))
        steps = 1 if self.unsettled else min(self.pace.every, left)
        take = self._taken(table, self._width(table, max(counts) + steps - 1))
        numbers = [row.uniforms(steps) for row in self.active]
        numbers += [[0.0] * steps] * (table.sizes.rows - len(numbers))
        uniforms = torch.tensor(numbers, dtype=torch.float64).to(table.uniforms.device, non_blocking=True)
        before, records = self.lm.forwarded_tokens, []
        for of_step in uniforms.T:
            table.uniforms.copy_(of_step)
            records.append(take())
        self.lm.forwarded_tokens = before + steps * table.sizes.rows
        self._read(table, records)

    def _seated(self) -> Table:
        longest = self.room.prompt_tokens if self.room else 0
        seating = Seating.of(self.active, self.prompts, self.pace, self.slots, longest)
        table = self.tables.get(seating.sizes)
        if table is None:
            table = Table(seating.sizes, seating.even, sorted(self.lm.chat.end_ids), self.lm.device)
            if self.capture:
                self.tables[seating.sizes] = table
        table.fill(self.active, seating)
        return table

    def _width(self, table: Table, tokens: int) -> int:
        """Up to where own keys are read, of which a row has up to `tokens`; the cache has room for them."""
        if self.room is not None:
            return self.pace.size(min(tokens, self.room.row_tokens), 128, self.room.row_tokens)
        self.of_rows.grow(table.sizes.rows, tokens, self.of_prompts.values)
        return tokens

    def _taken(self, table: Table, width: int) -> Step:
        """A step of the table's rows, recorded if they draw alike."""
        take = partial(_take, self.lm, self.of_prompts, self.of_rows, table, width, self.unsettled)
        if self.capture is None or self.unsettled or len(table.kinds) > 1:
            return take
        sampling = table.kinds[0].sampling
        key = table.sizes, width, sampling.temperature, sampling.top_k, sampling.top_p
        if key not in self.captured:
            self.captured[key] = self.capture(take)
        return self.captured[key]

    def _read(self, table: Table, records: Sequence[tuple[torch.Tensor, ...]]) -> None:
        """Give the rows the tokens of some steps: all that the device holds for them comes in one copy."""
        numbers = torch.stack([record[0] for record in records]).cpu().numpy()  # [steps, 3, R]
        tokens, logprobs = numbers[:, 0].T.tolist(), numbers[:, 1].view(np.float32).T.tolist()
        kept: dict[int, np.ndarray] = {}
        truncated = [kind for kind in table.kinds if kind.sampling.truncated]
        for k, kind in enumerate(truncated, start=1):
            ids = np.sort(torch.stack([record[k] for record in records]).cpu().numpy(), axis=-1)  # [steps, rows, K]
            kept |= {row: ids[:, i] for i, row in enumerate(kind.rows)}
        self.unsettled = False
        for i, (row, count) in enumerate(zip(self.active, numbers[-1, 2].tolist(), strict=False)):
            had = len(row.token_ids)
            new, own = count - had, kept.get(i)
            append(self.lm, row, tokens[i][:new], logprobs[i][:new], None if own is None else own[:new])
            self.forwarded_tokens += len(row.token_ids) - had
            self.unsettled |= row.stop_reason is None and new < len(records)

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
            self.table = None

    def _forget_prompts(self, queue: deque[Request]) -> None:
        """Free the slots of prompts that no active row and no waiting request needs."""
        if self.table is None:
            self._keep_prompts({row.request.prompt_ids for row in self.active} | {r.prompt_ids for r in queue})

    def _keep_prompts(self, needed: set[Prompt]) -> None:
        for slot in reversed(range(len(self.prompts))):
            if self.prompts[slot] not in needed:
                del self.first_logits[self.prompts[slot]]
                last = self.prompts.pop()
                if slot < len(self.prompts):
                    self.prompts[slot] = last
                    self.of_prompts.move(len(self.prompts), slot, len(last))

    def _prefill(self, prompts: Sequence[Prompt]) -> None:
        """Forward the prompts that are not known yet, packed, some thousand tokens at a time; what prompts of one pass
        have in common (a system prompt) is forwarded once."""
        todo = deque(p for p in dict.fromkeys(prompts) if p not in self.first_logits)
        if self.room and len(self.prompts) + len(todo) > self.room.slots:
            # what only waiting requests need is forwarded again when they come
            self._keep_prompts({row.request.prompt_ids for row in self.active} | set(prompts))
        most = PREFILL_TOKENS.get(self.lm.device.type, 2048)
        while todo:
            part = [todo.popleft()]
            while todo and sum(map(len, part)) + len(todo[0]) <= most:
                part.append(todo.popleft())
            nodes = prefix_forest([(ints(prompt), len(prompt) - 1) for prompt in part])  # the last token is its own
            plan = PrefillPlan(plan_for(nodes_of(nodes), self.lm.compute), self.lm.compute.dtype)
            ids = torch.tensor([t for node in nodes for t in part[node.row][node.start : node.stop]])
            positions = torch.cat([torch.arange(node.start, node.stop) for node in nodes])
            hidden = self.lm.hidden_states(ids, positions, plan)
            self.forwarded_tokens += len(ids)
            kept = plan.stacked()
            paths = [path.to(hidden.device) for path in _token_paths(nodes)]
            ends = torch.stack([path[-1] for path, node in zip(paths, nodes, strict=True) if node.leaf])
            logits = iter(self.lm.head(hidden[ends]))
            if self.room is None:
                self.of_prompts.grow(len(self.prompts) + len(part), max(map(len, part)), kept)
            for path, node in zip(paths, nodes, strict=True):
                if node.leaf:
                    self.of_prompts.put(len(self.prompts), kept.index_select(3, path))
                    self.prompts.append(part[node.row])
                    self.first_logits[part[node.row]] = next(logits)


def _take(
    lm: LanguageModel, of_prompts: Cache, of_rows: Cache, table: Table, width: int, whole: bool
) -> tuple[torch.Tensor, ...]:
    """A step that a device can record: it does not know the decoder, which is freed with the caches as soon as it is
    done."""
    logits = _logits(lm, DecodePlan(of_prompts, of_rows, table, width, even=False))
    return table.advance(draw_rows(logits, table.kinds, table.uniforms, whole))


def _logits(lm: LanguageModel, plan: DecodePlan) -> torch.Tensor:
    return lm.next_logits(plan.table.token, plan.table.prompt + plan.place, plan)


def _token_paths(nodes: Sequence[RowNode]) -> list[torch.Tensor]:
    """The packed indices of the tokens from the root to the end of each node."""
    paths: list[torch.Tensor] = []
    start = 0
    for node in nodes:
        own = torch.arange(start, start + node.stop - node.start)
        paths.append(own if node.parent < 0 else torch.cat([paths[node.parent], own]))
        start += len(own)
    return paths
