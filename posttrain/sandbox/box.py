"""Processes that run untrusted code, by bubblewrap.

A `Box` is a Python interpreter with namespaces of its own (processes, network, mounts, IPC, host name), no environment,
read-only system folders (`bubblewrap`), and a new session; it ends with its parent, and all of its processes with it.
Before it serves it mounts one small temporary folder, gives up every capability, sets limits (`LIMITS`) and a filter of
system calls (`seccomp`). Started by root it gives up root too, for a uid drawn for it alone, because the kernel counts
no process of root; started by anyone else it lives in a user namespace. Requests go in marshalled, results come out as
lines of JSON with a nonce, both on descriptors that the candidate's standard streams do not share.
"""

from __future__ import annotations

import json
import marshal
import os
import secrets
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from functools import cache, partial
from pathlib import Path
from typing import IO, Any

from posttrain.sandbox.bubblewrap import HELP, UNSAFE, bubblewrap_arguments, draw_uid, library_path
from posttrain.sandbox.seccomp import filter_program
from posttrain.systems import need_posix, system_name
from posttrain.types import InputError
from posttrain.workers.process import Closing
from posttrain.workers.supervisor import children_of

START_SECONDS = 20.0
"""A box must be up within this time."""
END_SECONDS = 2.0
"""What bubblewrap may take to end after its processes have."""
LINE_BYTES = 1 << 20
"""The longest line that is read from a box."""
LIMITS = {"AS": 512 << 20, "CORE": 0, "FSIZE": 16 << 20, "MEMLOCK": 0, "MSGQUEUE": 0, "NOFILE": 64, "NPROC": 16}
"""Limits by their names without RLIMIT_: bytes, or counts. NPROC counts threads too."""
ELSEWHERE = ("CORE", "FSIZE", "NOFILE")
"""Those of them that other systems than Linux have and mean alike."""
TEMPORARY = "size=16m,nr_inodes=4096,mode=1777"
"""What `/tmp` may hold. Names cost memory of the kernel that no other limit counts, about 1 kB each."""
INSIDE = "posttrain.sandbox.guest"
MODULES = {side: ("plain", "boot", "shown", side) for side in ("candidate", "suite")}
BOOT = """
import marshal, os, sys, types
def read(n):
    data = b""
    while len(data) < n: data += os.read(0, n - len(data)) or sys.exit(1)
    return data
modules, settings = marshal.loads(read(int.from_bytes(read(8), "big")))
for name, code in modules:
    module = sys.modules[name] = types.ModuleType(name)
    exec(code, module.__dict__)
boot, main = sys.modules[modules[1][0]], module
del read
boot.start(settings)
main.serve()
"""


class BoxLost(Exception):
    """What runs in a box ended, ran out of time or said what it may not say. The message says which."""


class OutOfTime(BoxLost):
    """The deadline passed."""


class Forged(BoxLost):
    """A line that no request asked for, or an answer without the nonce of its call."""


