"""Environments of `verifiers` 0.4, which call the model, turned around: here the environment is called.

`Env.run(task, agents)` asks its agent for turns. It runs as a coroutine of its own, and its agent is one of ours: a
question of it is what we answer to the model, and what the model answers then is the agent's turn.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import cache
from types import SimpleNamespace
from typing import Any

from posttrain.envs.adapters import Verifiers
from posttrain.rewards.libraries.adapters import NoRuntime, check_task, make_task, make_trace, say

OVER = object()
"""Said where the environment has ended."""


@cache
def loaded(load: Callable[[], Any]) -> Any:
    return load()


def verifiers(load: Callable[[], Any]) -> Any:
    """The environment that `load` returns, as one of ours: of verifiers 0.4, else of the versions before it.

    It is loaded once a process. Raises TypeError for what is more than text, see `VerifiersEnv` and `Verifiers`."""
    env = loaded(load)
    return VerifiersEnv(env) if hasattr(env, "run_episode") else Verifiers(env)


class VerifiersEnv:
    """A `verifiers` environment of one agent and text: an `Env`, as `load_environment` returns it.

    Its tasks are not loaded: each is made of the columns of a row that the class of its data has fields for. Rewards,
    metrics, `setup`, `finalize` and the `@stop` of a trace are the environment's; an error in one of them fails the
    rollout. Reward: Σ weight · reward of the trace, None where nothing was recorded. Raises TypeError for what is more
    than text: several agents, tools, containers, interceptors, shared resources. Source: `Env`, `Interaction`, `Task`
    of verifiers 0.4."""

    def __init__(self, env: Any) -> None:
        self._env = env
        self._name, self._agent = check_env(env)
        self._said: asyncio.Queue[Any] = asyncio.Queue()
        self._answers: asyncio.Queue[str | None] = asyncio.Queue()
        self._playing: asyncio.Task[None] | None = None
        self._traces: list[Any] = []
        self.done = False

    async def reset(self, **columns: Any) -> str | None:
        self._playing = asyncio.create_task(self._play(make_task(self._env.taskset, columns)))
        first = await self._next()
        if self.done:
            raise RuntimeError(f"{type(self._env).__name__} ended before the first answer")
        return first

    async def reply(self, text: str) -> str | None:
        self._answers.put_nowait(text)
        return await self._next()

    async def get_reward(self) -> float | None:
        """The weighted sum of the rewards, after the environment has ended or been told that the conversation has."""
        assert self._playing is not None
        self._answers.put_nowait(None)
        await self._playing
        recorded = [one for trace in self._traces for one in trace.rewards.values() if one is not None]
        return float(sum(one.value for one in recorded)) if recorded else None

    async def _close(self) -> None:
        if self._playing is not None:
            self._playing.cancel()
            await asyncio.gather(self._playing, return_exceptions=True)

    async def _next(self) -> str | None:
        said = await self._said.get()
        if said is OVER:
            assert self._playing is not None
            await self._playing  # raises what the environment has raised
            self.done = True
            return None
        return said

    async def _play(self, task: Any) -> None:
        from verifiers.v1 import EnvInfo, Episode

        agents = SimpleNamespace(**{self._name: Agent(self)})
        try:
            await self._env.setup(agents)
            await self._env.run(task, agents)
            if not self._traces:
                raise RuntimeError(f"{type(self._env).__name__}.run() asked nobody")
            about = EnvInfo(id=self._env.config.env_id)
            episode = Episode(env=about, task=make_trace(task).task, traces=self._traces, ok=True)
            self._traces = episode.traces
            await self._env.finalize(task, episode)
        finally:
            self._said.put_nowait(OVER)

    async def _ask(self, text: str | None) -> str | None:
        """The model's answer to a message; None once the conversation has ended."""
        self._said.put_nowait(text)
        return await self._answers.get()

    def _begin(self, task: Any) -> Any:
        if self._traces:
            name = type(self._env).__name__
            raise TypeError(f"{name} holds several conversations an episode; only one can be adapted")
        trace = make_trace(task, self._agent)
        trace.agent.name = self._name
        self._traces.append(trace)
        return trace


