"""Training on every preference loss, against plain references and through the command line."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import logsigmoid

from posttrain.cli.main import main
from posttrain.config import DpoConfig
from posttrain.config.preference import LOSSES
from posttrain.data.formats import load_feedback
from posttrain.models import LanguageModel, load_model
from posttrain.rows import PreferenceRow, UnpairedRow
from posttrain.train.data_order import epoch_order
from posttrain.train.dpo.data import counts_of, encode_examples, example_trees, shuffled_for_kl
from posttrain.train.dpo.reference import MovingReference
from posttrain.train.dpo.stage import StepLoss, train_dpo
from posttrain.train.policy import LocalPolicy, Optimization
from posttrain.types import InputError
from tests.training_helpers import (
    chatml,
    events,
    mask_tensor,
    metrics,
    padded_logprobs,
    pair_rows,
    plain_model,
    sft_rows,
    write_rows,
)

LN2 = math.log(2)
START = {"sigmoid": LN2, "cdpo": LN2, "robust": LN2, "ipo": 25.0, "hinge": 1.0, "apo_zero": 1.0, "apo_down": 1.0}
"""Losses where policy and reference agree."""


def label_rows(n: int) -> list[dict[str, Any]]:
    return [{**row, "label": i % 3 != 1} for i, row in enumerate(sft_rows(n))]


def soft_rows(n: int) -> list[dict[str, Any]]:
    return [{**row, "probability": (1.0, 0.7, 0.3)[i % 3]} for i, row in enumerate(pair_rows(n))]


def run(tmp_path: Path, rows: list[dict[str, Any]], name: str = "run", **options: Any) -> Path:
    """Train tiny-random on the rows and return the run folder."""
    data = write_rows(tmp_path / "rows.jsonl", rows)
    out = tmp_path / name
    train_dpo(DpoConfig(**{"model": "tiny-random", "data": str(data), "out": out, **options}))
    return out


def token_logprobs(module: Any, tokenizer: Any, asked: list[tuple[str, str]]) -> list[torch.Tensor]:
    """The log-probability of each token of each answer, its end token included, by padded rows."""
    encoded = [chatml(tokenizer, prompt, answer) for prompt, answer in asked]
    masks = mask_tensor([mask for _, mask in encoded])
    with torch.no_grad():
        values = padded_logprobs(module, [ids for ids, _ in encoded])
    return [row[mask] for row, mask in zip(values, masks, strict=True)]


# -- through the command line -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", [name for name in LOSSES if name != "sft"])
def test_every_loss_trains_from_the_command_line(tmp_path: Path, loss: str) -> None:
    rows = label_rows(6) if LOSSES[loss].reads == "labels" else pair_rows(6)
    data, out = write_rows(tmp_path / "rows.jsonl", rows), tmp_path / "run"
    command = ["dpo", "--model", "tiny-random", "--data", str(data), "--out", str(out), "--loss", loss]
    assert main([*command, "--loss", "sft=0.2", "--batch-size", "3", "--learning-rate", "1e-4", "--keep", "1"]) == 0
    first, second = metrics(out)
    assert first["grad_norm"] > 0 and second["loss"] != first["loss"]
    assert (out / "reference").exists() == LOSSES[loss].reference
    assert (first["chosen_drift"] is None) == (not LOSSES[loss].reference)
    assert (first["dpo_weight"] is None) == (first["dpo_weight_p95"] is None) == (loss not in ("sigmoid", "cdpo"))
    if LOSSES[loss].reference:
        assert first["beta_kl"] == pytest.approx(0.0, abs=1e-6) and second["beta_kl"] > 0
        assert first["chosen_drift"] == pytest.approx(0.0, abs=1e-4) and abs(second["chosen_drift"]) > 1e-3


@pytest.mark.parametrize("loss", START)
def test_losses_begin_where_policy_and_reference_agree(tmp_path: Path, loss: str) -> None:
    first = metrics(run(tmp_path, pair_rows(4), loss=loss, batch_size=4))[0]
    assert first["loss"] == pytest.approx(START[loss], abs=1e-5)
    assert first["margin"] == pytest.approx(0.0, abs=1e-6)


# -- the same numbers as a plain form ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "rows"),
    [
        ({"loss": ("sigmoid", "sft=0.2"), "mask_formatting": True}, pair_rows(6)),
        ({"loss": "ipo"}, pair_rows(6)),
        ({"loss": "orpo"}, pair_rows(6)),
        ({"loss": "apo_down", "ld_alpha": 0.3}, pair_rows(6)),
        ({"loss": ("sigmoid", "ipo=0.5")}, soft_rows(6)),
        ({"loss": ("kto", "sft"), "undesirable_weight": 1.5}, label_rows(9)),
    ],
)
def test_micro_batches_never_change_the_gradient(
    tmp_path: Path, options: dict[str, Any], rows: list[dict[str, Any]]
) -> None:
    config = DpoConfig(model="tiny-random", data="d", out=tmp_path, **options)
    single = "kto" in config.loss
    data = load_feedback(str(write_rows(tmp_path / "rows.jsonl", rows)))
    gradients, losses = [], []
    for budget in (1, 120, 1 << 20):
        lm = load_model("tiny-random")
        policy = LocalPolicy(lm, Optimization(1e-3), budget)
        examples = encode_examples(lm, data, 256, single=single, mask_formatting=config.mask_formatting).kept
        reference = [
            tuple(v - 0.3 * (i % 3) for v in t) for i, t in enumerate(policy.logprobs(example_trees(examples)))
        ]
        loss = StepLoss(config.terms(), counts_of(examples), baseline=0.2)
        found = policy.forward_backward(example_trees(examples, reference, config.ld_alpha), loss)
        assert ("dpo_weight" in loss.weights()) == ("sigmoid" in config.loss)
        weights = loss.weights().values()
        losses.append([*map(float, (*(found[name] for name in ("loss", "margin", "accuracy", "beta_kl")), *weights))])
        gradients.append(torch.cat([p.grad.flatten() for p in policy.parameters.values() if p.grad is not None]))
    for other, values in zip(gradients[1:], losses[1:], strict=True):
        assert float((other - gradients[0]).norm() / gradients[0].norm()) < 1e-4
        assert values == pytest.approx(losses[0], rel=1e-4, abs=1e-6)


def test_a_step_of_length_desensitised_dpo_with_nll_equals_a_plain_form(tmp_path: Path) -> None:
    """Second step, so that policy and reference differ. Tokens beyond the shorter response count α = 0.4 in both; end
    tokens are left out everywhere; NLL is the mean per token of the chosen responses."""
    rows = pair_rows(6)
    options = {"loss": ("sigmoid", "sft=0.2"), "ld_alpha": 0.4, "mask_formatting": True, "batch_size": 6}
    second = metrics(run(tmp_path, rows, "two", max_steps=2, learning_rate=1e-4, **options))[1]
    one = run(tmp_path, rows, "one", max_steps=1, learning_rate=1e-4, **options)

    def responses(module: Any, tokenizer: Any, side: str) -> list[torch.Tensor]:
        return [v[:-1] for v in token_logprobs(module, tokenizer, [(row["prompt"], row[side]) for row in rows])]

    models = {name: plain_model(where) for name, where in (("policy", one), ("reference", "tiny-random"))}
    found = {(m, side): responses(*models[m], side) for m in models for side in ("chosen", "rejected")}
    expected = 0.0
    margins = []
    for chosen, rejected, ref_chosen, ref_rejected in zip(
        found["policy", "chosen"],
        found["policy", "rejected"],
        found["reference", "chosen"],
        found["reference", "rejected"],
        strict=True,
    ):
        shared = min(len(chosen), len(rejected))
        scores = [
            float((p - q)[:shared].sum() + 0.4 * (p - q)[shared:].sum())
            for p, q in ((chosen, ref_chosen), (rejected, ref_rejected))
        ]
        margins.append(0.1 * (scores[0] - scores[1]))
        expected += -float(logsigmoid(torch.tensor(margins[-1]))) - 0.2 * float(chosen.mean())
    assert second["loss"] == pytest.approx(expected / len(rows), abs=1e-4)
    weights = 1 / (1 + np.exp(margins))
    assert second["dpo_weight"] == pytest.approx(weights.mean(), abs=1e-5)
    assert second["dpo_weight_p95"] == pytest.approx(np.percentile(weights, 95), abs=1e-5)
    assert second["dpo_weight_p95"] > second["dpo_weight"] + 1e-4
    assert second["chosen_logprob"] == pytest.approx(
        float(sum(v.sum() for v in found["policy", "chosen"])) / 6, rel=1e-4
    )


def test_a_step_of_kto_equals_a_plain_form(tmp_path: Path) -> None:
    """Second step of one batch: each prompt with the response of the next row gives the baseline."""
    rows = label_rows(7)
    options = {"loss": "kto", "beta": 0.2, "desirable_weight": 1.3, "batch_size": 7, "learning_rate": 1e-4}
    second = metrics(run(tmp_path, rows, "two", max_steps=2, **options))[1]
    one = run(tmp_path, rows, "one", max_steps=1, **options)
    step = [rows[i] for i in epoch_order(7, 0, 1)]
    own = [(row["prompt"], row["completion"]) for row in step]
    crossed = [(row["prompt"], other["completion"]) for row, other in zip(step, step[1:] + step[:1], strict=True)]
    policy, reference = plain_model(one), plain_model("tiny-random")

    def ratios(asked: list[tuple[str, str]]) -> list[float]:
        pairs = zip(token_logprobs(*policy, asked), token_logprobs(*reference, asked), strict=True)
        return [float(p.sum() - q.sum()) for p, q in pairs]

    baseline = max(0.0, sum(ratios(crossed)) / 7)
    margins = [0.2 * (r - baseline) for r in ratios(own)]
    losses = [
        1.3 * (1 - 1 / (1 + math.exp(-m))) if row["label"] else 1 - 1 / (1 + math.exp(m))
        for m, row in zip(margins, step, strict=True)
    ]
    assert second["baseline"] == pytest.approx(baseline, abs=1e-3)
    assert second["loss"] == pytest.approx(sum(losses) / 7, abs=1e-4)
    right = [(m > 0) == row["label"] for m, row in zip(margins, step, strict=True)]
    assert second["accuracy"] == pytest.approx(sum(right) / 7)


def test_mismatched_pairs_never_share_a_prompt(tiny: LanguageModel) -> None:
    rows = [UnpairedRow(f"f:{i}", prompt, f"answer {i}", True) for i, prompt in enumerate(["a", "a", "b"])]
    examples = encode_examples(tiny, rows, 200, single=True).kept
    others = shuffled_for_kl(examples, 200)
    assert [e.key for e in others] == ["0+2", "1+2", "2+0"]
    assert others[0].prompt_ids == examples[0].prompt_ids and others[0].responses == examples[2].responses
    assert shuffled_for_kl(examples[:2], 200) == []
    short = shuffled_for_kl(examples, len(examples[0].prompt_ids) + 2)
    assert short[0].responses == (examples[2].responses[0][:2],)


def test_masked_formatting_leaves_out_the_end_token_alone(tiny: LanguageModel) -> None:
    row = PreferenceRow("f:1", "q", "yes", "no way")
    (whole,) = encode_examples(tiny, [row], 200, single=False).kept
    (masked,) = encode_examples(tiny, [row], 200, single=False, mask_formatting=True).kept
    assert [ids[-1] for ids in whole.responses] == [tiny.chat.turn_end] * 2
    assert masked.responses == tuple(ids[:-1] for ids in whole.responses)
    with pytest.raises(InputError, match=r"f:1: a response is empty and --mask-formatting"):
        encode_examples(tiny, [PreferenceRow("f:1", "q", "", "no")], 200, single=False, mask_formatting=True)


# -- data -------------------------------------------------------------------------------------------------------------


def test_kto_takes_pairs_apart_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = run(tmp_path, pair_rows(4), loss="kto", batch_size=8)
    assert events(out, "pairs_split") == [{"event": "pairs_split", "pairs": 4, "responses": 8}]
    assert "4 pairs became 4 good and 4 bad ones" in capsys.readouterr().err
    assert len(metrics(out)) == 1


def test_labelled_rows_do_not_fit_a_loss_on_pairs(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"rows\.jsonl:1: posttrain dpo needs 'chosen' .* fit posttrain dpo --loss kto"
    ):
        run(tmp_path, label_rows(3))
    assert not (tmp_path / "run").exists()


def test_a_step_without_bad_responses_has_no_margin(tmp_path: Path) -> None:
    rows = [{**row, "label": True} for row in sft_rows(3)]
    (row,) = metrics(run(tmp_path, rows, loss="kto", batch_size=3))
    assert row["margin"] is None and row["rejected_reward"] is None and row["chosen_reward"] is not None


@pytest.mark.parametrize(("loss", "named"), [("kto", "kto"), (("sigmoid", "sft=0.2"), "sft")])
def test_losses_on_single_answers_refuse_labels_that_may_be_wrong(
    tmp_path: Path, loss: str | tuple[str, ...], named: str
) -> None:
    said = rf"rows\.jsonl:2: the label has the probability 0\.7, and loss '{named}' takes labels as certain"
    with pytest.raises(InputError, match=said):
        run(tmp_path, soft_rows(3), loss=loss)
    held_out = write_rows(tmp_path / "held-out.jsonl", soft_rows(3))
    with pytest.raises(InputError, match=r"held-out\.jsonl:2: the label has the probability 0\.7"):
        run(tmp_path, pair_rows(3), loss=loss, eval_data=str(held_out), eval_every=1)
    assert not (tmp_path / "run").exists()


def test_one_probability_for_all_rows_trains_as_label_smoothing(tmp_path: Path) -> None:
    options = {"batch_size": 3, "max_steps": 3, "learning_rate": 1e-4, "micro_batch_tokens": 100}
    plain = metrics(run(tmp_path, pair_rows(6), "smooth", loss="cdpo", label_smoothing=0.25, **options), timeless=True)
    rows = [{**row, "probability": 0.75} for row in pair_rows(6)]
    soft = metrics(run(tmp_path, rows, "soft", **options), timeless=True)
    for one, other in zip(plain, soft, strict=True):
        accuracy = one.pop("accuracy")
        assert other.pop("accuracy") == pytest.approx(0.25 + 0.5 * accuracy, abs=1e-6)
        assert other == pytest.approx(one, rel=1e-4, abs=1e-5)
    certain = [{**row, "probability": 1} for row in pair_rows(6)]
    one, other = (
        metrics(run(tmp_path, given, name, **options), timeless=True)
        for given, name in ((certain, "certain"), (pair_rows(6), "without"))
    )
    assert one == other and one != soft


# -- held-out data ----------------------------------------------------------------------------------------------------


def test_over_fitting_shows_as_a_gap_in_accuracy(tmp_path: Path) -> None:
    """Held-out pairs are the training pairs the wrong way round: learning the ones is unlearning the others."""
    turned = [{"prompt": r["prompt"], "chosen": r["rejected"], "rejected": r["chosen"]} for r in pair_rows(4)]
    held_out = write_rows(tmp_path / "held-out.jsonl", turned)
    options = {"eval_data": str(held_out), "eval_every": 4, "patience": 1, "max_steps": 40, "learning_rate": 1e-4}
    out = run(tmp_path, pair_rows(4), batch_size=4, **options)
    judged = [row for row in metrics(out) if "eval/accuracy" in row]
    assert [row["step"] for row in judged] == [4, 8]  # the held-out loss only rises, so the second look stops the run
    assert judged[0]["eval/accuracy"] == 0.0 and judged[0]["eval/train_accuracy"] == 1.0
    assert judged[0]["eval/accuracy_gap"] == 1.0
    assert events(out, "best_step")[0]["step"] == 4


def test_kto_is_judged_on_held_out_responses(tmp_path: Path) -> None:
    held_out = write_rows(tmp_path / "held-out.jsonl", label_rows(5))
    options = {"eval_data": str(held_out), "eval_every": 2, "max_steps": 2, "learning_rate": 1e-12}
    row = metrics(run(tmp_path, label_rows(6), loss="kto", batch_size=3, **options))[-1]
    assert row["eval/loss"] == pytest.approx(0.5, abs=1e-4)
    assert 0 <= row["eval/train_accuracy"] <= 1


# -- a reference that follows -----------------------------------------------------------------------------------------


def test_a_reference_that_follows_every_step_is_always_the_policy(tmp_path: Path) -> None:
    rows = metrics(run(tmp_path, pair_rows(4), batch_size=4, max_steps=4, learning_rate=1e-4, reference_every=1))
    assert [row["loss"] for row in rows] == pytest.approx([LN2] * 4, abs=1e-5)
    assert rows[-1]["chosen_logprob"] != pytest.approx(rows[0]["chosen_logprob"], abs=0.1)
    kept = metrics(run(tmp_path, pair_rows(4), "kept", batch_size=4, max_steps=4, learning_rate=1e-4))
    assert kept[-1]["loss"] < LN2 - 0.05


@pytest.mark.parametrize("lora", [0, 4])
def test_a_reference_moves_after_every_so_many_steps(tmp_path: Path, lora: int) -> None:
    options = {"batch_size": 4, "max_steps": 6, "learning_rate": 1e-4, "lora_rank": lora, "reference_every": 3}
    rows = metrics(run(tmp_path, pair_rows(4), **options))
    at_reference = [row["beta_kl"] < 1e-6 for row in rows]
    assert at_reference == [True, False, False, True, False, False]


def test_a_soft_update_mixes_the_weights() -> None:
    lm = load_model("tiny-random")
    policy = LocalPolicy(lm, Optimization(1e-3), 1000)
    start = {name: p.detach().clone() for name, p in policy.parameters.items()}
    reference = MovingReference(policy, every=2, mix=0.25)
    with torch.no_grad():
        for parameter in policy.parameters.values():
            parameter += 1.0
    reference.follow(1)
    assert all(torch.equal(reference.reference.weights[name], start[name]) for name in start)
    reference.follow(2)
    moved = policy.parameters
    assert all(
        torch.allclose(reference.reference.weights[n], 0.75 * start[n] + 0.25 * moved[n], atol=1e-6) for n in start
    )
    MovingReference(policy, every=1, mix=1.0).follow(1)
    before = {name: p.detach().clone() for name, p in moved.items()}
    examples = encode_examples(lm, [PreferenceRow("f:1", "q", "yes", "no")], 100, single=False).kept
    hard = MovingReference(policy, every=1, mix=1.0)
    hard.follow(1)
    for one, other in zip(hard.logprobs(examples), policy.logprobs(example_trees(examples)), strict=True):
        assert one.tolist() == other.tolist()
    reference.logprobs(examples)
    assert all(torch.equal(policy.parameters[name], before[name]) for name in before)  # back in place
