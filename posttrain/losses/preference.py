"""Preference losses as pure functions: the family of direct preference optimisation.

Each takes scores and gives a loss an entry. The score of a response y to x is its log-ratio log π(y|x) − log π_ref(y|x)
summed over its tokens (the end token included); per token where a loss says `mean`; log π(y|x) alone where it has no
reference. `chosen` and `rejected` are [P], an entry a pair. Logs are natural. Which loss reads what is said once, by
`LossSpec`; `step_loss` adds the chosen ones up so that micro-batches sum to the loss of the whole step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F

from posttrain.batch.types import Metrics, number
from posttrain.config.preference import Term

CERTAIN = -1e-6
"""Mean log-probabilities above this are taken as this, where a response's odds would be infinite."""


def sigmoid(chosen: torch.Tensor, rejected: torch.Tensor, *, beta: float, label_smoothing: float = 0.0) -> torch.Tensor:
    """DPO (Rafailov et al. 2023, arXiv:2305.18290, equation 7), conservative with a share ε of labels taken as flipped
    (cDPO, Mitchell 2023): −(1−ε) log σ(m) − ε log σ(−m), with m = β(chosen − rejected).

    The gradient vanishes where σ(m) = 1 − ε. At π = π_ref the loss is ln 2. With mean scores it is length-normalised
    DPO (Tülu 3, arXiv:2411.15124)."""
    margin = beta * (chosen - rejected)
    return -(1 - label_smoothing) * F.logsigmoid(margin) - label_smoothing * F.logsigmoid(-margin)


def robust(chosen: torch.Tensor, rejected: torch.Tensor, *, beta: float, label_smoothing: float) -> torch.Tensor:
    """rDPO (Chowdhury et al. 2024, arXiv:2403.00409): [−(1−ε) log σ(m) + ε log σ(−m)] / (1−2ε), with m as in `sigmoid`:
    the loss whose mean over labels flipped at rate ε is DPO's on the true ones. It may be negative."""
    margin = beta * (chosen - rejected)
    kept, flipped = -F.logsigmoid(margin), -F.logsigmoid(-margin)
    return ((1 - label_smoothing) * kept - label_smoothing * flipped) / (1 - 2 * label_smoothing)


def ipo(chosen: torch.Tensor, rejected: torch.Tensor, *, beta: float) -> torch.Tensor:
    """IPO (Azar et al. 2023, arXiv:2310.12036, equation 17, its τ is β): (chosen − rejected − 1/(2β))².

    The paper writes whole responses; its authors averaged over tokens (so TRL reports), as is the default here, and
    the target 1/(2β) is then a difference per token."""
    return (chosen - rejected - 1 / (2 * beta)) ** 2


def hinge(chosen: torch.Tensor, rejected: torch.Tensor, *, beta: float) -> torch.Tensor:
    """SLiC's rank calibration (Zhao et al. 2023, arXiv:2305.10425) on implicit rewards, as RSO writes it (Liu et al.
    2023, arXiv:2309.06657): max(0, 1 − β(chosen − rejected))."""
    return torch.relu(1 - beta * (chosen - rejected))


def simpo(chosen: torch.Tensor, rejected: torch.Tensor, *, beta: float, gamma: float) -> torch.Tensor:
    """SimPO (Meng et al. 2024, arXiv:2405.14734, equation 6): −log σ(β(chosen − rejected) − γ), with scores
    log π(y|x)/|y|: no reference."""
    return -F.logsigmoid(beta * (chosen - rejected) - gamma)


def orpo(chosen: torch.Tensor, rejected: torch.Tensor, *, beta: float) -> torch.Tensor:
    """ORPO (Hong et al. 2024, arXiv:2403.07691, equations 4 to 7, its λ is β): −chosen − β log σ(log odds(y_w) −
    log odds(y_l)), with scores log P = log π(y|x)/|y| and odds P/(1 − P): SFT and preference in one, no reference."""
    return -chosen - beta * F.logsigmoid(_log_odds(chosen) - _log_odds(rejected))


def apo_zero(chosen: torch.Tensor, rejected: torch.Tensor, *, beta: float) -> torch.Tensor:
    """APO-zero (D'Oosterlinck et al. 2024, arXiv:2408.06266): 1 − σ(β chosen) + σ(β rejected): the chosen goes up and
    the rejected down, for answers better than the model's own. At π = π_ref it is 1."""
    return torch.sigmoid(-beta * chosen) + torch.sigmoid(beta * rejected)


