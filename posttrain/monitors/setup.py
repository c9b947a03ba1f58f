"""Which monitors a run has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from posttrain.alerts import Alert, Observer, StepRecord
from posttrain.config import OnlineDpoConfig, RlConfig
from posttrain.console import warn
from posttrain.expressions import parse_entry
from posttrain.monitors import answers, progress, scores
from posttrain.monitors.stopping import stopping_monitors
from posttrain.monitors.warning import WarningMonitor
from posttrain.runs.audit import Finding, Thresholds, read_audit
from posttrain.types import InputError

Rewarded = RlConfig | OnlineDpoConfig


def monitors_for(config: Rewarded) -> list[Observer]:
    """The monitors of a run, with the limits that an audit of its reward found, if there is one. Raises InputError for
    an audit that is not there or damaged."""
    if config.no_monitors:
        return []
    audit: Thresholds | None = None
    told: list[Observer] = []
    controlled = isinstance(config, RlConfig) and config.control is not None  # such a run is not paid by its reward
    if config.audit is not None:
        record = read_audit(config.audit)
        if (audit := record["thresholds"]) is None:
            warn(
                f"--audit {config.audit} has no limits for monitors: its reward pays the empty answer as much as the "
                "reference answers; they begin without"
            )
        if record["reward"] != (rewards := [str(reward) for reward in config.reward]):
            warn(
                f"--audit {config.audit} is of another reward, {', '.join(record['reward'])}; its scale and limits may "
                f"not fit {', '.join(rewards)}"
            )
        elif not controlled and (found := _critical(record["findings"])):
            warn(text := f"--audit {config.audit} has {found}")
            told = [_noted("audit", text)]
        check_read(config, audit is not None and audit["distance"] is not None)
    sealed, canaries = (bool(given) and not controlled for given in (config.sealed_reward, config.canaries))
    stopping = stopping_monitors(config.on_alarm, sealed=sealed, canaries=canaries, audit=audit)
    on_answers = [answers.exploits(), answers.repetition(), scores.equal_rewards(), answers.agreement()]
    return [*told, *stopping, *on_answers, *([] if controlled else _of_reward(config, audit))]


def check_read(config: Rewarded, distance: bool = True) -> None:
    """Raise InputError where no monitor of a run would read its audit, which has a `distance` or not."""
    if not (config.regrades or (distance and _fixed_reference(config))):
        raise InputError(
            f"--audit {config.audit}: no monitor of this run reads it; add --sealed-reward or --canaries, or leave the "
            "audit out"
        )


def _critical(findings: Sequence[Finding]) -> str:
    """How many findings are critical, and the first of them; "" without any."""
    titles = [f"{each['probe']} {each['title']}" for each in findings if each["severity"] == "critical"]
    return f"{len(titles)} critical finding{'s' if len(titles) > 1 else ''}, first: {titles[0]}" if titles else ""


def _noted(kind: str, text: str) -> Observer:
    """Writes an event with the first step of a run; one that is resumed has it."""
    alerts = [Alert(kind, text, "note")]

    def observe(record: StepRecord) -> Iterable[Alert]:
        found = [] if record.replayed else [*alerts]
        alerts.clear()
        return found

    return observe


def _of_reward(config: Rewarded, audit: Thresholds | None) -> Iterator[WarningMonitor]:
    """Those that only warn and are about the reward, as far as the run has what they need."""
    ensembles = _ensembles(config)
    yield scores.length(audit)
    yield scores.parts(ensembles)
    if ensembles:
        yield scores.spread(ensembles)
    if (optimum := _distance(config, audit)) is not None:
        yield progress.distance(optimum)
    if config.eval_every is not None:
        yield progress.held_out(audit)
    if config.effort_every is not None:
        yield progress.effort(audit)


def _distance(config: Rewarded, audit: Thresholds | None) -> float | None:
    """d* of the audit, where the run measures its distance to what it began with."""
    return audit["distance"] if audit is not None and _fixed_reference(config) else None


def _fixed_reference(config: Rewarded) -> bool:
    return config.keeps_reference and config.reference_every is None


def _ensembles(config: Rewarded) -> set[str]:
    """The names of the rewards that are ensembles, or learned and perhaps an ensemble."""
    found = [part for entry in config.reward for part in parse_entry(entry)[0].walk()]
    return {part.renamed or part.target for part in found if part.target.startswith(("ensemble_", "learned"))}
