"""The probes over a reward, in order."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from posttrain.audit.golds import GoldTask
from posttrain.audit.probes import PROBES
from posttrain.audit.probes.base import Result
from posttrain.audit.subject import Subject
from posttrain.config import AuditConfig
from posttrain.console import Progress
from posttrain.rewards.scorer import Scorer


@dataclass(frozen=True)
class Attacked:
    """A reward that was attacked: what each probe returned, with the seconds that it took."""

    subject: Subject
    results: Mapping[str, tuple[Result, float]]
    seconds: float


def attack(
    config: AuditConfig, scorer: Scorer, golds: Sequence[GoldTask], probes: Sequence[str] | None = None
) -> Attacked:
    """Calibrate a reward and run the `probes`, without these those that `config` names. Raises `Uncalibrated`."""
    started = time.monotonic()
    wanted = probes if probes is not None else config.only or tuple(PROBES)
    results = {}
    with Progress(f"audit {', '.join(map(str, config.reward))}"[:60], None, unit="answer") as progress:
        subject = Subject(scorer, golds, config.seed, progress.advance, config.policy)
        _ = subject.calibration  # which raises where there is none
        for name in (name for name in PROBES if name in wanted):
            before = time.monotonic()
            results[name] = PROBES[name][1](subject), time.monotonic() - before
    return Attacked(subject, results, time.monotonic() - started)
