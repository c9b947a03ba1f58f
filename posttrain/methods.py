"""The function of every method that a command or a stage of a recipe runs, by the method's name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from posttrain.train.average import average_models
from posttrain.train.distill import train_distill
from posttrain.train.dpo.online import train_online_dpo
from posttrain.train.dpo.stage import train_dpo
from posttrain.train.generate.revise import revise_answers
from posttrain.train.generate.sample import sample_answers
from posttrain.train.reward_model.adversarial import train_adversarial
from posttrain.train.reward_model.pairs import train_reward_model
from posttrain.train.rl.setup import train_rl
from posttrain.train.sft import train_sft

METHODS: Mapping[str, Callable[[Any], None]] = {
    "sft": train_sft,
    "dpo": train_dpo,
    "online-dpo": train_online_dpo,
    "reward-model": train_reward_model,
    "adversarial": train_adversarial,
    "rl": train_rl,
    "distill": train_distill,
    "sample": sample_answers,
    "revise": revise_answers,
    "average": average_models,
}
"""Each takes the configuration that `stages.METHODS` has for the name."""
