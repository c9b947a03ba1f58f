"""Rank correlation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def spearman(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Spearman's rank correlation, tied values having the mean of their ranks; None where one of both is constant."""
    if min(a, default=0) == max(a, default=0) or min(b) == max(b):
        return None
    x, y = _centred_ranks(a), _centred_ranks(b)
    return float(x @ y / np.sqrt((x @ x) * (y @ y)))


def _centred_ranks(values: Sequence[float]) -> NDArray[np.float64]:
    _, place, counts = np.unique(np.asarray(values, dtype=float), return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2  # of the distinct values, from 1
    return np.asarray(ranks[place] - (len(values) + 1) / 2)
