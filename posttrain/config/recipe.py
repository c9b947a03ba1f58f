"""A whole pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from posttrain.config.base import Config, NonNegative, Positive, Seed, Temperature


class RunConfig(Config):
    """A whole pipeline: the stages of a recipe, evaluated and compared in one report.

    Stages that are already finished in the folder are not run again."""

    recipe: str
    """A shipped recipe (`quickstart`) or a YAML file."""
    out: Path | None = None
    """Folder for the stages and the report. Default: `runs/RECIPE`."""
    set: tuple[str, ...] = ()
    """Change a setting of the recipe, `stage.key=value` (also `evaluate.key=value`, `model=…`, `seed=…`)."""


class HeldOut(Config):
    """How a pipeline evaluates every model."""

    data: str
    """Held-out tasks; those whose prompt occurs in any training data of the recipe are removed and counted."""
    reward: Annotated[tuple[str, ...], Field(min_length=1)]
    """What scores an answer."""
    samples: NonNegative = 4
    """Samples per task; the greedy answer comes on top."""
    temperature: Temperature = 1.0
    """Sampling temperature of the samples."""
    max_new_tokens: Positive = 256
    """Longest answer in tokens."""
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
    evaluate: HeldOut
    """The evaluation of the start and of every stage's model."""
    stages: dict[str, dict[str, Any]]
    """Stages in order. Each names its `method` (sft, dpo, online-dpo, reward-model, adversarial, rl, distill, sample,
    revise), its `parent` (`start` or an earlier stage), its `data` (as on the command line, or an earlier `sample` or
    `revise` stage that writes what the method reads), perhaps `flops_of` (an earlier stage: spend as many operations as
    that one did, those of its own data stage included), and options of the method. A stage that writes data may have a
    `model` or an `endpoint` in place of a parent; the `teacher` of a `distill` stage may be `start` or an earlier
    stage. In a `reward`, `{STAGE}` is the model of an earlier stage: `learned({rm})`."""
