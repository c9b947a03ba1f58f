"""What a reward is: one verb, `score`, and a typed result for each sample."""

from __future__ import annotations

import bdb
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeGuard

from posttrain.types import Sample
from posttrain.workers.process import WorkerLost
from posttrain.workers.user_code import BadReturn, Failure, failure, number

INTERRUPTS = (KeyboardInterrupt, bdb.BdbQuit)
"""What a user ends the work with, where rewards run in his process. It is no failure of a sample there."""

Context = Mapping[str, Any]
"""What a batched function may ask for by name beside columns: `trainer_state`, `log_metric`, `log_extra`."""


@dataclass(frozen=True)
class Signature:
    """How a function wants to be called: `kind` is batched, sample or verl; see `calls`."""

    name: str
    kind: str
    names: tuple[str, ...]
    required: tuple[str, ...]
    takes_all: bool

    def reads(self, column: str) -> bool:
        return self.takes_all or self.kind == "verl" or column in self.names


@dataclass(frozen=True)
class Needs:
    """What a reward asks for.

    `functions`: the signatures of the functions it is made of, which name columns. `whole_batch`: it must see all
    samples of a step in one call. `is_async`: samples may run together. `precomputed`: a model scores the samples, in
    the process that holds it, before the reward gets them."""

    functions: tuple[Signature, ...] = ()
    whole_batch: bool = False
    is_async: bool = False
    precomputed: bool = False

    @property
    def environment(self) -> bool:
        """Whether a function names `environments`, so that samples should carry theirs."""
        return any("environments" in function.names for function in self.functions)

    def __or__(self, other: Needs) -> Needs:
        return Needs(
            self.functions + other.functions,
            self.whole_batch or other.whole_batch,
            self.is_async or other.is_async,
            self.precomputed or other.precomputed,
        )

    @staticmethod
    def read(row: Mapping[str, Any]) -> Needs:
        return Needs(**{**row, "functions": tuple(Signature(**function) for function in row["functions"])})


@dataclass(frozen=True)
class RewardResult:
    """What a reward says of one sample: a `value` (None: it does not apply) with the parts it is made of, and the
    values of steps where it scores steps; or the `error` that came in the way. `metrics` is what the reward has logged
    since its last result."""

    value: float | None = None
    parts: Mapping[str, float | None] = field(default_factory=dict)
    step_values: tuple[float, ...] | None = None
    error: Failure | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)

    @staticmethod
    def of(returned: Any, text_parts: bool = False) -> RewardResult:
        """From what a function returned: a number, None, or a dict with `score` and named parts. `text_parts`: parts
        that are no numbers are left out. Raises BadReturn for anything else."""
        if not isinstance(returned, Mapping):
            return RewardResult(number(returned, "score"))
        if "score" not in returned:
            raise BadReturn(f"returned a dict without 'score'; it has {', '.join(map(str, returned)) or 'nothing'}")
        parts = {str(name): value for name, value in returned.items() if name != "score"}
        if text_parts:
            parts = {name: value for name, value in parts.items() if isinstance(value, bool | int | float | None)}
        value = number(returned["score"], "score")
        return RewardResult(value, {name: number(part, f"part {name!r}") for name, part in parts.items()})

    @staticmethod
    def failed(why: BaseException | str) -> RewardResult:
        """The result for an error, or for a reason that is no fault of any code."""
        return RewardResult(error=Failure(why, why) if isinstance(why, str) else failure(why))

    @staticmethod
    def read(row: Mapping[str, Any]) -> RewardResult:
        """From what a worker sent. Raises WorkerLost for anything else than a result: code that a reward runs in its
        process may have changed the process."""
        try:
            return RewardResult._read(row)
        except (KeyError, TypeError, ValueError, OverflowError):
            raise WorkerLost("the worker process sent something that is no result") from None

    @staticmethod
    def _read(row: Mapping[str, Any]) -> RewardResult:
        steps, error = row["step_values"], row["error"]
        value = None if row["value"] is None else float(row["value"])
        return RewardResult(value, row["parts"], steps and tuple(steps), error and Failure(**error), row["metrics"])


class Reward(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def needs(self) -> Needs: ...
    async def score(self, samples: Sequence[Sample], context: Context) -> list[RewardResult]:
        """A result for each sample, failures among them. Raises what concerns all of these samples."""


@dataclass(frozen=True)
class PrecomputedReward:
    """The worker's side of a reward that a model computes in the process that holds it: the result that came with the
    sample, under the text of its expression."""

    name: str
    expression: str
    needs = Needs(precomputed=True)

    async def score(self, samples: Sequence[Sample], context: Context) -> list[RewardResult]:
        return [sample.precomputed[self.expression] for sample in samples]


def is_reward(found: Any) -> TypeGuard[Reward]:
    """Whether an object is a reward already, and no function to be made one."""
    return hasattr(found, "needs") and hasattr(found, "score")
