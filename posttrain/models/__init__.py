"""Models: loading, packed forward passes, log-probabilities, counted operations."""

from posttrain.models.language_model import LanguageModel
from posttrain.models.load import load_model, load_reward_model, model_writes_date
from posttrain.models.weights import save_dtype, weights_hash

__all__ = ["LanguageModel", "load_model", "load_reward_model", "model_writes_date", "save_dtype", "weights_hash"]
