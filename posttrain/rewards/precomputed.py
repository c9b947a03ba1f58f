"""Rewards whose values come to the workers with the sample: a model computes them in the process that holds it, once
for all workers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from posttrain.rewards.protocol import Context, Needs, RewardResult
from posttrain.types import Sample


@dataclass(frozen=True)
class PrecomputedReward:
    """The worker's side of a model's reward: the result that came with the sample, under the text of its expression."""

    name: str
    expression: str
    needs = Needs(precomputed=True)

    async def score(self, samples: Sequence[Sample], context: Context) -> list[RewardResult]:
        return [sample.precomputed[self.expression] for sample in samples]
