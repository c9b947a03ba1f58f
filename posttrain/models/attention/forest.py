"""Attention over a packed forest by a few rectangular blocks of rows, a row a node that sees its ancestors and itself.
Rows of similar length share a block: little padding, and no tensor of tokens x tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from posttrain.batch.types import Node

PADDING_LIMIT = 1.3
"""A block of rows is closed before its padded area exceeds this multiple of its useful area."""
WORTH_A_CALL = 32
"""Mean tokens of rows without ancestors from which each is attended to by a call of its own."""
BLOCK_LIMIT = 1 << 22
"""Largest rows x queries x keys of one block with a mask (the mask is one byte an element)."""


@dataclass(frozen=True)
class _Row:
    """A row of a block: its queries are tokens [start, start+length), its keys its `shared` ancestors' tokens, root
    first, and then the queries themselves."""

    start: int
    length: int
    ancestors: torch.Tensor
    shared: int


@dataclass(frozen=True)
class _Block:
    query_index: torch.Tensor  # [R*Lq] token of each query, padding repeats the row's last
    key_index: torch.Tensor  # [R*Lk]
    mask: torch.Tensor | None  # [R, 1, Lq, Lk] True = visible; None = plain causal rows without padding
    rows: int


class ForestPlan:
    """Attention over ancestors for the nodes of a forest, packed one after the other."""

    def __init__(self, nodes: Sequence[Node], device: torch.device | str = "cpu") -> None:
        rows: list[_Row] = []
        paths: list[torch.Tensor] = []  # the tokens from the root to the end of each node
        none = torch.empty(0, dtype=torch.long)
        start = 0
        for node in nodes:
            ancestors = paths[node.parent] if node.parent >= 0 else none
            paths.append(torch.cat([ancestors, torch.arange(start, start + node.length)]))
            if node.length:
                rows.append(_Row(start, node.length, ancestors, len(ancestors)))
            start += node.length
        self.tokens = start
        groups = _similar(rows)
        self.blocks = blocks = [_block(group, device) for group in groups]
        # where each token's result stands in the concatenated, padded results of the blocks
        place = torch.empty(start, dtype=torch.long)
        offset = 0
        for group, block in zip(groups, blocks, strict=True):
            width = len(block.query_index) // block.rows
            for i, row in enumerate(group):
                place[row.start : row.start + row.length] = torch.arange(row.length) + offset + i * width
            offset += len(block.query_index)
        self.place = place.to(device)
        # rows of one length, in order: the tokens are the block as they stand
        self.even = blocks[0].rows if len(blocks) == 1 and blocks[0].mask is None else 0
        # rows that stand for themselves: no padding and no mask, if they are worth a call each
        apart = not self.even and not any(r.shared for r in rows) and start >= WORTH_A_CALL * len(rows)
        self.apart = [row.length for row in rows] if apart else []

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float
    ) -> torch.Tensor:
        heads, key_heads, dim = query.shape[1], key.shape[1], query.shape[3]
        q, k, v = (t[0].transpose(0, 1) for t in (query, key, value))  # [N, heads, D]
        if self.even:
            bq, bk, bv = (t.unflatten(0, (self.even, -1)).transpose(1, 2) for t in (q, k, v))
            return _sdpa(bq, bk, bv, None, scaling).transpose(1, 2).flatten(0, 1)
        if self.apart:
            rows = zip(*(t.split(self.apart, dim=2) for t in (query, key, value)), strict=True)
            return torch.cat([_sdpa(q, k, v, None, scaling)[0].transpose(0, 1) for q, k, v in rows])
        results = []
        for block in self.blocks:
            bq = q.index_select(0, block.query_index).view(block.rows, -1, heads, dim).transpose(1, 2)
            bk = k.index_select(0, block.key_index).view(block.rows, -1, key_heads, dim).transpose(1, 2)
            bv = v.index_select(0, block.key_index).view(block.rows, -1, key_heads, dim).transpose(1, 2)
            out = _sdpa(bq, bk, bv, block.mask, scaling)
            results.append(out.transpose(1, 2).reshape(-1, heads, dim))
        return torch.cat(results).index_select(0, self.place)


def _sdpa(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None, scaling: float) -> torch.Tensor:
    if q.shape[1] != k.shape[1] and q.device.type != "cpu":
        # with a mask, torch has no kernel for fewer key heads there but one that writes all scores to memory
        k, v = (t.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for t in (k, v))
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=mask is None, scale=scaling, enable_gqa=q.shape[1] != k.shape[1]
    )


def _similar(rows: Sequence[_Row]) -> list[list[_Row]]:
    groups: list[list[_Row]] = []
    useful, shared = 0, 0
    for row in sorted(rows, key=lambda r: (r.shared > 0, -r.length, -r.shared)):
        area = row.length * (row.shared + row.length)
        if groups and (groups[-1][0].shared > 0) == (row.shared > 0):
            group = groups[-1]
            length = group[0].length  # no other is longer
            wider = max(shared, row.shared)
            padded = (len(group) + 1) * length * (length + wider)
            # short rows are cheap whatever their padding; long ones are kept apart
            if padded <= BLOCK_LIMIT and (padded <= PADDING_LIMIT * (useful + area) or padded <= BLOCK_LIMIT // 16):
                group.append(row)
                useful, shared = useful + area, wider
                continue
        groups.append([row])
        useful, shared = area, row.shared
    return groups


def _block(rows: Sequence[_Row], device: torch.device | str) -> _Block:
    length = max(r.length for r in rows)
    width = max(r.shared for r in rows)
    step = torch.arange(length)
    start = torch.tensor([r.start for r in rows])[:, None]
    lengths = torch.tensor([r.length for r in rows])[:, None]
    own = start + torch.minimum(step[None], lengths - 1)  # [R, Lq]
    if width == 0 and bool((lengths == length).all()):
        return _Block(own.flatten().to(device), own.flatten().to(device), None, len(rows))
    counts = torch.tensor([r.shared for r in rows])
    shared = torch.zeros(len(rows), width, dtype=torch.long)
    for i, row in enumerate(rows):
        shared[i, : row.shared] = row.ancestors
    sees_shared = (torch.arange(width)[None] < counts[:, None])[:, None, :].expand(-1, length, -1)  # [R, Lq, A]
    sees_own = (step[:, None] >= step[None, :])[None].expand(len(rows), -1, -1)  # [R, Lq, Lq]
    mask = torch.cat([sees_shared, sees_own], dim=2)[:, None]
    return _Block(
        own.flatten().to(device), torch.cat([shared, own], dim=1).flatten().to(device), mask.to(device), len(rows)
    )
