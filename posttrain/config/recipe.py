"""A whole pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field, model_validator

from posttrain.config.base import (
    Columns,
    Config,
    Group,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SaveDtype,
    Seed,
    Temperature,
    as_tuple,
)
from posttrain.config.compute import ComputeOptions


class RunConfig(ComputeOptions):
    """A whole pipeline: the stages of a recipe, evaluated and compared in one report.

    Stages that are already finished in the folder are not run again. `device` and `dtype` are for its evaluations, and
    for stages that do not set their own."""

    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "posttrain run quickstart --plan",
        "posttrain run quickstart --out runs/quickstart",
    )

    OPTIONS: ClassVar[Group] = Group("Options")
    recipe: str
    """A shipped recipe (`quickstart`) or a YAML file."""
    out: Path | None = None
    """Folder for the stages and the report. Default: `runs/RECIPE`, or `runs/RECIPE-SIZE` where a size is given."""
    size: str | None = None
    """One of the recipe's sizes. Default: its first, where it has some."""
    set: tuple[str, ...] = ()
    """Change a setting of the recipe, `stage.key=value` (also `evaluate.key=value`, `model=…`, `seed=…`)."""
    plan: bool = False
    """Check the whole recipe and show its stages with an estimate of their memory; no model or data is touched, nothing
    is run or written."""

    @property
    def folder(self) -> Path:
        """Where the pipeline is."""
        return self.out or Path("runs") / "-".join(filter(None, (Path(self.recipe).stem, self.size)))


class AverageConfig(Config):
    """Average checkpoints: the arithmetic mean of the weights of models that were trained from one start (Llama 3,
    arXiv:2407.21783, section 4.1.5; Izmailov et al., arXiv:1803.05407)."""

    EXAMPLES: ClassVar[tuple[str, ...]] = ("posttrain average runs/sft runs/rl --out runs/average",)

    OPTIONS: ClassVar[Group] = Group("Options")
    models: Annotated[tuple[str, ...], Field(min_length=1)]
    """Models of one shape: folders, run folders or hub ids. Runs with LoRA have merged weights there."""
    out: Path
    """Run folder to write."""
    save_dtype: SaveDtype = "auto"
    """Type of the weights that are written, into which the means are rounded; `auto` is the finest of the models'."""
    resume: bool = False
    """Continue an unfinished run; a finished one is left as it is."""

    @model_validator(mode="after")
    def _has_two(self) -> AverageConfig:
        if len(self.models) < 2:
            raise ValueError("give two or more models to average")
        return self


class ModelShape(Config):
    """The sizes of a decoder that `--plan` counts with, by the names of a `config.json` in short."""

    layers: PositiveInt
    hidden: PositiveInt
    intermediate: PositiveInt
    """Width of the feed-forward layers."""
    heads: PositiveInt
    key_heads: PositiveInt
    head_size: PositiveInt | None = None
    """Default: `hidden` / `heads`."""
    vocabulary: PositiveInt
    tied: bool = False
    """Whether input and output embedding are one matrix."""
    parameters: PositiveFloat | None = None
    """Their number where the decoder is not Llama's (mixtures of experts, GPT-3); else they are counted."""


class HeldOut(Config):
    """How a pipeline evaluates every model."""

    data: str
    """Held-out tasks; those whose prompt occurs in any training data of the recipe are removed and counted."""
    columns: Columns = None
    """Columns of the data that have other names, as `prompt: question`."""
    reward: Annotated[tuple[str, ...], BeforeValidator(as_tuple), Field(min_length=1)]
    """What scores an answer; a list where there are several."""
    samples: NonNegativeInt = 4
    """Samples per task; the greedy answer comes on top."""
    temperature: Temperature = 1.0
    """Sampling temperature of the samples."""
    max_new_tokens: PositiveInt = 256
    """Longest answer in tokens."""
    strict: bool = False
    """Stop where prompts do not fit the model's context; without it they are left out, counted and reported."""
    retention: bool = True
    """Whether to run the retention suite too."""
    seed: Seed = 0
    """Seed of the samples."""


class Recipe(Config):
    """A pipeline: an order of stages and their numbers, no algorithm."""

    description: str = ""
    """What it is, in a line or two."""
    model: str
    """The start: the model the first stages begin from."""
    seed: Seed = 0
    """Seed of every stage that does not set its own."""
    chat_template: str | None = None
    """Chat template in place of the start's own, as in training: for the stages that begin from the start, which save
    it, and for the evaluation of the start. A stage may set its own."""
    trust_remote_code: bool = False
    """Run the Python that the model's folder or hub repository brings along, in every stage and evaluation."""
    evaluate: HeldOut | None = None
    """The evaluation of the start and of every stage's model; without it the stages are trained and not compared."""
    shape: ModelShape | None = None
    """Sizes of the start, for `--plan`, where the model is not one of those that are shipped."""
    audits: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Audits of rewards before the first stage, by name: options of `posttrain audit` (`reward`, `data`, `fix`). A
    stage whose `audit` is such a name gives its thresholds to the monitors of that stage. What an audit finds is in the
    report and stops nothing."""
    stages: dict[str, dict[str, Any]]
    """Stages in order. Each names its `method` (a command that trains a model or makes data), its `parent` (`start` or
    an earlier stage), its `data` (as on the command line, or an earlier `sample` or `revise` stage that writes what the
    method reads; a list of these for methods that read rows, each perhaps weighed as `FILE*0.3`), perhaps `columns`
    (`prompt: question`, of each source that has them), perhaps `flops_of` (an earlier stage: spend as many operations
    as that one did, those of its own data stages included), and options of the method. A stage of `rl` may have
    `controls: [coin, majority, format]`: beside `rl` come the stages `rl-coin` and so on, with the same settings and
    that `control` in place of the reward. A stage that writes data may
    have a `model` or an `endpoint` in place of a parent; a `teacher` and a `policy` may be `start` or an earlier stage.
    In a `reward`, `{STAGE}` is the model of an earlier stage: `learned({rm})`. The method `average` has nothing but
    `of`, a list of earlier stages, and perhaps `save_dtype`; it is compared with the first of them.

    In the file, `sizes` may stand beside `stages`: names, the default first, each with changes as `--set` makes them
    (`stage.key: value`). A recipe is read at one size."""
