"""The reward for code: the share of tests that a candidate passes, run in sandboxes that do not know the answers."""

from __future__ import annotations

import ast
import atexit
import json
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any

from posttrain.data.columns import parsed_list
from posttrain.rewards.code.blocks import Reading, candidate_sources, finished, python_of
from posttrain.sandbox.box import Box, BoxLost, Forged, OutOfTime
from posttrain.sandbox.guest.plain import NotPlain, encode
from posttrain.sandbox.guest.shown import SECONDS
from posttrain.workers.process import Closing

OUTPUT_BYTES = 1 << 20
"""What a program may write to its standard output."""
TOTAL = 3
"""All tests of a response together may take this many times the seconds of one."""


def code(
    response: str,
    prompt: str = "",
    entry_point: str | None = None,
    cases: Sequence[Mapping[str, Any]] | None = None,
    hidden_cases: Sequence[Mapping[str, Any]] | None = None,
    test: str | Sequence[str] | None = None,
    *,
    all_or_nothing: bool = False,
    seconds: float = 3.0,
    allow_unsafe: bool = False,
) -> float:
    """The share of tests that the code in a response passes; with `all_or_nothing` 1.0 if it passes all, else 0.0.

    Three kinds of tests. Functions: `entry_point` and `cases` of `{"args": [...], "kwargs": {...}, "expected": ...}`
    (or `args_literal`, `expected_literal`: Python literals for what JSON cannot say, such as tuples). A result is right
    if type and value are exactly those expected, in depth: True is not 1, 1.0 is not 1, NaN is NaN, sets and dicts have
    no order. Programs: `cases` of `{"stdin": ..., "stdout": ...}`; right if the exit status is 0 and the output is the
    same but for blanks at the ends of lines and blank lines at the end. Suites: `test`, assertions about `candidate` or
    `entry_point`, in a function `check(candidate)` or not; every statement with an assertion is a test. With
    `hidden_cases` the score is the lower of the two shares: answers copied from visible cases are worth nothing.

    A test may take `seconds`, all together three times that. No code, an error, a crash, a limit exceeded: the tests
    concerned are failed. Range [0, 1], a share of tests. Fails where no sandbox starts (InputError, unless
    `allow_unsafe`) and where the tests themselves are at fault (ValueError). Source: the form of suites is that of
    HumanEval (arXiv:2107.03374)."""
    grader = Grader(seconds, allow_unsafe)
    preamble = python_of(prompt)
    sources = candidate_sources(response, entry_point, preamble)
    if test is not None:
        if not entry_point:
            raise ValueError(
                "tests in the column 'test' need the name of the function they test, in the column 'entry_point'"
            )
        suite = test if isinstance(test, str) else "\n".join(test)
        score = grader.suite(sources, entry_point, finished(preamble), suite)
    elif groups := list(filter(None, (_cases(cases, "cases"), _cases(hidden_cases, "hidden_cases")))):
        run = partial(grader.functions, entry_point=entry_point) if entry_point else grader.programs
        score = min(sum(passed) / len(passed) for passed in (run(sources, cases=group) for group in groups))
    else:
        raise ValueError("there is nothing to test with; fill the column 'cases' or 'test'")
    return float(score == 1) if all_or_nothing else score


