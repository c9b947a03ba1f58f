"""How Python's users read messages and helps: they name options and commands as the command line does, and this module
alone says how Python writes these."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, wraps
from typing import Any, TypeVar

from posttrain import config as configs
from posttrain.config import Config
from posttrain.console import speaking
from posttrain.methods import METHODS
from posttrain.types import InputError, RunFailed, RunPaused

PRINTED_ONLY = {"dry_run", "plan", "list"}
"""Options of commands that only print, which Python's functions do not take."""
FUNCTIONS = {
    **{name: name.replace("-", "_") for name in (*METHODS, "run", "score", "audit", "compare", "check-data")},
    "eval": "evaluate",
    "report": "write_report",
    "chat": "Run.generate",
}
"""What commands are called in Python."""
COMMAND = (
    r"(?<![\w.])posttrain (?P<command>[a-z-]+)(?P<place>(?: [A-Z][A-Z.]*)*)(?P<given>(?: --[a-z-]+(?: [\w./]+)?)*)"
)
OPTION = r"(?<![\w-])--(?P<option>[a-z][a-z-]*)(?: (?P<value>\w+=[\w=,]+|\d+\b(?!\.)|(?<=--model )[\w./-]*\w))?"
FUNCTION = r"(?P<function>sha256=[0-9a-f]{8})[0-9a-f]{56}(?=>)"
WRITTEN = re.compile(f"{COMMAND}|{OPTION}|{FUNCTION}")
Function = TypeVar("Function", bound=Callable[..., Any])


def in_python(text: str) -> str:
    """`--max-steps` as `max_steps`, `--keep 1` as `keep=1`, the flag `--resume` as `resume=True`, `--columns
    prompt=question` with its value in quotes; `posttrain dpo --loss kto` as `pt.dpo(loss="kto")`. What only prints
    stays a command. Of the hash of a function 8 digits are shown."""
    return WRITTEN.sub(_written, text)


def _written(found: re.Match[str]) -> str:
    if found["function"]:
        return found["function"]
    if found["command"] is None:
        return _option(found["option"], found["value"]) or found[0]
    name = FUNCTIONS.get(found["command"])
    given = [_option(*each.split(" ", 1)) for each in found["given"].split(" --")[1:]]
    if name is None or None in given:
        return found[0]
    arguments = [*found["place"].split(), *filter(None, given)]
    return f"pt.{name}" + (f"({', '.join(arguments)})" if arguments else "")


def _option(written: str, value: str | None = None) -> str | None:
    """An option with its value, if that is known; None for what is no option of Python."""
    name = written.replace("-", "_")
    if name not in _flags():
        return None
    if _flags()[name]:
        return f"{name}=True"
    if not value:
        return name
    return f"{name}={value}" if value.isupper() or value.isdigit() else f'{name}="{value}"'


@cache
def _flags() -> dict[str, bool]:
    """Whether an option is a flag, of every option that Python has."""
    kinds = [kind for kind in vars(configs).values() if isinstance(kind, type) and issubclass(kind, Config)]
    fields = {name: field for kind in kinds for name, field in kind.model_fields.items()}
    return {name: field.annotation is bool for name, field in fields.items() if name not in PRINTED_ONLY}


@contextmanager
def python_words() -> Iterator[None]:
    """What is printed and raised in here names options as Python writes them."""
    with speaking(in_python):
        try:
            yield
        except (InputError, RunFailed, RunPaused) as error:
            error.args = (in_python(str(error)),)
            raise


def speaks_python(function: Function) -> Function:
    """A function whose messages name options as Python writes them."""

    @wraps(function)
    def speaking(*given: Any, **options: Any) -> Any:
        with python_words():
            return function(*given, **options)

    return speaking  # type: ignore[return-value]
