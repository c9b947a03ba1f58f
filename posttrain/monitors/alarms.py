"""What a monitor raises: an alarm, with the answers that it points at."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from posttrain.alerts import Action, Alert, StepRecord
from posttrain.types import Rollout

ALARM = "alarm"
"""The kind of its event."""
SHOWN = 5
"""Answers that an alarm points at."""
EXCERPT = 300
"""Characters shown of each."""


class Suspect(NamedTuple):
    """An answer that speaks for an alarm; the higher its weight, the more."""

    step: int
    rollout: Rollout
    weight: float = 0.0
    note: str = ""


def worst(found: Iterable[Suspect], before: Sequence[Suspect] = ()) -> list[Suspect]:
    """The heaviest of a step, then those of the steps before it."""
    return [*sorted(found, key=lambda suspect: -suspect.weight), *before][:SHOWN]


def alarm(
    monitor: str,
    record: StepRecord,
    reason: str,
    *,
    value: float,
    threshold: float,
    suspects: Sequence[Suspect] = (),
    action: Action = "warn",
) -> Alert:
    """The alarm of a monitor, such as "M1": `value` is what it measured, `threshold` what it should not exceed (or, for
    some monitors, not fall below), and `reason` says so in words."""
    shown = [
        {
            "step": suspect.step,
            "task": suspect.rollout.task_id,
            "index": suspect.rollout.index,
            "excerpt": _shortened(suspect.rollout.text),
            **({"note": suspect.note} if suspect.note else {}),
        }
        for suspect in suspects[:SHOWN]
    ]
    fields = {
        "monitor": monitor,
        "step": record.step,
        "value": value,
        "threshold": threshold,
        "action": action,
        "reason": reason,
        "worst": shown,
    }
    return Alert(ALARM, f"step {record.step}: alarm of monitor {monitor}: {reason}", action, fields)


def _shortened(text: str) -> str:
    words = " ".join(text[: 4 * EXCERPT].split())
    return words if len(words) <= EXCERPT else words[: EXCERPT - 1] + "…"
