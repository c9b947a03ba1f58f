"""Small statistics that several parts share; no dependency."""

from __future__ import annotations

import math

FEW_TASKS = 10
"""Below this many values that are not all 0 or 1 a mean gets no interval. At 9 values the percentile bootstrap
holds the truth 83 to 92% of the time and Student's t 87 to 95%, at 2 values 36 to 81% and 48 to 91%, by what the values
are like (`tests/stress/test_coverage.py`)."""


def wilson(successes: float, n: float, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927, JASA 22), as shares in [0, 1].

    With p = successes/n: (p + z²/2n ± z·√(p(1−p)/n + z²/4n²)) / (1 + z²/n). The default z = 1.959964 covers 95%.
    Successes may be a sum of shares in [0, 1], for which the interval is wider than it need be.
    Without observations (n = 0) nothing is known: (0, 1). Raises ValueError unless 0 ≤ successes ≤ n."""
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}")
    if n == 0:
        return 0.0, 1.0
    p, z2n = successes / n, z * z / n
    centre = p + z2n / 2
    half = z * math.sqrt(p * (1 - p) / n + z2n / (4 * n))
    low, high = (centre - half) / (1 + z2n), (centre + half) / (1 + z2n)
    # At the ends the exact bound is 0 or 1, which rounding can miss by an ulp.
    return (0.0 if successes == 0 else low), (1.0 if successes == n else high)
