"""The trusted side of an assert-style suite, in a sandbox of its own: runs the tests of a data file with the candidate
as a remote call. It never runs the candidate's code."""

from __future__ import annotations

import ast
import builtins
import os
import resource
from collections.abc import Iterable
from contextlib import suppress

from posttrain.sandbox.guest.boot import answer, request
from posttrain.sandbox.guest.plain import NotPlain, decode, encode, quote
from posttrain.sandbox.guest.shown import run_shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SKIPPING = ("StopIteration", "StopAsyncIteration")
"""Exceptions that end a loop quietly: `all(map(candidate, inputs))` would be true."""

OWN = ("<suite>", "<prompt>")
"""What the code of the data is compiled as."""

COUNTED = """
try:
    pass
except BaseException as __error:
    __tally(__error)
else:
    __tally()
"""


class Lost(BaseException):
    """A call gave nothing to test: the candidate crashed, ran out of time or returned no plain data. Not an Exception,
    so that no suite takes it for an error that it waits for."""


class Fault(BaseException):
    """The suite itself is at fault, whatever the candidate does."""


class Remote:
    """The candidate as the suite sees it."""

    def __init__(self, nonce: str) -> None:
        self.nonce = nonce
        self.called = False
        self.raised: list[BaseException] = []  # what crossed

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            values, named = encode(list(args)), encode(kwargs)
        except NotPlain as error:
            raise Fault(f"the suite passes a {error}; only plain data can be passed to a candidate") from None
        self.called = True
        answer(f'["{self.nonce}","call",{values},{named}]')
        match request()["reply"]:
            case ["returned", value, after]:
                try:
                    result, left = decode(value), decode(after)
                except (NotPlain, TypeError, ValueError):  # a set of lists, say
                    raise Lost from None
                if left is not None:
                    _write_back(args, left)
                return result
            case ["raised", str(name), str(text)]:
                self.raised.append(exception(name, text))
                raise self.raised[-1]
        raise Lost

    def is_to_blame(self, error: BaseException) -> bool:
        """Whether the candidate may have caused what a test raised. It has no part in a name or a module that the suite
        misses, nor in anything before its first call."""
        if any(error is crossed for crossed in self.raised):
            return True
        return self.called and not (isinstance(error, NameError | ImportError) and _raised_in(error) in OWN)


def exception(name: str, text: str) -> Exception:
    """The built-in exception of that name, else a RuntimeError."""
    kind = getattr(builtins, name, None)
    if isinstance(kind, type) and issubclass(kind, Exception) and name not in SKIPPING:
        with suppress(TypeError):  # UnicodeDecodeError wants five arguments
            return kind(text)
    return RuntimeError(f"{name}: {text}")


def _raised_in(error: BaseException) -> str:
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    return place.tb_frame.f_code.co_filename if place is not None else ""


class Tally:
    """Counts tests; called after each, with what it raised. Raises Fault where the suite is to blame for that."""

    def __init__(self, candidate: Remote) -> None:
        self.passed = 0
        self._candidate = candidate

    def __call__(self, error: BaseException | None = None) -> None:
        if error is None:
            self.passed += 1
        else:
            self.check(error)

    def check(self, error: BaseException) -> None:
        if isinstance(error, Fault):
            raise error
        if not self._candidate.is_to_blame(error):
            why = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            raise Fault(f"a test fails whatever the candidate does: {why}") from None


def serve() -> None:
    """Run each suite in a process of its own."""
    while True:
        message = request()
        child = os.fork()
        if not child:
            try:
                seconds = message["cpu_seconds"]
                resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
                answer(run(message))
            finally:
                os._exit(0)
        _, status = os.waitpid(child, 0)
        answer(f'["{message["nonce"]}","ended",{status}]')


def run(message: dict[str, Any]) -> str:
    """The line that says how many tests passed, of how many; or what is wrong with the suite."""
    nonce, name = message["nonce"], message["entry_point"]
    namespace: dict[str, Any] = {"__name__": "suite"}
    candidate = Remote(nonce)
    tally = Tally(candidate)
    run_shown(message["prompt"], namespace)
    try:
        module = ast.parse(message["test"])
        check = next((n for n in module.body if isinstance(n, ast.FunctionDef) and n.name == "check"), None)
        if check is not None:
            module.body = [n for n in module.body if not _calls(n, "check")]
        total = count_tests(module if check is None else check)
        program = compile(ast.fix_missing_locations(module), "<suite>", "exec")
    except Exception as error:
        return f'["{nonce}","fault",{quote(f"the suite cannot be read: {type(error).__name__}: {error}"[:240])}]'
    namespace |= {name: candidate, "candidate": candidate, "__tally": tally}
    try:
        try:
            exec(program, namespace)
            if check is not None:
                namespace["check"](candidate)
        except BaseException as error:
            tally.check(error)
            total += 1  # a statement between the tests failed; nothing after it ran
    except Fault as error:
        return f'["{nonce}","fault",{quote(str(error)[:240])}]'
    return f'["{nonce}","done",{tally.passed},{total}]'


def count_tests(node: ast.Module | ast.FunctionDef) -> int:
    """Let every statement of the body that holds an assertion be a test of its own, and say how many there are. Without
    any the whole body is one test. An assertion of a constant is none."""
    tests = [statement for statement in node.body if _asserts(statement)]
    if not tests:
        node.body = [_counted(node.body)]
        return 1
    node.body = [_counted([s]) if s in tests else s for s in node.body]
    return len(tests)


def _asserts(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return False
    return any(isinstance(n, ast.Assert) and not isinstance(n.test, ast.Constant) for n in ast.walk(statement))


def _calls(statement: ast.stmt, name: str) -> bool:
    call = statement.value if isinstance(statement, ast.Expr) else None
    return isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == name


def _counted(body: list[ast.stmt]) -> ast.stmt:
    """`try: body` that tells the tally how it went."""
    attempt = ast.parse(COUNTED).body[0]
    assert isinstance(attempt, ast.Try)
    attempt.body = body
    return attempt


def _write_back(args: Iterable[Any], after: Any) -> None:
    """Give the suite's lists, dicts and sets the contents that the candidate left in them. Only for calls that return
    None, as functions that work in place do: else emptying the list would satisfy `candidate(x) == sorted(x)`."""
    for mine, theirs in zip(args, after if type(after) is list else (), strict=False):
        if type(mine) is not type(theirs):
            continue
        if type(mine) is list:
            mine[:] = theirs
        elif type(mine) is dict or type(mine) is set:
            mine.clear()
            mine.update(theirs)
