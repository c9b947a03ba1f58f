"""Recipes: YAML into checked stages, before anything runs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from posttrain.config import DpoConfig, PairsConfig, Recipe, RlConfig, SftConfig
from posttrain.types import InputError

START = "start"
METHODS: Mapping[str, Any] = {"sft": SftConfig, "dpo": DpoConfig, "rl": RlConfig, "pairs": PairsConfig}
STAGE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
RESERVED = {START}
UNKNOWN_FLOPS = 1.0
"""Stands for a budget that is known only once the stage it copies has run, while a recipe is checked."""


class _UniqueKeys(yaml.SafeLoader):
    """Safe YAML in which a key that is given twice is an error: two stages of one name would be one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for i, key in enumerate(keys):
            if key in keys[:i]:
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


@dataclass(frozen=True)
class StageSpec:
    """One stage of a recipe, checked."""

    name: str
    method: str
    parent: str
    data_stage: str | None
    flops_of: str | None
    options: Mapping[str, Any]

    def config(self, out: Path, model: str, seed: int, max_flops: float | None) -> Any:
        """The method's configuration. Raises InputError naming stage and key."""
        options = dict(self.options)
        if self.data_stage is not None:
            options["data"] = str(out / self.data_stage / "pairs.jsonl")
        if max_flops is not None:
            options["max_flops"] = max_flops
        options.setdefault("seed", seed)
        try:
            return METHODS[self.method](model=model, out=out / self.name, resume=True, **options)
        except ValidationError as error:
            raise InputError(f"stage {self.name}: {first_problem(error)}") from error


def load_recipe(name: str, overrides: tuple[str, ...] = ()) -> Recipe:
    """A shipped recipe by name, or a YAML file, with `stage.key=value` overrides (`evaluate.key`, `model` and `seed`
    too; values are YAML)."""
    text = _recipe_text(name)
    try:
        raw = yaml.load(text, Loader=_UniqueKeys)
    except yaml.YAMLError as error:
        raise InputError(f"recipe {name}: not valid YAML ({' '.join(str(error).split())})") from error
    if not isinstance(raw, dict) or not isinstance(raw.get("stages"), dict):
        raise InputError(f"recipe {name}: needs a mapping with model, evaluate and stages")
    for override in overrides:
        _override(raw, override)
    try:
        return Recipe(**raw)
    except ValidationError as error:
        raise InputError(f"recipe {name}: {first_problem(error)}") from error


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
    where, dot, option = key.partition(".")
    if not dot and where in ("model", "seed"):
        raw[where] = parsed
    elif dot and where == "evaluate":
        raw["evaluate"][option] = parsed
    elif dot and isinstance(raw["stages"].get(where), dict):
        raw["stages"][where][option] = parsed
    else:
        known = ", ".join([*(f"{s}.KEY" for s in raw["stages"]), "evaluate.KEY", "model", "seed"])
        raise InputError(f"--set {override}: {key} is not in the recipe; it has {known}")


def check_stages(recipe: Recipe, out: Path) -> list[StageSpec]:
    """The stages, with every parent, data stage, budget and option checked."""
    stages: list[StageSpec] = []
    if not recipe.stages:
        raise InputError("the recipe has no stages")
    for name, raw in recipe.stages.items():
        if not STAGE_NAME.fullmatch(name) or name in RESERVED:
            raise InputError(
                f"stage {name!r}: a name has letters, digits, - and _, begins with a letter or digit and is not "
                f"{' or '.join(sorted(RESERVED))}"
            )
        options = dict(raw)
        for key in ("method", "parent", "data", "flops_of"):
            if not isinstance(options.get(key), str | None):
                raise InputError(f"stage {name}: {key} is {options[key]!r}; give one name")
        for key in ("model", "out", "resume"):
            if key in options:
                raise InputError(f"stage {name}: {key} is set by the pipeline; leave it out")
        method = options.pop("method", None)
        if method not in METHODS:
            raise InputError(f"stage {name}: method is {method!r}; use one of {', '.join(METHODS)}")
        earlier = {s.name: s for s in stages}
        parent = options.pop("parent", None)
        if parent != START and (parent not in earlier or earlier[parent].method == "pairs"):
            models = [START, *(s.name for s in stages if s.method != "pairs")]
            raise InputError(f"stage {name}: parent is {parent!r}; use one of {', '.join(models)}")
        flops_of = options.pop("flops_of", None)
        if flops_of is not None and flops_of not in earlier:
            raise InputError(f"stage {name}: flops_of is {flops_of!r}; use an earlier stage: {', '.join(earlier)}")
        data_stage = options["data"] if options.get("data") in earlier else None
        if data_stage is not None and earlier[data_stage].method != "pairs":
            raise InputError(f"stage {name}: data is the stage {data_stage!r}, which makes no data; use a pairs stage")
        spec = StageSpec(name, method, parent, data_stage, flops_of, options)
        spec.config(out, recipe.model, recipe.seed, UNKNOWN_FLOPS if flops_of else None)
        stages.append(spec)
    return stages


def first_problem(error: ValidationError) -> str:
    """The first thing that is wrong, as `key: what`."""
    problem = error.errors()[0]
    where = ".".join(str(p) for p in problem["loc"])
    what = "unknown key" if problem["type"] == "extra_forbidden" else problem["msg"].removeprefix("Value error, ")
    return f"{where}: {what}" if where else what
