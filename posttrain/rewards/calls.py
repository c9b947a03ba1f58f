"""The reward call convention, as carried out inside a worker: find a function, see which kind it is, call it, check
what it returns.

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
import importlib
import importlib.util
import inspect
import math
import os
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from posttrain.rewards.adapters import adapt
from posttrain.rewards.base import Sample
from posttrain.rewards.specs import BATCHED_NAMES, NOT_COLUMNS, Signature
from posttrain.rewards.workers import limit_cpu

Function = Callable[..., Any]
LIBRARIES = (sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"))
IMPORTING = ("<frozen importlib", importlib.__file__)


class BadReturn(Exception):
    """A reward returned something that is no score."""


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
        self._functions: list[Function] = []
        self._signatures: list[Signature] = []
        self._runner = asyncio.Runner()

    def answer(self, request: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """One answer, or for a `score` request one per sample, in order."""
        if request["kind"] == "load":
            yield self._load(request["targets"])
        elif request["kind"] == "import":
            for module in request["modules"]:
                importlib.import_module(module)
            yield {}
        else:
            k, samples, state = request["reward"], request["samples"], TrainerState(request["trainer_state"])
            # Twice the wall-clock limit, so that the parent's clock always strikes first.
            limit_cpu(2 * request["seconds"] + 5)
            if self._signatures[k].kind == "batched":
                yield from self._score_batch(k, samples, state)
            else:
                for sample in samples:
                    limit_cpu(2 * request["seconds"] + 5)
                    yield self._score_sample(k, sample)
            limit_cpu(0)

    def _load(self, targets: Sequence[str]) -> dict[str, Any]:
        """`{"signatures": […]}`, or `{"error": why, "target": which}`."""
        for target in targets:
            try:
                function = load_function(target)
                self._functions.append(function)
                self._signatures.append(signature_of(function))
            except BaseException as error:
                return {"error": one_line(error), "target": target}
        return {"signatures": [vars(signature) for signature in self._signatures]}

    def _call(self, k: int, arguments: Mapping[str, Any]) -> Any:
        result = self._functions[k](**arguments)
        if inspect.isawaitable(result):
            return self._runner.run(_wait_for(result))
        return result

    def _score_sample(self, k: int, sample: Sample) -> dict[str, Any]:
        try:
            returned = self._call(k, sample_arguments(self._signatures[k], sample))
            return checked(returned, text_parts=self._signatures[k].kind == "verl")
        except BaseException as error:
            return failure(error)

    def _score_batch(self, k: int, samples: Sequence[Sample], state: TrainerState) -> Iterator[dict[str, Any]]:
        logged: dict[str, Any] = {"metrics": {}, "extras": {}}

        def log_metric(name: str, value: float) -> None:
            logged["metrics"][str(name)] = float(value)

        def log_extra(name: str, values: Sequence[Any]) -> None:
            logged["extras"][str(name)] = [v if isinstance(v, int | float | str | None) else str(v) for v in values]

        offered = {"trainer_state": state, "log_extra": log_extra, "log_metric": log_metric}
        try:
            returned = self._call(k, batch_arguments(self._signatures[k], samples, offered))
            values = _as_list(returned, len(samples))
        except BaseException as error:
            yield from ({**failure(error), **logged} for _ in samples)
            return
        for value in values:
            try:
                yield {**checked(value), **logged}
            except BadReturn as error:
                yield {**failure(error), **logged}
            logged = {}


def load_function(target: str) -> Function:
    """The function behind `file.py:function` or `package.module:function`.

    Raises what importing raises, LookupError for a missing function, FileNotFoundError for a missing file."""
    where, _, name = target.rpartition(":")
    if where.endswith(".py"):
        path = os.path.abspath(where)
        if not os.path.isfile(path):
            raise FileNotFoundError(f"there is no file {where}")
        module_name = "_reward_" + os.path.basename(path)[:-3]
        spec = importlib.util.spec_from_file_location(module_name, path)
        assert spec is not None and spec.loader is not None  # always so for a .py file
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module
        sys.path.insert(0, os.path.dirname(path))  # its neighbours can be imported, as when it is run as a script
        spec.loader.exec_module(module)
    else:
        if os.getcwd() not in sys.path and "" not in sys.path:
            sys.path.append(os.getcwd())
        module = importlib.import_module(where)
    found = getattr(module, name, None)
    if found is None:
        public = sorted(n for n, v in vars(module).items() if inspect.isfunction(v) and not n.startswith("_"))
        raise LookupError(f"{where} has no function {name!r}; it has {', '.join(public) or 'none'}")
    return adapt(found)


def signature_of(function: Function) -> Signature:
    """Which kind of reward a function is, and what it wants. Raises TypeError for positional-only parameters."""
    kinds = inspect.Parameter
    parameters = inspect.signature(function).parameters.values()
    named = [p for p in parameters if p.kind in (kinds.POSITIONAL_OR_KEYWORD, kinds.KEYWORD_ONLY)]
    if positional := [p.name for p in parameters if p.kind is kinds.POSITIONAL_ONLY]:
        raise TypeError(f"parameter {positional[0]!r} is positional-only; rewards are called by name")
    names = tuple(p.name for p in named)
    takes_all = any(p.kind is kinds.VAR_KEYWORD for p in parameters)
    if {"prompts", "completions"} & set(names) or (takes_all and (not names or BATCHED_NAMES & set(names))):
        kind = "batched"
    else:
        kind = "verl" if "solution_str" in names else "sample"
    required = tuple(p.name for p in named if p.default is kinds.empty)
    return Signature(kind=kind, names=names, required=required, takes_all=takes_all)


def batch_arguments(signature: Signature, samples: Sequence[Sample], offered: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments of a batched reward."""
    columns = sorted({name for sample in samples for name in sample.columns} - NOT_COLUMNS)
    arguments: dict[str, Any] = {name: [None] * len(samples) for name in signature.required}  # absent from all of these
    arguments |= {name: [sample.columns.get(name) for sample in samples] for name in columns}
    arguments |= offered
    arguments |= {
        "prompts": [sample.prompt_argument for sample in samples],
        "completions": [sample.completion_argument for sample in samples],
        "completion_ids": [list(sample.completion_ids) for sample in samples],
    }
    if "environments" in signature.names:
        arguments["environments"] = [None] * len(samples)
    return _accepted(signature, arguments)


