"""Environments of other libraries as ours. Nothing is imported from those libraries: an object is known by what it has.

All are games by turns of text: the model's answer goes in, what the environment says comes back as a turn of the user.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from posttrain.rewards.calls import AttributeDict, maybe_await
from posttrain.rewards.libraries.adapters import rubric_reward

OF_THE_STEP = ("done", "reward", "metadata")
"""Fields of an OpenEnv observation that are no part of what is seen."""


class Steps:
    """The sum of the steps' rewards, None if there was none, and whether the last step was the end."""

    def __init__(self) -> None:
        self._begin()

    def get_reward(self) -> float | None:
        return self._total

    def _begin(self) -> None:
        self._total: float | None = None
        self.done = False

    def _count(self, reward: Any, done: Any) -> None:
        if reward is not None:
            self._total = (self._total or 0.0) + float(reward)
        self.done = bool(done)


class Gymnasium(Steps):
    """An environment with Gymnasium's `reset(seed=..., options=...) -> (observation, info)` and
    `step(action) -> (observation, reward, terminated, truncated, info)`, whose observations and actions are text.

    `make` returns one. The columns named in `options` are passed on as options. Reward: the sum of the steps' rewards;
    None if no step was made. Source: Gymnasium (arXiv:2407.17032)."""

    def __init__(self, make: Callable[[], Any], *, options: Sequence[str] = ()) -> None:
        super().__init__()
        self._env = make()
        self._options = tuple(options)

    def reset(self, seed: int = 0, **columns: Any) -> str:
        self._begin()
        options = {"options": {name: columns[name] for name in self._options}} if self._options else {}
        observation, _ = self._env.reset(seed=seed, **options)
        return shown(observation)

    def reply(self, text: str) -> str:
        observation, reward, terminated, truncated, _ = self._env.step(text.strip())
        self._count(float(reward), terminated or truncated)
        return shown(observation)

    def _close(self) -> None:
        if hasattr(self._env, "close"):
            self._env.close()


class OpenEnv(Steps):
    """A client of an OpenEnv server: `reset(**kwargs)` and `step(action)`, plain or async, which return an object with
    `observation`, `reward` and `done`, and `close()`.

    `connect` returns a client, one for each episode; `action` makes an action of the text of an answer; `show` makes
    text of an observation, else its fields are shown as JSON. `reset` gets the seed and the columns named in `columns`.
    A client that has `sync()` is used through it, because that answers the server's pings between our calls, without
    which the server hangs up after less than a minute of sampling. Reward: the sum of the steps' rewards; None if there
    was none. Source: openenv.core `EnvClient`, `SyncEnvClient`, `StepResult` of OpenEnv 0.10."""

    def __init__(
        self,
        connect: Callable[[], Any],
        action: Callable[[str], Any],
        show: Callable[[Any], str] | None = None,
        *,
        columns: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self._connect, self._action, self._show = connect, action, show or shown
        self._columns = tuple(columns)
        self._client: Any = None

    async def reset(self, seed: int = 0, **columns: Any) -> str:
        await self._close()
        self._begin()
        made = self._connect()
        self._client = made.sync() if hasattr(made, "sync") else await maybe_await(made)
        named = {name: columns[name] for name in self._columns}
        result = await maybe_await(self._client.reset(seed=seed, **named))
        self.done = bool(result.done)
        return self._show(result.observation)

    async def reply(self, text: str) -> str:
        result = await maybe_await(self._client.step(self._action(text)))
        self._count(result.reward, result.done)
        return self._show(result.observation)

    async def _close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await maybe_await(client.close())


class Verifiers:
    """A `verifiers` environment of many turns of text: `setup_state(state)`, `env_response(messages, state)`,
    `is_completed(state)`, and a `rubric` for the reward.

    Its data set is not used: rows come from `--data`, with `prompt`, `answer`, `info` and others as columns. Reward:
    that of `rewards.adapters.rubric_reward`, so that a function of the rubric that raises fails the rollout. Raises
    TypeError for an environment with tools, which this adapter does not call. Source: `MultiTurnEnv` of verifiers 0.1
    to 0.3; later ones are adapted by `verifiers_env`."""

    def __init__(self, env: Any) -> None:
        self._env = env
        if getattr(self._env, "tool_defs", None) or getattr(self._env, "oai_tools", None):
            raise TypeError(f"{type(self._env).__name__} has tools; only environments of text turns can be adapted")
        self._state: Any = {}
        self._said: list[AttributeDict] = []  # the turns after the prompt
        self.done = False

    async def reset(self, **columns: Any) -> None:
        prompt = columns.get("prompt", "")
        turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        fresh = {"answer": "", "info": {}, "task": "", "trajectory": [], "is_completed": False, "is_truncated": False}
        fresh |= {"error": None, "final_env_response": None}
        state = {**fresh, **columns, "prompt": [AttributeDict(turn) for turn in turns]}
        self._said, self.done = [], False
        self._state = await maybe_await(self._env.setup_state(state)) or state

    async def reply(self, text: str) -> str | None:
        """What the environment says to an answer; None where it is complete."""
        state = self._state
        before = [*state["prompt"], *self._said]
        answer = AttributeDict(role="assistant", content=text)
        self._said.append(answer)
        state["completion"] = list(self._said)
        state["trajectory"].append({"prompt": before, "completion": [answer], "reward": None, "is_truncated": False})
        if await maybe_await(self._env.is_completed(state)):
            return None
        response = await maybe_await(self._env.env_response([*before, answer], state))
        self.done = state.get("final_env_response") is not None
        turns = [{"role": "user", "content": response}] if isinstance(response, str) else response
        said = [AttributeDict(turn) for turn in turns]
        self._said += said
        state["completion"] = list(self._said)
        return "\n".join(turn["content"] for turn in said)

    async def get_reward(self) -> float:
        state = {name: value for name, value in self._state.items() if name not in ("prompt", "completion")}
        prompt = self._state["prompt"]
        scored = await rubric_reward(self._env.rubric)(
            prompt="\n".join(turn["content"] for turn in prompt),
            response="\n".join(turn["content"] for turn in self._said if turn["role"] == "assistant"),
            messages=list(self._said),
            prompt_messages=prompt,
            **state,
        )
        return float(scored["score"])


def shown(observation: Any) -> str:
    """An observation as text: a string as it is, else its fields as JSON, else as `str` writes it."""
    if isinstance(observation, str):
        return observation
    if callable(getattr(observation, "model_dump", None)):
        fields = observation.model_dump()
    elif dataclasses.is_dataclass(observation) and not isinstance(observation, type):
        fields = dataclasses.asdict(observation)
    elif isinstance(observation, Mapping):
        fields = dict(observation)
    else:
        return str(observation)
    seen = {name: value for name, value in fields.items() if name not in OF_THE_STEP}
    return json.dumps(seen, ensure_ascii=False, default=str)
