"""The observers that every run has (progress, early stopping, finite losses, failing rewards), and who calls them."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from posttrain.alerts import Alert, Observer, StepRecord
from posttrain.console import Progress, short_path, warn
from posttrain.rewards.failures import FailureWatch
from posttrain.rewards.scorer import Scorer
from posttrain.runs.log import RunLog
from posttrain.train.checkpoints import DamagedFile, load_weights, save_weights
from posttrain.types import InputError, RunFailed

if TYPE_CHECKING:
    from posttrain.config import TrainConfig
    from posttrain.train.loop import Stage

BEST = "best.safetensors"
SHOWN_ALWAYS = ("eval/loss", "eval/accuracy", "eval/reward", "tokens_per_second")
"""Metrics beside the progress bar, whatever the method."""


class Watch:
    """The observers of a run: writes what they say to `events.jsonl` and console; ends a run whose observer fails."""

    def __init__(self, log: RunLog, observers: Sequence[Observer]) -> None:
        self._log = log
        self._observers = observers

    def see(self, record: StepRecord) -> list[Alert]:
        """What the observers say of a step. Raises RunFailed where one raises, with a message that names it."""
        try:
            return [
                alert
                for observer in self._observers
                for alert in self._alerts(observer, partial(observer, record), record.step, record.replayed)
            ]
        except RunFailed as error:
            self._log.event("stopped", step=record.step, reason=str(error))
            raise

    def finish(self, step: int) -> None:
        for observer in self._observers:
            self._alerts(observer, getattr(observer, "finish", tuple), step)

    def close(self) -> None:
        """Let the observers go. One that cannot close is only named: the steps are done."""
        for observer in self._observers:
            try:
                getattr(observer, "close", tuple)()
            except Exception as error:
                warn(f"the observer {_name(observer)} could not be closed: {type(error).__name__}: {error}")

    def _alerts(
        self, observer: Observer, call: Callable[[], Iterable[Alert] | None], step: int, replayed: bool = False
    ) -> list[Alert]:
        out = []
        try:
            found = call()
            if not isinstance(found, Iterable | None):
                raise TypeError(f"it returned {found!r}; return a list of alerts, or nothing")
            for alert in found or ():
                if not isinstance(alert, Alert):
                    raise TypeError(f"it returned {alert!r}, which is no Alert")
                out.append(alert)
                if not replayed:
                    self._write(alert, step)
        except (RunFailed, InputError):  # a run that must end, or a disk that is full
            raise
        except Exception as error:
            name = f"the observer {_name(observer)}"
            raise RunFailed(f"step {step}: {name} failed: {type(error).__name__}: {error}") from error
        return out

    def _write(self, alert: Alert, step: int) -> None:
        if alert.fields is not None:
            self._log.event(alert.kind, **alert.fields)
        elif alert.text:
            self._log.event(alert.kind, step=step, action=alert.action, reason=alert.text)
        if alert.text and alert.action not in ("note", "pause"):
            warn(f"{self._log.out}: {alert.text}")


def _name(observer: Observer) -> str:
    return str(getattr(observer, "__qualname__", type(observer).__qualname__))


def default_observers(log: RunLog, config: TrainConfig, stage: Stage, done: int) -> list[Observer]:
    """Those of every run, after the stage's own; it goes on after the step `done`."""
    out: list[Observer] = [*stage.observers, check_finite]
    if config.patience is not None:
        out.append(EarlyStopping(log, config, stage))
    title = f"{stage.kind} {short_path(config.model)}"
    shown = (*stage.shown, *SHOWN_ALWAYS)
    return [*out, NoLearningSignal(), ProgressLine(title, stage.total_steps, shown, done)]


class ProgressLine:
    """Shows the steps and the metrics that say most about the method, `shown`."""

    def __init__(self, title: str, total: int | None, shown: Sequence[str], done: int) -> None:
        self._shown = shown
        self._progress = Progress(title, total).__enter__()
        if done:
            self._progress.advance(done, {})

    def __call__(self, record: StepRecord) -> None:
        if not record.replayed:
            row = record.metrics
            self._progress.advance(record.step, {name: row[name] for name in self._shown if name in row})

    def close(self) -> None:
        self._progress.__exit__(None, None, None)


def not_finite(metrics: Mapping[str, Any]) -> str | None:
    return next((n for n in ("loss", "grad_norm") if metrics[n] is not None and not math.isfinite(metrics[n])), None)


def check_finite(record: StepRecord) -> None:
    """End a run that has diverged, before its weights go into a checkpoint."""
    if (name := not_finite(record.metrics)) is not None:
        value = record.metrics[name]
        raise RunFailed(f"step {record.step}: {name} is {value}; the run has diverged, lower --learning-rate")


