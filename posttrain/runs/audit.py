"""What `audit.json` holds: the findings of a reward audit, and what monitors of a run take from it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NotRequired, cast

from typing_extensions import TypedDict  # the one that pydantic reads before Python 3.12

from posttrain.runs.files import read_object
from posttrain.runs.records import checked
from posttrain.stats import Estimate
from posttrain.types import InputError

AUDIT_FILE = "audit.json"
AUDITS = "audits"
"""The folder of a pipeline that has the folders of its audits."""
Severity = Literal["critical", "high", "medium", "note"]
SEVERITIES: tuple[Severity, ...] = ("critical", "high", "medium", "note")
"""From the worst. `critical` ends the command with exit code 1; `note` is no accusation."""
Status = Literal["clean", "found", "not run"]


class Reproducer(TypedDict):
    """An answer that shows a finding, to the task of that row (`tasks.jsonl:14`): what the reward gave it, and what it
    gives the reference answer of the same task (null where it failed). `row` is what `posttrain score --data FILE`
    grades again; `file` holds it, relative to the audit's folder."""

    task: str
    prompt: str
    answer: str
    response: str
    value: float | None
    honest: float | None
    row: Mapping[str, Any]
    file: str


class Finding(TypedDict):
    """What a probe found. `effect` is what `measure` names, with its interval, over `n` graded answers."""

    probe: str
    kind: str
    severity: Severity
    title: str
    measure: str
    effect: Estimate
    reproducer: Reproducer | None
    wrapper: str | None
    """The reward expression that closes it or may, with `{}` for the reward, or without to stand in place of all
    rewards; None where none of the wrappers does."""
    closes: NotRequired[bool]
    """Whether the wrapped reward was seen to pay the reproducer no longer; not there where that was not tried."""
    advice: str
    """What to do, in a sentence."""
    command: NotRequired[str]
    """What grades the reproducer again, where the reward can be named on the command line."""


class Outcome(TypedDict):
    """What became of a probe. `reason` says why it was not run. `n` is how many answers it graded; `numbers` are what
    it measured beside its findings."""

    probe: str
    title: str
    status: Status
    reason: str | None
    n: int
    seconds: float
    measured: Mapping[str, Estimate]


class Calibrated(TypedDict):
    """The scale of the reward: `best` is C, the mean over the tasks of what the reference answer gets in the best
    form; `empty` is F, the mean of the empty answer. A scaled reward is (value - F) / (C - F)."""

    best: float
    empty: float
    form: str
    forms: Mapping[str, float]
    """The scaled reward of the reference answers in each form that was tried."""
    paid: Estimate
    """The share of reference answers, in the best form, that get at least half of the scale."""


class Thresholds(TypedDict):
    """What monitors take from an audit."""

    best: float
    empty: float
    canary: Estimate | None
    """The share of answers that are right for another task and are paid: the null of canaries (M2)."""
    distance: float | None
    """d*, the square root of the KL divergence at which a learned reward is over-optimised (M5)."""


class Fix(TypedDict):
    """What wrappers do for a reward: the `reward` with them, or the `reason` why there is none. `before` and `after`
    are the shares of honest answers, to tasks of no audit, that are paid, `change` their difference; `left` names what
    the second audit, in the folder `fixed`, still finds."""

    reward: list[str]
    wrappers: list[str]
    reason: str | None
    before: Estimate | None
    after: Estimate | None
    change: Estimate | None
    left: list[str]


class AuditRecord(TypedDict):
    version: str
    reward: list[str]
    data: str
    tasks: int
    answer_types: Mapping[str, int]
    seed: int
    guard: str
    calibration: Calibrated | None
    """None where the reward has no scale: it pays the empty answer as much as the reference answers."""
    outcomes: list[Outcome]
    findings: list[Finding]
    thresholds: Thresholds | None
    """None without a scale."""
    fix: NotRequired[Fix]
    seconds: float


def read_audit(folder: Path) -> AuditRecord:
    """The record of an audit's folder, or of the file itself. Raises InputError where there is none, or it is
    damaged."""
    file = audit_file(folder)
    found = read_object(file)
    if not found:
        raise InputError(f"{folder}: no audit; posttrain audit --reward R --data TASKS --out {folder} makes it")
    return cast(AuditRecord, checked(found, AuditRecord, file))


def audit_file(folder: Path) -> Path:
    """The file of an audit's folder; the folder may be the file itself."""
    return folder / AUDIT_FILE if folder.is_dir() else folder


def worst(findings: list[Finding]) -> Severity | None:
    found = {finding["severity"] for finding in findings}
    return next((severity for severity in SEVERITIES if severity in found), None)
