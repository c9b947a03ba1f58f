"""Code that a prompt shows: candidates and tests may use what it defines, and its errors are nobody's."""

from __future__ import annotations

import _ast
import _signal  # type: ignore[import-not-found]  # `signal` imports `enum`, which takes long

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

ONLY_TREE, FUTURE_ANNOTATIONS = 0x400, 0x1000000
"""Flags of `compile`, as `ast.PyCF_ONLY_AST` and `__future__.annotations`, whose modules take long to import."""

SECONDS = 1.0
"""It is not charged to the candidate."""


class Overdue(BaseException):
    """The time is up. Not an Exception, so that the code does not take it for an error that it waits for."""


def run_shown(source: str, namespace: dict[str, Any]) -> int:
    """Run the code one statement after the other, whatever each raises, for at most SECONDS. Returns the flags that
    code after it is to be compiled with."""

    def strike(*_: object) -> NoReturn:
        raise Overdue

    flags = 0
    handler = _signal.signal(_signal.SIGALRM, strike)
    timer = _signal.setitimer(_signal.ITIMER_REAL, SECONDS)
    try:
        for statement in compile(source, "<prompt>", "exec", ONLY_TREE, dont_inherit=True).body:
            try:
                module = _ast.Module(body=[statement], type_ignores=[])
                code = compile(module, "<prompt>", "exec", flags, dont_inherit=True)
                flags |= code.co_flags & FUTURE_ANNOTATIONS
                exec(code, namespace)
            except Overdue:
                raise
            except BaseException:
                pass  # a call that reads input, say, or an annotation that nobody imported
    except (Overdue, SyntaxError, ValueError, RecursionError, MemoryError):
        pass
    finally:
        _signal.setitimer(_signal.ITIMER_REAL, *timer)
        _signal.signal(_signal.SIGALRM, handler)
    return flags
