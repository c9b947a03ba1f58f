"""Environments seen from the rollout: episodes by number, answers to what the model said, failures told apart.

Instances live in killable worker processes, many in each: an instance is a few kilobytes and a process some megabytes.
A worker clocks its own calls, so that code which Python can interrupt costs only its own episode when it hangs. What
cannot be interrupted, or kills its process, takes the other episodes of that worker with it; they are `Lost` too, and
their reason says whose fault it was. Resets that were under way there are done again.

An answer depends on the columns, the seed and what the model said, never on time or on which worker gave it.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

from posttrain.envs.specs import parse_spec
from posttrain.types import InputError, Message, RunFailed
from posttrain.workers.process import START_SECONDS, Worker, WorkerLost

T = TypeVar("T")
SERVER = "posttrain.envs.server:EnvServer"
GRACE_SECONDS = 3.0
"""The parent waits so much longer than the clock inside a worker."""


@dataclass(frozen=True)
class Reply:
    """What an environment answers to one assistant message: tool results or one turn of the user; nothing if empty.
    `done`: the episode is over, nothing more is to be sampled."""

    messages: tuple[Message, ...]
    done: bool


@dataclass(frozen=True)
class Lost:
    """The environment failed: it raised, timed out or its process died. The rollout is a failed one, never a 0."""

    reason: str


@dataclass(frozen=True)
class Outcome:
    """What is left at the end. `reward` is that of `get_reward()`; None where there is none or it does not apply.
    `state` is the instance by `rewards.loading.freeze`; None where nobody asks or it cannot be pickled."""

    reward: float | None
    state: bytes | None


class EnvPool:
    """Episodes of one environment, each in an instance of its own, in `workers` processes.

    `timeout_seconds` bounds a reset, the answer to one message and a reward, each. `columns` are those of the data;
    None where they are not known yet. With `keep_state` an outcome carries its instance, for rewards that name
    `environments`.

    Raises InputError where the environment cannot be found, imported or described, or its `reset` asks for what is no
    column; RunFailed where a worker does not start. Not for use by two threads at once."""

    def __init__(
        self,
        spec: str,
        *,
        columns: Collection[str] | None,
        timeout_seconds: float,
        workers: int = 2,
        keep_state: bool = False,
    ) -> None:
        if workers < 1 or not timeout_seconds > 0:
            raise InputError("an environment needs at least one worker and a timeout above 0")
        self._expression = parse_spec(spec)
        self._seconds = timeout_seconds
        self._keep_state = keep_state
        self._slots: list[Worker | None] = [None] * workers
        self._home: dict[int, int] = {}  # the slot of each live episode
        self._lost: dict[int, Lost] = {}  # of those whose failure is to be told, now or again
        self._closed = False
        self._slots[0], described = self._start()
        self.tools: tuple[Mapping[str, Any], ...] = tuple(described["schemas"])
        self.has_reward: bool = described["has_reward"]
        try:
            if columns is not None:
                check_columns(spec, described["name"], described["required"], columns)
        except InputError:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def reset(self, episodes: Mapping[int, tuple[Mapping[str, Any], int]]) -> dict[int, str | Lost | None]:
        """Begin episodes: from number to (columns, seed). Returns what each shows first; None for nothing."""
        for key in episodes:
            self._home.pop(key, None)
            self._lost.pop(key, None)
        crowd = Counter(self._home.values())
        for key in episodes:
            self._home[key] = min(range(len(self._slots)), key=lambda slot: (crowd[slot], slot))
            crowd[self._home[key]] += 1
        items = {key: (dict(columns), seed) for key, (columns, seed) in episodes.items()}
        return self._ask("reset", items, lambda answer: answer["observation"])

    def act(self, answers: Mapping[int, Message]) -> dict[int, Reply | Lost]:
        """What each environment answers to an assistant message, with tool calls or without."""
        return self._ask("act", {key: (message.to_dict(),) for key, message in answers.items()}, _reply)

    def finish(self, keys: Sequence[int]) -> dict[int, Outcome | Lost]:
        """Rewards and states; the instances are gone, and the numbers free."""
        outcomes = self._ask("finish", dict.fromkeys(keys, (self._keep_state,)), _outcome)
        for key in keys:
            self._home.pop(key, None)
            self._lost.pop(key, None)
        return outcomes

    def close(self) -> None:
        """End the workers; idempotent."""
        self._closed = True
        for worker in self._slots:
            if worker is not None:
                worker.close()

    def _ask(
        self, kind: str, items: Mapping[int, tuple[Any, ...]], read: Callable[[dict[str, Any]], T]
    ) -> dict[int, T | Lost]:
        """The answers of all episodes concerned, in order; the workers work side by side."""
        if self._closed:
            raise RunFailed("the environments are closed")
        by_slot: dict[int, dict[int, tuple[Any, ...]]] = {}
        for key, values in items.items():
            if key not in self._lost:
                by_slot.setdefault(self._home[key], {})[key] = values
        answers: dict[int, dict[str, Any]] = {}
        for some in self._side_by_side([(slot, kind, these) for slot, these in by_slot.items()]):
            answers |= some
        for key, answer in answers.items():
            if "lost" in answer:
                self._lost[key] = Lost(answer["lost"])
        told = {key: answer for key, answer in answers.items() if "lost" not in answer}
        return {key: read(told[key]) if key in told else self._lost[key] for key in items}

    def _side_by_side(self, requests: Sequence[tuple[int, str, Any]]) -> list[dict[int, dict[str, Any]]]:
        if len(requests) < 2:
            return [self._serve(*request) for request in requests]
        with ThreadPoolExecutor(len(requests), thread_name_prefix="environment") as threads:
            try:
                return [future.result() for future in [threads.submit(self._serve, *each) for each in requests]]
            except BaseException:
                self._closed = True
                for worker in self._slots:
                    if worker is not None:
                        worker.kill()  # wakes the thread that waits for it
                raise

    def _serve(self, slot: int, kind: str, items: Mapping[int, tuple[Any, ...]]) -> dict[int, dict[str, Any]]:
        """The answers of the episodes of one slot; those without one are in `_lost`."""
        answers: dict[int, dict[str, Any]] = {}
        while left := {key: values for key, values in items.items() if key not in self._lost}:
            answers, lost = self._exchange(slot, kind, left)
            if lost is None:
                break
            culprit = next(key for key in left if key not in answers)
            again = left if kind == "reset" else {}
            self._lost[culprit] = Lost(lost)
            self._lose(slot, f"its process was lost with episode {culprit}, which {lost}", again)
            if not again:
                break
        return answers

    def _exchange(
        self, slot: int, kind: str, items: Mapping[int, tuple[Any, ...]]
    ) -> tuple[dict[int, dict[str, Any]], str | None]:
        """The answers of a worker, and why it was lost before it gave them all."""
        worker = self._slots[slot]
        if kind == "reset" and (worker is None or not worker.alive):
            worker = self._renew(slot, items)
        assert worker is not None  # an episode that is not lost has been reset
        request = {"kind": kind, "items": [(key, *items[key]) for key in items], "seconds": self._seconds}
        answers: dict[int, dict[str, Any]] = {}
        keys = iter(items)
        try:
            for answer in worker.stream(request, len(items), self._seconds + GRACE_SECONDS):
                answers[next(keys)] = answer
        except WorkerLost as lost:
            return answers, str(lost)
        return answers, None

    def _renew(self, slot: int, begun: Collection[int]) -> Worker:
        """A worker in the place of one that is gone, and with it every episode but those that have just begun."""
        old = self._slots[slot]
        if old is not None:
            old.close()
            self._lose(slot, "its process has ended", begun)
        worker, _ = self._start()
        self._slots[slot] = worker
        return worker

    def _lose(self, slot: int, reason: str, spared: Collection[int]) -> None:
        """Every episode of a slot is lost, but for those spared."""
        for key, home in self._home.items():
            if home == slot and key not in spared:
                self._lost.setdefault(key, Lost(reason))

    def _start(self) -> tuple[Worker, dict[str, Any]]:
        """A new worker with the class loaded, and what it says about an instance."""
        if self._closed:
            raise RunFailed("the environments are closed")
        text = self._expression.text
        worker = Worker(SERVER)
        try:
            request = {"kind": "load", "expression": self._expression}
            answer = worker.ask(request, START_SECONDS)
            if "error" in answer:
                raise InputError(f"environment {text} cannot be used: {answer['error']}")
        except WorkerLost as lost:
            raise RunFailed(f"a worker of the environment {text} did not start ({lost})") from None
        except BaseException:
            worker.close()
            raise
        return worker, answer


def check_columns(spec: str, name: str, required: Sequence[str], columns: Collection[str]) -> None:
    """Raise InputError, naming column and class, for a parameter of `reset` that nothing can fill."""
    for parameter in required:
        if parameter != "seed" and parameter not in columns:
            raise InputError(
                f"environment {spec}: {name}.reset asks for {parameter!r}, which is no column; the data's columns are: "
                f"{', '.join(sorted(columns)) or 'none'}; always available is: seed"
            )


def _reply(answer: Mapping[str, Any]) -> Reply:
    return Reply(tuple(map(Message.from_dict, answer["messages"])), answer["done"])


def _outcome(answer: Mapping[str, Any]) -> Outcome:
    state = answer["state"]
    return Outcome(answer["reward"], None if state is None else base64.b64decode(state))
