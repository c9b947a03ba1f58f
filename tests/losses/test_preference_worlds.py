"""Small worlds with a known optimum: tabular policies, exact gradients, float64."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch

from posttrain.losses.preference import ipo, sigmoid
from posttrain.losses.reward_model import bradley_terry

BETA = 0.5
PROMPTS, RESPONSES = 3, 6
Loss = Callable[[torch.Tensor], torch.Tensor]


def world(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rewards and the log-probabilities of a reference, each [PROMPTS, RESPONSES]."""
    rng = torch.Generator().manual_seed(seed)
    rewards, logits = (torch.randn(PROMPTS, RESPONSES, generator=rng, dtype=torch.float64) for _ in range(2))
    return rewards, logits.log_softmax(1)


def minimised(loss: Loss, start: torch.Tensor) -> torch.Tensor:
    """The argument at which a convex-enough loss is least, by L-BFGS."""
    x = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [x], max_iter=2000, tolerance_grad=1e-12, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        value = loss(x)
        value.backward()
        return value

    optimizer.step(closure)
    return x.detach()


def preferences(scores: torch.Tensor, share: torch.Tensor, pair_loss: Callable[..., torch.Tensor]) -> torch.Tensor:
    """Σ over prompts and ordered pairs of share[x, i, j] x the loss of i over j; scores [PROMPTS, RESPONSES]."""
    chosen, rejected = torch.broadcast_tensors(scores[:, :, None], scores[:, None, :])
    return (share * pair_loss(chosen, rejected)).sum() / share.sum()


def dpo_policy(share: torch.Tensor, ref: torch.Tensor) -> torch.Tensor:
    def loss(logits: torch.Tensor) -> torch.Tensor:
        return preferences(logits.log_softmax(1) - ref, share, lambda c, r: sigmoid(c, r, beta=BETA))

    return minimised(loss, ref).softmax(1)


def off_diagonal(share: torch.Tensor) -> torch.Tensor:
    return share * (1 - torch.eye(RESPONSES, dtype=torch.float64))


@pytest.mark.parametrize("seed", [0, 1])
def test_dpo_reaches_the_policy_of_the_closed_form(seed: int) -> None:
    """Preferences P(i ≻ j) = σ(r_i − r_j), all of them: π* ∝ π_ref exp(r/β), within 1e-6 in total variation."""
    rewards, ref = world(seed)
    share = off_diagonal(torch.sigmoid(rewards[:, :, None] - rewards[:, None, :]))
    best = (ref + rewards / BETA).softmax(1)
    found = dpo_policy(share, ref)
    assert float((found - best).abs().sum(1).max()) / 2 < 1e-6
    assert float((ref.exp() - best).abs().sum(1).max()) / 2 > 0.2  # it had some way to go


def test_dpo_and_reward_model_with_rl_reach_the_same_policy() -> None:
    """On a finite sample of Bradley–Terry labels: DPO, and a maximum-likelihood reward followed by exact ascent of
    E_π[r] − β KL(π‖π_ref), end within 1e-5 of each other in total variation."""
    rewards, ref = world(2)
    rng = torch.Generator().manual_seed(5)
    wins = torch.sigmoid(rewards[:, :, None] - rewards[:, None, :])
    upper = torch.triu(torch.ones(RESPONSES, RESPONSES, dtype=torch.float64), 1)
    first = torch.binomial(torch.full_like(wins, 20.0), wins, generator=rng) * upper
    share = first + (20 * upper - first).transpose(1, 2)
    fitted = minimised(
        lambda r: preferences(r - r.mean(1, keepdim=True), share, bradley_terry),
        torch.zeros_like(rewards),
    )

    def regret(logits: torch.Tensor) -> torch.Tensor:
        log_p = logits.log_softmax(1)
        return -(log_p.exp() * (fitted - BETA * (log_p - ref))).sum()

    by_rl = minimised(regret, ref).softmax(1)
    assert float((dpo_policy(share, ref) - by_rl).abs().sum(1).max()) / 2 < 1e-5


def test_online_dpo_reaches_the_policy_of_the_closed_form() -> None:
    """Both answers drawn from the policy as it is, labels by Bradley–Terry, the mean gradient of each step: the same
    π* ∝ π_ref exp(r/β) as on fixed pairs, within 1e-4 in total variation. Answers the policy has given up are hardly
    compared any more, which slows it down and moves nothing."""
    rewards, ref = world(0)
    wins = torch.sigmoid(rewards[:, :, None] - rewards[:, None, :])
    logits = ref.clone().requires_grad_()
    optimizer = torch.optim.SGD([logits], lr=20.0)
    for _ in range(4000):
        log_p = logits.log_softmax(1)
        drawn = log_p.detach().exp()
        share = off_diagonal(drawn[:, :, None] * drawn[:, None, :] * wins)
        optimizer.zero_grad()
        preferences(log_p - ref, share, lambda c, r: sigmoid(c, r, beta=BETA)).backward()
        optimizer.step()
    best = (ref + rewards / BETA).softmax(1)
    assert float((logits.detach().softmax(1) - best).abs().sum(1).max()) / 2 < 1e-4


def log_ratio_after(steps: int, rate: float, loss: Callable[..., torch.Tensor]) -> float:
    """Two responses, the first always preferred: log π/π_ref of the first less that of the second after some steps of
    gradient descent."""
    ref = torch.tensor([0.3, 0.7], dtype=torch.float64).log()
    logits = ref.clone().requires_grad_()
    for _ in range(steps):
        chosen, rejected = logits.log_softmax(0) - ref
        (slope,) = torch.autograd.grad(loss(chosen, rejected), logits)
        with torch.no_grad():
            logits -= rate * slope
    chosen, rejected = (logits.log_softmax(0) - ref).tolist()
    return float(chosen - rejected)


def test_ipo_does_not_over_fit_deterministic_preferences_where_dpo_does() -> None:
    """β = 0.25. IPO stays at the log-ratio 1/(2β) = 2; DPO's grows with the logarithm of the steps, by ln 2/β = 2.8
    each time they double, so that β no longer keeps the policy near its reference."""
    by_ipo = [log_ratio_after(steps, 0.05, lambda c, r: ipo(c, r, beta=0.25)) for steps in (500, 1000)]
    assert by_ipo == pytest.approx([2.0, 2.0], abs=1e-9)
    by_dpo = [log_ratio_after(steps, 20.0, lambda c, r: sigmoid(c, r, beta=0.25)) for steps in (500, 1000, 2000)]
    assert by_dpo[0] > 20
    assert [b - a for a, b in pairwise(by_dpo)] == pytest.approx([2.77, 2.77], abs=0.05)
