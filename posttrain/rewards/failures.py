"""When rewards fail too often."""

from __future__ import annotations

from collections import deque

from posttrain.numbers import wilson
from posttrain.types import RunFailed, Score


class FailureWatch:
    """Stops a run when surely too many of its rollouts cannot be scored.

    Over the last `window` scores, the lower bound of the 95% Wilson interval of the share of failures is compared with
    `max_unscored_share`. A score of None to which no part applied is no failure."""

    def __init__(self, max_unscored_share: float, window: int = 200) -> None:
        self._limit = max_unscored_share
        self._recent: deque[bool] = deque(maxlen=window)
        self._first_reason: str | None = None

    def add(self, score: Score) -> None:
        self._recent.append(score.failed)
        if self._first_reason is None:
            self._first_reason = score.reason

    def check(self, traceback: str | None = None) -> None:
        """Raise RunFailed with the first reason (and traceback) if the limit is surely exceeded."""
        failed, n = sum(self._recent), len(self._recent)
        if wilson(failed, n)[0] <= self._limit:
            return
        message = (
            f"{failed} of the last {n} rollouts could not be scored, surely more than max_unscored_share="
            f"{self._limit:g}. The first reason: {self._first_reason}"
        )
        more = traceback.rstrip() if traceback else ""  # without a frame of the reward it only repeats the reason
        raise RunFailed(message if more in message else f"{message}\n{more}")
