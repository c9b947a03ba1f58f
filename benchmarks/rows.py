"""What a step's numbers cost between sampling and the optimizer: advantages, packing and recording.

    .venv/bin/python benchmarks/rows.py [--rollouts 1024] [--tokens 2048] [--kept 20]

1,024 rollouts of 2,048 sampled tokens with 20 kept tokens each by default, made from a seed, in groups of 8 with a
prompt of 128 tokens a group. Every line is a fresh process that makes the rollouts and then does one thing: the
processor's seconds of it, the peak of resident memory above what was there before the rollouts were made (so that the
rollouts themselves count), and the bytes that it writes. `held` does nothing: what the rollouts alone take.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

GROUP = 8
PROMPT = 128
VOCABULARY = 50_000


def groups_of(rollouts: int, tokens: int, kept: int) -> list:
    from posttrain.arrays import KeptTokens
    from posttrain.types import Completion, Group, Message, Rollout, Sampling, Score, Segment, Task

    rng = np.random.default_rng(0)
    sampling = Sampling(tokens, top_k=kept)
    groups = []
    for g in range(rollouts // GROUP):
        prompt = tuple(rng.integers(0, VOCABULARY, PROMPT).tolist())
        members = []
        for i in range(GROUP):
            ids = rng.integers(0, VOCABULARY, (tokens, kept))
            kept_tokens = KeptTokens.counted(np.sort(ids, axis=1).ravel(), [kept] * tokens)
            logprobs = (-rng.exponential(1.0, tokens)).astype(np.float32)
            completion = Completion(ids[:, 0], logprobs, np.zeros(tokens, int), "stop", kept_tokens)
            messages = (Message("assistant", "a"),)
            members.append(Rollout(f"task-{g}", i, sampling, i, messages, (Segment.of(prompt, completion),)))
        scores = tuple(Score(float(x)) for x in rng.random(GROUP))
        groups.append(Group(Task(f"task-{g}", "p"), tuple(members), scores))
    return groups


def config():
    from posttrain.config import RlConfig

    return RlConfig(model="m", data="d", reward=("math",), out=Path("o"), algorithm="reinforce++", top_k=20)


def rows_of(groups: list) -> list:
    from posttrain.train.rl.advantages import scored_rows, with_advantages

    rows = [[replace(row, ref_logprobs=row.sampler_logprobs) for row in group] for group in scored_rows(groups)]
    return with_advantages(config(), rows, beta=0.01, weights={})


def advantages(groups: list, folder: Path) -> Callable[[], object]:
    return lambda: rows_of(groups)


def packing(groups: list, folder: Path) -> Callable[[], object]:
    from posttrain.batch.packing import micro_batches, pack
    from posttrain.train.rl.batch import step_trees

    rows = rows_of(groups)

    def run() -> None:
        for part in micro_batches(step_trees(config(), rows, True), 1 << 16):
            pack(part)

    return run


def recording(groups: list, folder: Path) -> Callable[[], object]:
    from posttrain.rollout import rollout_to_json
    from posttrain.runs.log import RunLog

    log = RunLog(folder / "run", {}, False)
    return lambda: log.rollouts(
        rollout_to_json(1, r, s, 0.5) for g in groups for r, s in zip(g.rollouts, g.scores, strict=True)
    )


def held(groups: list, folder: Path) -> Callable[[], object]:
    return lambda: None


PARTS = (held, advantages, packing, recording)


def memory(name: str) -> int:
    """MiB of this process by the name that /proc gives them."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) // 1024


def measure(part: str, rollouts: int, tokens: int, kept: int) -> None:
    import torch

    import posttrain.rollout
    import posttrain.train.rl.batch  # noqa: F401

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        before = memory("VmRSS")
        groups = groups_of(rollouts, tokens, kept)
        run = next(p for p in PARTS if p.__name__ == part)(groups, Path(folder))
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        start = time.process_time()
        run()
        seconds = time.process_time() - start
        written = sum(f.stat().st_size for f in Path(folder).rglob("*") if f.is_file())
        print(json.dumps([round(seconds, 2), memory("VmHWM") - before, written]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rollouts", type=int, default=1024)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--kept", type=int, default=20)
    parser.add_argument("--part", choices=[p.__name__ for p in PARTS])
    args = parser.parse_args()
    if args.part:
        return measure(args.part, args.rollouts, args.tokens, args.kept)
    print(f"{args.rollouts} rollouts x {args.tokens} tokens, {args.kept} kept tokens each")
    print("| part | seconds | peak MiB | MB written |\n| --- | --- | --- | --- |")
    for part in PARTS:
        command = [sys.executable, __file__, "--part", part.__name__, *sys.argv[1:]]
        seconds, peak, written = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        print(f"| {part.__name__} | {seconds} | {peak:,} | {written / 1e6:.1f} |", flush=True)


if __name__ == "__main__":
    main()
