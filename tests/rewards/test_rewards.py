"""The call convention, and what a reward may do without harming anybody else."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from posttrain.rewards.failures import FailureWatch
from posttrain.rewards.libraries.reasoning_gym import final_answer, reasoning_gym
from posttrain.rewards.protocol import RewardResult
from posttrain.rewards.rules.format import format as format_reward
from posttrain.rewards.scorer import Scorer, combine
from posttrain.stats import wilson
from posttrain.types import InputError, Message, Prompt, RunFailed, Sample, Score
from posttrain.workers.process import Worker
from tests.processes import running

ROOT = str(Path(__file__).parents[2])


def sample(text: str, prompt: Prompt = "q", ids: tuple[int, ...] = (), **columns: Any) -> Sample:
    return Sample(prompt, (Message("assistant", text),), ids, columns)


def reward_file(folder: Path, code: str) -> str:
    path = folder / "my_rewards.py"
    path.write_text(code)
    return str(path)


def score_all(spec: str | list[str], samples: list[Sample], timeout: float = 60, workers: int = 1) -> list[Score]:
    columns = {name for one in samples for name in one.columns}
    specs = [spec] if isinstance(spec, str) else spec
    with Scorer(specs, columns=columns, timeout_seconds=timeout, workers=workers) as scorer:
        return scorer.score(samples, {"step": 3})


def totals(scores: list[Score]) -> list[float | None]:
    return [score.total for score in scores]


# The call convention.


def test_batched_gets_one_list_per_name(tmp_path: Path) -> None:
    file = reward_file(
        tmp_path,
        "def f(prompts, completions, completion_ids, level, trainer_state, log_metric, log_extra, **rest):\n"
        "    assert prompts == ['a', 'b'] and level == [1, 2] and rest == {'other': ['x', 'y']}\n"
        "    assert trainer_state.step == trainer_state['step'] == 3\n"
        "    log_metric('mean', 1.5); log_extra('note', ['n', 'm'])\n"
        "    return [len(c) + ids[0] for c, ids in zip(completions, completion_ids)]\n",
    )
    samples = [sample("xy", "a", (10,), level=1, other="x"), sample("xyz", "b", (20,), level=2, other="y")]
    with Scorer([f"{file}:f"], columns=["level", "other"], timeout_seconds=60) as scorer:
        assert totals(scorer.score(samples, {"step": 3})) == [12, 23]
        assert scorer.metrics == {"mean": 1.5}


def test_conversations_arrive_as_message_lists(tmp_path: Path) -> None:
    file = reward_file(
        tmp_path,
        "def f(prompts, completions):\n"
        "    assert prompts == [[{'role': 'user', 'content': 'hi'}]], prompts\n"
        "    return [len(c[0]['content']) if c[0]['role'] == 'assistant' else 0.0 for c in completions]\n",
    )
    assert totals(score_all(f"{file}:f", [sample("four", (Message("user", "hi"),))])) == [4]


def test_only_kwargs_is_batched(tmp_path: Path) -> None:
    file = reward_file(tmp_path, "def f(**kwargs):\n    return [float(len(c)) for c in kwargs['completions']]\n")
    assert totals(score_all(f"{file}:f", [sample("ab"), sample("c")])) == [2, 1]


def test_per_sample_gets_what_it_names(tmp_path: Path) -> None:
    file = reward_file(
        tmp_path,
        "def f(prompt, response, completion, messages, answer, absent=7):\n"
        "    assert response == completion == messages[0]['content'] and absent == 7\n"
        "    return prompt == 'q' and response == answer\n",
    )
    assert totals(score_all(f"{file}:f", [sample("1", answer="1"), sample("2", answer="1")])) == [1.0, 0.0]


def test_verl_names(tmp_path: Path) -> None:
    file = reward_file(
        tmp_path,
        "def compute_score(data_source, solution_str, ground_truth, extra_info=None):\n"
        "    return {'score': float(solution_str == ground_truth), 'acc': True, 'pred': solution_str}\n",
    )
    flat = sample("1", ground_truth="1", data_source="s")
    nested = sample("1", reward_model={"ground_truth": "2"}, data_source="s")
    scores = score_all(f"{file}:compute_score", [flat, nested])
    assert totals(scores) == [1.0, 0.0]
    assert scores[0].parts == {"compute_score": 1.0, "compute_score/acc": 1.0}


def test_async_of_both_kinds(tmp_path: Path) -> None:
    file = reward_file(
        tmp_path,
        "import asyncio\n"
        "async def one(response):\n    await asyncio.sleep(0)\n    return len(response)\n"
        "async def many(completions):\n    await asyncio.sleep(0)\n    return [10] * len(completions)\n",
    )
    assert totals(score_all([f"{file}:one", f"{file}:many"], [sample("ab"), sample("c")])) == [12, 11]


SLOW = """
import asyncio, os, time

