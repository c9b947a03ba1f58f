"""Workers of one kind: started when they are first used and again after a loss, used side by side, ended together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from posttrain.console import info_once
from posttrain.threads import usable_cores
from posttrain.types import InputError, RunFailed
from posttrain.workers.process import START_SECONDS, Closing, Worker, WorkerLost, decoded, encoded, load_server

T = TypeVar("T")
Request = Mapping[str, Any]


def worker_count(wanted: int | None) -> int:
    """How many processes to use: those wanted, or one less than the usable cores, at least 1."""
    return max(1, usable_cores() - 1) if wanted is None else wanted


def say_workers(what: str, wanted: int | None) -> None:
    """Say once, where work begins, how many processes it has, unless the user said it."""
    if wanted is None:
        count = worker_count(None)
        info_once(f"{what} run in {count} worker process{'es' if count > 1 else ''}")


class InProcess:
    """What a `Worker` does, done in this process: nothing is killed, and no time limit holds."""

    alive = True

    def __init__(self, server: str) -> None:
        self._server = load_server(server, in_process=True)

    def ask(self, request: Request, seconds: float) -> dict[str, Any]:
        (answer,) = self.stream(request, 1, seconds)
        return answer

    def stream(self, request: Request, count: int, seconds: float) -> Iterator[dict[str, Any]]:
        answers = iter(self._server.answer({**request, "seconds": None}))
        for _ in range(count):
            yield decoded(encoded(_beside_loop(partial(next, answers))))

    def kill(self) -> None: ...

    def close(self) -> None:
        _beside_loop(self._server.close)


def _beside_loop(call: Callable[[], T]) -> T:
    """The result of a call that may run an event loop: in another thread where this one runs a loop, as a notebook's
    does."""
    running = False
    with suppress(RuntimeError):
        asyncio.get_running_loop()
        running = True
    if not running:  # outside of the handler, or what the call raises would be told as a consequence of it
        return call()
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(call).result()


class WorkerPool(Closing):
    """`size` workers with the same `server`, as `module:class`, in slots that are counted from 0; with a size of 0 one
    slot, which is this process.

    Each worker answers the requests that `prepare` gives for its slot before any other, each within START_SECONDS. The
    answer to the first is that of `start`; an `error` in it is the message of an InputError. `closed` is the message of
    RunFailed once the pool is closed, `not_started` makes that of a worker that was lost while it started."""

    def __init__(
        self,
        server: str,
        size: int,
        prepare: Callable[[int], Sequence[Request]],
        *,
        closed: str,
        not_started: Callable[[str], str],
    ) -> None:
        self._server, self._prepare, self._closed, self._not_started = server, prepare, closed, not_started
        self._in_process = size == 0
        self._slots: list[Worker | InProcess | None] = [None] * max(1, size)
        self.closed = False

    def __len__(self) -> int:
        return len(self._slots)

    def is_alive(self, slot: int) -> bool:
        worker = self._slots[slot]
        return worker is not None and worker.alive

    def worker(self, slot: int, renew: bool = True) -> Worker | InProcess:
        """The worker of a slot, started if there is none, and with `renew` also in the place of one that has ended.
        Raises what `start` raises."""
        if self._slots[slot] is None or (renew and not self.is_alive(slot)):
            self.start(slot)
        worker = self._slots[slot]
        assert worker is not None
        return worker

    def start(self, slot: int) -> dict[str, Any]:
        """Put a new worker into a slot. Raises RunFailed for one that does not start, or where the pool is closed, and
        InputError for one that cannot be prepared."""
        self.check_open()
        if (old := self._slots[slot]) is not None:
            old.close()
        worker = self._slots[slot] = InProcess(self._server) if self._in_process else Worker(self._server)
        try:
            self.check_open()  # `abort`, if it came in the meantime, has not seen this worker
            answers = []
            for request in self._prepare(slot):
                answers.append(worker.ask(request, START_SECONDS))
                if "error" in answers[-1]:
                    raise InputError(answers[-1]["error"])
        except WorkerLost as lost:
            self.check_open()
            raise RunFailed(self._not_started(str(lost))) from None
        except BaseException:
            worker.close()
            raise
        return answers[0] if answers else {}

    def side_by_side(self, calls: Sequence[Callable[[], T]]) -> list[T]:
        """The results of calls that each use another slot. If one of them raises, the pool is closed."""
        if len(calls) < 2:
            return [call() for call in calls]
        with ThreadPoolExecutor(len(calls), thread_name_prefix="worker") as threads:
            try:
                return [future.result() for future in [threads.submit(call) for call in calls]]
            except BaseException:
                self.abort()
                raise

    def check_open(self) -> None:
        if self.closed:
            raise RunFailed(self._closed)

    def abort(self) -> None:
        """Close the pool from another thread than those that use it, which soon get RunFailed."""
        self.closed = True
        for worker in self._slots:
            if worker is not None:
                worker.kill()  # wakes the thread that waits for it

    def close(self) -> None:
        self.closed = True
        for worker in self._slots:
            if worker is not None:
                worker.close()
