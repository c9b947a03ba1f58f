"""The reward call convention: which kind a function is, how it is called, and functions as rewards.

- *batched*: a parameter is named `prompts` or `completions`, or there is `**kwargs` alone or beside another name that
  only these are offered, such as `completion_ids`. Called once with keyword
  arguments `prompts`, `completions`, `completion_ids`, one list per column, and where it accepts them `trainer_state`,
  `log_extra(name, values)`, `log_metric(name, value)` and `environments`; returns a list of float or None, one per
  sample.
- *verl*: a parameter is named `solution_str`. Called per sample with `data_source`, `solution_str`, `ground_truth`,
  `extra_info`.
- *sample*: any other function. Called per sample with what it names among `prompt`, `response` (or `completion`),
  `messages` (the turns after the prompt), `prompt_messages` (null where the prompt is text), `completion_ids` and the
  columns; returns float, None or a dict with `score` and named parts.

All may be `async`. Rubrics and other objects become one of these in `adapters`. bool counts as 0 or 1. Any other type,
NaN, infinity, a wrong length, an exception: a failure of the samples concerned, reported with one line and a traceback.
Never a 0.
"""

from __future__ import annotations

import asyncio
import copy
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from posttrain.expressions import Expression
from posttrain.rewards.libraries.adapters import adapt
from posttrain.rewards.protocol import (
    INTERRUPTS,
    Context,
    Needs,
    PrecomputedReward,
    Reward,
    RewardResult,
    Signature,
    is_reward,
)
from posttrain.rewards.registry import BATCHED_NAMES, BUILTINS, NOT_COLUMNS
from posttrain.types import InputError, Sample
from posttrain.workers.user_code import BadReturn, close_match, load_object, thaw

__posttrain_internal__ = True

T = TypeVar("T")
Function = Callable[..., Any]


@dataclass(frozen=True)
class FunctionReward:
    """A function as a reward; called, it is the function."""

    function: Function
    signature: Signature

    def __call__(self, *args: Any, **arguments: Any) -> Any:
        return self.function(*args, **arguments)

    @property
    def name(self) -> str:
        return self.signature.name

    @property
    def needs(self) -> Needs:
        return Needs((self.signature,), self.signature.kind == "batched", is_async(self.function))

    async def score(self, samples: Sequence[Sample], context: Context) -> list[RewardResult]:
        if self.signature.kind != "batched":
            return [await try_score(partial(self._score_sample, sample)) for sample in samples]
        returned = await maybe_await(self.function(**batch_arguments(self.signature, samples, context)))
        return [await try_score(partial(RewardResult.of, value)) for value in as_list(returned, len(samples))]

    async def _score_sample(self, sample: Sample) -> RewardResult:
        returned = await maybe_await(self.function(**sample_arguments(self.signature, sample)))
        return RewardResult.of(returned, text_parts=self.signature.kind == "verl")


class AttributeDict(dict[str, Any]):
    """A dict whose values can be read as `state["step"]` and as `state.step`, as other libraries hand them out."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


def as_reward(function: Any) -> Reward:
    """A function as a reward; a reward as it is. Raises TypeError for what cannot be called by name."""
    return function if is_reward(function) else FunctionReward(function, signature_of(function))


async def try_score(make: Callable[[], RewardResult | Awaitable[RewardResult]]) -> RewardResult:
    """What `make` returns, or comes to; a failed result for what it raises, but for an interrupt by the user and where
    the time of this task is up."""
    try:
        made = make()
        return await made if isinstance(made, Awaitable) else made
    except INTERRUPTS:
        raise
    except BaseException as error:
        if isinstance(error, asyncio.CancelledError) and (task := asyncio.current_task()) and task.cancelling():
            raise
        return RewardResult.failed(error)


def run(scoring: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that waits for nothing, without the cost of an event loop."""
    try:
        scoring.send(None)
    except StopIteration as stop:
        return stop.value
    scoring.close()
    raise RuntimeError("a reward waits for something and is not async")


async def maybe_await(result: Any) -> Any:
    """What a function returned, or what that comes to. A plain function that returns an awaitable gets a loop."""
    if not inspect.isawaitable(result):
        return result
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(maybe_await(result))
    return await result


def as_list(returned: Any, length: int) -> list[Any]:
    """What a batched function returned. Raises BadReturn unless it is `length` values."""
    if callable(getattr(returned, "tolist", None)):
        returned = returned.tolist()
    if not isinstance(returned, list | tuple):
        raise BadReturn(f"a batched reward returned a {type(returned).__name__}, not a list")
    if len(returned) != length:
        raise BadReturn(f"returned {len(returned)} scores for {length} samples")
    return list(returned)


def build(expression: Expression) -> Reward:
    """The reward that an expression describes.

    Raises what loading raises, and InputError for an option that the function does not have."""
    if expression.models:
        return PrecomputedReward(expression.renamed or expression.target, expression.text)
    builtin = BUILTINS.get(expression.target)
    if expression.function is not None:
        given = expression.function.load()
        function = adapt(given() if isinstance(given, type) else given)
    else:
        target = builtin.target if builtin else expression.target
        function = adapt(load_object(target, "function", inspect.isfunction))
    check_options(expression, function, len(expression.arguments))
    if expression.arguments or (builtin and builtin.makes):
        function = function(*map(build, expression.arguments), **expression.options)
        if not callable(function) and not is_reward(function):
            raise InputError(f"{expression.target}(...) made a {type(function).__name__}, which is no reward")
    elif expression.options:
        function = partial(function, **expression.options)
    return renamed(function, expression.renamed) if expression.renamed else as_reward(function)


