"""Packed forests against trees worked out by hand, and against the paths they were made of."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
import torch

from posttrain.arrays import KeptTokens
from posttrain.batch import packing
from posttrain.batch.packing import Branch, Tree, micro_batches, pack, share_prefix
from posttrain.batch.types import Batch, Node
from posttrain.models.padded import padded_rows


def branch(ids: tuple[int, ...], trained: str, weight: float = 1.0) -> Branch:
    """`trained` has an x for every trained token."""
    mask = tuple(c == "x" for c in trained)
    return Branch(ids, mask, (weight,) * sum(mask))


@pytest.fixture(autouse=True)
def _share_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here every shared token becomes a node; how many a node must save is a matter of speed."""
    monkeypatch.setattr(packing, "MIN_SAVED", 1)


def test_a_prefix_of_prefixes_by_hand() -> None:
    """Two prompts 1 2 3 and 1 2 4 with two answers each: 1 2 is held once, 3 and 4 once each, then the answers."""
    trees = [share_prefix([branch((1, 2, p, 7), "...x"), branch((1, 2, p, 8, 9), "...xx", 0.5)]) for p in (3, 4)]
    batch = pack(trees)
    assert batch.token_ids.tolist() == [1, 2, 3, 7, 8, 9, 4, 7, 8, 9]
    assert batch.position_ids.tolist() == [0, 1, 2, 3, 3, 4, 2, 3, 3, 4]
    assert batch.trained.tolist() == [3, 4, 5, 7, 8, 9]
    assert batch.parent.tolist() == [2, 2, 4, 6, 6, 8]
    assert batch.sequence.tolist() == [0, 1, 1, 2, 3, 3]
    assert batch.nodes == (
        Node(-1, 2),
        Node(0, 1),
        Node(1, 1),
        Node(1, 2),
        Node(0, 1),
        Node(4, 1),
        Node(4, 2),
    )
    assert batch.weights.tolist() == [1.0, 0.5, 0.5, 1.0, 0.5, 0.5]


