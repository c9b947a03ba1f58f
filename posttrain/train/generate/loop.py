"""The steps that methods which write data share, each recorded so that a kill costs one at most, and their end."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from posttrain.config import ReviseConfig, SampleConfig
from posttrain.console import warn
from posttrain.data.fitting import Fitted
from posttrain.models.compute import current
from posttrain.runs.files import read_metrics
from posttrain.runs.log import RunLog
from posttrain.runs.records import Cost, Lineage
from posttrain.train.events import warn_fitted
from posttrain.train.generate.select import format_counts
from posttrain.train.generate.sources import Source
from posttrain.train.settings import data_hash, made_on, versions
from posttrain.types import InputError, RunFailed, Task

T = TypeVar("T")


@dataclass(frozen=True)
class Step(Generic[T]):
    """What a step made: items, its own numbers for `metrics.jsonl`, and what it took."""

    items: Sequence[T]
    metrics: Mapping[str, float | None]
    tokens: int
    flops: float


class Generation(ABC, Generic[T]):
    """How a method makes items of tasks, `size` tasks a step and `items_of_task` items a task, a line each in `file`.
    A step is done once its line is in `metrics.jsonl`; its record was written before."""

    file: str

    def __init__(self, source: Source, tasks: Sequence[Task], log: RunLog, size: int, items_of_task: int = 1) -> None:
        self.source = source
        self.tasks = tasks
        self.log = log
        self.size = size
        self.items_of_task = items_of_task

    @abstractmethod
    def recorded(self, steps: Container[int]) -> Iterable[tuple[int, T]]:
        """The step of each item that is recorded, once the file is cut back to these steps."""

    @abstractmethod
    def record(self, n: int, items: Sequence[T]) -> None:
        """Write the lines of step `n`."""

    @abstractmethod
    def make(self, n: int, places: range) -> Step[T]:
        """Step `n`, on the tasks at these places."""

    def steps(self) -> Iterator[tuple[int, Sequence[T], bool]]:
        """Each step's number, its items, and whether they are new. Raises InputError for a damaged record."""
        metrics = read_metrics(self.log.out)
        recorded: dict[int, list[T]] = {row["step"]: [] for row in metrics}
        self.log.keep_lines("metrics.jsonl", lambda row: True)  # but for a torn one
        for n, item in self.recorded(recorded):
            recorded[n].append(item)
        if self.log.resuming:
            self.log.event("resumed_from", resumed_from=len(recorded))
        flops = metrics[-1]["flops"] if metrics else 0.0
        for n, first in enumerate(range(0, len(self.tasks), self.size), start=1):
            places = range(first, min(first + self.size, len(self.tasks)))
            expected = len(places) * self.items_of_task
            if n not in recorded:
                start = time.perf_counter()
                made = self.make(n, places)
                flops += made.flops
                self.record(n, made.items)
                taken = {"tokens": made.tokens, "flops": flops, "step_seconds": time.perf_counter() - start}
                self.log.metrics({"step": n, **made.metrics, **taken})
                yield n, made.items, True
            elif len(recorded[n]) == expected:
                yield n, recorded[n], False
            else:
                found = f"it holds {len(recorded[n])} of the {expected} answers of step {n}"
                raise InputError(f"{self.log.out / self.file}: damaged, {found}; begin anew with another --out")


@contextmanager
def sampling_from(source: Source, log: RunLog, data: str, fitted: Fitted[Task]) -> Iterator[None]:
    """Log which tasks are left out and what the source has to say, before and after it is sampled from."""
    warn_fitted(log, data, fitted)
    source.began(log, fitted.kept)
    try:
        yield
    finally:
        source.ended(log)


def write_data(
    log: RunLog,
    config: SampleConfig | ReviseConfig,
    source: Source,
    rows: Sequence[Mapping[str, Any]],
    dropped: Counter[str],
    failure: str,
    **lineage: Any,
) -> None:
    """Write rows, cost and lineage, and say what was left out. Raises RunFailed with `failure` for no row."""
    left_out = format_counts(dropped)
    if dropped:
        log.event("dropped", **dropped)
        warn(f"left out: {left_out}")
    if not rows:
        raise RunFailed(f"{config.data}: {failure.format(left_out=left_out)}")
    log.write_lines(config.file, rows)
    Cost.sampled(read_metrics(log.out)).save(log)
    Lineage(
        parents=[source.name],
        parent_weights_hash=source.weights_hash,
        endpoint=config.endpoint,
        data=config.data,
        data_hash=data_hash(config.data),
        rows=len(rows),
        dropped=dict(dropped),
        versions=versions(),
        **({} if config.model is None else made_on(current())),
        **lineage,
    ).save(log)
