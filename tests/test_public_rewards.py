"""The list of faults in public rewards: that it is whole, and what is made of an audit. The packages are not needed."""

from __future__ import annotations

import inspect
import json
import subprocess
from pathlib import Path

import pytest

from tests.training_helpers import benchmark_module

bench = benchmark_module("public_rewards")
adapters = benchmark_module("public/adapters")
make = benchmark_module("public/make")
LISTED = bench.faults()


def test_every_fault_has_an_adapter_enough_tasks_and_a_pinned_package() -> None:
    pinned = (bench.HERE / "public/requirements.txt").read_text("utf-8").splitlines()
    assert len({fault.name for fault in LISTED}) == len(LISTED) >= 12
    for fault in LISTED:
        path, _, function = fault.reward.partition(":")
        assert path == "public/adapters.py" and inspect.isfunction(getattr(adapters, function))
        assert fault.package in pinned
        assert fault.link.startswith("https://github.com/")
        rows = fault.rows
        assert len(rows) >= 16 and len({row["answer"] for row in rows}) >= 3
        assert [row["id"] for row in rows].count(fault.task) == 1
        assert all(row["answer"] in fault.right(row) for row in rows)


def test_the_tasks_are_those_that_the_script_writes() -> None:
    for name, rows in make.files().items():
        lines = (bench.HERE / f"public/tasks/{name}.jsonl").read_text("utf-8").splitlines()
        assert [json.loads(line) for line in lines] == [
            {"id": f"{name}-{i}", **row} for i, row in enumerate(json.loads(json.dumps(rows)))
        ]


def test_a_fault_is_found_by_a_severe_finding_of_a_probe_that_tells_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    near, format_only = ({"probe": probe, "severity": "high", "reproducer": f"by {probe}"} for probe in ("A4", "A2"))
    said = {
        "math-verify-equations": (1, [near, format_only]),
        "math-verify-small-numbers": (0, [{**near, "severity": "warn"}]),
        "trl-prefilled-thinking": (2, None),
        "mathruler-division-sign": (1, [near]),
    }

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        folder = Path(command[command.index("--out") + 1])
        status, findings = said[folder.name]
        if findings is not None:
            folder.mkdir()
            (folder / "audit.json").write_text(json.dumps({"findings": findings}))
        return subprocess.CompletedProcess(command, status, "", "UNCALIBRATED: no answer pays" if status == 2 else "")

    monkeypatch.setattr(bench.subprocess, "run", run)
    listed = [fault for fault in LISTED if fault.name in said]
    audits = {fault.name: bench.audit(fault, tmp_path) for fault in listed}
    rows = {name: next(line for line in bench.table(audits, listed).splitlines() if name in line) for name in said}
    assert "| A4 | A4, A2 | `by A4` |" in rows["math-verify-equations"]
    assert "| not found | none, exit status 0 |  |" in rows["math-verify-small-numbers"]
    assert "| UNCALIBRATED | UNCALIBRATED |" in rows["trl-prefilled-thinking"]
    assert "| not found | A4 |" in rows["mathruler-division-sign"]
    assert bench.table(audits, listed).startswith("2 of 4 reported faults found.")
