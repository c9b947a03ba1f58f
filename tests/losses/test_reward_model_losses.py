"""Losses and weights of reward models, by hand and against float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from posttrain.losses.reward_model import (
    balanced_weights,
    bootstrap_weights,
    bradley_terry,
    centre,
    correlation,
    head_overlap,
    odin_loss,
    pair_loss,
)


def f64(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def log1pexp(x: float) -> float:
    return math.log1p(math.exp(x))


def test_bradley_terry_by_hand() -> None:
    """−log σ(m) = log(1 + e^−m): m = 2 − 0.5, then 2 − 0.5 − 1."""
    assert float(bradley_terry(f64(2.0), f64(0.5))) == pytest.approx(log1pexp(-1.5), abs=1e-12)
    assert float(bradley_terry(f64(2.0), f64(0.5), f64(1.0))) == pytest.approx(log1pexp(-0.5), abs=1e-12)
    assert float(bradley_terry(f64(3.0), f64(3.0))) == pytest.approx(math.log(2), abs=1e-12)


def test_bradley_terry_has_no_overflow() -> None:
    values = bradley_terry(torch.tensor([1e4, -1e4]), torch.tensor([-1e4, 1e4]))
    assert values.tolist() == [0.0, 2e4]


def test_gradient_of_bradley_terry_is_the_probability_of_being_wrong() -> None:
    chosen, rejected = f64(1.0, -2.0).requires_grad_(), f64(0.0, 1.0).requires_grad_()
    bradley_terry(chosen, rejected, f64(0.5, 0.0)).sum().backward()
    wrong = [1 / (1 + math.exp(0.5)), 1 / (1 + math.exp(-3.0))]
    assert chosen.grad is not None and rejected.grad is not None
    assert chosen.grad.tolist() == pytest.approx([-p for p in wrong], abs=1e-12)
    assert rejected.grad.tolist() == pytest.approx(wrong, abs=1e-12)


def test_centre_by_hand() -> None:
    assert centre(f64(2.0, 1.0), f64(0.5, -1.0)).tolist() == [6.25, 0.0]


def test_pair_loss_by_hand() -> None:
    """Two of three pairs, two members; the weights of a member need not be 1."""
    scores = torch.tensor([[[1.0, 0.0], [0.0, 2.0]], [[0.5, 1.0], [0.5, -1.0]]], dtype=torch.float64)
    weights = torch.tensor([[1.0, 2.0], [0.0, 3.0]], dtype=torch.float64)
    value = pair_loss(scores, f64(0.0, 0.5), weights, pairs=3, centre_coefficient=0.1)
    first = 1 * (log1pexp(-1) + 0.1 * 1) + 2 * (log1pexp(2) + 0.1 * 4)
    second = 3 * (log1pexp(-1.5) + 0.1 * 0)
    assert float(value) == pytest.approx((first + second) / 6, abs=1e-12)


def test_parts_of_a_step_add_up_in_float32_to_float64() -> None:
    rng = torch.Generator().manual_seed(0)
    scores = torch.randn(7, 2, 3, generator=rng, dtype=torch.float64)
    margins, weights = torch.rand(7, generator=rng, dtype=torch.float64), torch.rand(7, 3, generator=rng).double()
    exact = scores.clone().requires_grad_()
    pair_loss(exact, margins, weights, pairs=7, centre_coefficient=0.02).backward()
    parts = scores.float().requires_grad_()
    for a, b in ((0, 2), (2, 3), (3, 7)):
        pair_loss(parts[a:b], margins[a:b].float(), weights[a:b].float(), pairs=7, centre_coefficient=0.02).backward()
    assert exact.grad is not None and parts.grad is not None
    assert torch.allclose(parts.grad.double(), exact.grad, atol=1e-6)


def test_odin_by_hand() -> None:
    """Quality is uncorrelated with length and the length head is length itself: the second term is 0 − 1."""
    lengths = torch.tensor([[1.0, 2.0], [2.0, 1.0]], dtype=torch.float64)
    quality = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    scores = torch.stack([quality * 0 + torch.tensor([[1.0, 1.0], [0.0, 0.0]]), lengths], dim=2)
    ranking = (log1pexp(1) + log1pexp(-1)) / 2  # totals: 1+1 over 1+2, and 0+2 over 0+1
    assert float(odin_loss(scores, f64(0.0, 0.0), lengths)) == pytest.approx(ranking - 1, abs=1e-6)
    assert float(correlation(quality, lengths)) == pytest.approx(-1, abs=1e-6)


def test_correlation_is_pearsons_and_bears_constants() -> None:
    x, y = torch.randn(20, dtype=torch.float64), torch.randn(20, dtype=torch.float64)
    assert float(correlation(x, y)) == pytest.approx(np.corrcoef(x.numpy(), y.numpy())[0, 1], abs=1e-6)
    constant = torch.full((4,), 3.0, requires_grad=True)
    correlation(constant, torch.arange(4.0)).backward()
    assert constant.grad is not None and torch.isfinite(constant.grad).all()


def test_head_overlap() -> None:
    assert float(head_overlap(torch.tensor([[1.0, 0.0], [0.0, 2.0]]))) == 0.0
    assert float(head_overlap(torch.tensor([[1.0, 1.0], [-3.0, 0.0]]))) == pytest.approx(0.5**0.5)


def test_bootstrap_weights() -> None:
    assert bootstrap_weights(4, 1, seed=7).tolist() == [[1.0]] * 4
    weights = bootstrap_weights(50, 3, seed=7)
    assert weights.sum(0).tolist() == [50.0] * 3
    assert not np.array_equal(weights[:, 0], weights[:, 1])
    assert np.array_equal(weights, bootstrap_weights(50, 3, seed=7))


def test_balanced_weights_by_hand() -> None:
    """One stratum a pair of neighbours that has both sides: |1| holds 1, 1, −1, then |5| holds 5, −5, −5, −5."""
    weights = balanced_weights([1, 1, -1, 0, 5, -5, -5, -5])
    longer = [w for w, d in zip(weights, (1, 1, -1, 0, 5, -5, -5, -5), strict=True) if d > 0]
    assert sum(longer) == pytest.approx(sum(weights) - sum(longer) - weights[3])
    assert weights.mean() == pytest.approx(1)
    assert (weights > 0).all()


def test_balanced_weights_leave_length_nothing_to_predict() -> None:
    """Longer ones are chosen in 80% of pairs, more often the longer they are; weighted, in half of them, among the
    short differences and among the long ones."""
    rng = np.random.default_rng(0)
    size = rng.integers(1, 100, 2000)
    chosen = rng.random(2000) < 0.65 + 0.3 * size / 100
    d = np.where(chosen, size, -size)
    weights = balanced_weights(list(d))
    for part in (size < 50, size >= 50):
        share = weights[part & (d > 0)].sum() / weights[part].sum()
        assert abs(share - 0.5) < 0.02
    assert (d > 0).mean() > 0.75


@pytest.mark.parametrize("differences", [[3, 4, 5], [-1, -2]])
def test_one_side_alone_cannot_be_balanced(differences: list[int]) -> None:
    assert not balanced_weights(differences).any()


def test_a_stratum_of_one_side_joins_its_neighbour() -> None:
    weights = balanced_weights([1, -1, 50, 60, 70])
    assert (weights > 0).all()
    assert weights[[0, 2, 3, 4]].sum() == pytest.approx(weights[1])


# -- labels that may be wrong -----------------------------------------------------------------------------------------


def test_a_soft_label_by_hand() -> None:
    """r_w − r_l = 1.5 and p = 0.7: 0.7 log(1 + e^−1.5) + 0.3 log(1 + e^1.5); with a margin of 0.5 it is asked of either
    side, 0.7 log(1 + e^−1) + 0.3 log(1 + e^2)."""
    assert float(bradley_terry(f64(2.0), f64(0.5), 0.0, 0.7)) == pytest.approx(0.7 * 0.2014132780 + 0.3 * 1.7014132780)
    with_margin = float(bradley_terry(f64(2.0), f64(0.5), f64(0.5), f64(0.7)))
    assert with_margin == pytest.approx(0.7 * log1pexp(-1.0) + 0.3 * log1pexp(2.0), abs=1e-12)
    for p in (0.2, 0.5, 0.9):
        assert float(bradley_terry(f64(3.0), f64(3.0), 0.0, p)) == pytest.approx(math.log(2), abs=1e-12)


def test_a_certain_label_is_the_loss_without_probabilities_bit_for_bit() -> None:
    rng = torch.Generator().manual_seed(1)
    scores, margins, weights = torch.randn(9, 2, 3, generator=rng) * 5, torch.rand(9, generator=rng), torch.ones(9, 3)
    found = []
    for labels in ((), (torch.ones(9),)):
        leaf = scores.clone().requires_grad_()
        loss = pair_loss(leaf, margins, weights, *labels, pairs=9, centre_coefficient=0.1)
        loss.backward()
        assert leaf.grad is not None
        found.append((loss.detach(), leaf.grad))
    plain = -torch.nn.functional.logsigmoid(scores[:, 0] - scores[:, 1] - margins[:, None])
    assert torch.equal(found[0][0], found[1][0]) and torch.equal(found[0][1], found[1][1])
    assert torch.equal(bradley_terry(scores[:, 0], scores[:, 1], margins[:, None], torch.ones(9, 1)), plain)


def slope(difference: float, margin: float, p: float) -> float:
    """dL/dr_w where r_l = 0."""
    chosen = f64(difference).requires_grad_()
    bradley_terry(chosen, f64(0.0), margin, p).sum().backward()
    assert chosen.grad is not None
    return float(chosen.grad)


@pytest.mark.parametrize("p", [0.05, 0.4, 0.5, 0.6, 0.99])
def test_the_best_difference_is_the_log_odds_of_the_label(p: float) -> None:
    """dL/dr_w = σ(r_w − r_l) − p without a margin; with one −p σ(m − Δ) + (1 − p) σ(m + Δ)."""
    best = math.log(p / (1 - p))
    assert slope(best, 0.0, p) == pytest.approx(0.0, abs=1e-12)
    for difference, m in ((-2.0, 0.0), (0.3, 0.0), (0.3, 1.0)):
        by_hand = -p / (1 + math.exp(difference - m)) + (1 - p) / (1 + math.exp(-difference - m))
        assert slope(difference, m, p) == pytest.approx(by_hand, abs=1e-12)
    assert slope(0.3, 0.0, p) == pytest.approx(1 / (1 + math.exp(-0.3)) - p, abs=1e-12)


@pytest.mark.parametrize("margin", [0.0, 0.5, 3.0])
def test_no_margin_outvotes_a_label(margin: float) -> None:
    """At equal scores the loss falls towards the more probable side, for p = 0.5 towards neither; a row with the
    responses exchanged and 1 − p is the same."""
    assert slope(0.0, margin, 0.6) < 0 < slope(0.0, margin, 0.4)
    assert slope(0.0, margin, 0.5) == pytest.approx(0.0, abs=1e-12)
    one, other = bradley_terry(f64(1.3), f64(0.2), margin, 0.3), bradley_terry(f64(0.2), f64(1.3), margin, 0.7)
    assert float(one) == pytest.approx(float(other), abs=1e-12)


def test_soft_labels_of_a_step_in_float32_are_those_of_float64() -> None:
    rng = torch.Generator().manual_seed(2)
    scores = torch.randn(6, 2, 2, generator=rng, dtype=torch.float64) * 3
    margins, weights, labels = (torch.rand(*shape, generator=rng).double() for shape in ((6,), (6, 2), (6,)))
    exact, single = scores.clone().requires_grad_(), scores.float().requires_grad_()
    whole = pair_loss(exact, margins, weights, labels, pairs=6)
    whole.backward()
    by_hand = 0.0
    for i in range(6):
        for k in range(2):
            d, m, p = float(scores[i, 0, k] - scores[i, 1, k]), float(margins[i]), float(labels[i])
            by_hand += float(weights[i, k]) * (p * log1pexp(m - d) + (1 - p) * log1pexp(m + d)) / 12
    assert float(whole.detach()) == pytest.approx(by_hand, abs=1e-12)
    for a, b in ((0, 1), (1, 6)):
        parts = (t[a:b].float() for t in (margins, weights, labels))
        pair_loss(single[a:b], *parts, pairs=6).backward()
    assert exact.grad is not None and single.grad is not None
    assert torch.allclose(single.grad.double(), exact.grad, atol=1e-6)


def test_odin_with_soft_labels_by_hand() -> None:
    """The totals of `test_odin_by_hand`, labels of 0.6 and 0.3."""
    lengths = torch.tensor([[1.0, 2.0], [2.0, 1.0]], dtype=torch.float64)
    scores = torch.stack([torch.tensor([[1.0, 1.0], [0.0, 0.0]], dtype=torch.float64), lengths], dim=2)
    first, second = 0.6 * log1pexp(1) + 0.4 * log1pexp(-1), 0.3 * log1pexp(-1) + 0.7 * log1pexp(1)
    found = float(odin_loss(scores, f64(0.0, 0.0), lengths, f64(0.6, 0.3)))
    assert found == pytest.approx((first + second) / 2 - 1, abs=1e-6)


def test_soft_labels_are_balanced_by_how_much_they_say() -> None:
    """Longer ones with 2p − 1 of 0.5 and 0.5, shorter ones with 0.2, 0.8 and 0.4 from the chosen's side, the last as a
    longer one that is probably worse; and a label of 0.5, which says nothing. In the one stratum there is, the mean
    label by weight is 0."""
    differences, labels = [4, 4, -4, -4, 4, 4], [0.75, 0.75, 0.6, 0.9, 0.3, 0.5]
    weights = balanced_weights(differences, labels)
    said = [(2 * p - 1) * (1 if d > 0 else -1) for d, p in zip(differences, labels, strict=True)]
    assert sum(w * s for w, s in zip(weights, said, strict=True)) == pytest.approx(0.0, abs=1e-12)
    assert weights.mean() == pytest.approx(1.0) and (weights > 0).all()
    assert weights[2] / weights[0] == pytest.approx(1.0 / 1.4) and weights[5] == weights[0]
    hard = balanced_weights([1, 1, -1, 0, 5, -5, -5, -5])
    assert np.array_equal(balanced_weights([1, 1, -1, 0, 5, -5, -5, -5], [1.0] * 8), hard)
