"""Losses as pure functions of tensors.

Per-token tensors have shape [M], one entry a trained token; `weights` [M] are the step's normalisers spread over its
tokens (see `Batch`), so that a loss is a weighted sum and adds up over micro-batches. Logs are natural.
"""

from __future__ import annotations

import torch

from posttrain.types import LossOutput

LOG_RATIO_LIMIT = 20.0
"""Log-ratios are clamped to ±20 before `exp`: e^20 is far outside every clip range, and no infinity arises."""


def token_mean_weights(tokens: int, total: int) -> list[float]:
    """Each of `tokens` trained tokens counts 1/`total`, with `total` the trained tokens of the whole step."""
    return [1.0 / total] * tokens


def sft_loss(policy_logprobs: torch.Tensor, weights: torch.Tensor) -> LossOutput:
    """Negative log-likelihood: −Σ_t w_t · log π(y_t | y_<t). With w_t = 1/(trained tokens of the step) it is the token
    mean."""
    loss = -(weights * policy_logprobs).sum()
    return LossOutput(loss, {"loss": float(loss.detach())})


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


def clipped_policy_loss(
    policy_logprobs: torch.Tensor,
    proximal_logprobs: torch.Tensor,
    advantages: torch.Tensor,
    weights: torch.Tensor,
    clip: float,
    ref_logprobs: torch.Tensor | None = None,
    beta: float = 0.0,
) -> LossOutput:
    """The clipped surrogate with a KL penalty (PPO, arXiv:1707.06347, equation 7; GRPO, arXiv:2402.03300, equation 3):

    L = −Σ_t w_t [ min(ρ_t A_t, clip(ρ_t, 1−ε, 1+ε) A_t) − β k3_t ],  ρ_t = π(y_t)/π_proximal(y_t).

    GRPO's normalisation is in the weights: w_t = 1/(scored responses of the step x length of its response). Left out:
    engine-mismatch weights, entropy bonus. `clip_fraction` is the share of tokens, by weight, whose clipped side is the
    smaller one."""
    ratio = log_ratio(policy_logprobs, proximal_logprobs).exp()
    free = ratio * advantages
    clipped = ratio.clamp(1 - clip, 1 + clip) * advantages
    objective = torch.minimum(free, clipped)
    metrics = {"clip_fraction": float((weights * (clipped < free)).sum())}
    if beta:
        if ref_logprobs is None:
            raise ValueError("a KL penalty needs reference log-probabilities")
        objective = objective - beta * kl_k3(policy_logprobs, ref_logprobs)
    loss = -(weights * objective).sum()
    metrics["loss"] = float(loss.detach())
    return LossOutput(loss, metrics)
