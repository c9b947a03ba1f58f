"""The one place that chooses an engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from posttrain.engine.base import Engine
from posttrain.engine.local.engine import LocalEngine
from posttrain.models import LanguageModel


class EngineOptions(Protocol):
    """What a configuration says of its engine."""

    @property
    def max_concurrent(self) -> int: ...


@dataclass(frozen=True)
class Slots:
    """The options of a caller that has no configuration with them."""

    max_concurrent: int = 64


def open_engine(options: EngineOptions, lm: LanguageModel) -> Engine:
    """An engine that samples from `lm` with the weights that it has at the time."""
    return LocalEngine(lm, slots=options.max_concurrent)
