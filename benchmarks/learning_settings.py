"""What both sides of `learning.py` train with, and the schedule and reward that TRL's side is given.

Plain Python: every side imports it, each in an environment of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

NEW_TOKENS = 8
"""Longest answer: a sign, three digits, the end token, and room for three more."""


@dataclass(frozen=True)
class Settings:
    """Of one training run. `batch` counts rows or completions of a step; `micro_batch` is TRL's, where rows of
    different lengths meet its normalisation. AdamW has β 0.9 and 0.999 and ε 1e-8, the gradient is clipped to norm 1,
    and all is in float32."""

    steps: int
    batch: int
    learning_rate: float
    warmup: int
    schedule: str = "constant"
    weight_decay: float = 0.0
    micro_batch: int = 0
    group_size: int = 1
    seed: int = 0

    def rate(self, step: int) -> float:
        """The learning rate of step `step` (from 1): step/warmup of the peak, then constant, or down to a tenth of it
        at the last step along half a cosine."""
        if step <= self.warmup:
            return self.learning_rate * step / self.warmup
        if self.schedule == "constant":
            return self.learning_rate
        done = min(1.0, (step - self.warmup) / max(1, self.steps - self.warmup))
        return self.learning_rate * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * done)))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


SFT = Settings(24, 8, 4e-5, 4, "cosine", weight_decay=0.1, micro_batch=4)
GRPO = Settings(15, 128, 6e-6, 2, micro_batch=128, group_size=8)


def exact(answer: str, gold: str) -> float:
    """The reward of TRL's side, 1 or 0, close to the built-in `reasoning-gym`, whose package is not in TRL's
    environment and which also takes `07` and `7.` for 7: `learning.py` scores TRL's completions again by it and counts
    differences."""
    return float(answer.strip() == gold)


def group_advantages(rewards: Sequence[float], group_size: int) -> list[float]:
    """(r − mean)/σ in each run of `group_size` rewards, with the population σ and nothing added to it; zeros where it
    is 0."""
    out: list[float] = []
    for i in range(0, len(rewards), group_size):
        group = rewards[i : i + group_size]
        mean = sum(group) / len(group)
        sigma = math.sqrt(sum((r - mean) ** 2 for r in group) / len(group))
        out += [(r - mean) / sigma if sigma > 1e-8 else 0.0 for r in group]
    return out
