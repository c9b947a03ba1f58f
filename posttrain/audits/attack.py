"""The probes over a reward, in order."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from posttrain.audits.golds import GoldTask
from posttrain.audits.judge import guard_for
from posttrain.audits.probes import PROBES
from posttrain.audits.probes.base import Result
from posttrain.audits.subject import Subject
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
    title = f"audit {', '.join(map(str, config.reward))}"[:60]
    with guard_for(config, golds, scorer.columns) as guard, Progress(title, None, unit="answer") as progress:
        subject = Subject(scorer, golds, config.seed, progress.advance, guard, config.calls, config.policy)
        _ = subject.calibration  # which raises where there is none
        for name in (name for name in PROBES if name in wanted):
            before = time.monotonic()
            results[name] = PROBES[name][1](subject), time.monotonic() - before
    return Attacked(subject, results, time.monotonic() - started)
