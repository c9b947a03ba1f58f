"""From the words of a command line to one validated config.

tyro reads the words and prints the help, pydantic judges the values. Every option is handed to pydantic as it was
typed, so that a wrong value gets the same kind of message wherever it comes from: one line that names the option.
"""

from __future__ import annotations

import difflib
import inspect
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, cast, get_args, get_origin

import tyro
from pydantic import ValidationError
from pydantic.fields import FieldInfo
from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructFieldSpec, StructTypeInfo

from posttrain.config import Config
from posttrain.config.base import TakesRun
from posttrain.types import InputError

ConfigT = TypeVar("ConfigT", bound=Config)

METAVARS: Mapping[Any, str] = {int: "INT", float: "FLOAT", Path: "PATH", dict[str, str]: "FIELD=COLUMN,..."}
EMPTY: Mapping[str, str] = MappingProxyType({})
NAMES_ELSEWHERE: Mapping[str, str] = MappingProxyType(
    {
        "--model-name-or-path": "model",
        "--model-name": "model",
        "--output-dir": "out",
        "--dataset-name": "data",
        "--train-file": "data",
        "--lr": "learning_rate",
        "--num-train-epochs": "epochs",
        "--num-iterations": "updates_per_batch",
        "--ppo-epochs": "updates_per_batch",
        "--num-ppo-epochs": "updates_per_batch",
        "--per-device-train-batch-size": "batch_size",
        "--max-completion-length": "max_new_tokens",
        "--reward-funcs": "reward",
        "--num-generations": "group_size",
        "--lora-r": "lora_rank",
        "--save-steps": "save_every",
        "--eval-steps": "eval_every",
        "--resume-from-checkpoint": "resume",
    }
)
"""Options of other trainers (TRL, transformers, peft) that nothing here resembles, and ours for the same purpose."""
NOT_GIVEN = "\0"
"""Stands for an option that is not on the command line; no argument of a program can hold this character."""


def parse_options(
    config_class: type[ConfigT],
    args: Sequence[str],
    prog: str,
    positional: Mapping[str, str] = EMPTY,
    note: str = "",
    completed: Callable[[Path, dict[str, Any]], dict[str, Any]] | None = None,
) -> ConfigT:
    """The config that `args` describe. `positional` maps the fields that are given by place to what they are called
    in the help; the others are `--options`. The help describes the config by its docstring and `note`. Where a
    flag that takes a run folder has one, `completed` adds its settings to those that were given.

    A field that is a tuple repeats; any other may be given once. Raises InputError with a line for each thing that is
    wrong, and SystemExit(0) after printing the help for `--help`.
    """
    _refuse_repeats(config_class, args, positional)
    args, run = _without_run(config_class, args)
    registry = ConstructorRegistry()
    registry.struct_rule(lambda info: _fields_as_typed(info, positional))
    parsed, unknown = tyro.cli(
        config_class,
        prog=prog,
        description="\n\n".join(filter(None, (inspect.getdoc(config_class), note))),
        args=args,
        return_unknown_args=True,
        registry=registry,
        config=(tyro.conf.UseAppendAction, tyro.conf.FlagCreatePairsOff),
    )
    if unknown:
        raise InputError(_unknown_message(config_class, unknown, positional))
    absent = (NOT_GIVEN, (), False)
    given = {name: value for name, value in cast("dict[str, Any]", parsed).items() if value not in absent}
    if run is not None and completed is not None:
        given = completed(run, given)
    try:
        return config_class(**given)
    except ValidationError as error:
        raise InputError("\n".join(_messages(config_class, error, positional))) from error


def _without_run(config_class: type[Config], args: Sequence[str]) -> tuple[list[str], Path | None]:
    """The words without the run folder that a flag names, which the parser could not read, and that folder."""
    flags = [option_name(name) for name, field in config_class.model_fields.items() if TakesRun() in field.metadata]
    words = [part for arg in args for part in (arg.split("=", 1) if arg.split("=")[0] in flags else [arg])]
    place = next((i for i, word in enumerate(words) if word in flags), len(words))
    if place + 1 >= len(words) or words[place + 1].startswith("-"):
        return list(args), None
    return words[: place + 1] + words[place + 2 :], Path(words[place + 1])


def option_name(field: str) -> str:
    """`batch_size` is `--batch-size`."""
    return "--" + field.replace("_", "-")


def _fields_as_typed(info: StructTypeInfo, positional: Mapping[str, str]) -> StructConstructorSpec | None:
    """The tyro rule for our configs: every field a word (or words, or a flag), none required, nothing converted."""
    if not (isinstance(info.type, type) and issubclass(info.type, Config)):
        return None
    fields = [_field_spec(name, field, positional.get(name)) for name, field in info.type.model_fields.items()]
    return StructConstructorSpec(instantiate=dict, fields=tuple(fields))


