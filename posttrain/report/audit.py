"""An audit on the terminal."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from posttrain.runs.audit import AuditRecord, Finding
from posttrain.stats import Estimate
from posttrain.text import cell, printable

COLOURS = {"critical": "bold red", "high": "red", "medium": "yellow", "note": "dim"}


def print_audit(record: AuditRecord, out: Path) -> None:
    """Print what was measured, the findings from the worst, what was not run, and where the files are."""
    console = Console()
    calibration = record["calibration"]
    best, empty = calibration["best"], calibration["empty"]
    console.print(
        f"{record['tasks']} tasks. The reference answers get {best:.3g} in the mean (form: {calibration['form']}), the "
        f"empty answer {empty:.3g}.",
        highlight=False,
    )
    if record["findings"]:
        console.print(_findings(record["findings"]))
    for number, finding in enumerate(record["findings"], start=1):
        console.print(f"\n{number}. {printable(_told(finding))}", highlight=False, markup=False)
        if "command" in finding:
            console.print(f"   {printable(finding['command'])}", highlight=False, markup=False, soft_wrap=True)
    clean = [each["probe"] for each in record["outcomes"] if each["status"] == "clean"]
    console.print(f"\nclean: {', '.join(clean) or 'no probe'}", highlight=False)
    for each in record["outcomes"]:
        if each["status"] == "not run":
            console.print(printable(f"{each['probe']} not run: {each['reason']}"), highlight=False, markup=False)
    console.print(f"\naudit: {printable(out)}", highlight=False, markup=False, soft_wrap=True)


def _findings(findings: list[Finding]) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for name in ("", "severity", "probe", "what is wrong", "effect", "n"):
        table.add_column(name, overflow="fold")
    for number, each in enumerate(findings, start=1):
        severity = f"[{COLOURS[each['severity']]}]{each['severity']}[/]"
        effect = interval(each["effect"])
        table.add_row(
            str(number),
            severity,
            each["probe"],
            cell(each["title"]),
            f"{effect}\n{each['measure']}",
            str(each["effect"]["n"]),
        )
    return table


def interval(effect: Estimate) -> str:
    """`0.52 [0.41, 0.63]`; without an interval the number alone."""
    value = "–" if effect["value"] is None else f"{effect['value']:.2f}"
    return value if effect["low"] is None else f"{value} [{effect['low']:.2f}, {effect['high']:.2f}]"


def _told(finding: Finding) -> str:
    advice = finding["advice"] + (f" Wrapper: {finding['wrapper']}" if finding["wrapper"] else "")
    shown = finding["reproducer"]
    if shown is None:
        return advice
    response = shown["response"] if len(shown["response"]) <= 120 else shown["response"][:117] + "..."
    gets = f"{response!r} gets {shown['value']}, the reference answer {shown['answer']!r} gets {shown['honest']}"
    return f"{advice}\n   {gets}"
