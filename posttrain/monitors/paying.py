"""What it means that a reward pays an answer."""

from __future__ import annotations

from collections.abc import Iterable

from posttrain.runs.audit import Thresholds


class Paying:
    """Whether a reward pays an answer: whether the answer gets more than half of what there is to get.

    With an audit that is (F + C)/2, F being the mean reward of an empty answer and C that of the reference answer.
    Without, it is half way between the lowest and the highest reward of the run so far, 0 among them: 0.5 for rewards
    of 0 and 1, and 0 for rewards of −1 and 1."""

    def __init__(self, audit: Thresholds | None = None) -> None:
        self._audited = audit is not None and audit["best"] > audit["empty"]
        self._low, self._high = (audit["empty"], audit["best"]) if audit is not None and self._audited else (0.0, 0.0)

    def see(self, rewards: Iterable[float | None]) -> None:
        """Rewards of the run; None is of an answer without."""
        if not self._audited:
            for reward in rewards:
                if reward is not None:
                    self._low, self._high = min(self._low, reward), max(self._high, reward)

    @property
    def range(self) -> float:
        """What there is to get."""
        return self._high - self._low

    def pays(self, reward: float) -> bool:
        return self._low < self._high and reward > (self._low + self._high) / 2
