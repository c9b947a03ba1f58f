"""Losses against values worked out by hand and against gradients in closed form."""

from __future__ import annotations

import math

import pytest
import torch

from posttrain.losses.policy import (
    LOG_RATIO_LIMIT,
    PolicyLoss,
    kl_k1,
    kl_k3,
    log_ratio,
    policy_loss,
    sequence_sums,
    sft_loss,
)


def tensor(*values: float, grad: bool = False) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=grad)


def gradient(loss: torch.Tensor, *of: torch.Tensor) -> list[list[float]]:
    return [g.tolist() for g in torch.autograd.grad(loss, of)]


def test_sft_is_the_weighted_negative_log_likelihood() -> None:
    """0.5·1 + 0.25·2 + 0.25·4 = 2; the gradient of each log-probability is its weight, negated."""
    logprobs, weights = tensor(-1.0, -2.0, -4.0, grad=True), tensor(0.5, 0.25, 0.25)
    out = sft_loss(logprobs, weights)
    assert out.loss.item() == pytest.approx(2.0) and out.metrics["loss"] == pytest.approx(2.0)
    assert gradient(out.loss, logprobs) == [[-0.5, -0.25, -0.25]]


def test_token_mean_weights_add_up_over_micro_batches() -> None:
    """Two micro-batches of 1 and 3 tokens: the mean over the 4 tokens, not the mean of the two means (1 + 9)/2."""
    logprobs = tensor(-1.0, -8.0, -9.0, -10.0)
    parts = [
        sft_loss(logprobs[:1], tensor(0.25)),
        sft_loss(logprobs[1:], tensor(0.25, 0.25, 0.25)),
    ]
    assert sum(p.loss.item() for p in parts) == pytest.approx(7.0)


def test_sequence_sums() -> None:
    """Tokens of sequences 0, 2, 0, 2, 2; sequence 1 has none. The gradient of a sum is 1 at its own tokens."""
    values = tensor(1.0, 10.0, 2.0, 20.0, 30.0, grad=True)
    sums = sequence_sums(values, torch.tensor([0, 2, 0, 2, 2]), 3)
    assert sums.tolist() == [3.0, 0.0, 60.0]
    assert gradient(sums[2], values) == [[0.0, 1.0, 0.0, 1.0, 1.0]]


@pytest.mark.parametrize(
    ("ratio", "advantage", "objective", "slope"),
    [
        # ε = 0.2. The slope is ∂objective/∂log π: ρA where the free side counts, 0 where the clipped one does.
        (1.0, 2.0, 2.0, 2.0),
        (1.1, 2.0, 2.2, 2.2),
        (1.1, -2.0, -2.2, -2.2),
        (1.5, 2.0, 2.4, 0.0),  # already much likelier, and good: no further
        (1.5, -2.0, -3.0, -3.0),  # much likelier, though bad: pushed back with all its weight
        (0.5, 2.0, 1.0, 1.0),
        (0.5, -2.0, -1.6, 0.0),
        (0.9, -2.0, -1.8, -1.8),
        (1.5, 0.0, 0.0, 0.0),
    ],
)
def test_clipped_objective_of_one_token(ratio: float, advantage: float, objective: float, slope: float) -> None:
    policy, proximal = tensor(math.log(ratio) - 3.0, grad=True), tensor(-3.0)
    out = policy_loss(PolicyLoss(), policy, proximal, tensor(advantage), tensor(0.5))
    assert out.loss.item() == pytest.approx(-0.5 * objective)
    assert gradient(out.loss, policy)[0][0] == pytest.approx(-0.5 * slope, abs=1e-12)
    clipped = advantage != 0 and slope == 0
    assert out.metrics["clip_fraction"] == (0.5 if clipped else 0.0)


def test_on_policy_gradient_is_the_policy_gradient() -> None:
    """At ρ = 1 exactly: L = −Σ w A and ∂L/∂log π = −w A."""
    policy = tensor(-1.0, -2.5, -0.1, grad=True)
    advantages, weights = tensor(1.0, -2.0, 0.5), tensor(0.5, 0.25, 0.25)
    out = policy_loss(PolicyLoss(), policy, policy.detach(), advantages, weights)
    assert out.loss.item() == pytest.approx(-(0.5 - 0.5 + 0.125))
    assert gradient(out.loss, policy) == [[-0.5, 0.5, -0.125]]
    assert out.metrics["clip_fraction"] == 0.0