class Box(Closing):
    """One sandbox, seen from outside; `side` is `candidate` or `suite`. Not for use by two threads at once.

    Raises InputError where it does not start."""

    def __init__(self, side: str, cpu_seconds: float | None, allow_unsafe: bool = False) -> None:
        need_posix("Running code of a model")
        linux = sys.platform == "linux"
        if not (linux or allow_unsafe):
            raise InputError(
                f"code of a model runs in a sandbox of Linux (bubblewrap), which {system_name()} does not have. Run "
                f"this on Linux, such as in a virtual machine or a container that may have user namespaces, or {UNSAFE}"
            )
        limits = LIMITS if linux else {name: LIMITS[name] for name in ELSEWHERE}
        nonce = secrets.token_hex(8)
        settings: dict[str, Any] = {
            "nonce": nonce,
            "limits": {**limits, **({"CPU": int(cpu_seconds) + 1} if cpu_seconds else {})},
            "walls": None,
        }
        if not allow_unsafe:
            rules = filter_program(processes=side == "suite")
            settings["walls"] = {"uid": draw_uid(), "filter": rules, "temporary": TEMPORARY}
        deadline = time.monotonic() + START_SECONDS
        self._buffer = bytearray()
        self._closed = False
        self._unsafe = allow_unsafe
        self._process: subprocess.Popen[bytes] | None = None
        self._init: int | None = None
        self._ours = ExitStack()  # descriptors to close
        said = ""
        try:
            with tempfile.TemporaryFile() as errors:
                try:
                    self._start(errors, deadline)
                    self._send(marshal.dumps((compiled(side), settings)), deadline)
                    if json.loads(self._line(deadline)) != [nonce, "up"]:
                        raise BoxLost("it did not say that it is up")
                except (BoxLost, ValueError):
                    errors.seek(0)
                    said = " ".join(errors.read(2000).decode(errors="replace").split())
                    raise
        except (BoxLost, ValueError, OSError) as error:
            self.close()
            raise InputError(f"the code sandbox does not start: {said or error}. {HELP}") from None
        except BaseException:
            self.close()
            raise

    def _start(self, errors: IO[bytes], deadline: float) -> None:
        """Start the interpreter. Where this raises, `close` ends what there is."""
        command = [os.path.realpath(sys.executable), "-S", "-P", "-s", "-B", "-c", BOOT]
        clean = {"LC_ALL": "C.UTF-8", "MALLOC_ARENA_MAX": "1", "PYTHONHASHSEED": "0", **library_path()}
        with ExitStack() as passed, ExitStack() as read:

            def pipe(ours: int, until: ExitStack) -> tuple[int, int]:
                ends = os.pipe()
                until.callback(os.close, ends[ours])
                passed.callback(os.close, ends[1 - ours])
                return ends

            stdin, self._requests = pipe(1, self._ours)
            self._results, stdout = pipe(0, self._ours)
            os.set_blocking(self._requests, False)
            os.set_blocking(self._results, False)
            start: Callable[..., Any] = partial(subprocess.Popen, stdin=stdin, stdout=stdout, stderr=errors)
            if self._unsafe:
                self._process = start(command, env=clean, cwd="/tmp", start_new_session=True)
                return
            info, told = pipe(0, read)
            names = [word for name, value in clean.items() for word in ("--setenv", name, value)]
            self._process = start(
                [*bubblewrap_arguments(), "--info-fd", str(told), *names, "--", *command],
                env={}, cwd="/", pass_fds=(told,),
            )  # fmt: skip
            passed.close()
            self._init = _first_process(info, deadline)
            if self._init is not None:
                self._ours.callback(os.close, self._init)

    def send(self, request: Mapping[str, Any], deadline: float) -> None:
        """Raises BoxLost; Forged where something has been said that nobody asked for."""
        self.check_silent()
        self._send(marshal.dumps(dict(request)), deadline)

    def receive(self, nonce: str, deadline: float) -> list[Any]:
        """The next line, `[nonce, ...]`, without the nonce. Raises BoxLost, Forged."""
        try:
            match json.loads(self._line(deadline)):
                case [str(found), str(kind), *rest] if secrets.compare_digest(found.encode(), nonce.encode()):
                    return [kind, *rest]
        except (ValueError, RecursionError):
            pass
        raise Forged("a line that is no answer to the call")

    def ask(self, request: Mapping[str, Any], deadline: float) -> list[Any]:
        """The answer to one request, which gets a nonce of its own. Raises BoxLost, Forged."""
        nonce = secrets.token_hex(8)
        self.send({**request, "nonce": nonce}, deadline)
        return self.receive(nonce, deadline)

    def check_silent(self) -> None:
        """Raise Forged if there is a line that nobody asked for."""
        with suppress(BlockingIOError):
            self._buffer += os.read(self._results, 1 << 16)
        if self._buffer:
            raise Forged("a line that no call asked for")

    def output(self, limit: int, deadline: float) -> tuple[bytes, int]:
        """All that comes until the box ends, and its exit status. Raises BoxLost at the deadline or above the limit."""
        while self._fill(deadline):
            if len(self._buffer) > limit:
                raise BoxLost(f"it wrote more than {limit} bytes")
        try:
            assert self._process is not None
            status = self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise OutOfTime("it ran out of time") from None
        return bytes(self._buffer), status

    def close(self) -> None:
        """Kill every process of the box and wait until all are gone; idempotent."""
        if self._closed:
            return
        self._closed = True
        try:
            if self._process is not None:
                self._kill(self._process)
        finally:
            self._ours.close()

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        with suppress(ProcessLookupError):
            if self._init is not None:
                signal.pidfd_send_signal(self._init, signal.SIGKILL)  # takes its namespace with it
            elif self._unsafe:
                os.killpg(process.pid, signal.SIGKILL)
            else:
                _kill_both(process)
        with suppress(subprocess.TimeoutExpired):
            process.wait(END_SECONDS)
            return
        process.kill()
        with suppress(subprocess.TimeoutExpired):  # nothing ends a process in the middle of some system calls
            process.wait(START_SECONDS)

    def _send(self, payload: bytes, deadline: float) -> None:
        data = memoryview(len(payload).to_bytes(8, "big") + payload)
        while data:
            _wait(self._requests, select.POLLOUT, deadline)
            try:
                data = data[os.write(self._requests, data) :]
            except BlockingIOError:
                continue
            except BrokenPipeError:
                raise BoxLost("it ended") from None

    def _line(self, deadline: float) -> bytes:
        while (end := self._buffer.find(b"\n")) < 0:
            if len(self._buffer) > LINE_BYTES:
                raise BoxLost("it wrote a line that is too long")
            if not self._fill(deadline):
                raise BoxLost("it ended")
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line

    def _fill(self, deadline: float) -> bool:
        _wait(self._results, select.POLLIN, deadline)
        chunk = os.read(self._results, 1 << 20)
        self._buffer += chunk
        return bool(chunk)


def _kill_both(process: subprocess.Popen[bytes]) -> None:
    """Kill bubblewrap and what it has started without having said so. The second may be waiting for the first, whose
    death it would not notice; so the first is stopped until the second is found."""
    process.send_signal(signal.SIGSTOP)
    until = time.monotonic() + END_SECONDS
    with suppress(ChildProcessError):  # it has ended by itself
        while not os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT | os.WNOHANG):
            if time.monotonic() > until:
                break
            time.sleep(0.001)
    for child in children_of(process.pid):
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    process.kill()


def _wait(descriptor: int, event: int, deadline: float) -> None:
    poller = select.poll()
    poller.register(descriptor, event)
    if not poller.poll(max(0.0, deadline - time.monotonic()) * 1000):
        raise OutOfTime("it ran out of time")


def _first_process(info: int, deadline: float) -> int | None:
    """A descriptor of the process whose end is the end of its namespace; None where bubblewrap gave up before.

    Raises OutOfTime."""
    text = b""
    while not text.endswith(b"}\n"):
        _wait(info, select.POLLIN, deadline)
        if not (part := os.read(info, 4096)):
            break
        text += part
    try:
        return os.pidfd_open(json.loads(text)["child-pid"])
    except (ValueError, ProcessLookupError):
        return None


@cache
def compiled(side: str) -> list[tuple[str, Any]]:
    folder = Path(__file__).parent / "guest"
    return [
        (f"{INSIDE}.{name}", compile((folder / f"{name}.py").read_text(), f"<{name}>", "exec", dont_inherit=True))
        for name in MODULES[side]
    ]
