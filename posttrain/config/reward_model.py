"""The reward model stage."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from posttrain.config.base import Positive
from posttrain.config.training import TrainConfig


class RewardModelConfig(TrainConfig):
    """A reward model: a head on a language model that scores a whole response, trained so that chosen responses score
    above rejected ones (Bradley and Terry 1952; Stiennon et al. 2020, arXiv:2009.01325).

    A column `margin` says by how much, where the data has one (Llama 2, arXiv:2307.09288, section 3.2.2). Default
    learning rate: 1e-5 full weights (Llama 2, models below 70B), ten times that with LoRA (TRL). One pass over the data
    is the rule: reward models over-fit in the second (arXiv:2009.01325)."""

    members: Positive = 1
    """Heads of an ensemble on one trunk, each from a seed of its own and on a bootstrap sample of the pairs. The score
    is their mean, unless the reward `learned` is told otherwise."""
    centre_coefficient: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Weight of (r_w + r_l)², which keeps scores around 0 (Eisenstein et al., arXiv:2312.09244; TRL's
    `center_rewards_coefficient`, for which 0.01 is usual)."""
    length_balanced: bool = False
    """Weigh pairs so that the difference in length does not predict the label: among pairs of similar difference, as
    much weight where the longer one was chosen as where the shorter one was."""
    length_head: bool = False
    """Train a second head that takes up what length explains, and is thrown away (ODIN, arXiv:2402.07319)."""

    @model_validator(mode="after")
    def _one_way_at_a_time(self) -> RewardModelConfig:
        if self.length_head and self.members > 1:
            raise ValueError("length_head trains one scoring head; use it with members 1")
        if self.length_head and self.length_balanced:
            raise ValueError("length_head and length_balanced do the same by different means; choose one")
        if self.length_head and self.batch_size < 4:
            raise ValueError("length_head measures correlations over a step; use batch_size 4 or more")
        return self
