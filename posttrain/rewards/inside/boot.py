"""The first thing that runs in a sandbox: give up the uid, set the limits, then serve."""

from __future__ import annotations

import marshal
import os
import resource
from typing import Any

REQUESTS, RESULTS = 8, 9
"""Descriptors that requests come from and results go to; 0, 1 and 2 are /dev/null."""


def start(settings: dict[str, Any]) -> None:
    """Drop to `uid` (None: stay), set `limits` (names of RLIMIT_* to values), free the standard descriptors and say
    that the sandbox is up."""
    os.umask(0o077)
    os.dup2(0, REQUESTS, inheritable=False)
    os.dup2(1, RESULTS, inheritable=False)
    nowhere = os.open("/dev/null", os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    os.close(nowhere)
    if (uid := settings["uid"]) is not None:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    # After the uid: the kernel counts processes by uid, and none for root.
    for name, value in settings["limits"].items():
        resource.setrlimit(getattr(resource, "RLIMIT_" + name), (value, value))
    answer(f'["{settings["nonce"]}","up"]')


def request() -> dict[str, Any]:
    """The next request. Ends the process where there is none any more."""
    size = int.from_bytes(_read(8), "big")
    message: dict[str, Any] = marshal.loads(_read(size))
    return message


def answer(text: str) -> None:
    """Send one line."""
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
