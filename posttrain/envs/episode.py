"""One run of one instance of an environment, inside a worker.

What an episode answers depends on its columns, its seed and what the model said, so the modules `random` and
`numpy.random` are seeded before every call of the environment: other episodes of the process draw from them too.
"""

from __future__ import annotations

import base64
import inspect
import random
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy

from posttrain.envs.tools import BadCall, Schema, cut, read_call, result_text, tool_name
from posttrain.types import InputError
from posttrain.workers.loading import freeze
from posttrain.workers.returns import BadReturn, number

__posttrain_internal__ = True

EnvReply = dict[str, Any]
"""What an environment answers to one request, as JSON."""


def reset_arguments(parameters: Mapping[str, inspect.Parameter], columns: Mapping[str, Any], seed: int) -> EnvReply:
    """What `reset` is called with: the columns it names, or all for `**columns`; `seed` if it names that; None for a
    column that only this row lacks."""
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    offered = {"seed": seed, **columns}
    given = {name: value for name, value in offered.items() if name in parameters or (takes_all and name in columns)}
    return {**dict.fromkeys(required_names(parameters)), **given}


def required_names(parameters: Mapping[str, inspect.Parameter]) -> list[str]:
    """Parameters that must be filled."""
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [name for name, p in parameters.items() if p.kind in named and p.default is p.empty]


class Episode:
    """An instance from `reset` to its reward. `settle` waits for what an async method returned.

    Every method returns a JSON-able answer and raises what the environment raises, and BadReturn. `doing` names the
    call under way."""

    def __init__(self, instance: Any, seed: int, schemas: Sequence[Schema], settle: Callable[[Any], Any]) -> None:
        self._instance = instance
        self._seed = seed
        self._schemas = schemas
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

    def finish(self) -> EnvReply:
        """`{"reward": float | None}`."""
        reward = self._call("get_reward") if hasattr(self._instance, "get_reward") else None
        return {"reward": number(reward, "get_reward()")}

    def state(self, targets: Sequence[str]) -> str | None:
        """The frozen instance in base 64."""
        frozen = freeze(self._instance, targets)
        return None if frozen is None else base64.b64encode(frozen).decode()

    def close(self) -> None:
        """Let the environment free what it holds, if it defines `_close`."""
        if hasattr(self._instance, "_close"):
            self._call("_close")

    def _reply(self, text: str) -> EnvReply:
        if not hasattr(self._instance, "reply"):
            return {"messages": [], "done": True}
        said = _text_or_none(self._call("reply", text), "reply()")
        if said is None:
            return {"messages": [], "done": True}
        return {"messages": [{"role": "user", "content": cut(said)}], "done": self._done()}

    def _use(self, call: Mapping[str, Any]) -> str:
        """The result of one tool call, or what is wrong with it."""
        try:
            name, arguments = read_call(call, self._schemas)
            return result_text(self._call(name, **arguments))
        except BadCall as fault:
            return f"error: {fault}"
        except InputError:
            raise  # the machine's fault and not the model's, such as a sandbox that does not start
        except (Exception, SystemExit) as error:
            text = " ".join(str(error).split())
            return f"error: {type(error).__name__}: {text}" if text else f"error: {type(error).__name__}"

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
