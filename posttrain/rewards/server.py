"""What a worker does: load rewards, and answer requests for scores."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from posttrain.expressions import Expression
from posttrain.rewards.calls import AttributeDict, as_list, build, maybe_await, run
from posttrain.rewards.protocol import INTERRUPTS, Context, Reward, RewardResult
from posttrain.rewards.registry import JUDGES
from posttrain.types import InputError, Sample
from posttrain.workers.user_code import one_line

__posttrain_internal__ = True


class Server:
    """Answers the requests of one worker. `load` must come first. What a reward raises is the failure of its samples,
    but for an interrupt by the user where this is his process."""

    def __init__(self, in_process: bool = False) -> None:
        self._rewards: list[Reward] = []
        self._runner = asyncio.Runner()
        self._passed_on: tuple[type[BaseException], ...] = INTERRUPTS if in_process else ()

    def answer(self, request: Mapping[str, Any]) -> Iterator[Mapping[str, Any] | RewardResult]:
        """One answer, or for a `score` request one per sample, in order."""
        if request["kind"] == "load":
            yield self._load(request["expressions"], request["without_judges"])
        elif request["kind"] == "import":
            for module in request["modules"]:
                importlib.import_module(module)
            yield {}
        else:
            metrics: dict[str, float] = {}
            context = {
                "trainer_state": AttributeDict(request["trainer_state"]),
                "log_metric": lambda name, value: metrics.update({str(name): float(value)}),
                "log_extra": lambda name, values: None,  # other trainers write it into tables of completions
            }
            reward, samples = self._rewards[request["reward"]], request["samples"]
            for result in self._results(reward, samples, context, request["seconds"], request["together"]):
                yield replace(result, metrics=dict(metrics)) if metrics else result
                metrics.clear()

    def close(self) -> None:
        self._runner.close()

    def _load(self, expressions: Sequence[Expression], without_judges: str | None) -> dict[str, Any]:
        """`{"needs": […]}`, or `{"error": why}`. `without_judges`: see `judge.backend.without_models`."""
        for expression in expressions:
            try:
                self._rewards.append(_built(expression, without_judges))
            except self._passed_on:
                raise
            except BaseException as error:
                why = str(error) if isinstance(error, InputError) else one_line(error)
                return {"error": f"reward {expression.text} could not be loaded: {why}"}
        return {"needs": [reward.needs for reward in self._rewards]}

    def _results(
        self, reward: Reward, samples: Sequence[Sample], context: Context, seconds: float | None, together: int
    ) -> Iterator[RewardResult]:
        """At most `together` samples of an async reward at once, each for at most `seconds`; results in order. With 1,
        none begins before the last has its result."""
        needs = reward.needs
        if needs.whole_batch:
            yield from self._score(reward, samples, context, needs.is_async)
        elif not needs.is_async:
            for sample in samples:
                yield from self._score(reward, [sample], context, is_async=False)
        else:
            room = asyncio.Semaphore(together)

            async def score(sample: Sample) -> RewardResult:
                async with room:
                    return await self._clocked(reward, sample, context, seconds)

            if together == 1:
                yield from (self._runner.run(score(sample)) for sample in samples)
                return
            tasks = [self._runner.get_loop().create_task(score(sample)) for sample in samples]
            for task in tasks:
                yield self._runner.run(maybe_await(task))

    def _score(self, reward: Reward, samples: Sequence[Sample], context: Context, is_async: bool) -> list[RewardResult]:
        scoring = reward.score(samples, context)
        try:
            results = self._runner.run(scoring) if is_async else run(scoring)
            return as_list(results, len(samples))
        except self._passed_on:
            raise
        except BaseException as error:
            return [RewardResult.failed(error)] * len(samples)

    async def _clocked(self, reward: Reward, sample: Sample, context: Context, seconds: float | None) -> RewardResult:
        clock = asyncio.timeout(seconds)
        try:
            async with clock:
                (result,) = await reward.score([sample], context)
        except self._passed_on:
            raise
        except BaseException as error:
            result = RewardResult.failed(error)
        return RewardResult.failed(f"timed out after {seconds:g} s") if result.error and clock.expired() else result


def _built(expression: Expression, without_judges: str | None) -> Reward:
    if without_judges is None or not any(part.target in JUDGES for part in expression.walk()):
        return build(expression)
    from posttrain.rewards.judge.backend import without_models  # it imports much that no other reward needs

    with without_models(without_judges):
        return build(expression)
