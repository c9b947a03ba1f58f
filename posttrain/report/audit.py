"""An audit on the terminal and as a page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from posttrain.expressions import wrapped
from posttrain.functions import short
from posttrain.report.opening import Number, Opening
from posttrain.runs.audit import SEVERITIES, AuditRecord, Finding, Fix, read_audit
from posttrain.stats import Estimate
from posttrain.text import cell, printable

COLOURS = {"critical": "bold red", "high": "red", "medium": "yellow", "note": "dim"}
SHOWN_CHARACTERS = 120
SHOWN_FINDINGS = 3
"""Findings that a terminal shows in full."""
FAULTS = {
    "A5": "refuses right answers",
    "A13": "does not always grade an answer alike",
    "share without a score": "fails on odd text",
    "seconds, 95th percentile": "is slow on odd text",
}
"""What findings of a probe, or of such a measure, say of a reward; the others: a wrong answer is paid, or gains."""


def print_audit(record: AuditRecord, out: Path) -> None:
    """Print what was measured, the findings from the worst, what was not run, and where the page is."""
    console = Console()
    sentence, *lines = audit_words(record, SHOWN_FINDINGS)
    console.print(sentence, highlight=False, markup=False, style="bold")
    if record["findings"]:
        console.print(_drawn(record["findings"]))
    for line in (*lines, "", printable(f"report: {out / 'report.html'}")):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def audit_words(record: AuditRecord, most: int | None = None) -> list[str]:
    """The audit in lines, as `printable` as a terminal and a notebook need them: what can be said of the reward, its
    findings, at most so many of them, the fix, and the probes without a finding."""
    lines = [audit_opening(record).sentence, scale_words(record)]
    for number, finding in enumerate(record["findings"][:most], start=1):
        title = f"{number}. {finding['severity']}: {finding['title']} ({_effect(finding)})"
        lines += ["", title, *_told(record, finding)]
    if most is not None and len(record["findings"]) > most:
        lines += ["", "the others: report.html"]
    lines += ["", *fix_words(record["fix"])] if "fix" in record else []
    clean = without_finding(record)
    not_run: dict[str | None, list[str]] = {}
    for each in record["outcomes"]:
        if each["status"] == "not run":
            not_run.setdefault(each["reason"], []).append(each["probe"])
    lines += ["", f"without a finding: {', '.join(clean) or 'no probe'}"]
    lines += [f"{', '.join(probes)} not run: {reason}" for reason, probes in not_run.items()]
    return list(map(printable, lines))


def audit_opening(record: AuditRecord) -> Opening:
    """The first lines: what can be said of the reward in a sentence."""
    counts = Counter(finding["severity"] for finding in record["findings"])
    found = [f"{counts[severity]} {severity}" for severity in SEVERITIES[:3] if counts[severity]]
    graded = sum(each["n"] for each in record["outcomes"])
    reward = ", ".join(map(short, record["reward"]))
    faults = dict.fromkeys(_fault(finding) for finding in record["findings"] if finding["severity"] != "note")
    if counts["critical"]:
        sentence = f"Do not train with {reward} as it is: {', '.join(found)}."
    elif found:
        sentence = f"{reward} {' and '.join(faults)}: {', '.join(found)}."
    else:
        sentence = f"No probe found a fault in {reward}."
    not_run = [each["probe"] for each in record["outcomes"] if each["status"] == "not run"]
    paid: tuple[Number, ...] = ()
    if (calibration := record["calibration"]) is not None:
        form = f"in the form “{calibration['form']}”"
        paid = (Number("reference answers paid", interval(calibration["paid"]), form),)
    numbers = (
        Number("answers graded", f"{graded:,}", f"on {record['tasks']} tasks in {record['seconds']:.0f} s"),
        *paid,
        Number("probes without a finding", str(len(without_finding(record))), ""),
    )
    warnings = (f"Not run: {', '.join(not_run)}. The table of probes says why.",) if not_run else ()
    return Opening(sentence, numbers, warnings, note=scale_words(record))


def audit_view(folder: Path) -> dict[str, Any]:
    """What the page shows."""
    record = read_audit(folder)
    return {
        "title": f"audit of {', '.join(map(short, record['reward']))}",
        "record": record,
        "opening": audit_opening(record),
        "findings": [_shown(record, finding) for finding in record["findings"]],
        "clean": without_finding(record),
        "fix": fix_words(record["fix"]) if "fix" in record else [],
    }


def without_finding(record: AuditRecord) -> list[str]:
    """The probes that found nothing, not a note either."""
    found = {finding["probe"] for finding in record["findings"]}
    return [o["probe"] for o in record["outcomes"] if o["status"] == "clean" and o["probe"] not in found]


def wrapped_rewards(record: AuditRecord, finding: Finding) -> str | None:
    """The rewards with a finding's wrapper around them, as they are typed; None where no wrapper closes it."""
    rewards = [short(reward) for reward in record["reward"]]
    return finding["wrapper"] and " ".join(wrapped(rewards, finding["wrapper"]))


