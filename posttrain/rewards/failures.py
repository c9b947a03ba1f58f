"""When rewards fail too often."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from posttrain.stats import MeanTest, likeliest_beginning
from posttrain.types import RunFailed, Score

ERROR = 0.05
"""The probability with which a run within the limit may be stopped, over its whole length."""


class _Step(NamedTuple):
    number: int
    shares: list[float]
    reason: str | None


class FailureWatch:
    """Stops a run whose tasks cannot be scored too often: the mean failed share of a task exceeds `max_unscored_share`.

    An observation is a task: the share of its rollouts that failed, so that it does not matter whether rollouts fail
    one by one or with their task. A score of None to which no part applied is no failure. While the mean of each
    observation, given those before it, is at most the limit, the run is stopped with a probability of at most 5%
    however long it is (`MeanTest`). That does not hold where one cause fails many tasks of a step: each counts,
    and such an outage may stop the run by itself. A limit of 0 stops the run at the first failure, 1 never."""

    def __init__(self, max_unscored_share: float) -> None:
        self._limit = max_unscored_share
        self._test = MeanTest(max_unscored_share)
        self._steps: list[_Step] = []

    def add(self, step: int, tasks: Sequence[Sequence[Score]]) -> None:
        shares = [sum(score.failed for score in scores) / len(scores) for scores in tasks]
        reasons = (score.reason for scores in tasks for score in scores if score.failed)
        self._test.add(shares)
        self._steps.append(_Step(step, shares, next(reasons, None)))

    def check(self, traceback: str | None = None) -> None:
        """Raise RunFailed if the limit is exceeded, with the first reason since then, and the traceback of the run's
        first failure if it is that one."""
        if self._test.log_wealth < math.log(1 / ERROR):
            return
        first = likeliest_beginning([step.shares for step in self._steps], self._limit)
        since = self._steps[first:]
        shares = [share for step in since for share in step.shares]
        reasons = [step.reason for step in self._steps]
        message = (
            f"{sum(shares) / len(shares):.1%} of the rollouts of {len(shares)} tasks since step {since[0].number} "
            f"could not be scored, and max_unscored_share={self._limit:g} is the limit (a run within it is stopped "
            f"like this in at most {ERROR:.0%} of cases). Mend what fails; posttrain score tries a reward on given "
            f"answers. The first reason: {next(filter(None, reasons[first:]), None)}"
        )
        # without a frame of the reward a traceback only repeats the reason
        more = traceback.rstrip() if traceback and not any(reasons[:first]) else ""
        raise RunFailed(message if more in message else f"{message}\n{more}")
