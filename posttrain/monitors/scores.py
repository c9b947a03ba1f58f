"""What scores are like: length (M4), the members of an ensemble (M6), equal rewards (M7), parts (M8)."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

from posttrain.alerts import StepRecord
from posttrain.monitors.alarms import Suspect, worst
from posttrain.monitors.paying import Paying
from posttrain.monitors.stopping import Observed
from posttrain.monitors.warning import (
    Comparison,
    Floats,
    Looked,
    Sign,
    WarningMonitor,
    changed,
    compared,
    crossed,
    times,
)
from posttrain.runs.audit import Thresholds
from posttrain.stats import spearman
from posttrain.types import Rollout, Score

CORRELATION, STEPS, FLAT = 0.3, 20, 0.02
"""M4: the rank correlation of reward and length, the steps over which it is the mean, and by how much of its range the
sealed reward may be higher in them than in those before and still counts as flat."""
EQUAL = 0.5
"""M7: the share of groups whose rewards are all equal."""
SPREAD, DEVIATION = 2.0, "deviation"
"""M6: times the spread at the beginning; and the part that a learned ensemble has for it."""
DRIFT = 0.3
"""M8: by which the share of a part changes."""


class Lengths(NamedTuple):
    """Of a step: the mean over groups of the rank correlation of reward and length, the mean sealed reward, and the
    mean lengths of right and wrong answers."""

    correlation: float
    sealed: float
    right: float
    wrong: float


class LengthPays:
    """The look of M4. Right is what the sealed grader passes or, without one, what the reward pays."""

    def __init__(self, audit: Thresholds | None) -> None:
        self._paying, self._sealed = Paying(audit), Paying()
        self._steps: list[Lengths] = []

    def __call__(self, record: StepRecord) -> Looked:
        self._paying.see(score.total for group in record.groups for score in group.scores)
        self._sealed.see(value for group in record.groups for value in group.regraded.get("sealed", ()))
        found, suspects = [], []
        for group in record.groups:
            scored = [(r, s.total) for r, s in zip(group.rollouts, group.scores, strict=True) if s.total is not None]
            correlation = spearman([total for _, total in scored], [r.response_length for r, _ in scored])
            if correlation is not None:
                found.append(correlation)
                paid = [rollout for rollout, total in scored if self._paying.pays(total)]
                suspects += [Suspect(record.step, r, r.response_length, f"{r.response_length} tokens") for r in paid]
        if not found:
            return Looked()
        self._steps.append(Lengths(math.fsum(found) / len(found), *self._graded(record)))
        return Looked(self._sign(), worst(suspects))

    def _graded(self, record: StepRecord) -> tuple[float, float, float]:
        """The mean sealed reward, and the lengths of right and wrong answers."""
        sealed = any("sealed" in group.regraded for group in record.groups)
        values: list[float] = []
        right: list[float] = []
        wrong: list[float] = []
        for group in record.groups:
            grades = group.regraded.get("sealed", ()) if sealed else [score.total for score in group.scores]
            for rollout, grade in zip(group.rollouts, grades, strict=False):
                if grade is not None:
                    values.append(grade)
                    passes = (self._sealed if sealed else self._paying).pays(grade)
                    (right if passes else wrong).append(rollout.response_length)
        return _mean(values if sealed else ()), _mean(right), _mean(wrong)

    def _sign(self) -> Sign | None:
        def mean(steps: Sequence[Lengths], name: str) -> float:
            return _mean([getattr(step, name) for step in steps])

        first, before, recent = self._steps[:STEPS], self._steps[-2 * STEPS : -STEPS], self._steps[-STEPS:]
        value = mean(recent, "correlation")
        if len(before) < STEPS or value <= CORRELATION:
            return None
        sealed = mean(recent, "sealed")
        if sealed > mean(before, "sealed") + FLAT * self._sealed.range:  # not so where there is none
            return None
        flat = "no sealed reward says whether they are better" if math.isnan(sealed) else "the sealed reward is flat"
        right, wrong = (f"{mean(recent, name):.0f} tokens ({mean(first, name):.0f})" for name in ("right", "wrong"))
        reason = (
            f"within groups the reward rises with length (rank correlation {value:.2f} over {STEPS} steps), and "
            f"{flat}; in the mean right answers have {right}, wrong ones {wrong}, at the beginning in brackets"
        )
        return Sign(value, CORRELATION, reason)


def length(audit: Thresholds | None) -> WarningMonitor:
    """M4: within groups, Spearman's correlation of reward and length, while the sealed reward does not rise."""
    return WarningMonitor("M4", LengthPays(audit))


def equal_rewards() -> WarningMonitor:
    """M7, second part: the share of groups whose rewards are all equal."""
    words = (
        "{value:.0%} of the groups of the last steps have equal rewards (at the beginning {first:.0%}) and teach "
        "nothing: the tasks are learnt, or answers have become alike"
    )
    return WarningMonitor("M7", compared(_equal, Comparison(crossed(EQUAL), words)))


def _equal(record: StepRecord) -> Observed:
    share = record.metrics.get("zero_variance_groups")
    suspects = [
        Suspect(record.step, group.rollouts[0], score.total, f"all of its group get {score.total:g}")
        for group in record.groups
        for score in group.scores[:1]
        if score.total is not None and len({s.total for s in group.scores}) == 1
    ]
    return Observed([] if share is None else [float(share)], suspects)


