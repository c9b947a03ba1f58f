"""Does the quickstart's result hold on seeds that nobody tuned on, and does a random reward show no gain?

Runs the shipped recipe's SFT, GRPO and SFT-continued stages, and a GRPO arm with a coin for a reward, on fresh data and
run seeds, and prints the mean over seeds of each paired difference with a 95% t-interval over seeds.

    python benchmarks/quickstart_seeds.py --seeds 101 102 103 104 105 --out runs/seeds
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from pathlib import Path

import yaml

from posttrain.config import RunConfig
from posttrain.recipes.load import load_recipe
from posttrain.recipes.run import run_recipe

T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}
"""97.5% quantiles of Student's t by the number of seeds (degrees of freedom + 1)."""
CONTRASTS = (("sft", "start"), ("grpo", "sft"), ("grpo", "sft-continued"), ("random-reward", "sft"))
MEASURES = ("accuracy", "greedy", "pass@4")


def seed_recipe(seed: int) -> dict[str, object]:
    """The quickstart with data and runs of another seed, without DPO, with a random-reward arm."""
    recipe = load_recipe("quickstart").model_dump(mode="json")
    text = json.dumps(recipe).replace("seed=7&", f"seed={seed * 100_000}&")
    raw: dict[str, object] = json.loads(text)
    stages = raw["stages"]
    assert isinstance(stages, dict)
    coin = Path(__file__).with_name("random_reward.py").resolve()
    raw["stages"] = {
        "sft": stages["sft"],
        "grpo": stages["grpo"],
        "sft-continued": stages["sft-continued"],
        "random-reward": stages["grpo"] | {"reward": [f"{coin}:coin"]},
    }
    evaluate = raw["evaluate"]
    assert isinstance(evaluate, dict)
    raw["evaluate"] = evaluate | {"retention": False}
    raw["seed"] = seed
    return raw


def run_seed(seed: int, out: Path) -> dict[str, dict[str, float]]:
    """Run one seed (a finished stage is not run again) and return stage -> measure -> value."""
    out.mkdir(parents=True, exist_ok=True)
    file = out / f"recipe-{seed}.yaml"
    file.write_text(yaml.safe_dump(seed_recipe(seed), sort_keys=False))
    run_recipe(RunConfig(recipe=str(file), out=out / f"seed-{seed}"))
    comparison = json.loads((out / f"seed-{seed}" / "compare.json").read_text())
    return {
        stage: {m: result["evaluations"][m]["value"] for m in MEASURES}
        for stage, result in comparison["stages"].items()
    }


def mean_interval(values: list[float]) -> tuple[float, float, float]:
    """Mean with a 95% t-interval over seeds."""
    mean = statistics.fmean(values)
    half = T_95[len(values)] * statistics.stdev(values) / math.sqrt(len(values))
    return mean, mean - half, mean + half


def summarise(results: dict[int, dict[str, dict[str, float]]]) -> dict[str, dict[str, tuple[float, float, float]]]:
    """`of - against` -> measure -> (mean, low, high) over seeds, in points."""
    return {
        f"{of} - {against}": {
            m: mean_interval([100 * (stages[of][m] - stages[against][m]) for stages in results.values()])
            for m in MEASURES
        }
        for of, against in CONTRASTS
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[101, 102, 103, 104, 105])
    parser.add_argument("--out", type=Path, default=Path("runs/seeds"))
    args = parser.parse_args()
    results = {seed: run_seed(seed, args.out) for seed in args.seeds}
    for seed, stages in results.items():
        row = "  ".join(f"{stage} {100 * v['accuracy']:.1f}" for stage, v in stages.items())
        print(f"seed {seed}: accuracy % {row}")
    for contrast, measures in summarise(results).items():
        cells = "  ".join(f"{m} {v:+.1f} [{lo:.1f}, {hi:.1f}]" for m, (v, lo, hi) in measures.items())
        print(f"{contrast}: {cells}")


if __name__ == "__main__":
    main()