class Grader:
    """The tests of one response, and its clock."""

    def __init__(self, seconds: float, allow_unsafe: bool) -> None:
        self._seconds = seconds
        self._unsafe = allow_unsafe
        self._end = time.monotonic() + TOTAL * seconds

    def deadline(self) -> float:
        """When a test that begins now must be done. Raises OutOfTime when none can begin."""
        now = time.monotonic()
        if now >= self._end:
            raise OutOfTime("the tests together ran out of time")
        return min(now + self._seconds, self._end)

    def box(self) -> Box:
        """A new box; how long it takes to start is not charged to the candidate."""
        before = time.monotonic()
        box = Box("candidate", TOTAL * self._seconds, self._unsafe)
        self._end += time.monotonic() - before
        return box

    def functions(self, sources: Sequence[Reading], entry_point: str, cases: Sequence[Mapping[str, Any]]) -> list[bool]:
        tests = [
            (_tree(_get(c, "args", [])), _tree(c.get("kwargs") or {}), canonical(_tree(_get(c, "expected"))))
            for c in cases
        ]
        with Candidate(sources, entry_point, self) as candidate:
            passed = [candidate.gives(*test) for test in tests]
            return passed if candidate.honest() else [False] * len(tests)

    def programs(self, sources: Sequence[Reading], cases: Sequence[Mapping[str, Any]]) -> list[bool]:
        """Which cases the program passes; each is a run of its own."""
        tests = [(_text(case, "stdin"), _text(case, "stdout")) for case in cases]
        return [bool(sources) and self._program(sources, stdin, stdout) for stdin, stdout in tests]

    def suite(self, sources: Sequence[Reading], entry_point: str, preamble: str, test: str) -> float:
        """The share of the suite's tests that pass. Raises ValueError for a suite that is at fault, RuntimeError where
        its process is lost."""
        cpu_seconds = int((TOTAL + 1) * self._seconds) + 1
        request = {"prompt": preamble, "test": test, "entry_point": entry_point, "cpu_seconds": cpu_seconds}
        runner = suite_runner(self._unsafe)
        called = False
        with Candidate(sources, entry_point, self) as candidate:

            def reply(args: Any, kwargs: Any) -> list[Any]:
                nonlocal called
                called = True
                return candidate.reply(args, kwargs)

            try:
                # Calls give nothing once the time is up, so a suite that goes on after that hangs by itself.
                passed, total = runner.run(request, reply, lambda: self._end + self._seconds)
            except OutOfTime:
                return 0.0
            if not called:
                raise ValueError(f"the column 'test' is at fault: none of its tests calls {entry_point}")
            return passed / total if candidate.honest() else 0.0

    def _program(self, sources: Sequence[Reading], stdin: str, expected: str) -> bool:
        try:
            with self.box() as box:
                deadline = self.deadline()
                box.send({"sources": list(sources), "stdin": stdin.encode()}, deadline)
                output, status = box.output(OUTPUT_BYTES, deadline)
        except BoxLost:
            return False
        return status == 0 and _lines(output.decode(errors="replace")) == _lines(expected)


class Candidate(Closing):
    """A function in a box, which is made anew when it is lost."""

    def __init__(self, sources: Sequence[Reading], entry_point: str, grader: Grader) -> None:
        self._load = {"sources": list(sources), "entry_point": entry_point}
        self._grader = grader
        self._box: Box | None = None
        self._usable = bool(sources)  # False once the code did not load, or has forged a line
        self._forged = False

    def reply(self, args: Any, kwargs: Any) -> list[Any]:
        """What the candidate says to one call, see `inside.candidate.call`; `["lost"]` if nothing. All are trees."""
        if not self._usable:
            return ["lost"]
        try:
            box = self._box or self._start()
            answer = box.ask({"args": args, "kwargs": kwargs}, self._grader.deadline())
            match answer:
                case ["returned", value, after]:
                    canonical(value), canonical(after if value is None else None)
            return answer
        except BoxLost as lost:
            self._note(lost)
        except (ValueError, RecursionError):
            pass
        return ["lost"]

    def gives(self, args: Any, kwargs: Any, expected: str) -> bool:
        match self.reply(args, kwargs):
            case ["returned", value, _]:
                return canonical(value) == expected
        return False

    def honest(self) -> bool:
        """Whether there was no line that no call asked for. One more request shows what came after the last answer."""
        try:
            if self._box is not None:
                self._box.ask({"last": True}, self._grader.deadline())
        except BoxLost as lost:
            self._note(lost)
        return not self._forged

    def _start(self) -> Box:
        self._box = self._grader.box()
        try:
            if self._box.ask(self._load, self._grader.deadline() + SECONDS) != ["loaded"]:
                raise BoxLost("its code raises an error")
        except BoxLost:
            self._usable = False
            raise
        return self._box

    def _note(self, lost: BoxLost) -> None:
        if isinstance(lost, Forged):
            self._forged, self._usable = True, False
        self.close()

    def close(self) -> None:
        if self._box is not None:
            self._box.close()
            self._box = None


