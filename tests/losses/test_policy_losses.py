"""The policy losses of the algorithms, against values worked out by hand and a reference written out in float64."""

from __future__ import annotations

import math

import pytest
import torch

from posttrain.losses.policy import (
    PolicyLoss,
    importance_weights,
    kl_k1,
    kl_k2,
    kl_k3,
    policy_loss,
    sequence_means,
    value_loss,
)


def tensor(*values: float, grad: bool = False) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=grad)


def slope(loss: torch.Tensor, of: torch.Tensor) -> list[float]:
    (gradient,) = torch.autograd.grad(loss, of)
    return gradient.tolist()


def test_clip_higher() -> None:
    """ε 0.2 below and 0.28 above (DAPO): at ρ = 1.25 and A = 1 the objective is 1.25 and has its slope; at 1.3 it is
    1.28 and has none; at ρ = 0.7 and A = −1 it is −0.8."""
    choices = PolicyLoss(clip_low=0.2, clip_high=0.28)
    policy = torch.log(tensor(1.25, 1.3, 0.7)).requires_grad_()
    out = policy_loss(choices, policy, tensor(0, 0, 0), tensor(1, 1, -1), tensor(1, 1, 1))
    assert out.loss.item() == pytest.approx(-(1.25 + 1.28 - 0.8))
    assert slope(out.loss, policy) == pytest.approx([-1.25, 0.0, 0.0])
    assert out.metrics["clip_fraction"] == 2.0


def test_dual_clip() -> None:
    """c = 3: at ρ = 5 and A = −1 the objective is −3 and not −5, and has no slope. At ρ = 2 it is −2 as before; a good
    token is not touched."""
    choices = PolicyLoss(dual_clip=3.0)
    policy = torch.log(tensor(5.0, 2.0, 5.0)).requires_grad_()
    out = policy_loss(choices, policy, tensor(0, 0, 0), tensor(-1, -1, 1), tensor(1, 1, 1))
    assert out.loss.item() == pytest.approx(3 + 2 - 1.2)
    assert slope(out.loss, policy) == pytest.approx([0.0, 2.0, 0.0])


def test_the_ratio_of_a_sequence_is_a_mean_over_its_tokens() -> None:
    """Log-ratios 0.1, 0.3 and (another sequence) −0.2: s = e^0.2 and e^−0.2, never e^0.4. With A = 1, weights ½ a
    response over its length and a range of ½: L = −(½ e^0.2 + ½ e^−0.2), and every token of the first has the slope
    −½ e^0.2/2."""
    choices = PolicyLoss("sequence-clip", clip_low=0.5, clip_high=0.5)
    policy = tensor(0.1, 0.3, -0.2, grad=True)
    sequence = torch.tensor([0, 0, 1])
    out = policy_loss(
        choices, policy, tensor(0, 0, 0), tensor(1, 1, 1), tensor(0.25, 0.25, 0.5), sequence=sequence, sequences=2
    )
    assert out.loss.item() == pytest.approx(-(math.exp(0.2) + math.exp(-0.2)) / 2)
    assert slope(out.loss, policy) == pytest.approx([-math.exp(0.2) / 4] * 2 + [-math.exp(-0.2) / 2])
    tight = PolicyLoss("sequence-clip", clip_low=3e-4, clip_high=4e-4)
    out = policy_loss(
        tight, policy, tensor(0, 0, 0), tensor(1, 1, -1), tensor(0.25, 0.25, 0.5), sequence=sequence, sequences=2
    )
    assert slope(out.loss, policy) == [0.0, 0.0, 0.0]
    assert out.metrics["clip_fraction"] == 1.0
    with pytest.raises(ValueError, match="sequences"):
        policy_loss(choices, policy, tensor(0, 0, 0), tensor(1, 1, 1), tensor(1, 1, 1))


def test_cispo_clips_the_weight_and_keeps_the_gradient() -> None:
    """Ratios 1, 3 and 9, the upper bound 5: the slopes are −A·1, −A·3 and −A·5, where PPO's last two would be 0."""
    choices = PolicyLoss("cispo", clip_low=0.999, clip_high=4.0)
    policy = torch.log(tensor(1.0, 3.0, 9.0)).requires_grad_()
    out = policy_loss(choices, policy, tensor(0, 0, 0), tensor(2, 2, 2), tensor(1, 1, 1))
    assert slope(out.loss, policy) == pytest.approx([-2.0, -6.0, -10.0])
    assert out.metrics["clip_fraction"] == 1.0


