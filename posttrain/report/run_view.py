"""What a page shows of one run, and how it opens: what was trained, from where, how far its main number moved, whether
it stopped."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from posttrain.methods import METHODS
from posttrain.report import charts
from posttrain.report.opening import Number, Opening, cost_number
from posttrain.runs.reader import Run
from posttrain.runs.records import AlarmLine, Lineage, checked
from posttrain.wording import described, format_number

SEALED, TRUE = "sealed_reward", "reward/true"
MAIN_CURVES = (
    "reward",
    TRUE,
    SEALED,
    "sealed_gap",
    "canary_rate",
    "effort/25",
    "effort/100",
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
MAIN_METRICS = {
    "eval/reward": "held-out reward",
    "eval/accuracy": "held-out accuracy",
    "eval/loss": "held-out loss",
    TRUE: "mean of the reward that was not paid",
    "reward": "mean reward",
    "accuracy": "accuracy",
    "loss": "training loss",
}
"""What a run is about, the first that it has: a number on held-out data before one on what was trained."""
MARKED = ("reward", TRUE, SEALED, "sealed_gap", "canary_rate")
"""Metrics in whose drawings alarms are marked."""
ALARM = "alarm"
"""The event of an alarm."""
NOW_AND_THEN = ("eval", "effort")
"""What the names of metrics begin with that not every step has."""
ABOUT = {
    SEALED: "The sealed reward (sealed_reward) comes from a second grader that the training never sees; sealed_gap is "
    "what the reward gave more than that. While both rewards rise, the model becomes better at what is wanted. Where "
    "the reward rises alone, the model has found something that is paid and not wanted.",
    "canary_rate": "Canaries are answers that the reward graded once more, by the reference answer of another task; "
    "canary_rate is the share of them that it paid. No model can know that answer, so a rate that rises above where it "
    "began shows that something else than the right answer is paid.",
    "effort/25": "Effort: the reasoning of some answers was cut after 25, 50 and 75% and the model had to answer at "
    "once; effort/25 to effort/75 are the rewards of that, effort/100 those of the whole answers. Where a quarter of "
    "the reasoning earns as much as all of it, the reasoning is not what the reward is for.",
    TRUE: "This run is a control: it was paid by something else in place of its reward (reward), and reward/true is "
    "what the reward would have paid.",
}
"""What a newcomer must know to read these metrics."""
AS_PLANNED = "as planned"
LONGEST_NAME = 60
WINDOW = 0.2
"""A training step's number is of its own rows alone, so the first and the last fifth of the steps are averaged."""


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
        raised = [event for event in self.events if event["event"] == ALARM and "monitor" in event]
        # a run that was killed after an alarm raises it again when it resumes
        alarms = [event for i, event in enumerate(raised) if event not in raised[:i]]
        self.alarms = [checked(alarm, AlarmLine, run.path / "events.jsonl") for alarm in alarms]
        """Those of monitors: an observer of the user's own may call its alerts so too."""
        self.other_events = [event for event in self.events if event not in alarms]

    def curves(self, names: tuple[str, ...] | None = None) -> list[charts.Curve]:
        """Drawings of the metrics `names`, or of all."""
        if not self.metrics:
            return []
        known = [name for name in self.metrics.columns if name != "step"]
        graded, together = self._together(known)
        wanted = [n for n in (names or known) if n in known and not (together and n == SEALED)]
        drawn = (together if n == graded and together else charts.curve(*self._series(n)) for n in wanted)
        marks = [(alarm["step"], alarm["monitor"]) for alarm in self.alarms]
        return [charts.marked(c, marks) if c.title in MARKED else c for c in drawn if c is not None]

    def _together(self, known: Sequence[str]) -> tuple[str, charts.Curve | None]:
        """The reward that the sealed reward grades beside, and the drawing of both; None where one of them leaves
        [0, 1], so that they may be of different scales."""
        graded = TRUE if TRUE in known else "reward"
        if SEALED not in known or graded not in known:
            return graded, None
        both = self._series(graded), self._series(SEALED)
        fits = all(v is None or 0 <= v <= 1 for _, _, values in both for v in values)
        return graded, charts.curves(*both) if fits else None

    def _series(self, name: str) -> charts.Series:
        """What comes every few steps only has a line that goes from one to the next and is not broken between."""
        rows = [row for row in self.metrics if row.get(name) is not None or not name.startswith(NOW_AND_THEN)]
        return name, [float(row["step"]) for row in rows], [finite(row.get(name)) for row in rows]

    @property
    def explained(self) -> list[str]:
        """What `ABOUT` says of the metrics that the run has."""
        return [text for name, text in ABOUT.items() if self.metrics and name in self.metrics.columns]


def finite(value: object) -> float | None:
    """A finite number of a metric; None for anything else, a whole number that no float holds among them."""
    try:
        known = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return None
    return float(value) if known else None  # type: ignore[arg-type]


# -- how the page opens ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Move:
    """From where to where the main number of a run went, and of which steps both are."""

    name: str
    before: float
    after: float
    steps: str
    averaged: str = ""
    """Over what they are means, in brackets."""

    @property
    def text(self) -> str:
        return f"{_words(self.before)} → {_words(self.after)}"

    @property
    def words(self) -> str:
        if self.before == self.after:
            return f"{self.name} {_words(self.after)}"
        return f"{self.name} went from {_words(self.before)} to {_words(self.after)}{self.averaged}"


