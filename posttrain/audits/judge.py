"""The guard of an audit: what decides by construction and by running code, and for free text a judge that the user
names."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

from posttrain.audits.golds import GoldTask
from posttrain.audits.guard import Guard
from posttrain.audits.guard.running import Runs
from posttrain.audits.subject import sample_of
from posttrain.config import AuditConfig
from posttrain.expressions import Expression, parse_entry, written
from posttrain.rewards.scorer import Scorer
from posttrain.types import InputError

PAID = 0.5
"""A judge of wrongness finds an answer wrong if it pays less than this."""


class RewardJudge:
    """A reward as judge: an answer is wrong if it gets less than PAID; one that the reward fails on is not decided."""

    def __init__(self, name: str, scorer: Scorer) -> None:
        self.name = f"judge {name} for free text"
        self._scorer = scorer

    def __call__(self, items: Sequence[tuple[GoldTask, str]]) -> list[bool | None]:
        scores = self._scorer.score([sample_of(task.task, text) for task, text in items])
        return [None if score.total is None else score.total < PAID for score in scores]


@contextmanager
def guard_for(config: AuditConfig, golds: Sequence[GoldTask], columns: Collection[str]) -> Iterator[Guard]:
    """The guard of an audit, with workers for its judge while it is open; `guard.name` says what decides.

    Raises what `Scorer` raises."""
    code = Runs(config.seed) if any(task.type == "code" for task in golds) else None
    if config.judge is None:
        yield Guard(golds, code)
        return
    timeout, workers = config.reward_timeout, config.reward_workers
    with Scorer([config.judge], columns=columns, timeout_seconds=timeout, workers=workers) as scorer:
        yield Guard(golds, code, RewardJudge(str(config.judge), scorer))


def refuse_own_judge(config: AuditConfig) -> None:
    """Raise InputError for a judge that is, or is a part of, the audited reward: it would approve its own faults."""
    judge = plain(parse_entry(str(config.judge))[0])
    for reward in config.reward:
        if judge in {plain(part) for part in parse_entry(str(reward))[0].walk()}:
            raise InputError(
                f"--judge {config.judge}: the audited reward {reward} has it too, and would decide about its own "
                "faults; name another reward"
            )


def plain(expression: Expression) -> str:
    """The text of an expression without a new name."""
    return written(expression).rpartition(" as ")[0] if expression.renamed else written(expression)
