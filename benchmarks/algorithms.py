"""Every algorithm of `posttrain rl` on three small tasks whose best score is known, with the tiny model.

    python benchmarks/algorithms.py --seeds 0 1 2 3 4 --out runs/algorithms

- `bandit`: one token in answer to four prompts, each with a class of right tokens that is worth something else; the
  best mean is 0.55.
- `copy`: repeat two letters of four; the start answers with any two. The best is 1.
- `tool`: a letter lies in a box that only a tool can look into, and every episode draws it anew; the start guesses in
  half of the episodes. The best is 1.

Prints a table of the score (mean reward of what was sampled in the last five steps, over the best one), steps and
seconds. There is no KL, which would move the best. `coin` is grpo with a random reward, scored by the task's own.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posttrain.threads import configure_threads

configure_threads()

from posttrain.config import RlConfig, SftConfig  # noqa: E402
from posttrain.config.algorithms import ALGORITHMS  # noqa: E402
from posttrain.envs.pool import EnvPool  # noqa: E402
from posttrain.train.rl import train_rl  # noqa: E402
from posttrain.train.sft import train_sft  # noqa: E402

LETTERS = "abcd"
CODE = '''
import hashlib
import random

RIGHT = {"lower": "abcdefghijklmnopqrstuvwxyz", "upper": "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "digit": "0123456789",
         "mark": "!?.,;:-+*/"}
WORTH = {"lower": 1.0, "upper": 0.7, "digit": 0.4, "mark": 0.1}

def bandit(response, kind):
    return WORTH[kind] * (len(response) == 1 and response in RIGHT[kind])

def copy(response, letters):
    return sum(a == b for a, b in zip(response, letters)) / 2 if len(response) == 2 else 0.0

def coin(prompt, response):
    return float(hashlib.sha256(f"{prompt}|{response}".encode()).digest()[0] % 2)


class Box:
    def reset(self, seed, **columns):
        self.letter = random.Random(seed).choice("abcd")
        self.answer = ""

    def look(self) -> str:
        """Look into the box."""
        return self.letter

    def reply(self, text: str):
        self.answer = text
        return None

    def get_reward(self) -> float:
        return float(self.answer == self.letter)
'''


@dataclass(frozen=True)
class Task:
    """A small task: its options for every algorithm, its prompts, and the rows its start is trained on."""

    name: str
    best: float
    rows: Sequence[dict[str, Any]]
    start: Sequence[dict[str, Any]]
    options: dict[str, Any]


@dataclass(frozen=True)
class Result:
    """What a run came to: its score over the best one, and the last explained variance of a critic."""

    score: float
    steps: int
    seconds: float
    explained_variance: float | None


def tasks(folder: Path) -> dict[str, Task]:
    """The tasks, with their rewards in a file of the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    code = folder / "tasks.py"
    code.write_text(CODE)
    rnd = random.Random(0)
    pairs = [a + b for a in LETTERS for b in LETTERS]
    kinds = ("lower", "upper", "digit", "mark")
    box = f"{code}:Box"
    guess = [{"prompt": f"Copy {p}", "completion": rnd.choice(pairs)} for p in pairs for _ in range(8)]
    return {
        "bandit": Task(
            "bandit",
            0.55,
            [{"prompt": kind, "kind": kind} for kind in kinds],
            [],
            {
                "reward": (f"{code}:bandit",),
                "max_new_tokens": 1,
                "batch_size": 64,
                "max_steps": 60,
                "learning_rate": 1e-3,
            },
        ),
        "copy": Task(
            "copy",
            1.0,
            [{"prompt": f"Copy {p}", "letters": p} for p in pairs],
            guess,
            {
                "reward": (f"{code}:copy",),
                "max_new_tokens": 4,
                "batch_size": 128,
                "max_steps": 80,
                "learning_rate": 1e-3,
            },
        ),
        "tool": Task(
            "tool",
            1.0,
            [{"prompt": "Which letter is in the box?"}],
            _box_rows(rnd, box),
            {
                "env": box,
                "max_new_tokens": 64,
                "max_turns": 2,
                "batch_size": 32,
                "max_steps": 25,
                "learning_rate": 1.5e-4,
            },
        ),
    }


