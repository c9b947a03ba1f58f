"""Numbers that code of a user returns, and what is said of code of a user that fails."""

from __future__ import annotations

import importlib
import math
import os
import sysconfig
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
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
    """What is said of an error, with the traceback from where the reward begins. RunFailed stops the run."""
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