def test_kl_penalty_in_the_policy_loss() -> None:
    """ρ = 1, A = 1, β = 0.1, r = π_ref/π = 2: k3 = 2 − 1 − ln 2, and ∂k3/∂log π = 1 − r = −1."""
    policy = tensor(math.log(0.25), grad=True)
    ref = tensor(math.log(0.5))
    choices = PolicyLoss(kl="k3", beta=0.1)
    out = policy_loss(choices, policy, policy.detach(), tensor(1.0), tensor(1.0), ref_logprobs=ref)
    assert out.loss.item() == pytest.approx(-(1 - 0.1 * (1 - math.log(2))))
    assert gradient(out.loss, policy)[0][0] == pytest.approx(-(1 - 0.1 * -1.0))
    with pytest.raises(ValueError, match="reference"):
        policy_loss(choices, policy, policy.detach(), tensor(1.0), tensor(1.0))


def test_kl_estimates_by_hand() -> None:
    """π = 0.5 against π_ref = 0.25, 0.5 and 1: k1 = ln 2, 0, −ln 2; k3 = ½ − 1 + ln 2, 0, 2 − 1 − ln 2."""
    policy = torch.log(tensor(0.5, 0.5, 0.5))
    ref = torch.log(tensor(0.25, 0.5, 1.0))
    assert kl_k1(policy, ref).tolist() == pytest.approx([math.log(2), 0.0, -math.log(2)])
    assert kl_k3(policy, ref).tolist() == pytest.approx([math.log(2) - 0.5, 0.0, 1 - math.log(2)])


def test_kl_estimates_are_unbiased() -> None:
    """Σ_y π(y)·estimate(y) over a whole small vocabulary is KL(π‖π_ref) itself, for k1 and for k3."""
    generator = torch.Generator().manual_seed(3)
    policy, ref = (torch.randn(12, generator=generator, dtype=torch.float64).log_softmax(0) for _ in range(2))
    exact = sum(p * math.log(p / q) for p, q in zip(policy.exp().tolist(), ref.exp().tolist(), strict=True))
    assert float((policy.exp() * kl_k1(policy, ref)).sum()) == pytest.approx(exact)
    assert float((policy.exp() * kl_k3(policy, ref)).sum()) == pytest.approx(exact)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("gap", [-1e4, -50.0, 50.0, 1e4])
@pytest.mark.parametrize("advantage", [-1.0, 1.0])
def test_huge_log_ratios_stay_finite(gap: float, advantage: float, dtype: torch.dtype) -> None:
    """Loss and gradient are finite however far apart policy, proximal policy and reference are, and a masked-out token
    (weight 0) adds nothing: 0·∞ never arises."""
    policy = torch.tensor([gap, gap], dtype=dtype, requires_grad=True)
    other = torch.zeros(2, dtype=dtype)
    advantages, weights = torch.full((2,), advantage, dtype=dtype), torch.tensor([1.0, 0.0], dtype=dtype)
    out = policy_loss(PolicyLoss(kl="k3", beta=0.1), policy, other, advantages, weights, ref_logprobs=other)
    (slope,) = torch.autograd.grad(out.loss, policy)
    assert math.isfinite(out.loss.item()) and bool(torch.isfinite(slope).all()) and slope[1].item() == 0.0


def test_log_ratio_is_clamped() -> None:
    ratios = log_ratio(tensor(100.0, 3.0, -100.0), tensor(0.0, 1.0, 0.0))
    assert ratios.tolist() == [LOG_RATIO_LIMIT, 2.0, -LOG_RATIO_LIMIT]


def test_kl_pulls_back_a_policy_far_above_its_reference() -> None:
    """π/π_ref = e^30: k3 = e^−30 − 1 + 30 = 29 with slope 1 − e^−30 = 1. A penalty that went flat there would let go of
    exactly the tokens that have drifted furthest."""
    policy = tensor(0.0, grad=True)
    k3 = kl_k3(policy, tensor(-30.0))
    assert k3.item() == pytest.approx(29.0)
    assert gradient(k3.sum(), policy)[0][0] == pytest.approx(1.0)
