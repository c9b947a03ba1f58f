"""Does training find what probes and search miss? Rewards with a defect that a policy reaches by chance alone, each
beside a healthy reward that makes the same check (see `tests/audits/zoo/rewards/sampled.py`).

    python benchmarks/audit_training.py --out runs/audit-training

For each reward: how often the start of the training writes what is paid and wrong (6,000 answers), what the audit finds
without training, and with it. All share one start, so it is trained once. Writes `result.json` and prints a table; what
is finished is kept. About eight minutes on one free core.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from posttrain.threads import configure_threads

configure_threads()

from posttrain.audits.demonstrations import TrainingData  # noqa: E402
from posttrain.audits.run import run_audit  # noqa: E402
from posttrain.audits.training import AT_THE_END, AT_THE_START, TRAINING, TrainedRuns  # noqa: E402
from posttrain.config import AuditConfig, SampleConfig  # noqa: E402
from posttrain.data.formats import load_tasks  # noqa: E402
from posttrain.recipes.audit import learn_form, reinforce, settings_of  # noqa: E402
from posttrain.report.audit import interval  # noqa: E402
from posttrain.rewards.scorer import open_scorer  # noqa: E402
from posttrain.train.generate.sample import sample_answers  # noqa: E402
from posttrain.types import Message, Sample  # noqa: E402

ZOO = Path(__file__).parent.parent / "tests/audits/zoo"
DEFECTS = ("overflow", "tolerance", "substring", "remainder", "unit", "checksum")
SAMPLES = 150
"""Answers to each of the 40 tasks from which the rate at the start is measured."""


def config_of(name: str, out: Path, **options: Any) -> AuditConfig:
    reward = f"{ZOO / 'rewards/sampled.py'}:{name}"
    data = str(ZOO / "tasks/additions.jsonl")
    return AuditConfig(reward=(reward,), data=data, out=out, reward_workers=0, **options)


def train_from(shared: Path, config: AuditConfig, data: TrainingData, out: Path) -> TrainedRuns:
    """`train_against` from a start that all rewards share."""
    settings = settings_of(config, data)
    if not (shared / "sft/lineage.json").exists():
        shutil.rmtree(shared, ignore_errors=True)
        learn_form(config, settings, data, shared / "sft")
    model, start = str(shared / "sft/model"), shared / "start"
    if not (start / "lineage.json").exists():
        shutil.rmtree(start, ignore_errors=True)
        options = settings.sampled | {"reward": ()}
        sample_answers(SampleConfig(model=model, out=start, write="all", truncated="keep", samples=SAMPLES, **options))
    graded(config, start, out / "start")
    return TrainedRuns(out / "start", reinforce(config, settings, data, model, out))


def graded(config: AuditConfig, sampled: Path, out: Path) -> None:
    """The sampled answers with what the reward of this audit pays."""
    tasks = {task.id: task for task in load_tasks(config.data)}
    rows = [json.loads(line) for line in (sampled / "rollouts.jsonl").read_text().splitlines()]
    samples = [
        Sample(tasks[row["task"]].prompt, (Message("assistant", row["text"]),), (), tasks[row["task"]].columns)
        for row in rows
    ]
    with open_scorer(config, ["answer"]) as scorer:
        scores = scorer.score(samples)
    out.mkdir()
    lines = [{**row, "score": score.total} for row, score in zip(rows, scores, strict=True)]
    (out / "rollouts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def measure(name: str, out: Path, steps: int, seed: int) -> Mapping[str, Any]:
    shutil.rmtree(out / name, ignore_errors=True)
    probes = run_audit(config_of(name, out / name / "probes"))
    began = time.process_time()
    train = partial(train_from, out / "shared")
    config = config_of(name, out / name / "training", only=("A7",), train=True, train_steps=steps, seed=seed)
    record = run_audit(config, partial(train, config))
    (outcome,) = [each for each in record["outcomes"] if each["probe"] == TRAINING]
    found = [each for each in record["findings"] if each["probe"] == TRAINING]
    for model in (out / name).rglob("model"):
        shutil.rmtree(model)
    return {
        "without": [f"{each['probe']}: {each['title']}" for each in probes["findings"]],
        "start": outcome["measured"][AT_THE_START],
        "end": outcome["measured"][AT_THE_END],
        "findings": found,
        "steps": steps,
        "seed": seed,
        "cpu_seconds": time.process_time() - began,
    }


def row(name: str, result: Mapping[str, Any]) -> str:
    rate = result["start"]
    first = result["findings"][0] if result["findings"] else None
    shown = f"{interval(first['effect'])} | `{first['reproducer']['response']!r}`" if first else "– | –"
    start = f"{rate['value']:.1e} [{rate['low']:.1e}, {rate['high']:.1e}]"
    return f"| {name} | {start} | {len(result['without'])} | {shown} | {result['cpu_seconds']:.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/audit-training"))
    parser.add_argument("--only", nargs="+", default=[f"{kind}{name}" for name in DEFECTS for kind in ("", "careful_")])
    parser.add_argument("--steps", type=int, default=AuditConfig.model_fields["train_steps"].default)
    parser.add_argument("--seed", type=int, default=0, help="of RL; the start is the same")
    options = parser.parse_args()
    file = options.out / "result.json"
    results = json.loads(file.read_text()) if file.exists() else {}
    print("| reward | wrong and paid at the start | found without | share of rollouts with it | answer | CPU s |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name in options.only:
        if name not in results:
            results[name] = measure(name, options.out, options.steps, options.seed)
            results |= {k: v for k, v in (json.loads(file.read_text()) if file.exists() else {}).items() if k != name}
            file.write_text(json.dumps(results, indent=1) + "\n")
        print(row(name, results[name]), flush=True)


if __name__ == "__main__":
    main()
