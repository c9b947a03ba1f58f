"""Attention while an engine works: prompts whose keys and values are kept, and one token a row against them."""

from __future__ import annotations

import torch

from posttrain.engine.local.caches import Cache
from posttrain.engine.local.table import Table
from posttrain.models.attention import AttentionPlan
from posttrain.models.layers import fast
from posttrain.models.layers.elementwise import rounded


class PrefillPlan:
    """Attention by another plan, which also keeps every layer's keys and values [2, key heads, N, D]."""

    def __init__(self, plan: AttentionPlan, dtype: torch.dtype) -> None:
        self.plan, self.dtype = plan, dtype
        self.kept: dict[int, torch.Tensor] = {}

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float
    ) -> torch.Tensor:
        self.kept[layer] = rounded(torch.stack([key[0], value[0]]), self.dtype)
        return self.plan.attend(layer, query, key, value, scaling)

    def stacked(self) -> torch.Tensor:
        """[layers, 2, key heads, N, D]"""
        return torch.stack([self.kept[layer] for layer in sorted(self.kept)])


class DecodePlan:
    """One new token for each row of a table, attending to its prompt, its own tokens and itself: scores against a
    prompt for all its rows together, against own tokens a row at a time; one softmax goes over both. Own keys are read
    up to `width`; `even`: every row has as many.

    Only the inputs of the four products are rounded to the cache's type; what they sum is float32."""

    def __init__(self, of_prompts: Cache, of_rows: Cache, table: Table, width: int, even: bool) -> None:
        self.of_prompts, self.of_rows, self.table, self.width = of_prompts, of_rows, table, width
        device = table.token.device
        self.rows = torch.arange(table.sizes.rows, device=device)
        self.place = table.count - 1
        self.hidden = None
        if not even:
            past = torch.arange(width, device=device)[None] > self.place[:, None]
            self.hidden = torch.zeros(past.shape, device=device).masked_fill_(past, float("-inf"))[:, None, None]

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float
    ) -> torch.Tensor:
        sizes, table, heads, dim = self.table.sizes, self.table, query.shape[1], query.shape[3]
        keys, values = self.of_rows.keys[layer], self.of_rows.values[layer]
        dtype = keys.dtype
        keys[self.rows, :, :, self.place] = rounded(key[0].transpose(0, 1), dtype)
        values[self.rows, :, self.place] = rounded(value[0].transpose(0, 1), dtype)
        # the query heads that share a key head stand next to each other: no copy of keys or values
        q = query[0].transpose(0, 1)
        q = rounded(q if scaling == 1 else q * scaling, dtype).reshape(sizes.rows, keys.shape[1], -1, dim)
        prompt_keys = self.of_prompts.keys[layer, : sizes.prompts, :, :, : sizes.tokens]
        prompt_values = self.of_prompts.values[layer, : sizes.prompts, :, : sizes.tokens]
        to_own, to_prompt = _weights(
            _product(q, keys[: sizes.rows, :, :, : self.width]),
            _product(self._by_prompt(q), prompt_keys),
            None if sizes.alone else table.place,
            self.hidden,
            table.hidden,
            dtype,
        )
        out = _together(
            _product(to_own, values[: sizes.rows, :, : self.width]),
            _product(self._by_prompt(to_prompt), prompt_values),
            None if sizes.alone else table.place,
            dtype,
        )
        return out.reshape(sizes.rows, heads, dim)

    def _by_prompt(self, x: torch.Tensor) -> torch.Tensor:
        """[R, key heads, group, *] -> [P, key heads, m * group, *]"""
        return x if self.table.sizes.alone else _gathered(x, self.table.members, self.table.sizes.most)


def _product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """a b for [B, H, M, K] and [B, H, K, N], summed and given in float32 at least."""
    if a.dtype.itemsize >= 4:
        return torch.matmul(a, b)
    if a.is_cuda:
        flat: torch.Tensor = torch.bmm(a.flatten(0, 1), b.flatten(0, 1), out_dtype=torch.float32)
        return flat.unflatten(0, a.shape[:2])
    return torch.matmul(a.float(), b.float())


@fast
def _gathered(x: torch.Tensor, members: torch.Tensor, most: int) -> torch.Tensor:
    """[R, key heads, group, *] -> [P, key heads, m * group, *]"""
    _, heads, group, size = x.shape
    x = x.index_select(0, members).view(-1, most, heads, group, size)
    return x.transpose(1, 2).reshape(-1, heads, most * group, size)


@fast
def _weights(
    own: torch.Tensor,
    prompt: torch.Tensor,
    place: torch.Tensor | None,
    own_hidden: torch.Tensor | None,
    prompt_hidden: torch.Tensor | None,
    dtype: torch.dtype,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The softmax over scores against own tokens [R, key heads, group, W] and against the prompt, of both its parts."""
    prompt = _by_row(prompt, own.shape[2], place)
    scores = torch.cat([_add(prompt, prompt_hidden), _add(own, own_hidden)], dim=-1)
    to_prompt, to_own = rounded(scores.softmax(-1), dtype).split([prompt.shape[-1], own.shape[-1]], dim=-1)
    return to_own, to_prompt


@fast
def _together(own: torch.Tensor, prompt: torch.Tensor, place: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor:
    """What was read from both, added."""
    return rounded(_by_row(prompt, own.shape[2], place) + own, dtype)


def _by_row(x: torch.Tensor, group: int, place: torch.Tensor | None) -> torch.Tensor:
    """[P, key heads, m * group, *] -> [R, key heads, group, *]"""
    if place is None:
        return x
    prompts, heads, _, size = x.shape
    x = x.view(prompts, heads, -1, group, size).transpose(1, 2)
    return x.reshape(-1, heads, group, size).index_select(0, place)


def _add(scores: torch.Tensor, hidden: torch.Tensor | None) -> torch.Tensor:
    if hidden is None:
        return scores
    # a compiled function that changes its input writes it back
    return scores + hidden if torch.compiler.is_compiling() else scores.add_(hidden)
