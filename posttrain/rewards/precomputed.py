"""Rewards whose values workers are given: a model computes them in the process that holds it, once for all workers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from posttrain.rewards.registry import MODEL_SCORES, Signature
from posttrain.types import Sample
from posttrain.workers.returns import Answer, BadReturn, failure


class ModelReward(Protocol):
    """A reward with a model of its own."""

    def answers(self, samples: Sequence[Sample]) -> list[Answer]:
        """An answer for each sample, failures among them."""
        ...


@dataclass(frozen=True)
class Given:
    """The worker's side of a model's reward, see `calls.Reward`: the answer that came with the sample under `text`."""

    name: str
    text: str

    kind = "sample"
    is_async = False

    @property
    def leaves(self) -> tuple[Signature, ...]:
        return (Signature(self.name, self.kind, (MODEL_SCORES,), (), takes_all=False),)

    async def score_sample(self, sample: Sample) -> Answer:
        """Raises BadReturn where the model could not score it."""
        answer = sample.given[self.text]
        if "error" in answer:
            raise BadReturn(answer["error"])
        return dict(answer)

    async def score_batch(self, samples: Sequence[Sample], offered: Mapping[str, Any]) -> list[Answer]:
        out = []
        for sample in samples:
            try:
                out.append(await self.score_sample(sample))
            except BadReturn as error:
                out.append(failure(error))
        return out
