"""Losses as pure functions of tensors.

Per-token tensors have shape [M], one entry a trained token; `weights` [M] are the step's normalisers spread over its
tokens (see `Batch`), so that a loss is a weighted sum and adds up over micro-batches. Logs are natural.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from posttrain.batch.types import LossOutput

LOG_RATIO_LIMIT = 20.0
"""Log-ratios are clamped to ±20 before `exp`: e^20 is far outside every clip range, and no infinity arises."""


def sft_loss(policy_logprobs: torch.Tensor, weights: torch.Tensor) -> LossOutput:
    """Negative log-likelihood: −Σ_t w_t · log π(y_t | y_<t). With w_t = 1/(trained tokens of the step) it is the token
    mean."""
    loss = -(weights * policy_logprobs).sum()
    return LossOutput(loss, {"loss": loss.detach()})


def sequence_sums(values: torch.Tensor, sequence: torch.Tensor, sequences: int) -> torch.Tensor:
    """Sum of the per-token `values` [M] of each sequence [S]; `sequence` [M] numbers the owner of a token."""
    return values.new_zeros(sequences).index_add(0, sequence, values)


def log_ratio(numerator: torch.Tensor, denominator: torch.Tensor) -> torch.Tensor:
    """log(p/q) from log-probabilities, clamped so that its exponential is finite."""
    return (numerator - denominator).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)


def kl_k1(policy_logprobs: torch.Tensor, ref_logprobs: torch.Tensor) -> torch.Tensor:
    """k1 = log π − log π_ref a token, for tokens sampled from π: unbiased for KL(π‖π_ref), can be negative
    (Schulman, "Approximating KL divergence", 2020)."""
    return policy_logprobs - ref_logprobs


def kl_k3(policy_logprobs: torch.Tensor, ref_logprobs: torch.Tensor) -> torch.Tensor:
    """k3 = r − 1 − log r a token with r = π_ref/π, for tokens sampled from π: unbiased for KL(π‖π_ref), never negative
    (Schulman 2020; DeepSeekMath, arXiv:2402.03300, equation 4).

    Only an r that would overflow is clamped: where π is far above π_ref the penalty goes on growing, with slope 1."""
    d = (ref_logprobs - policy_logprobs).clamp(max=LOG_RATIO_LIMIT)
    return torch.expm1(d) - d


def kl_k2(policy_logprobs: torch.Tensor, ref_logprobs: torch.Tensor) -> torch.Tensor:
    """k2 = (log π − log π_ref)²/2 a token. On policy its expected gradient is that of KL(π‖π_ref), which k3's is not
    (Schulman 2020; arXiv:2506.09477)."""
    return 0.5 * log_ratio(policy_logprobs, ref_logprobs) ** 2


def sequence_means(values: torch.Tensor, sequence: torch.Tensor, sequences: int) -> torch.Tensor:
    """For each token [M] the mean of the per-token `values` [M] over its sequence."""
    counts = sequence_sums(torch.ones_like(values), sequence, sequences).clamp(min=1)
    return (sequence_sums(values, sequence, sequences) / counts)[sequence]


@dataclass(frozen=True)
class PolicyLoss:
    """The choices of `policy_loss`. `kl` is None where the loss has no KL term."""

    surrogate: Literal["clip", "sequence-clip", "cispo", "reinforce"] = "clip"
    clip_low: float = 0.2
    clip_high: float = 0.2
    dual_clip: float | None = None
    kl: Literal["k2", "k3"] | None = None
    beta: float = 0.0
    entropy_bonus: float = 0.0


def policy_loss(
    choices: PolicyLoss,
    policy_logprobs: torch.Tensor,
    proximal_logprobs: torch.Tensor,
    advantages: torch.Tensor,
    weights: torch.Tensor,
    *,
    sequence: torch.Tensor | None = None,
    sequences: int = 0,
    ref_logprobs: torch.Tensor | None = None,
    importance: torch.Tensor | None = None,
    entropy: torch.Tensor | None = None,
) -> LossOutput:
    """L = −Σ_t w_t [ m_t J_t − β k_t + α H_t ] over the trained tokens [M].

    With ρ_t = π(y_t)/π_proximal(y_t), the surrogate J_t is

    - `clip`: min(ρ_t A_t, clip(ρ_t, 1−ε_low, 1+ε_high) A_t) (PPO, arXiv:1707.06347, equation 7); with `dual_clip` c not
      below c A_t where A_t < 0 (arXiv:1912.09729, equation 5);
    - `sequence-clip`: the same with the ratio of the token's sequence, exp of its *mean* log-ratio (GSPO,
      arXiv:2507.18071, equations 5 and 7); `sequence` [M] numbers the `sequences` from 0;
    - `cispo`: sg[clip(ρ_t, 1−ε_low, 1+ε_high)] A_t log π(y_t), sg stopping the gradient (arXiv:2506.13585, equation 4);
    - `reinforce`: A_t log π(y_t).

    `importance` m_t are detached weights for sampling by another policy, k_t the k2 or k3 estimate of the KL to the
    reference, `entropy` H_t that of the next-token distribution. How tokens are normalised (GRPO, DAPO, Dr. GRPO) is in
    the weights. Metrics, sums by weight: `loss`; `clip_fraction`, the share of tokens whose ratio was clipped;
    `policy_kl`, the k3 estimate of KL(proximal‖policy) from proximal's samples."""
    difference = log_ratio(policy_logprobs, proximal_logprobs)
    objective, clipped = _surrogate(choices, policy_logprobs, difference, advantages, sequence, sequences)
    if importance is not None:
        objective = objective * importance
    if choices.kl is not None:
        if ref_logprobs is None:
            raise ValueError("a KL penalty needs reference log-probabilities")
        estimate = {"k2": kl_k2, "k3": kl_k3}[choices.kl]
        objective = objective - choices.beta * estimate(policy_logprobs, ref_logprobs)
    if choices.entropy_bonus:
        if entropy is None:
            raise ValueError("an entropy bonus needs the entropy")
        objective = objective + choices.entropy_bonus * entropy
    loss = -(weights * objective).sum()
    moved = difference.detach()
    return LossOutput(
        loss,
        {
            "loss": loss.detach(),
            "clip_fraction": (weights * clipped).sum(),
            "policy_kl": (weights * (torch.expm1(moved) - moved)).sum(),
        },
    )


