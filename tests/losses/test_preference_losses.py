"""Preference losses against plain Python in float64, values worked out by hand and gradients in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from posttrain.config import DpoConfig
from posttrain.config.preference import LOSSES, Term
from posttrain.losses.preference import (
    FUNCTIONS,
    Counts,
    Responses,
    agreement,
    apo_down,
    apo_zero,
    dpo_weights,
    hinge,
    ipo,
    kto,
    kto_baseline,
    orpo,
    robust,
    sft,
    sigmoid,
    simpo,
    step_loss,
    step_metrics,
)

SCORES = [(-0.7, -2.1), (-3.0, -0.4), (-1.3, -1.2), (-0.02, -9.0), (-8.0, -0.05)]
"""Scores of chosen and rejected; all below 0, so that they may be log-probabilities too."""


def tensor(*values: float, grad: bool = False) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=grad)


def s(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def slope(x: float) -> float:
    """σ'(x)."""
    return s(x) * (1 - s(x))


def gradient(loss: torch.Tensor, *of: torch.Tensor) -> list[list[float]]:
    return [g.tolist() for g in torch.autograd.grad(loss, of)]


def log_odds(x: float) -> float:
    p = math.exp(x)
    return math.log(p / (1 - p))


def conservative(c: float, r: float, beta: float, e: float) -> tuple[float, float, float]:
    m = beta * (c - r)
    g = -beta * ((1 - e) * s(-m) - e * s(m))
    return (1 - e) * math.log(1 + math.exp(-m)) + e * math.log(1 + math.exp(m)), g, -g


def robust_plain(c: float, r: float, beta: float, e: float) -> tuple[float, float, float]:
    m = beta * (c - r)
    g = -beta * ((1 - e) * s(-m) + e * s(m)) / (1 - 2 * e)
    return (-(1 - e) * math.log(s(m)) + e * math.log(s(-m))) / (1 - 2 * e), g, -g


def orpo_plain(c: float, r: float, weight: float) -> tuple[float, float, float]:
    apart = log_odds(c) - log_odds(r)
    pull = weight * s(-apart)
    return -c - weight * math.log(s(apart)), -1 - pull / (1 - math.exp(c)), pull / (1 - math.exp(r))


# Each gives the loss of a pair and its derivatives by the chosen and by the rejected score, written from the papers.
PLAIN: dict[str, tuple[Callable[..., torch.Tensor], dict[str, float], Callable[[float, float], tuple[float, ...]]]] = {
    "sigmoid": (sigmoid, {"beta": 0.3}, lambda c, r: conservative(c, r, 0.3, 0.0)),
    "cdpo": (sigmoid, {"beta": 0.5, "label_smoothing": 0.2}, lambda c, r: conservative(c, r, 0.5, 0.2)),
    "robust": (robust, {"beta": 0.5, "label_smoothing": 0.2}, lambda c, r: robust_plain(c, r, 0.5, 0.2)),
    "ipo": (
        ipo,
        {"beta": 0.25},
        lambda c, r: ((c - r - 2) ** 2, 2 * (c - r - 2), -2 * (c - r - 2)),
    ),
    "hinge": (
        hinge,
        {"beta": 0.5},
        lambda c, r: (max(0.0, 1 - 0.5 * (c - r)), *((-0.5, 0.5) if 0.5 * (c - r) < 1 else (0.0, 0.0))),
    ),
    "simpo": (
        simpo,
        {"beta": 2.0, "gamma": 0.8},
        lambda c, r: (-math.log(s(2 * (c - r) - 0.8)), -2 * s(0.8 - 2 * (c - r)), 2 * s(0.8 - 2 * (c - r))),
    ),
    "orpo": (orpo, {"beta": 0.4}, lambda c, r: orpo_plain(c, r, 0.4)),
    "apo_zero": (
        apo_zero,
        {"beta": 0.5},
        lambda c, r: (1 - s(0.5 * c) + s(0.5 * r), -0.5 * slope(0.5 * c), 0.5 * slope(0.5 * r)),
    ),
    "apo_down": (
        apo_down,
        {"beta": 0.5},
        lambda c, r: (
            s(0.5 * c) + 1 - s(0.5 * (c - r)),
            0.5 * slope(0.5 * c) - 0.5 * slope(0.5 * (c - r)),
            0.5 * slope(0.5 * (c - r)),
        ),
    ),
}


