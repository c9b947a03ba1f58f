"""What the audit finds in the zoo: `python benchmarks/audit_zoo.py [--list FILE] [--names A B] [--out FILE]`.

A planted defect counts as found if a finding is critical, high or medium; a healthy reward as accused by any of these.
Defects that only training finds (`--train`) are left out. With `--list` the entries are those of a JSON file instead,
`{"name", "reward", "tasks", "kind"}` each, where `kind` is `healthy` or a defect. Rewards run in worker processes, as a
user's do."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from posttrain.config import AuditConfig
from posttrain.stats import share
from posttrain.types import InputError, RunFailed


class Entry(NamedTuple):
    name: str
    reward: tuple[str, ...]
    data: str
    kind: str


def zoo() -> list[Entry]:
    from tests.audits.zoo.zoo import ZOO

    return [Entry(e.name, e.reward, e.data, e.kind) for e in ZOO if e.kind != "trained"]


def listed(file: Path) -> list[Entry]:
    rows = json.loads(file.read_text())
    return [Entry(row["name"], (row["reward"],), row["tasks"], row["kind"]) for row in rows]


def audited(entry: Entry, seed: int = 0, workers: int | None = None) -> dict[str, Any]:
    """What an audit says of an entry. A reward that cannot be calibrated counts as one with a finding."""
    from posttrain.audits.run import run_audit

    started = time.perf_counter()
    with TemporaryDirectory() as folder:
        config = AuditConfig(
            reward=entry.reward, data=entry.data, out=Path(folder) / "audit", seed=seed, reward_workers=workers
        )
        try:
            record = run_audit(config)
            found = [
                {name: each[name] for name in ("probe", "severity", "title", "kind")}
                | {"response": each["reproducer"] and each["reproducer"]["response"][:200]}
                for each in record["findings"]
            ]
            graded = sum(each["n"] for each in record["outcomes"])
        except (InputError, RunFailed) as error:
            found, graded = [{"probe": "UNCALIBRATED", "severity": "critical", "title": str(error)[:300]}], 0
    accused = any(each["severity"] != "note" for each in found)
    seconds = round(time.perf_counter() - started, 1)
    return {
        "name": entry.name,
        "kind": entry.kind,
        "accused": accused,
        "findings": found,
        "graded": graded,
        "seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", type=Path)
    parser.add_argument("--names", nargs="*")
    parser.add_argument("--kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    entries = listed(options.list) if options.list else zoo()
    entries = [e for e in entries if not options.names or e.name in options.names]
    entries = [e for e in entries if not options.kind or e.kind == options.kind]
    results = []
    for entry in entries:
        result = audited(entry, options.seed)
        results.append(result)
        severe = [f for f in result["findings"] if f["severity"] != "note"]
        wrong = result["accused"] == (entry.kind == "healthy")
        probes = ", ".join(dict.fromkeys(f"{f['probe']} {f['severity']}" for f in severe))
        print(
            f"{'!!' if wrong else 'ok'} {entry.kind:8} {entry.name:24} {result['seconds']:6.1f} s  {probes}", flush=True
        )
        if options.out:
            with options.out.open("a") as stream:
                stream.write(json.dumps(result, ensure_ascii=False) + "\n")
    for healthy in (False, True):
        of = [r for r in results if (r["kind"] == "healthy") == healthy]
        count = share(sum(r["accused"] for r in of), len(of))
        if of:
            what = "healthy rewards accused" if healthy else "defects found"
            print(f"{what}: {sum(r['accused'] for r in of)} of {len(of)} [{count['low']:.2f}, {count['high']:.2f}]")


if __name__ == "__main__":
    main()
