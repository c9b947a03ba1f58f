"""What a command names, looked for before torch is imported, so that a misspelt file gets its message at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from posttrain.config import (
    REWARDS,
    ChatConfig,
    CheckDataConfig,
    CompareConfig,
    Config,
    EvalConfig,
    RunConfig,
    ScoreConfig,
)
from posttrain.config.model_names import local_model
from posttrain.data.builtin import is_builtin
from posttrain.data.readers import check_source
from posttrain.data.sources import parse_source, split_sources
from posttrain.envs.specs import files_of, parse_spec
from posttrain.evals.runs import check_free
from posttrain.recipes.check import READERS
from posttrain.rewards.check import check_named_model
from posttrain.rewards.registry import Spec, local_models
from posttrain.runs.log import check_place, check_writable
from posttrain.types import InputError

DATA = ("data", "eval_data", "ptx_data")
MODELS = ("model", "teacher", "policy")


def check_named(config: Config) -> None:
    """Raise InputError where the folder to write cannot be written, or data, recorded rollouts, a chat template, a
    reward's file, an environment's or a model's folder that the configuration of a command names is not there. What a
    recipe, a comparison and a score name is looked for by themselves, without torch."""
    if isinstance(config, RunConfig | CompareConfig | ScoreConfig):
        return
    given: Mapping[str, Any] = dict(config)
    out = given.get("out")
    if "resume" in given and out is not None and not given.get("dry_run"):
        check_place(out, given["resume"])
        if (out / "lineage.json").exists():
            return  # finished: nothing is read again
    if isinstance(config, EvalConfig) and config.out is not None:
        check_free(config)
        check_writable(config.out, "cannot be made")
    if not isinstance(config, ChatConfig | CheckDataConfig):
        _check_data([given[key] for key in DATA if given.get(key) is not None])
    for key, read in READERS.items():
        if given.get(key) is not None:
            read(given[key])
    gold = given.get("gold")
    rewards = [reward for key in REWARDS for reward in given.get(key) or ()]
    _check_rewards([*rewards, *([gold] if gold else [])])
    if given.get("env") is not None:
        _check_environment(given["env"])
    for key in MODELS:
        if given.get(key) is not None:
            _check_model("" if isinstance(config, ChatConfig | EvalConfig) else f"--{key} ", given[key])
    for name in given.get("models") or ():
        _check_model("", name)


def _check_data(texts: Sequence[str]) -> None:
    for text in texts:
        if not is_builtin(text):
            for part in split_sources(text):
                check_source(parse_source(part))


def _check_rewards(texts: Sequence[str]) -> None:
    for text in texts:
        expression = Spec.parse(text).expression
        for part in expression.walk():
            if missing := _missing(part.target):
                raise InputError(f"reward {expression.text} could not be loaded: FileNotFoundError: {missing}")
        for name in local_models([expression]):
            check_named_model(expression, name)


def _check_environment(text: str) -> None:
    expression = parse_spec(text)
    for target in files_of(expression):
        if missing := _missing(target):
            raise InputError(f"environment {expression.text} cannot be used: FileNotFoundError: {missing}")


def _missing(target: str) -> str | None:
    """The message for `file.py:name` when that file does not exist."""
    file = target.rpartition(":")[0]
    return f"there is no file {file}" if file.endswith(".py") and not Path(file).is_file() else None


def _check_model(option: str, name: str) -> None:
    """`option` is what the message begins with; empty for a model that is a positional argument."""
    try:
        local_model(name)
    except InputError as error:
        raise InputError(option + str(error).removeprefix("--model ")) from None