async def wait(response):
    if response == "late":
        await asyncio.sleep(60)
    if response == "blocks":
        time.sleep(60)
    if response == "dies":
        os._exit(3)
    if response == "own":
        raise TimeoutError("the server's")
    if response == "deaf":
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                pass
    await asyncio.sleep(0.1)
    return float(len(response))

at_once = most = 0
sixteen = asyncio.Barrier(16)

async def crowd(response):
    global at_once, most
    at_once += 1
    most = max(most, at_once)
    await sixteen.wait()
    at_once -= 1
    return most
"""


def test_samples_of_an_async_reward_wait_together(tmp_path: Path) -> None:
    """Sixteen at once in one worker: none goes on before as many wait."""
    file = reward_file(tmp_path, SLOW)
    with Scorer([f"{file}:wait", f"{file}:crowd=0"], columns=[], timeout_seconds=60, workers=1) as scorer:
        found = scorer.score([sample("x" * i) for i in range(32)])
        assert totals(found) == list(range(32))
        assert max(score.parts["crowd"] or 0 for score in found) == 16


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("late", "wait: timed out after 2 s"),
        ("deaf", "wait: timed out after 2 s"),
        ("blocks", "wait: timed out after 2 s"),
        ("dies", "wait: the worker process ended with exit code 3"),
        ("own", "wait: TimeoutError: the server's at my_rewards.py:12"),
    ],
)
def test_an_async_sample_that_fails_costs_only_itself(tmp_path: Path, kind: str, reason: str) -> None:
    """Whatever waits beside it; a lost worker is not blamed on the first sample that was under way."""
    file = reward_file(tmp_path, SLOW)
    scores = score_all(f"{file}:wait", [sample(text) for text in ("a", "bb", kind, "dddd")], timeout=2)
    assert totals(scores) == [1, 2, None, 4]
    assert (scores[2].reason or "").startswith(reason), scores[2].reason


def test_weights_parts_and_what_does_not_apply(tmp_path: Path) -> None:
    file = reward_file(
        tmp_path,
        "def a(response):\n    return {'score': 2, 'x': 1, 'y': None}\n"
        "def b(response):\n    return None if response == 'skip' else 1.0\n",
    )
    both = [f"{file}:a=0.5", f"{file}:b=3"]
    scores = score_all(both, [sample("go"), sample("skip")])
    assert scores[0] == Score(4.0, {"a": 2.0, "a/x": 1.0, "a/y": None, "b": 1.0})
    assert scores[1] == Score(1.0, {"a": 2.0, "a/x": 1.0, "a/y": None, "b": None})
    assert score_all(f"{file}:b", [sample("skip")])[0] == Score(None, {"b": None}, None)


def test_module_and_neighbouring_file(tmp_path: Path) -> None:
    assert totals(score_all("posttrain.rewards.rules.format:format", [sample("no")])) == [0.0]
    (tmp_path / "my_neighbour.py").write_text("VALUE = 5\n")
    file = reward_file(tmp_path, "from my_neighbour import VALUE\ndef f(response):\n    return VALUE\n")
    assert totals(score_all(f"{file}:f", [sample("x")])) == [5]


# Bad input stops at construction.


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("maths", "unknown reward 'maths'; did you mean 'math'? built in are math, format, "),
        ("format=heavy", "weight 'heavy' is not a number"),
        ("format=nan", "weight 'nan' is not a number"),
        ("missing.py:f", "there is no file missing.py"),
        ("posttrain.nothing:f", "No module named 'posttrain.nothing'"),
        (
            "posttrain.rewards.rules.format:absent",
            "has no function 'absent'; it has detect_language, fenced_blocks, format, ",
        ),
        ("math", "needs a column 'answer' or 'solution' or 'ground_truth'; the data's columns are: level"),
    ],
)
def test_a_reward_that_cannot_be_used(spec: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        Scorer([spec], columns=["level"], timeout_seconds=60)
    assert message in str(caught.value)


def test_an_argument_that_is_no_column(tmp_path: Path) -> None:
    file = reward_file(tmp_path, "def f(response, anwser): return 0.0\ndef g(completions, anwser): return []\n")
    for name in "fg":
        with pytest.raises(InputError, match=rf"my_rewards.py:{name} asks for 'anwser'.*columns are: answer, level"):
            Scorer([f"{file}:{name}"], columns=["level", "answer"], timeout_seconds=60)


def test_an_import_that_raises_or_exits(tmp_path: Path) -> None:
    for code in ("1 / 0", "import sys; sys.exit(3)"):
        with pytest.raises(InputError, match=r"my_rewards.py:f could not be loaded: (ZeroDivisionError|SystemExit)"):
            Scorer([f"{reward_file(tmp_path, code)}:f"], columns=[], timeout_seconds=60)


def test_a_sum_that_is_too_large_fails_the_sample() -> None:
    results = [RewardResult(1e15), RewardResult(1.0)]
    assert combine({"f": 1.0, "g": 0.0}, results).total == 1e15
    assert combine({"f": 2.0, "g": 0.0}, results).reason == "the weighted sum is 2e+15, beyond 1e+15"


def test_two_rewards_of_one_name() -> None:
    with pytest.raises(InputError, match="two rewards are named 'format'"):
        Scorer(["format", "format=0.5"], columns=[], timeout_seconds=60)


# A failure is never a 0, and costs nobody else.

HOSTILE: Mapping[str, tuple[str, str]] = {
    "raises": ("raise ValueError('no\\nluck')", r"f: ValueError: no luck at my_rewards\.py:3"),
    "base exception": ("raise KeyboardInterrupt", "f: KeyboardInterrupt at"),
    "sys.exit": ("import sys; sys.exit(0)", "f: SystemExit: 0 at"),
    "nan": ("return float('nan')", "f: score is nan"),
    "infinite": ("return {'score': 1, 'x': float('inf')}", "f: part 'x' is inf"),
    "text": ("return '1'", "f: score is a str, not a number"),
    "no score": ("return {'x': 1}", "f: returned a dict without 'score'; it has x"),
    "huge": ("return 10 ** 400", "f: score is too large"),
    "large": ("return -1e30", r"f: score is -1e\+30, beyond 1e\+15"),
    "os._exit": ("import os; os._exit(0)", "f: the worker process ended with exit code 0"),
    "segfault": ("import ctypes; ctypes.string_at(0)", "f: the worker process was killed by SIGSEGV"),
    "hangs": ("while True: pass", "f: timed out after 2 s"),
    "hangs in native code": ("import re; re.match('(a+)+$', 'a' * 40 + 'b')", "f: timed out after 2 s"),
    "eats memory": ("return len(bytearray(6 << 30))", "f: MemoryError"),
    "recursion": ("return f(response)", "f: RecursionError"),
    "spoils JSON": (
        "import json; json.dumps = lambda *a, **k: '}'; return 9",
        "f: the worker process sent something that is no answer",
    ),
    "spoils results": (
        "import json; json.dumps = lambda *a, **k: '{}'; return 9",
        "f: the worker process sent something that is no result",
    ),
    "forges answers": (
        "import os\n    for d in range(3, 30):\n        try: os.close(d)\n        except OSError: pass\n    return 9",
        "f: .*",
    ),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_sample_costs_its_own_score_only(tmp_path: Path, kind: str) -> None:
    body, reason = HOSTILE[kind]
    file = reward_file(tmp_path, f"def f(response):\n  if response == 'bad':\n    {body}\n  return len(response)\n")
    scores = score_all(f"{file}:f", [sample("a"), sample("bad"), sample("bb"), sample("cccc")], timeout=2)
    assert totals(scores) == [1, None, 2, 4]
    assert scores[1].parts == {"f": None}
    assert scores[1].reason is not None and "\n" not in scores[1].reason
    assert re.match(reason, scores[1].reason), scores[1].reason


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("return [1.0]", "f: returned 1 scores for 2 samples"),
        ("return 1.0", "f: a batched reward returned a float, not a list"),
        ("raise RuntimeError('x')", "f: RuntimeError: x at my_rewards.py:2"),
        ("while True: pass", "f: timed out after 0.5 s"),
    ],
)
def test_a_batched_failure_fails_the_batch(tmp_path: Path, body: str, reason: str) -> None:
    file = reward_file(tmp_path, f"def f(completions):\n    {body}\n")
    scores = score_all(f"{file}:f", [sample("a"), sample("b")], timeout=0.5 if "while" in body else 60)
    assert [(score.total, score.reason) for score in scores] == [(None, reason)] * 2


def test_a_batched_list_may_hold_none_and_one_bad_value(tmp_path: Path) -> None:
    file = reward_file(tmp_path, "def f(completions):\n    return [True, None, 'x', 2]\n")
    scores = score_all(f"{file}:f", [sample(c) for c in "abcd"])
    assert totals(scores) == [1.0, None, None, 2.0]
    assert [score.failed for score in scores] == [False, False, True, False]


def test_full_marks_are_of_the_parts_that_apply(tmp_path: Path) -> None:
    file = reward_file(tmp_path, "def a(response):\n    return 1\ndef b(response):\n    return 1\n")
    with Scorer([f"{file}:a=0.5", f"{file}:b=-1"], columns=[], timeout_seconds=60) as scorer:
        assert scorer.full_marks(Score(-0.5, {"a": 1.0, "b": 1.0}))
        assert scorer.full_marks(Score(0.5, {"a": 1 - 1e-12, "b": None}))
        assert not scorer.full_marks(Score(0.0, {"a": 0.9, "b": 1.0}))
        assert not scorer.full_marks(Score(-1.0, {"a": None, "b": 1.0}))  # nothing that could be passed
        assert not scorer.full_marks(Score(None, {"a": 1.0, "b": None}, "b: raised"))


def test_a_failed_part_fails_the_total_and_keeps_the_other_part(tmp_path: Path) -> None:
    file = reward_file(tmp_path, "def f(response):\n    return 1 / 0\n")
    with Scorer([f"{file}:f", "format"], columns=[], timeout_seconds=60) as scorer:
        (score,) = scorer.score([sample("<think>a</think><answer>b</answer>")])
        assert score == Score(
            None, {"f": None, "format": 1.0}, "f: ZeroDivisionError: division by zero at my_rewards.py:2"
        )
        assert scorer.first_traceback is not None and "return 1 / 0" in scorer.first_traceback


@pytest.mark.parametrize("begin", ["def f(response):", "async def f(response):", "def f(completions):"])
def test_what_is_shown_of_an_error_is_the_rewards_own(tmp_path: Path, begin: str) -> None:
    """The place is the user's line, also where a library raised; no frame of ours stands in the traceback."""
    file = reward_file(tmp_path, f"import json\n{begin}\n    return json.loads('{{')\n")
    with Scorer([f"{file}:f"], columns=[], timeout_seconds=60) as scorer:
        (score,) = scorer.score([sample("a")])
        assert score.reason is not None and score.reason.endswith("at my_rewards.py:3")
        assert scorer.first_traceback is not None
        lines = scorer.first_traceback.splitlines()
    assert lines[0] == "Traceback (most recent call last):" and 'my_rewards.py", line 3, in f' in lines[1]
    assert "calls.py" not in "".join(lines) and "asyncio" not in "".join(lines)


