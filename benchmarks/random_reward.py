"""A reward that knows nothing: a fair coin a rollout. What it "teaches" is the method's own doing."""

from __future__ import annotations

import random

_coin = random.Random(0)


def coin(response: str) -> float:
    """0 or 1 with equal probability, whatever the response."""
    return float(_coin.random() < 0.5)
