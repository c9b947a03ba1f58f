"""The paths of a recipe, which are relative to its file, as paths from the current directory.

What a recipe writes is no such path: `--out`, and the caches of endpoints and judges.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from posttrain.config import REWARDS, HeldOut, Recipe, as_tuple
from posttrain.config.model_names import SMOLLM2, TINY
from posttrain.console import warn
from posttrain.data.builtin import is_builtin
from posttrain.data.sources import with_names
from posttrain.expressions import Expression, parse_call, parse_entry, written
from posttrain.recipes.load import RecipeText
from posttrain.recipes.stages import OTHER_MODELS, START
from posttrain.rewards.registry import BUILTINS, JUDGES
from posttrain.types import InputError

WRITTEN = ("cache",)
"""Options of rewards that name what is written."""


def placed(recipe: Recipe, text: RecipeText) -> Recipe:
    """The recipe with its paths as they are seen from here: a path is that of a file beside the recipe's where there is
    one, else of one in the current directory, with one warning. A path that leads nowhere stays as it is.

    A setting that `--set` gives is looked for in the current directory first. A shipped recipe has its files beside it;
    others that it names are the user's, without a warning."""
    folder = os.path.join(text.folder, "") if text.folder.name or text.folder.is_absolute() else ""
    paths = _Paths(folder, {*recipe.stages, *recipe.audits})

    def moved(place: tuple[str, ...], settings: Mapping[str, Any]) -> dict[str, Any]:
        return {
            key: KINDS[key](replace(paths, here_first=isinstance(text.lines.get((*place, key)), str)), value)
            for key, value in settings.items()
            if key in KINDS and value is not None
        }

    changes = moved((), {"model": recipe.model})
    if recipe.evaluate is not None:
        held_out = {name: getattr(recipe.evaluate, name) for name in HeldOut.model_fields}
        changes["evaluate"] = recipe.evaluate.model_copy(update=moved(("evaluate",), held_out))
    for part, settings in (("audits", recipe.audits), ("stages", recipe.stages)):
        changes[part] = {name: {**raw, **moved((part, name), raw)} for name, raw in settings.items()}
    if paths.elsewhere and not text.is_shipped:
        warn(
            f"{text.name}: not beside the recipe, and taken from the current directory: "
            f"{', '.join(dict.fromkeys(paths.elsewhere))}. Paths in a recipe are relative to its file"
        )
    return recipe.model_copy(update=changes)


@dataclass(frozen=True)
class _Paths:
    """Names of files beside the recipe as paths from here. `folder` ends with a separator, or is empty for the current
    directory. `elsewhere` collects what was found in the current directory alone."""

    folder: str
    stages: Collection[str]
    elsewhere: list[str] = field(default_factory=list)
    here_first: bool = False

    def data(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self.data(part) for part in value]
        if not isinstance(value, str) or value.partition("*")[0] in self.stages or is_builtin(value):
            return value
        with suppress(InputError):  # whoever reads it tells what is wrong
            return with_names(value, "" if self.here_first else self.folder, self._path)
        return value

    def rewards(self, value: Any) -> Any:
        entries = as_tuple(value)
        return type(entries)(map(self.reward, entries)) if isinstance(entries, list | tuple) else value

    def reward(self, entry: Any) -> Any:
        """The entry as it is where nothing in it moves, so that its text stays the one that was written."""
        if not isinstance(entry, str):
            return entry
        with suppress(InputError):  # as above
            expression, weight = parse_entry(entry)
            moved = self._expression(expression)
            return entry if moved == expression else written(moved) + ("" if weight == "1" else f"={weight}")
        return entry

    def environment(self, value: Any) -> Any:
        """Arguments by place are files or other texts, or classes of a file."""
        with suppress(InputError, TypeError):
            given = parse_call(value, "environment")
            arguments = tuple(replace(part, target=self._target(part.target, self.file)) for part in given.arguments)
            options = {name: self.file(option) for name, option in given.options.items()}
            target = self._target(given.target, lambda name: name)
            moved = replace(given, target=target, arguments=arguments, options=options)
            return value if moved == given else written(moved)
        return value

    def model(self, value: Any) -> Any:
        named = not isinstance(value, str) or value in (*self.stages, START, TINY, SMOLLM2)
        return value if named else self._path(value, os.path.isdir)

    def file(self, value: Any) -> Any:
        return self._path(value, os.path.isfile) if isinstance(value, str) else value

    def _path(self, name: str, exists: Callable[[str], bool] = os.path.exists) -> str:
        at_home = os.path.expanduser(name)
        if at_home != name and exists(at_home):
            return at_home
        if not name or not self.folder or os.path.isabs(name):
            return name
        beside, here = exists(self.folder + name), exists(name)
        if beside and not (here and self.here_first):
            return self.folder + name
        if here and not self.here_first:
            self.elsewhere.append(name)
        return name

    def _expression(self, given: Expression) -> Expression:
        """A reward with the files of functions, the folders of models and the files that options name."""
        builtin = BUILTINS.get(given.target)
        target, arguments, options = given.target, given.arguments, dict(given.options)
        if builtin is not None and builtin.models:
            arguments = tuple(replace(part, target=self._folder(part.target)) for part in arguments)
        else:
            arguments = tuple(map(self._expression, arguments))
            target = target if builtin is not None else self._target(target, self._folder)
        judge = given.target in JUDGES
        for name, value in given.options.items():
            if isinstance(value, str) and not (judge and name in WRITTEN):
                options[name] = self._folder(value) if judge and name == "model" else self.file(value)
        return replace(given, target=target, arguments=arguments, options=options)

    def _folder(self, name: str) -> str:
        return name if name in (TINY, SMOLLM2) else self._path(name, os.path.isdir)

    def _target(self, name: str, plain: Callable[[str], str]) -> str:
        """`file.py:function`, the name of something else, which stays, or without a colon what is `plain`."""
        file, colon, function = name.rpartition(":")
        if not colon:
            return plain(name)
        return f"{self.file(file)}:{function}" if file.endswith(".py") else name


KINDS: Mapping[str, Callable[[_Paths, Any], Any]] = {
    **dict.fromkeys(("data", "eval_data", "ptx_data"), _Paths.data),
    **dict.fromkeys(("replay", "principles", "chat_template"), _Paths.file),
    **dict.fromkeys(("model", "audit", *OTHER_MODELS), _Paths.model),
    **dict.fromkeys(REWARDS, _Paths.rewards),
    "gold": _Paths.reward,
    "env": _Paths.environment,
}
"""How the settings that name files are read."""
