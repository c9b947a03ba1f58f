"""What an audit of a reward leaves for later runs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Thresholds:
    """What an audit measured of a reward and monitors need: None where it did not measure it."""

    a7_upper: float | None = None
    """Upper 95% bound of the share of answers to other tasks that the reward pays (probe A7)."""
    correct: float | None = None
    """C: the best mean reward over renderings of the reference answer."""
    empty: float | None = None
    """F: the mean reward of the empty answer."""
    best_distance: float | None = None
    """d*: the distance √KL from the start at which the true reward is highest, nats^½."""