class EarlyStopping:
    """Stops a run after `patience` evaluations without a lower objective, and gives it its best weights at the end."""

    def __init__(self, log: RunLog, config: TrainConfig, stage: Stage) -> None:
        self._log = log
        self._weights = stage.policy.weights
        self._objective = stage.objective
        self._every = config.eval_every or 1
        self._patience = config.patience or 1
        self._at_end: float | None = None
        """The objective after the last step, where no evaluation falls on it. A longer run takes none there, so that it
        counts neither as the best so far nor for the patience."""
        self._last = 0
        self.best: float | None = None
        self.best_step = 0
        self.evaluations_without_gain = 0

    def __call__(self, record: StepRecord) -> Iterator[Alert]:
        objective, self._at_end, self._last = self._objective(record.metrics), None, record.step
        if objective is not None and record.step % self._every:
            self._at_end = objective
        elif objective is not None and self.update(record.step, objective) and not record.replayed:
            self._log.write_folder("best", lambda out: save_weights(self._weights(), out / BEST))
        if self.evaluations_without_gain >= self._patience:
            yield Alert("patience", action="stop")

    def update(self, step: int, objective: float) -> bool:
        """Take in an evaluation; True if it is the best so far."""
        if self.best is None or objective < self.best:
            self.best, self.best_step, self.evaluations_without_gain = objective, step, 0
            return True
        self.evaluations_without_gain += 1
        return False

    def finish(self) -> Iterator[Alert]:
        if self._at_end is not None and (self.best is None or self._at_end < self.best):
            self.best, self.best_step = self._at_end, self._last
        elif self.best_step:
            try:
                load_weights(self._weights(), self._log.out / "best" / BEST)
            except DamagedFile as error:
                raise RunFailed(
                    f"the weights of the best step cannot be used: {error}; begin anew with another --out"
                ) from error
        if self.best_step:
            yield Alert("best_step", action="note", fields={"step": self.best_step, "objective": self.best})


class UnscoredWatch:
    """Notes answers without a score in every step but `told`, and warns of the first; ends a run with too many (see
    `FailureWatch`). Warns once of a step in which no reward applied to an answer."""

    def __init__(self, limit: float, scorer: Scorer | None, told: Collection[int] = ()) -> None:
        self._failures = FailureWatch(limit)
        self._scorer = scorer
        self._told = told
        self._warned = self._none_applied = False

    def __call__(self, record: StepRecord) -> Iterator[Alert]:
        scores = [score for group in record.groups for score in group.scores]
        failed = [score for score in scores if score.failed]
        if failed and record.step not in self._told:
            fields = {"step": record.step, "count": len(failed), "first_reason": failed[0].reason}
            text = f"step {record.step}: {len(failed)} of {len(scores)} answers have no score ({failed[0].reason})"
            yield Alert("unscored", text, "note" if self._warned else "warn", fields)
            self._warned |= not record.replayed
        elif scores and all(score.total is None for score in scores) and not (self._none_applied or record.replayed):
            self._none_applied = True
            text = (
                f"step {record.step}: none of {len(scores)} answers has a score: every reward returned None, as a "
                "function without `return` does"
            )
            yield Alert("none_applied", text, "warn", {"step": record.step, "reason": text})
        self._failures.add(record.step, [group.scores for group in record.groups])
        self._failures.check(self._scorer.first_traceback if self._scorer is not None else None)


class NoLearningSignal:
    """Warns at the end of a run of which no step had a token to train."""

    def __init__(self) -> None:
        self._steps = 0
        self._learnt = False
        self._scores: list[float] = []
        self._unscored: list[float] = []

    def __call__(self, record: StepRecord) -> None:
        row = record.metrics
        self._steps += 1
        self._learnt |= row.get("loss") is not None
        self._scores += [row["reward"]] if row.get("reward") is not None else []
        self._unscored.append(row.get("unscored") or 0.0)

    def finish(self) -> Iterator[Alert]:
        if self._learnt or not self._steps:
            return
        scores = self._scores
        scored = f"the mean score was {sum(scores) / len(scores):.3g}" if scores else "no answer had a score"
        if scores and any(self._unscored):
            scored += f", and {sum(self._unscored) / self._steps:.0%} of the answers had none"
        reason = (
            f"nothing was learnt: in none of {self._steps} steps was there a group of answers whose scores differ "
            f"({scored}), so the model is still the one it began with. See rollouts.jsonl, then use a reward that "
            "tells answers apart, tasks that the model solves now and then, a larger --group-size or a higher "
            "--temperature"
        )
        yield Alert("nothing_learnt", reason, fields={"steps": self._steps, "reason": reason})
