"""Answers that fool a reward model: one member of an ensemble scores them high and the others do not.

Scores of n answers by K members are arrays [n, K]; an answer that could not be scored has NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")
Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    """What members say of ordinary answers: `mean` and `deviation` [K], by which scores of different members become
    comparable, and the `threshold` that the disagreement over few ordinary answers exceeds."""

    mean: Scores
    deviation: Scores
    threshold: float

    def standard(self, scores: Scores) -> Scores:
        """z-scores [n, K]."""
        return (scores - self.mean) / self.deviation

    def attack_score(self, scores: Scores, accepted: Scores) -> Scores:
        """What a search raises [n]: the disagreement, less what the member in question lacks to the score it gives the
        accepted answer (`accepted`, [n, K] or [1, K]); −∞ where an answer has no scores."""
        value, member = disagreement(self.standard(scores))
        ahead = np.take_along_axis(self.standard(scores) - self.standard(accepted), member[:, None], 1)[:, 0]
        return np.where(np.isnan(scores).any(1), -np.inf, value + np.minimum(0.0, ahead))

    def is_adversarial(self, scores: Scores, accepted: Scores) -> NDArray[np.bool_]:
        """Whether a member ranks an answer above the accepted one and the disagreement is beyond the threshold, [n]."""
        value, member = disagreement(self.standard(scores))
        ahead = np.take_along_axis(self.standard(scores) - self.standard(accepted), member[:, None], 1)[:, 0]
        return (value > self.threshold) & (ahead > 0)


def calibrate(scores: Scores, quantile: float) -> Calibration:
    """From the scores of ordinary answers; the disagreement over `quantile` of them is at most the threshold.
    Raises ValueError for a single member, with which nobody disagrees."""
    if scores.shape[1] < 2:
        raise ValueError("disagreement needs at least two members")
    mean, deviation = scores.mean(0), np.maximum(scores.std(0), 1e-8)
    value, _ = disagreement((scores - mean) / deviation)
    return Calibration(mean, deviation, float(np.quantile(value, quantile)))


def disagreement(z: Scores) -> tuple[Scores, NDArray[np.intp]]:
    """max_i (z_i − mean of the other members) = K/(K−1) · (max z − mean z), and i: R₁ − λ R₂ of Adv-RM (Bukharin et al.
    2025, arXiv:2504.06141) with λ = 1, any member as target, the others as the second model."""
    members = z.shape[1]
    return members / (members - 1) * (z.max(1) - z.mean(1)), z.argmax(1)


def hill_climb(
    starts: Sequence[T],
    edits: Callable[[T], Sequence[T]],
    worth: Callable[[Sequence[Sequence[T]]], Sequence[Scores]],
    steps: int,
) -> list[T]:
    """Hill climbing of all starts side by side: in each step each one moves to the best of its edits, if that is worth
    more. `worth` values the candidates of every start, those of the start i in the place i."""
    states = list(starts)
    values = [float(value[0]) for value in worth([[state] for state in states])] if states else []
    for _ in range(steps):
        tried = [list(edits(state)) for state in states]
        for i, (candidates, value) in enumerate(zip(tried, worth(tried), strict=True)):
            best = int(value.argmax()) if len(value) else -1
            if best >= 0 and value[best] > values[i]:
                states[i], values[i] = candidates[best], float(value[best])
    return states


def text_edits(text: str, words: Sequence[str], tries: int, rng: np.random.Generator) -> list[str]:
    """At most `tries` different texts a small edit away: a word left out, doubled, exchanged, replaced or followed by
    one of `words`, or the second half repeated. Words part at spaces alone: lines stay lines."""
    out = dict.fromkeys(_edited(text.split(" "), words, rng) for _ in range(tries))
    return [edited for edited in out if edited.strip() and edited != text]


def _edited(parts: Sequence[str], words: Sequence[str], rng: np.random.Generator) -> str:
    at = int(rng.integers(max(1, len(parts))))
    before, here, after = list(parts[:at]), list(parts[at : at + 1]), list(parts[at + 1 :])
    other = [str(rng.choice(words))] if len(words) else []
    ways = (
        [*before, *after],
        [*before, *here, *here, *after],
        [*before, *after[:1], *here, *after[1:]],
        [*before, *other, *after],
        [*before, *here, *other, *after],
        [*parts, *parts[len(parts) // 2 :]],
    )
    return " ".join(ways[int(rng.integers(len(ways)))])
