"""The monitors that may stop a run: their bounds and bets by hand, by enumeration and by simulation; what each
observes in a step; their alarms."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from posttrain.alerts import Alert, StepRecord
from posttrain.monitors.alarms import EXCERPT, Suspect, alarm, worst
from posttrain.monitors.paying import Paying
from posttrain.monitors.stopping import (
    ALPHA,
    WINDOW,
    Observed,
    StoppingMonitor,
    Watched,
    stopping_monitors,
    watched_canaries,
    watched_failures,
    watched_sealed,
)
from posttrain.runs.audit import Thresholds
from posttrain.stats import STAKES, share, upper_bound
from posttrain.types import Group, Message, Rollout, Sampling, Score, Task


def rollout(task: str = "a", index: int = 0, text: str = "It is 4.") -> Rollout:
    return Rollout(task, index, Sampling(8), 0, (Message("assistant", text),), ())


def group(totals: Sequence[float | None], task: str = "a", **regraded: Sequence[float | None]) -> Group:
    """A group whose rollouts have these scores; one of None failed."""
    scores = tuple(Score(total, {}, "timed out" if total is None else None) for total in totals)
    rollouts = tuple(rollout(task, i) for i in range(len(totals)))
    return Group(Task(task, "2 + 2?"), rollouts, scores, {name: tuple(values) for name, values in regraded.items()})


def record(step: int, *groups: Group, replayed: bool = False) -> StepRecord:
    return StepRecord(step, None, {"step": step}, groups, (), replayed)


def audit(best: float = 1.0, empty: float = 0.0, paid: int = 0, n: int = 200) -> Thresholds:
    return Thresholds(best=best, empty=empty, canary=share(paid, n), distance=None)


# -- bounds and bets --------------------------------------------------------------------------------------------------


def test_an_upper_bound_by_hand() -> None:
    """Who stakes everything multiplies the wealth by 1/(1 − m) with each 0: two zeros give 1/0.25 at m = 0.5. A stake
    of half gives 0.5 + 0.5/(1 − m) = 2 at m = 2/3."""
    assert upper_bound([0.0, 0.0], 0.25, np.array([1.0])) == pytest.approx(0.5)
    assert upper_bound([0.0], 0.5, np.array([0.5])) == pytest.approx(2 / 3)
    assert upper_bound([0.5], 0.5, np.array([0.5])) == pytest.approx(1 - 0.5 / 3)  # 0.5 + 0.25/(1 − m) = 2
    assert upper_bound([], 0.05) == upper_bound([1.0] * 9, 0.05) == 1.0


@pytest.mark.parametrize(("n", "level"), [(12, 0.05), (40, 0.05), (40, 0.3)])
def test_an_upper_bound_is_too_low_with_its_probability_at_most(n: int, level: float) -> None:
    """Over all numbers of ones among n, with their binomial probabilities."""
    bounds = [upper_bound([1.0] * k + [0.0] * (n - k), level) for k in range(n + 1)]
    assert bounds == sorted(bounds)
    for p in np.linspace(0.01, 0.99, 50):
        below = sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1) if bounds[k] < p)
        assert below <= level


class Given:
    """Observations by step."""

    def __init__(self, steps: Sequence[Sequence[float]]) -> None:
        self.steps = steps

    def __call__(self, record: StepRecord) -> Observed:
        return Observed(self.steps[record.step - 1], [Suspect(record.step, rollout())])


def alarms(monitor: StoppingMonitor, steps: int, replayed: bool = False) -> list[Alert]:
    return [alert for n in range(1, steps + 1) for alert in monitor(record(n, replayed=replayed))]


def monitor_of(steps: Sequence[Sequence[float]], limit: float | None = None, level: float = 0.05) -> StoppingMonitor:
    return StoppingMonitor(Watched("M0", Given(steps), "{value} {limit} {since}", limit), level, "warn")


def plain_log_wealth(steps: Sequence[Sequence[float]], limits: Sequence[float]) -> float:
    """The definition: for each step j that a bet may begin with, the mean over stakes of what it has become, where the
    limit is another for each step."""
    total = 1 / math.log2(len(steps) + 2)
    for j in range(len(steps)):
        later = list(zip(steps[j:], limits[j:], strict=True))
        bets = [math.prod(1 - c + c * x / m for xs, m in later for x in xs) for c in STAKES]
        total += (1 / math.log2(j + 2) - 1 / math.log2(j + 3)) * sum(bets) / len(bets)
    return math.log(total)


def test_the_alarm_comes_with_the_step_at_which_the_plain_wealth_is_reached() -> None:
    rng = np.random.default_rng(1)
    steps = [(rng.binomial(4, 0.1 if t < 20 else 0.35, 3) / 4).tolist() for t in range(60)]
    (alert,) = alarms(monitor_of(steps, limit=0.2), 60)
    wealth = [plain_log_wealth(steps[:t], [0.2] * t) for t in range(1, 61)]
    first = next(t for t, w in enumerate(wealth, start=1) if w >= math.log(20))
    assert alert.kind == "alarm" and alert.fields is not None
    assert alert.fields["step"] == first and alert.fields["threshold"] == 0.2
    since = int(alert.text.split()[-1])
    assert abs(since - 21) <= 3
    assert alert.fields["value"] == pytest.approx(np.mean(steps[since - 1 : first]))


def test_a_limit_falls_after_each_window_and_never_rises() -> None:
    """Bounds with a quarter of the level, an eighth, and so on; each counts from the step after its window."""
    rng = np.random.default_rng(2)
    means = [0.25, 0.05, 0.15]
    steps = [(rng.random(8) < means[t // WINDOW]).astype(float).tolist() for t in range(3 * WINDOW)]
    monitor, limits = monitor_of(steps), []
    for n in range(1, len(steps) + 1):
        limits.append(monitor.limit)
        assert not list(monitor(record(n)))
    flat = [[x for xs in steps[i : i + WINDOW] for x in xs] for i in range(0, len(steps), WINDOW)]
    bounds = [upper_bound(xs, 0.05 / 2 ** (k + 2)) for k, xs in enumerate(flat)]
    assert 0.25 < bounds[0] < 0.5 and bounds[1] < bounds[2]
    assert limits == [0.5] * WINDOW + [bounds[0]] * WINDOW + [bounds[1]] * WINDOW
    assert monitor.limit == bounds[1]
    assert monitor._test.log_wealth == pytest.approx(plain_log_wealth(steps, limits), abs=1e-9)


@pytest.mark.parametrize("limit", [0.01, 0.2, None])
def test_few_runs_within_the_limit_have_an_alarm(limit: float | None) -> None:
    """150 runs of 70 steps whose mean is the limit or, without one, always 0.2, at a level of 20%."""
    rng = np.random.default_rng(3)
    p = 0.2 if limit is None else limit
    steps = rng.random((150, 70, 4)) < p
    found = sum(bool(alarms(monitor_of(run.astype(float).tolist(), limit, level=0.2), 70)) for run in steps)
    assert (0 if limit is None else 1) <= found <= 30


def test_a_mean_that_rises_is_found() -> None:
    rng = np.random.default_rng(4)
    for _ in range(10):
        steps = [(rng.random(8) < (0.1 if t < 60 else 0.5)).astype(float).tolist() for t in range(80)]
        (alert,) = alarms(monitor_of(steps), 80)
        assert alert.fields is not None and 60 < alert.fields["step"] <= 75


def test_where_most_are_wrong_from_the_beginning_there_is_an_alarm() -> None:
    (alert,) = alarms(monitor_of([[1.0, 1.0, 0.5]] * 30), 30)
    assert alert.fields is not None and alert.fields["threshold"] == 0.5


def test_without_observations_nothing_happens() -> None:
    monitor = monitor_of([[]] * 100)
    assert not alarms(monitor, 100)
    assert monitor.limit == 0.5


def test_a_rollback_begins_a_new_test_with_half_of_the_error() -> None:
    """Bets of all on a limit of 0.01 are enough with one step of ones: 1/level of 40, 80, 160 after them."""
    steps = [[1.0, 1.0]] * 3
    monitor = StoppingMonitor(Watched("M0", Given(steps), "", 0.01), 0.05, "rollback")
    assert monitor._level == 0.025
    assert [alert.action for alert in alarms(monitor, 3)] == ["rollback"] * 3
    assert monitor._level == pytest.approx(0.05 / 16)
    other = StoppingMonitor(Watched("M0", Given(steps), "", 0.01), 0.05, "pause")
    assert len(alarms(other, 3)) == 1 and other._level == 0.05


def test_steps_that_are_replayed_rebuild_the_same_state() -> None:
    rng = np.random.default_rng(5)
    steps = [(rng.random(6) < 0.2).astype(float).tolist() for _ in range(70)]
    whole, resumed = monitor_of(steps), monitor_of(steps)
    assert alarms(whole, 70) == alarms(resumed, 50, replayed=True) == []
    for n in range(51, 71):
        assert not list(resumed(record(n)))
    assert resumed._test.log_wealth == whole._test.log_wealth and resumed.limit == whole.limit
    assert resumed._suspects == whole._suspects and [s.step for s in whole._suspects] == [70, 69, 68, 67, 66]


# -- what is observed -------------------------------------------------------------------------------------------------


def test_what_pays() -> None:
    """Without an audit half way between the lowest and the highest so far, 0 among them."""
    plain, signed, negative = Paying(), Paying(), Paying()
    assert not plain.pays(1.0)  # nothing is known of the reward
    plain.see([None, 0.0, 1.0])
    assert plain.pays(0.6) and not plain.pays(0.5)
    signed.see([-1.0, 1.0])
    assert signed.pays(0.1) and not signed.pays(0.0)
    negative.see([-4.0, -1.0])
    assert negative.pays(-1.0) and not negative.pays(-2.0)
    audited = Paying(audit(best=3.0, empty=1.0))
    audited.see([100.0])
    assert audited.pays(2.1) and not audited.pays(2.0)
    uncalibrated = Paying(audit(best=1.0, empty=1.0))
    uncalibrated.see([1.0])
    assert uncalibrated.pays(0.6)


def test_the_sealed_grader_is_asked_about_paid_answers_alone() -> None:
    """By task: one of two paid answers is rejected; none is paid; one is paid and not graded, one has failed; the only
    one that is paid is rejected."""
    watched = watched_sealed(None)
    values, suspects = watched.observe(
        record(
            1,
            group([1.0, 1.0, 0.0], "a", sealed=[1.0, 0.0, 0.0]),
            group([0.0, 0.0, 0.0], "b", sealed=[1.0, 0.0, 0.0]),
            group([1.0, None, 0.0], "c", sealed=[None, 0.0, 0.0]),
            group([1.0], "d", sealed=[0.2]),
            group([1.0], "e"),
        )
    )
    assert list(values) == [0.5, 1.0]
    assert [(s.rollout.task_id, s.rollout.index) for s in suspects] == [("a", 1), ("d", 0)]


def test_canaries_are_observed_by_task() -> None:
    watched = watched_canaries(audit())
    values, suspects = watched.observe(
        record(
            1,
            group([1.0, 0.0, 0.0], "a", swapped=[1.0, None, 0.0]),
            group([1.0], "b", swapped=[None]),
            group([1.0], "c"),
            group([1.0], "d", swapped=[0.4]),
        )
    )
    assert list(values) == [0.5, 0.0]
    assert [s.rollout.task_id for s in suspects] == ["a"]


def test_the_limit_of_canaries_is_at_least_the_bound_of_the_audit() -> None:
    assert watched_canaries(audit(paid=10, n=100)).lowest == share(10, 100)["high"]
    for without in (None, audit(n=0), Thresholds(best=1.0, empty=0.0, canary=None, distance=None)):
        assert watched_canaries(without).lowest == 0.0
    steps = [record(n, *[group([1.0] * 8, swapped=[0.0] * 8) for _ in range(9)]) for n in range(1, WINDOW + 1)]
    for found in (audit(paid=10, n=100), None):
        monitor = StoppingMonitor(watched_canaries(found), 0.05, "warn")
        assert not [alert for step in steps for alert in monitor(step)]
        assert monitor.limit == (share(10, 100)["high"] if found else pytest.approx(upper_bound([0.0] * 270, 0.0125)))


def test_failures_are_observed_by_step() -> None:
    watched = watched_failures()
    values, suspects = watched.observe(record(1, group([1.0, None], "a"), group([0.0, 0.0], "b")))
    assert list(values) == [0.25] and [s.note for s in suspects] == ["timed out"]
    assert watched.observe(record(1)).values == []
    none_applied = Group(Task("a", "?"), (rollout(),), (Score(None, {"math": None}),))
    assert list(watched.observe(record(1, none_applied)).values) == [0.0]


def test_an_outage_of_one_step_is_no_alarm_and_a_broken_grader_is() -> None:
    fine, out = group([1.0] * 64), group([None] * 64)
    (monitor,) = stopping_monitors("stop", sealed=False, canaries=False)
    assert not [a for n in range(1, 41) for a in monitor(record(n, out if n == 30 else fine))]
    (monitor,) = stopping_monitors("stop", sealed=False, canaries=False)
    worse = group([None] * 3 + [1.0] * 61)
    (alert,) = [a for n in range(1, 61) for a in monitor(record(n, worse if n > 30 else fine))]
    assert alert.action == "stop" and alert.fields is not None
    assert alert.fields["monitor"] == "M9" and alert.fields["worst"][0]["note"] == "timed out"
    assert "since step 31 4.7% of the rollouts could not be scored" in alert.text


def test_the_monitors_that_run_share_the_error() -> None:
    for sealed, canaries, names in ((True, True, 3), (True, False, 2), (False, False, 1)):
        found = stopping_monitors("warn", sealed=sealed, canaries=canaries)
        errors = [m._level * (1 if m._watched.limit is not None else 2) for m in found]
        assert errors == pytest.approx([ALPHA / names] * names)


# -- alarms -----------------------------------------------------------------------------------------------------------


def test_an_alarm_names_the_worst_answers() -> None:
    early = worst([Suspect(1, rollout(index=i)) for i in range(3)])
    late = worst([Suspect(2, rollout(index=i, text="why " * 500), weight=i) for i in range(4)], early)
    alert = alarm("M1", record(2), "it is so", value=0.5, threshold=0.1, suspects=late, action="pause")
    assert alert.text == "step 2: alarm of monitor M1: it is so" and alert.action == "pause"
    assert alert.fields is not None
    shown = alert.fields["worst"]
    assert [(s["step"], s["index"]) for s in shown] == [(2, 3), (2, 2), (2, 1), (2, 0), (1, 0)]
    assert len(shown[0]["excerpt"]) == EXCERPT and shown[-1]["excerpt"] == "It is 4."
    assert {k: alert.fields[k] for k in ("monitor", "step", "value", "threshold", "action", "reason")} == {
        "monitor": "M1",
        "step": 2,
        "value": 0.5,
        "threshold": 0.1,
        "action": "pause",
        "reason": "it is so",
    }