def test_an_error_outside_the_rewards_code_has_no_place(tmp_path: Path) -> None:
    file = reward_file(tmp_path, "def f(response):\n    return float('nan')\n")
    with Scorer([f"{file}:f"], columns=[], timeout_seconds=60) as scorer:
        (score,) = scorer.score([sample("a")])
        assert (score.reason, scorer.first_traceback) == ("f: score is nan", "score is nan")


def test_printing_corrupts_nothing(tmp_path: Path) -> None:
    code = "import os\ndef f(response):\n    print('x' * 100000)\n    os.write(1, b'{}')\n    return 1.0\n"
    assert totals(score_all(f"{reward_file(tmp_path, code)}:f", [sample("a")] * 5)) == [1.0] * 5


def test_scores_come_in_input_order_whatever_the_workers(tmp_path: Path) -> None:
    code = "import time\ndef f(response):\n    time.sleep(0.01 * (int(response) % 3))\n    return int(response)\n"
    file = reward_file(tmp_path, code)
    samples = [sample(str(i)) for i in range(40)]
    assert (
        totals(score_all(f"{file}:f", samples, workers=2)) == totals(score_all(f"{file}:f", samples)) == list(range(40))
    )


def test_workers_stay_warm_and_have_one_thread(tmp_path: Path) -> None:
    file = reward_file(
        tmp_path,
        "import os, sys\ncalls = 0\n"
        "def f(response):\n"
        "    global calls\n    calls += 1\n"
        "    assert os.environ['OMP_NUM_THREADS'] == '1' and sys.stdin.read() == ''\n"
        "    return calls\n",
    )
    with Scorer([f"{file}:f"], columns=[], timeout_seconds=60, workers=1) as scorer:
        assert totals(scorer.score([sample("a"), sample("b")])) == [1, 2]
        assert totals(scorer.score([sample("c")])) == [3]
        assert scorer.score([]) == []
    with pytest.raises(RunFailed, match="closed"):
        scorer.score([sample("d")])


