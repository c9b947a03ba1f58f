"""Models: loading, packed forward passes, log-probabilities, counted operations."""

from posttrain.models.language_model import LanguageModel, weights_hash
from posttrain.models.load import load_model, load_reward_model

__all__ = ["LanguageModel", "load_model", "load_reward_model", "weights_hash"]
