"""From token rows to packed forests: a `Branch` is a trained sequence, or what follows a shared trunk of it; a `Tree`
is a trunk with its branches and never divided; `pack` puts trees into a `Batch`. Tokens that rows have in common before
their first trained one are held once, across trees too. Nothing is padded or cut here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from posttrain.arrays import Bools, Comparable, Floats, Ints, KeptTokens, bools, floats, ints
from posttrain.batch.types import Batch, KeptPlaces, Named, Node

MIN_SAVED = 8
"""A shared run of tokens becomes a node where that saves so many tokens; less is not worth a row of attention."""
NONE = ints([])
NOWHERE = np.zeros(0, np.int64)

Row = tuple[Ints, int]
"""Tokens, and how many of the first ones are not trained and may be shared."""


@dataclass(frozen=True, eq=False)
class Branch(Comparable):
    """Tokens of one sequence, which of them are trained, and the weight of each trained one in the loss.

    `token` holds further numbers of the trained tokens, `row` of the whole sequence, by the names that the loss asks
    for in a Batch; `flags` are what is true or false of the sequence. `kept_token_ids` are those of the trained
    tokens."""

    token_ids: Ints
    mask: Bools
    weights: Floats
    token: Mapping[str, Floats] = field(default_factory=dict)
    row: Mapping[str, float | Sequence[float]] = field(default_factory=dict)
    flags: Mapping[str, bool] = field(default_factory=dict)
    kept_token_ids: KeptTokens | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "token_ids", ints(self.token_ids))
        object.__setattr__(self, "mask", bools(self.mask))
        object.__setattr__(self, "weights", floats(self.weights))
        object.__setattr__(self, "token", {name: floats(values) for name, values in self.token.items()})
        if len(self.token_ids) != len(self.mask):
            raise ValueError(f"{len(self.token_ids)} tokens but a mask of {len(self.mask)}")
        for name, values in (("weights", self.weights), *self.token.items()):
            if len(values) != self.trained:
                raise ValueError(f"{name} has {len(values)} values for {self.trained} trained tokens")

    @staticmethod
    def of(
        token_ids: ArrayLike,
        mask: ArrayLike,
        weight: float,
        token: Mapping[str, ArrayLike] | None = None,
        row: Mapping[str, float | Sequence[float]] | None = None,
        kept_token_ids: KeptTokens | None = None,
    ) -> Branch:
        """A branch whose trained tokens all have one weight."""
        weights = np.full(np.count_nonzero(mask), weight)
        return Branch(ints(token_ids), bools(mask), weights, token or {}, row or {}, kept_token_ids=kept_token_ids)  # type: ignore[arg-type]

    @property
    def trained(self) -> int:
        return int(np.count_nonzero(self.mask))

    @property
    def untrained_prefix(self) -> int:
        """How many tokens come before the first trained one."""
        return int(self.mask.argmax()) if self.mask.any() else len(self.mask)


@dataclass(frozen=True, eq=False)
class Tree(Comparable):
    """`trunk` tokens, none of them trained, shared by the branches that follow."""

    trunk: Ints
    branches: tuple[Branch, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "trunk", ints(self.trunk))

    @property
    def size(self) -> int:
        """Tokens, the trunk's once."""
        return len(self.trunk) + sum(len(b.token_ids) for b in self.branches)

    @property
    def trained(self) -> int:
        return sum(b.trained for b in self.branches)

    def rows(self) -> list[Row]:
        """The whole token row of each branch, and how many of its first tokens are not trained."""
        return [
            (np.concatenate([self.trunk, b.token_ids]), len(self.trunk) + b.untrained_prefix) for b in self.branches
        ]


def share_prefix(branches: Sequence[Branch]) -> Tree:
    """The tree whose trunk is the longest common prefix of the branches that none of them trains."""
    if len(branches) == 1:
        return Tree(NONE, (branches[0],))
    n = _common([(b.token_ids, b.untrained_prefix) for b in branches], range(len(branches)), 0)
    rest = [replace(b, token_ids=b.token_ids[n:], mask=b.mask[n:]) for b in branches]
    return Tree(branches[0].token_ids[:n], tuple(rest))


def response_tree(
    prompt_ids: tuple[int, ...],
    responses: Sequence[tuple[int, ...]],
    weight: float = 1.0,
    row: Mapping[str, float | Sequence[float]] | None = None,
) -> Tree:
    """A prompt with its responses, of each of which the last token is scored, at a `weight`. Each carries `row`."""
    ids = [prompt_ids + response for response in responses]
    return share_prefix([Branch.of(i, (False,) * (len(i) - 1) + (True,), weight, row=row) for i in ids])


@dataclass(frozen=True)
class RowNode:
    """A node as tokens [start, stop) of row `row`, after the node `parent` (-1: a root). In a `leaf` the row ends."""

    parent: int
    row: int
    start: int
    stop: int
    leaf: bool