class SuiteRunner:
    """The box that suites run in, one after the other, each in a process of its own."""

    def __init__(self, allow_unsafe: bool) -> None:
        self._unsafe = allow_unsafe
        self._box: Box | None = None

    def run(
        self, request: Mapping[str, Any], reply: Callable[[Any, Any], list[Any]], deadline: Callable[[], float]
    ) -> tuple[int, int]:
        """How many tests passed, of how many. Raises OutOfTime, ValueError, RuntimeError."""
        nonce = secrets.token_hex(8)
        box = self._box = self._box or Box("suite", None, self._unsafe)
        result: list[Any] | None = None
        try:
            box.send({**request, "nonce": nonce}, deadline())
            while True:
                match box.receive(nonce, deadline()):
                    case ["call", args, kwargs]:
                        box.send({"reply": reply(args, kwargs)}, deadline())
                    case ["ended", _] if result is not None:
                        break
                    case ["ended", status]:
                        raise RuntimeError(f"the suite ended with status {status} and no result")
                    case line:
                        result = line
        except BaseException as error:
            self.close()
            if isinstance(error, BoxLost) and not isinstance(error, OutOfTime):
                raise RuntimeError(f"the process of the suite is lost: {error}") from None
            raise
        match result:
            case ["done", int(passed), int(total)]:
                return passed, total
        raise ValueError(f"the column 'test' is at fault: {result[1]}")

    def close(self) -> None:
        if self._box is not None:
            self._box.close()
            self._box = None


@cache
def suite_runner(allow_unsafe: bool) -> SuiteRunner:
    runner = SuiteRunner(allow_unsafe)
    atexit.register(runner.close)
    return runner


def canonical(tree: Any) -> str:
    """One text for each value: sets and dicts sorted, no negative zero. Values are not built, since a candidate can
    choose those whose hashes collide. Raises ValueError for what `encode` does not write."""
    match tree:
        case float():
            return repr(tree + 0.0)
        case None | bool() | int() | str():
            return json.dumps(tree)
        case ["set" | "frozenset" as kind, list(items)]:
            return f"{kind}({','.join(sorted(map(canonical, items)))})"
        case ["list" | "tuple" as kind, list(items)]:
            return f"{kind}({','.join(map(canonical, items))})"
        case ["dict", list(pairs)]:
            return f"dict({','.join(sorted(f'{canonical(key)}:{canonical(value)}' for key, value in pairs))})"
        case ["int" | "bytes" as kind, str(digits)]:
            return f"{kind}({digits})"
        case ["complex", float(real), float(imaginary)]:
            return f"complex({canonical(real)},{canonical(imaginary)})"
    raise ValueError("no tree of plain data")


def _cases(value: Any, column: str) -> list[Any] | None:
    return parsed_list(value, column, Mapping)


def _tree(value: Any) -> Any:
    """Raises ValueError for what is no plain data."""
    try:
        return json.loads(encode(value))
    except NotPlain as error:
        raise ValueError(f"the column 'cases' holds a {error}, which is no plain data") from None


def _get(case: Mapping[str, Any], name: str, *default: Any) -> Any:
    """A field of a case, given as it is or as a Python literal."""
    if name in case:
        return case[name]
    if f"{name}_literal" in case:
        return ast.literal_eval(case[f"{name}_literal"])
    if default:
        return default[0]
    raise ValueError(f"a case has no {name!r} (or '{name}_literal'); it has {', '.join(case) or 'nothing'}")


def _text(case: Mapping[str, Any], name: str) -> str:
    value = case.get(name, "" if name == "stdin" else None)
    if not isinstance(value, str):
        raise ValueError(f"a case of a program needs {name!r}, a string; for functions fill the column 'entry_point'")
    return value


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().split("\n")]
