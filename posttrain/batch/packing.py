"""From token rows to packed forests.

A `Branch` is one trained sequence (or what follows a shared trunk of it); a `Tree` is a trunk with its branches, the
unit that is never divided; `pack` puts trees into one `Batch`. Whatever tokens the rows have in common before their
first trained one are held once, across trees too: the system prompt of a whole batch, the prompt of a group. Nothing is
padded here, and nothing is cut: the caller decides on lengths.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from posttrain.batch.types import Batch, Named, Node

MIN_SAVED = 8
"""A shared run of tokens becomes a node where that saves so many tokens; less is not worth a row of attention."""


@dataclass(frozen=True)
class Branch:
    """Tokens of one sequence, which of them are trained, and the weight of each trained one in the loss.

    `token` holds further numbers of the trained tokens, `row` of the whole sequence, by the names that the loss asks
    for in a Batch."""

    token_ids: tuple[int, ...]
    mask: tuple[bool, ...]
    weights: tuple[float, ...]
    token: Mapping[str, Sequence[float]] = field(default_factory=dict)
    row: Mapping[str, float | Sequence[float]] = field(default_factory=dict)
    supports: tuple[tuple[int, ...], ...] | None = None

    def __post_init__(self) -> None:
        if len(self.token_ids) != len(self.mask):
            raise ValueError(f"{len(self.token_ids)} tokens but a mask of {len(self.mask)}")
        trained = sum(self.mask)
        for name, values in (("weights", self.weights), *self.token.items()):
            if len(values) != trained:
                raise ValueError(f"{name} has {len(values)} values for {trained} trained tokens")


@dataclass(frozen=True)
class Tree:
    """`trunk` tokens, none of them trained, shared by the branches that follow."""

    trunk: tuple[int, ...]
    branches: tuple[Branch, ...]

    @property
    def size(self) -> int:
        """Tokens, the trunk's once."""
        return len(self.trunk) + sum(len(b.token_ids) for b in self.branches)

    @property
    def trained(self) -> int:
        return sum(sum(b.mask) for b in self.branches)

    def rows(self) -> list[tuple[tuple[int, ...], int]]:
        """The whole token row of each branch, and how many of its first tokens are not trained."""
        out = []
        for branch in self.branches:
            free = branch.mask.index(True) if True in branch.mask else len(branch.mask)
            out.append((self.trunk + branch.token_ids, len(self.trunk) + free))
        return out


def share_prefix(branches: Sequence[Branch]) -> Tree:
    """The tree whose trunk is the longest common prefix of the branches that none of them trains."""
    if len(branches) == 1:
        return Tree((), (branches[0],))
    limit = min(b.mask.index(True) if True in b.mask else len(b.mask) for b in branches)
    first = branches[0].token_ids
    n = 0
    while n < limit and all(b.token_ids[n] == first[n] for b in branches):
        n += 1
    rest = [replace(b, token_ids=b.token_ids[n:], mask=b.mask[n:]) for b in branches]
    return Tree(first[:n], tuple(rest))


@dataclass(frozen=True)
class Span:
    """A node of a forest before it is packed: tokens [start, stop) of row `row`, after the span `parent` (-1: a root).
    `leaf` marks the one span in which the row ends."""

    parent: int
    row: int
    start: int
    stop: int
    leaf: bool


def radix(rows: Sequence[tuple[tuple[int, ...], int]]) -> list[Span]:
    """The forest of some rows, each given with how many of its first tokens may be shared.

    A run of tokens that several rows have in common becomes a span of its own if that saves at least MIN_SAVED tokens.
    Parents come before children, and the rows' last spans in the order of the rows."""
    shared: list[Span] = []  # parents index this list
    ends: list[tuple[int, int]] = [(-1, 0)] * len(rows)  # of each row: its last shared span, and where that stops
    todo = [(list(range(len(rows))), 0, 0, -1)] if rows else []
    while todo:
        members, start, stop, parent = todo.pop()
        if len(members) == 1:
            ends[members[0]] = (parent, start)
            continue
        stop = _common(rows, members, stop)
        if (stop - start) * (len(members) - 1) >= MIN_SAVED:
            shared.append(Span(parent, members[0], start, stop, False))
            parent, start = len(shared) - 1, stop
        branches: dict[int, list[int]] = {}
        for member in members:
            ids, free = rows[member]
            branches.setdefault(ids[stop] if stop < free else -1 - member, []).append(member)
        todo += [(group, start, stop, parent) for group in branches.values()]
    return _in_order(rows, shared, ends)


