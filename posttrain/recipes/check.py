"""A recipe read and checked before anything runs: its keys and stages, then each reward, environment, model and text
that its stages name, loaded once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from posttrain.chat.given import template_text
from posttrain.config import REWARDS, HeldOut, Recipe, RlConfig, RunConfig
from posttrain.config.model_names import local_model
from posttrain.data.builtin import GYM, is_builtin
from posttrain.data.formats import load_tasks
from posttrain.data.readers import replay_file
from posttrain.data.sources import parse_source, split_sources
from posttrain.envs.pool import EnvPool
from posttrain.monitors.setup import check_read
from posttrain.recipes.audited import audit_configs, audit_folder, check_options, tasks_of
from posttrain.recipes.load import Findings, RecipeFaults, RecipeText, checked_recipe, read_text
from posttrain.recipes.paths import placed
from posttrain.recipes.stage_check import find_stages
from posttrain.recipes.stages import STAGE_MODEL, START, StageSpec
from posttrain.rewards.check import RewardCheck, check_soft_labels
from posttrain.rewards.judge.prompts import read_rubric
from posttrain.rewards.registry import Spec, check_sealed
from posttrain.rows import TaskColumns
from posttrain.runs.audit import read_audit
from posttrain.types import InputError, RunFailed, Task

READERS: Mapping[str, Callable[[str], object]] = {
    "chat_template": template_text,
    "replay": replay_file,
    "principles": lambda name: read_rubric(name, "1-10"),
}
"""Options that name a file, and what reads it: each raises InputError for one that is not right."""
GYM_COLUMNS = frozenset(("answer", "entry", "dataset"))
"""What tasks of reasoning-gym have, whichever they are."""


@dataclass(frozen=True)
class CheckedRecipe:
    """A recipe without faults. `written` has the paths of the file, `recipe` the same paths from the current directory;
    `configs` are those of the stages, as far as they are known before anything has run."""

    text: RecipeText
    written: Recipe
    recipe: Recipe
    stages: list[StageSpec]
    configs: Mapping[str, Any]


def read_recipe(config: RunConfig, *, planned: bool = False) -> CheckedRecipe:
    """Read a recipe and check all that can be known before it runs. Where it is only `planned`, data and models need
    not be there. Raises InputError with everything that is wrong, in the order of the file."""
    text = read_text(config.recipe, config.set, config.size)
    try:
        return _checked(text, config.folder, planned)
    except RecipeFaults as error:
        raise text.told(error) from error


def _checked(text: RecipeText, out: Path, planned: bool) -> CheckedRecipe:
    found = Findings()
    written = _recipe(text.raw, found)
    recipe = placed(written, text)
    stages = find_stages(recipe, out, found)
    sound = [stage for stage in stages if not stage.faulty]
    configs = {stage.name: stage.config(out, recipe.model, recipe.seed, None) for stage in sound}
    coming = {str(out / stage.name / "model") for stage in stages} | {
        str(audit_folder(out, name)) for name in recipe.audits
    }
    with RewardCheck() as rewards:
        _check_audits(recipe, out, rewards, planned, found)
        if recipe.evaluate is not None:
            _check_held_out(recipe.evaluate, rewards, planned, found)
        for stage in stages:
            if stage.faulty:
                for key in REWARDS:
                    texts = [text for text in stage.options.get(key) or () if isinstance(text, str)]
                    with found.collect(("stages", stage.name, key), f"stage {stage.name}: "):
                        _check_rewards(rewards, texts, None, coming, planned)
            else:
                _Loads(stage, configs[stage.name], rewards, coming, planned, found).check()
    found.check()
    return CheckedRecipe(text, written, recipe, stages, configs)


def _recipe(raw: Mapping[str, Any], found: Findings) -> Recipe:
    """The recipe; where its own keys are wrong, what is right of it, so that the stages can be checked too."""
    with found.collect(()):
        return checked_recipe(raw)
    right: dict[str, Any] = {
        "model": START,
        "evaluate": None,
        "shape": None,
        "seed": 0,
        "trust_remote_code": False,
        "audits": {},
    }
    right |= {key: raw[key] for key, kind in (("model", str), ("seed", int)) if isinstance(raw.get(key), kind)}
    stages = {name: stage for name, stage in raw["stages"].items() if isinstance(name, str) and isinstance(stage, dict)}
    with suppress(ValidationError, TypeError):
        right["evaluate"] = HeldOut(**raw.get("evaluate"))
    return Recipe.model_construct(**right, description="", stages=stages)


def _check_audits(recipe: Recipe, out: Path, rewards: RewardCheck, planned: bool, found: Findings) -> None:
    with found.collect(()):
        for name, config in audit_configs(recipe, out).items():
            with found.collect(("audits", name), f"audit {name}: "):
                tasks = None if planned else tasks_of(config)
                columns = None if tasks is None else TaskColumns(tasks)
                for rewards_of in (config.reward, [] if config.judge is None else [config.judge]):
                    _check_rewards(rewards, rewards_of, columns, (), planned)
                check_options(config, tasks)


def _check_held_out(held_out: HeldOut, rewards: RewardCheck, planned: bool, found: Findings) -> None:
    columns = None
    with found.collect(("evaluate", "data"), "evaluate: "):
        columns = _columns([held_out.data], held_out.columns, planned)
    with found.collect(("evaluate", "reward"), "evaluate: "):
        _check_rewards(rewards, held_out.reward, columns, (), planned)


@dataclass(frozen=True)
class _Loads:
    """What one stage reads only once it runs."""

    stage: StageSpec
    config: Any
    rewards: RewardCheck
    coming: Collection[str]
    planned: bool
    found: Findings

    def check(self) -> None:
        config, stage = self.config, self.stage
        texts = self._option("reward") or ()
        gold = filter(None, [self._option("gold")])
        columns: TaskColumns | None = None
        tasks = config.data if texts or self._option("env") else None
        if tasks is not None and not stage.data_stages:
            with self._at("data"):
                held_out = self._option("eval_data")
                columns = _columns([tasks, *([held_out] if held_out else [])], config.columns, self.planned)
        sealed = self._option("sealed_reward") or ()
        of_columns = {"reward": (texts, columns), "sealed_reward": (sealed, columns), "gold": (list(gold), None)}
        for key, (rewards, of) in of_columns.items():
            with self._at(key):
                _check_rewards(self.rewards, rewards, of, self.coming, self.planned)
        with self._at("sealed_reward"):
            check_sealed(texts, sealed)
        if self._option("canaries") and columns is not None:
            with self._at("canaries"):
                self.rewards.check_references(texts, columns)
        if self._option("env") is not None:
            with self._at("env"):
                _check_environment(config, columns)
        if (audit := self._option("audit")) is not None:
            with self._at("audit"):
                if str(audit) not in self.coming and not self.planned:
                    read_audit(audit)
                check_read(config)
        for key, read in READERS.items():
            if self._option(key) is not None and not (self.planned and key == "replay"):
                with self._at(key):
                    read(self._option(key))
        if self._option("soft_labels"):
            with self._at("soft_labels"):
                check_soft_labels(config)
        for key in ("teacher", "policy", *(["model"] if "model" in stage.options else [])):
            name = self._option(key)
            if name is not None and name not in self.coming and not self.planned:
                with self._at(key):
                    local_model(name)

    def _option(self, name: str) -> Any:
        return getattr(self.config, name, None)

    def _at(self, key: str) -> AbstractContextManager[None]:
        return self.found.collect(("stages", self.stage.name, key), f"stage {self.stage.name}: ")


def _check_rewards(
    check: RewardCheck, texts: Sequence[str], columns: Collection[str] | None, coming: Collection[str], planned: bool
) -> None:
    specs = [Spec.parse(text) for text in texts]
    named = [model for spec in specs for part in spec.expression.walk() for model in part.models]
    if unknown := next(filter(STAGE_MODEL.fullmatch, named), None):
        text = next(text for text in texts if unknown in text)
        raise InputError(f"reward {text!r} names {unknown}, and the recipe has no such stage")
    check.check(texts, columns, [*coming, *named] if planned else coming)


def _check_environment(config: RlConfig, columns: Collection[str] | None) -> None:
    assert config.env is not None
    try:
        with EnvPool(config.env, columns=columns, timeout_seconds=config.env_timeout, workers=1) as pool:
            if not config.reward and not pool.has_reward:
                raise InputError(f"env {config.env} has no get_reward, so reward is required")
    except RunFailed as error:
        raise InputError(str(error)) from None


def _columns(sources: Sequence[str], names: Mapping[str, str] | None, planned: bool) -> TaskColumns | None:
    """The columns that every task has; None where that is not known without the hub, or yet. Raises InputError for a
    file with a row that is wrong."""
    found: list[Task] = []
    for source in sources:
        if source.startswith(GYM):
            found.append(Task(source, source, dict.fromkeys(GYM_COLUMNS)))
        elif is_builtin(source) or all(parse_source(part).is_file for part in split_sources(source)):
            found += load_tasks(source, names, optional=source != sources[0])
        elif planned or not any(parse_source(part).is_file for part in split_sources(source)):
            return None
    return TaskColumns(found) if found else None