def _box_rows(rnd: random.Random, box: str) -> list[dict[str, Any]]:
    """Half of the conversations look into the box and say what is in it, half guess."""
    with EnvPool(box, columns=(), timeout_seconds=30) as pool:
        tools = list(pool.tools)
    look = {"id": "call_0", "type": "function", "function": {"name": "look", "arguments": {}}}
    question = {"role": "user", "content": "Which letter is in the box?"}
    out = []
    for i in range(256):
        letter = rnd.choice(LETTERS)
        calls = {"role": "assistant", "content": "", "tool_calls": [look]}
        seen = [calls, {"role": "tool", "content": letter, "tool_call_id": "call_0"}] if i % 2 else []
        answer = {"role": "assistant", "content": letter}
        out.append({"messages": [question, *seen, answer], "tools": tools})
    return out


def start_of(task: Task, folder: Path) -> str:
    """The model a task begins with, trained once."""
    out = folder / f"start-{task.name}"
    if not task.start:
        return "tiny-random"
    if not (out / "lineage.json").exists():
        data = _write(folder / f"start-{task.name}.jsonl", task.start)
        train_sft(
            SftConfig(
                model="tiny-random",
                data=str(data),
                out=out,
                learning_rate=2e-3,
                schedule="linear",
                batch_size=32,
                max_steps=300,
                keep=1,
            )
        )
    return str(out / "model")


def run(algorithm: str, task: Task, seed: int, folder: Path) -> Result:
    """Train once. `coin` is grpo on a random reward."""
    data = _write(folder / f"{task.name}.jsonl", task.rows)
    options = dict(task.options)
    name = algorithm
    if algorithm == "coin":
        name = "grpo"
        code, _, own = options["reward"][0].rpartition(":")
        options["reward"] = (f"{code}:coin", f"{code}:{own}=0 as own")
    if ALGORITHMS[name].group_size == 1:
        options["group_size"] = 1
    begun = time.perf_counter()
    out = folder / f"{task.name}-{algorithm}-{seed}"
    train_rl(
        RlConfig(
            model=start_of(task, folder),
            data=str(data),
            out=out,
            algorithm=name,  # type: ignore[arg-type]
            beta=0.0,
            seed=seed,
            save_every=1000,
            **options,
        )
    )
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    key = "reward/own" if algorithm == "coin" else "reward"
    last = [row[key] for row in rows[-5:]]
    variance = rows[-1].get("explained_variance")
    return Result(statistics.mean(last) / task.best, len(rows), time.perf_counter() - begun, variance)


def _write(file: Path, rows: Sequence[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def table(results: dict[tuple[str, str], list[Result]]) -> str:
    """Markdown: the lowest and the mean score over seeds, steps, seconds."""
    lines = ["| algorithm | task | mean score | lowest | steps | seconds |", "| --- | --- | --- | --- | --- | --- |"]
    for (algorithm, task), runs in results.items():
        scores = [r.score for r in runs]
        seconds = statistics.median(r.seconds for r in runs)
        mean, low = statistics.mean(scores), min(scores)
        lines.append(f"| {algorithm} | {task} | {mean:.3f} | {low:.3f} | {runs[0].steps} | {seconds:.1f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--algorithms", nargs="+", default=[*ALGORITHMS, "coin"])
    parser.add_argument("--tasks", nargs="+", default=["bandit", "copy", "tool"])
    parser.add_argument("--out", type=Path, default=Path("runs/algorithms"))
    args = parser.parse_args()
    known = tasks(args.out)
    results: dict[tuple[str, str], list[Result]] = {}
    for name in args.tasks:
        for algorithm in args.algorithms:
            if algorithm == "coin" and "reward" not in known[name].options:
                continue
            results[algorithm, name] = [run(algorithm, known[name], seed, args.out) for seed in args.seeds]
            print(algorithm, name, results[algorithm, name], flush=True)
    text = table(results)
    (args.out / "algorithms.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
