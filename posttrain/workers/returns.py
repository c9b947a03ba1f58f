"""What a reward may return, and what is told of one that failed."""

from __future__ import annotations

import importlib
import math
import os
import sysconfig
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

from posttrain.types import LARGEST_SCORE, InputError, RunFailed

OURS = os.path.dirname(os.path.dirname(__file__)) + os.sep
LIBRARIES = (sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"))
PACKAGES = frozenset(("site-packages", "dist-packages"))
"""The folders of libraries that stand elsewhere, as those of the system beside a virtual environment's."""
IMPORTING = ("<frozen importlib", importlib.__file__)
MACHINERY = tuple(
    os.path.join(os.path.dirname(os.path.dirname(__file__)), *name.split("/")) + ".py"
    for name in (
        *("rewards/calls", "rewards/compose", "rewards/server", "workers/loading", "workers/returns"),
        *("envs/episode", "envs/server", "envs/specs"),
    )
)
"""The files between the loop of a worker and the user's code; their frames help nobody."""

Answer = dict[str, Any]
"""`{"value": float | None, "parts": {...}}` of one sample, with `step_values`, a list of floats, where its steps were
scored, or `{"error": one line, "traceback": text}`, with `stop`, a message, where the run cannot go on."""


class BadReturn(Exception):
    """A reward returned something that is no score."""


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


def as_list(returned: Any, length: int) -> list[Any]:
    if callable(getattr(returned, "tolist", None)):
        returned = returned.tolist()
    if not isinstance(returned, list | tuple):
        raise BadReturn(f"a batched reward returned a {type(returned).__name__}, not a list")
    if len(returned) != length:
        raise BadReturn(f"returned {len(returned)} scores for {length} samples")
    return list(returned)


def failure(error: BaseException) -> dict[str, Any]:
    """One line, and the traceback from where the reward begins: how we came to call it helps nobody.

    RunFailed, such as a spent budget, is more than the failure of a sample: it stops the run."""
    lines = traceback.TracebackException.from_exception(error)
    frames = _frames(error)
    lines.stack = traceback.StackSummary.from_list([] if _refused(error, frames) else frames)
    shown = "".join(lines.format()) if lines.stack else one_line(error)
    stop = {"stop": str(error)} if isinstance(error, RunFailed) else {}
    return {"error": one_line(error), "traceback": shown, **stop}


def _frames(error: BaseException) -> list[traceback.FrameSummary]:
    """The frames behind the last one of ours, without those of an import at work."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [i for i, frame in enumerate(frames) if frame.filename in MACHINERY]
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