def _surrogate(
    choices: PolicyLoss,
    policy_logprobs: torch.Tensor,
    difference: torch.Tensor,
    advantages: torch.Tensor,
    sequence: torch.Tensor | None,
    sequences: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """J_t of `policy_loss` and whether the ratio of token t was clipped, from its log-ratio."""
    if choices.surrogate == "reinforce":
        return advantages * policy_logprobs, torch.zeros_like(advantages)
    if choices.surrogate == "sequence-clip":
        if sequence is None:
            raise ValueError("a sequence ratio needs to know the sequences")
        difference = sequence_means(difference, sequence, sequences)
    ratio = difference.exp()
    bounded = ratio.clamp(1 - choices.clip_low, 1 + choices.clip_high)
    if choices.surrogate == "cispo":
        return bounded.detach() * advantages * policy_logprobs, bounded != ratio
    free = ratio * advantages
    objective = torch.minimum(free, bounded * advantages)
    if choices.dual_clip is not None:
        objective = torch.where(advantages < 0, objective.maximum(choices.dual_clip * advantages), objective)
    return objective, objective != free


def value_loss(
    values: torch.Tensor,
    returns: torch.Tensor,
    weights: torch.Tensor,
    proximal_values: torch.Tensor | None = None,
    clip: float | None = None,
) -> LossOutput:
    """½ Σ_t w_t max((V_t − R_t)², (V̄_t − R_t)²) over the trained tokens [M], V̄_t being V_t kept within `clip` of what
    the critic said before the step (Ziegler et al., arXiv:1909.08593; the max as in OpenAI's baselines). Without `clip`
    ½ Σ_t w_t (V_t − R_t)². Metric: `value_loss`."""
    error = (values - returns) ** 2
    if clip is not None:
        if proximal_values is None:
            raise ValueError("clipping values needs those from before the step")
        near = proximal_values + (values - proximal_values).clamp(-clip, clip)
        error = error.maximum((near - returns) ** 2)
    loss = 0.5 * (weights * error).sum()
    return LossOutput(loss, {"value_loss": loss.detach()})


def importance_weights(
    proximal_logprobs: torch.Tensor,
    sampler_logprobs: torch.Tensor,
    kind: Literal["token-truncate", "token-mask", "sequence-truncate", "sequence-mask"],
    limit: float,
    sequence: torch.Tensor,
    sequences: int,
) -> torch.Tensor:
    """m_t for tokens [M] that another engine or an older policy sampled, detached.

    r_t = π_proximal(y_t)/π_sampler(y_t), or for a `sequence` (numbered from 0, `sequences` in all) the exponential of
    its mean log-ratio: the product over a sequence is 0 or overflows for long ones. `truncate`: min(r, C) (Yao et al.
    2025, "Your efficient RL framework secretly brings you off-policy RL training"); `mask`: r inside [1/C, C] and 0
    outside (MIS, Liu et al. 2025, "When speed kills stability"). C is `limit`."""
    difference = log_ratio(proximal_logprobs.detach(), sampler_logprobs)
    if kind.startswith("sequence"):
        difference = sequence_means(difference, sequence, sequences)
    ratio = difference.exp()
    if kind.endswith("truncate"):
        return ratio.clamp(max=limit)
    return ratio * ((ratio <= limit) & (ratio >= 1 / limit))
