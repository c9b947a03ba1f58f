"""Ways through a grid or along edges that break a rule: they end where the reference does, and are wrong by
construction, also where many ways are right."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from posttrain.audits.answers.variant import Variant
from posttrain.audits.golds import GoldTask

STEPS = {"u": (-1, 0), "n": (-1, 0), "d": (1, 0), "s": (1, 0), "l": (0, -1), "w": (0, -1), "r": (0, 1), "e": (0, 1)}
BLOCKED = r"(?:walls?|obstacles?|blocked|rocks?|trees?|water|impassable)\b"
BETWEEN = re.compile(r"\s*(?:->|→|=>|[,>\n])\s*|\s+-\s+")
WALL = re.compile(
    rf"([#X█*@1])['\"`]? ?(?:is|are|=|:|marks?|means|stands? for|for)? ?(?:an? )?{BLOCKED}|"
    rf"\b{BLOCKED} ?\(?(?:is|are|=|:)? ?(?:marked|shown|written)? ?(?:as|by|with)? ?['\"`]?([#X█*@1])",
    re.IGNORECASE,
)


def broken(task: GoldTask) -> list[Variant]:
    """Of moves such as `UULR` or `up, left` the same in another order through a wall of the grid, or with two in front
    that leave the grid and come back; of nodes such as `A -> B -> C` the two ends, which no edge joins, of a column of
    edges, `["A", "B"]` or with a length, `["A", "B", 7]`."""
    between = BETWEEN.search(task.gold) or re.search(r"\s+", task.gold)
    parts = task.gold.split(between[0]) if between else [task.gold]
    moves = list(task.gold) if re.fullmatch("[UDLRNESW]{2,}", task.gold) else parts
    edges = [{frozenset(map(str, each[:2])) for each in value if isinstance(each, list) and len(each) in (2, 3)}
             for value in task.columns.values() if isinstance(value, list)]  # fmt: skip
    taken = {frozenset(pair) for pair in pairwise(parts)}
    if between and len(parts) > 2 and (known := [each for each in edges if taken <= each]):
        shorter = {"the ends alone": (parts[0], parts[-1]), "from the second node to the end": (*parts[:2], parts[-1])}
        return [
            Variant(f"{kind}, which no edge joins", between[0].join(nodes))
            for kind, nodes in shorter.items()
            if nodes != (*parts,) and frozenset(nodes[-2:]) not in known[0]
        ]
    if (found := WALL.search(task.prompt)) is None or any(each[:1].lower() not in STEPS for each in moves):
        return []
    rows = next(iter(re.findall(r"(?:^\S{3,}$\n?){3,}", task.prompt, re.MULTILINE)), "").split()
    wall, ends = found[1] or found[2], [k for k, c in enumerate("".join(rows)) if "".join(rows).count(c) == 1]
    starts = [divmod(k, len(rows[0])) for k in ends if len({*map(len, rows)}) == 1]
    starts = [at for at in starts if (seen := _cells(rows, at, moves)) and wall not in seen and ends]
    left = [Variant("out of the grid and back", out + task.gold)] if (out := _outside(starts, task.gold)) else []
    down = sorted(moves, key=lambda move: STEPS[move[0].lower()])
    for other in (down, down[::-1], sorted(down, key=lambda move: move[0].lower() in "lrwe")):
        if len(starts) == 1 and wall in _cells(rows, starts[0], other):
            return [*left, Variant("through a wall", (between[0] if between else "").join(other))]
    return left


def _outside(starts: Sequence[tuple[int, int]], gold: str) -> str:
    """Of moves that are letters, two that leave the grid at the start and come back; empty where that is within it."""
    if len(starts) != 1 or not (gold.isalpha() and gold.isupper()):
        return ""
    ways = "NSWE" if {*gold} & {*"NSWE"} else "UDLR"
    return "" if all(starts[0]) else ways[:2] if not starts[0][0] else ways[2:]


def _cells(rows: Sequence[str], at: tuple[int, int], moves: Sequence[str]) -> str:
    """What stands on the cells of a way; nothing of one that leaves the grid."""
    found = ""
    for down, right in (STEPS[move[0].lower()] for move in moves):
        at = at[0] + down, at[1] + right
        if not (0 <= at[0] < len(rows) and 0 <= at[1] < len(rows[0])):
            return ""
        found += rows[at[0]][at[1]]
    return found