def test_every_loss_is_in_the_table_and_in_a_test() -> None:
    assert set(FUNCTIONS) == set(LOSSES) == {*PLAIN, "kto", "sft"}


@pytest.mark.parametrize("name", PLAIN)
def test_value_and_gradient_equal_plain_python(name: str) -> None:
    loss, numbers, plain = PLAIN[name]
    chosen = tensor(*(c for c, _ in SCORES), grad=True)
    rejected = tensor(*(r for _, r in SCORES), grad=True)
    values = loss(chosen, rejected, **numbers)
    expected = [plain(c, r) for c, r in SCORES]
    assert values.tolist() == pytest.approx([v for v, _, _ in expected], rel=1e-12, abs=1e-12)
    of_chosen, of_rejected = gradient(values.sum(), chosen, rejected)
    assert of_chosen == pytest.approx([g for _, g, _ in expected], rel=1e-9, abs=1e-12)
    assert of_rejected == pytest.approx([g for _, _, g in expected], rel=1e-9, abs=1e-12)


def test_kto_equals_plain_python() -> None:
    """λ_D σ(−β(s − z)) and λ_U σ(β(s − z)), with derivatives −λ_D β σ' and λ_U β σ'."""
    scores = tensor(1.5, -2.0, 0.3, 4.0, grad=True)
    good = torch.tensor([True, True, False, False])
    values = kto(scores, good, 0.7, beta=0.5, desirable_weight=1.3, undesirable_weight=0.6)
    expected = [1.3 * (1 - s(0.4)), 1.3 * (1 - s(-1.35)), 0.6 * (1 - s(0.2)), 0.6 * (1 - s(-1.65))]
    assert values.tolist() == pytest.approx(expected, rel=1e-12)
    slopes = [-1.3 * 0.5 * slope(0.4), -1.3 * 0.5 * slope(1.35), 0.6 * 0.5 * slope(0.2), 0.6 * 0.5 * slope(1.65)]
    assert gradient(values.sum(), scores)[0] == pytest.approx(slopes, rel=1e-12)


def test_kto_baseline_is_a_mean_that_is_never_negative() -> None:
    assert kto_baseline(tensor(3.0, -1.0, 1.0)) == 1.0
    assert kto_baseline(tensor(-3.0, 1.0)) == 0.0


def test_sft_is_the_mean_negative_log_likelihood() -> None:
    chosen = tensor(-2.0, -0.5, grad=True)
    assert sft(chosen).tolist() == [2.0, 0.5]
    assert gradient(sft(chosen).sum(), chosen) == [[-1.0, -1.0]]


def test_values_where_policy_and_reference_agree() -> None:
    """All scores 0: σ(0) = ½, −log σ(0) = ln 2, (0 − 1/(2·0.1))² = 25."""
    zero = tensor(0.0)
    ln2 = math.log(2)
    assert sigmoid(zero, zero, beta=0.3, label_smoothing=0.1).item() == pytest.approx(ln2)
    assert robust(zero, zero, beta=0.3, label_smoothing=0.1).item() == pytest.approx(ln2)
    assert ipo(zero, zero, beta=0.1).item() == pytest.approx(25.0)
    assert hinge(zero, zero, beta=0.1).item() == 1.0
    assert apo_zero(zero, zero, beta=0.1).item() == 1.0
    assert apo_down(zero, zero, beta=0.1).item() == 1.0


def test_dpo_value_by_hand() -> None:
    """β = 0.5, scores 2 and −1 (m = 1.5), then −1 and 1 (m = −1): ln(1 + e^−1.5) = 0.201413, ln(1 + e) = 1.313262."""
    values = sigmoid(tensor(2.0, -1.0), tensor(-1.0, 1.0), beta=0.5)
    assert values.tolist() == pytest.approx([0.201413, 1.313262], abs=1e-6)


