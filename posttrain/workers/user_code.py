"""Code of the user: its objects by name, instances of its classes as bytes, the numbers that it returns, and what is
said of it where it fails."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import math
import os
import pickle
import sys
import sysconfig
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import posttrain
from posttrain.types import LARGEST_SCORE, InputError, RunFailed

__posttrain_internal__ = True
"""Marks a module whose frames stand between the loop of a worker and the user's code: they are left out of tracebacks,
with all that come before them."""

OURS = os.path.dirname(posttrain.__file__) + os.sep
LIBRARIES = (sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"))
PACKAGES = frozenset(("site-packages", "dist-packages"))
"""The folders of libraries that stand elsewhere, as those of the system beside a virtual environment's."""
IMPORTING = ("<frozen importlib", importlib.__file__)


def load_object(target: str, what: str, wanted: Callable[[Any], bool]) -> Any:
    """The object behind `file.py:name` or `package.module:name`. `what` it should be and which objects are `wanted`
    only word the message that lists those that there are.

    Raises what importing raises, LookupError for a missing name, FileNotFoundError for a missing file."""
    where, _, name = target.rpartition(":")
    if where.endswith(".py"):
        module = _module_of_file(where)
    else:
        if os.getcwd() not in sys.path and "" not in sys.path:
            sys.path.append(os.getcwd())
        module = importlib.import_module(where)
    found = getattr(module, name, None)
    if found is None:
        own = {n: v for n, v in vars(module).items() if getattr(v, "__module__", None) == module.__name__}
        public = sorted(n for n, v in own.items() if wanted(v) and not n.startswith("_"))
        hint = close_match(name, public) or ";"
        raise LookupError(f"{where} has no {what} {name!r}{hint} it has {', '.join(public) or 'none'}")
    return found


def close_match(name: str, known: Sequence[str]) -> str:
    """`; did you mean 'NAME'?`, or nothing where no known name is close."""
    matches = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"; did you mean {matches[0]!r}?" if matches else ""


def freeze(instance: Any, targets: Sequence[str]) -> bytes | None:
    """An instance with the names of the files and modules it needs, for `thaw`; None if it cannot be pickled. One of a
    class that Python has handed over, which is in no file, goes with its class."""
    with suppress(Exception):  # what a class raises from its own __getstate__ is as much an answer as a PicklingError
        return pickle.dumps((tuple(targets), pickle.dumps(instance)))
    if not targets:
        with suppress(Exception):
            import cloudpickle

            return pickle.dumps(((), cloudpickle.dumps(instance)))
    return None


def thaw(state: bytes) -> Any:
    """The instance that was frozen, in a process that may run the user's code. Raises what importing and unpickling
    raise."""
    targets, pickled = pickle.loads(state)
    for target in targets:
        load_object(target, "object", callable)
    return pickle.loads(pickled)


def _module_of_file(where: str) -> ModuleType:
    """The module of a file, made once a process, so that all that is loaded from one file shares its classes."""
    path = os.path.abspath(where)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"there is no file {where}")
    name = "_reward_" + os.path.basename(path)[:-3]
    loaded = sys.modules.get(name)
    if loaded is not None and loaded.__file__ == path:
        return loaded
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # always so for a .py file
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, os.path.dirname(path))  # its neighbours can be imported, as when it is run as a script
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


class BadReturn(Exception):
    """A reward or an environment returned something that is no score."""


@dataclass(frozen=True)
class Failure:
    """Why a sample has no score: in one line, and with the traceback of the user's code. `stops_run` is the message of
    an error after which the run cannot go on, such as a spent budget."""

    reason: str
    traceback: str
    stops_run: str | None = None


def number(value: Any, what: str) -> float | None:
    """A float of at most LARGEST_SCORE in absolute value, or None. Raises BadReturn for anything else."""
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
    if abs(result) > LARGEST_SCORE:
        raise BadReturn(f"{what} is {result:g}, beyond {LARGEST_SCORE:g}")
    return result


def failure(error: BaseException) -> Failure:
    """The message for an error, with the traceback from where the reward begins. RunFailed stops the run."""
    lines = traceback.TracebackException.from_exception(error)
    frames = _frames(error)
    lines.stack = traceback.StackSummary.from_list([] if _refused(error, frames) else frames)
    shown = "".join(lines.format()) if lines.stack else one_line(error)
    return Failure(one_line(error), shown, str(error) if isinstance(error, RunFailed) else None)


def _frames(error: BaseException) -> list[traceback.FrameSummary]:
    """The frames behind the last one of ours, without those of an import at work."""
    frames = traceback.extract_tb(error.__traceback__)
    walked = traceback.walk_tb(error.__traceback__)
    own = [i for i, (frame, _) in enumerate(walked) if "__posttrain_internal__" in frame.f_globals]
    after = frames[own[-1] + 1 :] if own else frames
    return [frame for frame in after if not frame.filename.startswith(IMPORTING)]


def _refused(error: BaseException, frames: Sequence[traceback.FrameSummary]) -> bool:
    """Whether a built-in reward or environment says with this error that it cannot take its input."""
    return isinstance(error, ValueError | InputError) and bool(frames) and frames[-1].filename.startswith(OURS)


def _installed(file: str) -> bool:
    """Whether a file is a library's or ours, and no user's."""
    return file.startswith((*LIBRARIES, OURS)) or not PACKAGES.isdisjoint(file.split(os.sep))


def one_line(error: BaseException) -> str:
    """`ValueError: what happened at file.py:12`, at most about 300 characters; the place is the last one in the code of
    a user, if it was reached: where a built-in reward refuses its input helps nobody."""
    text = " ".join(str(error).split())[:240]
    if isinstance(error, BadReturn):
        return text
    message = f"{type(error).__name__}: {text}" if text else type(error).__name__
    frames = _frames(error)
    own = [frame for frame in frames if not _installed(frame.filename)]
    builtin = any(frame.filename.startswith(OURS) for frame in frames)
    if places := own or ([] if builtin else frames):
        message += f" at {os.path.basename(places[-1].filename)}:{places[-1].lineno}"
    return message
