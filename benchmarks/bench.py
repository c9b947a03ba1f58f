"""posttrain beside its peers: the same model, rows, lengths and settings, each run in a process of its own, in turn.

    python benchmarks/bench.py --rounds 3 --out runs/bench
    python benchmarks/bench.py --cases sft-ragged generate-64 --rounds 1

Prints, and writes to `bench.md` and `bench.json`, medians over all counted steps of all rounds, and ratios to each
peer.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from posttrain.threads import configure_threads

configure_threads()

import torch  # noqa: E402
from shapes import CASES, Case, write_data  # noqa: E402
from transformers import AutoTokenizer  # noqa: E402

from posttrain.models.cpu.linear import PRODUCTS  # noqa: E402
from posttrain.models.load import model_folder  # noqa: E402
from posttrain.train.data_order import epoch_order  # noqa: E402

HERE = Path(__file__).parent
ROOT = HERE.parent
DEADLINE_SECONDS = 1200


@dataclass(frozen=True)
class Side:
    """A program that runs a case: its interpreter, its script, and what it wants in its environment."""

    name: str
    python: str
    script: str
    environment: dict[str, str] = field(default_factory=dict)


OURS = Side("posttrain", sys.executable, "ours.py")
TRL = Side("TRL", str(ROOT / ".venv-trl/bin/python"), "with_trl.py")
GENERATE = Side("transformers", sys.executable, "with_transformers.py")
CONTINUOUS = Side("transformers, continuous", sys.executable, "with_transformers.py", {"CONTINUOUS": "1"})
VLLM = Side("vLLM", str(ROOT / ".venv-vllm/bin/python"), "with_vllm.py")


@dataclass
class Runs:
    """What the runs of one side of a case gave, over all rounds."""

    seconds: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    flops: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    first_loss: float | None = None
    error: str | None = None

    def add(self, result: dict[str, list[float]], memory: float) -> None:
        self.seconds += result["seconds"]
        self.rates += [t / s for t, s in zip(result["tokens"], result["seconds"], strict=True)]
        self.flops += result.get("flops", [])
        self.memory.append(memory)
        if "first_loss" in result:
            self.first_loss = float(result["first_loss"])  # type: ignore[arg-type]


def sides_of(case: Case, peers: bool) -> list[Side]:
    if not peers or case.name.startswith("rows-"):
        return [OURS]
    if case.method != "generate":
        return [OURS, TRL]
    # continuous batching is several times slower here: once is enough
    return [OURS, GENERATE, VLLM, *([CONTINUOUS] if case.name == "generate-32" else [])]


def run_side(side: Side, case: Case, model: str, data: Path, runs: Runs) -> None:
    """One run in a process of its own; a failure is noted and costs this run only."""
    with tempfile.TemporaryDirectory(prefix="bench-") as out:
        command = [side.python, str(HERE / "sides" / side.script), case.name, model, str(data), f"{out}/run"]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", **side.environment}
        messages = Path(out) / "messages"
        with messages.open("w") as errors:
            try:
                child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment)
            except OSError as error:
                runs.error = f"{error} (make bench makes the environment)"
                return
            deadline = threading.Timer(DEADLINE_SECONDS, child.kill)
            deadline.start()
            assert child.stdout is not None
            lines = child.stdout.read().splitlines()
            _, status, usage = os.wait4(child.pid, 0)
            deadline.cancel()
        if status or not lines:
            runs.error = (messages.read_text().strip().splitlines() or ["it ended without a word"])[-1][:200]
            return
        runs.add(json.loads(lines[-1]), usage.ru_maxrss / 1e6)


def ceiling() -> float:
    """Floating-point operations a second of float32 matrix products, the best of both libraries and of a few shapes of
    training and large ones: medians of repetitions."""
    best = 0.0
    for m, k, n in ((1024, 576, 1536), (1024, 1536, 576), (2048, 2048, 2048), (4096, 576, 1536)):
        x, weight = torch.randn(m, k), torch.randn(n, k)
        for product in (torch.nn.functional.linear, PRODUCTS.linear):
            seconds = []
            for _ in range(12):
                start = time.perf_counter()
                product(x, weight)
                seconds.append(time.perf_counter() - start)
            best = max(best, 2.0 * m * k * n / statistics.median(seconds))
    return best


def row(case: Case, side: Side, runs: Runs, ours: Runs, peak: float) -> str:
    """A line of the table. Ratios are ours to the peer's: speed in useful tokens a second, and memory."""
    if not runs.seconds:
        return f"| {case.name} | {side.name} | does not run here: {runs.error} | | | | |"
    rate, seconds, memory = (statistics.median(v) for v in (runs.rates, runs.seconds, runs.memory))
    faster = statistics.median(ours.rates) / rate if side is not OURS and ours.rates else None
    smaller = statistics.median(ours.memory) / memory if faster is not None else None
    share = (
        statistics.median(f / s for f, s in zip(runs.flops, runs.seconds, strict=True)) / peak if runs.flops else None
    )
    cells = [
        f"{rate:.0f}",
        f"{seconds:.2f}",
        f"{memory:.2f}",
        "" if share is None else f"{share:.2f}",
        "" if faster is None else f"**{faster:.2f}** (memory {smaller:.2f})",
    ]
    return f"| {case.name} | {side.name} | " + " | ".join(cells) + " |"


