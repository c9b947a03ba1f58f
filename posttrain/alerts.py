"""What observers of a run get, the record of a step, and what they return, alerts.

An observer is a callable that gets the record of each step and returns alerts, or nothing. It may also have `finish()`,
called once the run has reached its end, which returns alerts too; and `close()`, called however the run ends.

After a resume an observer sees the steps that were done before too, marked `replayed`, and so rebuilds what it has
counted; of its alerts there only a `stop` after the last of them counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from posttrain.types import Group

Action = Literal["note", "warn", "pause", "stop", "rollback"]
RESERVED = ("finished", "stopped", "rolled_back", "resumed_from", "resumed_otherwise", "damaged_checkpoint")
"""Events that the loop writes."""


@dataclass(frozen=True)
class Alert:
    """What an observer found in a step: `kind` names the event, `text` says it in words.

    The event in `events.jsonl` holds `fields`, or else the step, the action and the text as reason; there is none
    without text and fields. The text is printed as a warning, but for a `note`. Once the step is done

    - `rollback` puts weights, optimizer and the stage's state back to the last checkpoint, and the run goes on with the
      next step and its data (see `train.loop.run_stage`);
    - `stop` ends the run as its last step does: the model is written, and `kind` is why it ended;
    - `pause` saves a checkpoint and raises RunPaused; `--resume` goes on with the next step."""

    kind: str
    text: str = ""
    action: Action = "warn"
    fields: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.action not in get_args(Action):
            raise ValueError(f"the action of an alert is one of {', '.join(get_args(Action))}, and not {self.action!r}")
        if not isinstance(self.kind, str) or not isinstance(self.text, str):
            raise TypeError(f"the kind and text of an alert are texts, and not {self.kind!r} and {self.text!r}")
        if "event" in (self.fields or ()):
            raise ValueError("'event' in an event is the kind of its alert; give the field another name")
        if self.kind in RESERVED:
            raise ValueError(f"{self.kind!r} is an event that every run has; give the alert another kind")


@dataclass(frozen=True)
class StepRecord:
    """A step that was done: its row of `metrics.jsonl`, evaluation included, and in online RL the groups that were
    sampled, with their scores, and the `rows` they were trained as (none in a step that is `replayed`). `total` is how
    many steps the run has at most, if that is known."""

    step: int
    total: int | None
    metrics: Mapping[str, Any]
    groups: Sequence[Group] = ()
    rows: Sequence[Any] = ()
    replayed: bool = False


Observer = Callable[[StepRecord], Iterable[Alert] | None]
