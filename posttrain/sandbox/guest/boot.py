"""The first thing that runs in a sandbox: put up the last walls from inside, then serve."""

from __future__ import annotations

import builtins
import marshal
import os
import resource
import sys
from _sitebuiltins import Quitter, _Helper

TYPE_CHECKING = False  # the module `typing` takes longer to import than all else here
if TYPE_CHECKING:
    from typing import Any

REQUESTS, RESULTS = 8, 9
"""Descriptors that requests come from and results go to; 0, 1 and 2 are /dev/null."""
MS_NOSUID_NODEV = 2 | 4
PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
CAPABILITY_VERSION = 0x20080522


def start(settings: dict[str, Any]) -> None:
    """Put up the `walls` (None: there are none), set `limits` (names of RLIMIT_* to values), free the standard
    descriptors and say that the sandbox is up."""
    os.umask(0o077)
    os.dup2(0, REQUESTS, inheritable=False)
    os.dup2(1, RESULTS, inheritable=False)
    if settings["walls"] is not None:
        try:
            enclose(**settings["walls"], limits=settings["limits"])
        except OSError as error:
            sys.exit(str(error))
    else:
        limit(settings["limits"])
    nowhere = os.open("/dev/null", os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    os.close(nowhere)
    # What the module `site` gives to programs, which takes long to import.
    builtins.exit = builtins.quit = Quitter("exit", "Ctrl-D (i.e. EOF)")
    builtins.help = _Helper()
    answer(f'["{settings["nonce"]}","up"]')


def enclose(temporary: str, uid: int | None, filter: bytes, limits: dict[str, int]) -> None:
    """Mount /tmp with these options, give up every capability and become `uid` (None: stay), set limits, and let the
    kernel filter system calls. Raises OSError, which says what the kernel refuses."""
    import ctypes  # dear, and without walls not needed

    libc, word = ctypes.CDLL(None, use_errno=True), ctypes.c_ulong

    def need(what: str, result: int) -> None:
        if result:
            number = ctypes.get_errno()
            raise OSError(number, f"{what}: {os.strerror(number)}")

    need("mounting /tmp", libc.mount(b"posttrain", b"/tmp", b"tmpfs", word(MS_NOSUID_NODEV), temporary.encode()))
    os.chdir("/tmp")
    if uid is not None:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    none = (ctypes.c_uint32 * 6)()  # effective, permitted and inheritable, twice 32 bits each
    need("giving up capabilities", libc.capset((ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0), none))
    # After the uid: the kernel counts processes by uid, and none for root.
    limit(limits)

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))

    program = ctypes.byref(Program(len(filter) // 8, filter))
    need("filtering system calls", libc.prctl(PR_SET_SECCOMP, word(SECCOMP_MODE_FILTER), program, word(0), word(0)))


def limit(limits: dict[str, int]) -> None:
    for name, value in limits.items():
        resource.setrlimit(getattr(resource, "RLIMIT_" + name), (value, value))


def request() -> dict[str, Any]:
    """The next request. Ends the process where there is none any more."""
    size = int.from_bytes(_read(8), "big")
    return marshal.loads(_read(size))


def answer(text: str) -> None:
    view = memoryview(text.encode() + b"\n")
    while view:
        view = view[os.write(RESULTS, view) :]


def _read(size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = os.read(REQUESTS, size - len(parts))
        if not part:
            os._exit(0)
        parts += part
    return bytes(parts)