def test_a_worker_that_starts_while_the_scorer_is_aborted_ends_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What would be waited for otherwise: a reward in a worker that nobody kills."""
    started: list[Worker] = []
    file = reward_file(tmp_path, "import os\ndef f(response): return os._exit(1) if response == 'x' else 1\n")
    with Scorer([f"{file}:f"], columns=[], timeout_seconds=60, workers=1) as scorer:

        class Late(Worker):
            def __init__(self, server: str) -> None:
                super().__init__(server)
                started.append(self)
                scorer.abort()

        scorer.score([sample("x")])
        monkeypatch.setattr("posttrain.workers.pool.Worker", Late)
        with pytest.raises(RunFailed, match="closed"):
            scorer.score([sample("a")])
    assert started and not any(worker.alive for worker in started)


@pytest.mark.parametrize("how", ["script without a main guard", "piped to the interpreter", "in a thread"])
def test_works_wherever_it_is_called_from(tmp_path: Path, how: str) -> None:
    body = (
        "from posttrain.rewards.scorer import Sample, Scorer\nfrom posttrain.types import Message\n"
        "def go():\n"
        "    with Scorer(['format'], columns=[], timeout_seconds=60) as s:\n"
        "        print(s.score([Sample('q', (Message('assistant', 'x'),), (), {})])[0].total)\n\n"
    )
    call = "import threading\nt = threading.Thread(target=go); t.start(); t.join()\n" if "thread" in how else "go()\n"
    script = tmp_path / "script.py"
    script.write_text(body + call)
    piped = how.startswith("piped")
    done = subprocess.run(
        [sys.executable, "-i", "-q"] if piped else [sys.executable, str(script)],
        input=body + call if piped else None,
        env={**os.environ, "PYTHONPATH": ROOT},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "0.0\n", done.stderr


WAIT_SECONDS = 120
"""How long a test waits for what should come at once."""
STARTER = """
import ctypes, os, subprocess, sys, time
def f(response, where):
    sleep = "import os, sys, time; open(sys.argv[1], 'a').write(f'{os.getpid()} '); time.sleep(60)"
    subprocess.Popen([sys.executable, "-S", "-c", sleep, where], start_new_session=True)
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execv(sys.executable, [sys.executable, "-S", "-c", sleep, where])
        os._exit(0)
    while not os.path.exists(where) or len(open(where).read().split()) < 2:
        time.sleep(0.01)
    open(where, "a").write(f"{os.getpid()} .")
    if response == "hold":
        ctypes.PyDLL(None).sleep(60)  # keeps the interpreter lock without the use of a processor
    return 1.0
