"""Does posttrain learn what TRL learns? The same rows and settings in SFT, step by step; the same start, tasks and
settings in GRPO, over several seeds.

    python benchmarks/learning.py --seeds 1 2 3 4 5 --out runs/learning

Writes `learning.json`, `learning.md` and the pictures `learning-sft.svg` and `learning-grpo.svg`. A run that was
stopped goes on where it was: what is finished is kept. The settings are in `learning_settings.py`, the sides in
`sides/learning_*.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from posttrain.threads import configure_threads

configure_threads()

from learning_settings import GRPO, NEW_TOKENS, SFT, Settings  # noqa: E402
from learning_tables import Results, drawn, table  # noqa: E402

from posttrain.config import EvalConfig, SftConfig  # noqa: E402
from posttrain.data.builtin import builtin_tasks  # noqa: E402
from posttrain.evals.run import run_eval  # noqa: E402
from posttrain.models.load import model_folder  # noqa: E402
from posttrain.rewards.libraries.reasoning_gym import reasoning_gym  # noqa: E402
from posttrain.train.data_order import step_rows  # noqa: E402
from posttrain.train.sft import train_sft  # noqa: E402

HERE = Path(__file__).parent
TRL_PYTHON = HERE.parent / ".venv-trl/bin/python"
DEADLINE_SECONDS = 3600
SUMS = "reasoning-gym:chain_sum?seed=7&of=4000&min_terms=2&max_terms=2&min_digits=1&max_digits=2"
SLICES = {"held-out": (0, 500), "demos": (1000, 64), "tasks": (2000, 2000)}
SFT_ROWS = HERE.parent / "examples/data/instructions_train.jsonl"
SIDES = {"posttrain": "learning_ours.py", "TRL": "learning_trl.py", "plain PyTorch": "learning_plain.py"}
REPLAYED_STEPS = 10

Row = dict[str, Any]


def read(file: Path) -> list[Row]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def write(file: Path, rows: Sequence[Row]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def write_sums(folder: Path) -> None:
    """The quickstart's sums as slices of one shuffled list of distinct ones, in SmolLM2's turns as raw text: without
    its default system message and the words of the question, which TRL would compute once for every completion."""
    for name, (start, size) in SLICES.items():
        if (folder / f"{name}.jsonl").exists():
            continue
        rows: list[Row] = []
        for task in builtin_tasks(f"{SUMS}&start={start}&size={size}"):
            question = str(task.prompt).split(": ")[-1]
            prompt = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
            columns = {key: task.columns[key] for key in ("answer", "entry", "dataset")}
            rows.append({"id": task.id, "prompt": prompt, **columns})
        if name == "demos":
            rows = [{"prompt": row["prompt"], "completion": row["answer"]} for row in rows]
        write(folder / f"{name}.jsonl", rows)


def run_side(side: str, method: str, settings: Settings, out: Path, **rest: Any) -> Row:
    """One training run in a process of its own; a finished one is read. Raises SystemExit, with the end of what the
    side said, where it fails."""
    result = out / "result.json"
    if not result.exists():
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        request = {"method": method, "settings": settings.to_dict(), "out": str(out / "run"), "result": str(result)}
        (out / "request.json").write_text(json.dumps(request | rest))
        python = str(TRL_PYTHON) if side == "TRL" else sys.executable
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(out.resolve() / "cache")}
        print(f"{out}: {side}, load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
        with (out / "messages").open("w") as messages:
            command = [python, str(HERE / "sides" / SIDES[side]), str(out / "request.json")]
            status = subprocess.run(
                command, stdout=messages, stderr=messages, env=environment, timeout=DEADLINE_SECONDS
            ).returncode
        if status or not result.exists():
            end = "\n".join((out / "messages").read_text().splitlines()[-12:])
            raise SystemExit(f"{side} failed in {out}:\n{end}")
    found: Row = json.loads(result.read_text())
    return found


def compare_sft(out: Path, model: str, settings: Settings, sides: Sequence[str], rows: Path = SFT_ROWS) -> Row:
    """Losses step by step: posttrain shuffles by seed and pass, the others get the rows in that order."""
    given = read(rows)
    order = [
        i for n in range(1, settings.steps + 1) for i in step_rows(len(given), settings.seed, n, settings.batch, None)
    ]
    ordered = write(out / "sft/ordered.jsonl", [given[i] for i in order])
    files = {"model": model, "data": str(rows), "ordered": str(ordered)}
    results = {side: run_side(side, "sft", settings, out / "sft" / side.replace(" ", "-"), **files) for side in sides}
    if "TRL" in sides:
        results["TRL as it comes"] = run_side(
            "TRL", "sft", settings, out / "sft/as-it-comes", as_it_comes=True, **files
        )
    return results


def make_start(out: Path, model: str) -> str:
    """The start of GRPO on both sides: eight steps of SFT on 64 sums, which leave it something to gain."""
    data, run = str(out / "data/demos.jsonl"), out / "start"
    if not (run / "lineage.json").exists():
        shutil.rmtree(run, ignore_errors=True)
        train_sft(SftConfig(model=model, data=data, out=run, raw=True, learning_rate=4e-5, batch_size=16, max_steps=8))
    return str(run / "model")


def evaluate(model: str, run: Path, held_out: Path) -> Row:
    """Mean values on the held-out sums by `posttrain eval`, for either side."""
    file = run / "evaluations/held_out.jsonl"
    if not file.exists():
        run_eval(
            EvalConfig(
                model=model,
                data=str(held_out),
                reward=("reasoning-gym",),
                out=run,
                raw=True,
                samples=4,
                max_new_tokens=NEW_TOKENS,
                max_concurrent=128,
            )
        )
    rows = read(file)
    return {m: sum(row["values"][m] for row in rows) / len(rows) for m in ("accuracy", "greedy", "pass@4")}


def run_seed(out: Path, seed: int, settings: Settings, start: str) -> Row:
    """Both sides, the first of them by turns, each evaluated before the next is trained."""
    settings = replace(settings, seed=seed)
    tasks = read(out / "data/tasks.jsonl")
    prompts = settings.batch // settings.group_size
    order = [i for n in range(1, settings.steps + 1) for i in step_rows(len(tasks), seed, n, prompts, None)]
    ordered = [{"prompt": tasks[i]["prompt"], "answer": tasks[i]["answer"], "task": tasks[i]["id"]} for i in order]
    file = write(out / f"grpo/{seed}/ordered.jsonl", ordered)
    found = {}
    sides = ("posttrain", "TRL")
    for side in sides if seed % 2 else sides[::-1]:
        folder = out / f"grpo/{seed}/{side}"
        files = {
            "model": start,
            "data": str(out / "data/tasks.jsonl"),
            "ordered": str(file),
            "completions": str(folder / "completions.jsonl"),
        }
        result = run_side(side, "grpo", settings, folder, **files)
        result |= evaluate(str(folder / "run/model"), folder / "run", out / "data/held-out.jsonl")
        shutil.rmtree(folder / "run/model", ignore_errors=True)  # half a gigabyte, and measured
        found[side] = result
    return found


def rewards_that_differ(out: Path, seeds: Sequence[int]) -> tuple[int, int]:
    """How many of TRL's completions the built-in reward scores otherwise than TRL's side did, and of how many."""
    entries = {row["id"]: row["entry"] for row in read(out / "data/tasks.jsonl")}
    rows = [row for seed in seeds for row in read(out / f"grpo/{seed}/TRL/completions.jsonl")]
    return sum(reasoning_gym(row["text"], entries[row["task"]]) != row["score"] for row in rows), len(rows)


def replay(out: Path, seed: int, settings: Settings, start: str) -> Row:
    """posttrain trained on the completions that TRL sampled: without the chance of sampling, both must do the same."""
    rows = read(out / f"grpo/{seed}/TRL/completions.jsonl")
    rows = [row for row in rows if row["step"] <= REPLAYED_STEPS]
    tokenizer = _tokenizer(start)
    lines = []
    for i, row in enumerate(rows):
        before, after = tokenizer(row["prompt"])["input_ids"], row["ids"]
        ended = after[-1] == tokenizer.eos_token_id
        segment = {
            "token_ids": before + after,
            "sampled": [0] * len(before) + [1] * len(after),
            "sampler_logprobs": [0.0] * len(before + after),  # not used: `mismatch` is off
            "versions": [0] * len(before + after),
            "supports": None,
        }
        lines.append(
            {
                "step": row["step"],
                "task": row["task"],
                "index": i % settings.group_size,
                "seed": 0,
                "status": "ok" if ended else "truncated",
                "error": None,
                "environment_reward": None,
                "score": row["score"],
                "parts": {"reasoning-gym": row["score"]},
                "reason": None,
                "segments": [segment],
                "of": settings.batch,
            }
        )
    recorded = write(out / "replay/rollouts.jsonl", lines)
    settings = replace(settings, steps=max(row["step"] for row in rows), seed=seed)
    files = {"model": start, "data": str(out / "data/tasks.jsonl"), "replay": str(recorded)}
    result = run_side("posttrain", "grpo", settings, out / "replay/posttrain", **files)
    shutil.rmtree(out / "replay/posttrain/run/model", ignore_errors=True)
    return result


def _tokenizer(model: str) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model)


def report(out: Path, results: Results) -> None:
    results.save(out)
    (out / "learning.md").write_text(table(results))
    for name, picture in drawn(results).items():
        (out / f"{name}.svg").write_text(picture)
    print(table(results), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--out", type=Path, default=Path("runs/learning"))
    args = parser.parse_args()
    out: Path = args.out
    model = model_folder("smollm2-135m")
    write_sums(out / "data")
    results = Results(SFT.to_dict(), GRPO.to_dict(), compare_sft(out, model, SFT, list(SIDES)))
    report(out, results)
    start = make_start(out, model)
    results.start = evaluate(start, out / "start", out / "data/held-out.jsonl")
    for seed in args.seeds:
        results.seeds[seed] = run_seed(out, seed, GRPO, start)
        if results.replay is None:
            results.replay = replay(out, seed, GRPO, start)
        results.rewards_differ = rewards_that_differ(out, list(results.seeds))
        report(out, results)


if __name__ == "__main__":
    main()
