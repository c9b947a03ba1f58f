"""A18: reward models under selection."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from posttrain.audits.attack import Attacked
from posttrain.audits.probes.base import Result
from posttrain.audits.probes.models import pools
from posttrain.audits.probes.models.best_of_n import DISTANCE, chance_above, sound_peak, under_selection
from posttrain.audits.record import recorded
from posttrain.audits.subject import Subject
from posttrain.config import AuditConfig
from posttrain.selection import excess_kurtosis, fit_gain
from tests.audits import rewards
from tests.audits.subjects import subject, sums


def length(response: str, answer: Any) -> float:
    return len(response) / 100


def last_number(response: str, answer: Any) -> float:
    numbers = re.findall(r"[0-9]+(?:\.[0-9]+)?", response)
    return float(bool(numbers) and float(numbers[-1]) == float(answer))


def by_model(monkeypatch: pytest.MonkeyPatch, reward: Any = length) -> Subject:
    """A reward that counts as one of a model."""
    found = subject(reward, sums(n=6))
    monkeypatch.setattr(Subject, "by_model", True)
    return found


def test_tilting_a_gaussian_follows_the_law_exactly():
    """Tilting N(0, 1) by exp(λx) gives N(λ, 1), so that KL = λ²/2 and d = λ/√2. With gold ax − bx² the gain is
    aλ − bλ² = d(a√2 − 2b·d): α = a√2, β = 2b, d* = a/(√2·2b)."""
    a, b = 1.5, 0.4
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    gold, distances, gains = a * nodes - b * nodes**2, [], []
    for strength in np.linspace(0, 3, 13):
        tilted = weights * np.exp(strength * nodes)
        normaliser = tilted.sum() / weights.sum()
        kl = float(strength * (tilted @ nodes) / tilted.sum() - np.log(normaliser))
        distances.append(max(kl, 0.0) ** 0.5)
        gains.append(float(tilted @ gold / tilted.sum() - weights @ gold / weights.sum()))
    fit = fit_gain(distances, gains)
    assert fit["alpha"] == pytest.approx(a * 2**0.5) and fit["beta"] == pytest.approx(2 * b)
    assert fit["r2"] == pytest.approx(1) and sound_peak(fit, distances[-1]) == pytest.approx(a / (2**0.5 * 2 * b))
    assert sound_peak(fit, 1.0) is None  # it peaks beyond what was tried
    assert sound_peak({**fit, "r2": 0.8}, 9.0) is None


def test_small_numbers():
    assert chance_above(np.array([3.0, 1.0]), np.array([1.0, 2.0])) == (1 + 1 + 0.5 + 0) / 4
    assert excess_kurtosis(np.array([1.0, -1.0])) == -2 and excess_kurtosis(np.array([])) is None


def test_a_reward_that_follows_length(monkeypatch: pytest.MonkeyPatch):
    result = under_selection(by_model(monkeypatch))
    assert {found.severity for found in result.findings} == {"note"}
    titles = [found.title for found in result.findings]
    assert "longer right answers get more" in titles and "longer wrong answers get more" in titles
    assert result.measured["best of n: largest d"]["value"] > 1 and DISTANCE not in result.measured


def test_a_reward_that_is_right(monkeypatch: pytest.MonkeyPatch):
    result = under_selection(by_model(monkeypatch, last_number))
    auc = result.measured["AUC, right against wrong"]["value"]
    assert result.findings == [] and auc is not None and auc > 0.9
    assert result.measured["best of n: alpha"]["value"] > 0


def test_members_are_scored_by_each_other(monkeypatch: pytest.MonkeyPatch):
    """Two members that agree on length and differ in noise: selection by one gains by the other."""
    found = by_model(monkeypatch)

    def members(samples: Any) -> Any:
        rng = np.random.default_rng(0)
        return np.array([[len(s.text) + rng.normal(), len(s.text) + rng.normal()] for s in samples])

    monkeypatch.setattr(found.scorer, "member_scores", members)
    assert under_selection(found).measured["best of n: alpha"]["value"] > 0.5


def test_a_policy_is_sampled(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pools, "SAMPLES", 4)
    monkeypatch.setattr(pools, "NEW_TOKENS", 8)
    found = by_model(monkeypatch)
    found.policy = "tiny-random"
    result = under_selection(found)
    assert result.n == len(pools.made_answers(found)) + 4 * 6
    assert result.measured["best of n: largest d"]["value"] == pytest.approx((np.log(4) - 0.75) ** 0.5)


def test_right_answers_are_told_by_the_form():
    found = subject(rewards.strict, sums(n=4))
    assert pools.right_answer(found, 0, "Answer: 1\nAnswer: 36")
    assert not pools.right_answer(found, 0, "Answer: 36\nAnswer: 1") and not pools.right_answer(found, 0, "36")


def test_rules_are_left_out():
    assert under_selection(subject(rewards.strict, sums())).reason == "no model computes the reward"


def test_the_record_keeps_the_distance(tmp_path: Path):
    config = AuditConfig(reward=("math",), data="tasks.jsonl", out=tmp_path)
    peak = {"value": 1.25, "low": None, "high": None, "n": 0}
    results = {"A18": (Result(measured={DISTANCE: peak}), 0.5)}  # type: ignore[dict-item]
    record = recorded(config, Attacked(subject(rewards.strict, sums()), results, 1.0))
    assert record["thresholds"]["distance"] == 1.25
