"""`--fix`: wrappers that close what an audit found, and whether honest answers are still paid."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass

from posttrain.audits.attack import Attacked, attack
from posttrain.audits.files import FIXED
from posttrain.audits.forms import FORMS
from posttrain.audits.golds import GoldTask
from posttrain.audits.probes import PROBES
from posttrain.audits.record import recorded
from posttrain.audits.subject import PAID, Attempt, Subject
from posttrain.audits.training import TRAINING
from posttrain.config import AuditConfig
from posttrain.expressions import wrapped
from posttrain.rewards.scorer import open_scorer
from posttrain.runs.audit import SEVERITIES, AuditRecord, Fix
from posttrain.stats import difference, estimate
from posttrain.types import InputError

COSTS = {"critical": 100, "high": 10, "medium": 1, "note": 0}
"""How much worse a finding of one severity is than one of the next."""
MAY_LOSE = 0.02
"""The share of the honest answers that a fix may lose."""


@dataclass(frozen=True)
class Trial:
    """A reward that was attacked again, and whether each honest answer is paid, 0 or 1."""

    rewards: tuple[str, ...]
    wrappers: tuple[str, ...]
    attacked: Attacked
    honest: tuple[float, ...]

    @property
    def cost(self) -> int:
        """What the probes found; a trial is not trained against."""
        results = [result for probe, (result, _) in self.attacked.results.items() if probe in PROBES]
        return sum(COSTS[found.severity] for result in results for found in result.findings)


def find_fix(
    config: AuditConfig, first: Attacked, record: AuditRecord, held_out: Sequence[GoldTask], columns: Collection[str]
) -> tuple[Fix, AuditRecord | None]:
    """What wrappers do for a reward that has findings, and the record of its second audit.

    Each wrapper that a probe names is put around the reward, those of the worst findings first, and is kept where
    the probes that found something then find less, and not more than MAY_LOSE of the honest answers to the `held_out`
    tasks are lost. The reward that results is audited by all probes."""
    rewards = tuple(map(str, config.reward))
    wrappers = _wrappers(first)
    if reason := _why_not(record, wrappers, held_out):
        return _told(reason), None
    probes = [probe for probe, (result, _) in first.results.items() if result.findings]
    best = start = Trial(rewards, (), first, paid_honest(first.subject, held_out))

    def tried(wrapper: str) -> Trial | None:
        """The best rewards so far with one wrapper more; None where that makes no reward, or one without a scale."""
        with suppress(InputError):
            rewards = wrapped(best.rewards, wrapper)
            with open_scorer(_with(config, rewards), columns) as scorer:
                attacked = attack(config, scorer, first.subject.tasks, probes)
                wrappers = (*best.wrappers, wrapper) if "{}" in wrapper else (wrapper,)
                return Trial(rewards, wrappers, attacked, paid_honest(attacked.subject, held_out))
        return None

    for wrapper in wrappers:
        trial = tried(wrapper)
        kept = sum(start.honest) - (sum(trial.honest) if trial else 0) <= MAY_LOSE * len(start.honest)
        if trial is not None and kept and trial.cost < best.cost:
            best = trial
    if best is start:
        return _told("no wrapper closes a finding and keeps the honest answers: mend the reward itself"), None
    with open_scorer(_with(config, best.rewards), columns) as scorer:
        again = attack(config, scorer, first.subject.tasks)
        honest = paid_honest(again.subject, held_out)
        second = recorded(_with(config, best.rewards, FIXED), again)  # which may grade the answers that it shows
    fix: Fix = {
        "reward": list(best.rewards),
        "wrappers": list(best.wrappers),
        "reason": None,
        "before": estimate(start.honest),
        "after": estimate(honest),
        "change": difference(honest, start.honest),
        "left": [f"{f['probe']} {f['severity']}: {f['title']}" for f in second["findings"] if f["severity"] != "note"]
        + [f"{TRAINING}, which was not run again: {f['title']}" for f in record["findings"] if f["probe"] == TRAINING],
    }
    return fix, second


def paid_honest(subject: Subject, held_out: Sequence[GoldTask]) -> tuple[float, ...]:
    """Whether the reward pays each honest answer to tasks of no audit: 1 or 0. Honest are the reference answers, in the
    form that is paid best and in every form that the prompt asks for."""
    honest = subject.over(held_out)
    attempts: list[Attempt] = []
    for i, gold in enumerate(held_out):
        forms = [form for form in FORMS if form == subject.form or form.wanted(gold.task.asked)]
        attempts += [honest.honest(i, form) for form in forms]
    return tuple((honest.scales(attempts) >= PAID).astype(float).tolist())


def _wrappers(first: Attacked) -> list[str]:
    """Those of the worst findings first; what stands for all rewards comes before what stands around them."""
    found = [found for result, _ in first.results.values() for found in result.findings if found.severity != "note"]
    found.sort(key=lambda each: SEVERITIES.index(each.severity))
    return sorted(dict.fromkeys(each.wrapper for each in found if each.wrapper), key=lambda wrapper: "{}" in wrapper)


def _with(config: AuditConfig, rewards: Sequence[str], folder: str | None = None) -> AuditConfig:
    return config.model_copy(update={"reward": tuple(rewards), "out": config.out / (folder or "")})


def _why_not(record: AuditRecord, wrappers: Sequence[str], held_out: Sequence[GoldTask]) -> str | None:
    """Why there is nothing to try."""
    if not any(finding["severity"] != "note" for finding in record["findings"]):
        return "there is nothing to mend"
    if record["calibration"] is None:
        return "without a scale nobody can tell what a wrapper would lose: mend the reward itself"
    if not wrappers:
        return "no wrapper closes what was found: mend the reward itself"
    return None if held_out else "there are no tasks left for honest answers; give more tasks or a lower --limit"


def _told(reason: str) -> Fix:
    return {"reward": [], "wrappers": [], "reason": reason, "before": None, "after": None, "change": None, "left": []}
