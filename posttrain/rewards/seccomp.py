"""The system calls that no candidate may make, as a filter program for the kernel (seccomp, see `man 2 seccomp`).

What limits of a process do not cover is refused: other processes (their memory would add up), namespaces and mounts,
sockets, memory that belongs to no process (memfd, System V), tracing, and interfaces with a record of kernel bugs.
"""

from __future__ import annotations

import platform
import struct

from posttrain.types import InputError

AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
COMMON = (425, 426, 427, 428, 429, 430, 431, 432, 433, 442, 447)
"""io_uring_setup/enter/register, open_tree, move_mount, fsopen, fsconfig, fsmount, fspick, mount_setattr,
memfd_secret: the same number everywhere."""
DENIED = {
    # fork, vfork, unshare, setns, mount, umount2, pivot_root, chroot, ptrace, process_vm_readv and writev,
    # memfd_create, shmget, shmat, shmctl, msgget, semget, add_key, request_key, keyctl, bpf, perf_event_open,
    # userfaultfd, socket
    "x86_64": (57, 58, 272, 308, 165, 166, 155, 161, 101, 310, 311, 319, 29, 30, 31, 68, 64, 248, 249, 250, 321, 298,
               323, 41),
    "aarch64": (97, 268, 40, 39, 41, 51, 117, 270, 271, 279, 194, 196, 195, 186, 190, 217, 218, 219, 280, 241, 282,
                198),
}  # fmt: skip
CLONE = {"x86_64": 56, "aarch64": 220}
CLONE3 = 435
CLONE_THREAD = 0x10000
X32 = 0x40000000
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, KILL, REFUSED, MISSING = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026
"""What becomes of a call: allowed, the process killed, EPERM, ENOSYS."""


def filter_program(machine: str = platform.machine()) -> bytes:
    """The filter for bubblewrap's `--seccomp`: threads may be made, processes not. Raises InputError for a processor
    whose numbers are not known here."""
    if machine not in AUDIT_ARCH:
        raise InputError(f"the code sandbox knows the processors {', '.join(AUDIT_ARCH)}, and this is {machine}")
    number, architecture, first_argument = 0, 4, 16
    denied = sorted({*DENIED[machine], *COMMON})
    program = [
        (LOAD, 0, 0, architecture),
        (EQUAL, 1, 0, AUDIT_ARCH[machine]),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, number),
        (AT_LEAST, 0, 1, X32),
        (RETURN, 0, 0, KILL),
        (EQUAL, 0, 1, CLONE3),  # its flags lie in memory; the C library goes back to clone
        (RETURN, 0, 0, MISSING),
    ]
    for call in denied:
        program += [(EQUAL, 0, 1, call), (RETURN, 0, 0, REFUSED)]
    program += [
        (EQUAL, 0, 3, CLONE[machine]),
        (LOAD, 0, 0, first_argument),
        (ANY_BIT, 1, 0, CLONE_THREAD),
        (RETURN, 0, 0, REFUSED),
        (RETURN, 0, 0, ALLOW),
    ]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
