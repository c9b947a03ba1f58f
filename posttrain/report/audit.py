"""An audit on the terminal and as a page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from posttrain.report.opening import Number, Opening
from posttrain.runs.audit import SEVERITIES, AuditRecord, Finding, Fix, read_audit
from posttrain.stats import Estimate
from posttrain.text import cell, printable

COLOURS = {"critical": "bold red", "high": "red", "medium": "yellow", "note": "dim"}
SHOWN_CHARACTERS = 120


def print_audit(record: AuditRecord, out: Path) -> None:
    """Print what was measured, the findings from the worst, what was not run, and where the page is."""
    console = Console()
    sentence, *lines = audit_words(record)
    console.print(sentence, highlight=False, markup=False, style="bold")
    if record["findings"]:
        console.print(_drawn(record["findings"]))
    for line in (*lines, "", printable(f"report: {out / 'report.html'}")):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def audit_words(record: AuditRecord) -> list[str]:
    """The audit in lines, as `printable` as a terminal and a notebook need them: what can be said of the reward, its
    findings, the fix, and the probes without a finding."""
    lines = [audit_opening(record).sentence, scale_words(record)]
    for number, finding in enumerate(record["findings"], start=1):
        lines += ["", f"{number}. {finding['severity']}: {finding['title']} ({_effect(finding)})", *_told(finding)]
    lines += ["", *fix_words(record["fix"])] if "fix" in record else []
    clean = [each["probe"] for each in record["outcomes"] if each["status"] == "clean"]
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
    reward = ", ".join(record["reward"])
    if counts["critical"]:
        sentence = f"Do not train with {reward} as it is: {', '.join(found)}."
    elif found:
        sentence = f"{reward} can be gamed: {', '.join(found)}."
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
        Number("probes without a finding", str(sum(o["status"] == "clean" for o in record["outcomes"])), ""),
    )
    warnings = (f"Not run: {', '.join(not_run)}. The table of probes says why.",) if not_run else ()
    return Opening(sentence, numbers, warnings, note=scale_words(record))


def audit_view(folder: Path) -> dict[str, Any]:
    """What the page shows."""
    record = read_audit(folder)
    return {
        "title": f"audit of {', '.join(record['reward'])}",
        "record": record,
        "opening": audit_opening(record),
        "findings": [_shown(finding) for finding in record["findings"]],
        "fix": fix_words(record["fix"]) if "fix" in record else [],
    }


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


def _told(finding: Finding) -> list[str]:
    lines = [f"   {finding['advice']}" + (f" Wrapper: {finding['wrapper']}" if finding["wrapper"] else "")]
    shown = finding["reproducer"]
    if shown is not None:
        response = shown["response"]
        response = response if len(response) <= SHOWN_CHARACTERS else response[: SHOWN_CHARACTERS - 3] + "..."
        lines.append(
            f"   {response!r} gets {shown['value']}, the reference answer {shown['answer']!r} gets {shown['honest']}"
        )
    return lines + ([f"   {finding['command']}"] if "command" in finding else [])


def _effect(finding: Finding) -> str:
    return f"{finding['measure']} {interval(finding['effect'])}, n = {finding['effect']['n']}"


def _shown(finding: Finding) -> Mapping[str, Any]:
    return {**finding, "words": _effect(finding)}