def _field_spec(name: str, field: FieldInfo, place: str | None) -> StructFieldSpec:
    repeats = _repeats(field)
    if field.annotation is bool:
        flag: Any = Annotated[bool, tyro.conf.arg(help_behavior_hint="")]
        return StructFieldSpec(name, flag, default=False, helptext=_help(field))
    hint = tyro.conf.arg(metavar=place or _metavar(field), help_behavior_hint=_hint(field, repeats and place is None))
    kind: Any = Annotated[tuple[str, ...] if repeats else str, hint]
    if place is not None:
        kind = Annotated[kind, tyro.conf.Positional]
    return StructFieldSpec(name, kind, default=() if repeats else NOT_GIVEN, helptext=_help(field))


def _help(field: FieldInfo) -> str:
    """The description as one paragraph: its lines are broken for the source, the help breaks its own."""
    return " ".join((field.description or "").split())


def _repeats(field: FieldInfo) -> bool:
    return get_origin(field.annotation) is tuple


def _metavar(field: FieldInfo) -> str:
    """What the help shows for a value: the choices of a Literal, else `INT`, `FLOAT`, `PATH` or `TEXT`."""
    leaves = _leaf_types(field.annotation)
    for leaf in leaves:
        if get_origin(leaf) is Literal:
            return "{" + ",".join(map(str, get_args(leaf))) + "}"
    return next((name for kind, name in METAVARS.items() if kind in leaves), "TEXT")


def _leaf_types(kind: Any) -> list[Any]:
    """The types in a union, without `Annotated` and `None`."""
    origin = get_origin(kind)
    if origin is Annotated:
        return _leaf_types(get_args(kind)[0])
    if origin in (Union, UnionType):
        return [leaf for part in get_args(kind) if part is not type(None) for leaf in _leaf_types(part)]
    return [kind]


def _hint(field: FieldInfo, repeats: bool) -> str:
    words = ["repeatable"] if repeats else []
    if field.is_required():
        words.append("required")
    elif field.default not in (None, ()):
        default = field.default
        words.append(f"default: {', '.join(map(str, default)) if isinstance(default, tuple) else default}")
    return f"({', '.join(words)})" if words else ""


def _refuse_repeats(config_class: type[Config], args: Sequence[str], positional: Mapping[str, str]) -> None:
    """The parser would keep the last value and drop the others without a word."""
    names = Counter(arg.split("=")[0].replace("_", "-") for arg in args if arg.startswith("--"))
    for field, info in config_class.model_fields.items():
        if field not in positional and not _repeats(info) and names[option_name(field)] > 1:
            raise InputError(f"{option_name(field)} was given {names[option_name(field)]} times; give it once")


def _unknown_message(config_class: type[Config], unknown: Sequence[str], positional: Mapping[str, str]) -> str:
    first = next((arg for arg in unknown if arg.startswith("-")), unknown[0])
    if not first.startswith("-"):
        return f"unexpected argument {first!r}"
    name = first.split("=")[0]
    options = [option_name(field) for field in config_class.model_fields if field not in positional]
    written = name.replace("_", "-")
    if (field := written.removeprefix("--")) in positional:
        return f"unknown option {name}; write {positional[field]} without it"
    meant = option_name(NAMES_ELSEWHERE.get(written, ""))
    close = [meant] if meant in options else difflib.get_close_matches(written, options, n=1)
    return f"unknown option {name}" + (f"; did you mean {close[0]}?" if close else "; --help lists the options")


def _messages(config_class: type[Config], error: ValidationError, positional: Mapping[str, str]) -> list[str]:
    """A line for each fault pydantic found."""
    lines = []
    for fault in error.errors(include_url=False):
        if not fault["loc"]:  # a rule between fields, which it names as Python does
            lines.append(_with_option_names(config_class, fault["msg"].removeprefix("Value error, ")))
            continue
        field = str(fault["loc"][0])
        name = positional.get(field, option_name(field))
        if fault["type"] in ("missing", "too_short"):
            lines.append(f"{name} is required")
        else:
            rule = fault["msg"].removeprefix("Value error, ").split(", unable to parse")[0]
            rule = rule.replace("Input should be", "must be")
            lines.append(f"{name} {rule}, not {fault['input']!r}")
    return lines


def _with_option_names(config_class: type[Config], message: str) -> str:
    """`batch_size` becomes `--batch-size`. Names without an underscore may be plain words and stay, but for the first
    word of the message."""
    first = message.partition(" ")[0]
    if first in config_class.model_fields and "_" not in first:
        message = option_name(first) + message[len(first) :]
    for field in config_class.model_fields:
        if "_" in field:
            message = re.sub(rf"\b{field}\b", option_name(field), message)
    return message
