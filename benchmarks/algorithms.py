"""Every algorithm of `posttrain rl` on three small tasks whose best score is known, with the tiny model.

    python benchmarks/algorithms.py --seeds 0 1 2 3 4 --out runs/algorithms

- `bandit`: one token in answer to four prompts, each with a class of right tokens that is worth something else, with a
  bonus for entropy; the best mean is 0.7.
- `copy`: say the letter of four that the prompt is made of, and end, with a bonus for entropy; the start answers with
  any of them. The best is 1.
- `tool`: a box has to be unlocked by a tool before it is opened by an answer; the start forgets the first in half of
  the episodes. Sampled with top-p 0.95; the best is 1.

Prints a table of the score (mean reward of all that was sampled in the last five steps, what dynamic sampling left out
included, over the best one), steps and seconds. There is no KL, which would move the best. `coin` is grpo with a random
reward, scored by the task's own.
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
from posttrain.train.rl.setup import train_rl  # noqa: E402
from posttrain.train.sft import train_sft  # noqa: E402

LETTERS = "abcd"
CODE = '''
import hashlib
import random

RIGHT = {"lower": "abcdefghijklmnopqrstuvwxyz", "upper": "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "digit": "0123456789",
         "mark": "!?.,;:-+*/"}
WORTH = {"lower": 1.0, "upper": 0.8, "digit": 0.6, "mark": 0.4}

def bandit(response, kind):
    return WORTH[kind] * (len(response) == 1 and response in RIGHT[kind])

def copy(response, letter):
    return float(response == letter)

def coin(prompt, response):
    return float(hashlib.sha256(f"{prompt}|{response}".encode()).digest()[0] % 2)


class Box:
    def reset(self, **columns):
        self.open, self.answer = False, ""

    def unlock(self) -> str:
        """Unlock the box."""
        self.open = True
        return "unlocked"

    def reply(self, text: str):
        self.answer = text
        return None

    def get_reward(self) -> float:
        return float(self.open and self.answer == "open it")
'''


@dataclass(frozen=True)
class Task:
    """A small task: its options for every algorithm, its prompts, and the rows and steps its start is trained on."""

    name: str
    best: float
    rows: Sequence[dict[str, Any]]
    start: Sequence[dict[str, Any]]
    start_steps: int
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
    kinds = {"lower": "a letter, please", "upper": "NOW SHOUT A LETTER", "digit": "count: 1 2 3 4", "mark": "?!.,?!.,"}
    box = f"{code}:Box"
    guess = [{"prompt": p * 12, "completion": rnd.choice(LETTERS)} for p in LETTERS for _ in range(80)]
    return {
        "bandit": Task(
            "bandit",
            0.7,
            [{"prompt": prompt, "kind": kind} for kind, prompt in kinds.items()],
            [],
            0,
            {
                "reward": (f"{code}:bandit",),
                "max_new_tokens": 1,
                "batch_size": 64,
                "max_steps": 60,
                "entropy_bonus": 0.03,
                "learning_rate": 5e-4,
            },
        ),
        "copy": Task(
            "copy",
            1.0,
            [{"prompt": p * 12, "letter": p} for p in LETTERS],
            guess,
            25,
            {
                "reward": (f"{code}:copy",),
                "max_new_tokens": 2,
                "batch_size": 64,
                "max_steps": 100,
                "entropy_bonus": 0.05,
                "learning_rate": 2.5e-4,
            },
        ),
        "tool": Task(
            "tool",
            1.0,
            [{"prompt": "Open the box."}],
            _box_rows(box),
            60,
            {
                "env": box,
                "max_new_tokens": 64,
                "max_turns": 2,
                "batch_size": 32,
                "max_steps": 20,
                "top_p": 0.95,
                "learning_rate": 5e-5,
            },
        ),
    }


def _box_rows(box: str) -> list[dict[str, Any]]:
    """Two conversations: one unlocks the box and opens it, one only opens it."""
    with EnvPool(box, columns=(), timeout_seconds=30) as pool:
        tools = list(pool.tools)
    call = {"id": "call00000", "type": "function", "function": {"name": "unlock", "arguments": {}}}
    question = {"role": "user", "content": "Open the box."}
    answer = {"role": "assistant", "content": "open it"}
    calls = {"role": "assistant", "content": "", "tool_calls": [call]}
    result = {"role": "tool", "content": "unlocked", "tool_call_id": "call00000"}
    rows = [[question, calls, result, answer], [question, answer]]
    return [{"messages": row, "tools": tools} for row in rows for _ in range(4)]


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
                batch_size=8,
                max_steps=task.start_steps,
                keep=1,
            )
        )
    return str(out / "model")


def run(algorithm: str, task: Task, seed: int, folder: Path, max_steps: int | None = None) -> Result:
    """Train once, for the task's own number of steps or another. `coin` is grpo on a random reward."""
    data = _write(folder / f"{task.name}.jsonl", task.rows)
    options = dict(task.options) | ({} if max_steps is None else {"max_steps": max_steps})
    name = algorithm
    if algorithm == "coin":
        name = "grpo"
        code, _, own = options["reward"][0].rpartition(":")
        options["reward"] = (f"{code}:coin", f"{code}:{own} as own=0")
    if ALGORITHMS[name].group_size == 1:
        options["group_size"] = 1
    if ALGORITHMS[name].max_refills:
        options["max_refills"] = 3  # where all groups are solved, more of them find nothing
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
    seconds = time.perf_counter() - begun
    steps = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    rollouts = [json.loads(line) for line in (out / "rollouts.jsonl").read_text().splitlines()]
    last = [
        row["parts"]["own"] if algorithm == "coin" else row["score"] for row in rollouts if row["step"] > len(steps) - 5
    ]
    return Result(statistics.mean(last) / task.best, len(steps), seconds, steps[-1].get("explained_variance"))


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