def apo_down(chosen: torch.Tensor, rejected: torch.Tensor, *, beta: float) -> torch.Tensor:
    """APO-down (arXiv:2408.06266): σ(β chosen) + 1 − σ(β(chosen − rejected)): both go down, the rejected further, for
    answers worse than the model's own. At π = π_ref it is 1."""
    return torch.sigmoid(beta * chosen) + torch.sigmoid(-beta * (chosen - rejected))


def kto(
    scores: torch.Tensor,
    desirable: torch.Tensor,
    baseline: float,
    *,
    beta: float,
    desirable_weight: float,
    undesirable_weight: float,
) -> torch.Tensor:
    """KTO (Ethayarajh et al. 2024, arXiv:2402.01306) on single responses [R]: λ_y − v, that is
    λ_D σ(−β(s − z)) where `desirable` (bool), else λ_U σ(β(s − z)). z is `kto_baseline`, a constant of the step."""
    good = desirable.type_as(scores)
    weight = desirable_weight * good + undesirable_weight * (1 - good)
    return weight * torch.sigmoid(-beta * (2 * good - 1) * (scores - baseline))


def kto_baseline(scores: torch.Tensor) -> float:
    """z of `kto`, an estimate of KL(π‖π_ref) that is biased but cheap: max(0, mean log-ratio) of responses to *other*
    prompts of the step (arXiv:2402.01306, section 4.1). `scores` [R], over the whole step and without gradient."""
    return max(0.0, float(scores.mean()))


def sft(chosen: torch.Tensor) -> torch.Tensor:
    """Negative log-likelihood of the good responses, per token within each: −log π(y|x)/|y| (as in Pang et al. 2024,
    arXiv:2404.19733; Llama 3 adds it to DPO with weight 0.2, arXiv:2407.21783)."""
    return -chosen


def _log_odds(mean_logprob: torch.Tensor) -> torch.Tensor:
    log_p = mean_logprob.clamp(max=CERTAIN)
    return log_p - torch.log(-torch.expm1(log_p))


FUNCTIONS: Mapping[str, Callable[..., torch.Tensor]] = {
    "sigmoid": sigmoid,
    "cdpo": sigmoid,
    "robust": robust,
    "ipo": ipo,
    "hinge": hinge,
    "simpo": simpo,
    "orpo": orpo,
    "kto": kto,
    "apo_zero": apo_zero,
    "apo_down": apo_down,
    "sft": sft,
}
"""By the names of `posttrain.config.preference.LOSSES`, which says what each reads."""


@dataclass(frozen=True)
class Responses:
    """What losses see of R responses, tensors [R]. The members of a pair follow each other, the chosen one first.

    `logprobs` are summed over all tokens. `policy` and `reference` are sums in which tokens may weigh less than 1
    (LD-DPO). `good` and `bad` are the indices of the desirable responses and of the others. `reference` is None where
    no loss needs it. `probability` [P] is how likely each pair's label is right, None where all are certain."""

    logprobs: torch.Tensor
    lengths: torch.Tensor
    good: torch.Tensor
    bad: torch.Tensor
    policy: torch.Tensor
    reference: torch.Tensor | None
    probability: torch.Tensor | None = None

    @property
    def desirable(self) -> torch.Tensor:
        """Which responses are desirable: bool [R]."""
        return torch.zeros_like(self.logprobs, dtype=torch.bool).index_fill(0, self.good, True)

    def scores(self, term: Term) -> torch.Tensor:
        """The score that a loss reads of each response."""
        total = self.logprobs if term.mean and not term.reference else self.policy
        if term.reference:
            if self.reference is None:
                raise ValueError(f"loss {term.loss!r} needs reference log-probabilities")
            total = total - self.reference
        return total / self.lengths if term.mean else total


@dataclass(frozen=True)
class Counts:
    """Responses of the whole step: what sums over micro-batches are divided by."""

    desirable: int
    undesirable: int

    def of(self, term: Term) -> int:
        """Entries of a loss in the step: pairs or desirable responses, or all responses."""
        return self.desirable + self.undesirable if term.spec.reads == "labels" else self.desirable


