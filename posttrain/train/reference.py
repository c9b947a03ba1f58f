"""The policy that a KL or an implicit reward is measured against: a copy of the trained weights from some time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from posttrain.models import LanguageModel
from posttrain.train.checkpoints import load_weights, save_weights

FILE = "reference.safetensors"


class Reference:
    """The trained `parameters` of a model as they are now, until `follow`.

    It holds copies of them only, and `active` puts these in their place for a while: one module serves both. With an
    adapter the start is the model with its adapter off, and needs no copy. One that never moves holds the weights of
    linear layers in the type that products round them to anyway, which changes no number."""

    def __init__(self, lm: LanguageModel, parameters: Mapping[str, torch.nn.Parameter], moves: bool) -> None:
        self._lm = lm
        self._parameters = parameters
        self._moves = moves
        linear = (name for name, module in lm.module.named_modules() if isinstance(module, nn.Linear))
        self._held = set() if moves else {f"{name}.weight" for name in linear}
        self.weights = self._copy() if lm.adapter is None else None

    @contextmanager
    def active(self) -> Iterator[None]:
        """While this lasts, the model is the reference."""
        if self.weights is None:
            with self._lm.without_adapter():
                yield
            return
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def follow(self, mix: float = 1.0) -> None:
        """θ_ref ← mix · θ + (1 − mix) · θ_ref. Raises ValueError for a share of an adapter that was never copied."""
        if mix == 1.0:
            self.weights = self._copy()
            return
        if self.weights is None:
            raise ValueError("the start of an adapter is the adapter switched off, which cannot be mixed")
        for name, parameter in self._parameters.items():
            self.weights[name].lerp_(parameter.detach(), mix)

    def save(self, folder: Path) -> None:
        if self._moves and self.weights is not None:
            save_weights(self.weights, folder / FILE)

    def load(self, folder: Path) -> None:
        if (folder / FILE).exists():
            self.weights = self._copy()
            load_weights(self.weights, folder / FILE)
        elif self._moves and self._lm.adapter is not None:
            self.weights = None

    def _copy(self) -> dict[str, torch.Tensor]:
        dtype = self._lm.compute.dtype
        return {
            name: p.detach().to(dtype if name in self._held else p.dtype, copy=True)
            for name, p in self._parameters.items()
        }

    def _exchange(self) -> None:
        assert self.weights is not None
        for name, parameter in self._parameters.items():
            self.weights[name], parameter.data = parameter.data, self.weights[name]
