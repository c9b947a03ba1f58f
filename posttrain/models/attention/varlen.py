"""Attention over a packed forest by one call of a kernel that takes rows of any length."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
import torch

from posttrain.batch.types import Node, moved
from posttrain.models.attention.forest import ForestPlan
from posttrain.models.compute import Compute
from posttrain.text import first_line

PROBE_TOLERANCE = 0.02
"""Largest distance of a kernel's results from the plain ones, relative to their norm; bfloat16 alone gives 0.004."""

log = logging.getLogger("posttrain")


@dataclass(frozen=True)
class Segments:
    """R rows of queries and of keys, one after the other. Row i has the queries from query_starts[i] to
    query_starts[i+1], and keys likewise. Its last query sees all its keys, each one before that a key less."""

    query_starts: torch.Tensor  # [R+1] int32
    key_starts: torch.Tensor  # [R+1] int32
    longest_query: int
    longest_key: int


SegmentAttention = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, Segments, float], torch.Tensor]
"""softmax(scaling q k') v by row: query [Q, heads, D], key and value [K, heads or fewer, D] -> [Q, heads, D]."""


def flash_segments(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, segments: Segments, scaling: float
) -> torch.Tensor:
    """By FlashAttention (Dao 2023, arXiv:2307.08691), on CUDA in half precision."""
    from torch.nn.attention import varlen

    attend: Any = varlen.varlen_attn
    # torch 2.11 has no such argument, and whether its kernel takes fewer key heads is found out by `_copies_of_keys`
    grouped = {"enable_gqa": True} if "enable_gqa" in inspect.signature(attend).parameters else {}
    starts = segments.query_starts, segments.key_starts
    longest = segments.longest_query, segments.longest_key
    causal = (-1, 0)  # aligned at the last query and the last key
    out: torch.Tensor = attend(query, key, value, *starts, *longest, scale=scaling, window_size=causal, **grouped)
    return out


