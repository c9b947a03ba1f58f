"""Training on rewards."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from posttrain.config.base import NonNegative, Positive, Rate, Share, Temperature
from posttrain.config.training import TrainConfig


class RlConfig(TrainConfig):
    """Online reinforcement learning: sample, score, reinforce.

    Default learning rate: 1e-6 full weights (DeepSeekMath, arXiv:2402.03300), ten times that with LoRA."""

    reward: Annotated[tuple[str, ...], Field(min_length=1)]
    """A reward; repeat for several. Built in (`posttrain score --list`), or `file.py:function`, or
    `package.module:function`; with options, `clip(file.py:function, low=0)`, or made of others, `gate(format, math)`.
    `=0.5` weighs it, `=0:1,200:0.5` goes from weight 1 to 0.5 in 200 steps; `as NAME` renames it."""
    algorithm: Literal["grpo"] = "grpo"
    """The algorithm: how scores become advantages, and the policy loss."""
    aggregation: Literal["sum", "gdpo"] = "sum"
    """How several rewards become one advantage: `sum` normalises their weighted sum in each group; `gdpo` normalises
    each reward in each group, then sums, then scales over the step (arXiv:2601.05242)."""
    group_size: Annotated[int, Field(ge=2)] = 8
    """Completions sampled for each prompt (G)."""
    max_new_tokens: Positive = 256
    """Longest completion in tokens."""
    temperature: Temperature = 1.0
    """Sampling temperature."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Nucleus: the smallest set of tokens with this mass is kept."""
    top_k: NonNegative = 0
    """Keep the k most likely tokens; 0 keeps all."""
    beta: Annotated[float, Field(ge=0)] = 0.0
    """Coefficient β of the KL to the reference (the start of this stage). Default 0: DAPO (arXiv:2503.14476)."""
    kl_in: Literal["loss", "reward"] = "loss"
    """Where the KL goes: the k3 estimate in the loss, or the k1 estimate subtracted from the reward."""
    epochs: Positive = 1
    """Passes over a batch of rollouts."""
    minibatches: Positive = 1
    """Optimizer steps in one pass over a batch of rollouts."""
    clip: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Range ε of the probability ratio, which is clipped to [1−ε, 1+ε]. Default: PPO (arXiv:1707.06347)."""
    engine_slots: Positive = 64
    """Completions decoded at once."""
    max_unscored_share: Share = 0.1
    """The run stops when surely (Wilson 95%) more than this share of the last 200 rollouts could not be scored."""
    reward_timeout: Rate = 30.0
    """Seconds a reward may take for one batch of one worker before it is killed."""

    @model_validator(mode="after")
    def _divides(self) -> RlConfig:
        if self.batch_size % self.group_size:
            raise ValueError(
                f"batch_size counts rollouts and must be a multiple of group_size: {self.batch_size} is not one of "
                f"{self.group_size}"
            )
        if (self.batch_size // self.group_size) % self.minibatches:
            raise ValueError(
                f"minibatches={self.minibatches} must divide the {self.batch_size // self.group_size} prompts of a "
                "step (batch_size / group_size)"
            )
        if self.aggregation == "gdpo" and self.beta > 0 and self.kl_in == "reward":
            raise ValueError("aggregation 'gdpo' normalises each reward and the KL is none of them; use kl_in 'loss'")
        return self
