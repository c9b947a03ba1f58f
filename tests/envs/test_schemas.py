"""Schemas of tools against transformers' own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any, Dict, List, Literal, Optional, Tuple, Union  # noqa: UP035

import pytest
import torch
from PIL.Image import Image
from transformers.utils.chat_template_utils import (
    DocstringParsingException,
    TypeHintParsingException,
    get_json_schema,
)

from posttrain.envs.shipped.calculator import Calculator
from posttrain.envs.shipped.games import GuessNumberTool
from posttrain.envs.shipped.python import Python
from posttrain.envs.shipped.search import Search
from posttrain.envs.tools import NoSchema, function_schema

HINTS: list[Any] = [
    *(int, float, str, bool, None, Any, list, tuple, dict, object, bytes, set, complex),
    *(Image, torch.Tensor),
    *(list[int], list[list[str]], list[Any], list[int | None], list[dict[str, float]]),
    *(dict[str, int], dict[str, list[bool]], dict[str, dict[str, Any]], dict[int, str]),
    *(tuple[int, str], tuple[list[int], float | None], tuple[()]),
    *(List, Dict, Tuple, List[int], Dict[str, int], Tuple[int, int]),  # noqa: UP006
    *(int | None, Optional[str], list[int] | None, int | str, str | int | None, bool | float | int),  # noqa: UP045
    *(list | tuple, list | None, int | list[str], dict[str, int] | list[int] | None, Union[int, int]),  # noqa: UP007
    *(Literal["a"], Literal["a", "b"], Literal[1, 2], Literal[1, "a"], Literal[1, 1.5, None], Literal[True, "x"]),
    *(Literal["a"] | None, Optional[Literal["a", 2]], list[Literal["a", "b"]], Literal["a"] | int),  # noqa: UP045
    *(Literal["a"] | Literal["b"], Any | None, list[Any] | Any),
    *(Sequence[int], type[int], Callable[[int], int], Literal[b"a"], set[int], "NoSuchName"),
]


def with_hint(hint: Any) -> Callable[..., Any]:
    def tool(x: Any, y: Any = None) -> Any:
        """Do it.

        Args:
            x: The first.
            y: The second.

        Returns:
            What comes of it.
        """

    tool.__annotations__ = {"x": hint, "y": hint, "return": hint}
    return tool


def plain(a: int) -> str:
    """One line.

    Args:
        a: A number.
    """
    return str(a)


def sections(a: int, long_name: str = "x: y", *, only: float | None = None) -> None:
    """First line, which goes
    on in a second.

    A paragraph with a colon: here. Another one.

    Args:
        a: It goes on
            over several lines,

            with a blank one between.
        long_name: With a colon: inside, and (brackets).
        only (float): Not read as a name.
        only:   Padded.

    Returns:
        The result,
        in two lines.

    Raises:
        ValueError: never.
    """


def choices(drink: str, size: int, mixed: Any) -> str:
    """Order.

    Args:
        drink: What to drink (choices: [" tea", "coffee "])
        size: How large (Choices: [1, 2])
        mixed: Anything (choices: ["a", 1, null]) and more
    """
    return drink


def raises_first(a: int) -> None:
    """Do it.

    Raises:
        ValueError: before the rest.

    Args:
        a: A number.
    """


def returns_first(a: int) -> int:
    """Do it.

    Returns:
        A number.

    Args:
        a: A number.
    """
    return a


def arguments_at_once(a: int) -> int:
    """Args:
    a: A number.
    """
    return a


def no_space(a: int, b: str) -> None:
    """Do it. Args: in the text, and Returns: too.
    Args:
      a:Without a blank.
      b:
        On the next line.
    """


def unicode(größe: int) -> None:
    """Größe in „mm“ – 10×.

    Args:
        größe: Die Größe, ≥ 0 …
    """


def everything(*rest: int, **named: str) -> None:
    """Take all.

    Args:
        rest: Numbers.
        named: Words.
    """


def no_arguments() -> int:
    """Nothing to say."""
    return 0


def unreturned(a: int):  # type: ignore[no-untyped-def]
    """Do it.

    Args:
        a: A number.
    """


def documented_unreturned(a: int):  # type: ignore[no-untyped-def]
    """Do it.

    Args:
        a: A number.

    Returns:
        Something without a type.
    """


def untold(a: int, b: int) -> None:
    """Do it.

    Args:
        a: A number.
    """


def untyped(a: int, b) -> None:  # type: ignore[no-untyped-def]
    """Do it.

    Args:
        a: A number.
        b: Another.
    """


def numpy_style(a: int) -> None:
    """Do it.

    Parameters
    ----------
    a : int
        A number.
    """


def sphinx_style(a: int) -> None:
    """Do it.

    :param a: A number.
    """


def undocumented(a: int) -> None: ...


def blank(a: int) -> None:
    """ """


def broken_choices(a: str) -> None:
    """Do it.

    Args:
        a: A word (choices: ['tea'])
    """


class Tools:
    def method(self, a: int, b: list[str] | None = None) -> str:
        """Do it.

        Args:
            a: A number.
            b: Words.
        """
        return ""

    @classmethod
    def of_class(cls, a: int) -> None:
        """Do it.

        Args:
            a: A number.
        """

    def typed_self(self: Tools, a: int) -> None:
        """Do it.

        Args:
            a: A number.
        """


FUNCTIONS: list[Callable[..., Any]] = [
    *(plain, sections, choices, raises_first, returns_first, arguments_at_once, no_space, unicode, everything),
    *(no_arguments, unreturned, documented_unreturned, untold, untyped, numpy_style, sphinx_style, undocumented, blank),
    *(broken_choices, Tools().method, Tools.method, Tools.of_class, Tools().typed_self, Tools.typed_self),
    *(Calculator().calculate, GuessNumberTool().guess, Python.python, Search.search, Search.read),
]


def outcome(describe: Callable[[Any], Any], function: Callable[..., Any]) -> str:
    """The schema as JSON, which keeps the order of keys, or the error."""
    try:
        return json.dumps(describe(function))
    except (NoSchema, DocstringParsingException, TypeHintParsingException) as error:
        return f"NoSchema: {error}"
    except (NameError, ValueError, TypeError) as error:
        return f"{type(error).__name__}: {error}"


def test_tuples_that_have_no_schema() -> None:
    for hint in (tuple[int], tuple[int, ...]):
        for describe in (function_schema, get_json_schema):
            with pytest.raises((NoSchema, TypeHintParsingException), match="(?i)tuple"):
                describe(with_hint(hint))


@pytest.mark.parametrize("hint", HINTS, ids=str)
def test_a_type_hint_has_the_schema_that_transformers_gives_it(hint: Any) -> None:
    tool = with_hint(hint)
    assert outcome(function_schema, tool) == outcome(get_json_schema, tool)


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__qualname__)
def test_a_docstring_is_read_as_transformers_reads_it(function: Callable[..., Any]) -> None:
    assert outcome(function_schema, function) == outcome(get_json_schema, function)


def test_tools_are_described_without_torch() -> None:
    code = (
        "import sys; from posttrain.envs.server import EnvServer; from posttrain.envs.specs import parse_spec; "
        "(answer,) = EnvServer().answer({'kind': 'load', 'expression': parse_spec('calculator')}); "
        "assert answer['schemas'][0]['function']['name'] == 'calculate', answer; "
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
