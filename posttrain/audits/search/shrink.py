"""Delta debugging: the shortest part of a sequence that still does something."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

Item = TypeVar("Item")


def ddmin(items: Sequence[Item], holds: Callable[[Sequence[Item]], bool]) -> list[Item]:
    """A shortest subsequence in the sense that no single item can be left out (1-minimal), found by Zeller's and
    Hildebrandt's ddmin (IEEE TSE 28, 2002, figure 1): n parts are tried alone, then what is left without each; if one
    holds it is divided on, else n doubles. `holds(items)` must be true. At most |items|² + 3|items| tests, and about
    2 log₂|items| where one item matters."""
    kept, parts = list(items), 2
    if kept and holds([]):
        return []
    while len(kept) >= 2:
        size = -(-len(kept) // parts)
        pieces = [kept[start : start + size] for start in range(0, len(kept), size)]
        alone = next((piece for piece in pieces if len(piece) < len(kept) and holds(piece)), None)
        if alone is not None:
            kept, parts = alone, 2
            continue
        for k in range(len(pieces)):
            rest = [item for j, piece in enumerate(pieces) if j != k for item in piece]
            if len(pieces) > 2 and holds(rest):
                kept, parts = rest, max(parts - 1, 2)
                break
        else:
            if parts >= len(kept):
                break
            parts = min(len(kept), 2 * parts)
    return kept
