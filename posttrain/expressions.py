"""The grammar of what `--reward` takes.

    entry      = expression [ "=" weight ]
    expression = target [ "(" [ argument { "," argument } ] ")" ] [ " as " name ]
    target     = built-in name | file.py:function | package.module:function | any of these in double quotes
               | <function NAME sha256=…>, by itself: one that Python has handed over
    argument   = expression | name "=" literal
    literal    = a JSON value: 0.5, "text", true, null, ["a", "b"], {"a": 1}; True, False and None are taken too

Arguments by place are rewards, those by name bind parameters: `gate(format, clip(my.py:f, low=0)) as quality=0.5`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

from posttrain.functions import WRITTEN, FunctionText, refuse_unknown
from posttrain.types import InputError

QUOTED = re.compile(r'"([^"]+)"')
FILE = re.compile(r"""[^(),"'\n]+?\.py:[A-Za-z_]\w*""")
NAME = re.compile(r"""[^\s(),="':]+(?::[A-Za-z_]\w*)?""")
KEYWORD = re.compile(r"([A-Za-z_]\w*)\s*=(?!=)")
RENAMED = re.compile(r"\s+as\s+([A-Za-z_][\w-]*)")
SPACE = re.compile(r"\s*")
PYTHON = re.compile(r"(?:True|False|None)\b")
EXPECTED = {
    "reward": "a reward (a name, file.py:function or package.module:function)",
    "environment": "an environment (a name, file.py:Class or package.module:Class)",
}


@dataclass(frozen=True)
class Expression:
    """A parsed expression. `text` is what it was parsed from, without the new name. `models` names the models of a
    reward that a model computes, which are written as arguments."""

    target: str
    text: str
    arguments: tuple[Expression, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    renamed: str | None = None
    models: tuple[str, ...] = ()
    function: FunctionText | None = None
    """What Python has handed over, to be loaded in place of the target."""

    def walk(self) -> Iterator[Expression]:
        """This expression and all inside it."""
        yield self
        for argument in self.arguments:
            yield from argument.walk()


def written(expression: Expression) -> str:
    """The text of an expression, as it is parsed."""
    target = expression.target
    if not (FILE.fullmatch(target) or NAME.fullmatch(target)):
        target = f'"{target}"'
    arguments = [*map(written, expression.arguments)]
    arguments += [f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in expression.options.items()]
    renamed = f" as {expression.renamed}" if expression.renamed else ""
    return target + (f"({', '.join(arguments)})" if arguments else "") + renamed


def wrapped(rewards: Sequence[str], wrapper: str) -> tuple[str, ...]:
    """The entries of rewards with a wrapper, an expression with `{}`, around the expression of each, under its name and
    weight. A wrapper without `{}` stands in place of all. Raises what `parse_entry` raises."""
    if "{}" not in wrapper:
        return (wrapper,)
    entries = []
    for reward in rewards:
        expression, weight = parse_entry(reward)
        name = f" as {expression.renamed}" if expression.renamed else ""
        inside = written(replace(expression, renamed=None))
        entries.append(wrapper.replace("{}", inside) + name + ("" if weight == "1" else f"={weight}"))
    return tuple(entries)


def parse_entry(text: str) -> tuple[Expression, str]:
    """The expression and the text of its weight (`"1"` where there is none). Raises InputError with the position."""
    parser = _Parser(text)
    expression = parser.expression()
    if parser.take(SPACE) is not None and parser.rest.startswith("="):
        return expression, parser.rest[1:].strip()
    if parser.rest:
        parser.fail("expected '=' and a weight, or the end")
    return expression, "1"


def parse_call(text: str, noun: str) -> Expression:
    """An expression alone, without weight or name; `noun`, one of `EXPECTED`, says what it names.

    Raises InputError with the position."""
    parser = _Parser(text, noun)
    expression = parser.expression()
    parser.take(SPACE)
    if parser.rest or expression.renamed:
        parser.fail("expected the end")
    return expression


class _Parser:
    def __init__(self, text: str, noun: str = "reward") -> None:
        self._text, self._noun = str(text), noun
        self._given = text if isinstance(text, FunctionText) else None
        self._at = 0

    @property
    def rest(self) -> str:
        return self._text[self._at :]

    def take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        match = pattern.match(self._text, self._at)
        if match:
            self._at = match.end()
        return match

    def fail(self, expected: str) -> NoReturn:
        found = repr(self.rest[:20]) if self.rest else "its end"
        raise InputError(f"{self._noun} {self._text!r}, character {self._at + 1}: {expected}; found {found}")

    def expression(self) -> Expression:
        self.take(SPACE)
        start = self._at
        if quoted := self.take(QUOTED):
            target = quoted.group(1)
        elif plain := self.take(WRITTEN) or self.take(FILE) or self.take(NAME):
            target = plain.group()
            if self._given is None:
                refuse_unknown(target, self._noun)
        else:
            self.fail(f"expected {EXPECTED[self._noun]}")
        arguments, options = self._arguments() if self.rest.startswith("(") else ((), {})
        found = Expression(target, self._text[start : self._at], arguments, options, function=self._given)
        renamed = self.take(RENAMED)
        return replace(found, renamed=renamed.group(1)) if renamed else found

    def _arguments(self) -> tuple[tuple[Expression, ...], dict[str, Any]]:
        arguments: list[Expression] = []
        options: dict[str, Any] = {}
        while True:
            self._at += 1  # the bracket or the comma
            self.take(SPACE)
            if self.rest.startswith(")") and not (arguments or options):
                break
            if keyword := self.take(KEYWORD):
                if keyword.group(1) in options:
                    self.fail(f"{keyword.group(1)} was given before")
                options[keyword.group(1)] = self._literal()
            elif options:
                self.fail("expected NAME=value, since rewards stand before named options")
            else:
                arguments.append(self.expression())
            self.take(SPACE)
            if not self.rest.startswith((",", ")")):
                self.fail("expected ',' or ')'")
            if self.rest.startswith(")"):
                break
        self._at += 1
        return tuple(arguments), options

    def _literal(self) -> Any:
        self.take(SPACE)
        if python := self.take(PYTHON):
            return {"True": True, "False": False, "None": None}[python.group()]
        try:
            value, self._at = JSON.raw_decode(self._text, self._at)
        except ValueError:
            self.fail('expected a value: a number, "text" in double quotes, true, false, null, [...] or {...}')
        return value


def finite(text: str) -> float:
    """The number, also by name as `NaN`. Raises ValueError for one that no double holds."""
    value = float(text)
    if value - value != 0:
        raise ValueError(text)
    return value


JSON = json.JSONDecoder(parse_float=finite, parse_constant=finite)
