"""A function for each method, made from their table. `methods.pyi` has their types for editors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from inspect import cleandoc
from typing import TYPE_CHECKING, Any

from posttrain.api.commands import listed, made
from posttrain.api.inputs import Model
from posttrain.api.results import Run
from posttrain.config import TrainConfig
from posttrain.methods import METHODS, Method

if TYPE_CHECKING:
    from posttrain.alerts import Observer


def _function(command: str, method: Method) -> Callable[..., Run]:
    def average(models: Sequence[Model], **options: Any) -> Run:
        return made(command, {"models": models, **options})

    def train(model: Model, *, observers: Sequence[Observer] = (), **options: Any) -> Run:
        return made(command, {"model": model, **options}, observers)

    def generate(model: Model | None = None, **options: Any) -> Run:
        return made(command, {"model": model, **options})

    function: Any = average if method.averages else train if issubclass(method.config, TrainConfig) else generate
    function.__name__ = function.__qualname__ = command.replace("-", "_")
    function.__doc__ = f"{method.summary.capitalize()}.\n\n{cleandoc(method.config.__doc__ or '')}"
    return listed(method.config)(function)


globals().update({name.replace("-", "_"): _function(name, method) for name, method in METHODS.items()})
