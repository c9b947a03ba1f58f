"""Records of steps, made by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from posttrain.alerts import Alert, Observer, StepRecord
from posttrain.types import Completion, Group, Message, Rollout, Sampling, Score, Segment, Task


def answer(text: str = "It is 4.", tokens: Sequence[int] | int = 3, task: str = "a", index: int = 0) -> Rollout:
    """An answer of these tokens, or of so many different ones."""
    ids = list(range(tokens)) if isinstance(tokens, int) else list(tokens)
    row = Segment.of([7, 7, 7], Completion(ids, [-0.5] * len(ids), [0] * len(ids), "stop"))
    return Rollout(task, index, Sampling(8), 0, (Message("assistant", text),), (row,))


def lengths(*tokens: int) -> list[Rollout]:
    """Answers of so many tokens."""
    return [answer(tokens=n, index=i) for i, n in enumerate(tokens)]


def group(
    rollouts: Sequence[Rollout],
    totals: Sequence[float | None] | None = None,
    parts: Mapping[str, Sequence[float | None]] | None = None,
    **regraded: Sequence[float | None],
) -> Group:
    """A group with these scores (0 without); one of None has failed."""
    scores = tuple(
        Score(total, {name: values[i] for name, values in (parts or {}).items()}, "failed" if total is None else None)
        for i, total in enumerate(totals or [0.0] * len(rollouts))
    )
    return Group(
        Task("a", "2 + 2?"), tuple(rollouts), scores, {k.replace("_", "/"): tuple(v) for k, v in regraded.items()}
    )


def steps(monitor: Observer, *records: tuple[Sequence[Group], Mapping[str, Any]], replayed: int = 0) -> list[Alert]:
    """The alerts of a run of these groups and metrics; the first steps are `replayed`."""
    found: list[Alert] = []
    for n, (groups, metrics) in enumerate(records, start=1):
        found += monitor(StepRecord(n, None, {"step": n, **metrics}, groups, (), n <= replayed)) or ()
    return found


def only(alerts: Sequence[Alert]) -> dict[str, Any]:
    """The fields of the only alert, which is an alarm that warns."""
    (alert,) = alerts
    assert alert.kind == "alarm" and alert.action == "warn" and alert.fields is not None
    return dict(alert.fields)
