"""What protects a reward model, on the toys of `benchmarks/reward_model_toys.py`: where it helps, and where it does
not. Differences are paired by seed; the benchmark's own table has more seeds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from posttrain.stats import Estimate, paired_bootstrap
from tests.training_helpers import benchmark_module

SEEDS = 8
FEW = 4
"""Seeds where runs differ little."""


@pytest.fixture(scope="module")
def gain() -> Callable[[str, str], Estimate]:
    """The gain of a way over the first of its toy, each toy run once."""
    toys = benchmark_module("reward_model_toys").TOYS
    done: dict[str, list[dict[str, float]]] = {}

    def of(toy: str, way: str) -> Estimate:
        if toy not in done:
            done[toy] = [toys[toy](seed) for seed in range(SEEDS if "a fifth" in toy else FEW)]
        return paired_bootstrap(
            [run[way] for run in done[toy]], [next(iter(run.values())) for run in done[toy]], seed=0
        )

    return of


def test_an_ensemble_is_worth_it_where_answers_are_unlike_the_pairs(gain: Callable[..., Any]) -> None:
    strange = "ensembles, a fifth of the answers strange"
    least, penalised = gain(strange, "least of 5"), gain(strange, "mean − variance")
    assert penalised["low"] > least["value"] and least["low"] > 0 and penalised["low"] > 2


def test_an_ensemble_is_worth_nothing_where_they_are_alike(gain: Callable[..., Any]) -> None:
    for way in ("least of 5", "mean − variance"):
        assert abs(gain("ensembles, no strange answers", way)["value"]) < 0.4


def test_length_is_taken_out_where_labels_alone_pay_for_it(gain: Callable[..., Any]) -> None:
    toy = "length, paid for by labels alone"
    assert gain(toy, "ODIN")["low"] > 0.8 and gain(toy, "length-balanced pairs")["low"] > 0.4


def test_taking_length_out_costs_where_it_is_worth_something(gain: Callable[..., Any]) -> None:
    toy = "length, truly worth something"
    assert gain(toy, "ODIN")["high"] < -0.5 and gain(toy, "length-balanced pairs")["high"] < 0
    for way in ("ODIN", "length-balanced pairs"):
        assert abs(gain("length, paid for by nobody", way)["value"]) < 0.1


def test_adversarial_rounds_help_where_the_policy_has_an_exploit(gain: Callable[..., Any]) -> None:
    toy = "adversarial, a fifth of the policy's answers strange"
    assert gain(toy, "after one round")["low"] > 0 and gain(toy, "after two rounds")["low"] > 0


def test_adversarial_rounds_cost_a_little_where_it_has_none(gain: Callable[..., Any]) -> None:
    found = gain("adversarial, no strange answers", "after two rounds")
    assert -1 < found["value"] < 0.1
