"""The policy that a KL is measured against: a copy of the trained weights as they were at some time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from posttrain.train.policy import LocalPolicy, load_weights, save_weights

FILE = "reference.safetensors"


class Reference:
    """The start of a stage, until `reset`.

    It holds copies of the trained parameters only, and `active` puts them in the policy's place for a while: one module
    serves both. With an adapter the start is the policy with its adapter off, and needs no copy."""

    def __init__(self, policy: LocalPolicy) -> None:
        self.policy = policy
        self._weights: dict[str, torch.Tensor] | None = None
        self._moved = False
        if policy.lm.adapter is None:
            self._weights = self._copy()

    @contextmanager
    def active(self) -> Iterator[None]:
        """While this lasts, the policy's model is the reference."""
        if self._weights is None:
            with self.policy.lm.without_adapter():
                yield
            return
        with self._swapped():
            yield

    def reset(self) -> None:
        """The reference becomes the policy as it is."""
        self._weights, self._moved = self._copy(), True

    def save(self, folder: Path) -> None:
        """Write the copy, if it is not that of the start."""
        if self._moved and self._weights is not None:
            save_weights(self._weights, folder / FILE)

    def load(self, folder: Path) -> None:
        """The inverse of `save`."""
        if (folder / FILE).exists():
            self._weights, self._moved = self._copy(), True
            load_weights(self._weights, folder / FILE)

    def _copy(self) -> dict[str, torch.Tensor]:
        return {name: p.detach().clone() for name, p in self.policy.parameters.items()}

    @contextmanager
    def _swapped(self) -> Iterator[None]:
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def _exchange(self) -> None:
        assert self._weights is not None
        for name, parameter in self.policy.parameters.items():
            self._weights[name], parameter.data = parameter.data, self._weights[name]
