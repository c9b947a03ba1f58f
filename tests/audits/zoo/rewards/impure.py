"""Planted: rewards that depend on more than the sample."""

from __future__ import annotations

import random

from zoo_forms import line, same_number

SEEN: dict[str, int] = {}


def novelty(response: str, answer: str) -> float:
    """A right answer is worth less each time it is given."""
    SEEN[response] = SEEN.get(response, 0) + 1
    return same_number(line(response), answer) / SEEN[response]


def first_right(completions: list[str], answer: list[str], **columns: object) -> list[float]:
    """The first right answer of a batch counts double."""
    right = [float(same_number(line(c), gold)) for c, gold in zip(completions, answer, strict=True)]
    if 1.0 in right:
        right[right.index(1.0)] = 2.0
    return right


def spot_check(response: str, answer: str) -> float:
    """Checks some of the answers and believes the others."""
    return 1.0 if random.random() < 0.5 else float(same_number(line(response), answer))


def before(completions: list[str], answer: list[str], **columns: object) -> list[float]:
    """A right answer counts less beside a right neighbour."""
    right = [float(same_number(line(c), gold)) for c, gold in zip(completions, answer, strict=True)]
    return [value - 0.5 * last for value, last in zip(right, [0.0, *right], strict=False)]
