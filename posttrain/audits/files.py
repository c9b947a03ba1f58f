"""The files of an audit: `audit.json`, `audit.sarif`, and the answers that show its findings."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from posttrain.runs.audit import AUDIT_FILE, AuditRecord, Finding, Severity
from posttrain.runs.files import write_atomic
from posttrain.text import printable
from posttrain.types import InputError

SARIF_FILE, REPRODUCERS, FIXED, TRAINED = "audit.sarif", "reproducers", "fixed", "training"
OURS = {AUDIT_FILE, SARIF_FILE, REPRODUCERS, "report.html", TRAINED, FIXED}
LEVELS: dict[Severity, str] = {"critical": "error", "high": "error", "medium": "warning", "note": "note"}
"""The levels of SARIF."""


def check_out(out: Path) -> None:
    """Raise InputError where a folder holds anything else than an audit, which may be replaced."""
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out}: is a file; give a folder")
    if out.exists() and ({each.name for each in out.iterdir()} - OURS):
        raise InputError(f"--out {out}: not empty and not an audit; choose another folder")


def clear(out: Path) -> None:
    """Remove an earlier audit, its findings first: one that is interrupted leaves none that are not its own."""
    for name in (AUDIT_FILE, "report.html", SARIF_FILE):
        (out / name).unlink(missing_ok=True)
    for name in (REPRODUCERS, FIXED, TRAINED):
        if (out / name).exists():
            shutil.rmtree(out / name)


def write_audit(out: Path, record: AuditRecord) -> None:
    """Write an audit into a folder that has none (`clear`); `audit.json` comes last."""
    out.mkdir(parents=True, exist_ok=True)
    for finding in record["findings"]:
        if finding["reproducer"] is not None:
            file = out / finding["reproducer"]["file"]
            file.parent.mkdir(exist_ok=True)
            write_atomic(file, json.dumps(finding["reproducer"]["row"], ensure_ascii=False) + "\n")
    write_atomic(out / SARIF_FILE, json.dumps(sarif(record), indent=1, ensure_ascii=False) + "\n")
    write_atomic(out / AUDIT_FILE, json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def sarif(record: AuditRecord) -> dict[str, Any]:
    """The findings in the format of static analysis tools, SARIF 2.1.0 (OASIS): a rule a probe, a result a finding."""
    rules = [
        {"id": each["probe"], "shortDescription": {"text": each["title"]}}
        for each in record["outcomes"]
        if each["status"] != "not run"
    ]
    driver = {"name": "posttrain audit", "version": record["version"], "rules": rules}
    return {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{"tool": {"driver": driver}, "results": [_result(record, each) for each in record["findings"]]}],
    }


def _result(record: AuditRecord, finding: Finding) -> dict[str, Any]:
    text = printable(f"{', '.join(record['reward'])}: {finding['title']}. {finding['advice']}".strip())
    shown = finding["reproducer"]
    place = shown["file"] if shown is not None else AUDIT_FILE
    return {
        "ruleId": finding["probe"],
        "level": LEVELS[finding["severity"]],
        "message": {"text": text},
        "locations": [{"physicalLocation": {"artifactLocation": {"uri": place}, "region": {"startLine": 1}}}],
        "properties": {"severity": finding["severity"], "kind": finding["kind"], "effect": finding["effect"]},
    }