class Spread:
    """What M6 observes: the standard deviation over the members of an ensemble about an answer, its mean over the step.

    Each member is brought to mean 0 and standard deviation 1 of the first step, since members may have other scales. A
    learned ensemble reports the deviation of its members itself, as a part."""

    def __init__(self, ensembles: Collection[str]) -> None:
        self._ensembles = ensembles
        self._scales: dict[str, tuple[float, float]] = {}

    def __call__(self, record: StepRecord) -> Observed:
        pairs = [pair for group in record.groups for pair in zip(group.rollouts, group.scores, strict=True)]
        parts = {name for _, score in pairs for name in score.parts if ensemble_of(name, self._ensembles)}
        spreads: dict[str, Floats] = {}
        for ensemble in sorted({name.rpartition("/")[0] for name in parts}):
            members = sorted(name for name in parts if name.rpartition("/")[0] == ensemble)
            if f"{ensemble}/{DEVIATION}" in members:
                spreads[ensemble] = _column(pairs, f"{ensemble}/{DEVIATION}")
            else:
                spreads[ensemble] = np.stack([self._scaled(name, _column(pairs, name)) for name in members]).std(axis=0)
        if not spreads:
            return Observed()
        by_answer = np.stack(list(spreads.values())).mean(axis=0)
        known = np.flatnonzero(~np.isnan(by_answer))
        suspects = [
            Suspect(record.step, pairs[i][0], float(by_answer[i]), f"a spread of {by_answer[i]:.3g}") for i in known
        ]
        return Observed([float(by_answer[known].mean())] if len(known) else [], suspects)

    def _scaled(self, name: str, values: Floats) -> Floats:
        """The values of a member; NaN where an answer has none."""
        known = values[~np.isnan(values)]
        if name not in self._scales and len(known):
            self._scales[name] = float(known.mean()), float(known.std()) or 1.0
        mean, deviation = self._scales.get(name, (0.0, 1.0))
        return (values - mean) / deviation


def spread(ensembles: Collection[str]) -> WarningMonitor:
    """M6: the spread over the members of the rewards of these names, which are ensembles."""
    words = (
        "the members of the reward's ensemble are {value:.3g} apart about an answer, more than twice the {first:.3g} "
        "of the beginning: the policy has come to answers for which they were not trained"
    )
    return WarningMonitor("M6", compared(Spread(ensembles), Comparison(times(SPREAD), words)))


class Parts:
    """The look of M8: a comparison for each part of the reward, of the square of its correlation with the whole over
    the step's answers. That is its share of the variance if the whole is a sum of independent parts, and needs no
    weights."""

    def __init__(self, ensembles: Collection[str]) -> None:
        self._ensembles = ensembles
        self._by_part: dict[str, Comparison] = {}

    def __call__(self, record: StepRecord) -> Looked:
        pairs = [
            (rollout, score)
            for group in record.groups
            for rollout, score in zip(group.rollouts, group.scores, strict=True)
            if score.total is not None
        ]
        names = sorted({name for _, s in pairs for name in s.parts if not ensemble_of(name, self._ensembles)})
        if len(names) < 2:
            return Looked()
        total = np.array([score.total for _, score in pairs], dtype=float)
        signs = []
        for name in names:
            share = _explained(_column(pairs, name), total)
            sign = self._of_part(name).add([] if share is None else [share])
            if sign is not None:
                signs.append((sign, name))
        if not signs:
            return Looked()
        sign, name = max(signs, key=lambda pair: abs(pair[0].value - pair[0].threshold))
        weights = [(rollout, score.total or 0.0, score.parts.get(name)) for rollout, score in pairs]
        suspects = [
            Suspect(record.step, r, total, f"{name}: {part:.3g}") for r, total, part in weights if part is not None
        ]
        return Looked(sign, worst(suspects))

    def _of_part(self, name: str) -> Comparison:
        words = (
            f"the part {name.replace('{', '{{').replace('}', '}}')} goes with {{value:.0%}} of the reward's variance; "
            "at the beginning it was {first:.0%}. The policy is paid for something else than before"
        )
        return self._by_part.setdefault(name, Comparison(changed(DRIFT), words))


def parts(ensembles: Collection[str]) -> WarningMonitor:
    """M8: the share of the reward's variance that goes with each of its parts, members of ensembles left out."""
    return WarningMonitor("M8", Parts(ensembles))


def ensemble_of(part: str, ensembles: Collection[str]) -> bool:
    """Whether a part is a member of one of the ensembles: `ensemble_min/a` and `gate/ensemble_min/a` are."""
    path = part.split("/")
    return len(path) > 1 and path[-2] in ensembles


def _column(pairs: Sequence[tuple[Rollout, Score]], name: str) -> Floats:
    """A part of each answer; NaN where it has none."""
    return np.array([score.parts.get(name) for _, score in pairs], dtype=float)


def _explained(part: Floats, total: Floats) -> float | None:
    """The square of the correlation; None where the whole is constant. A part that is constant explains nothing."""
    known = ~np.isnan(part)
    x, y = part[known], total[known]
    if len(y) < 2 or y.min() == y.max():
        return None
    if x.min() == x.max():
        return 0.0
    x, y = x - x.mean(), y - y.mean()
    return float((x @ y) ** 2 / ((x @ x) * (y @ y)))


def _mean(values: Floats | Sequence[float]) -> float:
    """The mean without NaN; NaN where nothing is left."""
    known = np.asarray(values, dtype=float)
    known = known[~np.isnan(known)]
    return float(known.mean()) if len(known) else math.nan