def test_reinforce_is_the_score_times_the_log_probability() -> None:
    policy = tensor(-1.0, -2.0, grad=True)
    out = policy_loss(PolicyLoss("reinforce"), policy, policy.detach(), tensor(3, -1), tensor(0.5, 0.5))
    assert out.loss.item() == pytest.approx(-(0.5 * -3.0 + 0.5 * 2.0))
    assert slope(out.loss, policy) == [-1.5, 0.5]
    assert out.metrics["clip_fraction"] == 0.0


@pytest.mark.parametrize("surrogate", ["clip", "sequence-clip", "cispo", "reinforce"])
def test_on_policy_all_have_the_gradient_of_the_policy(surrogate: str) -> None:
    """At ρ = 1 the slope is −w A for each of them. With equal advantages in a sequence GSPO's is the same."""
    policy = tensor(-1.0, -2.5, -0.1, grad=True)
    advantages, weights = tensor(2.0, 2.0, -1.0), tensor(0.25, 0.25, 0.5)
    sequence = torch.tensor([0, 0, 1])
    choices = PolicyLoss(surrogate, 0.2, 0.2)  # type: ignore[arg-type]
    out = policy_loss(choices, policy, policy.detach(), advantages, weights, sequence=sequence, sequences=2)
    assert slope(out.loss, policy) == pytest.approx([-0.5, -0.5, 0.5])
    assert out.metrics["policy_kl"] == 0.0


def test_entropy_bonus_and_importance() -> None:
    """α = 0.1 adds 0.1 H; an importance weight of ½ halves the surrogate and leaves the bonus."""
    policy, entropy = tensor(-1.0, grad=True), tensor(0.7, grad=True)
    choices = PolicyLoss(entropy_bonus=0.1)
    out = policy_loss(choices, policy, policy.detach(), tensor(2), tensor(1), importance=tensor(0.5), entropy=entropy)
    assert out.loss.item() == pytest.approx(-(0.5 * 2 + 0.07))
    assert slope(out.loss, entropy) == pytest.approx([-0.1])
    with pytest.raises(ValueError, match="entropy"):
        policy_loss(choices, policy, policy.detach(), tensor(2), tensor(1))


