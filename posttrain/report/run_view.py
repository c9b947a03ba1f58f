"""What a page shows of a run."""

from __future__ import annotations

import math

from posttrain.report import charts
from posttrain.runs.reader import Run
from posttrain.wording import described

MAIN_CURVES = (
    "reward",
    "eval/reward",
    "eval/accuracy",
    "eval/loss",
    "accuracy",
    "loss",
    "kl",
    "margin",
    "response_length",
    "entropy",
)
"""What a reader looks at first, in this order: what the run is to raise or lower, then what it may do on the way."""
NOT_CURVES = ("step",)


class RunView:
    """A run under the name that a page gives it. Each of its files is read once."""

    def __init__(self, run: Run, name: str) -> None:
        self.name, self.text = name, run.text
        self.config, self.lineage, self.cost = run.config, run.lineage, run.cost
        self.metrics, self.events, self.evaluations = run.metrics, run.events, run.evaluations
        self.rollouts = run.first_and_last_rollouts
        self.settings = {name: run.text(f"evaluations/{name}.json") for name in sorted(self.evaluations)}
        """What the evaluations were made with, as it is written."""
        self.measured = {n.replace("_", " "): list(described(numbers)) for n, numbers in run.measured.items()}
        """(name, words) of the numbers that are not of tasks, by what they are of."""

    def curves(self, names: tuple[str, ...] | None = None) -> list[charts.Curve]:
        """Drawings of the metrics `names`, or of all."""
        if not self.metrics:
            return []
        known = [name for name in self.metrics.columns if name not in NOT_CURVES]
        drawn = (self._curve(n) for n in (names or known) if n in known)
        return [c for c in drawn if c is not None]

    def _curve(self, name: str) -> charts.Curve | None:
        """An evaluation comes every few steps only: its line goes from one to the next and is not broken between."""
        rows = [row for row in self.metrics if row.get(name) is not None or not name.startswith("eval")]
        steps = [float(row["step"]) for row in rows]
        return charts.curve(name, steps, [finite(row.get(name)) for row in rows])


def finite(value: object) -> float | None:
    """A finite number of a metric; None for anything else, a whole number that no float holds among them."""
    try:
        known = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return None
    return float(value) if known else None  # type: ignore[arg-type]
