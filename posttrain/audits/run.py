"""`posttrain audit`: the probes over a reward, in order, and what they found as files."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import suppress

from posttrain.audits.attack import attack
from posttrain.audits.files import FIXED, check_out, clear, write_audit
from posttrain.audits.fix import find_fix
from posttrain.audits.golds import MIN_GOLDS, GoldTask, read_tasks
from posttrain.audits.judge import refuse_own_judge
from posttrain.audits.probes import PROBES
from posttrain.audits.readings import read_golds
from posttrain.audits.record import recorded
from posttrain.audits.subject import TIMED, Subject, Uncalibrated, by_model
from posttrain.audits.training import TRAINING, Train
from posttrain.config import AuditConfig
from posttrain.config.compute import on_its_device
from posttrain.rewards.scorer import Scorer, open_scorer
from posttrain.rows import TaskColumns
from posttrain.runs.audit import AuditRecord
from posttrain.types import InputError

TASKS, SLOW_TASKS = 40, 12
"""Tasks of an audit; fewer of a reward that a model computes, or that starts a process for an answer. Of code the
probes take the tasks that they need."""
HELD_OUT = 1 / 3
"""With `fix`, at least this share of the tasks is left out of the audit, for its honest answers."""


@on_its_device
def run_audit(config: AuditConfig, train: Train | None = None) -> AuditRecord:
    """Audit the reward of `config` and write the folder `config.out`; `train` does the training of `--train`.

    An earlier audit in the folder is removed before the first probe. Raises InputError for tasks without
    reference answers, for an unknown probe, and where the reward does not pay the reference answers (`Uncalibrated`),
    and where no probe can be run; nothing is written then."""
    check_options(config)
    check_out(config.out)
    tasks = read_tasks(config.data, config.columns)
    columns = TaskColumns(tasks)
    with open_scorer(config, columns) as scorer:
        golds = read_golds(scorer, tasks, config.answer_column, [name for name in columns if scorer.reads(name)])
        limit = config.limit or (SLOW_TASKS if is_slow(scorer, golds) else TASKS)
        seen, held_out = divided(golds, limit, config)
        if (distinct := len({gold.gold for gold in seen})) < MIN_GOLDS:
            raise InputError(
                f"{distinct} of the reference answers of the {len(seen)} tasks that are audited on are distinct; an "
                f"audit needs at least {MIN_GOLDS}. Give more tasks or a higher --limit; --fix leaves a third of the "
                "tasks out"
            )
        clear(config.out)
        first = attack(config, scorer, seen, train=train)
        if all(result.reason is not None for result, _ in first.results.values()):
            reasons = "; ".join(f"{name}: {result.reason}" for name, (result, _) in first.results.items())
            raise InputError(f"no probe can be run, so nothing is known of the reward: {reasons}")
        record, second = recorded(config, first), None
        if config.fix:
            record["fix"], second = find_fix(config, first, record, held_out, columns)
    write_audit(config.out, record)
    if second is not None:
        write_audit(config.out / FIXED, second)
    return record


def is_slow(scorer: Scorer, golds: Sequence[GoldTask]) -> bool:
    """Whether an answer costs a pass of a model or a process, which is no sandbox of code."""
    if by_model(scorer):
        return True
    distinct = {gold.gold: gold for gold in golds}  # a wrong answer is that of another task
    first = Subject(scorer, list(distinct.values())[:TIMED], 0)
    with suppress(Uncalibrated):
        return not first.is_code and first.is_slow
    return False


def check_options(config: AuditConfig) -> None:
    """Raise InputError for an unknown probe, and for a judge that is a part of the audited reward."""
    if unknown := [probe for probe in config.only if probe not in PROBES]:
        raise InputError(
            f"--only {unknown[0]}: no such probe; there are {', '.join(PROBES)}, and --train runs {TRAINING}"
        )
    if config.judge is not None:
        refuse_own_judge(config)


def divided(golds: Sequence[GoldTask], limit: int, config: AuditConfig) -> tuple[list[GoldTask], list[GoldTask]]:
    """The tasks to audit on, at most `limit`, and the others; both in the order of the file."""
    most = len(golds) - int(len(golds) * HELD_OUT) if config.fix else len(golds)
    numbers = random.Random(f"{config.seed}/tasks").sample(range(len(golds)), min(limit, most))
    chosen = set(numbers)
    return (
        [gold for i, gold in enumerate(golds) if i in chosen],
        [gold for i, gold in enumerate(golds) if i not in chosen],
    )
