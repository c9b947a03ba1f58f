"""Advantages as pure functions of scores. Shapes: [groups][rollouts of a group], ragged; plain Python floats."""

from __future__ import annotations

import math
from collections.abc import Sequence

ZERO_VARIANCE = 1e-8
"""A group whose population σ is below this carries no signal."""


def group_normalised(scores: Sequence[float]) -> list[float]:
    """GRPO's advantage within one group (DeepSeekMath, arXiv:2402.03300, section 4.1.2): A_i = (r_i − mean r) / σ.

    σ is the population standard deviation and nothing is added to it; a group with σ < 1e-8 gets zeros. Raises
    ValueError for fewer than two scores: a group of one has no baseline."""
    if len(scores) < 2:
        raise ValueError("a group needs at least two scores for a baseline")
    mean = math.fsum(scores) / len(scores)
    sigma = math.sqrt(math.fsum((s - mean) ** 2 for s in scores) / len(scores))
    if sigma < ZERO_VARIANCE or min(scores) == max(scores):  # equal large scores differ from their rounded mean
        return [0.0] * len(scores)
    return [(s - mean) / sigma for s in scores]