def run_opening(run: RunView) -> Opening:
    """The opening of a run's page."""
    config, lineage = run.config, run.lineage
    move = _move(run)
    subject = _subject(run, config, lineage)
    steps = _steps(run, config, finished=lineage is not None)
    numbers = [Number(_capital(move.name), move.text, move.steps)] if move else []
    if run.metrics:
        numbers.append(Number("Steps", steps.value, steps.note))
    if run.cost:
        numbers.append(cost_number("Cost", run.cost))
    return Opening(
        _sentence(run, subject, move, steps, finished=lineage is not None), tuple(numbers), tuple(_warnings(run))
    )


def _sentence(run: RunView, subject: str, move: Move | None, steps: Number, *, finished: bool) -> str:
    if not run.metrics:
        if run.evaluations:
            return f"{subject} was evaluated here; this folder holds no training steps."
        return f"{subject}: finished, without training steps." if finished else f"{subject}: no training steps yet."
    made = f"{len(run.metrics)} {'step' if len(run.metrics) == 1 else 'steps'}"
    if not finished:
        state = "did not finish: it stopped after" if _stopped(run) else "has not finished: this is after"
        return f"{subject} {state} {made}{'; ' + move.words if move else ''}."
    early = f", {steps.note}" if steps.note not in ("", AS_PLANNED) else ""
    return f"{subject}: {move.words} in {made}{early}." if move else f"{subject} trained for {made}{early}."


def _subject(run: RunView, config: dict[str, Any], lineage: Lineage | None) -> str:
    kind = str(config.get("algorithm") or (lineage and lineage.stage) or "")
    title = METHODS[kind].title or kind if kind in METHODS else kind.upper() if "algorithm" in config else kind
    method = title or run.name
    if config.get("control"):
        method += f", paid by {config['control']} in place of its reward,"
    model = config.get("model")
    return f"{method} from {_short(str(model))}" if isinstance(model, str) else method


def _steps(run: RunView, config: dict[str, Any], *, finished: bool) -> Number:
    made, planned = len(run.metrics), config.get("max_steps")
    last = int(run.metrics[-1]["step"]) if run.metrics else 0
    best = next((e for e in reversed(run.events) if e["event"] == "best_step"), None)
    notes = []
    if finished and isinstance(planned, int) and last < planned:
        notes.append("stopped early" if best else "stopped by its budget" if config.get("max_flops") else "cut short")
    if best is not None:
        notes.append(f"the weights are those of step {best.get('step')}, the best on held-out data")
    if not notes and made == planned:
        notes.append(AS_PLANNED)
    of = f" of {planned}" if isinstance(planned, int) and planned != made else ""
    return Number("Steps", f"{made}{of}", "; ".join(notes))


def _move(run: RunView) -> Move | None:
    for name, words in MAIN_METRICS.items():
        numbers = [(int(row["step"]), finite(row.get(name))) for row in run.metrics]
        known = [(step, v) for step, v in numbers if v is not None]
        if not known:
            continue
        if name.startswith("eval/"):
            best = next((e["step"] for e in reversed(run.events) if e["event"] == "best_step" and "step" in e), None)
            first, last = known[0], next((k for k in known if k[0] == best), known[-1])
            if len(known) == 1:
                return Move(words, first[1], last[1], f"measured once, at step {first[0]}")
            lowest = min(known, key=lambda k: k[1])
            rose = name == "eval/loss" and lowest[1] < min(first[1], last[1])
            note = f" (lowest: {_words(lowest[1])} at step {lowest[0]})" if rose else ""
            return Move(words, first[1], last[1], f"step {first[0]} to step {last[0]}", note)
        n = max(1, int(len(known) * WINDOW))
        means = [sum(v for _, v in part) / n for part in (known[:n], known[-n:])]
        low, high = (pick(v for _, v in known) for pick in (min, max))
        steps = f"first and last {n} of {len(known)} steps" if n > 1 else "first and last step"
        steps += f"; single steps lie between {_words(low)} and {_words(high)}"
        return Move(words, means[0], means[1], steps, f" (means of the first and last {n} steps)" if n > 1 else "")
    return None


def _warnings(run: RunView) -> list[str]:
    """What a reader of the curves must know: why the run stopped, its alarms, and that nothing was learnt."""
    stopped = _stopped(run)
    learnt = [str(e.get("reason", "")) for e in run.events if e["event"] == "nothing_learnt"]
    alarms = ", ".join(f"{alarm['monitor']} at step {alarm['step']}" for alarm in run.alarms)
    found = [
        f"stopped: {stopped}" if stopped else "",
        f"alarms of monitors: {alarms}; see Alarms below" if alarms else "",
        *learnt,
    ]
    return [_capital(text) for text in found if text]


def _stopped(run: RunView) -> str:
    """Why a run gave up; "" where it finished, or went on since."""
    last = next((e for e in reversed(run.events) if e["event"] in ("stopped", "resumed_from", "finished")), None)
    return str(last.get("reason") or "no reason was written") if last and last["event"] == "stopped" else ""


def _words(value: float) -> str:
    return format_number(value, share=False)


def _short(model: str) -> str:
    return "/".join(model.rstrip("/").split("/")[-2:])[-LONGEST_NAME:]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
