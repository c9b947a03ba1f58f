"""The reward model stage: what it learns, what it writes, and its gradient against a plain one."""

from __future__ import annotations

import json
import math
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from posttrain.batch.packing import response_tree
from posttrain.cli.main import main
from posttrain.config import RewardModelConfig
from posttrain.data.formats import load_preferences
from posttrain.models import load_model, load_reward_model
from posttrain.models.read import SCORES, read
from posttrain.selection import best_of_n, best_of_n_kl, expected_best, fit_gain
from posttrain.train.dataset_stage import Data
from posttrain.train.loop import make_policy
from posttrain.train.reward_model.data import Pair, encode_pairs, pair_trees, weighted
from posttrain.train.reward_model.pairs import RewardModel, pairs_method, train_reward_model
from posttrain.train.reward_model.validate import calibration, gold_errors, validation
from posttrain.types import InputError
from tests.training_helpers import WORDS, chatml, events, metrics, pair_rows, write_rows


def world(n: int, seed: int, noise: bool = True) -> list[dict[str, Any]]:
    """Responses whose worth is 3 times how often they say apple, less how often they say stone; labels are drawn by
    Bradley–Terry."""
    rng = np.random.default_rng(seed)
    rows = []
    while len(rows) < n:
        answers = [[WORDS[i] for i in rng.choice([0, 1, 2, 3], size=3)] for _ in range(2)]
        worth = [3.0 * (a.count("apple") - a.count("stone")) for a in answers]
        if worth[0] == worth[1]:
            continue
        first = rng.random() < 1 / (1 + math.exp(worth[1] - worth[0])) if noise else worth[0] > worth[1]
        order = (0, 1) if first else (1, 0)
        texts = [" ".join(answers[i]) for i in order]
        gold = [worth[i] for i in order]
        rows.append(
            {
                "prompt": f"Say {WORDS[len(rows) % 10]}",
                "chosen": texts[0],
                "rejected": texts[1],
                "chosen_score": gold[0],
                "rejected_score": gold[1],
            }
        )
    return rows


def settings(tmp_path: Path, rows: list[dict[str, Any]], **changes: Any) -> RewardModelConfig:
    data = write_rows(tmp_path / "pairs.jsonl", rows)
    given = {"model": "tiny-random", "data": str(data), "out": tmp_path / "rm", "batch_size": 4, **changes}
    return RewardModelConfig(**given)


def stage_of(config: RewardModelConfig) -> RewardModel:
    lm = load_model("tiny-random")
    lm.add_reward_head(2 if config.length_head else config.members, config.seed, saved=config.members)
    rows = load_preferences(config.data)
    pairs = encode_pairs(lm, rows, config.max_length, config.members).kept
    policy = make_policy(lm, config, 1e-4, 1)
    return RewardModel(config, pairs_method(config, rows), policy, Data(weighted(pairs, config), [], []), 1, 1024)


def gradients(stage: RewardModel) -> dict[str, torch.Tensor]:
    """Of the first step, before the optimizer takes it."""
    stage.gradient(stage.examples)
    return {name: p.grad.clone() for name, p in stage.policy.parameters.items() if p.grad is not None}


def test_the_gradient_is_the_plain_one_in_float64(tmp_path: Path) -> None:
    """Against transformers' classifier on single rows, with soft labels, margins and the centre loss, in float64."""
    labels = (1.0, 0.7, 0.3)
    given = zip(pair_rows(3), labels, (0.0, 0.1, 0.2), strict=True)
    rows = [{**row, "probability": p, "margin": m} for row, p, m in given]
    stage = stage_of(settings(tmp_path, rows, centre_coefficient=0.05))
    found = gradients(stage)
    stage.policy.lm.save(tmp_path / "start")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "start", dtype=torch.float64)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "start")
    total = torch.zeros((), dtype=torch.float64)
    for row in rows:
        better, worse = (
            model(input_ids=torch.tensor([chatml(tokenizer, row["prompt"], row[side])[0]])).logits[0, 0]
            for side in ("chosen", "rejected")
        )
        p, m = row["probability"], row["margin"]
        total = total + p * torch.log1p(torch.exp(worse - better + m)) + 0.05 * (better + worse) ** 2
        total = total + (1 - p) * torch.log1p(torch.exp(better - worse + m))
    (total / 3).backward()
    plain = {name: p.grad for name, p in model.named_parameters()}
    assert torch.allclose(found.pop("score_head.weight").double(), plain.pop("score.weight"), atol=1e-5)
    assert found.keys() == plain.keys()
    for name, slope in found.items():
        assert (slope.double() - plain[name]).norm() < 1e-4 * plain[name].norm(), name


