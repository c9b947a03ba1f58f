"""The stages of a recipe, checked before anything runs: parents, data, budgets and the options of each method."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from posttrain.config import REWARDS, Recipe, as_tuple
from posttrain.config.algorithms import ALGORITHMS
from posttrain.methods import METHODS, WRITTEN
from posttrain.recipes.audited import with_audit
from posttrain.recipes.load import Findings, about_key, did_you_mean
from posttrain.recipes.stages import OTHER_MODELS, STAGE_MODEL, START, DataSource, StageSpec, stage_keys
from posttrain.runs.audit import AUDITS
from posttrain.types import InputError

STAGE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
STAGE_REWARD = re.compile(rf"\A\s*({STAGE_MODEL.pattern})(?=\s*(?:=|\Z)|\s+as\s)")
"""A reward that is the model of a stage and nothing else, as a folder by itself is a reward model."""
PLAIN_PATH = re.compile(r"""[^\s(),="':]+""")
"""What a reward expression takes for one name without quotes."""
WEIGHT = re.compile(r"\d+(\.\d*)?|\.\d+")
"""How often the rows of a source are taken."""
RESERVED = {START, AUDITS}
UNKNOWN_FLOPS = 1.0
"""Stands for a budget that is known only once the stage it copies has run, while a recipe is checked."""


def find_stages(recipe: Recipe, out: Path, found: Findings) -> list[StageSpec]:
    """The stages whose method is known. What is wrong goes into `found`, see `StageSpec.faulty`."""
    if not recipe.stages:
        found.add(("stages",), "the recipe has no stages")
    stages: dict[str, StageSpec] = {}
    unknown: set[str] = set()  # of these nobody can say what they make, nor of those that build on them
    for name, raw in recipe.stages.items():
        if not STAGE_NAME.fullmatch(name) or name in RESERVED:
            found.add(
                ("stages", name),
                f"stage {name!r}: a name has letters, digits, - and _, begins with a letter or digit and is not "
                f"{' or '.join(sorted(RESERVED))}",
            )
        elif raw.get("method") not in list(METHODS):
            method = raw.get("method")
            hint = did_you_mean(str(method), METHODS) or ";"
            if method in ALGORITHMS:
                hint = f"; did you mean method: rl with algorithm: {method}?"
            place = ("stages", name, "method")
            found.add(place, f"stage {name}: method is {method!r}{hint} use one of {', '.join(METHODS)}")
        elif unknown.isdisjoint(re.findall(STAGE_NAME.pattern, str(raw))):
            stages[name] = _Check(name, raw, stages, recipe, out, found).stage()
            continue
        else:
            for key in (str(key) for key in raw if key not in stage_keys(raw["method"]) | {"of"}):
                hint = about_key(key, stage_keys(raw["method"]))
                found.add(("stages", name, key), f"stage {name}: {key}: unknown key{hint}")
        unknown.add(name)
    return list(stages.values())


@dataclass(frozen=True)
class _Check:
    """The check of one stage. What is wrong goes into `found`, and something right takes its place, so that the rest
    can be checked too."""

    name: str
    raw: Mapping[str, Any]
    earlier: Mapping[str, StageSpec]
    recipe: Recipe
    out: Path
    found: Findings

    def stage(self) -> StageSpec:
        name, recipe, out = self.name, self.recipe, self.out
        options = with_audit(self.raw, recipe.audits, out)
        before = len(self.found.faults)
        method = options.pop("method")
        models = {
            START: recipe.model,
            **{s.name: str(out / s.name / "model") for s in self.earlier.values() if s.makes_model},
        }
        for key in ("parent", "flops_of", *OTHER_MODELS):
            if not isinstance(options.get(key), str | None):
                self._fault(key, f"{key} is {options.pop(key)!r}; give one name")
        if METHODS[method].averages:
            spec = self._average(method, options, models)
        else:
            parent = self._parent(method, options, models)
            self._other_models(options, models)
            flops_of = options.pop("flops_of", None)
            if flops_of is not None:
                with self._at("flops_of"):
                    _check_flops_of(name, flops_of, options, self.earlier)
            data: tuple[DataSource, ...] = (DataSource(""),)
            with self._at("data"):
                data = _sources(name, method, options.pop("data", None), self.earlier, recipe, out)
            if recipe.trust_remote_code:
                options.setdefault("trust_remote_code", True)
            if recipe.chat_template is not None and parent == START:  # a later stage finds it in its parent's model
                options.setdefault("chat_template", recipe.chat_template)
            spec = StageSpec(name, method, parent, data, flops_of, options)
        with self._at(None):
            spec.config(out, recipe.model, recipe.seed, UNKNOWN_FLOPS if spec.flops_of else None)
        return replace(spec, faulty=len(self.found.faults) > before)

    def _fault(self, key: str, text: str) -> None:
        self.found.add(("stages", self.name, key), f"stage {self.name}: {text}")

    def _at(self, key: str | None) -> AbstractContextManager[None]:
        return self.found.collect(("stages", self.name, *([key] if key else [])))

    def _parent(self, method: str, options: dict[str, Any], models: Mapping[str, str]) -> str | None:
        own_source = METHODS[method].writes == "data" and not {"model", "endpoint"}.isdisjoint(options)
        for key in ("out", "resume") if own_source else ("model", "out", "resume"):
            if key in options:
                del options[key]
                self._fault(key, f"{key} is set by the pipeline; leave it out")
        parent = options.pop("parent", None)
        known = ", ".join(models)
        if own_source:
            if parent is not None:
                self._fault("parent", "parent is the model to sample from; leave it or model and endpoint out")
            return None
        if parent is None:
            self._fault("parent", f"has no parent, the model it begins with; add parent: and one of {known}")
        elif parent not in models:
            why = "is no stage"
            if parent in self.recipe.stages:
                why = "makes no model to train or comes later"
            hint = did_you_mean(parent, models) or ";"
            self._fault("parent", f"parent is {parent!r}, which {why}{hint} use one of {known}")
        return parent if parent in models else START

    def _other_models(self, options: dict[str, Any], models: Mapping[str, str]) -> None:
        """Teachers, policies and the models of rewards, by their paths."""
        for key in OTHER_MODELS:
            if (other := options.get(key)) in self.recipe.stages and other not in models:
                self._fault(key, f"{key} is {other!r}, no earlier stage with a model; use {', '.join(models)}")
            if isinstance(other, str) and other in models:
                options[key] = models[other]
        made = {s.name: str(self.out / s.name / "model") for s in self.earlier.values()}
        paths = {START: self.recipe.model, **made}
        for key in REWARDS:
            if isinstance(rewards := as_tuple(options.get(key)), list | tuple):
                with self._at(key):
                    options[key] = [_with_paths(self.name, entry, paths, self.recipe) for entry in rewards]

    def _average(self, method: str, options: dict[str, Any], models: Mapping[str, str]) -> StageSpec:
        of = options.pop("of", None)
        if not isinstance(of, list) or len(of) < 2 or not all(isinstance(part, str) and part in models for part in of):
            self._fault("of", f"of is {of!r}; give a list of two or more of {', '.join(models)}")
            of = [START, START]
        for key in options.keys() - {"save_dtype"}:
            self._fault(key, f"{key}: unknown key; {method} has method, of and save_dtype alone")
        kept = {key: value for key, value in options.items() if key == "save_dtype"}
        options = {"models": [models[part] for part in of], **kept}
        return StageSpec(self.name, method, of[0], (), None, options, tuple(of))


