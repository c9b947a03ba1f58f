"""The engine seam: prompts in, completions out as each finishes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from posttrain.types import Completion, Sampling

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Request:
    """One completion to sample. `id` is the caller's and comes back with the completion; requests with equal
    `prompt_ids` share their prefill. All randomness comes from `seed`, whatever else is in the batch."""

    id: int
    prompt_ids: tuple[int, ...]
    sampling: Sampling
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.prompt_ids:
            raise ValueError(f"request {self.id} has an empty prompt")


class Engine(Protocol):
    """Samples completions. Which requests share a decoding batch depends on their order and lengths alone."""

    version: int
    """Version of the weights; every sampled token carries it."""
    slots: int
    """Completions that are decoded at once."""

    def generate(
        self, requests: Sequence[Request], deadline_seconds: float | None = None
    ) -> Iterator[tuple[int, Completion]]:
        """Yield (request id, completion) as each finishes. Past the deadline the rest comes back `cancelled`, with the
        tokens it has. Raises InputError for a prompt that leaves no room in the model's context."""
        ...

    def cancel(self, request_id: int) -> None:
        """End a request early; it comes back `cancelled` with the tokens it has."""
        ...

    def pause(self) -> None:
        """Give back the memory that only sampling needs; the next `generate` takes it again."""
        ...

    def update(self, weights: Mapping[str, torch.Tensor] | Path | None, version: int) -> None:
        """Take new weights: tensors by name, a safetensors folder, or None where engine and trainer share the module.
        Call it between two `generate` calls, not within one: rows under way keep keys and values of the old weights."""
        ...
