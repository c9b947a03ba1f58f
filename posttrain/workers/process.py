"""Killable worker processes for code that may hang, crash or eat memory: rewards, verifiers and environments.

A worker is a fresh Python process (never a fork of its parent, so it works from scripts without a main guard, from a
REPL and beside threads). Requests go down one pipe pickled, results come back up another as JSON, so that a worker
cannot make the parent run anything. Both pipes have descriptors of their own: what a reward prints goes to standard
error and cannot corrupt results. Every frame is 8 bytes of length, then the payload.

A worker has one numerical thread and a memory limit. Beside it lives its `supervisor`, a fork from before any code of a
user is loaded, which is what the parent sees: it ends the worker and whatever that has started.
"""

from __future__ import annotations

import importlib
import json
import os
import pickle
import select
import signal
import struct
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, Self

import posttrain
from posttrain.systems import need_posix
from posttrain.workers.supervisor import SWEEP_SECONDS, supervise

HEADER = struct.Struct(">Q")
START_SECONDS = 60.0
"""A worker must be up, and each phase of its preparation done, within this time."""
MEMORY_BYTES = 4 << 30
"""Limit on a worker's private writable memory (RLIMIT_DATA: reserved address space does not count)."""
POLL_SECONDS = 0.2
"""How often a wait looks whether the process is still alive; a grandchild can hold a dead worker's pipe open."""
BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from posttrain.workers.process import work; work(sys.argv[2], *map(int, sys.argv[3:]))"
)
ONE_THREAD = {
    **{f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS", "NUMEXPR", "RAYON")},
    "VECLIB_MAXIMUM_THREADS": "1",
}


class Closing(ABC):
    """What is closed at the end of a `with`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None: ...


class WorkerLost(Exception):
    """The worker timed out (and was killed) or died. The message is a reason for the sample it was working on."""


class Worker:
    """One worker process, seen from the parent. Not for use by two threads at once.

    `server` is the class, as `module:class`, whose `answer(request)` yields the answers to each request. Raises
    InputError on Windows."""

    def __init__(self, server: str = "posttrain.rewards.server:Server") -> None:
        need_posix("Running rewards and environments in worker processes")
        down_read, self._down = os.pipe()
        self._up, up_write = os.pipe()
        root = os.path.dirname(os.path.dirname(os.path.abspath(posttrain.__file__)))
        path = [*(entry for entry in sys.path if isinstance(entry, str)), root]
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", BOOT, json.dumps(path), server, str(down_read), str(up_write), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # the worker points it at standard error
                pass_fds=(down_read, up_write),
                start_new_session=True,
                # A fixed hash seed: a reward that walks a set gives the same number on every run.
                env={"PYTHONHASHSEED": "0", **os.environ, **ONE_THREAD},
            )
        except OSError:
            os.close(self._down)
            os.close(self._up)
            raise
        finally:
            os.close(down_read)
            os.close(up_write)
        os.set_blocking(self._down, False)
        os.set_blocking(self._up, False)
        self._buffer = bytearray()
        self._closed = False

    @property
    def alive(self) -> bool:
        return not self._closed and self._process.poll() is None

    def ask(self, request: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        """Send a request that has one answer and wait for it at most `seconds`. Raises WorkerLost."""
        (answer,) = self.stream(request, 1, seconds)
        return answer

    def stream(self, request: Mapping[str, Any], count: int, seconds: float) -> Iterator[dict[str, Any]]:
        """Send a request and yield its `count` answers as they come, each at most `seconds` after the one before.

        Raises WorkerLost when an answer is late or the process is gone. Then, and if the caller stops early, the worker
        is killed: what it still had to say must not be taken for the answers to the next request."""
        try:
            self._send(pickle.dumps(request, protocol=pickle.HIGHEST_PROTOCOL), seconds)
            for _ in range(count):
                yield self._receive(seconds)
        except BaseException:
            self.close()
            raise

    def kill(self) -> None:
        """End the process and whatever it started. May be called from another thread than the one that waits for it,
        which then gets WorkerLost."""
        if not self._closed:
            self._process.terminate()
            self._process.send_signal(signal.SIGCONT)  # what runs in there may have stopped its supervisor

    def close(self) -> None:
        """Kill the worker and free its pipes; idempotent."""
        if self._closed:
            return
        self.kill()
        self._closed = True
        try:
            self._process.wait(2 * SWEEP_SECONDS)
        except subprocess.TimeoutExpired:  # its supervisor is stopped
            self._process.kill()
            self._process.wait()
        os.close(self._down)
        os.close(self._up)

    def _send(self, payload: bytes, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        data = memoryview(HEADER.pack(len(payload)) + payload)
        while data:
            try:
                self._wait(self._down, select.POLLOUT, deadline, seconds)
                data = data[os.write(self._down, data) :]
            except BlockingIOError:
                continue
            except BrokenPipeError:
                raise WorkerLost(self._obituary()) from None

    def _receive(self, seconds: float) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        while (frame := self._frame()) is None:
            self._wait(self._up, select.POLLIN, deadline, seconds)
            chunk = os.read(self._up, 1 << 20)
            if not chunk:
                raise WorkerLost(self._obituary())
            self._buffer += chunk
        return frame

    def _frame(self) -> dict[str, Any] | None:
        if len(self._buffer) < HEADER.size:
            return None
        end = HEADER.size + HEADER.unpack_from(self._buffer)[0]
        if len(self._buffer) < end:
            return None
        payload = bytes(self._buffer[HEADER.size : end])
        del self._buffer[:end]
        try:
            answer = decoded(payload)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            raise WorkerLost("the worker process sent something that is no answer")
        return answer

    def _wait(self, descriptor: int, event: int, deadline: float, seconds: float) -> None:
        """Until the descriptor is ready. Raises WorkerLost at the deadline, or if the process ended leaving none."""
        poller = select.poll()
        poller.register(descriptor, event)
        while True:
            ended = self._process.poll() is not None
            left = deadline - time.monotonic()
            if poller.poll(max(0.0, min(left, 0.0 if ended else POLL_SECONDS)) * 1000):
                return
            if ended:
                raise WorkerLost(self._obituary())
            if left <= 0:
                raise WorkerLost(f"timed out after {seconds:g} s")

    def _obituary(self) -> str:
        try:
            code = self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            return "the worker process closed its pipe"
        if code < 0:
            return f"the worker process was killed by {signal.Signals(-code).name}"
        return f"the worker process ended with exit code {code}"


def work(server_class: str, read_fd: int, write_fd: int, parent_pid: int) -> None:
    """The life of a worker: a supervisor, limits, then one request after the other."""
    import resource  # Windows has none

    os.dup2(2, 1)
    supervise(read_fd, parent_pid, others=(write_fd,))
    for descriptor in (read_fd, write_fd):
        os.set_inheritable(descriptor, False)
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = MEMORY_BYTES if hard == resource.RLIM_INFINITY else min(MEMORY_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    # After the limits: what is imported here may import user code.
    server = load_server(server_class)
    while True:
        request = pickle.loads(_read(read_fd, HEADER.unpack(_read(read_fd, HEADER.size))[0]))
        for answer in server.answer(request):
            payload = encoded(answer)
            _write(write_fd, HEADER.pack(len(payload)) + payload)


def load_server(target: str, **options: Any) -> Any:
    """An instance of the class `module:class`, whose `answer(request)` yields the answers to each request."""
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)(**options)


def encoded(answer: Mapping[str, Any] | object) -> bytes:
    """An answer as JSON: a dict, or a dataclass as the dict of its fields."""
    return json.dumps(answer, default=vars).encode()


def decoded(payload: bytes) -> dict[str, Any]:
    return json.loads(payload)


def _read(descriptor: int, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        chunk = os.read(descriptor, min(size - len(data), 1 << 20))
        if not chunk:
            os._exit(0)  # the parent closed the pipe
        data += chunk
    return bytes(data)


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
