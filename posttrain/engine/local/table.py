"""The rows that decode together, as tensors on the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from posttrain.engine.local.graphs import Pace
from posttrain.engine.local.rows import Kind, Row, kinds_of
from posttrain.engine.local.sampling import Draw, drawing_device
from posttrain.models.layers import fast

Prompt = tuple[int, ...]


@dataclass(frozen=True)
class Sizes:
    """Shapes of a step: rows R, prompts P, the most rows m that one prompt has, tokens T of a prompt. `alone`: row i is
    the one reader of prompt i, for every i."""

    rows: int
    prompts: int
    most: int
    tokens: int
    alone: bool


@dataclass(frozen=True)
class Seating:
    """Which rows read which prompt: `readers` of each prompt, and how large the steps are that this needs."""

    sizes: Sizes
    readers: list[list[int]]
    even: bool

    @classmethod
    def of(cls, rows: Sequence[Row], prompts: Sequence[Prompt], pace: Pace, slots: int, longest: int) -> Seating:
        """With `slots` rows and prompts at the most, of `longest` tokens."""
        slot_of = {ids: slot for slot, ids in enumerate(prompts)}
        slots_of_rows = [slot_of[row.request.prompt_ids] for row in rows]
        readers: list[list[int]] = [[] for _ in prompts]
        for i, slot in enumerate(slots_of_rows):
            readers[slot].append(i)
        longest_now = max(map(len, prompts))
        alone = slots_of_rows == list(range(len(prompts)))
        count = pace.size(len(rows), 8, slots)
        sizes = Sizes(
            count,
            count if alone else pace.size(len(prompts), 1, slots),
            1 if alone else pace.size(max(map(len, readers)), 1, slots),
            pace.size(longest_now, 128, longest),
            alone,
        )
        even = pace.capture is None and all(len(prompt) == longest_now for prompt in prompts)
        return cls(sizes, readers, even)


class Table:
    """One entry a row, in the order of slots: its newest token, how many it has drawn, at which number it stops, the
    length of its prompt and its uniform number. Entries past the rows stand still at one token of an empty prompt.

    `members` [P*m]: for each prompt its rows, the last one repeated up to m; `place` [R]: where each row stands in
    that; `hidden` [R, 1, 1, T]: minus infinity past the end of the row's prompt, or None if every prompt has T
    tokens."""

    def __init__(self, sizes: Sizes, even: bool, ends: Sequence[int], device: torch.device) -> None:
        self.sizes = sizes
        self.kinds: list[Kind] = []
        rows = sizes.rows
        self._numbers = torch.zeros(5 * rows + sizes.prompts * sizes.most, dtype=torch.long, device=device)
        self.token, self.count, self.limit, self.prompt, self.place = self._numbers[: 5 * rows].view(5, rows)
        self.members = self._numbers[5 * rows :]
        self.uniforms = torch.zeros(rows, dtype=torch.float64, device=drawing_device(device))
        self.hidden = None if even else torch.zeros(rows, 1, 1, sizes.tokens, device=device)
        self._ends = torch.tensor(list(ends), device=device)

    def fill(self, rows: Sequence[Row], seating: Seating) -> None:
        most, empty = self.sizes.most, self.sizes.rows - len(rows)
        place = {i: slot * most + k for slot, r in enumerate(seating.readers) for k, i in enumerate(r)}
        # a prompt that waits for its next row has none: any row stands in
        members = [i for r in seating.readers for i in (r or [0]) + (r or [0])[-1:] * (most - max(len(r), 1))]
        numbers = [
            *([row.token_ids[-1] for row in rows] + [0] * empty),
            *([len(row.token_ids) for row in rows] + [1] * empty),
            *([row.request.sampling.max_new_tokens for row in rows] + [0] * empty),
            *([len(row.request.prompt_ids) for row in rows] + [0] * empty),
            *([place[i] for i in range(len(rows))] + [0] * empty),
            *(members + [0] * (len(self.members) - len(members))),
        ]
        self._numbers.copy_(torch.tensor(numbers), non_blocking=True)
        self.kinds = kinds_of(rows, self.uniforms.device)
        if self.hidden is not None:
            past = torch.arange(self.sizes.tokens, device=self.token.device)[None] >= self.prompt[:, None]
            self.hidden.zero_().masked_fill_(past[:, None, None], float("-inf"))

    def follow(self, rows: Sequence[Row]) -> None:
        """Every row has got one token."""
        self.token.copy_(torch.tensor([row.token_ids[-1] for row in rows]))
        self.count += 1

    def advance(self, draws: Sequence[Draw]) -> tuple[torch.Tensor, ...]:
        """Give every row its new token, but those that have stopped or are not settled. Returns tokens, the bits of
        their log-probabilities and the counts [3, R] in int32, and where tokens were cut the kept ids a kind."""
        token, logprob, settled = (self._together([d[k] for d in draws]) for k in (0, 1, 3))
        assert token is not None and logprob is not None
        state = _advanced(self.token, self.count, self.limit, token, settled, self._ends)
        for own, new in zip((self.token, self.count, self.limit), state, strict=True):
            own.copy_(new)
        record = torch.stack([self.token.int(), logprob.view(torch.int32), self.count.int()])
        return record, *(d.kept for d in draws if d.kept is not None)

    def _together(self, parts: Sequence[torch.Tensor | None]) -> torch.Tensor | None:
        """What kinds of rows have, [R], on the model's device."""
        if len(self.kinds) == 1:
            return None if parts[0] is None else parts[0].to(self.token.device)
        known = [part for part in parts if part is not None]
        if not known:
            return None
        out = torch.ones(self.sizes.rows, dtype=known[0].dtype, device=known[0].device)
        for kind, part in zip(self.kinds, parts, strict=True):
            if part is not None:
                out[kind.places] = part
        return out.to(self.token.device)


@fast
def _advanced(
    token: torch.Tensor,
    count: torch.Tensor,
    limit: torch.Tensor,
    drawn: torch.Tensor,
    settled: torch.Tensor | None,
    ends: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Newest tokens, counts and limits after a step; the limit of a row that an end token stops is its count."""
    moves = count < limit if settled is None else (count < limit) & settled
    token = torch.where(moves, drawn, token)
    count = count + moves
    ended = (token[:, None] == ends).any(-1)
    return token, count, torch.where(ended, count, limit)