def test_a_smoothed_margin_has_a_best_value() -> None:
    """The gradient vanishes where σ(m) = 1 − ε: at ln 4 for ε = 0.2. Beyond it the margin is pulled back."""
    at_best, beyond = tensor(math.log(4.0), grad=True), tensor(2.0, grad=True)
    for margin, expected in ((at_best, 0.0), (beyond, s(2.0) - 0.8)):
        loss = sigmoid(margin, tensor(0.0), beta=1.0, label_smoothing=0.2)
        assert gradient(loss.sum(), margin)[0][0] == pytest.approx(expected, abs=1e-12)


def test_robust_is_unbiased_under_flipped_labels() -> None:
    """(1 − ε)·L(c, r) + ε·L(r, c) with labels flipped at rate ε is DPO's loss on the true labels."""
    c, r, e = tensor(1.7), tensor(-0.4), 0.2
    numbers = {"beta": 0.6, "label_smoothing": e}
    noisy = (1 - e) * robust(c, r, **numbers) + e * robust(r, c, **numbers)
    assert noisy.item() == pytest.approx(sigmoid(c, r, beta=0.6).item(), rel=1e-12)
    conservative_one = (1 - e) * sigmoid(c, r, **numbers) + e * sigmoid(r, c, **numbers)
    assert abs(conservative_one.item() - sigmoid(c, r, beta=0.6).item()) > 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("pair", [(-1e6, 0.0), (0.0, -1e6), (0.0, 0.0), (-1e6, -1e6)])
def test_absurd_scores_stay_finite(name: str, pair: tuple[float, float], dtype: torch.dtype) -> None:
    loss, numbers, _ = PLAIN[name]
    chosen, rejected = (torch.tensor([v], dtype=dtype, requires_grad=True) for v in pair)
    value = loss(chosen, rejected, **numbers).sum()
    slopes = torch.autograd.grad(value, (chosen, rejected))
    assert math.isfinite(value.item()) and all(bool(torch.isfinite(g).all()) for g in slopes)


# -- a step -----------------------------------------------------------------------------------------------------------


def terms(**options: Any) -> tuple[Term, ...]:
    return DpoConfig(model="m", data="d", out=Path("o"), **options).terms()


def two_pairs(grad: bool = False) -> Responses:
    """Sums −10 and −20, −9 and −6 over 5, 4, 3 and 2 tokens, against references −12, −19, −8 and −7."""
    policy = tensor(-10.0, -20.0, -9.0, -6.0, grad=grad)
    lengths, good, bad = tensor(5.0, 4.0, 3.0, 2.0), torch.tensor([0, 2]), torch.tensor([1, 3])
    return Responses(policy, lengths, good, bad, policy, tensor(-12.0, -19.0, -8.0, -7.0))


def test_weights_of_dpo_by_hand() -> None:
    """Rewards 1 and −½, −½ and ½: σ(−1.5) = 0.182426 and σ(1) = 0.731059. At label smoothing 0 each is the slope of
    the pair's loss, by the chosen response's log-probability, over −β."""
    (dpo,) = terms(loss="sigmoid", beta=0.5)
    weights = dpo_weights(two_pairs(), [*terms(loss=("ipo", "sft")), dpo])
    assert weights is not None and weights.tolist() == pytest.approx([0.182426, 0.731059], abs=1e-6)
    responses = two_pairs(grad=True)
    (slope,) = torch.autograd.grad(step_loss(responses, [dpo], Counts(2, 2)), responses.policy)
    assert slope.tolist() == pytest.approx([x * w / 2 for w in weights.tolist() for x in (-0.5, 0.5)])
    assert all(dpo_weights(two_pairs(), terms(loss=loss)) is None for loss in ("ipo", "robust", "hinge", "apo_zero"))