"""


def _all_end(pid_file: Path) -> None:
    until = time.monotonic() + WAIT_SECONDS
    pids = [int(pid) for pid in pid_file.read_text().split()[:-1]]
    assert len(pids) == 3
    while left := [pid for pid in pids if running(pid)]:
        assert time.monotonic() < until, f"{left} of {pids} are left"
        time.sleep(0.02)


@pytest.mark.parametrize("response", ["return", "hold"])
def test_what_a_reward_starts_ends_with_its_worker(tmp_path: Path, response: str) -> None:
    """Also in a session of its own, and with a parent that is gone."""
    pid_file, file = tmp_path / "pids", reward_file(tmp_path, STARTER)
    with Scorer([f"{file}:f"], columns=["where"], timeout_seconds=5 if response == "hold" else 60) as scorer:
        (score,) = scorer.score([Sample("q", (Message("assistant", response),), (), {"where": str(pid_file)})])
    assert score.reason == (None if response == "return" else "f: timed out after 5 s")
    _all_end(pid_file)


def test_workers_and_what_they_started_die_with_the_parent(tmp_path: Path) -> None:
    """Also in the middle of a reward that holds the interpreter lock."""
    file, pid_file = reward_file(tmp_path, STARTER), tmp_path / "pids"
    code = (
        "from posttrain.rewards.scorer import Sample, Scorer\nfrom posttrain.types import Message\n"
        f"Scorer(['{file}:f'], columns=['where'], timeout_seconds=60).score("
        f"[Sample('q', (Message('assistant', 'hold'),), (), {{'where': {str(pid_file)!r}}})])\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": ROOT})
    deadline = time.monotonic() + WAIT_SECONDS
    while not (pid_file.exists() and pid_file.read_text().endswith(".")):
        assert time.monotonic() < deadline, "the reward was never called"
        time.sleep(0.02)
    parent.kill()
    parent.wait()
    _all_end(pid_file)


def test_a_supervisor_that_is_stopped_or_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a reward that means harm, say: the worker ends with it, and nobody waits for ever."""
    monkeypatch.setattr("posttrain.workers.process.SWEEP_SECONDS", 0.2)
    for number in ("SIGKILL", "SIGSTOP"):
        body = f"import os, signal, time\ndef f(response): os.kill(os.getppid(), signal.{number}); time.sleep(60)\n"
        with Scorer([f"{reward_file(tmp_path, body)}:f"], columns=[], timeout_seconds=1) as scorer:
            (score,) = scorer.score([Sample("q", (Message("assistant", "x"),), (), {})])
        assert score.total is None and score.reason is not None


