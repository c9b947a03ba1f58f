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
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from posttrain.envs.specs import parse_spec
from posttrain.rows import told_columns
from posttrain.types import InputError, Message
from posttrain.workers.pool import WorkerPool, say_workers, worker_count
from posttrain.workers.process import Closing, WorkerLost

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
    `state` is the instance by `workers.user_code.freeze`; None where nobody asks or it cannot be pickled."""

    reward: float | None
    state: bytes | None


class EnvPool(Closing):
    """Episodes of one environment, each in an instance of its own, in `workers` processes (None: one less than the
    usable cores, at least 1).

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
        workers: int | None = None,
        keep_state: bool = False,
    ) -> None:
        self._wanted, workers = workers, worker_count(workers)
        if workers < 1 or not timeout_seconds > 0:
            raise InputError("an environment needs at least one worker and a timeout above 0")
        expression = parse_spec(spec)
        self._seconds = timeout_seconds
        self._keep_state = keep_state
        self._slot_of: dict[int, int] = {}  # of each live episode
        self._lost: dict[int, Lost] = {}  # episodes that failed and were neither reset nor finished since
        self._pool = WorkerPool(
            SERVER,
            workers,
            lambda slot: [{"kind": "load", "expression": expression}],
            closed="the environments are closed",
            not_started=lambda lost: f"a worker of the environment {expression.text} did not start ({lost})",
        )
        described = self._pool.start(0)
        self.tools: tuple[Mapping[str, Any], ...] = tuple(described["schemas"])
        self.has_reward: bool = described["has_reward"]
        needed = [name for name in described["required"] if name not in ("prompt", "seed")]
        if columns is not None and (missing := [name for name in needed if name not in columns]):
            self.close()
            raise InputError(
                f"environment {spec}: {described['name']}.reset asks for {missing[0]!r}, which is no column of "
                f"all rows; {told_columns(columns, missing[:1])}; always available are: prompt, seed"
            )

    def reset(self, episodes: Mapping[int, tuple[Mapping[str, Any], int]]) -> dict[int, str | Lost | None]:
        """Begin episodes: from number to (columns, seed). Returns what each shows first; None for nothing."""
        say_workers("environments", self._wanted)
        for key in episodes:
            self._slot_of.pop(key, None)
            self._lost.pop(key, None)
        crowd = Counter(self._slot_of.values())
        for key in episodes:
            self._slot_of[key] = min(range(len(self._pool)), key=lambda slot: (crowd[slot], slot))
            crowd[self._slot_of[key]] += 1
        items = {key: (dict(columns), seed) for key, (columns, seed) in episodes.items()}
        return self._ask("reset", items, lambda answer: answer["observation"])

    def act(self, answers: Mapping[int, Message]) -> dict[int, Reply | Lost]:
        return self._ask("act", {key: (message.to_dict(),) for key, message in answers.items()}, _reply)

    def finish(self, keys: Sequence[int]) -> dict[int, Outcome | Lost]:
        """Rewards and states; the instances are gone, and the numbers free."""
        outcomes = self._ask("finish", dict.fromkeys(keys, (self._keep_state,)), _outcome)
        for key in keys:
            self._slot_of.pop(key, None)
            self._lost.pop(key, None)
        return outcomes

    def close(self) -> None:
        self._pool.close()

    def _ask(
        self, kind: str, items: Mapping[int, tuple[Any, ...]], read: Callable[[dict[str, Any]], T]
    ) -> dict[int, T | Lost]:
        """The answers of all episodes concerned, in order; the workers work side by side."""
        self._pool.check_open()
        by_slot: dict[int, dict[int, tuple[Any, ...]]] = {}
        for key, values in items.items():
            if key not in self._lost:
                by_slot.setdefault(self._slot_of[key], {})[key] = values
        told: dict[int, T] = {}
        for answers in self._pool.side_by_side([partial(self._serve, slot, kind, i) for slot, i in by_slot.items()]):
            for key, answer in answers.items():
                if "lost" in answer:
                    self._lost[key] = Lost(answer["lost"])
                else:
                    told[key] = read(answer)
        return {key: told[key] if key in told else self._lost[key] for key in items}

    def _serve(self, slot: int, kind: str, items: Mapping[int, tuple[Any, ...]]) -> dict[int, dict[str, Any]]:
        """The answers of the episodes of one slot; those without one are in `_lost`."""
        begins = kind == "reset"
        while left := {key: values for key, values in items.items() if key not in self._lost}:
            if begins and not self._pool.is_alive(slot):
                self._lose(slot, "its process has ended", spared=left)
            worker = self._pool.worker(slot, renew=begins)
            listed = [(key, *values) for key, values in left.items()]
            request = {"kind": kind, "items": listed, "seconds": self._seconds}
            answers: dict[int, dict[str, Any]] = {}
            try:
                answers.update(zip(left, worker.stream(request, len(left), self._seconds + GRACE_SECONDS), strict=True))
                return answers
            except WorkerLost as lost:
                culprit = next(key for key in left if key not in answers)
                self._lost[culprit] = Lost(str(lost))
                self._lose(slot, f"its process was lost with episode {culprit}, which {lost}", left if begins else ())
            if not begins:
                return answers
        return {}

    def _lose(self, slot: int, reason: str, spared: Collection[int]) -> None:
        """Every episode of a slot is lost, but for those spared."""
        for key, its_slot in self._slot_of.items():
            if its_slot == slot and key not in spared:
                self._lost.setdefault(key, Lost(reason))


def _reply(answer: Mapping[str, Any]) -> Reply:
    return Reply(tuple(map(Message.from_dict, answer["messages"])), answer["done"])


def _outcome(answer: Mapping[str, Any]) -> Outcome:
    state = answer["state"]
    return Outcome(answer["reward"], None if state is None else base64.b64decode(state))