def test_a_step_of_dpo_by_hand() -> None:
    """The pairs of `test_dpo_value_by_hand`; β·log-ratios are 1 and −½, −½ and ½."""
    (dpo,) = terms(loss="sigmoid", beta=0.5)
    counts = Counts(2, 2)
    assert step_loss(two_pairs(), [dpo], counts).item() == pytest.approx((0.201413 + 1.313262) / 2, abs=1e-6)
    assert step_metrics(two_pairs(), dpo, counts) == pytest.approx(
        {
            "accuracy": 0.5,
            "margin": 0.25,
            "chosen_reward": 0.25,
            "rejected_reward": 0.0,
            "chosen_logprob": -9.5,
            "rejected_logprob": -13.0,
            "chosen_drift": 0.5,
            "rejected_drift": 0.0,
        }
    )


def test_the_gradient_of_a_step_is_dpos_closed_form() -> None:
    """∂L/∂log π(y_w) = −β σ(r̂_l − r̂_w) and +β σ(r̂_l − r̂_w) for y_l (Rafailov et al., section 4), each / pairs."""
    responses = two_pairs(grad=True)
    loss = step_loss(responses, terms(loss="sigmoid", beta=0.3), Counts(2, 2))
    first, second = 0.3 * s(-0.9) / 2, 0.3 * s(0.6) / 2
    assert gradient(loss, responses.logprobs)[0] == pytest.approx([-first, first, -second, second])


def test_a_weighted_sum_by_hand() -> None:
    """Means per token are −2, −5, −3, −3; log-ratios per token 2/5, −1/4, −1/3 and 1/2.
    IPO at β = 1: (0.65 − 0.5)² and (−0.8333 − 0.5)². SFT: (2 + 3)/2."""
    expected = 2 * (0.15**2 + (5 / 6 + 0.5) ** 2) / 2 + 0.2 * 2.5
    loss = step_loss(two_pairs(), terms(loss=("ipo=2", "sft=0.2"), beta=1.0), Counts(2, 2))
    assert loss.item() == pytest.approx(expected)


def test_single_responses_are_a_mean_over_all_and_sft_over_the_good() -> None:
    """KTO divides by the 3 responses of the step, SFT by its 2 good ones, whatever the micro-batch holds."""
    policy, good, bad = tensor(-4.0, -6.0), torch.tensor([0]), torch.tensor([1])
    responses = Responses(policy, tensor(2.0, 3.0), good, bad, policy, tensor(-5.0, -6.0))
    loss = step_loss(responses, terms(loss=("kto", "sft"), beta=0.5), Counts(2, 1), baseline=0.4)
    assert loss.item() == pytest.approx((s(-0.3) + s(-0.2)) / 3 + 2.0 / 2)
    metrics = step_metrics(responses, terms(loss="kto", beta=0.5)[0], Counts(2, 1), baseline=0.4)
    assert metrics["accuracy"] == pytest.approx(2 / 3)  # 1 > 0.4 is good and 0 < 0.4 is bad
    only_good = step_metrics(responses, terms(loss="kto")[0], Counts(2, 0), baseline=0.4)
    assert "margin" not in only_good and "rejected_reward" not in only_good


def test_a_step_needs_its_reference() -> None:
    policy = tensor(-1.0, -2.0)
    bare = Responses(policy, tensor(1.0, 1.0), torch.tensor([0]), torch.tensor([1]), policy, None)
    with pytest.raises(ValueError, match="'sigmoid' needs reference"):
        step_loss(bare, terms(loss="sigmoid"), Counts(1, 1))
    assert step_loss(bare, terms(loss="sigmoid", reference_free=True, beta=1.0), Counts(1, 1)).item() == pytest.approx(
        math.log(1 + math.exp(-1))
    )


# -- labels that may be wrong -----------------------------------------------------------------------------------------