def test_a_stopped_supervisor_still_ends_what_was_started(tmp_path: Path) -> None:
    started = tmp_path / "started"
    body = f"""
import os, signal, subprocess
def f(response):
    child = subprocess.Popen(["sleep", "60"], start_new_session=True)
    open({str(started)!r}, "w").write(str(child.pid))
    os.kill(os.getppid(), signal.SIGSTOP)
    return 1.0
"""
    with Scorer([f"{reward_file(tmp_path, body)}:f"], columns=[], timeout_seconds=20) as scorer:
        (score,) = scorer.score([Sample("q", (Message("assistant", "x"),), (), {})])
    assert score.total == 1.0
    assert not running(int(started.read_text()))


# The watch over failures.


def test_wilson_by_hand() -> None:
    """n = 10, p = 1/2, z = 2: centre (0.5 + 0.2)/1.4 = 0.5, half 2·√(0.025 + 0.01)/1.4 = 0.267261."""
    low, high = wilson(5, 10, z=2.0)
    assert (low, high) == pytest.approx((0.5 - 0.2672612, 0.5 + 0.2672612), abs=1e-6)
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(0, 5)[0] == 0.0 and wilson(5, 5)[1] == 1.0
    with pytest.raises(ValueError, match="3 successes of 2"):
        wilson(3, 2)


def failing(failed: int, of: int = 8, reason: str = "x") -> list[Score]:
    """The scores of a task."""
    return [Score(None, reason=reason) if i < failed else Score(1.0) for i in range(of)]


def test_a_total_failure_stops_at_once_with_its_reason() -> None:
    watch = FailureWatch(0.1)
    watch.add(1, [failing(8, reason=f"reason {i}") for i in range(4)])
    said = "100.0% of the rollouts of 4 tasks since step 1 .*max_unscored_share=0.1 .* in at most 5% of cases"
    with pytest.raises(RunFailed, match=rf"{said}.* first reason: reason 0\nTraceback here"):
        watch.check("Traceback here")


def test_one_bad_row_or_a_single_task_does_not_stop_a_run() -> None:
    """A task that always fails, in steps of four of 100 tasks; and one task all of whose rollouts fail, which is what
    chance brings in a run within the limit in one step of ten."""
    watch = FailureWatch(0.1)
    for step in range(1, 101):
        watch.add(step, [failing(8 if i == 0 and step % 25 == 2 else 0) for i in range(4)])
        watch.check()
    alone = FailureWatch(0.1)
    alone.add(1, [failing(8)])
    alone.check()


def test_a_late_failure_is_named_by_its_own_step_and_reason() -> None:
    """The traceback is that of the first failure of the run, which this is not."""
    watch = FailureWatch(0.1)
    for step in range(1, 251):
        watch.add(step, [failing(int(step == 7 and i == 0), reason="once") for i in range(32)])
        watch.check()
    watch.add(251, [failing(8, reason="the server is gone") for _ in range(32)])
    with pytest.raises(RunFailed, match="100.0% of the rollouts of 32 tasks since step 251 .*: the server is gone$"):
        watch.check("Traceback of what happened once")


