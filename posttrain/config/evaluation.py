"""Measuring, scoring, comparing, checking, reporting, talking."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from posttrain.config.base import (
    Columns,
    Config,
    Group,
    Named,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Seed,
    Temperature,
)
from posttrain.config.compute import ComputeOptions

MAIN_SUITE, RETENTION_SUITE = "held_out", "retention"
"""Names of evaluations: the one on tasks that is given no other, whose values carry no prefix, and the shipped one."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
TAKEN = {RETENTION_SUITE, "reward_model"}
"""What other commands write into `evaluations/`."""


class EvalConfig(ComputeOptions):
    """Values of a model on tasks, with intervals: accuracy where the reward gives 0 or 1, mean reward where it gives
    other values. Or the retention suite."""

    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "posttrain eval runs/sft --data examples/data/math_test.jsonl --reward math --out runs/sft",
        "posttrain eval runs/sft --suite retention --out runs/sft",
    )

    TASKS: ClassVar[Group] = Group("Model and tasks")
    model: str
    """Model to evaluate: a folder, a run folder, a hub id, `smollm2-135m` or `tiny-random`."""
    suite: Literal["tasks", "retention"] = "tasks"
    """`tasks`: those of `data`, scored by `reward`. `retention`: shipped questions and a shipped text, which show what
    training made a model forget; of the other options it takes `out`, `max_concurrent`, `raw`, `chat_template`,
    `trust_remote_code`, `device` and `dtype`."""
    data: str | None = None
    """Tasks: rows with a `prompt` and the columns the reward reads, or a built-in set. Required for `tasks`."""
    columns: Columns = None
    """Columns that have other names, as in training: `prompt=question`."""
    reward: tuple[Named, ...] = ()
    """What scores an answer; as in `posttrain rl`. Required for `tasks`."""
    RESULT: ClassVar[Group] = Group("Result")
    name: str | None = None
    """Name of the evaluation on tasks: a folder holds several, and `posttrain compare` pairs those of one name.
    Letters, digits, `_` and `-`. Default: `held_out`."""
    out: Path | None = None
    """Folder for `evaluations/NAME.json` and `.jsonl`; the run folder itself will do."""
    SAMPLING: ClassVar[Group] = Group("Sampling")
    samples: NonNegativeInt = 4
    """Samples per task at `temperature` for the mean and pass@k (a sample passes where every reward of positive weight
    that applies gives at least 1); the greedy answer comes on top."""
    temperature: Temperature = 1.0
    """Sampling temperature of the samples."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Nucleus mass of the samples."""
    max_new_tokens: PositiveInt = 256
    """Longest answer in tokens."""
    MORE_OF_TASKS: ClassVar[Group] = Group("Model and tasks")
    limit: PositiveInt | None = None
    """Evaluate only the first tasks."""
    strict: bool = False
    """Stop where prompts do not fit the model's context and name them; without it they are left out, counted and
    reported."""
    ENGINE: ClassVar[Group] = Group("Sampling")
    max_concurrent: PositiveInt = 64
    """Answers decoded at once."""
    TIMEOUT: ClassVar[Group] = Group("Model and tasks")
    reward_timeout: PositiveFloat = 30.0
    """Seconds a reward may take for one batch of one worker before it is killed."""
    reward_workers: NonNegativeInt | None = None
    """As in `posttrain rl`: processes that rewards run in."""
    SEED: ClassVar[Group] = Group("Sampling")
    seed: Seed = 0
    """Seed of the samples."""
    GENERAL: ClassVar[Group] = Group("General")
    raw: bool = False
    """Take string prompts as raw text even where the tokenizer has a chat template."""
    chat_template: str | None = None
    """Chat template in place of the model's own: a Jinja file, or `hermes` (ChatML with tools). Evaluations with
    another template are not compared with this one."""
    trust_remote_code: bool = False
    """Run the Python that the model's folder or hub repository brings along. It can do whatever you can."""

    @property
    def file(self) -> str:
        """The name of the evaluation, and of its files."""
        return self.name or (MAIN_SUITE if self.suite == "tasks" else RETENTION_SUITE)

    @field_validator("data", "reward")
    @classmethod
    def _tasks_need(cls, value: Any, info: ValidationInfo) -> Any:
        if not value and info.data.get("suite") == "tasks":
            raise PydanticCustomError("missing", "Field required")
        return value

    @field_validator("name")
    @classmethod
    def _plain_name(cls, value: str | None) -> str | None:
        if value is not None and not NAME.fullmatch(value):
            raise PydanticCustomError("name", "must have letters, digits, _ and - alone")
        if value in TAKEN:
            raise PydanticCustomError("name", "must be another word: evaluations of that name are not of tasks")
        return value

    @model_validator(mode="after")
    def _suite_has_its_options(self) -> EvalConfig:
        taken = {"model", "suite", "out", "max_concurrent", "raw", "chat_template", "trust_remote_code"}
        taken |= ComputeOptions.model_fields.keys()
        for name, field in type(self).model_fields.items():
            if self.suite == "retention" and name not in taken and getattr(self, name) != field.default:
                raise ValueError(f"{name} means nothing to the suite retention, which has its own; leave it out")
        return self


