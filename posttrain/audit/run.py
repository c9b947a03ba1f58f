"""`posttrain audit`: the probes over a reward, in order, and what they found as files."""

from __future__ import annotations

import math
import random
import shlex
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from posttrain.audit.files import REPRODUCERS, check_out, write_audit
from posttrain.audit.golds import GoldTask, read_tasks, with_golds
from posttrain.audit.probes import PROBES
from posttrain.audit.probes.base import Found, Result
from posttrain.audit.probes.swapped import SHARE_PAID
from posttrain.audit.subject import Attempt, Subject
from posttrain.config import AuditConfig
from posttrain.config.compute import on_its_device
from posttrain.console import Progress
from posttrain.rewards.scorer import open_scorer
from posttrain.runs.audit import SEVERITIES, AuditRecord, Finding, Outcome, Reproducer
from posttrain.types import InputError, Message, Task


@on_its_device
def run_audit(config: AuditConfig) -> AuditRecord:
    """Audit the reward of `config` and write the folder `config.out`. Raises InputError for tasks without reference
    answers, for an unknown probe, and where the reward does not pay the reference answers (`Uncalibrated`); nothing is
    written then."""
    started = time.monotonic()
    if unknown := [probe for probe in config.only if probe not in PROBES]:
        raise InputError(f"--only {unknown[0]}: no such probe; there are {', '.join(PROBES)}")
    check_out(config.out)
    tasks = read_tasks(config.data, config.columns)
    columns = set.intersection(*(set(task.columns) for task in tasks))
    with open_scorer(config, columns) as scorer:
        golds = drawn(
            with_golds(tasks, config.gold, [c for c in columns if scorer.reads(c)]), config.limit, config.seed
        )
        title = f"audit {', '.join(map(str, config.reward))}"[:60]
        with Progress(title, None, unit="answer") as progress:
            subject = Subject(scorer, golds, config.seed, progress.advance)
            results = run_probes(subject, config.only)
        record = recorded(config, subject, results, time.monotonic() - started)
    write_audit(config.out, record)
    return record


def drawn(tasks: Sequence[GoldTask], limit: int, seed: int) -> list[GoldTask]:
    """At most `limit` tasks, in the order of the file."""
    if len(tasks) <= limit:
        return list(tasks)
    chosen = sorted(random.Random(f"{seed}/tasks").sample(range(len(tasks)), limit))
    return [tasks[i] for i in chosen]


Results = Mapping[str, tuple[Result, float]]
"""What each probe returned, and the seconds that it took."""


def run_probes(subject: Subject, only: Sequence[str] = ()) -> Results:
    _ = subject.calibration  # raises where there is none
    results = {}
    for name, (_, probe) in PROBES.items():
        if not only or name in only:
            before = time.monotonic()
            results[name] = probe(subject), time.monotonic() - before
    return results


def recorded(config: AuditConfig, subject: Subject, results: Results, seconds: float) -> AuditRecord:
    """What `audit.json` holds."""
    findings = [finding(subject, probe, found) for probe, (result, _) in results.items() for found in result.findings]
    findings.sort(key=lambda each: SEVERITIES.index(each["severity"]))
    for number, each in enumerate(findings, start=1):
        if each["reproducer"] is not None:
            file = f"{REPRODUCERS}/{number:02}-{each['probe']}.jsonl"
            each["reproducer"]["file"] = file
            each["command"] = command(config, config.out / file)
    calibration = subject.calibration
    canary = results["A7"][0].measured.get(SHARE_PAID) if "A7" in results else None
    return {
        "version": version("posttrain"),
        "reward": [str(reward) for reward in config.reward],
        "data": str(config.data),
        "tasks": len(subject.tasks),
        "answer_types": dict(Counter(task.type for task in subject.tasks)),
        "seed": config.seed,
        "guard": "construction",
        "calibration": calibration,
        "outcomes": [outcome(probe, *result) for probe, result in results.items()],
        "findings": findings,
        "thresholds": {
            "best": calibration["best"],
            "empty": calibration["empty"],
            "canary": canary,
            "distance": None,
        },
        "seconds": round(seconds, 3),
    }


def outcome(probe: str, result: Result, seconds: float) -> Outcome:
    accused = any(found.severity != "note" for found in result.findings)
    return {
        "probe": probe,
        "title": PROBES[probe][0],
        "status": "not run" if result.reason is not None else "found" if accused else "clean",
        "reason": result.reason,
        "n": result.n,
        "seconds": round(seconds, 3),
        "measured": dict(result.measured),
    }


def finding(subject: Subject, probe: str, found: Found) -> Finding:
    return {
        "probe": probe,
        "kind": found.kind,
        "severity": found.severity,
        "title": found.title,
        "measure": found.measure,
        "effect": found.effect,
        "reproducer": None if found.shown is None else reproducer(subject, found.shown),
        "wrapper": found.wrapper,
        "advice": found.advice,
    }


def reproducer(subject: Subject, shown: Attempt) -> Reproducer:
    task = subject.tasks[shown.task]
    value, honest = subject.grade([shown, subject.honest(shown.task)]).tolist()
    return {
        "task": task.task.id,
        "prompt": task.task.asked,
        "answer": task.gold,
        "response": shown.text,
        "value": _known(value),
        "honest": _known(honest),
        "file": "",
        "row": scored_row(task.task, shown),
    }


def scored_row(task: Task, shown: Attempt) -> dict[str, Any]:
    """The row that `posttrain score` grades as the audit did."""
    prompt = task.prompt if isinstance(task.prompt, str) else [message.to_dict() for message in task.prompt]
    columns = {**task.columns, **shown.columns}
    completion: Any = shown.text if isinstance(prompt, str) else [Message("assistant", shown.text).to_dict()]
    return {**columns, "prompt": prompt, "completion": completion}


def command(config: AuditConfig, file: Path) -> str:
    words = ["posttrain", "score"]
    for reward in config.reward:
        words += ["--reward", str(reward)]
    return shlex.join([*words, "--data", str(file)])


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
