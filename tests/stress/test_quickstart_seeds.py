"""The quickstart's claim on five seeds that were not used in tuning."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

SEEDS = (101, 102, 103, 104, 105)


@pytest.mark.stress
@pytest.mark.real_model
@pytest.mark.timeout(3 * 3600)
def test_grpo_learns_and_a_random_reward_does_not(tmp_path: Path) -> None:
    """GRPO is above its SFT start and above SFT continued in the mean of the seeds, with a t-interval above 0 on
    accuracy (mean over samples), and not below the SFT start on greedy and pass@4; a coin as reward shows no gain."""
    file = Path(__file__).parents[2] / "benchmarks" / "quickstart_seeds.py"
    spec = importlib.util.spec_from_file_location("quickstart_seeds", file)
    assert spec is not None
    assert spec.loader is not None
    seeds = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(seeds)
    contrasts = seeds.summarise({seed: seeds.run_seed(seed, tmp_path) for seed in SEEDS})
    print(contrasts)
    assert contrasts["sft - start"]["accuracy"][1] > 0
    assert contrasts["grpo - sft"]["accuracy"][1] > 0
    assert contrasts["grpo - sft-continued"]["accuracy"][1] > 0
    assert contrasts["grpo - sft"]["greedy"][0] >= 0
    assert contrasts["grpo - sft"]["pass@4"][0] >= 0
    assert contrasts["random-reward - sft"]["accuracy"][1] <= 0