class Agent:
    """What an environment takes for its agent."""

    def __init__(self, episode: VerifiersEnv) -> None:
        self.trainable = True
        self._episode = episode

    async def run(self, task: Any, **_: Any) -> Any:
        async with self.interaction(task) as talk:
            await talk.turn()
        return talk.trace

    @asynccontextmanager
    async def interaction(self, task: Any, **_: Any) -> AsyncIterator[Talk]:
        from verifiers.v1.utils.decorators import invoke

        trace = self._episode._begin(task)
        given = {"trace": trace, "runtime": NoRuntime()}
        await invoke(task.setup, given)
        yield Talk(task, trace, self._episode._ask)
        trace.stop("user_closed")
        await invoke(task.finalize, given)
        await task.score(trace, given["runtime"])
        trace.ok = True


class Talk:
    """A conversation that the environment holds with the model, as its `Interaction`."""

    def __init__(self, task: Any, trace: Any, ask: Callable[[str | None], Any]) -> None:
        self.trace = trace
        self._task = task
        self._ask = ask
        if task.data.system_prompt:
            say(trace, [{"role": "system", "content": task.data.system_prompt}])
        prompt = task.data.prompt
        say(trace, _turns([{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt or ()))

    async def turn(self, message: Any = None) -> Any:
        """The model's answer to the prompt, or to a message to it; `terminated` where there is none."""
        from verifiers.v1 import Segment

        asked = [{"role": "user", "content": message}] if isinstance(message, str) else _turns(message or ())
        if self.trace.is_completed or await self._stopped():
            return Segment(messages=[], terminated=True)
        answer = await self._ask("\n".join(turn["content"] for turn in asked) if asked else None)
        if answer is None:
            self.trace.stop("max_turns")
            return Segment(messages=[], terminated=True)
        say(self.trace, asked)
        say(self.trace, [{"role": "assistant", "content": answer}], sampled=True)
        return Segment(messages=[self.trace.nodes[-1].message])

    async def _stopped(self) -> bool:
        from verifiers.v1 import Trace
        from verifiers.v1.utils.decorators import invoke

        for stop in self._task.hooks("stop"):
            fired = invoke(stop, {Trace: self.trace})
            if await fired if inspect.isawaitable(fired) else fired:
                self.trace.stop(stop.__name__)
                return True
        return False


def check_env(env: Any) -> tuple[str, Any]:
    """Name and configuration of an environment's one agent. Raises TypeError for an environment of more than text."""
    from verifiers.v1 import Env
    from verifiers.v1.configs.agent import agent_config_fields
    from verifiers.v1.utils.decorators import discover_decorated

    name, taskset = type(env).__name__, env.taskset
    agents = agent_config_fields(env.config)
    if len(agents) != 1:
        raise TypeError(
            f"{name} has {len(agents)} agents ({', '.join(agents)}); only environments of one can be adapted"
        )
    kind = taskset.task_type()
    check_task(kind, taskset.config.task)
    if taskset.toolsets(taskset.config):
        raise TypeError(f"{type(taskset).__name__} has tools; only environments of text can be adapted")
    if type(env).start is not Env.start:
        raise TypeError(f"{name} starts resources of its own (start); only environments without can be adapted")
    if discover_decorated(kind.__new__(kind), "intercept"):
        raise TypeError(f"{kind.__name__} rewrites messages (@intercept), which cannot be run here")
    return next(iter(agents.items()))


def _turns(messages: Sequence[Any]) -> list[dict[str, Any]]:
    """Messages of the library, or in the form of OpenAI, in that form. Raises TypeError for what is no text."""
    turns = [dict(one) if isinstance(one, dict) else one.model_dump(exclude_none=True) for one in messages]
    if any(not isinstance(turn.get("content"), str) for turn in turns):
        raise TypeError("a message is more than text; only environments of text can be adapted")
    return turns