def test_a_step_with_soft_labels_by_hand() -> None:
    """The pairs of `test_a_step_of_dpo_by_hand`, margins 1.5 and −1, with labels of 0.9 and 0.3; the gradient is
    −β (p σ(−m) − (1 − p) σ(m)) by the chosen log-probability, / pairs."""
    responses = replace(two_pairs(grad=True), probability=tensor(0.9, 0.3))
    loss = step_loss(responses, terms(loss="sigmoid", beta=0.5), Counts(2, 2))
    first, second = 0.9 * 0.201413 + 0.1 * 1.701413, 0.3 * 1.313262 + 0.7 * 0.313262
    assert loss.item() == pytest.approx((first + second) / 2, abs=1e-6)
    slopes = [-0.5 * (p * s(-m) - (1 - p) * s(m)) / 2 for p, m in ((0.9, 1.5), (0.3, -1.0))]
    assert gradient(loss, responses.policy)[0] == pytest.approx([slopes[0], -slopes[0], slopes[1], -slopes[1]])


@pytest.mark.parametrize("name", PLAIN)
def test_a_certain_label_is_the_loss_without_probabilities_bit_for_bit(name: str) -> None:
    found = []
    for probability in (None, torch.ones(2, dtype=torch.float64)):
        responses = replace(two_pairs(grad=True), probability=probability)
        term = terms(loss=name)
        loss = step_loss(responses, term, Counts(2, 2))
        found.append((loss.item(), gradient(loss, responses.policy), step_metrics(responses, term[0], Counts(2, 2))))
    assert found[0] == found[1]


@pytest.mark.parametrize("name", PLAIN)
def test_exchanged_responses_with_the_other_probability_are_the_same_pair(name: str) -> None:
    """The value is p times the plain loss and 1 − p times that of the responses exchanged, written from the papers."""
    one = replace(two_pairs(), probability=tensor(0.8, 0.35))
    other = replace(one, good=one.bad, bad=one.good, probability=tensor(0.2, 0.65))
    (term,) = terms(loss=name)
    values = [step_loss(responses, [term], Counts(2, 2)).item() for responses in (one, other)]
    assert values[0] == pytest.approx(values[1], rel=1e-12)
    scores = one.scores(term).tolist()
    plain = 0.0
    for (c, r), p in zip((scores[:2], scores[2:]), (0.8, 0.35), strict=True):
        sides = [FUNCTIONS[name](tensor(a), tensor(b), **term.numbers).item() for a, b in ((c, r), (r, c))]
        plain += (p * sides[0] + (1 - p) * sides[1]) / 2
    assert values[0] == pytest.approx(plain, rel=1e-12)


def test_one_probability_for_all_is_label_smoothing() -> None:
    """ε = 1 − p of cDPO; on top of a smoothing of ε the label is right with p (1 − ε) + (1 − p) ε."""
    soft = replace(two_pairs(), probability=tensor(0.8, 0.8))
    for given, same in ((0.0, 0.2), (0.1, 1 - (0.8 * 0.9 + 0.2 * 0.1))):
        found = step_loss(soft, terms(loss="sigmoid", label_smoothing=given), Counts(2, 2))
        smooth = step_loss(two_pairs(), terms(loss="sigmoid", label_smoothing=same), Counts(2, 2))
        assert found.item() == pytest.approx(smooth.item(), rel=1e-12)


def test_accuracy_counts_labels_with_their_probability() -> None:
    """The first pair has the chosen one above, the second the rejected one: 0.9 and 1 − 0.3."""
    assert agreement(tensor(1.5, -1.0, 0.0), tensor(0.9, 0.3, 0.8)).tolist() == pytest.approx([0.9, 0.7, 0.5])
    assert agreement(tensor(1.5, -1.0, 0.0)).tolist() == [1.0, 0.0, 0.5]
    soft = replace(two_pairs(), probability=tensor(0.9, 0.3))
    (term,) = terms(loss="sigmoid", beta=0.5)
    found, certain = (step_metrics(responses, term, Counts(2, 2)) for responses in (soft, two_pairs()))
    assert found.pop("accuracy") == pytest.approx(0.8) and certain.pop("accuracy") == 0.5
    assert found == certain