def plain_segments(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, segments: Segments, scaling: float
) -> torch.Tensor:
    """A row at a time, in float32 or more: what `flash_segments` is compared with."""
    exact = torch.promote_types(query.dtype, torch.float32)
    starts = zip(segments.query_starts.tolist(), segments.key_starts.tolist(), strict=True)
    out, (first, first_key) = [], next(starts)
    for stop, stop_key in starts:
        q = query[first:stop].to(exact).transpose(0, 1)
        k, v = (t[first_key:stop_key].to(exact).transpose(0, 1) for t in (key, value))
        k, v = (t.repeat_interleave(len(q) // len(t), dim=0) for t in (k, v))
        scores = q @ k.transpose(1, 2) * scaling
        hidden = torch.ones_like(scores, dtype=torch.bool).triu(k.shape[1] - q.shape[1] + 1)
        out.append((scores.masked_fill(hidden, float("-inf")).softmax(-1) @ v).transpose(0, 1))
        first, first_key = stop, stop_key
    return torch.cat(out).to(query.dtype)


class VarlenPlan:
    """Attention over ancestors for the nodes of a forest, by one call a layer. A row is a node: its queries are its
    tokens as they stand, its keys those of its ancestors, gathered from the packed tokens, and then its own. Queries,
    keys and values are rounded to the `dtype` of `compute` first. Where `call` refuses the shape of a model's heads,
    attention is that of `ForestPlan`."""

    def __init__(self, nodes: Sequence[Node], compute: Compute, call: SegmentAttention = flash_segments) -> None:
        self.nodes, self.device, self.dtype, self.call = nodes, compute.device, compute.dtype, call
        paths: list[np.ndarray[Any, np.dtype[np.int32]]] = []  # the tokens from the root to the end of each node
        start = 0
        for node in nodes:
            own = np.arange(start, start + node.length, dtype=np.int32)
            paths.append(np.concatenate([paths[node.parent], own]) if node.parent >= 0 else own)
            start += node.length
        rows = [(node.length, path) for node, path in zip(nodes, paths, strict=True) if node.length]
        lengths, widths = [0, *(length for length, _ in rows)], [0, *(len(path) for _, path in rows)]
        starts = np.cumsum([lengths, widths], axis=1, dtype=np.int32)
        index = np.concatenate([path for _, path in rows])
        places = moved(torch.from_numpy(np.concatenate([*starts, index])), self.device)  # once a pass
        query_starts, key_starts, self.index = places.split([len(lengths), len(lengths), len(index)])
        self.segments = Segments(query_starts, key_starts, max(lengths), max(widths))
        self.gathers = len(index) > start  # without ancestors the keys are the tokens as they stand

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float
    ) -> torch.Tensor:
        heads, key_heads, dim = query.shape[1], key.shape[1], query.shape[3]
        copies = _copies_of_keys(self.call, heads, key_heads, dim, Compute(query.device, self.dtype))
        if copies is None:
            query, key, value = (t.to(self.dtype) for t in (query, key, value))
            return self.by_masks.attend(layer, query, key, value, scaling)
        return self.attend_with(copies, query, key, value, scaling)

    def attend_with(
        self, copies: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float
    ) -> torch.Tensor:
        """`attend` with each head of keys and values given to `call` so many times."""
        q, k, v = (t[0].transpose(0, 1) for t in (query, key, value))  # [N, heads, D]
        if self.gathers:
            k, v = (_Gather.apply(t, self.index, self.dtype) for t in (k, v))
        q, k, v = (t.to(self.dtype) for t in (q, k, v))
        if copies > 1:
            k, v = (t.repeat_interleave(copies, dim=1) for t in (k, v))
        return self.call(q, k, v, self.segments, scaling)

    @cached_property
    def by_masks(self) -> ForestPlan:
        return ForestPlan(self.nodes, self.device)


class _Gather(torch.autograd.Function):
    """The rows of a tensor at `index` in `dtype`; the gradients of a row that is there several times are added in
    float32."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, index: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        ctx.save_for_backward(index)
        ctx.shape, ctx.dtype = rows.shape, rows.dtype
        return rows.to(dtype).index_select(0, index)

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (index,) = ctx.saved_tensors
        total = g.new_zeros(ctx.shape, dtype=torch.promote_types(ctx.dtype, torch.float32))
        return total.index_add_(0, index, g.to(total.dtype)).to(ctx.dtype), None, None


@cache
def _copies_of_keys(call: SegmentAttention, heads: int, key_heads: int, dim: int, compute: Compute) -> int | None:
    """How many times `call` wants each head of the keys: 1 if it takes fewer of them than of the queries, else as
    many as query heads share one; None where it refuses heads of this form or is wrong. Found out by trying."""
    reason = ""
    for copies in dict.fromkeys((1, heads // key_heads)):
        try:
            reason = "its results are wrong"
            if _is_right(call, copies, heads, key_heads, dim, compute):
                return copies
        except (AttributeError, ImportError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
            reason = first_line(error)
    log.warning(
        "attention runs by masks, which is slower: the kernel for rows of any length cannot be used with %d query and "
        "%d key heads of %d (%s)",
        heads,
        key_heads,
        dim,
        reason,
    )
    return None


def _is_right(call: SegmentAttention, copies: int, heads: int, key_heads: int, dim: int, compute: Compute) -> bool:
    """Whether results and gradients are those of `plain_segments` on a small forest, up to rounding."""
    nodes = [Node(-1, 5), Node(0, 3), Node(0, 1), Node(2, 70), Node(-1, 7)]
    n = sum(node.length for node in nodes)
    generator = torch.Generator().manual_seed(0)
    sizes = [(1, h, n, dim) for h in (heads, key_heads, key_heads)]
    inputs = [torch.randn(size, generator=generator).to(compute.device, compute.dtype) for size in sizes]
    upstream = torch.randn(n, heads, dim, generator=generator).to(compute.device)
    plain = VarlenPlan(nodes, Compute(compute.device, torch.float32), plain_segments)
    results = []
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(compute.device.type, enabled=False):
        for plan, factor in ((plain, 1), (VarlenPlan(nodes, compute, call), copies)):
            leaves = [t.to(plan.dtype, copy=True).requires_grad_() for t in inputs]
            out = plan.attend_with(factor, leaves[0], leaves[1], leaves[2], dim**-0.5)
            results.append([out.detach(), *torch.autograd.grad((out.float() * upstream).sum(), leaves)])
    pairs = zip(*results, strict=True)
    return all(float((got - exact).norm()) <= PROBE_TOLERANCE * float(exact.norm()) for exact, got in pairs)