def prefix_forest(rows: Sequence[Row]) -> list[RowNode]:
    """The forest of some rows, each given with how many of its first tokens may be shared.

    A run of tokens that several rows have in common becomes a node of its own if that saves at least MIN_SAVED tokens.
    Parents come before children, and the rows' last nodes in the order of the rows."""
    shared: list[RowNode] = []  # parents index this list
    ends: list[tuple[int, int]] = [(-1, 0)] * len(rows)  # of each row: its last shared node, and where that stops
    todo = [(list(range(len(rows))), 0, 0, -1)] if rows else []
    while todo:
        members, start, stop, parent = todo.pop()
        if len(members) == 1:
            ends[members[0]] = (parent, start)
            continue
        stop = _common(rows, members, stop)
        if (stop - start) * (len(members) - 1) >= MIN_SAVED:
            shared.append(RowNode(parent, members[0], start, stop, False))
            parent, start = len(shared) - 1, stop
        branches: dict[int, list[int]] = {}
        for member in members:
            ids, untrained_prefix = rows[member]
            branches.setdefault(int(ids[stop]) if stop < untrained_prefix else -1 - member, []).append(member)
        todo += [(group, start, stop, parent) for group in branches.values()]
    return _in_order(rows, shared, ends)


def _common(rows: Sequence[Row], members: Sequence[int], stop: int) -> int:
    """How far the members' shareable tokens agree, knowing that they agree up to `stop`."""
    limit = min(rows[m][1] for m in members)
    first = rows[members[0]][0]
    for member in members[1:]:
        differ = rows[member][0][stop:limit] != first[stop:limit]
        limit = stop + int(differ.argmax()) if differ.any() else limit
    return limit


def _in_order(rows: Sequence[Row], shared: Sequence[RowNode], ends: Sequence[tuple[int, int]]) -> list[RowNode]:
    """The nodes by row: those a row shares where they were not placed before, then its own."""
    out: list[RowNode] = []
    place: dict[int, int] = {-1: -1}
    for row, (last, stop) in enumerate(ends):
        path = []
        while last not in place:
            path.append(last)
            last = shared[last].parent
        for index in reversed(path):
            place[index] = len(out)
            out.append(replace(shared[index], parent=place[shared[index].parent]))
        out.append(RowNode(place[ends[row][0]], row, stop, len(rows[row][0]), True))
    return out


def nodes_of(nodes: Sequence[RowNode]) -> tuple[Node, ...]:
    return tuple(Node(node.parent, node.stop - node.start) for node in nodes)


def pack(trees: Sequence[Tree]) -> Batch:
    """One row of N tokens: the nodes of the trees' forest one after the other (see `prefix_forest`). A node goes on
    from its parent's last token; trained tokens keep the order of the branches."""
    rows = [row for tree in trees for row in tree.rows()]
    branches = [branch for tree in trees for branch in tree.branches]
    masks = [np.concatenate([np.zeros(len(t.trunk), bool), b.mask]) for t in trees for b in t.branches]
    nodes = prefix_forest(rows)
    lengths = np.array([node.stop - node.start for node in nodes], np.int64)
    firsts = np.cumsum(lengths) - lengths
    parent = np.arange(-1, lengths.sum() - 1)
    last: list[int] = []  # index of the last token on the path that ends in each node
    for node, first, n in zip(nodes, firsts.tolist(), lengths.tolist(), strict=True):
        before = last[node.parent] if node.parent >= 0 else -1
        parent[first : first + min(n, 1)] = before
        last.append(first + n - 1 if n else before)
    masked = [masks[node.row][node.start : node.stop] for node in nodes]
    trained = np.flatnonzero(np.concatenate(masked)) if nodes else NOWHERE
    return Batch(
        token_ids=_tensor([rows[node.row][0][node.start : node.stop] for node in nodes], torch.long),
        position_ids=_tensor([np.arange(node.start, node.stop) for node in nodes], torch.long),
        trained=torch.from_numpy(trained),
        parent=torch.from_numpy(parent[trained]),
        sequence=torch.from_numpy(np.repeat(np.arange(len(branches)), [b.trained for b in branches])),
        nodes=nodes_of(nodes),
        sequences=len(branches),
        weights=_tensor([b.weights for b in branches], torch.float32),
        token=_named([b.token for b in branches], np.concatenate),
        row=_named([b.row for b in branches], np.asarray),
        index=_index([b.flags for b in branches]),
        kept_token_ids=_kept(branches),
    )


def _tensor(parts: Sequence[NDArray[Any]], dtype: torch.dtype) -> torch.Tensor:
    return torch.from_numpy(np.concatenate(parts)).to(dtype) if parts else torch.zeros(0, dtype=dtype)


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


def _named(carried: Sequence[Mapping[str, Any]], joined: Callable[[list[Any]], NDArray[Any]]) -> Named:
    """What the branches carry, each name as one tensor."""
    return Named({name: torch.from_numpy(joined(values)).float() for name, values in _carried(carried)})


def _index(flags: Sequence[Mapping[str, bool]]) -> Named:
    """See `Batch.index`."""
    out = Named()
    for name, values in _carried(flags):
        true = bools(values)
        out |= {key: torch.from_numpy(np.flatnonzero(of)) for key, of in ((name, true), (f"not {name}", ~true))}
    return out


def _carried(carried: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, list[Any]]]:
    """Each name with what the branches carry under it: all of them or none of them have it."""
    for name in dict.fromkeys(name for names in carried for name in names):
        if not all(name in names for names in carried):
            raise ValueError(f"only some branches carry {name}")
        yield name, [names[name] for names in carried]


def _kept(branches: Sequence[Branch]) -> KeptPlaces | None:
    kept = [b.kept_token_ids for b in branches if b.kept_token_ids is not None]
    if kept and len(kept) < len(branches):
        raise ValueError("only some branches carry kept_token_ids")
    return KeptPlaces.of(kept) if kept else None