def sample_arguments(signature: Signature, sample: Sample) -> dict[str, Any]:
    """Keyword arguments of a per-sample reward of either kind."""
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
            "messages": [message.to_dict() for message in sample.messages],
            "prompt_messages": None if isinstance(sample.prompt, str) else sample.prompt_argument,
            "completion_ids": list(sample.completion_ids),
        }
    missing = dict.fromkeys(signature.required)  # a column that only this row lacks
    return _accepted(signature, {**missing, **{n: v for n, v in columns.items() if n not in NOT_COLUMNS}, **own})


def _accepted(signature: Signature, arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if signature.takes_all or name in signature.names}


def checked(returned: Any, text_parts: bool = False) -> dict[str, Any]:
    """`{"value": float | None, "parts": {…}}` of one returned score. `text_parts`: drop parts that are no numbers.

    Raises BadReturn."""
    if not isinstance(returned, Mapping):
        return {"value": number(returned, "score"), "parts": {}}
    if "score" not in returned:
        raise BadReturn(f"returned a dict without 'score'; it has {', '.join(map(str, returned)) or 'nothing'}")
    parts = {str(name): value for name, value in returned.items() if name != "score"}
    if text_parts:
        parts = {name: value for name, value in parts.items() if isinstance(value, bool | int | float | None)}
    return {
        "value": number(returned["score"], "score"),
        "parts": {name: number(value, f"part {name!r}") for name, value in parts.items()},
    }


def number(value: Any, what: str) -> float | None:
    """A finite float or None. Raises BadReturn for anything else."""
    if value is None:
        return None
    if type(value) not in (bool, int, float) and callable(getattr(value, "item", None)):
        value = value.item()  # a numpy or torch scalar
    if not isinstance(value, bool | int | float):
        raise BadReturn(f"{what} is a {type(value).__name__}, not a number")
    try:
        result = float(value)
    except OverflowError:
        raise BadReturn(f"{what} is too large") from None
    if not math.isfinite(result):
        raise BadReturn(f"{what} is {result}")
    return result


def _as_list(returned: Any, length: int) -> list[Any]:
    if callable(getattr(returned, "tolist", None)):
        returned = returned.tolist()
    if not isinstance(returned, list | tuple):
        raise BadReturn(f"a batched reward returned a {type(returned).__name__}, not a list")
    if len(returned) != length:
        raise BadReturn(f"returned {len(returned)} scores for {length} samples")
    return list(returned)


async def _wait_for(awaitable: Any) -> Any:
    return await awaitable


def failure(error: BaseException) -> dict[str, Any]:
    """One line, and the traceback from where the reward begins: how we came to call it helps nobody."""
    lines = traceback.TracebackException.from_exception(error)
    lines.stack = traceback.StackSummary.from_list(_frames(error))
    shown = "".join(lines.format()) if lines.stack else one_line(error)
    return {"error": one_line(error), "traceback": shown}


def _frames(error: BaseException) -> list[traceback.FrameSummary]:
    """The frames behind the last one of this file, without those of an import at work."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [i for i, frame in enumerate(frames) if frame.filename == __file__]
    after = frames[own[-1] + 1 :] if own else frames
    return [frame for frame in after if not frame.filename.startswith(IMPORTING)]


def one_line(error: BaseException) -> str:
    """`ValueError: what happened at file.py:12`, at most about 300 characters; the place is the last one in the
    reward's own code, if it was reached."""
    text = " ".join(str(error).split())[:240]
    if isinstance(error, BadReturn):
        return text
    message = f"{type(error).__name__}: {text}" if text else type(error).__name__
    frames = _frames(error)
    if places := [frame for frame in frames if not frame.filename.startswith(LIBRARIES)] or frames:
        message += f" at {os.path.basename(places[-1].filename)}:{places[-1].lineno}"
    return message