def step_loss(responses: Responses, terms: Sequence[Term], counts: Counts, baseline: float = 0.0) -> torch.Tensor:
    """What these responses add to the loss of the step: Σ over terms of weight x Σ of its values / its entries in the
    step, so that each loss is a mean over the step however it is split. A term without entries is 0."""
    total = responses.logprobs.new_zeros(())
    for term in terms:
        values = _values(responses, term, baseline)
        total = total + term.weight * values.sum() / max(1, counts.of(term))
    return total


def _values(responses: Responses, term: Term, baseline: float) -> torch.Tensor:
    """What a loss gives, an entry a pair or a response.

    Of a pair whose label is right with probability p it is the mean over what the label may be,
    p ℓ(w, l) + (1−p) ℓ(l, w): for `sigmoid` cDPO with ε = 1 − p for this pair."""
    loss = partial(FUNCTIONS[term.loss], **term.numbers)
    scores = responses.scores(term)
    if term.spec.reads == "labels":
        return loss(scores, responses.desirable, baseline)
    chosen = scores.index_select(0, responses.good)
    if term.spec.reads == "chosen":
        return loss(chosen)
    rejected, p = scores.index_select(0, responses.bad), responses.probability
    return loss(chosen, rejected) if p is None else p * loss(chosen, rejected) + (1 - p) * loss(rejected, chosen)


def step_metrics(responses: Responses, term: Term, counts: Counts, baseline: float = 0.0) -> Metrics:
    """What these responses add to the step's numbers: rewards are β x the score that `term` reads.

    `margin` is the mean reward of chosen less that of rejected responses; `accuracy` the share of pairs with the chosen
    one above, or of single responses on their side of the baseline, as `agreement` counts them; `…_logprob` are sums
    over a response's tokens, and `…_drift` their change from the reference. What has no response is left out."""
    scores, good, bad = responses.scores(term).detach(), responses.good, responses.bad
    rewards = term.numbers["beta"] * scores
    if term.spec.reads == "labels":
        right = agreement((scores - baseline) * (responses.desirable.type_as(scores) * 2 - 1))
    else:
        right = agreement(scores.index_select(0, good) - scores.index_select(0, bad), responses.probability)
    out: Metrics = {"accuracy": number(right.sum()) / max(1, counts.of(term))}
    seen = {"reward": rewards, "logprob": responses.logprobs.detach()}
    if responses.reference is not None:
        seen["drift"] = responses.policy.detach() - responses.reference
    for side, of, count in (("chosen", good, counts.desirable), ("rejected", bad, counts.undesirable)):
        if count:
            out |= {f"{side}_{name}": number(x.index_select(0, of).sum()) / count for name, x in seen.items()}
    if counts.desirable and counts.undesirable:
        out["margin"] = out["chosen_reward"] - out["rejected_reward"]
    return out


def dpo_weights(responses: Responses, terms: Sequence[Term]) -> torch.Tensor | None:
    """σ(r̂_l − r̂_w) of each pair [P], r̂ = β x score, detached: by how much the gradient of `sigmoid` raises log π of
    the chosen response and lowers that of the rejected one, β apart (Rafailov et al. 2023, arXiv:2305.18290, section
    4; with a share ε of flipped labels it is σ(r̂_l − r̂_w) − ε). 1/2 at π = π_ref, towards 1 where the rewards order
    the pair wrongly, near 0 for a pair that has been learned. None where no loss is `sigmoid` or `cdpo`."""
    term = next((term for term in terms if FUNCTIONS[term.loss] is sigmoid), None)
    if term is None:
        return None
    rewards = term.numbers["beta"] * responses.scores(term).detach()
    return torch.sigmoid(rewards.index_select(0, responses.bad) - rewards.index_select(0, responses.good))


def agreement(difference: torch.Tensor, probability: torch.Tensor | None = None) -> torch.Tensor:
    """How likely each label says the same as a model that puts the chosen response above the rejected one by
    `difference` [P]: the `probability` p that the label is right (None: 1) above 0, 1 − p below, a half at 0.

    The mean is what accuracy to expect on labels drawn with these probabilities; none is above the mean of
    max(p, 1 − p)."""
    p = torch.ones_like(difference) if probability is None else probability
    return torch.where(difference > 0, p, torch.where(difference < 0, 1 - p, 0.5))