def table(results: dict[str, dict[str, Runs]], peak: float) -> str:
    lines = [
        f"Ceiling: {peak / 1e9:.0f} GFLOP/s in float32 matrix products, {torch.get_num_threads()} threads.",
        "",
        "| case | side | useful tokens/s | seconds a step | peak GB | share of ceiling | posttrain ÷ it |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, sides in results.items():
        by_name = {s.name: s for s in sides_of(CASES[name], True)}
        lines += [row(CASES[name], by_name[side], runs, sides[OURS.name], peak) for side, runs in sides.items()]
    per_token = {n: 1 / statistics.median(r[OURS.name].rates) for n, r in results.items() if r[OURS.name].rates}
    if "rows-256" in per_token and "rows-4096" in per_token:
        growth = per_token["rows-4096"] / per_token["rows-256"]
        lines += ["", f"Seconds a token, rows of 4,096 to rows of 256 tokens: {growth:.2f}"]
    losses = {
        n: {side: runs.first_loss for side, runs in sides.items() if runs.first_loss is not None}
        for n, sides in results.items()
    }
    lines += ["", *(f"First loss of {n}: {v}" for n, v in losses.items() if len(v) > 1)]
    return "\n".join([*lines, "", *(f"- `{n}`: {CASES[n].shape}" for n in results)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("runs/bench"))
    args = parser.parse_args()
    model = model_folder("smollm2-135m")
    args.out.mkdir(parents=True, exist_ok=True)
    results: dict[str, dict[str, Runs]] = {}
    peaks: list[float] = []
    tokenizer = AutoTokenizer.from_pretrained(model)
    for name in args.cases:
        case = CASES[name]
        data = args.out / f"{name}.jsonl"
        write_data(case, tokenizer, data)
        # posttrain shuffles by seed and pass; the peers get the rows in that order and take them as they come
        rows = data.read_text().splitlines(keepends=True)
        ordered = args.out / f"{name}-ordered.jsonl"
        ordered.write_text("".join(rows[i] for i in epoch_order(len(rows), 0, 0)))
        sides = sides_of(case, not args.no_peers)
        results[name] = {side.name: Runs() for side in sides}
        for n in range(args.rounds):
            peaks.append(ceiling())
            for side in sides:
                print(f"{name}, round {n + 1} of {args.rounds}: {side.name}", file=sys.stderr, flush=True)
                file = data if side is OURS else ordered
                run_side(side, case, model, file.resolve(), results[name][side.name])
        text = table(results, statistics.median(peaks))
        (args.out / "bench.md").write_text(text + "\n")
        raw = {n: {s: vars(r) for s, r in sides.items()} for n, sides in results.items()}
        (args.out / "bench.json").write_text(json.dumps({"ceiling": peaks, "cases": raw}, indent=1))
    print(text)


if __name__ == "__main__":
    main()
