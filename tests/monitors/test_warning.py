"""The monitors that only warn: their comparisons by hand; those of how a run goes on; and replayed steps."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from posttrain.alerts import Alert, StepRecord
from posttrain.monitors import answers, progress, scores
from posttrain.monitors.alarms import Suspect
from posttrain.monitors.warning import (
    Comparison,
    Judge,
    Looked,
    Sign,
    WarningMonitor,
    changed,
    crossed,
    risen,
    times,
)
from posttrain.runs.audit import Thresholds
from posttrain.types import Group
from tests.monitors.steps import answer, group, lengths, only, steps

AUDIT = Thresholds(best=1.0, empty=0.0, canary=None, distance=2.0)


# -- comparisons ------------------------------------------------------------------------------------------------------


def signs(judge: Judge, values: Sequence[float], first: int = 4, recent: int = 2) -> list[int]:
    """The values, counted from 1, with which there is a sign."""
    comparison = Comparison(judge, "{value} {threshold} {first}", first=first, recent=recent)
    return [n for n, value in enumerate(values, start=1) if comparison.add([value]) is not None]


def test_a_rise_is_beyond_the_margin_and_beyond_noise() -> None:
    """First values without spread: the margin counts. With 0, 0, 1, 1 the spread is √(1/3), and the standard error of a
    mean of two beside a mean of four √(1/3) · √(3/4) = 1/2: four of them, and the mean of 1/2, are 2.5."""
    assert signs(risen(0.25), [0, 0, 0, 0, 0.25, 0.25, 0.5, 0.0, 1.0]) == [7, 9]
    assert signs(risen(0.25), [0, 0, 1, 1, 2.4, 2.4, 2.7]) == [7]
    assert signs(risen(0.25, 1.0), [0, 0, 1, 1, 0.9, 0.9, 1.2]) == [7]


def test_a_change_is_one_of_either_side() -> None:
    comparison = Comparison(changed(0.25), "from {first} to {value}", first=1, recent=1)
    assert comparison.add([0.5, 0.75]) is None
    assert comparison.add([0.125]) == Sign(0.125, 0.25, "from 0.5 to 0.125")
    assert comparison.add([0.875]) == Sign(0.875, 0.75, "from 0.5 to 0.875")


def test_factors_and_a_limit_that_is_crossed() -> None:
    assert signs(times(2.0), [1, 1, 1, 1, 2, 2, 2.5]) == [7]
    assert signs(times(0.5), [1, 1, 1, 1, 0.5, 0.5, 0.25]) == [7]
    assert signs(times(2.0), [0, 0, 0, 0, 1, 1]) == []
    assert signs(crossed(0.5), [0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.75]) == [7]
    assert signs(crossed(0.5), [0.5, 0.5, 0.5, 0.75, 1.0, 1.0]) == []


def test_a_comparison_takes_many_values_or_none_in_a_step() -> None:
    comparison = Comparison(risen(0.0), "{value}", first=3, recent=2)
    assert comparison.add([0, 0]) is None and comparison.add([]) is None
    assert comparison.add([0, 1]) is None  # one of the recent is missing
    assert comparison.add([]) is None
    assert comparison.add([1]) == Sign(1.0, 0.0, "1.0")


def test_a_monitor_warns_once_and_shows_the_last_answers() -> None:
    def look(record: StepRecord) -> Looked:
        return Looked(Sign(record.step, 2.0, "so") if record.step > 2 else None, [Suspect(record.step, answer())])

    fields = only(steps(WarningMonitor("M0", look), *[([], {})] * 5))
    assert (fields["monitor"], fields["step"], fields["value"], fields["threshold"]) == ("M0", 3, 3, 2.0)
    assert [suspect["step"] for suspect in fields["worst"]] == [3, 2, 1]


# -- progress ---------------------------------------------------------------------------------------------------------


def test_m5_warns_near_the_distance_of_the_audit() -> None:
    """d* = 2: above d = 1.6, a KL of 2.56; a mean over ten steps of it comes with the third step of 10 after 0."""
    groups = [group([answer()] * 2, [0, 1])]
    kl = [{"kl_sequence": value} for value in [None] * 3 + [0.0] * 20 + [10.0] * 9]
    fields = only(steps(progress.distance(2.0), *[(groups, metrics) for metrics in kl]))
    assert fields["monitor"] == "M5" and fields["step"] == 26
    assert fields["value"] == pytest.approx(math.sqrt(3)) and fields["threshold"] == pytest.approx(1.6)
    assert not steps(progress.distance(2.0), *[(groups, {"kl_sequence": -0.1})] * 30)


def evaluated(*values: float, rising: bool = True) -> Iterator[tuple[list[Group], dict[str, Any]]]:
    """Every second step has an evaluation; the reward rises from 0.5."""
    for n, value in enumerate(values):
        reward = 0.5 + 0.1 * n * rising
        yield [group([answer()] * 2, [0, 1])], {"reward": reward}
        yield [group([answer()] * 2, [0, 1])], {"reward": reward, "eval/reward": value, "kl": 0.5}


def test_m10_warns_where_held_out_tasks_fall_behind() -> None:
    fields = only(steps(progress.held_out(None), *evaluated(0.3, 0.5, 0.5, 0.6, 0.4, 0.4, 0.3, 0.2)))
    assert fields["monitor"] == "M10" and fields["step"] == 14  # 0.4, 0.4, 0.3 after 0.5, 0.5, 0.6
    assert fields["value"] == pytest.approx(1.1 / 3) and fields["threshold"] == pytest.approx(1.6 / 3 - 0.05)
    assert "(from 0.7 to 1)" in fields["reason"] and "0.5 a token" in fields["reason"]
    for values in ((0.5, 0.5, 0.6, 0.5, 0.4, 0.3), (0.5, 0.5, 0.5, 0.48, 0.48, 0.48), (0.6, 0.6, 0.6, 0.4, 0.4)):
        assert not steps(progress.held_out(None), *evaluated(*values))
    assert not steps(progress.held_out(None), *evaluated(0.6, 0.6, 0.6, 0.4, 0.4, 0.4, rising=False))


def test_m11_reads_the_paid_answers_that_were_cut() -> None:
    """Of the first 1 of 3 cuts was paid, the second was not paid, the third not cut; of the fourth a cut is missing."""
    cut = group(
        lengths(1, 2, 3, 4),
        [1, 0, 1, 1],
        cut_25=[0, 1, None, 1],
        cut_50=[0, 1, None, None],
        cut_75=[1, 1, None, 1],
        sealed=[0, 0, 0, 0],
    )
    paying = progress.Paying(AUDIT)
    found = list(progress._early(StepRecord(1, None, {}, [cut, group(lengths(1), [1])]), paying))
    assert [(s.rollout.index, s.weight) for s in found] == [(0, pytest.approx(1 / 3)), (3, 1.0)]


def test_m11_warns_when_the_reward_comes_earlier() -> None:
    """16 paid answers at first, none paid after a cut: a mean over 16 above 0.3 comes with the fifth that is."""
    late, early = (([group([answer()], [1], cut_25=[value])], {}) for value in (0.0, 1.0))
    unpaid = ([group([answer()], [0], cut_25=[0.0])], {})
    fields = only(steps(progress.effort(AUDIT), *[late] * 32, unpaid, *[early] * 9))
    assert fields["monitor"] == "M11" and fields["step"] == 38 and fields["value"] == pytest.approx(5 / 16)
    assert fields["worst"][0]["note"] == "paid after 100% of the cuts"


# -- resume -----------------------------------------------------------------------------------------------------------


def test_replayed_steps_rebuild_the_same_state() -> None:
    rng = np.random.default_rng(1)
    records = []
    for n in range(60):
        texts = ["You're right." if rng.random() < (0 if n < 40 else 0.6) else f"```\nexit({n})\n```" for _ in range(8)]
        rollouts = [answer(text, rng.integers(0, 9, 6).tolist(), index=i) for i, text in enumerate(texts)]
        parts = {"x": rng.random(8).tolist(), "y": rng.random(8).tolist()}
        records.append(([group(rollouts, rng.random(8).tolist(), parts, cut_25=rng.random(8).tolist())], {}))

    def alerts(replayed: int) -> list[list[Alert]]:
        made = [answers.exploits(), answers.agreement(), answers.repetition(), scores.length(None), scores.parts(())]
        return [steps(monitor, *records, replayed=replayed) for monitor in [*made, progress.effort(None)]]

    assert alerts(0) == alerts(45) and any(alerts(0))
