"""Faults that others reported in public rewards: do they occur, and does `posttrain audit` find them?

    python benchmarks/public_rewards.py --check          # grades the input of every fault, in the pinned version
    python benchmarks/public_rewards.py --audit --out D  # audits every reward, and writes D/table.md; further options
                                                         # go to `posttrain audit`

`public_rewards.yaml` lists the faults with links; `public/` has the adapters, the tasks and the pinned packages. One
counts as found if a probe that the list names for it has a finding of severity critical or high. Whether the reproducer
shows the same fault is for a reader to say: the table has it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from posttrain.rewards.scorer import Scorer
from posttrain.types import Message, Sample

Row = Mapping[str, Any]
HERE = Path(__file__).resolve().parent
LIST = HERE / "public_rewards.yaml"
SECONDS = 60.0
"""For one response: the first one imports the package."""
AUDIT_SECONDS = 1800.0
MARGIN = 0.3
"""A score this far from what it should be is a fault. Partial credit for a wrong answer may be as small as a half."""
UNCALIBRATED = "UNCALIBRATED"


@dataclass(frozen=True)
class Fault:
    """An entry of the list. The response `input` to the task `task` should score `expected`; `honest` is the form of a
    right response, with `{answer}` for the reference; `probes` are those whose finding would tell of the fault."""

    name: str
    package: str
    reward: str
    tasks: str
    kind: str
    fault: str
    link: str
    task: str
    input: str
    expected: float
    honest: str
    probes: Sequence[str]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The tasks."""
        return [json.loads(line) for line in (HERE / self.tasks).read_text("utf-8").splitlines()]

    def right(self, row: Row) -> str:
        """A right response to a task."""
        return self.honest.replace("{answer}", row["answer"])


@dataclass(frozen=True)
class Audit:
    """What an audit said: its exit status, the critical and high findings, and those that tell of the fault."""

    status: int
    severe: Sequence[Row]
    telling: Sequence[Row]


def faults(only: Sequence[str] = ()) -> list[Fault]:
    """The list, or the entries of these names."""
    listed = [Fault(**entry) for entry in yaml.safe_load(LIST.read_text("utf-8"))]
    return [fault for fault in listed if not only or fault.name in only]


def check(fault: Fault) -> tuple[bool, str]:
    """Whether the fault occurs, and what was measured: the score of its input, and the mean scores of right responses
    and of right responses to the next task."""
    package, _, wanted = fault.package.partition("==")
    try:
        if (installed := version(package)) != wanted:
            return False, f"{package} {installed} is installed, {wanted} is listed"
    except PackageNotFoundError:
        return False, f"{package} is not installed; see benchmarks/public/requirements.txt"
    rows = fault.rows
    right = [(row, fault.right(row)) for row in rows]
    swapped = [(row, fault.right(other)) for row, other in zip(rows, rows[1:] + rows[:1], strict=True)]
    (asked,) = (row for row in rows if row["id"] == fault.task)
    # the input comes last: it may change the process that grades it
    scores = score(fault, [*right, *swapped, (asked, fault.input)])
    if None in scores:
        return False, f"{scores.count(None)} of {len(scores)} responses have no score"
    count = len(rows)
    found, means = scores[-1], (sum(scores[:count]) / count, sum(scores[count:-1]) / count)
    measured = f"{found:.2f} instead of {fault.expected:.2f}; right {means[0]:.2f}, of the next task {means[1]:.2f}"
    return abs(found - fault.expected) >= MARGIN, measured


def score(fault: Fault, asked: Sequence[tuple[Row, str]]) -> list[float | None]:
    """The reward of each response, None where it failed."""
    columns = sorted({name for row, _ in asked for name in row} - {"id", "prompt"})
    samples = [
        Sample(row["prompt"], (Message("assistant", response),), (), {name: row[name] for name in columns})
        for row, response in asked
    ]
    with Scorer([str(HERE / fault.reward)], columns=columns, timeout_seconds=SECONDS, workers=1) as scorer:
        return [one.total for one in scorer.score(samples)]


def audit(fault: Fault, out: Path, options: Sequence[str] = ()) -> Audit:
    """Run `posttrain audit` on the reward of a fault, and read what it found.

    A refusal to calibrate (exit status 2) counts as a finding of its own: the audit did not pass the reward."""
    folder = out / fault.name
    files = ["--reward", str(HERE / fault.reward), "--data", str(HERE / fault.tasks), "--out", str(folder)]
    command = [sys.executable, "-m", "posttrain", "audit", *files, *options]
    print(f"{fault.name}: {' '.join(command[2:])}", flush=True)
    run = subprocess.run(command, timeout=AUDIT_SECONDS, check=False, capture_output=True, text=True)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "output.txt").write_text(run.stdout + run.stderr, encoding="utf-8")
    written = folder / "audit.json"
    findings = json.loads(written.read_text("utf-8"))["findings"] if written.exists() else []
    if run.returncode == 2 and UNCALIBRATED in run.stdout + run.stderr:
        findings = [{"probe": UNCALIBRATED, "severity": "critical", "reproducer": run.stderr.strip()[-200:]}]
    severe = [one for one in findings if one["severity"] in ("critical", "high")]
    return Audit(run.returncode, severe, [one for one in severe if one["probe"] in fault.probes])


def table(audits: Mapping[str, Audit], listed: Sequence[Fault]) -> str:
    """Markdown: a row for each fault."""
    lines = [
        f"{sum(bool(audits[fault.name].telling) for fault in listed)} of {len(listed)} reported faults found.",
        "",
        "| reward | reported fault | found by | all probes with critical or high findings | reproducer |",
        "| --- | --- | --- | --- | --- |",
    ]
    for fault in listed:
        done = audits[fault.name]
        telling, severe = ({one["probe"]: None for one in found} for found in (done.telling, done.severe))
        shown = f"`{done.telling[0]['reproducer']}`" if telling else ""
        cells = [
            f"{fault.name}, `{fault.package}`",
            f"[{fault.fault}]({fault.link})",
            ", ".join(telling) or "not found",
            ", ".join(severe) or f"none, exit status {done.status}",
            shown,
        ]
        lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Check the faults, or audit the rewards. Returns 1 if a fault does not occur."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--check", action="store_true", help="grade the input of every fault")
    mode.add_argument("--audit", action="store_true", help="run `posttrain audit` on every reward")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="this entry; may be repeated")
    parser.add_argument("--out", type=Path, default=Path("runs/public-rewards"), help="folder of the audits")
    options, further = parser.parse_known_args()
    if further and not options.audit:
        parser.error(f"unknown options: {' '.join(further)}")
    listed = faults(options.only)
    if options.audit:
        text = table({fault.name: audit(fault, options.out, further) for fault in listed}, listed)
        (options.out / "table.md").write_text(text, encoding="utf-8")
        print(text)
        return 0
    occurring = 0
    for fault in listed:
        occurs, measured = check(fault)
        occurring += occurs
        print(f"{'occurs' if occurs else 'absent'}  {fault.name:30} {measured}", flush=True)
    print(f"{occurring} of {len(listed)} faults occur")
    return int(occurring < len(listed))


if __name__ == "__main__":
    sys.exit(main())
