"""What a worker of environments does: make instances, and answer for the episodes that live in it.

What an episode answers depends on its columns, its seed and what the model said, so the modules `random` and
`numpy.random` are seeded before every call of the environment: other episodes of the process draw from them too.
"""

from __future__ import annotations

import asyncio
import base64
import inspect
import random
import signal
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy

from posttrain.envs.specs import Factory, factory, files_of
from posttrain.envs.tools import BadCall, Schema, cut, read_call, result_text, schemas_of, tool_name
from posttrain.expressions import Expression
from posttrain.rewards.calls import maybe_await
from posttrain.types import InputError
from posttrain.workers.user_code import BadReturn, freeze, number, one_line

__posttrain_internal__ = True

CLOSE_SECONDS = 1.0
"""What an environment may take to free what it holds."""
EnvReply = dict[str, Any]
"""What an environment answers to one request, as JSON."""


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
        else:
            for key, *arguments in request["items"]:
                yield self._timed(key, request["kind"], arguments, request["seconds"])

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

    def _timed(self, key: int, verb: str, arguments: Sequence[Any], seconds: float) -> EnvReply:
        if verb == "reset":
            self._free(key)
        try:
            with clock(seconds):
                if verb == "reset":
                    # A new instance for each episode: nothing that one leaves behind can reach another.
                    *arguments, seed = arguments
                    self._episodes[key] = Episode(self._factory(), seed, self._schemas, self._settle, self._targets)
                answer: EnvReply = getattr(self._episodes[key], verb)(*arguments)
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
        if (episode := self._episodes.pop(key, None)) is not None:
            with suppress(BaseException), clock(CLOSE_SECONDS):  # its answer is given; nobody is helped by this failure
                episode.close()

    def _settle(self, result: Any) -> Any:
        """What a method returned, or what that comes to. A task that is cut off does not go on in the next wait."""
        if not inspect.isawaitable(result):
            return result
        task = self._runner.get_loop().create_task(maybe_await(result))
        try:
            return self._runner.run(maybe_await(task))
        except Overdue:
            task.cancel()
            raise


class Episode:
    """An instance from `reset` to its reward. `settle` waits for what an async method returned, `targets` are the files
    and modules that its state needs.

    Every method returns a JSON-able answer and raises what the environment raises, and BadReturn. `doing` names the
    call under way."""

    def __init__(
        self,
        instance: Any,
        seed: int,
        schemas: Sequence[Schema],
        settle: Callable[[Any], Any],
        targets: Sequence[str] = (),
    ) -> None:
        self._instance, self._seed, self._schemas, self._targets = instance, seed, schemas, targets
        self._settle = settle
        self._calls = 0
        self.doing = ""

    def reset(self, columns: Mapping[str, Any]) -> EnvReply:
        """`{"observation": str | None}`."""
        parameters = inspect.signature(self._instance.reset).parameters
        arguments = reset_arguments(parameters, columns, self._seed)
        return {"observation": _text_or_none(self._call("reset", **arguments), "reset()")}

    def act(self, message: Mapping[str, Any]) -> EnvReply:
        """`{"messages": [...], "done": bool}`: the results of tool calls, or the next turn of the user."""
        calls = message.get("tool_calls") or ()
        if not calls:
            return self._reply(message["content"])
        messages = []
        for call in calls:
            content = "error: the episode is over" if self._done() else self._use(call)
            about = {"tool_call_id": call.get("id"), "name": tool_name(call)}
            messages.append({"role": "tool", "content": cut(content), **about})
        return {"messages": messages, "done": self._done()}

    def finish(self, keep_state: bool = False) -> EnvReply:
        """`{"reward": float | None, "state": str | None}`, the state as the frozen instance in base 64."""
        earned = self._call("get_reward") if hasattr(self._instance, "get_reward") else None
        reward = number(earned, "get_reward()")
        frozen = freeze(self._instance, self._targets) if keep_state else None
        return {"reward": reward, "state": None if frozen is None else base64.b64encode(frozen).decode()}

    def close(self) -> None:
        """Let the environment free what it holds, if it defines `_close`."""
        if hasattr(self._instance, "_close"):
            self._call("_close")

    def _reply(self, text: str) -> EnvReply:
        said = _text_or_none(self._call("reply", text) if hasattr(self._instance, "reply") else None, "reply()")
        if said is None:
            return {"messages": [], "done": True}
        return {"messages": [{"role": "user", "content": cut(said)}], "done": self._done()}

    def _use(self, call: Mapping[str, Any]) -> str:
        try:
            name, arguments = read_call(call, self._schemas)
            return result_text(self._call(name, **arguments))
        except BadCall as fault:
            return f"error: {fault}"
        except InputError:
            raise  # the machine's fault and not the model's, such as a sandbox that does not start
        except (Exception, SystemExit) as error:
            return ": ".join(filter(None, ("error", type(error).__name__, " ".join(str(error).split()))))

    def _call(self, method: str, *args: Any, **arguments: Any) -> Any:
        self.doing = f"{method}()"
        self._calls += 1
        mixed = zlib.crc32(f"{self._seed}/{self._calls}".encode())
        random.seed(mixed)
        numpy.random.seed(mixed)
        return self._settle(getattr(self._instance, method)(*args, **arguments))

    def _done(self) -> bool:
        done = getattr(self._instance, "done", False)
        return not callable(done) and bool(done)


def _text_or_none(value: Any, what: str) -> str | None:
    if not isinstance(value, str | None):
        raise BadReturn(f"{what} returned a {type(value).__name__}, not text or None")
    return value


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

    def strike(*_: object) -> None:
        raise Overdue

    signal.signal(signal.SIGALRM, strike)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def reset_arguments(parameters: Mapping[str, inspect.Parameter], columns: Mapping[str, Any], seed: int) -> EnvReply:
    """What `reset` is called with: the columns it names, or all for `**columns`; `seed` if it names that; None for a
    column that only this row lacks."""
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    offered = {"seed": seed, **columns}
    given = {name: value for name, value in offered.items() if name in parameters or (takes_all and name in columns)}
    return {**dict.fromkeys(required_names(parameters)), **given}


def required_names(parameters: Mapping[str, inspect.Parameter]) -> list[str]:
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [name for name, p in parameters.items() if p.kind in named and p.default is p.empty]
