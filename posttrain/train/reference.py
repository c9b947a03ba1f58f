"""The policy that a KL or an implicit reward is measured against: a copy of the trained weights from some time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from posttrain.train.policy import LocalPolicy, load_weights, save_weights

FILE = "reference.safetensors"


class Reference:
    """The start of a stage, until `follow`.

    It holds copies of the trained parameters only, and `active` puts them in the policy's place for a while: one module
    serves both. With an adapter the start is the policy with its adapter off, and needs no copy."""

    def __init__(self, policy: LocalPolicy) -> None:
        self.policy = policy
        self.weights: dict[str, torch.Tensor] | None = None
        self._moved = False
        if policy.lm.adapter is None:
            self.weights = self._copy()

    @contextmanager
    def active(self) -> Iterator[None]:
        """While this lasts, the policy's model is the reference."""
        if self.weights is None:
            with self.policy.lm.without_adapter():
                yield
            return
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def follow(self, mix: float = 1.0) -> None:
        """θ_ref ← mix · θ + (1 − mix) · θ_ref of the trained weights; 1 makes it the policy as it is. Raises ValueError
        for a share of an adapter that was never copied."""
        self._moved = True
        if mix == 1.0:
            self.weights = self._copy()
            return
        if self.weights is None:
            raise ValueError("the start of an adapter is the adapter switched off, which cannot be mixed")
        for name, parameter in self.policy.parameters.items():
            self.weights[name].lerp_(parameter.detach(), mix)

    def save(self, folder: Path) -> None:
        """Write the copy, if it is not that of the start."""
        if self._moved and self.weights is not None:
            save_weights(self.weights, folder / FILE)

    def load(self, folder: Path) -> None:
        """The inverse of `save`."""
        if (folder / FILE).exists():
            self.weights, self._moved = self._copy(), True
            load_weights(self.weights, folder / FILE)

    def _copy(self) -> dict[str, torch.Tensor]:
        return {name: p.detach().clone() for name, p in self.policy.parameters.items()}

    def _exchange(self) -> None:
        assert self.weights is not None
        for name, parameter in self.policy.parameters.items():
            self.weights[name], parameter.data = parameter.data, self.weights[name]
