"""The system calls that what runs in a sandbox may make, as a filter program for the kernel (see `man 2 seccomp`).

A list of what is allowed: files, time, memory, threads and signals of its own. What is not on it does not exist in
there (ENOSYS, so that the C library takes another way where it has one): processes, programs, namespaces and mounts,
tracing, memory that no limit counts (memfd, System V), asynchronous input and output with its machine-wide count, and
whatever a later kernel adds. Of some calls only some forms are allowed: threads but no processes, pairs of sockets but
no other sockets, no locks on files, which whoever else has the same file open would feel.
"""

from __future__ import annotations

import platform
import struct
from functools import cache

from posttrain.types import InputError

AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
ALLOWED = """
read 0 63, write 1 64, readv 19 65, writev 20 66, pread64 17 67, pwrite64 18 68, preadv 295 69, pwritev 296 70
lseek 8 62, open 2 -, openat 257 56, creat 85 -, close 3 57, close_range 436 436, dup 32 23, dup2 33 -, dup3 292 24
stat 4 -, fstat 5 80, lstat 6 -, newfstatat 262 79, statx 332 291, access 21 -, faccessat 269 48, faccessat2 439 439
readlink 89 -, readlinkat 267 78, getdents 78 -, getdents64 217 61, getcwd 79 17, chdir 80 49, fchdir 81 50
rename 82 -, renameat 264 38, renameat2 316 276, mkdir 83 -, mkdirat 258 34, rmdir 84 -, unlink 87 -, unlinkat 263 35
link 86 -, linkat 265 37, symlink 88 -, symlinkat 266 36, chmod 90 -, fchmod 91 52, fchmodat 268 53, fchmodat2 452 452
umask 95 166, utime 132 -, utimes 235 -, utimensat 280 88, futimesat 261 -, truncate 76 45, ftruncate 77 46
fallocate 285 47, fsync 74 82, fdatasync 75 83, copy_file_range 326 285, sendfile 40 71, statfs 137 43, fstatfs 138 44
getxattr 191 8, lgetxattr 192 9, fgetxattr 193 10, listxattr 194 11, llistxattr 195 12, flistxattr 196 13

pipe 22 -, pipe2 293 59, select 23 -, pselect6 270 72, poll 7 -, ppoll 271 73, eventfd2 290 19, epoll_create 213 -
epoll_create1 291 20, epoll_ctl 233 21, epoll_wait 232 -, epoll_pwait 281 22, sendto 44 206, recvfrom 45 207
shutdown 48 210, getsockname 51 204, getpeername 52 205, getsockopt 55 209

futex 202 98, set_robust_list 273 99, rseq 334 293, sched_yield 24 124, sched_getaffinity 204 123, getcpu 309 168
brk 12 214, mmap 9 222, munmap 11 215, mprotect 10 226, mremap 25 216, madvise 28 233, msync 26 227

time 201 -, times 100 153, gettimeofday 96 169, clock_gettime 228 113, clock_getres 229 114, nanosleep 35 101
clock_nanosleep 230 115, getitimer 36 102, setitimer 38 103, alarm 37 -, pause 34 -, restart_syscall 219 128

rt_sigaction 13 134, rt_sigprocmask 14 135, rt_sigreturn 15 139, rt_sigpending 127 136, rt_sigsuspend 130 133
rt_sigtimedwait 128 137, sigaltstack 131 132, kill 62 129, tkill 200 130, tgkill 234 131

exit 60 93, exit_group 231 94, wait4 61 260, waitid 247 95, getpid 39 172, getppid 110 173, gettid 186 178
getuid 102 174, geteuid 107 175, getgid 104 176, getegid 108 177, getresuid 118 148, getresgid 120 150
getgroups 115 158, getpgid 121 155, getpgrp 111 -, getsid 124 156, getpriority 140 141, getrusage 98 165
getrlimit 97 163, setrlimit 160 164, prlimit64 302 261, sysinfo 99 179, uname 63 160, getrandom 318 278
"""
"""Names with their numbers on x86-64 and on ARM64; `-` where there is none."""
PARTLY = {
    "clone": {"x86_64": 56, "aarch64": 220},
    "fcntl": {"x86_64": 72, "aarch64": 25},
    "ioctl": {"x86_64": 16, "aarch64": 29},
    "socketpair": {"x86_64": 53, "aarch64": 199},
}
CLONE_THREAD, CLONE_NAMESPACES = 0x10000, 0x7E020000
F_LOCKS = (6, 7)
"""F_SETLK and F_SETLKW seem to work and do nothing: the locks of one process never exclude each other, and SQLite asks
for them."""
F_COMMANDS = (0, 1, 2, 3, 4, 5, 1030, 1032)
"""F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_GETLK, F_DUPFD_CLOEXEC, F_GETPIPE_SZ."""
IOCTLS = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
"""TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX."""
AF_UNIX = 1
LOAD, EQUAL, ANY_BIT, RETURN = 0x20, 0x15, 0x45, 0x06
ALLOW, KILL, REFUSED, MISSING, PRETENDED = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026, 0x00050000
"""What becomes of a call: allowed, the process killed, EPERM, ENOSYS, 0 without doing anything."""

