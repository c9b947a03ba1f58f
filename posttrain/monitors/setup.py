"""Which monitors a run has."""

from __future__ import annotations

from posttrain.alerts import Observer
from posttrain.config import OnlineDpoConfig, RlConfig
from posttrain.monitors.stopping import stopping_monitors
from posttrain.runs.audit import Thresholds, read_audit
from posttrain.types import InputError


def monitors_for(config: RlConfig | OnlineDpoConfig) -> list[Observer]:
    """The monitors of a run, with the limits that an audit of its reward found, if there is one. Raises InputError for
    an audit that is not there or damaged."""
    if config.no_monitors:
        return []
    audit: Thresholds | None = None
    if config.audit is not None:
        audit = read_audit(config.audit)["thresholds"]
        if not (config.sealed_reward or config.canaries):
            raise InputError(
                f"--audit {config.audit}: no monitor of this run reads it; add --sealed-reward or --canaries, or leave "
                "the audit out"
            )
    controlled = isinstance(config, RlConfig) and config.control is not None  # such a run is not paid by its reward
    sealed, canaries = (bool(given) and not controlled for given in (config.sealed_reward, config.canaries))
    return [*stopping_monitors(config.on_alarm, sealed=sealed, canaries=canaries, audit=audit)]
