"""Training on preferences."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from posttrain.config.base import Rate
from posttrain.config.training import TrainConfig


class DpoConfig(TrainConfig):
    """Direct preference optimisation: prefer a good answer over a bad one, without a reward model (arXiv:2305.18290).

    Default learning rate: 1e-6 full weights (SmolLM2, arXiv:2502.02737), ten times that with LoRA."""

    loss: Literal["sigmoid"] = "sigmoid"
    """The preference loss."""
    beta: Rate = 0.1
    """Temperature β of the implicit reward β·log(π/π_ref). Default: Rafailov et al., arXiv:2305.18290."""
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """Assumed share of flipped labels ε: the loss is −(1−ε)·log σ(m) − ε·log σ(−m)."""