def test_what_does_not_apply_is_no_failure_and_limits_of_0_and_1() -> None:
    watch = FailureWatch(0.0)
    watch.add(1, [[Score(None)] * 8] * 32)
    watch.check()
    watch.add(2, [failing(0), failing(1)])
    with pytest.raises(RunFailed, match="max_unscored_share=0 .*: x"):
        watch.check()
    never = FailureWatch(1.0)
    for step in range(1, 20):
        never.add(step, [failing(8)] * 32)
        never.check()


# Format.


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("<think>a</think><answer>b</answer>", 1.0),
        (" <think>a\nb</think>\n\n<answer> b </answer>\n", 1.0),
        ("", 0.0),
        ("<answer>b</answer>", 0.0),
        ("<think></think><answer>b</answer>", 0.0),
        ("<think>a</think><answer> </answer>", 0.0),
        ("<think>a</think>so<answer>b</answer>", 0.0),
        ("<think>a</think><answer>b</answer>!", 0.0),
        ("<answer>b</answer><think>a</think>", 0.0),
        ("<think>a<answer>b</answer></think>", 0.0),
        ("<think>a</think><think>a</think><answer>b</answer>", 0.0),
        ("<think>a</think><answer>b</answer><answer>b</answer>", 0.0),
        ("<think>a</think><answer>b", 0.0),
    ],
)
def test_format(response: str, expected: float) -> None:
    assert format_reward(response) == expected


# reasoning-gym.


@pytest.fixture(scope="module")
def entry() -> dict[str, Any]:
    import reasoning_gym as library

    item: dict[str, Any] = library.create_dataset("word_sorting", size=1, seed=1)[0]
    assert item["metadata"]["source_dataset"] == "word_sorting"
    return item


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{gold}", 1.0),
        ("  {gold}\n", 1.0),
        ("Sorted: <answer>{gold}</answer>", 1.0),
        ("<think>hm</think>\\boxed{{{gold}}}", 1.0),
        ("<answer>\\boxed{{{gold}}}</answer>", 1.0),
        ("{gold} and so on", 0.0),
        ("It is {gold}", 0.0),
        ("<answer>x</answer><answer>{gold}</answer>", 0.0),
        ("\\boxed{{x}} <answer>{gold}</answer>", 0.0),
        ("<think>{gold}</think>", 0.0),
        ("", 0.0),
    ],
)
def test_reasoning_gym_pays_full_marks_only(entry: dict[str, Any], template: str, expected: float) -> None:
    assert reasoning_gym(template.format(gold=entry["answer"]), entry) == expected


def test_the_default_verifier_of_reasoning_gym_would_pay_for_containing_the_gold() -> None:
    from reasoning_gym.factory import get_score_answer_fn

    item = {"question": "?", "answer": "42", "metadata": {"source_dataset": "simple_equations"}}
    assert 0 < get_score_answer_fn("simple_equations")("42, or 43", item) < 1
    assert reasoning_gym("42, or 43", item) == 0.0
    assert reasoning_gym("42", item) == 1.0


@pytest.mark.parametrize("bad", [{}, {"answer": "1"}, {"answer": "1", "metadata": {"source_dataset": "no_such_task"}}])
def test_an_entry_without_a_verifier_is_a_failure(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="entry|not registered"):
        reasoning_gym("1", bad)


def test_reasoning_gym_answer_extraction() -> None:
    assert final_answer("a <answer> b </answer> c") == "b"
    assert final_answer("<answer>b</answer> <answer>b</answer>") == "b"
    assert final_answer("<answer>b</answer> <answer>c</answer>") is None
    assert final_answer(r"I put it into \boxed{} or \boxed: \boxed 4") == "4"


def test_a_reward_that_changes_its_argument_changes_no_other_score(tmp_path: Path) -> None:
    file = tmp_path / "r.py"
    file.write_text("def count(items):\n    items.append(1)\n    return float(len(items))\n")
    shared = {"items": [0]}
    samples = [Sample("q", (Message("assistant", "a"),), (1,), shared) for _ in range(3)]
    with Scorer([f"{file}:count"], columns=["items"], timeout_seconds=20, workers=1) as scorer:
        assert [score.total for score in scorer.score(samples)] == [2, 2, 2]
