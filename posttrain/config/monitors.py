"""What watches the steps of a run for signs that its reward is gamed."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import model_validator

from posttrain.config.base import Config, Group


class MonitorOptions(Config):
    """The monitors of a run on rewards of its own samples."""

    MONITORS: ClassVar[Group] = Group("Monitors", last=True)
    no_monitors: bool = False
    """Do not watch the steps for signs that the policy games the reward. Without this, alarms are printed, and stand in
    `events.jsonl` and in the report; docs/monitors.md says what each monitor watches."""
    audit: Path | None = None
    """Folder of an audit of the reward, from which monitors take limits and the scale of the reward."""
    on_alarm: Literal["warn", "pause", "stop", "rollback"] = "warn"
    """What an alarm of the monitors M1, M2 and M9 does: `warn` only; `pause` the run, which --resume continues; `stop`
    it, as after its last step; or `rollback` to the last checkpoint and go on with other tasks. A run in which nothing
    is wrong has such an alarm with a probability of at most 5%, however long it is; other monitors only warn."""

    @model_validator(mode="after")
    def _watched(self) -> MonitorOptions:
        for option in ("audit", "on_alarm"):
            if self.no_monitors and getattr(self, option) != MonitorOptions.model_fields[option].default:
                raise ValueError(f"{option} has no effect with no_monitors")
        return self