def _common(rows: Sequence[tuple[tuple[int, ...], int]], members: Sequence[int], stop: int) -> int:
    """How far the members' shareable tokens agree, knowing that they agree up to `stop`."""
    limit = min(rows[m][1] for m in members)
    first = rows[members[0]][0]
    while stop < limit and all(rows[m][0][stop] == first[stop] for m in members):
        stop += 1
    return stop


def _in_order(
    rows: Sequence[tuple[tuple[int, ...], int]], shared: Sequence[Span], ends: Sequence[tuple[int, int]]
) -> list[Span]:
    """The spans by row: those a row shares where they were not placed before, then its own."""
    out: list[Span] = []
    place: dict[int, int] = {-1: -1}
    for row, (last, stop) in enumerate(ends):
        path = []
        while last not in place:
            path.append(last)
            last = shared[last].parent
        for index in reversed(path):
            place[index] = len(out)
            out.append(replace(shared[index], parent=place[shared[index].parent]))
        out.append(Span(place[ends[row][0]], row, stop, len(rows[row][0]), True))
    return out


def nodes_of(spans: Sequence[Span]) -> tuple[Node, ...]:
    return tuple(Node(span.parent, span.stop - span.start) for span in spans)


def pack(trees: Sequence[Tree]) -> Batch:
    """One row of N tokens: the nodes of the trees' forest one after the other (see `radix`).

    A node's position ids go on from its parent's; its first token's parent is its parent's last token. Trained tokens
    keep the order of the branches."""
    rows = [row for tree in trees for row in tree.rows()]
    branches = [branch for tree in trees for branch in tree.branches]
    own = [len(ids) - len(branch.token_ids) for (ids, _), branch in zip(rows, branches, strict=True)]
    ids: list[int] = []
    positions: list[int] = []
    parents: list[int] = []
    sequences: list[int] = []
    mask: list[bool] = []
    last: list[int] = []  # index of the last token on the path that ends in each span
    spans = radix(rows)
    for span in spans:
        before = last[span.parent] if span.parent >= 0 else -1
        first, n = len(ids), span.stop - span.start
        ids += rows[span.row][0][span.start : span.stop]
        positions += range(span.start, span.stop)
        parents += [before, *range(first, first + n - 1)] if n else []
        sequences += [span.row if span.leaf else -1] * n
        trained = branches[span.row].mask[max(0, span.start - own[span.row]) :] if span.leaf else ()
        mask += [False] * (n - len(trained)) + list(trained)
        last.append(first + n - 1 if n else before)
    return Batch(
        token_ids=torch.tensor(ids, dtype=torch.long),
        position_ids=torch.tensor(positions, dtype=torch.long),
        parent=torch.tensor(parents, dtype=torch.long),
        sequence=torch.tensor(sequences, dtype=torch.long),
        mask=torch.tensor(mask, dtype=torch.bool),
        nodes=nodes_of(spans),
        sequences=len(branches),
        weights=torch.tensor([w for b in branches for w in b.weights], dtype=torch.float32),
        token=_named([b.token for b in branches], lambda parts: [x for values in parts for x in values]),
        row=_named([b.row for b in branches], list),
        supports=_supports(branches),
    )


def micro_batches(trees: Iterable[Tree], max_tokens: int) -> Iterator[list[Tree]]:
    """Trees in order, in lists of about `max_tokens` distinct tokens at most; a larger tree stands alone."""
    current: list[Tree] = []
    size = 0
    for tree in trees:
        more = tree.size - (_shared_with(current[-1], tree) if current else 0)
        if current and size + more > max_tokens:
            yield current
            current, size, more = [], 0, tree.size
        current.append(tree)
        size += more
    if current:
        yield current


def _shared_with(one: Tree, other: Tree) -> int:
    """Tokens that two neighbouring trees hold in common."""
    if not one.branches or not other.branches:
        return 0
    n = _common([one.rows()[0], other.rows()[0]], (0, 1), 0)
    n = min(n, len(other.trunk)) if len(other.branches) > 1 else n
    return n if n >= MIN_SAVED else 0


def _named(carried: Sequence[Mapping[str, Any]], joined: Callable[[list[Any]], list[Any]]) -> Named:
    """What the branches carry, each name as one tensor: all of them or none of them have it."""
    out = Named()
    for name in dict.fromkeys(name for names in carried for name in names):
        if not all(name in names for names in carried):
            raise ValueError(f"only some branches carry {name}")
        out[name] = torch.tensor(joined([names[name] for names in carried]), dtype=torch.float32)
    return out


def _supports(branches: Sequence[Branch]) -> tuple[tuple[int, ...], ...] | None:
    have = [b.supports is not None for b in branches]
    if not any(have):
        return None
    if not all(have):
        raise ValueError("only some branches carry supports")
    return tuple(kept for b in branches for kept in b.supports or ())
