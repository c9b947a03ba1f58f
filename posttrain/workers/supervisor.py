"""A process beside each worker, which sees to it that nothing of the worker is left.

Code of a user may hold the interpreter lock for ever and may start processes in sessions of their own, so a worker can
neither watch its parent nor be found by its process group. Its supervisor runs no such code. It adopts whatever the
worker leaves behind (Linux: `PR_SET_CHILD_SUBREAPER`), and the worker ends with it (`PR_SET_PDEATHSIG`, which is about
the thread that forked; the supervisor has one). macOS has neither: what starts a session of its own there outlives the
worker, and a worker whose supervisor is killed ends when its pipe does.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import time
from contextlib import suppress
from pathlib import Path

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
POLL_MILLISECONDS = 1000
SWEEP_SECONDS = 5.0
"""What is not ended after so long cannot be."""


def supervise(lifeline: int, parent_pid: int, others: tuple[int, ...]) -> None:
    """Go on in a child process that leads a session; this one closes `others` and stays as its supervisor.

    When it gets SIGTERM, when the child has ended, or when its own parent has (which the pipe whose read end is
    `lifeline` tells at once), it ends all processes that come from the child, and then itself as the child did."""
    import resource  # Windows has none

    wake, woken = os.pipe()
    for descriptor in (wake, woken):
        os.set_blocking(descriptor, False)
    told: list[int] = []
    handlers = [
        (number, signal.signal(number, lambda got, _: told.append(got))) for number in (signal.SIGTERM, signal.SIGCHLD)
    ]
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    supervisor, child = os.getpid(), os.fork()
    if child:
        for descriptor in others:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        status = _watch(child, lifeline, parent_pid, wake, told)
        _end_as(_sweep(child, status))
    signal.set_wakeup_fd(-1)
    for number, handler in handlers:
        signal.signal(number, handler)
    os.close(wake)
    os.close(woken)
    os.setsid()
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != supervisor:
        os._exit(1)


def _watch(child: int, lifeline: int, parent_pid: int, wake: int, told: list[int]) -> int | None:
    """Wait for the first reason to end: the child's status if that is its end, else None."""
    poller = select.poll()
    poller.register(lifeline, 0)  # only a hang-up is reported
    poller.register(wake, select.POLLIN)
    while True:
        statuses = _reap()
        if statuses is None or child in statuses:
            return (statuses or {}).get(child)
        if signal.SIGTERM in told or os.getppid() != parent_pid:
            return None
        if any(descriptor == lifeline for descriptor, _ in poller.poll(POLL_MILLISECONDS)):
            return None
        with suppress(BlockingIOError):
            os.read(wake, 4096)


def _sweep(child: int, status: int | None) -> int | None:
    """End every process that this one has or adopts. The child's status, if known."""
    until = time.monotonic() + SWEEP_SECONDS
    victims = [child] if status is None else []
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)
    while True:
        for victim in victims:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(victim, signal.SIGKILL)
        ended = _reap()
        if ended is None or time.monotonic() > until:
            return status
        status = ended.get(child, status)
        if not ended:
            time.sleep(0.002)
        victims = children_of(os.getpid())


def _reap() -> dict[int, int] | None:
    """The children that have ended, with their statuses; None where there are no children at all."""
    ended: dict[int, int] = {}
    try:
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            ended[found[0]] = found[1]
    except ChildProcessError:
        return ended or None
    return ended


def children_of(parent: int) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError, IndexError):
            if int((folder / "stat").read_text(errors="replace").rpartition(")")[2].split()[1]) == parent:
                found.append(int(folder.name))
    return found


def _end_as(status: int | None) -> None:
    """End this process as another did: by its signal or with its exit code."""
    if status is not None and os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(1 if status is None else os.waitstatus_to_exitcode(status) & 0xFF)


def _prctl(option: int, value: int) -> None:
    call = getattr(ctypes.CDLL(None), "prctl", None)  # Linux has it
    if call is not None:
        call(option, ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0))
