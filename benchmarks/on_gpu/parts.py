"""A part of the measurement and its sides: each side runs in a process of its own, within a time limit.

A side that fails, runs out of memory or is too slow costs itself alone: its error is kept and the next one runs. What
it has measured until then stays, for it sends figures as it gets them.
"""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

Record = Callable[[Mapping[str, Any]], None]
"""Takes figures of the side that runs; a later value of a name replaces the one before."""
Run = Callable[[Record], None]
ENDED = "__ended__"
STARTING_SECONDS = 5
"""With less time than this left, a side is not started."""


class NeedsCuda(Exception):
    """This can be measured on a card only."""


class NotInstalled(Exception):
    """The peer is not in this environment."""


@dataclass(frozen=True)
class Side:
    """`function` is `module:function` of this package, which takes `options`, the setting, and where its figures go.
    `seconds` is the longest that it may take on a card."""

    name: str
    function: str
    seconds: int
    options: Mapping[str, Any] = field(default_factory=dict)

    def run(self, setting: Any, record: Record) -> None:
        module, _, function = self.function.partition(":")
        getattr(importlib.import_module(f"on_gpu.{module}"), function)(setting, record, **self.options)


@dataclass(frozen=True)
class Part:
    """What is measured in the call `a` or `b`, and the sides that do it in turn. The others are compared with the first
    one, or with that of the part `beside`."""

    name: str
    call: str
    what: str
    sides: tuple[Side, ...]
    beside: str | None = None


@dataclass
class Outcome:
    """How a side ended: `ok`, `failed`, `out of memory`, `too slow`, `needs CUDA`, `not installed`, `no time left`."""

    status: str
    seconds: float = 0.0
    figures: dict[str, Any] = field(default_factory=dict)
    error: str = ""


def run_here(run: Run) -> Outcome:
    """Run a side in this process, without a time limit."""
    start = time.perf_counter()
    outcome = Outcome("ok")
    outcome.status, outcome.error = _guarded(run, lambda figures: outcome.figures.update(plain(figures)))
    outcome.seconds = round(time.perf_counter() - start, 2)
    return outcome


def run_apart(run: Run, seconds: float, log: Path | None = None, start: str = "fork") -> Outcome:
    """Run a side in a child of this process, which is killed after so many seconds. What it prints is added to `log`.
    `start` is how multiprocessing starts it: `fork` costs no imports, and asks that this process has not touched CUDA
    and computed nothing; `spawn` asks nothing."""
    began = time.perf_counter()
    outcome = Outcome("too slow", error=f"stopped after {seconds:.0f} s")
    context: Any = multiprocessing.get_context(start)
    receive, send = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(run, send, log))
    child.start()
    send.close()
    while (left := began + seconds - time.perf_counter()) > 0 and receive.poll(left):
        try:
            message = receive.recv()
        except EOFError:
            child.join(timeout=5)
            outcome.status, outcome.error = "failed", f"the process ended with exit code {child.exitcode}"
            break
        if ENDED in message:
            outcome.status, outcome.error = message[ENDED]
            break
        outcome.figures.update(message)
    child.join(timeout=1 if outcome.status != "too slow" else 0)
    child.kill()
    child.join()
    outcome.seconds = round(time.perf_counter() - began, 2)
    return outcome


def _child(run: Run, send: Connection, log: Path | None) -> None:
    if log is not None:
        with log.open("ab") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
    ended = _guarded(run, lambda figures: send.send(plain(figures)))
    send.send({ENDED: ended})


def plain(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Figures as JSON holds them: a tensor must not leave the process that has the card."""
    return json.loads(json.dumps(dict(figures), default=lambda value: value.item()))


def _guarded(run: Run, record: Record) -> tuple[str, str]:
    """The status and the error of a side that is run to its end."""
    try:
        run(record)
    except NeedsCuda as error:
        return "needs CUDA", str(error)
    except NotInstalled as error:
        return "not installed", str(error)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a peer may end the process; that is no reason to lose the other parts
        status = "out of memory" if "OutOfMemory" in type(error).__name__ or "out of memory" in str(error) else "failed"
        return status, "".join(traceback.format_exception(error, limit=-6))[-3000:].strip()
    return "ok", ""


def several(record: Record, *runs: tuple[str, Run]) -> None:
    """Runs in one process, one after the other, each figure under the name of its run; one that fails leaves the rest.
    Raises NeedsCuda at the end for what needs a card, NotInstalled at once."""
    missing = []
    for name, run in runs:
        status, error = _guarded(run, lambda found, name=name: record({f"{name}: {k}": v for k, v in found.items()}))
        if status == "needs CUDA":
            missing.append(f"{name}: {error}")
        elif status == "not installed":
            raise NotInstalled(error)
        elif status != "ok":
            record({f"{name}: {status}": error[-500:]})
    if missing:
        raise NeedsCuda("; ".join(missing))
