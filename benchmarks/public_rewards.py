"""Faults that others reported in public rewards: do they occur here, and does `posttrain audit` find them?

    python benchmarks/public_rewards.py --check          # every fault on its own input, in the pinned version
    python benchmarks/public_rewards.py --audit --out D  # audits every reward, and writes D/table.md

`public_rewards.yaml` has the faults with links, `public/` the adapters, the tasks and the pinned packages. A fault counts
as found if one of the probes that `public_rewards.yaml` names for it has a finding of severity critical or high; whether
the reproducer shows the same fault is for a reader to say, and stands beside it.
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

HERE = Path(__file__).resolve().parent
LIST = HERE / "public_rewards.yaml"
SECONDS = 60.0
"""For one response: imports of the packages are in it."""
AUDIT_SECONDS = 1800.0
MARGIN = 0.3
"""How far a score is from what it should be before that is a fault: partial credit makes some of them small."""
SEVERE = ("critical", "high")


@dataclass(frozen=True)
class Fault:
    """An entry of the list. `input` answers the task with the id `task` and should score `expected`; `honest` is the
    form of a right answer, with `{answer}` for the reference; `probes` are those whose finding would tell of it."""

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
    probes: tuple[str, ...]

    @property
    def installed(self) -> str:
        """The version that is installed, or "none"."""
        try:
            return version(self.package.partition("==")[0])
        except PackageNotFoundError:
            return "none"

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The tasks."""
        return [json.loads(line) for line in (HERE / self.tasks).read_text("utf-8").splitlines()]

    @property
    def target(self) -> str:
        """The reward as `--reward` takes it."""
        return f"{HERE / self.reward}"


def faults(only: Sequence[str] = ()) -> list[Fault]:
    """The list, or those of these names."""
    entries = yaml.safe_load(LIST.read_text("utf-8"))
    listed = [Fault(**{**entry, "probes": tuple(entry["probes"])}) for entry in entries]
    return [fault for fault in listed if not only or fault.name in only]


def check(fault: Fault) -> tuple[bool, str]:
    """Whether the fault occurs, with what was measured."""
    wanted = fault.package.partition("==")[2]
    if fault.installed != wanted:
        return False, f"{fault.package} is listed, {fault.installed} is installed"
    rows = fault.rows
    (asked,) = (row for row in rows if row["id"] == fault.task)
    honest = [(row, fault.honest.replace("{answer}", row["answer"])) for row in rows]
    # the fault comes last: it may change the process that grades it
    scores = score(fault.target, [*honest, (asked, fault.input)])
    if None in scores:
        return False, f"{scores.count(None)} of {len(scores)} responses have no score"
    *right, found = map(float, scores)
    measured = f"scores {found:.2f}, should be {fault.expected:.2f}; right answers {sum(right) / len(right):.2f}"
    return abs(found - fault.expected) >= MARGIN, measured


def score(target: str, asked: Sequence[tuple[Mapping[str, Any], str]]) -> list[float | None]:
    """The reward of each response, None where it failed."""
    columns = sorted({name for row, _ in asked for name in row} - {"id", "prompt"})
    samples = [
        Sample(row["prompt"], (Message("assistant", response),), (), {name: row.get(name) for name in columns})
        for row, response in asked
    ]
    with Scorer([target], columns=columns, timeout_seconds=SECONDS, workers=1) as scorer:
        found = scorer.score(samples)
    for one in found:
        if one.total is None:
            print(f"  {one}", file=sys.stderr)
            break
    return [one.total for one in found]


def audit(fault: Fault, out: Path) -> dict[str, Any]:
    """Run `posttrain audit` on the reward of a fault, and read what it found."""
    folder = out / fault.name
    command = ["audit", "--reward", fault.target, "--data", str(HERE / fault.tasks), "--out", str(folder)]
    run = subprocess.run(
        [sys.executable, "-c", "import sys; from posttrain.cli.main import main; sys.exit(main())", *command],
        timeout=AUDIT_SECONDS,
        check=False,
    )
    written = folder / "audit.json"
    findings = json.loads(written.read_text("utf-8"))["findings"] if written.exists() else []
    severe = [one for one in findings if one["severity"] in SEVERE]
    telling = [one for one in severe if one["probe"] in fault.probes]
    return {"status": run.returncode, "severe": severe, "telling": telling}


def table(results: Mapping[str, Mapping[str, Any]], listed: Sequence[Fault]) -> str:
    """Markdown: a row for each fault."""
    found = sum(bool(results[fault.name]["telling"]) for fault in listed)
    lines = [
        f"{found} of {len(listed)} reported faults found.",
        "",
        "| reward | reported fault | found by | probes with critical or high findings | reproducer |",
        "| --- | --- | --- | --- | --- |",
    ]
    for fault in listed:
        result = results[fault.name]
        telling = sorted({one["probe"] for one in result["telling"]})
        severe = sorted({one["probe"] for one in result["severe"]})
        shown = str(result["telling"][0]["reproducer"]).replace("|", "\\|").replace("\n", " ") if telling else ""
        cells = [
            f"`{fault.package}` {fault.name}",
            f"[{fault.fault}]({fault.link})",
            ", ".join(telling) or "not found",
            ", ".join(severe) or f"none (exit status {result['status']})",
            f"`{shown}`" if shown else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Check the faults, or audit the rewards. Returns 1 if a fault does not occur."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="grade the inputs of the list")
    parser.add_argument("--audit", action="store_true", help="run `posttrain audit` on every reward of the list")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="only this entry; may be repeated")
    parser.add_argument("--out", type=Path, default=Path("runs/public-rewards"), help="folder for the audits")
    options = parser.parse_args()
    listed = faults(options.only)
    if options.audit:
        results = {fault.name: audit(fault, options.out) for fault in listed}
        (options.out / "table.md").write_text(table(results, listed), encoding="utf-8")
        print(table(results, listed))
        return 0
    missing = 0
    for fault in listed:
        occurs, measured = check(fault)
        missing += not occurs
        print(f"{'occurs' if occurs else 'NOT   '}  {fault.name:28} {measured}", flush=True)
    print(f"{len(listed) - missing} of {len(listed)} faults occur")
    return int(bool(missing))


if __name__ == "__main__":
    sys.exit(main())