def _check_flops_of(name: str, flops_of: str, options: Mapping[str, Any], earlier: Mapping[str, StageSpec]) -> None:
    if flops_of not in earlier:
        raise InputError(f"stage {name}: flops_of is {flops_of!r}; use an earlier stage: {', '.join(earlier)}")
    if not earlier[flops_of].spends:
        raise InputError(f"stage {name}: flops_of is {flops_of!r}, which takes no operations here; use another stage")
    if options.get("max_flops") is not None:
        raise InputError(f"stage {name}: flops_of stands for max_flops; leave one of them out")


def _with_paths(name: str, entry: Any, paths: Mapping[str, str], recipe: Recipe) -> Any:
    """A reward with the models of stages, written `{STAGE}`, by their paths. Raises InputError for a stage to come;
    braces around another word may be part of a pattern and stay."""

    def path_of(match: re.Match[str]) -> str:
        stage = match["stage"]
        if stage in recipe.stages and stage not in paths:
            raise InputError(f"stage {name}: reward {entry!r} names {stage}, which is no earlier stage")
        path = paths.get(stage)
        if path is None:
            return match[0]
        return path if PLAIN_PATH.fullmatch(path) else f'"{path}"'

    if not isinstance(entry, str):
        return entry
    return STAGE_MODEL.sub(path_of, STAGE_REWARD.sub(r"learned(\1)", entry))


def _sources(
    name: str, method: str, given: Any, earlier: Mapping[str, StageSpec], recipe: Recipe, out: Path
) -> tuple[DataSource, ...]:
    """Where a stage's rows come from. Raises InputError for a list where one source is needed, and for a stage that
    writes nothing that fits."""
    if given is None:
        return ()  # the configuration says that it is missing
    listed = isinstance(given, list) and bool(_can_read(method))
    parts = given if listed else [given]
    if not parts or not all(isinstance(part, str) for part in parts):
        more = " or a list of them" if listed else ""
        if isinstance(given, list) and not listed:
            more = f"; lists are for {', '.join(filter(_can_read, METHODS))}"
        raise InputError(f"stage {name}: data is {given!r}; give one name{more}")
    sources = []
    for part in parts:
        stage, star, weight = part.partition("*")
        if stage not in recipe.stages:
            sources.append(DataSource(part))
            continue
        if stage not in earlier:
            raise InputError(f"stage {name}: data names {stage}, which is no earlier stage")
        if star and not (WEIGHT.fullmatch(weight) and float(weight)):
            raise InputError(f"stage {name}: data is {part}; the weight after * is a number above 0")
        sources.append(DataSource(stage, _data_file(name, method, earlier[stage], recipe, out), star + weight))
    return tuple(sources)


def _data_file(name: str, method: str, source: StageSpec, recipe: Recipe, out: Path) -> str:
    """The file of the stage `source` that a stage reads. Raises InputError where it writes none that fits."""
    if source.faulty:
        return ""
    if source.about.writes != "data":
        raise InputError(f"stage {name}: data is the stage {source.name!r}, which makes no data; use a sample stage")
    config = source.config(out, recipe.model, recipe.seed, None)
    wanted = _can_read(method)
    if config.write not in wanted:
        needs = f"needs one with write: {' or '.join(wanted)}" if wanted else "takes tasks"
        raise InputError(
            f"stage {name}: data is the stage {source.name!r}, which has write: {config.write}; method {method} {needs}"
        )
    return str(config.file)


def _can_read(method: str) -> list[str]:
    """What a stage that makes data must `write` to be that of a method; nothing for methods that take tasks."""
    return [write for write, kind in WRITTEN.items() if kind in METHODS[method].kinds]
