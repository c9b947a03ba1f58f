"""Rewards of other libraries that are no plain function, as functions in the call convention of `calls`.

Nothing is imported from those libraries: an object is known by what it has.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from posttrain.rewards.libraries.verifiers import taskset_reward
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
    function: Function = found
    return function


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
