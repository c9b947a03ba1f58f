"""What `--env` names, and how instances of it are made.

An environment is a class with `reset`, or a function that returns an instance of one: `file.py:Class`,
`package.module:Class` or a built-in name, with options in the grammar of `rewards.expressions`. Arguments by place are
text, such as a file; one with a colon is another class or function, handed over as something to call.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from posttrain.expressions import Expression, parse_call
from posttrain.types import InputError
from posttrain.workers.user_code import close_match, load_object

__posttrain_internal__ = True

BUILTINS: Mapping[str, str] = {
    "calculator": "posttrain.envs.shipped.calculator:Calculator",
    "python": "posttrain.envs.shipped.python:Python",
    "search": "posttrain.envs.shipped.search:Search",
    "guess_number": "posttrain.envs.shipped.games:GuessNumber",
    "guess_number_tool": "posttrain.envs.shipped.games:GuessNumberTool",
    "rooms": "posttrain.envs.shipped.games:Rooms",
    "gym": "posttrain.envs.shipped.games:Gym",
    "gymnasium": "posttrain.envs.adapters:Gymnasium",
    "openenv": "posttrain.envs.adapters:OpenEnv",
    "verifiers": "posttrain.envs.verifiers_env:verifiers",
}

Factory = Callable[..., Any]


def parse_spec(text: str) -> Expression:
    """Raises InputError for a faulty expression and for an unknown name."""
    expression = parse_call(text, "environment")
    target = expression.target
    if expression.function is not None:
        return expression
    file, colon, name = target.rpartition(":")
    if not colon and target.endswith(".py"):
        raise InputError(f"environment {target!r} is a file; name the class in it: {target}:CLASS")
    if target not in BUILTINS and not (colon and file and name.isidentifier()):
        raise InputError(
            f"unknown environment {target!r}{close_match(target, list(BUILTINS)) or ';'} built in are "
            f"{', '.join(BUILTINS)}; your own is named file.py:Class or package.module:Class"
        )
    return expression


def files_of(expression: Expression) -> list[str]:
    """The files and modules that an instance needs, as targets."""
    return [part.target for part in expression.walk() if ":" in part.target]


def factory(expression: Expression) -> Factory:
    """What makes instances. Raises what importing raises, LookupError for a missing name, InputError for an object that
    cannot be called."""
    if expression.function is not None:
        return expression.function.load()
    target = BUILTINS.get(expression.target, expression.target)
    made = load_object(target, "class or function", lambda found: inspect.isclass(found) or inspect.isfunction(found))
    if not callable(made):
        raise InputError(f"it is a {type(made).__name__}; an environment is a class, or a function that returns one")
    arguments = [factory(part) if ":" in part.target else part.target for part in expression.arguments]
    return partial(made, *arguments, **expression.options)