@pytest.mark.parametrize("changes", [{"members": 3}, {"length_head": True}, {"length_balanced": True}])
def test_micro_batches_do_not_change_the_gradient(tmp_path: Path, changes: dict[str, Any]) -> None:
    rows = [{**row, "probability": 0.4 + 0.1 * i} for i, row in enumerate(pair_rows(7))]
    whole = gradients(stage_of(settings(tmp_path, rows, **changes)))
    split = gradients(stage_of(settings(tmp_path, rows, micro_batch_tokens=60, **changes)))
    assert whole.keys() == split.keys()
    for name, slope in whole.items():
        assert torch.allclose(slope, split[name], atol=1e-5, rtol=1e-3), name


def plain_scores(folder: Path, rows: list[dict[str, Any]], side: str) -> list[float]:
    """Mean over labels of transformers' classifier, each row alone."""
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    out = []
    for row in rows:
        ids = torch.tensor([chatml(tokenizer, row["prompt"], row[side])[0]])
        with torch.no_grad():
            out.append(float(model(input_ids=ids).logits.mean()))
    return out


def test_it_learns_a_bradley_terry_world(tmp_path: Path) -> None:
    """Above 90% on held-out pairs whose labels have no noise; the file of numbers is that of the model written."""
    held_out = world(100, seed=1, noise=False)
    config = settings(
        tmp_path,
        world(200, seed=0),
        batch_size=16,
        max_steps=16,
        learning_rate=2e-3,
        members=2,
        eval_data=str(write_rows(tmp_path / "held-out.jsonl", held_out)),
        eval_every=16,
    )
    train_reward_model(config)
    last = metrics(config.out)[-1]
    assert last["eval/accuracy"] > 0.9
    assert last["eval/accuracy_low"] < last["eval/accuracy"] <= last["eval/accuracy_high"]
    found = json.loads((config.out / "evaluations" / "reward_model.json").read_text())
    assert found["accuracy"]["value"] == pytest.approx(last["eval/accuracy"], abs=0.01)
    assert found["gold"]["correlation"] > 0.8 and found["gold"]["n"] == 200
    assert found["pairs"] == sum(bin_["right"]["n"] for bin_ in found["calibration"]["bins"]) == 100

    lm = load_reward_model(str(config.out))
    assert lm.reward_head.out_features == 2
    rows = held_out[:5]
    write_rows(tmp_path / "few.jsonl", rows)
    pairs = encode_pairs(lm, load_preferences(str(tmp_path / "few.jsonl")), 1024, 2).kept
    ours = torch.cat(list(read(lm, pair_trees(pairs), 4096, SCORES))).mean(1).reshape(-1, 2)
    for k, side in enumerate(("chosen", "rejected")):
        assert ours[:, k].tolist() == pytest.approx(plain_scores(config.out / "model", rows, side), abs=1e-4)


