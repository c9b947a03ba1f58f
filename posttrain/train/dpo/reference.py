"""The reference of preference training: the start of the stage, or weights that follow the policy (TR-DPO)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from posttrain.arrays import Floats
from posttrain.runs.log import RunLog
from posttrain.train.dpo.data import Example, example_trees
from posttrain.train.policy import Policy
from posttrain.train.reference import FILE
from posttrain.types import RunFailed

STORED = "reference.json"


class StoredReference:
    """The start of the stage: the log-probabilities of all examples, computed once, which took `flops`."""

    def __init__(self, policy: Policy, values: Mapping[str, torch.Tensor], file: Path, flops: float) -> None:
        self._policy = policy
        self._values = values
        self._file = file
        self._flops = flops

    def logprobs(self, examples: Sequence[Example]) -> list[Floats]:
        """Log-probabilities of each response's tokens, in order. Raises RunFailed where the file lacks some."""
        out: list[Floats] = []
        for name, tokens in (pair for example in examples for pair in _names(example).items()):
            value = self._values.get(name)
            if value is None or value.shape != (tokens,):
                raise _unusable(self._file, f"it does not hold {tokens} numbers for {name}")
            out.append(value.double().numpy())
        return out

    def follow(self, step: int) -> None:
        """Called after the policy's update of step `step`; it stays where it is."""

    def save(self, folder: Path) -> None:
        """It has a folder of its own in the run; only what it took is part of what the checkpoint has counted."""
        (folder / STORED).write_text(json.dumps({"flops": self._flops}))

    def load(self, folder: Path) -> None:
        """Count what the reference of a run that became longer took beyond the one it had."""
        if (folder / STORED).exists():
            self._policy.flops += self._flops - float(json.loads((folder / STORED).read_text())["flops"])


def stored_reference(log: RunLog, policy: Policy, groups: Callable[[], list[list[Example]]]) -> StoredReference:
    """The reference of a run folder, computed first where it has none; its cost is counted in `policy.flops`. A group
    goes through by itself, as in its step: rounding depends on what is computed together."""
    file = log.out / "reference" / FILE
    if not file.exists():
        todo = groups()
        values = [value for group in todo for value in policy.logprobs(example_trees(group))]
        names = [name for group in todo for example in group for name in _names(example)]
        tensors = {name: torch.from_numpy(value).float() for name, value in zip(names, values, strict=True)}
        tensors["flops"] = torch.tensor(policy.flops, dtype=torch.float64)
        log.write_folder("reference", lambda out: save_file(tensors, Path(out) / FILE))
    try:
        stored = load_file(file)
        policy.flops = flops = float(stored.pop("flops"))
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        raise _unusable(file, error) from None
    return StoredReference(policy, stored, file, flops)


def _unusable(file: Path, why: object) -> RunFailed:
    return RunFailed(f"{file} cannot be used ({why}); remove it, and --resume computes it again")


class MovingReference:
    """Trust-region DPO (Gorbatovski et al. 2024, arXiv:2404.09656): after every `every`-th step
    θ_ref ← α θ + (1−α) θ_ref with α = `mix`, of the trained weights; without `every` it stays the start. The
    log-probabilities are computed when asked for; weights that have moved go into checkpoints."""

    def __init__(self, policy: Policy, every: int | None, mix: float = 1.0) -> None:
        self._policy = policy
        self.reference = policy.reference(moves=every is not None)
        self._every = every
        self._mix = mix
        self.save, self.load = self.reference.save, self.reference.load

    def logprobs(self, examples: Sequence[Example]) -> list[Floats]:
        with self.reference.active():
            return self._policy.logprobs(example_trees(examples))

    def follow(self, step: int) -> None:
        if self._every is not None and step % self._every == 0:
            self.reference.follow(self._mix)


def _names(example: Example) -> dict[str, int]:
    """What the numbers of each response are called, and how many there are."""
    return {f"{example.key}/{i}": len(ids) for i, ids in enumerate(example.responses)}
