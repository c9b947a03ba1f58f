"""What a page shows of a run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from posttrain.report import charts
from posttrain.runs.reader import Run
from posttrain.runs.records import Cost, Evaluation, Lineage
from posttrain.runs.table import Table
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


@dataclass(frozen=True)
class RunView:
    """A run under the name that a page gives it. Each of its files is read once."""

    run: Run
    name: str

    @cached_property
    def metrics(self) -> Table:
        return self.run.metrics

    @cached_property
    def events(self) -> Table:
        return self.run.events

    @cached_property
    def cost(self) -> Cost | None:
        return self.run.cost

    @cached_property
    def lineage(self) -> Lineage | None:
        return self.run.lineage

    @cached_property
    def config(self) -> dict[str, Any]:
        return self.run.config

    @cached_property
    def evaluations(self) -> dict[str, Evaluation]:
        return self.run.evaluations

    @cached_property
    def settings(self) -> dict[str, str]:
        """What the evaluations were made with, as it is written."""
        return {name: self.run.text(f"evaluations/{name}.json") for name in sorted(self.evaluations)}

    @cached_property
    def measured(self) -> dict[str, list[tuple[str, str]]]:
        """(name, words) of the numbers that are not of tasks, by what they are of."""
        return {name.replace("_", " "): list(described(found)) for name, found in self.run.measured.items()}

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