def test_a_length_head_takes_up_length(tmp_path: Path) -> None:
    """Labels that go by length alone: without the head the score follows length, with it far less. What is written has
    one score."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(80):
        short, more = rng.integers(1, 4), rng.integers(1, 4)
        texts = [" ".join(rng.choice(WORDS, k)) for k in (short + more, short)]
        rows.append({"prompt": f"Say {WORDS[i % 10]}", "chosen": texts[0], "rejected": texts[1]})
    held_out = str(write_rows(tmp_path / "held-out.jsonl", rows[40:]))
    found = {}
    for head in (False, True):
        config = settings(
            tmp_path,
            rows[:40],
            out=tmp_path / f"rm-{head}",
            batch_size=8,
            max_steps=12,
            learning_rate=2e-3,
            length_head=head,
            eval_data=held_out,
            eval_every=12,
        )
        train_reward_model(config)
        assert AutoModelForSequenceClassification.from_pretrained(config.out / "model").config.num_labels == 1
        found[head] = json.loads((config.out / "evaluations" / "reward_model.json").read_text())["length"]["score"]
    assert found[False] > 0.8
    assert abs(found[True]) < 0.5
    assert metrics(tmp_path / "rm-True")[-1]["length_head_correlation"] > 0.8


def test_early_stopping_keeps_the_best(tmp_path: Path) -> None:
    held_out = write_rows(tmp_path / "held-out.jsonl", world(20, seed=1))
    config = settings(
        tmp_path,
        world(8, seed=0),
        max_steps=60,
        learning_rate=3e-3,
        eval_data=str(held_out),
        eval_every=1,
        patience=3,
    )
    train_reward_model(config)
    (best,) = events(config.out, "best_step")
    losses = [row["eval/loss"] for row in metrics(config.out)]
    assert len(losses) == best["step"] + 3 < 60
    assert min(losses) == losses[best["step"] - 1] == best["objective"]
    before = {p: p.read_bytes() for p in config.out.rglob("*") if p.is_file()}
    train_reward_model(config.model_copy(update={"resume": True}))
    assert {p: p.read_bytes() for p in config.out.rglob("*") if p.is_file()} == before
    (config.out / "evaluations" / "reward_model.json").unlink()  # killed after the model was written
    train_reward_model(config.model_copy(update={"resume": True}))
    assert {p: p.read_bytes() for p in config.out.rglob("*") if p.is_file()} == before


def test_margins_come_from_the_data_and_must_be_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{**row, "margin": m} for row, m in zip(pair_rows(3), ("0.5", None, 2), strict=True)]
    lm = load_model("tiny-random")
    data = write_rows(tmp_path / "d.jsonl", rows)
    pairs = encode_pairs(lm, load_preferences(str(data)), 1024, 1).kept
    assert [pair.margin for pair in pairs] == [0.5, 0.0, 2.0]
    data = write_rows(tmp_path / "d.jsonl", [*rows, {**pair_rows(4)[3], "margin": "much"}])
    assert main(["reward-model", "--model", "tiny-random", "--data", str(data), "--out", str(tmp_path / "o")]) == 2
    assert "d.jsonl:4" in (message := capsys.readouterr().err) and "margin" in message
    assert not (tmp_path / "o").exists()


def test_a_reward_model_learns_how_likely_a_label_is(tmp_path: Path) -> None:
    """Eight pairs seen again and again: with labels of 60% and 40% the scores stop near ln 1.5 = 0.405 on either side,
    where the loss is the entropy of the labels. The held-out pairs are the same: of such labels a model agrees with
    60%, and is calibrated."""
    rows = [{**row, "probability": (0.6, 0.4)[i % 2]} for i, row in enumerate(pair_rows(8))]
    held_out = str(write_rows(tmp_path / "held-out.jsonl", rows))
    options = {"batch_size": 8, "max_steps": 15, "learning_rate": 2e-3, "eval_data": held_out, "eval_every": 15}
    config = settings(tmp_path, rows, **options)
    train_reward_model(config)
    (*_, last), entropy = metrics(config.out), -0.6 * math.log(0.6) - 0.4 * math.log(0.4)
    assert last["eval/loss"] == pytest.approx(entropy, abs=0.01) and last["eval/loss"] > entropy - 1e-6
    assert abs(last["eval/margin"]) < 0.2  # up for one half, down for the other
    assert last["eval/accuracy"] == pytest.approx(0.6)
    assert last["eval/accuracy_low"] < 0.6 < last["eval/accuracy_high"]
    found = json.loads((config.out / "evaluations" / "reward_model.json").read_text())
    assert found["accuracy"]["value"] == pytest.approx(0.6)
    assert found["calibration"]["error"] < 0.1


def test_a_column_of_certain_labels_changes_nothing(tmp_path: Path) -> None:
    for name, rows in (("with", [{**row, "probability": 1} for row in pair_rows(8)]), ("without", pair_rows(8))):
        held_out = str(write_rows(tmp_path / f"held-out-{name}.jsonl", rows))
        changes = {"out": tmp_path / name, "eval_data": held_out, "eval_every": 2, "max_steps": 4, "members": 2}
        train_reward_model(settings(tmp_path, rows, **changes))
    assert metrics(tmp_path / "with", timeless=True) == metrics(tmp_path / "without", timeless=True)
    for file in ("model/model.safetensors", "evaluations/reward_model.json"):
        assert (tmp_path / "with" / file).read_bytes() == (tmp_path / "without" / file).read_bytes()


def test_lengths_that_cannot_be_balanced_are_refused(tmp_path: Path) -> None:
    rows = [{"prompt": "Say it", "chosen": "a" * (2 + i), "rejected": "b"} for i in range(4)]
    with pytest.raises(InputError, match="same side in length"):
        train_reward_model(settings(tmp_path, rows, length_balanced=True))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"length_head": True, "members": 2}, "members 1"),
        ({"length_head": True, "length_balanced": True}, "choose one"),
        ({"length_head": True, "batch_size": 2}, "batch_size 4"),
    ],
)
def test_options_that_do_not_go_together(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        settings(tmp_path, pair_rows(2), **changes)


def test_calibration_by_hand() -> None:
    """σ(2) = 0.881 is in the eighth bin, right twice of three; σ(0.1) = 0.525 in the first, wrong."""
    found = calibration(np.array([2.0, 2.0, -2.0, -0.1]))
    sigma = [1 / (1 + math.exp(-0.1)), 1 / (1 + math.exp(-2))]
    assert [b["predicted"] for b in found["bins"]] == pytest.approx(sigma)
    assert [(b["right"]["value"], b["right"]["n"]) for b in found["bins"]] == [(0.0, 1), (pytest.approx(2 / 3), 3)]
    assert found["error"] == pytest.approx((sigma[0] - 0 + 3 * (sigma[1] - 2 / 3)) / 4)


def test_gold_errors() -> None:
    """Errors ±1 have m4/m2² = 1, an excess of −2; one large error among small ones is far above 0."""
    scores = np.array([0.0, 0.0, 1.0, 1.0])
    found = gold_errors(scores, 2 * scores + np.array([1.0, -1.0, 1.0, -1.0]))
    assert found["error_kurtosis"] == pytest.approx(-2) and found["error_std"] == pytest.approx(1)
    noise = np.zeros(200)
    noise[7] = 50.0
    heavy = gold_errors(np.arange(200.0), np.arange(200.0) + noise)
    assert heavy["error_kurtosis"] is not None and heavy["error_kurtosis"] > 50


def test_validation_counts_by_hand() -> None:
    pairs = [Pair((1,), ((1,) * a, (1,) * b)) for a, b in ((5, 2), (2, 5), (3, 3))]
    found = validation(pairs, np.array([[2.0, 1.0], [0.0, 1.0], [1.0, 1.0]]))
    assert (found["accuracy"]["value"], found["accuracy"]["n"]) == (pytest.approx(1 / 3), 3)
    assert (found["length"]["longer_chosen"]["value"], found["length"]["longer_chosen"]["n"]) == (0.5, 2)
    assert found["length"]["longer_scored_higher"]["value"] == 1.0
    assert found["gold"] is None


def test_soft_labels_are_counted_by_their_probability() -> None:
    """The first pair is ranked as chosen, the others the other way round: 0.9 + 0.4 + 0.5 of three. The longer one is
    chosen, by the labels, with 0.9, 1 − 0.6 and 0.5. Predictions are σ(1) three times, σ(1) − 0.6 = 0.131 too sure."""
    lengths, labels = ((5, 2), (2, 5), (6, 3)), (0.9, 0.6, 0.5)
    pairs = [Pair((1,), ((1,) * a, (1,) * b), probability=p) for (a, b), p in zip(lengths, labels, strict=True)]
    found = validation(pairs, np.array([[2.0, 1.0], [0.0, 1.0], [0.0, 1.0]]))
    assert (found["accuracy"]["value"], found["accuracy"]["n"]) == (pytest.approx(1.8 / 3), 3)
    assert found["accuracy"]["low"] < 0.6 < found["accuracy"]["high"]
    assert found["length"]["longer_chosen"]["value"] == pytest.approx((0.9 + 0.4 + 0.5) / 3)
    (bin_,) = found["calibration"]["bins"]
    assert bin_["right"]["value"] == pytest.approx(0.6)
    assert found["calibration"]["error"] == pytest.approx(1 / (1 + math.exp(-1)) - 0.6)


def test_prompts_and_responses_are_computed_once() -> None:
    """A prompt of 50 tokens and two responses that share their first 20: one forward pass over the forest."""
    lm = load_model("tiny-random")
    lm.add_reward_head(1, seed=0)
    lm.forwarded_tokens = 0
    prompt, common = tuple(range(3, 53)), tuple(range(60, 80))
    tree = response_tree(prompt, ((*common, 100, 2), (*common, 101, 102, 2)))
    list(read(lm, [tree], 4096, SCORES))
    assert lm.forwarded_tokens == 50 + 20 + 2 + 3


# -- how far it can be optimised --------------------------------------------------------------------------------------


def test_the_expected_best_is_the_mean_over_all_choices() -> None:
    rng = np.random.default_rng(0)
    by, values = rng.normal(size=(2, 3, 6))
    for n in range(1, 7):
        plain = [
            np.mean([v[max(c, key=lambda i: s[i])] for c in combinations(range(6), n)])
            for s, v in zip(by, values, strict=True)
        ]
        assert expected_best(by, values, n).tolist() == pytest.approx(plain)


def test_the_law_of_best_of_n_is_found_again() -> None:
    """Tilting a Gaussian answer by its proxy, KL = δ²/2, with gold = l − 0.3(l² − 1): its mean
    is exactly quadratic in d = √KL, √2 d − 0.6 d², so α = √2, β = 0.6 and d* = √2/1.2."""
    d = np.array([0.0, 0.4, 0.9, 1.7])
    shift = d * 2**0.5  # of the mean of a normal, at KL = shift²/2
    found = fit_gain(d.tolist(), (shift - 0.3 * shift**2).tolist())
    assert found == pytest.approx({"alpha": 2**0.5, "beta": 0.6, "peak": 2**0.5 / 1.2, "r2": 1.0})
    assert fit_gain([0.0, 1.0], [0.0, 1.0])["alpha"] is None
    assert fit_gain([0.0, 1.0, 2.0], [0.0, 1.0, 5.0])["peak"] is None  # it bends upwards
    assert best_of_n_kl(1) == 0.0 and best_of_n_kl(4) == pytest.approx(math.log(4) - 0.75)


def test_cross_scoring_tells_what_members_share_from_what_they_do_not() -> None:
    """Members whose errors are their own gain by others' scores what they have in common; members who are all error
    gain nothing by them, whatever they think themselves."""
    rng = np.random.default_rng(1)
    shared, own = rng.normal(size=(200, 16, 1)), rng.normal(size=(200, 16, 3))
    lengths = 50 + 10 * shared[..., 0]
    half, noise = best_of_n(shared + own, lengths), best_of_n(own, lengths)
    assert [point["n"] for point in half["curve"]] == [1, 2, 4, 8, 16]
    assert half["curve"][0]["own"] == pytest.approx(0.0) and half["curve"][0]["cross"]["value"] == pytest.approx(0.0)
    first, last = noise["curve"][1], noise["curve"][-1]
    assert first["own"] > 0.5 and last["own"] > 1.6 and last["cross"]["low"] < 0 < last["cross"]["high"]
    # the best of 16 normals is 1.766 on average; half of a member's variance is what they share
    assert half["curve"][-1]["own"] == pytest.approx(1.766, abs=0.08)
    assert half["curve"][-1]["cross"]["value"] == pytest.approx(1.766 / 2, abs=0.08)
    assert half["length"] == pytest.approx(math.sqrt(1 / (1 + 1 / 3)), abs=0.03)
    assert abs(noise["error_kurtosis"]) < 0.2
    heavy = best_of_n(rng.standard_t(3, size=(200, 16, 3)), lengths)
    assert heavy["error_kurtosis"] > 2
    # errors that are small are measured as well as large ones, and members that agree have none
    near, alike = best_of_n(shared + 1e-4 * own, lengths), best_of_n(np.repeat(shared, 3, axis=2), lengths)
    assert abs(near["error_kurtosis"]) < 0.2 and alike["error_kurtosis"] is None
    assert best_of_n(np.ones((4, 4, 3)), np.ones((4, 4)))["error_kurtosis"] is None


def test_the_curve_is_measured_on_answers_to_held_out_prompts(tmp_path: Path) -> None:
    held_out = write_rows(tmp_path / "held-out.jsonl", world(5, seed=1))
    given = {"eval_data": str(held_out), "eval_every": 100, "members": 3, "best_of": 4, "max_new_tokens": 5}
    config = settings(tmp_path, world(8, seed=0), **given)
    train_reward_model(config)
    found = json.loads((config.out / "evaluations" / "reward_model.json").read_text())["best_of_n"]
    assert (found["prompts"], found["samples"]) == (5, 4)
    assert [point["n"] for point in found["curve"]] == [1, 2, 4]
    assert found["curve"][-1]["own"] > found["curve"][1]["own"] > 0
    for changes in ({"members": 1}, {"best_of": 2}, {"eval_data": None, "eval_every": None}):
        with pytest.raises(ValueError, match="best_of needs"):
            settings(tmp_path, world(8, seed=0), **{**given, **changes})
    with pytest.raises(ValueError, match="policy is sampled from for best_of"):
        settings(tmp_path, world(8, seed=0), policy="tiny-random")
