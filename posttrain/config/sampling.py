"""Stages that sample from a model and write data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from posttrain.config.base import Config, NonNegative, Positive, Rate, Seed, Share, Temperature


class PairsConfig(Config):
    """Preference pairs from a model's own samples, labelled by a reward."""

    model: str
    """Model to sample from; as in training."""
    data: str
    """Tasks; as in `posttrain rl`."""
    out: Path
    """Folder for `pairs.jsonl`."""
    reward: Annotated[tuple[str, ...], Field(min_length=1)]
    """What labels an answer; as in `posttrain rl`."""
    samples: Annotated[int, Field(ge=2)] = 8
    """Answers sampled to each task."""
    limit: Positive | None = None
    """Use only the first tasks."""
    max_new_tokens: Positive = 256
    """Longest answer in tokens."""
    temperature: Temperature = 1.0
    """Sampling temperature."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Nucleus mass."""
    top_k: NonNegative = 0
    """Keep the k most likely tokens; 0 keeps all."""
    engine_slots: Positive = 64
    """Answers decoded at once."""
    max_unscored_share: Share = 0.1
    """As in `posttrain rl`."""
    reward_timeout: Rate = 30.0
    """Seconds a reward may take for one batch of one worker before it is killed."""
    seed: Seed = 0
    """Seed of the samples and of ties."""
    raw: bool = False
    """Take string prompts as raw text even where the tokenizer has a chat template."""
    resume: bool = False
    """Continue an unfinished run."""
