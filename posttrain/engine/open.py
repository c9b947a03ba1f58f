"""The one place that chooses an engine."""

from __future__ import annotations

from posttrain.engine.base import Engine
from posttrain.engine.local.engine import LocalEngine
from posttrain.models import LanguageModel


def open_engine(lm: LanguageModel, max_concurrent: int = 64) -> Engine:
    """An engine that samples from `lm` with the weights that it has at the time."""
    return LocalEngine(lm, slots=max_concurrent)
