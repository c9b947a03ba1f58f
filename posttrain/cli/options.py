"""From the words of a command line to one validated config.

tyro reads the words, pydantic judges the values. Every option is handed to pydantic as it was
typed, so that a wrong value gets the same kind of message wherever it comes from: one line that names the option.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, TypeVar, cast

import tyro
from pydantic import ValidationError
from pydantic.fields import FieldInfo
from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructFieldSpec, StructTypeInfo

from posttrain.cli.config_file import file_settings, without_config
from posttrain.cli.fields import metavar, repeats
from posttrain.config import Config
from posttrain.config.base import TakesRun, option_name
from posttrain.config.faults import messages
from posttrain.config.peer_names import ALIKE, look_up, meant
from posttrain.console import current_names
from posttrain.types import InputError

ConfigT = TypeVar("ConfigT", bound=Config)

EMPTY: Mapping[str, Any] = MappingProxyType({})
NOT_GIVEN = "\0"
"""Stands for an option that is not on the command line; no argument of a program can hold this character."""


def parse_options(
    config_class: type[ConfigT],
    args: Sequence[str],
    prog: str,
    positional: Mapping[str, str] = EMPTY,
    others: Mapping[str, Sequence[str]] = EMPTY,
    completed: Callable[[Path, dict[str, Any]], dict[str, Any]] | None = None,
) -> ConfigT:
    """The config that `args` describe. `positional` maps the fields that are given by place to what they are called
    in the help; the others are `--options`. `others` names the commands that have a field, for the message where an
    option is one of theirs. Where a flag that takes a run folder has one, `completed` adds its settings to those that
    were given. `--config FILE` gives options in YAML, over which those on the command line go.

    A field that is a tuple repeats; any other may be given once. Raises InputError with a line for each thing that is
    wrong.
    """
    args, file = without_config(_with_current_names(args))
    _refuse_repeats(config_class, args, positional)
    args, run = _without_run(config_class, args)
    registry = ConstructorRegistry()
    registry.struct_rule(lambda info: _fields_as_typed(info, positional))
    try:
        with redirect_stderr(StringIO()) as told:
            parsed, unknown = tyro.cli(
                config_class,
                prog=prog,
                args=args,
                return_unknown_args=True,
                add_help=False,  # see `option_help`
                registry=registry,
                config=(tyro.conf.UseAppendAction, tyro.conf.FlagCreatePairsOff),
            )
    except SystemExit:  # how tyro ends after an option without its value
        name = next(iter(re.findall(r"'(--[\w-]+)'", told.getvalue())), "an option")
        raise InputError(f"{name} needs a value; {prog} --help lists the options") from None
    options = _Options(config_class, prog, positional, others)
    if unknown:
        raise InputError(options.unknown_words(unknown))
    absent = (NOT_GIVEN, (), False)
    given = {name: value for name, value in cast("dict[str, Any]", parsed).items() if value not in absent}
    if run is not None and completed is not None:
        given = completed(run, given)
    settings = {} if file is None else file_settings(file, prog.rpartition(" ")[2], given, config_class)
    if strange := [key for key in settings if key not in config_class.model_fields]:
        raise InputError("\n".join(f"{file}: {options.unknown_key(key)}" for key in strange))
    try:
        return config_class(**settings | given)
    except ValidationError as error:
        names = dict(positional) | {key: f"{file}: {key}" for key in settings}
        faults = messages(config_class, error, lambda field: names.get(field, option_name(field)), option_name)
        raise InputError("\n".join(faults)) from error


def _with_current_names(args: Sequence[str]) -> list[str]:
    words = []
    for arg in args:
        option, equals, value = arg.partition("=")
        name = option.removeprefix("--").replace("-", "_")
        (now,) = current_names({name: value}) if option.startswith("--") else (name,)
        words.append(arg if now == name else option_name(now) + equals + value)
    return words


def _without_run(config_class: type[Config], args: Sequence[str]) -> tuple[list[str], Path | None]:
    """The words without the run folder that a flag names, which the parser could not read, and that folder."""
    flags = [option_name(name) for name, field in config_class.model_fields.items() if TakesRun() in field.metadata]
    words = [part for arg in args for part in (arg.split("=", 1) if arg.split("=")[0] in flags else [arg])]
    place = next((i for i, word in enumerate(words) if word in flags), len(words))
    if place + 1 >= len(words) or words[place + 1].startswith("-"):
        return list(args), None
    return words[: place + 1] + words[place + 2 :], Path(words[place + 1])


def _fields_as_typed(info: StructTypeInfo, positional: Mapping[str, str]) -> StructConstructorSpec | None:
    """The tyro rule for our configs: every field a word (or words, or a flag), none required, nothing converted."""
    if not (isinstance(info.type, type) and issubclass(info.type, Config)):
        return None
    fields = [_field_spec(name, field, positional.get(name)) for name, field in info.type.model_fields.items()]
    return StructConstructorSpec(instantiate=dict, fields=tuple(fields))


def _field_spec(name: str, field: FieldInfo, place: str | None) -> StructFieldSpec:
    several = repeats(field)
    if field.annotation is bool:
        return StructFieldSpec(name, bool, default=False)
    kind: Any = Annotated[tuple[str, ...] if several else str, tyro.conf.arg(metavar=place or metavar(field))]
    if place is not None:
        kind = Annotated[kind, tyro.conf.Positional]
    return StructFieldSpec(name, kind, default=() if several else NOT_GIVEN)


def _refuse_repeats(config_class: type[Config], args: Sequence[str], positional: Mapping[str, str]) -> None:
    """The parser would keep the last value and drop the others without a word."""
    names = Counter(arg.split("=")[0].replace("_", "-") for arg in args if arg.startswith("--"))
    for field, info in config_class.model_fields.items():
        if field not in positional and not repeats(info) and names[option_name(field)] > 1:
            raise InputError(f"{option_name(field)} was given {names[option_name(field)]} times; give it once")


@dataclass(frozen=True)
class _Options:
    """The options of a command, for messages about words that are none of them. `others` as in `parse_options`."""

    config_class: type[Config]
    prog: str
    positional: Mapping[str, str]
    others: Mapping[str, Sequence[str]]

    @property
    def fields(self) -> list[str]:
        return [field for field in self.config_class.model_fields if field not in self.positional]

    def unknown_words(self, unknown: Sequence[str]) -> str:
        """A line for each option that is not known, or for the first word that belongs to none."""
        options = dict.fromkeys(arg.partition("=")[0] for arg in unknown if arg.startswith("-"))
        if not options:
            return f"unexpected argument {unknown[0]!r}{self._instead_of_word(unknown[0])}"
        return "\n".join(f"unknown option {name}; {self._instead_of_option(name)}" for name in options)

    def unknown_key(self, key: str) -> str:
        """The same of a key in a file, where `--batch-size` is `batch_size`."""
        words = self._suggestion(key, list(self.config_class.model_fields))
        words = words.replace("--help lists", f"{self.prog} --help lists")
        return f"unknown key {key!r}; " + re.sub(
            r"(?<!\S)--([a-z][a-z-]+)(?=\?)", lambda m: m[1].replace("-", "_"), words
        )

    def _instead_of_option(self, name: str) -> str:
        key = name.lstrip("-").replace("-", "_")
        ours = look_up(key)
        for field in (key, *(ours.fields if ours else ())):
            if field in self.positional:
                return f"write {self.positional[field]} without it"
        return self._suggestion(key, self.fields)

    def _instead_of_word(self, word: str) -> str:
        """What to write in place of a word that is no option, such as verl's `data.train_files=FILE`."""
        name, equals, value = word.partition("=")
        key = name.lstrip("+").replace("-", "_")
        if not equals:
            return f"; posttrain run {word} runs a recipe" if word.endswith((".yaml", ".yml")) else ""
        field = key if key in self.fields else meant(key, self.fields)
        if field is None:
            return ""
        return f"; write {option_name(field)} {value}" if field in self.fields else f"; {field}"

    def _suggestion(self, key: str, fields: Sequence[str]) -> str:
        """What to write in place of the option `key`: the option of this command that another trainer calls so, the
        command that has it, what there is instead, or the option that resembles it."""
        ours, others = look_up(key), self.others
        for field in (*(ours.fields if ours else ()), key.rpartition(".")[2]):
            if field in fields:
                return f"did you mean {option_name(field)}?" + (f" {ours.words}" if ours and ours.words else "")
        if key in others:
            return f"it is an option of {_commands(others[key])}, not of {self.prog}"
        for field in ours.fields if ours else ():
            if field in others:
                owners = _commands(others[field])
                return f"that would be {option_name(field)}, an option of {owners}, not of {self.prog}"
        if ours is not None:
            return ours.words
        close = difflib.get_close_matches(key.removeprefix("no_"), fields, n=1, cutoff=ALIKE)
        return f"did you mean {option_name(close[0])}?" if close else "--help lists the options"


def _commands(names: Sequence[str]) -> str:
    """`posttrain rl, dpo and 3 others`."""
    shown, more = list(names[:3]), len(names) - 3
    if more > 0:
        shown.append("another" if more == 1 else f"{more} others")
    return "posttrain " + " and ".join(filter(None, (", ".join(shown[:-1]), shown[-1])))
