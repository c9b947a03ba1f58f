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

from posttrain.config import (
    AdversarialConfig,
    DistillConfig,
    DpoConfig,
    OnlineDpoConfig,
    Recipe,
    ReviseConfig,
    RewardModelConfig,
    RlConfig,
    SampleConfig,
    SftConfig,
)
from posttrain.types import InputError

START = "start"
METHODS: Mapping[str, Any] = {
    "sft": SftConfig,
    "dpo": DpoConfig,
    "online-dpo": OnlineDpoConfig,
    "reward-model": RewardModelConfig,
    "adversarial": AdversarialConfig,
    "rl": RlConfig,
    "distill": DistillConfig,
    "sample": SampleConfig,
    "revise": ReviseConfig,
}
MAKE_DATA = ("sample", "revise")
"""Methods that write data and train nothing."""
READS: Mapping[str, tuple[str, ...]] = {
    "sft": ("best", "all"),
    "dpo": ("pairs",),
    "reward-model": ("pairs",),
    "adversarial": ("pairs",),
    "distill": ("best", "all"),
}
"""What a stage that makes data must write to be that of a method."""
STAGE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
STAGE_MODEL = re.compile(r"\{([A-Za-z0-9][A-Za-z0-9_-]*)\}")
"""How a reward names the model of a stage."""
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
    """One stage of a recipe, checked. `parent` is None for a stage that makes data with a model or endpoint of its
    own; `data_file` lies in the folder of `data_stage`."""

    name: str
    method: str
    parent: str | None
    data_stage: str | None
    data_file: str
    flops_of: str | None
    options: Mapping[str, Any]

    @property
    def makes_model(self) -> bool:
        """Whether it trains a language model; else it makes data, or a reward model."""
        return self.method not in (*MAKE_DATA, "reward-model", "adversarial")

    def config(self, out: Path, model: str | None, seed: int, max_flops: float | None) -> Any:
        """The method's configuration. Raises InputError naming stage and key."""
        options = dict(self.options)
        if self.parent is not None:
            options["model"] = model
        if self.data_stage is not None:
            options["data"] = str(out / self.data_stage / self.data_file)
        if max_flops is not None:
            options["max_flops"] = max_flops
        options.setdefault("seed", seed)
        try:
            return METHODS[self.method](out=out / self.name, resume=True, **options)
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
    """The stages, with every parent, teacher, data stage, budget and option checked."""
    stages: list[StageSpec] = []
    if not recipe.stages:
        raise InputError("the recipe has no stages")
    for name, raw in recipe.stages.items():
        if not STAGE_NAME.fullmatch(name) or name in RESERVED:
            raise InputError(
                f"stage {name!r}: a name has letters, digits, - and _, begins with a letter or digit and is not "
                f"{' or '.join(sorted(RESERVED))}"
            )
        stages.append(_check_stage(name, raw, {stage.name: stage for stage in stages}, recipe, out))
    return stages


def _check_stage(
    name: str, raw: Mapping[str, Any], earlier: Mapping[str, StageSpec], recipe: Recipe, out: Path
) -> StageSpec:
    options = dict(raw)
    for key in ("method", "parent", "data", "flops_of", "teacher"):
        if not isinstance(options.get(key), str | None):
            raise InputError(f"stage {name}: {key} is {options[key]!r}; give one name")
    method = options.pop("method", None)
    if method not in METHODS:
        raise InputError(f"stage {name}: method is {method!r}; use one of {', '.join(METHODS)}")
    own_source = method in MAKE_DATA and not {"model", "endpoint"}.isdisjoint(options)
    for key in ("out", "resume") if own_source else ("model", "out", "resume"):
        if key in options:
            raise InputError(f"stage {name}: {key} is set by the pipeline; leave it out")
    models = [START, *(s.name for s in earlier.values() if s.makes_model)]
    parent = options.pop("parent", None)
    if own_source and parent is not None:
        raise InputError(f"stage {name}: parent is the model to sample from; leave it or model and endpoint out")
    if not own_source and parent not in models:
        raise InputError(f"stage {name}: parent is {parent!r}; use one of {', '.join(models)}")
    if (teacher := options.get("teacher")) in models:
        options["teacher"] = recipe.model if teacher == START else str(out / teacher / "model")
    if isinstance(reward := options.get("reward"), list):
        paths = {START: recipe.model, **{s.name: str(out / s.name / "model") for s in earlier.values()}}
        options["reward"] = [_with_paths(name, entry, paths, recipe) for entry in reward]
    flops_of = options.pop("flops_of", None)
    if flops_of is not None and flops_of not in earlier:
        raise InputError(f"stage {name}: flops_of is {flops_of!r}; use an earlier stage: {', '.join(earlier)}")
    data_stage = options["data"] if options.get("data") in earlier else None
    data_file = "" if data_stage is None else _data_file(name, method, earlier[data_stage], recipe, out)
    spec = StageSpec(name, method, parent, data_stage, data_file, flops_of, options)
    spec.config(out, recipe.model, recipe.seed, UNKNOWN_FLOPS if flops_of else None)
    return spec


def _with_paths(name: str, entry: Any, paths: Mapping[str, str], recipe: Recipe) -> Any:
    """A reward with the models of stages, written `{STAGE}`, by their paths. Raises InputError for a stage to come."""
    for stage in STAGE_MODEL.findall(entry) if isinstance(entry, str) else ():
        if stage in recipe.stages and stage not in paths:
            raise InputError(f"stage {name}: reward {entry!r} names {stage}, which is no earlier stage")
        entry = entry.replace(f"{{{stage}}}", paths.get(stage, f"{{{stage}}}"))
    return entry


def _data_file(name: str, method: str, source: StageSpec, recipe: Recipe, out: Path) -> str:
    """The file of the stage `source` that a stage reads. Raises InputError where it writes none that fits."""
    if source.method not in MAKE_DATA:
        raise InputError(f"stage {name}: data is the stage {source.name!r}, which makes no data; use a sample stage")
    config = source.config(out, recipe.model, recipe.seed, None)
    wanted = READS.get(method, ())
    if config.write not in wanted:
        needs = f"needs one with write: {' or '.join(wanted)}" if wanted else "takes tasks"
        raise InputError(
            f"stage {name}: data is the stage {source.name!r}, which has write: {config.write}; method {method} {needs}"
        )
    return str(config.file)


def first_problem(error: ValidationError) -> str:
    """The first thing that is wrong, as `key: what`."""
    problem = error.errors()[0]
    where = ".".join(str(p) for p in problem["loc"])
    what = "unknown key" if problem["type"] == "extra_forbidden" else problem["msg"].removeprefix("Value error, ")
    return f"{where}: {what}" if where else what