Instruction = tuple[int, int, int, int]


@cache
def filter_program(processes: bool = False, machine: str = platform.machine()) -> bytes:
    """The filter, for `prctl(PR_SET_SECCOMP)`; with `processes` for a side that may also fork, within its limit.

    Raises InputError for a processor whose numbers are not known here."""
    if machine not in AUDIT_ARCH:
        raise InputError(f"the code sandbox knows the processors {', '.join(AUDIT_ARCH)}, and this is {machine}")
    architecture, number = 4, 0
    clone = [
        (ANY_BIT, 0, 1, CLONE_NAMESPACES), (RETURN, 0, 0, REFUSED),
        (ANY_BIT, 0, 1, CLONE_THREAD), (RETURN, 0, 0, ALLOW), (RETURN, 0, 0, ALLOW if processes else REFUSED),
    ]  # fmt: skip
    fcntl = {**dict.fromkeys(F_LOCKS, PRETENDED), **dict.fromkeys(F_COMMANDS, ALLOW)}
    program: list[Instruction] = [
        (LOAD, 0, 0, architecture),
        (EQUAL, 1, 0, AUDIT_ARCH[machine]),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, number),
        *(each for call in allowed(machine) for each in _equal(call, ALLOW)),
        *_partly("clone", machine, 0, clone),
        *_partly("fcntl", machine, 1, _either(fcntl)),
        *_partly("ioctl", machine, 1, _either(dict.fromkeys(IOCTLS, ALLOW))),
        *_partly("socketpair", machine, 0, _either({AF_UNIX: ALLOW})),
        (RETURN, 0, 0, MISSING),
    ]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


def allowed(machine: str) -> list[int]:
    """The numbers of the calls that are allowed in every form."""
    column = list(AUDIT_ARCH).index(machine) + 1
    calls = [call.split() for line in ALLOWED.split("\n") for call in line.split(", ") if call]
    return [int(call[column]) for call in calls if call[column] != "-"]


def _equal(value: int, becomes: int) -> list[Instruction]:
    return [(EQUAL, 0, 1, value), (RETURN, 0, 0, becomes)]


def _either(becomes: dict[int, int]) -> list[Instruction]:
    """By the value of an argument; any other is refused."""
    return [*(each for value, what in becomes.items() for each in _equal(value, what)), (RETURN, 0, 0, REFUSED)]


def _partly(call: str, machine: str, argument: int, then: list[Instruction]) -> list[Instruction]:
    """For this call, what the lower half of an argument decides."""
    low_half = 16 + 8 * argument
    return [(EQUAL, 0, len(then) + 1, PARTLY[call][machine]), (LOAD, 0, 0, low_half), *then]
