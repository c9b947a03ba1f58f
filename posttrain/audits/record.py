"""From what probes returned to the record that `audit.json` holds."""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from posttrain.audits.attack import Attacked
from posttrain.audits.demonstrations import as_row
from posttrain.audits.files import REPRODUCERS
from posttrain.audits.probes import PROBES
from posttrain.audits.probes.base import Found, Result
from posttrain.audits.probes.models.best_of_n import DISTANCE
from posttrain.audits.probes.swapped import SHARE_PAID
from posttrain.audits.subject import PAID, Attempt, Subject
from posttrain.audits.training import TITLE, TRAINING
from posttrain.config import AuditConfig
from posttrain.expressions import wrapped
from posttrain.functions import FunctionText
from posttrain.rewards.scorer import open_scorer
from posttrain.runs.audit import SEVERITIES, AuditRecord, Finding, Outcome, Reproducer
from posttrain.types import InputError, Task

PAYS = ("mean scaled reward", "share paid")
"""How measures of findings begin that say what is paid; others say what is gained."""


def recorded(config: AuditConfig, attacked: Attacked) -> AuditRecord:
    """What `audit.json` holds."""
    subject, results = attacked.subject, attacked.results
    pairs = [(probe, found) for probe, (result, _) in results.items() for found in result.findings]
    closing = closed(config, subject, [found for _, found in pairs])
    findings = [finding(subject, *pair, closes) for pair, closes in zip(pairs, closing, strict=True)]
    findings.sort(key=lambda each: SEVERITIES.index(each["severity"]))
    for number, each in enumerate(findings, start=1):
        if each["reproducer"] is not None:
            file = f"{REPRODUCERS}/{number:02}-{each['probe']}.jsonl"
            each["reproducer"]["file"] = file
            if not any(isinstance(reward, FunctionText) for reward in config.reward):
                each["command"] = command(config, config.out / file)
    calibration = subject.calibration if subject.has_scale else None
    canary = results["A7"][0].measured.get(SHARE_PAID) if "A7" in results else None
    distance = results["A18"][0].measured.get(DISTANCE) if "A18" in results else None
    return {
        "version": version("posttrain"),
        "reward": [str(reward) for reward in config.reward],
        "data": str(config.data),
        "tasks": len(subject.tasks),
        "answer_types": dict(Counter(task.type for task in subject.tasks)),
        "seed": config.seed,
        "guard": subject.guard.name,
        "calibration": calibration,
        "outcomes": [outcome(probe, *result) for probe, result in results.items()],
        "findings": findings,
        "thresholds": None
        if calibration is None
        else {
            "best": calibration["best"],
            "empty": calibration["empty"],
            "canary": canary,
            "distance": distance["value"] if distance else None,
        },
        "seconds": round(attacked.seconds, 3),
    }


def outcome(probe: str, result: Result, seconds: float) -> Outcome:
    accused = any(found.severity != "note" for found in result.findings)
    return {
        "probe": probe,
        "title": TITLE if probe == TRAINING else PROBES[probe][0],
        "status": "not run" if result.reason is not None else "found" if accused else "clean",
        "reason": result.reason,
        "n": result.n,
        "seconds": round(seconds, 3),
        "measured": dict(result.measured),
    }


def closed(config: AuditConfig, subject: Subject, found: Sequence[Found]) -> list[bool | None]:
    """Of each finding, whether its wrapper closes it: the wrapped reward pays the reference answer, and no longer the
    answer that shows the finding. None where one answer cannot say that, as of a gain, and where it is not tried: of a
    function, which no expression names, of a model, and without a scale."""
    closing: list[bool | None] = [None] * len(found)
    wrappers = dict.fromkeys(each.wrapper for each in found if each.wrapper)
    for wrapper in wrappers if subject.has_scale and not subject.by_model else ():
        tried = {
            i: [each.shown, reference(subject, each.shown)]
            for i, each in enumerate(found)
            if each.wrapper == wrapper and each.shown is not None and each.measure.startswith(PAYS)
        }
        if not tried:
            continue
        with suppress(InputError):
            around = config.model_copy(update={"reward": wrapped(config.reward, wrapper)})
            with open_scorer(around, subject.scorer.columns) as scorer:
                for i, attempts in tried.items():
                    totals = [score.total for score in subject.scores_again(attempts, scorer)]
                    wrong, right = subject.scaled(np.array(totals, dtype=float)).tolist()
                    closing[i] = wrong < PAID <= right
    return closing


def finding(subject: Subject, probe: str, found: Found, closes: bool | None) -> Finding:
    made: Finding = {
        "probe": probe,
        "kind": found.kind,
        "severity": found.severity,
        "title": found.title,
        "measure": found.measure,
        "effect": found.effect,
        "reproducer": None if found.shown is None else reproducer(subject, found.shown),
        "wrapper": None if closes is False else found.wrapper,
        "advice": found.advice,
    }
    return {**made, "closes": True} if closes else made


def reproducer(subject: Subject, shown: Attempt) -> Reproducer:
    task = subject.tasks[shown.task]
    value, honest = subject.grade([shown, reference(subject, shown)]).tolist()
    return {
        "task": Path(task.task.where).name or f"task {task.task.id}",
        "prompt": shown.posed(task.task).asked,
        "answer": task.gold,
        "response": shown.text,
        "value": _known(value),
        "honest": _known(honest),
        "file": "",
        "row": scored_row(task.task, shown),
    }


def reference(subject: Subject, shown: Attempt) -> Attempt:
    """The reference answer to the task and prompt of an attempt."""
    return replace(subject.honest(shown.task), prompt=shown.prompt)


def scored_row(task: Task, shown: Attempt) -> dict[str, Any]:
    """The row that `posttrain score` grades as the audit did."""
    task = shown.posed(task)
    return {**task.columns, **as_row(task, shown.text)}


def command(config: AuditConfig, file: Path) -> str:
    words = ["posttrain", "score"]
    for reward in config.reward:
        words += ["--reward", str(reward)]
    return shlex.join([*words, "--data", str(file)])


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
