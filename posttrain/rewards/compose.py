"""Rewards made of several: each takes rewards and gives one, in Python and in expressions such as `gate(format, math)`.

The values of all parts are kept beside the whole (`gate/format`, `gate/math`), unweighted. Where a part does not apply
(null), neither does the whole; where one fails, the whole has failed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

from posttrain.rewards.base import Sample
from posttrain.rewards.calls import Function, Reward
from posttrain.rewards.wrapped import Values, Wrapped, wrap
from posttrain.types import InputError

AnyReward = Function | Reward


def weighted_sum(*rewards: AnyReward, weights: Sequence[float] | None = None) -> Wrapped:
    """Σ weight · part; all weights are 1 unless given.

    For sums inside other rewards, and for penalties: `gate(format, weighted_sum(math, repetition))`. At the top, a list
    of rewards with weights is the same and each part has a weight of its own in the log.
    Range as the parts give it, in their unit. Null where a part is; fails where one does, and at the start unless there
    is a weight for each. Source: linear scalarisation."""
    weights = [1.0] * len(rewards) if weights is None else weights
    if len(weights) != len(rewards):
        raise InputError(f"weighted_sum has {len(rewards)} rewards and {len(weights)} weights")
    return wrap("weighted_sum", rewards, partial(_weighted_sum, weights=tuple(weights)))


def _weighted_sum(values: Values, sample: Sample, weights: Sequence[float]) -> float:
    return math.fsum(w * value for w, value in zip(weights, values, strict=True))


def product(*rewards: AnyReward) -> Wrapped:
    """Π part: with parts in [0, 1], all of them are wanted at once.

    Range [0, 1] for parts in [0, 1] (two negative parts would make a positive one: shift or clip them first), no unit.
    Null where a part is; fails where one does. Source: the multiplicative form of "task × format" against "task +
    w · format", which pays for format alone."""
    return wrap("product", rewards, _product)


def _product(values: Values, sample: Sample) -> float:
    return math.prod(values)


def minimum(*rewards: AnyReward) -> Wrapped:
    """min over the parts: no part can make up for another.

    Range as the parts give it, in their unit. Null where a part is; fails where one does. Source: egalitarian
    (max-min) scalarisation."""
    return wrap("minimum", rewards, _minimum)


def _minimum(values: Values, sample: Sample) -> float:
    return min(values)


def gate(condition: AnyReward, reward: AnyReward, *, threshold: float = 1.0) -> Wrapped:
    """The reward where the condition is at least `threshold`, else 0.

    A negative reward becomes 0 behind a closed gate, which is better than it: clip it first if it should not pay.
    Range that of the reward and 0, in its unit. Null where condition or reward is null, whatever the other says; fails
    where one of them does. Source: the format gate of rule-based rewards, as in DeepSeek-R1 (arXiv:2501.12948), made a
    product."""
    return wrap("gate", (condition, reward), partial(_gate, threshold=threshold))


def _gate(values: Values, sample: Sample, threshold: float) -> float:
    condition, value = values
    return value if condition >= threshold else 0.0
