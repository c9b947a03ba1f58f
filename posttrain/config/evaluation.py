"""Measuring, scoring, comparing, checking, reporting, talking."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from posttrain.config.base import Config, NonNegative, Positive, Rate, Seed, Temperature


class EvalConfig(Config):
    """Accuracy of a model on tasks, with intervals."""

    model: str
    """Model to evaluate: a folder, a run folder, a hub id, `smollm2-135m` or `tiny-random`."""
    data: str
    """Tasks: rows with a `prompt` and the columns the reward reads, or a built-in set."""
    reward: Annotated[tuple[str, ...], Field(min_length=1)]
    """What scores an answer; as in `posttrain rl`."""
    out: Path | None = None
    """Folder for `evaluations/held_out.json` and `.jsonl`; the run folder itself will do."""
    samples: NonNegative = 4
    """Samples per task at `temperature` for the mean and pass@k (a sample passes where every reward of positive weight
    that applies gives at least 1); the greedy answer comes on top."""
    temperature: Temperature = 1.0
    """Sampling temperature of the samples."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Nucleus mass of the samples."""
    max_new_tokens: Positive = 256
    """Longest answer in tokens."""
    limit: Positive | None = None
    """Evaluate only the first tasks."""
    strict: bool = False
    """Stop where prompts do not fit the model's context and name them all; without it they are left out, counted and
    reported."""
    engine_slots: Positive = 64
    """Answers decoded at once."""
    reward_timeout: Rate = 30.0
    """Seconds a reward may take for one batch of one worker before it is killed."""
    seed: Seed = 0
    """Seed of the samples."""
    raw: bool = False
    """Take string prompts as raw text even where the tokenizer has a chat template."""


class ScoreConfig(Config):
    """Score given completions with a reward; needs no model."""

    reward: Annotated[tuple[str, ...], Field(min_length=1)]
    """What scores a completion; as in `posttrain rl`."""
    data: str
    """JSONL file with `prompt`, `completion` and the columns the reward reads; `-` reads standard input."""
    reward_timeout: Rate = 30.0
    """Seconds a reward may take for one batch of one worker before it is killed."""


class CompareConfig(Config):
    """Compare finished runs side by side, with intervals; writes `report.html` and `compare.json`."""

    runs: Annotated[tuple[Path, ...], Field(min_length=1)]
    """Run folders to compare."""
    out: Path
    """Folder for the two files."""


class CheckDataConfig(Config):
    """Check a data file and name every fault by file and line; exits with 1 where there is one. With a model it finds
    what a run would find: what its chat template loses, and which rows would be cut or left out."""

    file: str
    """Data to check: a JSONL, JSON, CSV or Parquet file, a hub id or a built-in set."""
    against: tuple[str, ...] = ()
    """Other data, such as the training set, whose prompts are looked for in this one."""
    model: str | None = None
    """Model to train or evaluate: also find what a run with it would find. Its tokenizer encodes every row."""
    max_length: Positive = 1024
    """As in training: longest row in tokens, longer ones are cut."""
    max_new_tokens: Positive = 256
    """As in `posttrain rl`: for tasks, the longest answer, for which the prompt must leave room."""
    raw: bool = False
    """As in training: take string prompts as raw text even where the tokenizer has a chat template."""
    strict: bool = False
    """Count rows that do not fit as faults, as a run with `strict` does."""

    @model_validator(mode="after")
    def _model_reads(self) -> CheckDataConfig:
        for name in ("max_length", "max_new_tokens", "raw", "strict"):
            if self.model is None and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} says how a model reads the data; give model too")
        return self


class ReportConfig(Config):
    """Write the HTML report of a run folder or of a pipeline's folder."""

    run: Path
    """The folder."""


class ChatConfig(Config):
    """Talk to a model in the terminal, one line a turn. `/reset` forgets the conversation, `/exit` ends it."""

    model: str
    """Model to talk to: a folder, a run folder, a hub id, `smollm2-135m` or `tiny-random`."""
    system: str | None = None
    """System message put before the conversation."""
    max_new_tokens: Positive = 256
    """Longest answer in tokens."""
    temperature: Annotated[float, Field(ge=0)] = 0.7
    """Sampling temperature; 0 always takes the most likely token."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Nucleus: the smallest set of tokens with this mass is kept."""
    seed: Seed = 0
    """Seed of the sampling."""
