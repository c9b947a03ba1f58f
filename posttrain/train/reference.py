"""The reference of preference training: the start of the stage, or weights that follow the policy (TR-DPO)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import torch
from safetensors.torch import load_file, save_file

from posttrain.runlog import RunLog
from posttrain.train.policy import LocalPolicy
from posttrain.train.preference_data import Example, example_trees

FILE = "reference.safetensors"


class Reference(Protocol):
    """What the policy is compared with."""

    def logprobs(self, examples: Sequence[Example]) -> list[tuple[float, ...]]:
        """The log-probabilities of the tokens of each response, responses in order."""
        ...

    def follow(self, step: int) -> None:
        """Called after the policy's update of step `step`."""
        ...


class StoredReference:
    """The start of the stage, of which the log-probabilities of all examples to come were computed once."""

    def __init__(self, values: Mapping[str, torch.Tensor]) -> None:
        self._values = values

    def logprobs(self, examples: Sequence[Example]) -> list[tuple[float, ...]]:
        return [tuple(self._values[name].tolist()) for example in examples for name in _names(example)]

    def follow(self, step: int) -> None:
        """It stays where it is."""


def stored_reference(log: RunLog, policy: LocalPolicy, examples: Callable[[], list[Example]]) -> StoredReference:
    """The reference of a run folder, computed from the policy as it is now where the folder has none yet. What that
    cost is counted in `policy.flops`."""
    file = log.out / "reference" / FILE
    if not file.exists():
        todo = examples()
        values = policy.logprobs(example_trees(todo))
        names = [name for example in todo for name in _names(example)]
        tensors = {name: torch.tensor(value) for name, value in zip(names, values, strict=True)}
        tensors["flops"] = torch.tensor(policy.flops, dtype=torch.float64)
        log.write_folder("reference", lambda out: save_file(tensors, Path(out) / FILE))
    stored = load_file(file)
    policy.flops = float(stored.pop("flops"))
    return StoredReference(stored)


class MovingReference:
    """Trust-region DPO (Gorbatovski et al. 2024, arXiv:2404.09656): after every `every`-th step
    θ_ref ← α θ + (1−α) θ_ref with α = `mix`, of the trained weights.

    The log-probabilities are computed when asked for, by putting the reference's weights into the policy's model. The
    weights go into checkpoints as the policy's companion."""

    def __init__(self, policy: LocalPolicy, every: int, mix: float) -> None:
        self._policy = policy
        self._every = every
        self._mix = mix
        self.weights = {name: p.detach().clone() for name, p in policy.parameters.items()}
        policy.companions["reference"] = self.weights

    def logprobs(self, examples: Sequence[Example]) -> list[tuple[float, ...]]:
        with _exchanged(self._policy.parameters, self.weights):
            return self._policy.logprobs(example_trees(examples))

    def follow(self, step: int) -> None:
        if step % self._every == 0:
            for name, parameter in self._policy.parameters.items():
                self.weights[name].lerp_(parameter.detach(), self._mix)


def _names(example: Example) -> list[str]:
    return [f"{example.key}/{i}" for i in range(len(example.responses))]


@contextmanager
def _exchanged(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """The values of two sets of weights change places, and back at the end."""
    _exchange(one, other)
    try:
        yield
    finally:
        _exchange(one, other)


@torch.no_grad()
def _exchange(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> None:
    for name, tensor in one.items():
        kept = tensor.clone()
        tensor.copy_(other[name])
        other[name].copy_(kept)