def wrapper_words(record: AuditRecord, finding: Finding) -> str:
    """The wrapped rewards, and what they do; empty where no wrapper closes the finding."""
    whole = wrapped_rewards(record, finding)
    if whole is None:
        return ""
    if finding.get("closes"):
        return f"{whole} closes it."
    may_try = "fix" not in record and not any(reward.startswith("<") for reward in record["reward"])
    return f"{whole} may close it" + ("; --fix tries it." if may_try else ".")


def fix_words(fix: Fix) -> list[str]:
    """What wrappers do for the reward, in sentences."""
    if fix["reason"] is not None or fix["before"] is None or fix["after"] is None or fix["change"] is None:
        return [f"No fix: {fix['reason']}."]
    left = "; ".join(fix["left"]) or "nothing"
    return [
        f"Fix: --reward '{' '.join(fix['reward'])}'",
        f"Honest answers to other tasks that are paid: {interval(fix['before'])} before, {interval(fix['after'])} with "
        f"it (change {interval(fix['change'])}, {fix['after']['n']} answers).",
        f"The second audit, in the folder fixed, still finds: {left}.",
    ]


def interval(effect: Estimate) -> str:
    """`0.52 [0.41, 0.63]`; without an interval the number alone."""
    value = "–" if effect["value"] is None else f"{effect['value']:.2f}"
    return value if effect["low"] is None else f"{value} [{effect['low']:.2f}, {effect['high']:.2f}]"


def scale_words(record: AuditRecord) -> str:
    if (calibration := record["calibration"]) is None:
        return (
            "No scale: the reward pays the empty answer as much as the reference answers, so most probes can say "
            "nothing of it. Brackets hold 95% intervals."
        )
    best, empty = calibration["best"], calibration["empty"]
    return (
        f"Scaled rewards: 1 is what the reference answers get in the mean ({best:.3g}), 0 what the empty answer gets "
        f"({empty:.3g}). An answer is paid from 0.5 on. Brackets hold 95% intervals."
    )


def _drawn(findings: list[Finding]) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for name in ("", "severity", "probe", "what is wrong", "effect"):
        table.add_column(name, overflow="fold")
    for number, each in enumerate(findings, start=1):
        severity = f"[{COLOURS[each['severity']]}]{each['severity']}[/]"
        effect = f"{interval(each['effect'])}\n{each['measure']}, n={each['effect']['n']}"
        table.add_row(str(number), severity, each["probe"], cell(each["title"]), effect)
    return table


def _told(record: AuditRecord, finding: Finding) -> list[str]:
    lines = [f"   {finding['advice']} {wrapper_words(record, finding)}".rstrip()]
    shown = finding["reproducer"]
    if shown is not None:
        response = shown["response"]
        response = response if len(response) <= SHOWN_CHARACTERS else response[: SHOWN_CHARACTERS - 3] + "..."
        value, honest = _value(shown["value"]), _value(shown["honest"])
        lines.append(f"   {response!r} gets {value}, the reference answer {shown['answer']!r} gets {honest}")
    return lines + ([f"   {finding['command']}"] if "command" in finding else [])


def _effect(finding: Finding) -> str:
    return f"{finding['measure']} {interval(finding['effect'])}, n = {finding['effect']['n']}"


def _fault(finding: Finding) -> str:
    return FAULTS.get(finding["measure"]) or FAULTS.get(finding["probe"], "can be gamed")


def _value(value: float | None) -> str:
    return "no score" if value is None else str(value)


def _shown(record: AuditRecord, finding: Finding) -> Mapping[str, Any]:
    shown = finding["reproducer"]
    values = {} if shown is None else {"value": _value(shown["value"]), "honest": _value(shown["honest"])}
    return {**finding, **values, "words": _effect(finding), "wrapped": wrapper_words(record, finding)}