def test_short_runs_are_not_worth_a_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of four rows, 2 shared tokens save 6; of two of them, 3 more save 3."""
    rows = [branch((1, 2, *middle, 9), "." * (2 + len(middle)) + "x") for middle in ((), (), (3, 4, 5), (3, 4, 5))]
    forests = {}
    for least in (3, 4, 7):
        monkeypatch.setattr(packing, "MIN_SAVED", least)
        forests[least] = len(pack([Tree((), (row,)) for row in rows]).token_ids)
    assert forests == {3: 2 + 1 + 1 + 3 + 1 + 1, 4: 2 + 1 + 1 + 4 + 4, 7: 3 + 3 + 6 + 6}


def test_pack_by_hand() -> None:
    """Tree 1: trunk 5 6, branches 7 8 and 9. Tree 2: no trunk, one row 3 4."""
    batch = pack(
        [
            Tree((5, 6), (branch((7, 8), "xx", 0.5), branch((9,), "x", 0.25))),
            Tree((), (branch((3, 4), ".x", 0.125),)),
        ]
    )
    assert batch.token_ids.tolist() == [5, 6, 7, 8, 9, 3, 4]
    assert batch.position_ids.tolist() == [0, 1, 2, 3, 2, 0, 1]
    assert batch.trained.tolist() == [2, 3, 4, 6]
    assert batch.parent.tolist() == [1, 2, 1, 5]
    assert batch.sequence.tolist() == [0, 0, 1, 2]
    assert batch.weights.tolist() == [0.5, 0.5, 0.25, 0.125]
    assert batch.nodes == (Node(-1, 2), Node(0, 2), Node(0, 1), Node(-1, 2)) and batch.sequences == 3
    assert not batch.token and not batch.row and batch.kept_token_ids is None


def test_names_and_supports_follow_the_mask() -> None:
    """Numbers belong to trained tokens or to rows, branch after branch, across trees."""
    first = Branch(
        (1, 2, 3),
        (False, True, True),
        (1.0, 1.0),
        {"advantages": (0.5, 0.25)},
        {"pair": (1, 2), "p": 0.5},
        {"good": True},
        KeptTokens.of([(2, 7), (3,)]),
    )
    second = Branch(
        (1, 4),
        (False, True),
        (1.0,),
        {"advantages": (-1.0,)},
        {"pair": (3, 4), "p": 1},
        {"good": False},
        KeptTokens.of([(4, 9)]),
    )
    batch = pack([share_prefix([first, second]), Tree((), (second,))])
    assert batch.token_ids[batch.trained].tolist() == [2, 3, 4, 4]
    assert batch.token["advantages"].tolist() == [0.5, 0.25, -1.0, -1.0]
    assert batch.row["pair"].tolist() == [[1, 2], [3, 4], [3, 4]] and batch.row["p"].tolist() == [0.5, 1, 1]
    assert {name: of.tolist() for name, of in batch.index.items()} == {"good": [0], "not good": [1, 2]}
    assert batch.kept_token_ids is not None
    for part, expected in (
        (slice(0, 4), ([0, 0, 1, 2, 2, 3, 3], [2, 7, 3, 4, 9, 4, 9])),
        (slice(1, 3), ([0, 1, 1], [3, 4, 9])),
        (slice(3, 9), ([0, 0], [4, 9])),
    ):
        assert tuple(of.tolist() for of in batch.kept_token_ids[part].indices()) == expected


def test_a_name_that_is_missing_is_told_with_who_gives_it() -> None:
    batch = pack([Tree((), (Branch((1, 2), (False, True), (1.0,), {"label": (1.0,)}),))])
    with pytest.raises(KeyError, match="no 'advantages', which the branches of rl carry; it has: label"):
        batch.token["advantages"]
    with pytest.raises(KeyError, match="no 'mine'; it has: nothing"):
        batch.row["mine"]


def test_a_batch_moves_whole() -> None:
    """`meta` stands for any other device; where all is there already nothing is copied."""
    kept = KeptTokens.of([(2,)])
    row = Branch((1, 2), (False, True), (1.0,), {"label": (1.0,)}, {"margin": 2.0}, {"good": True}, kept)
    batch = pack([Tree((), (row,))])
    assert batch.to(torch.device("cpu")) is batch
    there = batch.to(torch.device("meta"))
    assert len(tensors_of(batch)) == len(tensors_of(there)) == 6 + 1 + 1 + 2 + 2
    assert {tensor.device.type for tensor in tensors_of(there)} == {"meta"}


def tensors_of(value: object) -> list[torch.Tensor]:
    """The tensors that a batch or a part of it holds."""
    if isinstance(value, torch.Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else vars(value).values() if hasattr(value, "__dict__") else ()
    return [tensor for part in parts for tensor in tensors_of(part)]


@pytest.mark.parametrize("where", ["token", "row", "flags", "kept_token_ids"])
def test_what_some_branches_carry_only_is_refused(where: str) -> None:
    kept = KeptTokens.of([(2,)])
    full = Branch((1, 2), (False, True), (1.0,), {"advantages": (1.0,)}, {"margin": 1.0}, {"good": True}, kept)
    bare = replace(full, **{where: None if where == "kept_token_ids" else {}})
    with pytest.raises(ValueError, match="only some branches"):
        pack([Tree((), (full,)), Tree((), (bare,))])


def test_lengths_are_checked() -> None:
    with pytest.raises(ValueError, match="a mask of 1"):
        Branch((1, 2), (True,), (1.0,))
    with pytest.raises(ValueError, match="weights has 2 values for 1"):
        Branch((1, 2), (False, True), (1.0, 1.0))
    with pytest.raises(ValueError, match="advantages has 0 values for 1"):
        Branch((1, 2), (False, True), (1.0,), {"advantages": ()})
    with pytest.raises(ValueError, match="kept tokens of 2 for 1"):
        pack([Tree((), (Branch((1, 2), (False, True), (1.0,), kept_token_ids=KeptTokens.of([(2,), (3,)])),))])


def test_a_trained_root_is_refused() -> None:
    with pytest.raises(ValueError, match="root"):
        pack([Tree((), (branch((1, 2), "xx"),))])


def test_share_prefix_by_hand() -> None:
    """1 2 3 are common, but the second row trains its 3: the trunk is 1 2."""
    tree = share_prefix([branch((1, 2, 3, 4), "...x"), branch((1, 2, 3, 5), "..xx")])
    assert tree.trunk.tolist() == [1, 2]
    assert [b.token_ids.tolist() for b in tree.branches] == [[3, 4], [3, 5]]
    assert [b.mask.tolist() for b in tree.branches] == [[False, True], [True, True]]


def test_share_prefix_of_unlike_rows_and_of_one() -> None:
    assert share_prefix([branch((1, 2), ".x"), branch((3, 2), ".x")]).trunk.tolist() == []
    one = branch((1, 2, 3), "..x")
    assert share_prefix([one]) == Tree((), (one,))


def test_share_prefix_with_an_untrained_row() -> None:
    """A row without any trained token (an answer cut to nothing) ends where the trunk does; a row that is a prefix of
    another limits the trunk."""
    tree = share_prefix([branch((1, 2), ".."), branch((1, 2, 3), "..x")])
    assert tree.trunk.tolist() == [1, 2] and [b.token_ids.tolist() for b in tree.branches] == [[], [3]]
    batch = pack([tree])
    assert batch.trained.tolist() == [2] and batch.parent.tolist() == [1]
    assert batch.sequence.tolist() == [1] and batch.sequences == 2


def test_micro_batches_by_hand() -> None:
    """Sizes 4, 3, 2, 9, 1 at most 7 together: 4+3, 2, 9 alone although too large, 1."""
    trees = [Tree((), (branch(tuple(range(100 * n, 101 * n)), "." * n),)) for n in (4, 3, 2, 9, 1)]
    assert [[t.size for t in part] for part in micro_batches(trees, 7)] == [[4, 3], [2], [9], [1]]
    assert list(micro_batches([], 7)) == []


def random_rows(random: Random) -> list[list[Branch]]:
    """Groups of rows over a small alphabet, so that common prefixes of every length occur."""
    groups = []
    for _ in range(random.randint(1, 4)):
        prompt = [random.randrange(3) for _ in range(random.randint(1, 6))]
        rows = []
        for _ in range(random.randint(1, 4)):
            answer = [random.randrange(3) for _ in range(random.randint(0, 5))]
            mask = [False] * len(prompt) + [random.random() < 0.8 for _ in answer]
            ids = (*prompt, *answer)
            values = tuple(random.random() for _ in range(sum(mask)))
            rows.append(Branch(ids, tuple(mask), values, {"advantages": values}))
        groups.append(rows)
    return groups


def paths(batch: Batch) -> list[list[int]]:
    """The tokens from the root to each token, by the nodes."""
    out: list[list[int]] = []
    ends: list[list[int]] = []  # the path to the last token of each node
    for node in batch.nodes:
        end = ends[node.parent] if node.parent >= 0 else []
        for _ in range(node.length):
            end = [*end, len(out)]
            out.append(end)
        ends.append(end)
    return out


@pytest.mark.parametrize("seed", range(60))
def test_every_path_reproduces_its_row(seed: int) -> None:
    groups = random_rows(Random(seed))
    trees = [share_prefix(rows) for rows in groups]
    batch = pack(trees)
    rows = [row for group in groups for row in group]
    # every trained token: its path is the row's prefix that ends with it, in the order of rows
    expected = [(s, list(r.token_ids[: i + 1])) for s, r in enumerate(rows) for i, m in enumerate(r.mask) if m]
    found = [paths(batch)[t] for t in batch.trained.tolist()]
    ids = batch.token_ids.tolist()
    assert [(s, [ids[t] for t in path]) for s, path in zip(batch.sequence.tolist(), found, strict=True)] == expected
    assert batch.parent.tolist() == [path[-2] for path in found]
    assert batch.position_ids.tolist() == [len(path) - 1 for path in paths(batch)]
    values = torch.tensor([v for r in rows for v in r.weights.tolist()])
    assert batch.weights.tolist() == values.tolist()
    assert batch.token["advantages"].tolist() == values.tolist()
    assert batch.sequences == len(rows)
    for group, tree in zip(groups, trees, strict=True):
        assert [[*tree.trunk, *b.token_ids] for b in tree.branches] == [r.token_ids.tolist() for r in group]
    # the padded form has the same rows, and predicts each trained token one place before it
    padded, places = padded_rows(batch)
    order = {s: i for i, s in enumerate(s for s, r in enumerate(rows) if any(r.mask))}
    assert padded == [list(r.token_ids) for r in rows if any(r.mask)]
    assert places.shape[1] == 2 and places.tolist() == [[order[s], len(p) - 2] for s, p in expected]
