"""What a worker of environments does: make instances, and answer for the episodes that live in it."""

from __future__ import annotations

import asyncio
import inspect
import signal
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from types import FrameType
from typing import Any

from posttrain.envs.episode import EnvReply, Episode, required_names
from posttrain.envs.specs import Factory, factory, files_of
from posttrain.envs.tools import Schema, schemas_of
from posttrain.expressions import Expression
from posttrain.types import InputError
from posttrain.workers.returns import one_line

__posttrain_internal__ = True

CLOSE_SECONDS = 1.0
"""What an environment may take to free what it holds."""


class Overdue(BaseException):
    """The time is up. Not an Exception, so that no environment takes it for an error that it waits for."""


class EnvServer:
    """Answers the requests of one worker. `load` must come first.

    Calls have a clock in here: whatever Python code can be interrupted costs only its own episode. The parent, which
    kills the process with all of its episodes, waits a little longer."""

    def __init__(self) -> None:
        self._factory: Factory
        self._targets: Sequence[str] = ()
        self._schemas: Sequence[Schema] = ()
        self._episodes: dict[int, Episode] = {}
        self._runner = asyncio.Runner()

    def answer(self, request: Mapping[str, Any]) -> Iterator[EnvReply]:
        """One answer, or for `reset`, `act` and `finish` one for each item, in order; `{"lost": reason}` where the
        environment fails."""
        if request["kind"] == "load":
            yield self._load(request["expression"])
            return
        seconds = request["seconds"]
        verbs: Mapping[str, Callable[..., EnvReply]] = {"reset": self._reset, "act": self._act, "finish": self._finish}
        for key, *arguments in request["items"]:
            if request["kind"] == "reset":
                self._free(key)
            yield self._timed(key, seconds, partial(verbs[request["kind"]], key, *arguments))

    def _load(self, expression: Expression) -> EnvReply:
        """What an instance is like, or `{"error": why}`."""
        try:
            self._factory = factory(expression)
            instance = self._factory()
            described = describe(instance)
            self._targets = files_of(expression)
            self._schemas = schemas_of(instance)
            Episode(instance, 0, (), self._settle).close()
        except BaseException as error:
            why = str(error) if isinstance(error, InputError) else one_line(error)
            return {"error": f"environment {expression.text} cannot be used: {why}"}
        return {**described, "schemas": self._schemas}

    def _reset(self, key: int, columns: Mapping[str, Any], seed: int) -> EnvReply:
        # A new instance for each episode: nothing that one leaves behind can reach another.
        episode = self._episodes[key] = Episode(self._factory(), seed, self._schemas, self._settle)
        return episode.reset(columns)

    def _act(self, key: int, message: Mapping[str, Any]) -> EnvReply:
        return self._episodes[key].act(message)

    def _finish(self, key: int, keep_state: bool) -> EnvReply:
        episode = self._episodes[key]
        answer = episode.finish()
        return {**answer, "state": episode.state(self._targets) if keep_state else None}

    def _timed(self, key: int, seconds: float, work: Callable[[], EnvReply]) -> EnvReply:
        try:
            with clock(seconds):
                answer = work()
        except Overdue:
            answer = {"lost": f"timed out after {seconds:g} s"}
        except BaseException as error:
            answer = {"lost": one_line(error)}
        if "lost" in answer and key in self._episodes:
            answer["lost"] = f"{self._episodes[key].doing}: {answer['lost']}"
        if "lost" in answer or "reward" in answer:
            self._free(key)
        return answer

    def _free(self, key: int) -> None:
        episode = self._episodes.pop(key, None)
        if episode is not None:
            with suppress(BaseException), clock(CLOSE_SECONDS):  # its answer is given; nobody is helped by this failure
                episode.close()

    def _settle(self, result: Any) -> Any:
        """What a method returned, or what that comes to. A task that is cut off does not go on in the next wait."""
        if not inspect.isawaitable(result):
            return result
        task = self._runner.get_loop().create_task(_wait_for(result))
        try:
            return self._runner.run(_wait_for(task))
        except Overdue:
            task.cancel()
            raise


def describe(instance: Any) -> EnvReply:
    """The class of an instance, what its `reset` must be given, and whether it has a reward of its own.

    Raises InputError for what is no environment."""
    name = type(instance).__name__
    reset = getattr(instance, "reset", None)
    if not callable(reset):
        raise InputError(f"{name} is no environment: it has no method reset(**columns)")
    parameters = inspect.signature(reset).parameters
    if positional := [p.name for p in parameters.values() if p.kind is p.POSITIONAL_ONLY]:
        raise InputError(f"parameter {positional[0]!r} of {name}.reset is positional-only; columns are given by name")
    has_reward = callable(getattr(instance, "get_reward", None))
    return {"name": name, "required": required_names(parameters), "has_reward": has_reward}


@contextmanager
def clock(seconds: float) -> Iterator[None]:
    """Raise Overdue in here after so many seconds, wherever Python code can be interrupted."""

    def strike(number: int, frame: FrameType | None) -> None:
        raise Overdue

    signal.signal(signal.SIGALRM, strike)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


async def _wait_for(awaitable: Awaitable[Any]) -> Any:
    return await awaitable