def renamed(reward: Function | Reward, name: str) -> Reward:
    """The same reward under another name, so that two of one kind can be told apart."""
    reward = as_reward(reward)
    if isinstance(reward, FunctionReward):
        return replace(reward, signature=replace(reward.signature, name=name))
    return replace(reward, name=name)  # type: ignore[type-var]


def check_options(expression: Expression, function: Function, placed: int) -> None:
    """Raise InputError for an option that the function does not have, whose first `placed` parameters are given by
    place."""
    if expression.options and is_reward(function):
        raise InputError("it is a finished reward and takes no options")
    kinds = inspect.Parameter
    parameters = inspect.signature(function).parameters.values()
    by_place = [p.name for p in parameters if p.kind is kinds.POSITIONAL_OR_KEYWORD][:placed]
    named = [p.name for p in parameters if p.kind in (kinds.POSITIONAL_OR_KEYWORD, kinds.KEYWORD_ONLY)]
    options = [name for name in named if name not in NOT_COLUMNS and name not in by_place]
    takes_all = any(p.kind is kinds.VAR_KEYWORD for p in parameters)
    for name in expression.options:
        if name not in options and (not takes_all or name in NOT_COLUMNS):
            hint = close_match(name, options) or ";"
            raise InputError(f"it has no option {name!r}{hint} it has {', '.join(options) or 'none'}")


def signature_of(function: Function) -> Signature:
    """Which kind of reward a function is, and what it wants. Raises TypeError for positional-only parameters.

    What `functools.partial` has bound by name is not asked for, even where the data has a column of that name."""
    kinds = inspect.Parameter
    parameters = inspect.signature(function).parameters.values()
    bound = function.keywords if isinstance(function, partial) else {}
    named = [p for p in parameters if p.kind in (kinds.POSITIONAL_OR_KEYWORD, kinds.KEYWORD_ONLY)]
    # a switch is set where the reward is named, never by the data: a column must not turn a sandbox off
    switches = [p.name for p in named if p.kind is kinds.KEYWORD_ONLY and isinstance(p.default, bool)]
    named = [p for p in named if p.name not in (*bound, *switches)]
    if positional := [p.name for p in parameters if p.kind is kinds.POSITIONAL_ONLY]:
        raise TypeError(f"parameter {positional[0]!r} is positional-only; rewards are called by name")
    names = tuple(p.name for p in named)
    takes_all = any(p.kind is kinds.VAR_KEYWORD for p in parameters)
    if {"prompts", "completions"} & set(names) or (takes_all and (not names or BATCHED_NAMES & set(names))):
        kind = "batched"
    else:
        kind = "verl" if "solution_str" in names else "sample"
    required = tuple(p.name for p in named if p.default is kinds.empty)
    inner = function.func if isinstance(function, partial) else function
    name = getattr(inner, "__name__", type(inner).__name__)
    return Signature(name=name, kind=kind, names=names, required=required, takes_all=takes_all)


def is_async(function: Function) -> bool:
    """Whether a function, or what a partial or an object calls, is a coroutine function."""
    inner = function.func if isinstance(function, partial) else function
    return inspect.iscoroutinefunction(inner) or inspect.iscoroutinefunction(type(inner).__call__)


def batch_arguments(signature: Signature, samples: Sequence[Sample], context: Context) -> dict[str, Any]:
    columns = sorted({name for sample in samples for name in sample.columns} - NOT_COLUMNS)
    arguments: dict[str, Any] = {name: [None] * len(samples) for name in signature.required}  # absent from all of these
    arguments |= {name: [sample.columns.get(name) for sample in samples] for name in columns}
    arguments |= context
    arguments |= {
        "prompts": [sample.prompt_argument for sample in samples],
        "completions": [sample.completion_argument for sample in samples],
        # unknown in `posttrain score`: None fails, where no tokens would pass for a short response
        "completion_ids": [list(s.completion_ids) if s.completion_ids or not s.text else None for s in samples],
    }
    if "environments" in signature.names and "environments" not in context:
        states = [sample.environment for sample in samples]
        arguments["environments"] = [None if state is None else thaw(state) for state in states]
    return _accepted(signature, arguments)


def sample_arguments(signature: Signature, sample: Sample) -> dict[str, Any]:
    columns = sample.columns
    if signature.kind == "verl":
        nested = columns.get("reward_model")
        truths = [columns.get("ground_truth"), nested.get("ground_truth") if isinstance(nested, Mapping) else None]
        truths += [columns.get("answer"), columns.get("solution")]
        own = {
            "data_source": columns.get("data_source", ""),
            "solution_str": sample.text,
            "ground_truth": next((truth for truth in truths if truth is not None), None),
            "extra_info": columns.get("extra_info", {}),
        }
    else:
        own = {
            "prompt": sample.prompt_text,
            "response": sample.text,
            "completion": sample.text,
            "completion_ids": list(sample.completion_ids),
            "messages": [message.to_dict() for message in sample.messages],
            "prompt_messages": None if isinstance(sample.prompt, str) else sample.prompt_argument,
        }
    missing = dict.fromkeys(signature.required)  # a column that only this row lacks
    copies = {  # rollouts of a group share their columns, and a reward may change what it gets
        name: copy.deepcopy(value) if isinstance(value, list | dict) else value
        for name, value in columns.items()
        if name not in NOT_COLUMNS
    }
    return _accepted(signature, {**missing, **copies, **own})


def _accepted(signature: Signature, arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if signature.takes_all or name in signature.names}
