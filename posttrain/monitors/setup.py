"""Which monitors a run has."""

from __future__ import annotations

from posttrain.alerts import Observer
from posttrain.config import OnlineDpoConfig, RlConfig
from posttrain.runs.audit import Thresholds


def monitors_for(config: RlConfig | OnlineDpoConfig, audit: Thresholds | None = None) -> list[Observer]:
    """The monitors of a run, with the thresholds that an audit of its reward measured, if there is one."""
    return []
