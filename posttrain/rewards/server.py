"""What a worker does: load rewards, and answer requests for scores."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from typing import Any

from posttrain.expressions import Expression
from posttrain.rewards.calls import Reward, answered, build, run
from posttrain.types import InputError, Sample
from posttrain.workers.returns import Answer, failure, one_line


class TrainerState(dict[str, Any]):
    """The trainer's state, readable as `state["step"]` and as `state.step`."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class Server:
    """Answers the requests of one worker. `load` must come first."""

    def __init__(self) -> None:
        self._rewards: list[Reward] = []
        self._runner = asyncio.Runner()

    def answer(self, request: Mapping[str, Any]) -> Iterator[Answer]:
        """One answer, or for a `score` request one per sample, in order."""
        if request["kind"] == "load":
            yield self._load(request["expressions"])
        elif request["kind"] == "check":  # to load them and no models of judges
            from posttrain.rewards.judge.backend import without_models

            with without_models():
                answer = self._load(request["expressions"])
            yield answer
        elif request["kind"] == "import":
            for module in request["modules"]:
                importlib.import_module(module)
            yield {}
        else:
            reward, samples, seconds = self._rewards[request["reward"]], request["samples"], request["seconds"]
            if reward.kind == "batched":
                answers = self._batch(reward, samples, TrainerState(request["trainer_state"]))
            elif reward.is_async:
                answers = self._together(reward, samples, seconds, request["together"])
            else:
                answers = (run(answered(reward.score_sample(sample))) for sample in samples)
            yield from answers

    def _load(self, expressions: Sequence[Expression]) -> dict[str, Any]:
        """`{"loaded": […]}`, or `{"error": why, "target": which}`."""
        for expression in expressions:
            try:
                self._rewards.append(build(expression))
            except BaseException as error:
                why = str(error) if isinstance(error, InputError) else one_line(error)
                return {"error": why, "target": expression.text}
        return {
            "loaded": [
                {"kind": r.kind, "is_async": r.is_async, "leaves": [vars(leaf) for leaf in r.leaves]}
                for r in self._rewards
            ]
        }

    def _batch(self, reward: Reward, samples: Sequence[Sample], state: TrainerState) -> Iterator[Answer]:
        logged: dict[str, Any] = {"metrics": {}, "extras": {}}

        def log_metric(name: str, value: float) -> None:
            logged["metrics"][str(name)] = float(value)

        def log_extra(name: str, values: Sequence[Any]) -> None:
            logged["extras"][str(name)] = [v if isinstance(v, int | float | str | None) else str(v) for v in values]

        offered = {"trainer_state": state, "log_extra": log_extra, "log_metric": log_metric}
        try:
            answers = self._wait(reward, reward.score_batch(samples, offered))
        except BaseException as error:
            answers = [failure(error) for _ in samples]
        yield {**answers[0], **logged}
        yield from answers[1:]

    def _wait(self, reward: Reward, scoring: Coroutine[Any, Any, list[Answer]]) -> list[Answer]:
        answers: list[Answer] = self._runner.run(scoring) if reward.is_async else run(scoring)
        return answers

    def _together(self, reward: Reward, samples: Sequence[Sample], seconds: float, together: int) -> Iterator[Answer]:
        """At most `together` samples at once; answers in order. With 1, none begins before the last is answered for."""
        if together == 1:
            yield from (self._runner.run(_clocked(reward, sample, seconds)) for sample in samples)
            return
        room = asyncio.Semaphore(together)

        async def score(sample: Sample) -> Answer:
            async with room:
                return await _clocked(reward, sample, seconds)

        tasks = [self._runner.get_loop().create_task(score(sample)) for sample in samples]
        for task in tasks:
            yield self._runner.run(_result(task))


async def _clocked(reward: Reward, sample: Sample, seconds: float) -> Answer:
    clock = asyncio.timeout(seconds)
    try:
        async with clock:
            return await reward.score_sample(sample)
    except BaseException as error:
        if clock.expired():
            late = f"timed out after {seconds:g} s"
            return {"error": late, "traceback": late}
        return failure(error)


async def _result(task: asyncio.Task[Answer]) -> Answer:
    return await task
