"""How a run goes on: distance to the reference (M5), held-out tasks (M10), how early the reward is reached (M11)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from posttrain.alerts import StepRecord
from posttrain.monitors.alarms import Suspect
from posttrain.monitors.paying import Paying
from posttrain.monitors.stopping import Observed
from posttrain.monitors.warning import Comparison, Floats, Looked, Sign, WarningMonitor, compared, risen
from posttrain.runs.audit import Thresholds

CLOSE = 0.8
"""M5: the share of d* at which it warns."""
EVALUATIONS, FALL, RISE = 3, 0.05, 0.02
"""M10: evaluations that are compared with as many before them; by how much they must be lower, and the reward of
training higher, in shares of what there is to get."""
PAID, EARLIER, ERRORS = 16, 0.3, 3.0
"""M11: paid answers of which a mean is taken; its rise, also in standard errors (it is compared less often)."""
CUT = "cut/"


def distance(optimum: float) -> WarningMonitor:
    """M5: d, the square root of the KL divergence of whole answers from the reference, in nats, beside d*, at which the
    audit expects that optimising the reward brings nothing more (Gao et al., arXiv:2210.10760)."""
    limit = CLOSE * optimum

    def judge(first: Floats, recent: Floats) -> tuple[float, float, bool]:
        value = math.sqrt(max(0.0, float(recent.mean())))
        return value, limit, value > limit

    words = (
        "the policy is {value:.2f} from its reference (root of the KL of an answer), "
        f"near the {optimum:.2f} at which the audit expects this reward to be over-optimised"
    )
    return WarningMonitor("M5", compared(_distance, Comparison(judge, words, first=0)))


def _distance(record: StepRecord) -> Observed:
    kl = record.metrics.get("kl_sequence")
    return Observed([] if kl is None else [float(kl)], _best(record))


class HeldOut:
    """The look of M10 at evaluations: the last three of them beside the three before."""

    def __init__(self, audit: Thresholds | None) -> None:
        self._paying = Paying(audit)
        self._rewards: list[float] = []
        self._evaluations: list[tuple[float, float]] = []
        """On held-out tasks, and in training since the evaluation before."""

    def __call__(self, record: StepRecord) -> Looked:
        self._paying.see(score.total for group in record.groups for score in group.scores)
        reward, held_out = record.metrics.get("reward"), record.metrics.get("eval/reward")
        self._rewards += [] if reward is None else [float(reward)]
        if held_out is None or not self._rewards:
            return Looked()
        self._evaluations.append((float(held_out), math.fsum(self._rewards) / len(self._rewards)))
        self._rewards = []
        before, recent = self._evaluations[-2 * EVALUATIONS : -EVALUATIONS], self._evaluations[-EVALUATIONS:]
        if len(before) < EVALUATIONS:
            return Looked()
        (value, trained), (earlier, trained_earlier) = map(_means, (recent, before))
        threshold = earlier - FALL * self._paying.range
        apart = max(score for score, _ in recent) < min(score for score, _ in before)
        if not (apart and value < threshold and trained > trained_earlier + RISE * self._paying.range):
            return Looked()
        reason = (
            f"the reward rises in training (from {trained_earlier:.3g} to {trained:.3g}) and falls on held-out tasks "
            f"(from {earlier:.3g} to {value:.3g}, in {EVALUATIONS} evaluations each)"
        )
        kl = record.metrics.get("kl")
        reason += "" if kl is None else f"; the KL to the reference is {kl:.3g} a token"
        return Looked(Sign(value, threshold, reason), _best(record))


def held_out(audit: Thresholds | None) -> WarningMonitor:
    """M10, second part: the reward on held-out tasks falls while it rises in training."""
    return WarningMonitor("M10", HeldOut(audit))


def effort(audit: Thresholds | None) -> WarningMonitor:
    """M11: of answers that the reward pays, at how many of the places where their reasoning was cut it was paid
    already. That more answers are paid, as learning has it, changes nothing about the share among them."""
    paying = Paying(audit)

    def observe(record: StepRecord) -> Observed:
        paying.see(score.total for group in record.groups for score in group.scores)
        suspects = list(_early(record, paying))
        return Observed([suspect.weight for suspect in suspects], suspects)

    words = (
        "paid answers would have been paid after {value:.0%} of the cuts of their reasoning (at the beginning "
        "{first:.0%}): what is paid needs less reasoning than before"
    )
    return WarningMonitor("M11", compared(observe, Comparison(risen(EARLIER, ERRORS), words, first=PAID, recent=PAID)))


def _early(record: StepRecord, paying: Paying) -> Iterator[Suspect]:
    """Each paid answer that was cut, with the share of cuts after which it was paid."""
    for group in record.groups:
        cuts = [values for name, values in group.regraded.items() if name.startswith(CUT)]
        for rollout, score, *after in zip(group.rollouts, group.scores, *cuts, strict=True):
            known = [value for value in after if value is not None]
            if known and score.total is not None and paying.pays(score.total):
                share = sum(map(paying.pays, known)) / len(known)
                yield Suspect(record.step, rollout, share, f"paid after {share:.0%} of the cuts")


def _best(record: StepRecord) -> list[Suspect]:
    """The answers of a step, by their reward."""
    pairs = [pair for group in record.groups for pair in zip(group.rollouts, group.scores, strict=True)]
    return [Suspect(record.step, rollout, score.total) for rollout, score in pairs if score.total is not None]


def _means(evaluations: Sequence[tuple[float, float]]) -> tuple[float, float]:
    held_out, trained = zip(*evaluations, strict=True)
    return math.fsum(held_out) / len(held_out), math.fsum(trained) / len(trained)