def test_k2_has_the_gradient_of_the_reverse_kl_and_k3_has_not() -> None:
    """On a categorical of 5, with y ~ π held fixed (as sampled tokens are): Σ π(y) ∇k2(y) is ∇KL(π‖π_ref), closed form
    π_j (log π_j/π_ref,j − KL) for logit j. The expected gradient of k1 is 0, and that of k3 is the forward KL's,
    Σ π(y) ∇k3 = π − π_ref."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, generator=generator, dtype=torch.float64, requires_grad=True)
    log_p, ref = logits.log_softmax(0), torch.randn(5, generator=generator, dtype=torch.float64).log_softmax(0)
    p = log_p.detach().exp()
    kl = float((p * (log_p.detach() - ref)).sum())
    closed = (p * (log_p.detach() - ref - kl)).tolist()

    def expected(estimate: torch.Tensor) -> list[float]:
        (gradient,) = torch.autograd.grad((p * estimate).sum(), logits, retain_graph=True)
        return gradient.tolist()

    assert expected(kl_k2(log_p, ref)) == pytest.approx(closed)
    assert expected(kl_k1(log_p, ref)) == pytest.approx([0.0] * 5, abs=1e-12)
    assert expected(kl_k3(log_p, ref)) == pytest.approx((p - ref.exp()).tolist())


def test_k2_in_the_loss() -> None:
    """log π − log π_ref = 0.4, β = 0.5: the penalty is 0.5·0.08 and its slope 0.5·0.4."""
    policy = tensor(-1.0, grad=True)
    choices = PolicyLoss(kl="k2", beta=0.5)
    out = policy_loss(choices, policy, policy.detach(), tensor(0), tensor(1), ref_logprobs=tensor(-1.4))
    assert out.loss.item() == pytest.approx(0.04)
    assert slope(out.loss, policy) == pytest.approx([0.2])


def test_value_loss_by_hand() -> None:
    """V 1.0, R 2.0: ½. With the old value 0.5 and a range of 0.2, V̄ = 0.7 is further off: ½·1.3² and no slope."""
    values = tensor(1.0, grad=True)
    plain = value_loss(values, tensor(2.0), tensor(1.0))
    assert plain.loss.item() == pytest.approx(0.5)
    assert slope(plain.loss, values) == [-1.0]
    clipped = value_loss(values, tensor(2.0), tensor(1.0), tensor(0.5), 0.2)
    assert clipped.loss.item() == pytest.approx(0.5 * 1.3**2)
    assert slope(clipped.loss, values) == [0.0]
    # on the other side of the target the unclipped error is the larger one, and its slope stays
    above = tensor(3.0, grad=True)
    assert slope(value_loss(above, tensor(2.0), tensor(1.0), tensor(2.5), 0.2).loss, above) == [1.0]
    with pytest.raises(ValueError, match="before the step"):
        value_loss(values, tensor(2.0), tensor(1.0), None, 0.2)


def test_importance_weights_by_hand() -> None:
    """Ratios 1, 4 and (another sequence) ¼, limit 2. By token: truncated 1, 2, ¼; masked 1, 0, 0. By sequence: the
    first has √4 = 2 for both tokens, the second ¼."""
    proximal, sampler = torch.log(tensor(1.0, 4.0, 0.25)).requires_grad_(), tensor(0, 0, 0)
    sequence = torch.tensor([0, 0, 1])

    def weights(kind: str) -> list[float]:
        out = importance_weights(proximal, sampler, kind, 2.0, sequence, 2)  # type: ignore[arg-type]
        assert not out.requires_grad
        return out.tolist()

    assert weights("token-truncate") == pytest.approx([1.0, 2.0, 0.25])
    assert weights("token-mask") == pytest.approx([1.0, 0.0, 0.0])
    assert weights("sequence-truncate") == pytest.approx([2.0, 2.0, 0.25])
    assert weights("sequence-mask")[2] == 0.0


def test_sequence_means() -> None:
    assert sequence_means(tensor(1, 3, 5), torch.tensor([0, 0, 2]), 3).tolist() == [2.0, 2.0, 5.0]


@pytest.mark.parametrize("surrogate", ["clip", "sequence-clip", "cispo", "reinforce"])
@pytest.mark.parametrize("kl", [None, "k2", "k3"])
def test_against_a_reference_written_token_by_token(surrogate: str, kl: str | None) -> None:
    """Random tensors: value and gradient equal those of Python loops over tokens with float64 scalars."""
    generator = torch.Generator().manual_seed(7)

    def draw() -> torch.Tensor:
        return torch.randn(9, generator=generator, dtype=torch.float64)

    policy = (0.4 * draw()).requires_grad_()
    proximal, ref, advantages, weights = 0.4 * draw(), 0.4 * draw(), draw(), draw().abs()
    importance = draw().exp()
    sequence = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2])
    choices = PolicyLoss(surrogate, 0.2, 0.3, 3.0, kl, 0.7)  # type: ignore[arg-type]
    out = policy_loss(
        choices,
        policy,
        proximal,
        advantages,
        weights,
        sequence=sequence,
        sequences=3,
        ref_logprobs=ref,
        importance=importance,
    )

    leaves = [p.detach().clone().requires_grad_() for p in policy]
    total = torch.zeros((), dtype=torch.float64)
    for t, lp in enumerate(leaves):
        a, difference = float(advantages[t]), lp - proximal[t]
        if surrogate == "sequence-clip":
            mates = [i for i in range(9) if sequence[i] == sequence[t]]
            difference = sum(leaves[i] - proximal[i] for i in mates) / len(mates)
        ratio = torch.exp(difference)
        rho = ratio.item()
        low_high = min(max(rho, 0.8), 1.3)
        if surrogate == "reinforce":
            objective = a * lp
        elif surrogate == "cispo":
            objective = low_high * a * lp
        else:
            objective = ratio * a if rho * a <= low_high * a else torch.tensor(low_high * a, dtype=torch.float64)
            if a < 0 and objective.item() < 3.0 * a:
                objective = torch.tensor(3.0 * a, dtype=torch.float64)
        objective = objective * float(importance[t])
        gap = lp - ref[t]
        penalty = {None: 0.0 * gap, "k2": gap * gap / 2, "k3": torch.exp(-gap) - 1 + gap}[kl]
        total = total - float(weights[t]) * (objective - 0.7 * penalty)
    assert out.loss.item() == pytest.approx(total.item(), abs=1e-12)
    wanted = [g.item() for g in torch.autograd.grad(total, leaves)]
    assert slope(out.loss, policy) == pytest.approx(wanted, abs=1e-12)
