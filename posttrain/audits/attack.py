"""The probes over a reward, in order."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from posttrain.audits.files import TRAINED
from posttrain.audits.golds import GoldTask
from posttrain.audits.judge import guard_for
from posttrain.audits.probes import PROBES
from posttrain.audits.probes.base import Probe, Result, not_run
from posttrain.audits.subject import Subject, Uncalibrated
from posttrain.audits.training import TRAINING, Train, trained
from posttrain.config import AuditConfig
from posttrain.console import Progress
from posttrain.functions import short
from posttrain.rewards.scorer import Scorer

TITLE = 54
"""Characters of the rewards beside the progress, the last ones: a path ends with what tells it from others."""


@dataclass(frozen=True)
class Attacked:
    """A reward that was attacked: what each probe returned, with the seconds that it took."""

    subject: Subject
    results: Mapping[str, tuple[Result, float]]
    seconds: float


def attack(
    config: AuditConfig,
    scorer: Scorer,
    golds: Sequence[GoldTask],
    probes: Sequence[str] | None = None,
    train: Train | None = None,
) -> Attacked:
    """Calibrate a reward and run the `probes`, without these those that `config` names; then train against it, if
    `train` is given. Of a reward without a scale A1 is run in any case, which finds what it pays.
    Raises `Uncalibrated`."""
    started = time.monotonic()
    results: dict[str, tuple[Result, float]] = {}
    rewards = ", ".join(map(short, config.reward))
    title = f"audit {rewards if len(rewards) <= TITLE else f'…{rewards[-TITLE:]}'}"
    with guard_for(config, golds, scorer.columns) as guard:
        with Progress(title, None, unit="answers graded:") as progress:
            subject = Subject(scorer, golds, config.seed, progress.advance, guard, config.calls, config.policy)
            wanted = {*(probes if probes is not None else config.only or PROBES)}
            wanted |= set() if subject.has_scale else {"A1"}
            for name in (name for name in PROBES if name in wanted):
                results[name] = _timed(PROBES[name][1], subject)
        if train is not None:  # it shows its own progress
            results[TRAINING] = _timed(lambda subject: trained(subject, train, config.out / TRAINED), subject)
    return Attacked(subject, results, time.monotonic() - started)


def _timed(probe: Probe, subject: Subject) -> tuple[Result, float]:
    before = time.monotonic()
    try:
        result = probe(subject)
    except Uncalibrated as error:
        result = not_run(str(error))
    return result, time.monotonic() - before
