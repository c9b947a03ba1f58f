"""Recipes: a YAML file, at one of its sizes and with changes, as one checked `Recipe`."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from posttrain.config import Recipe
from posttrain.types import InputError

MERGE = "tag:yaml.org,2002:merge"
"""What YAML calls the key `<<`, which takes over the keys of another mapping."""


class _UniqueKeys(yaml.SafeLoader):
    """Safe YAML in which a key that is given twice is an error: two stages of one name would be one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value if key.tag != MERGE]
        for i, key in enumerate(keys):
            if key in keys[:i]:
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


def load_recipe(name: str, overrides: tuple[str, ...] = (), size: str | None = None) -> Recipe:
    """A shipped recipe by name, or a YAML file, at one of its sizes (the first, if none is given), with
    `stage.key=value` overrides (`evaluate.key`, `model` and `seed` too; values are YAML)."""
    text = _recipe_text(name)
    try:
        raw = yaml.load(text, Loader=_UniqueKeys)
    except yaml.YAMLError as error:
        raise InputError(f"recipe {name}: not valid YAML ({' '.join(str(error).split())})") from error
    if not isinstance(raw, dict) or not isinstance(raw.get("stages"), dict):
        raise InputError(f"recipe {name}: needs a mapping with model, evaluate and stages")
    _to_size(raw, name, size)
    for override in overrides:
        _override(raw, override)
    try:
        return Recipe(**raw)
    except ValidationError as error:
        raise InputError(f"recipe {name}: {first_problem(error)}") from error


def _to_size(raw: dict[str, Any], name: str, size: str | None) -> None:
    """Make the changes of a size. Raises InputError for one that the recipe does not have."""
    sizes = raw.pop("sizes", None)
    if sizes is None:
        if size is not None:
            raise InputError(f"recipe {name}: has no sizes; leave --size {size} out")
        return
    if not isinstance(sizes, dict) or not sizes or not all(isinstance(s, dict | None) for s in sizes.values()):
        raise InputError(f"recipe {name}: sizes is a mapping of names to changes, stage.key: value")
    chosen = next(iter(sizes)) if size is None else size
    if chosen not in sizes:
        raise InputError(f"recipe {name}: has no size {chosen!r}; its sizes are {', '.join(map(str, sizes))}")
    for key, value in (sizes[chosen] or {}).items():
        _set(raw, str(key), value, f"recipe {name}, size {chosen}")


def shipped_recipes() -> list[str]:
    folder = resources.files("posttrain") / "recipes"
    return sorted(Path(f.name).stem for f in folder.iterdir() if f.name.endswith(".yaml"))


def _recipe_text(name: str) -> str:
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise InputError(f"recipe {name}: no such file")
        try:
            return path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"recipe {name}: not UTF-8 text ({error.reason})") from error
    if name not in shipped_recipes():
        raise InputError(f"recipe {name}: unknown; shipped are {', '.join(shipped_recipes())}, or give a .yaml file")
    return (resources.files("posttrain") / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")


def _override(raw: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals:
        raise InputError(f"--set {override}: write it as stage.key=value")
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise InputError(f"--set {override}: the value is not valid YAML") from error
    _set(raw, key, parsed, f"--set {override}")


def _set(raw: dict[str, Any], key: str, value: Any, what: str) -> None:
    """Change one setting of a recipe. Raises InputError, beginning with `what`, for a key that it does not have."""
    where, dot, option = key.partition(".")
    if not dot and where in ("model", "seed", "shape", "chat_template"):
        raw[where] = value
    elif dot and where == "evaluate" and isinstance(raw.get("evaluate"), dict):
        raw["evaluate"][option] = value
    elif dot and isinstance(raw["stages"].get(where), dict):
        raw["stages"][where][option] = value
    else:
        known = ", ".join([*(f"{s}.KEY" for s in raw["stages"]), "evaluate.KEY", "model", "seed"])
        raise InputError(f"{what}: {key} is not in the recipe; it has {known}")


def first_problem(error: ValidationError) -> str:
    """The first thing that is wrong, as `key: what`."""
    problem = error.errors()[0]
    where = ".".join(str(p) for p in problem["loc"])
    what = "unknown key" if problem["type"] == "extra_forbidden" else problem["msg"].removeprefix("Value error, ")
    if problem["type"].endswith(("_parsing", "_type")):
        rule = what.split(", unable to parse")[0].replace("Input should be", "must be").replace("tuple", "list")
        what = f"{rule}, not {problem['input']!r}"
    return f"{where}: {what}" if where else what
