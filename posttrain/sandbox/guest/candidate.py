"""The untrusted side: runs a candidate's code. It knows inputs and nothing of what is expected; whatever the candidate
does to this process, the other side gets at most wrong answers from it."""

from __future__ import annotations

import os
import sys
from types import CodeType, ModuleType

from posttrain.sandbox.guest.boot import RESULTS, answer, request
from posttrain.sandbox.guest.plain import NotPlain, decode, encode, quote
from posttrain.sandbox.guest.shown import run_shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def serve() -> None:
    """Load the code of the first request, then call its entry point for every other one."""
    first = request()
    if "stdin" in first:
        run_program(first["sources"], first["stdin"])
        return
    try:
        module = ModuleType("candidate")
        sys.modules["candidate"] = module  # dataclasses and pickle look there
        load(first["sources"], module.__dict__)
        function = eval(first["entry_point"], module.__dict__)
    except BaseException as error:
        answer(_raised(first["nonce"], error))
        return
    answer(f'["{first["nonce"]}","loaded"]')
    while True:
        message = request()
        if "last" in message:
            answer(f'["{message["nonce"]}","last"]')
        else:
            answer(call(function, message))


def call(function: Any, message: dict[str, Any]) -> str:
    """The line of one call: returned (with the arguments as they are now, if it returned None), raised, or a value that
    is no plain data."""
    nonce = message["nonce"]
    try:
        args, kwargs = decode(message["args"]), decode(message["kwargs"])
        result = function(*args, **kwargs)
        after = encode(args) if result is None else "null"
        return f'["{nonce}","returned",{encode(result)},{after}]'
    except NotPlain as error:
        return f'["{nonce}","not plain",{quote(str(error)[:80])}]'
    except BaseException as error:
        return _raised(nonce, error)


def load(sources: list[tuple[str, str]], namespace: dict[str, Any]) -> None:
    """Run the first source that compiles, after the code that the prompt shows. To end with status 0 is no failure."""
    shown, code = first_that_compiles(sources)
    if shown and (flags := run_shown(shown, namespace)):
        _, code = first_that_compiles(sources, flags)
    try:
        exec(code, namespace)
    except SystemExit as end:
        if end.code:
            raise


def first_that_compiles(sources: list[tuple[str, str]], flags: int = 0) -> tuple[str, CodeType]:
    """What is shown before it, and the code. Raises what compiling the first raises, if none of them compiles."""
    failure: BaseException | None = None
    for shown, source in sources:
        try:
            return shown, compile(source, "<candidate>", "exec", flags, dont_inherit=True)
        except Exception as error:
            failure = failure or error
    raise failure or SyntaxError("no code")


def run_program(sources: list[tuple[str, str]], stdin: bytes) -> None:
    """Run a whole program; its standard output is the result, its exit status that of the process."""
    with open("/tmp/stdin", "wb") as file:
        file.write(stdin)
    source = os.open("/tmp/stdin", os.O_RDONLY)
    os.unlink("/tmp/stdin")
    os.dup2(source, 0)
    os.dup2(RESULTS, 1)
    os.close(source)
    os.close(RESULTS)
    main = ModuleType("__main__")
    sys.modules["__main__"] = main
    exec(first_that_compiles(sources)[1], main.__dict__)


def _raised(nonce: str, error: BaseException) -> str:
    try:
        text = str(error)[:200]
    except BaseException:
        text = ""
    return f'["{nonce}","raised",{quote(str(type(error).__name__)[:80])},{quote(text)}]'
