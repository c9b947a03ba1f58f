"""The engine seam: prompts in, completions out as each finishes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from posttrain.types import Completion, Sampling


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

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[int, Completion]]:
        """(Request id, completion) as each finishes. Raises InputError for a prompt without room in the context."""
        ...

    def pause(self) -> None:
        """Give back the memory that only sampling needs; the next `generate` takes it again."""
        ...

    def update(self, version: int) -> None:
        """Take the weights as they are now in the module that engine and trainer share. Call it between two `generate`
        calls, not within one: rows under way keep keys and values of the old weights."""
        ...
