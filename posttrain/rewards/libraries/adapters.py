"""Rewards of other libraries that are no plain function, as functions in the call convention of `calls`.

An object is known by what it has; a library is imported only where the object comes from it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from posttrain.rewards.protocol import is_reward

Function = Callable[..., Any]
Column = Sequence[Any] | None

GROUP_NAMES = frozenset(("states", "prompts", "completions", "answers", "tasks", "infos"))


def adapt(found: Any) -> Function:
    """`found` as a function: a rubric, a taskset, a batched verl function, or what is a reward already.

    Raises TypeError for anything else, and for a rubric whose functions compare the answers of a group."""
    if hasattr(found, "funcs") and hasattr(found, "weights"):
        return rubric_reward(found)
    if hasattr(found, "task_type") and hasattr(found, "load"):
        return taskset_reward(found)
    if inspect.isfunction(found) and "solution_strs" in inspect.signature(found).parameters:
        return verl_batch(found)
    if not callable(found) and not is_reward(found):
        raise TypeError(f"a reward is a function or a rubric, not a {type(found).__name__}")
    return found


def rubric_reward(rubric: Any) -> Function:
    """A `verifiers` rubric (`funcs`, `weights`, `parser`, or a group of `rubrics`) as a per-sample reward.

    score = Σ weight · function over all functions, each a part under its own name. A function is called with what it
    names among `prompt`, `completion` (messages, or texts where the prompt is one), `answer`, `info`, `task`, `state`
    (all of these and the columns), `parser` and other class objects, and the columns. Unlike in `verifiers`, a function
    that raises makes the sample unscored, not 0. Source: `Rubric.score_rollout` of verifiers 0.1 to 0.3."""
    members = list(_members(rubric))
    for function, _, _ in members:
        if names := GROUP_NAMES & set(inspect.signature(function).parameters):
            raise TypeError(f"rubric function {_name(function)!r} compares a group ({', '.join(sorted(names))})")

    async def score(
        prompt: str, response: str, messages: Any, prompt_messages: Any = None, **columns: Any
    ) -> dict[str, float]:
        said = {"prompt": prompt, "completion": response}
        if prompt_messages is not None:
            said = {"prompt": prompt_messages, "completion": messages}
        state = {"answer": "", "info": {}, "task": None, "trajectory": [], **columns, **said}
        parts: dict[str, float] = {}
        total = 0.0
        for function, weight, objects in members:
            value = _call(function, {**state, "state": state, **objects})
            value = float(await value if inspect.isawaitable(value) else value)
            parts[_name(function)] = value
            total += weight * value
        return {**parts, "score": total}

    return score


def taskset_reward(taskset: Any) -> Any:
    """The functions that a `verifiers` taskset's class of tasks marks with `@reward`, as a per-sample reward.

    score = Σ weight · function, each function a part under its name. A task is made of the columns that the class of
    its data has fields for, and its trace of the prompt and the answer. Unlike in `verifiers`, a function that raises
    makes the sample unscored, not 0. Raises TypeError for tasks with tools or a container. Source: `Task.score` of
    verifiers 0.4."""
    check_task(taskset.task_type(), taskset.config.task)

    async def score(
        prompt: str, response: str, messages: Any, prompt_messages: Any = None, **columns: Any
    ) -> dict[str, float]:
        asked = prompt_messages or [{"role": "user", "content": prompt}]
        task = make_task(taskset, {**columns, "prompt": asked})
        trace = make_trace(task)
        say(trace, asked)
        say(trace, messages or [{"role": "assistant", "content": response}], sampled=True)
        await task.score(trace, NoRuntime())
        return {**{name: one.score for name, one in trace.rewards.items()}, "score": trace.reward}

    return score


def verl_batch(function: Function) -> Function:
    """verl's batched convention: `data_sources`, `solution_strs`, `ground_truths`, `extra_infos`, each a list with one
    entry a sample; returns a list of numbers or of dicts with `score`."""

    def score(
        completions: Sequence[Any],
        data_source: Column = None,
        ground_truth: Column = None,
        reward_model: Column = None,
        answer: Column = None,
        solution: Column = None,
        extra_info: Column = None,
    ) -> Any:
        nested = [one.get("ground_truth") if isinstance(one, Mapping) else None for one in reward_model or ()]
        arguments = {
            "data_sources": data_source or [""] * len(completions),
            "solution_strs": [_said(completion) for completion in completions],
            "ground_truths": ground_truth or nested or answer or solution or [None] * len(completions),
            "extra_infos": extra_info or [{} for _ in completions],
        }
        return _call(function, arguments)

    return score


def _said(completion: str | Sequence[Mapping[str, str]]) -> str:
    if isinstance(completion, str):
        return completion
    return "\n".join(message["content"] for message in completion if message["role"] == "assistant")


def _members(rubric: Any) -> Iterator[tuple[Function, float, Mapping[str, Any]]]:
    """Function, weight and class objects of a rubric and of those it is made of."""
    objects = {"parser": getattr(rubric, "parser", None), **getattr(rubric, "class_objects", {})}
    for function, weight in zip(rubric.funcs, rubric.weights, strict=True):
        yield function, float(weight), objects
    for member in getattr(rubric, "rubrics", ()):
        yield from _members(member)


def _call(function: Function, arguments: Mapping[str, Any]) -> Any:
    parameters = inspect.signature(function).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return function(**arguments)
    return function(**{name: value for name, value in arguments.items() if name in parameters})


def _name(function: Function) -> str:
    return str(getattr(function, "__name__", type(function).__name__))


# Tasks of `verifiers` 0.4 outside of that library: made of the columns of a row, scored on a conversation of ours.


class NoRuntime:
    """What a task's functions get for the `runtime` (a machine to run commands on), which there is not."""

    def __getattr__(self, name: str) -> Any:
        raise TypeError(f"the task uses runtime.{name}; only tasks of text, which need no runtime, can be adapted")


def check_task(kind: Any, config: Any) -> None:
    """Raises TypeError for a class of tasks that needs more than text."""
    if kind.NEEDS_CONTAINER:
        raise TypeError(f"{kind.__name__} needs a container; only tasks of text can be adapted")
    if kind.toolsets(config):
        raise TypeError(f"{kind.__name__} has tools; only tasks of text can be adapted")


def make_task(taskset: Any, columns: Mapping[str, Any]) -> Any:
    """A task of the taskset's class whose data are the columns that it has fields for. Raises what the class raises for
    data that do not fit."""
    kind = taskset.task_type()
    fields = kind.data_type()
    return kind(fields(**{name: columns[name] for name in fields.model_fields if name in columns}), taskset.config.task)


def make_trace(task: Any, agent: Any = None) -> Any:
    """An empty trace of the task. `agent` is the configuration of the model that will answer."""
    from verifiers.v1 import AgentConfig, AgentInfo, Trace, TraceTask
    from verifiers.v1.state import state_cls

    about = TraceTask(type=type(task).__name__, data=task.data, key=task.key, hash=task.hash)
    return Trace(task=about, state=state_cls(type(task))(), agent=AgentInfo(config=agent or AgentConfig()))


def say(trace: Any, messages: Iterable[Mapping[str, Any]], sampled: bool = False) -> None:
    """Add messages in the form of OpenAI to a trace; the assistant's are the model's where they are `sampled`."""
    from verifiers.v1 import MessageNode
    from verifiers.v1.dialects import parse_message

    for message in messages:
        parent = len(trace.nodes) - 1 if trace.nodes else None
        theirs = sampled and message["role"] == "assistant"
        trace.nodes.append(MessageNode(parent=parent, message=parse_message(dict(message)), sampled=theirs))