class ScoreConfig(ComputeOptions):
    """Score given completions with a reward; needs no model but those that a reward names."""

    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "posttrain score --list",
        "posttrain score --data examples/data/math_demos.jsonl --reward 'regex(pattern=\"Answer: .*\")'",
    )

    OPTIONS: ClassVar[Group] = Group("Options")
    list: bool = False
    """Describe the built-in rewards, and score nothing."""
    reward: tuple[Named, ...] = ()
    """What scores a completion; as in `posttrain rl`. Required."""
    data: str | None = None
    """Data as in training, with `prompt`, `completion` (or `response`, `output`) and the columns the reward reads; `-`
    reads JSONL from standard input. Required."""
    columns: Columns = None
    """Columns that have other names: `prompt=question,completion=answer`."""
    reward_timeout: PositiveFloat = 30.0
    """Seconds a reward may take for one batch of one worker before it is killed."""
    reward_workers: NonNegativeInt | None = None
    """As in `posttrain rl`: processes that rewards run in."""

    @field_validator("reward", "data")
    @classmethod
    def _scoring_needs(cls, value: Any, info: ValidationInfo) -> Any:
        if not value and not info.data.get("list"):
            raise PydanticCustomError("missing", "Field required")
        return value

    @model_validator(mode="after")
    def _list_stands_alone(self) -> ScoreConfig:
        if self.list and (self.reward or self.data is not None):
            raise ValueError("list scores nothing; give it alone")
        return self


class CompareConfig(Config):
    """Compare finished runs side by side, with intervals; writes `report.html` and `compare.json`.

    Evaluations of one name are subtracted task by task, so they must have been made alike: the same tasks and reward,
    equal sampling and limits. Otherwise the command stops and names what differs."""

    EXAMPLES: ClassVar[tuple[str, ...]] = ("posttrain compare runs/sft runs/rl --out runs/comparison",)

    OPTIONS: ClassVar[Group] = Group("Options")
    runs: Annotated[tuple[Path, ...], Field(min_length=1)]
    """Run folders to compare."""
    out: Path
    """Folder for the two files."""
    loose: bool = False
    """Show evaluations that were not made alike too: in tables of their own, without a difference."""


class CheckDataConfig(Config):
    """Check a data file and name every fault by file and line; exits with 1 where there is one. With a model it finds
    what a run would find: what its chat template loses, and which rows would be cut or left out."""

    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "posttrain check-data examples/data/math_demos.jsonl --model smollm2-135m",
        "posttrain check-data examples/data/math_test.jsonl --against examples/data/math_demos.jsonl",
    )

    DATA: ClassVar[Group] = Group("Data")
    file: str
    """Data to check, as in training: a JSONL, JSON, CSV, TSV or Parquet file, a hub id or a built-in set."""
    columns: Columns = None
    """Columns of FILE, and of `against`, that have other names: `prompt=question,completion=answer`."""
    against: tuple[str, ...] = ()
    """Other data, such as the training set, whose prompts are looked for in this one."""
    WITH_A_MODEL: ClassVar[Group] = Group("With a model")
    model: str | None = None
    """Model to train or evaluate: also find what a run with it would find. Its tokenizer encodes every row."""
    max_length: PositiveInt = 1024
    """As in training: longest row in tokens, longer ones are cut."""
    max_new_tokens: PositiveInt = 256
    """As in `posttrain rl`: for tasks, the longest answer, for which the prompt must leave room."""
    raw: bool = False
    """As in training: take string prompts as raw text even where the tokenizer has a chat template."""
    chat_template: str | None = None
    """As in training: chat template in place of the model's own."""
    trust_remote_code: bool = False
    """As in training: run the Python that the model brings along."""
    strict: bool = False
    """Count rows that do not fit as faults, as a run with `strict` does."""

    @model_validator(mode="after")
    def _model_reads(self) -> CheckDataConfig:
        for name in ("max_length", "max_new_tokens", "raw", "chat_template", "strict"):
            if self.model is None and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} says how a model reads the data; give model too")
        return self


class ReportConfig(Config):
    """Write the HTML report of a run folder or of a pipeline's folder."""

    EXAMPLES: ClassVar[tuple[str, ...]] = ("posttrain report runs/sft",)

    OPTIONS: ClassVar[Group] = Group("Options")
    run: Path
    """The folder."""


class ChatConfig(ComputeOptions):
    """Talk to a model in the terminal, one line a turn. `/help` lists what else can be typed, such as `/reset`,
    `/undo`, `/system TEXT` and `/temperature 0.7`; `/exit` or Ctrl-D leaves. Lines that are piped in are answered one
    by one, and standard output has the answers alone."""

    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "posttrain chat runs/sft",
        "posttrain chat smollm2-135m --system 'You answer in one word.' --temperature 0",
    )

    MODEL: ClassVar[Group] = Group("Model and conversation")
    model: str
    """Model to talk to: a folder, a run folder, a hub id, `smollm2-135m` or `tiny-random`."""
    chat_template: str | None = None
    """Chat template in place of the model's own: a Jinja file, or `hermes` (ChatML with tools)."""
    trust_remote_code: bool = False
    """Run the Python that the model's folder or hub repository brings along. It can do whatever you can."""
    system: str | None = None
    """System message put before the conversation."""
    SAMPLING: ClassVar[Group] = Group("Sampling")
    max_new_tokens: PositiveInt = 256
    """Longest answer in tokens."""
    temperature: Annotated[float, Field(ge=0)] = 0.7
    """Sampling temperature; 0 always takes the most likely token."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Nucleus: the smallest set of tokens with this mass is kept."""
    seed: Seed = 0
    """Seed of the sampling."""
