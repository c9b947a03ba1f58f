"""Models: loading, packed forward passes, log-probabilities, counted operations."""

from posttrain.models.language_model import LanguageModel, weights_hash
from posttrain.models.load import load_model

__all__ = ["LanguageModel", "load_model", "weights_hash"]
