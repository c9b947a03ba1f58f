"""Models: loading, packed forward passes, log-probabilities, counted operations."""

from posttrain.models.dtypes import save_dtype
from posttrain.models.language_model import LanguageModel, weights_hash
from posttrain.models.load import load_model, load_reward_model, model_writes_date

__all__ = ["LanguageModel", "load_model", "load_reward_model", "model_writes_date", "save_dtype", "weights_hash"]
