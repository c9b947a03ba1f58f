"""The one order of a run: its settings, its input, the run folder, the steps from the last checkpoint on, the model."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import torch

from posttrain.alerts import Alert, Observer, StepRecord
from posttrain.batch.types import read_numbers
from posttrain.chat.template_date import dated
from posttrain.config import TrainConfig
from posttrain.console import warn
from posttrain.data.fitting import Fitted
from posttrain.models import LanguageModel, save_dtype, weights_hash
from posttrain.models.compute import current, peak_memory, repeatable, reset_peak_memory
from posttrain.models.load import load_model_of
from posttrain.rows import Row
from posttrain.runs.files import read_jsonl, read_metrics
from posttrain.runs.log import RunLog, progress_of, tidy
from posttrain.runs.records import Cost, Lineage
from posttrain.train.checkpoints import load_last, save_checkpoint
from posttrain.train.events import warn_fitted, warn_special_tokens
from posttrain.train.memory import check_card, memory_told
from posttrain.train.observers import Watch, default_observers, not_finite
from posttrain.train.policy import LocalPolicy, Optimization, Policy, seed_everything
from posttrain.train.settings import data_hash, made_on, nothing_to_do, resolved_settings, tokens_at_once, versions
from posttrain.types import Group, RunFailed, RunPaused

EVALUATION, EVALUATION_SECONDS = "eval/", "eval_seconds"
"""What the keys of an evaluation begin with in a line of `metrics.jsonl`, and the key of its seconds."""
EMPTY: Mapping[str, Any] = MappingProxyType({})
ROLLBACKS = 3
"""How often a run goes back to a checkpoint and on; once more, and it ends there."""


@dataclass(frozen=True)
class StepResult:
    """What a step gave: its metrics, `tokens` (not padding) among them, and what else observers see of it. The loop
    reads metrics that are tensors."""

    metrics: dict[str, Any]
    groups: Sequence[Group] = ()
    rows: Sequence[Any] = ()


class Stage(Protocol):
    """A method of training, one step at a time."""

    kind: str
    policy: Policy
    total_steps: int | None
    observers: Sequence[Observer] = ()
    """Those that belong to the method."""
    shown: Sequence[str] = ()
    """Metrics shown beside the progress bar: what says most about the method first."""

    def step(self, n: int) -> StepResult:
        """Do step n (from 1)."""

    def evaluate(self) -> dict[str, Any] | None:
        """Numbers of the held-out data, if there is some, to log as `eval/NAME`."""

    def objective(self, metrics: Mapping[str, Any]) -> float | None:
        """What early stopping makes smaller, out of the metrics of a step; None where it has no evaluation."""
        return metrics.get("eval/loss")

    def save(self, folder: Path) -> None:
        """Write into a checkpoint what the stage must remember between steps beyond the policy: by default nothing."""
        return

    def load(self, folder: Path) -> None:
        return

    def rewind(self, log: RunLog, step: int) -> None:
        """Make the stage's own files what they were after `step`: by default there are none."""
        return

    def past_groups(self, step: int) -> Sequence[Group]:
        """The groups of a step before the one that `rewind` was called with, for observers."""
        return ()


@dataclass(frozen=True)
class Prepared:
    """A method that has read and checked its input, and written nothing yet."""

    lm: LanguageModel
    rows: Sequence[Row]
    """The rows of `data`, whose text is searched for special tokens."""
    fitted: Sequence[tuple[str | None, Fitted[Any], int | None]]
    """What rows became, by source, and the length at which they were cut."""
    stage: Callable[[RunLog, float], Stage]
    """Makes the stage of a run from its log and learning rate."""
    writes_date: tuple[bool, ...] = ()
    """Whether chat templates in use beside the model's write the date."""


Prepare = Callable[[ExitStack], Prepared]
"""Reads and checks the input of a method; what it opens is closed with the stack."""


def train(
    config: TrainConfig,
    prepare: Prepare,
    learning_rate: float,
    observers: Sequence[Observer] = (),
    more: Mapping[str, Any] = EMPTY,
) -> None:
    """Run a method from its settings to the model it trains: the one order of every run. `learning_rate` is the
    method's default, `more` what else its settings say. Raises InputError for bad input, before anything is written."""
    settings = resolved_settings(config, learning_rate) | dict(more)
    if nothing_to_do(config.out, settings, config.resume):
        return
    with memory_told(config, current()), ExitStack() as stack:
        stack.enter_context(repeatable(config.deterministic, current()))
        log, stage = open_stage(config, prepare, settings, stack)
        run_stage(log, config, stage, observers)


def open_stage(
    config: TrainConfig, prepare: Prepare, settings: Mapping[str, Any], stack: ExitStack
) -> tuple[RunLog, Stage]:
    """The run folder, opened once the input is checked, and the stage; says what is odd about the data."""
    prepared = prepare(stack)
    dates = dated(dict(settings), prepared.lm.chat.writes_date, *prepared.writes_date)
    log = stack.enter_context(RunLog(config.out, dates, config.resume))
    for source, fitted, max_length in prepared.fitted:
        warn_fitted(log, source, fitted, max_length)
    warn_special_tokens(log, prepared.lm.chat, config.data, prepared.rows)
    return log, prepared.stage(log, settings["learning_rate"])


def load_trained(config: TrainConfig) -> LanguageModel:
    """The model that a stage trains, with its adapter where LoRA is asked for: what it costs is counted with it."""
    check_card(config, current())
    lm = load_model_of(config, config.model, trained=not config.lora_rank)
    if config.lora_rank:
        lm.add_adapter(config.lora_rank, config.lora_alpha, config.seed, config.use_rslora, config.use_dora)
    if config.checkpoint_activations:
        lm.recompute_activations()
    return lm


def make_policy(lm: LanguageModel, config: TrainConfig, rate: float, total_steps: int | None) -> LocalPolicy:
    seed_everything(config.seed)
    optimization = Optimization(
        learning_rate=rate,
        warmup_steps=config.warmup_steps,
        schedule=config.schedule,
        total_steps=total_steps,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
    )
    return LocalPolicy(lm, optimization, tokens_at_once(config, lm))


def run_stage(log: RunLog, config: TrainConfig, stage: Stage, observers: Sequence[Observer] = ()) -> None:
    """Train from the last checkpoint (or the start) to the end, and write the model.

    After a step the loop does what the observers' alerts ask for: it goes back, then ends or pauses. A run that goes
    back keeps the number of the step, so that the next one has the data that follow, and the lines of `metrics.jsonl`
    and the operations of what it gives up; a checkpoint of the step is written at once. It goes back `ROLLBACKS` times;
    with the next it ends there. Raises RunPaused for a pause, and RunFailed where there is no checkpoint to go back to.
    """
    for note in log.notes:
        log.event("resumed_otherwise", reason=note)
        warn(note)
    n = done = _resume(log, config, stage)
    watch = Watch(log, [*default_observers(log, config, stage, done), *observers])
    try:
        stop = _replay(watch, log, stage)
        while not stop and not _over(n, stage, config):
            n += 1
            record = _step(stage, config, n)
            alerts = watch.see(record)
            log.metrics(dict(record.metrics))
            stop, back, pause = (_first(alerts, action) for action in ("stop", "rollback", "pause"))
            if back and _roll_back(log, config, stage, n) > ROLLBACKS:
                stop = stop or back
            if n % config.save_every == 0 or (pause and not stop):
                save_checkpoint(log, stage, n, config.keep)
            if pause and not stop:
                raise RunPaused(f"{log.out} after step {n}: {pause.text}; go on with --resume")
        if config.keep and n > done and n % config.save_every:  # of the end, for a longer run to go on from
            save_checkpoint(log, stage, n, config.keep)
        watch.finish(n)
    finally:
        watch.close()
    ended_by = stop.kind if stop else "max_flops" if _spent(stage.policy, config) else "steps"
    _finish(log, config, stage, n, ended_by)


def _resume(log: RunLog, config: TrainConfig, stage: Stage) -> int:
    """Go back to the last checkpoint; the step it was written after, 0 without a checkpoint."""
    step = load_last(log, stage)
    if read_metrics(log.out) or step:
        log.event("resumed_from", resumed_from=step)
    log.keep_lines("metrics.jsonl", lambda row: row["step"] <= step)
    stage.rewind(log, step)
    if step and not _over(step, stage, config):
        _forget_end(log, config, step)
    return step


def _replay(watch: Watch, log: RunLog, stage: Stage) -> Alert | None:
    """Show the observers the steps that were done before; what had ended the run with the last of them."""
    alerts: list[Alert] = []
    for row in read_metrics(log.out):
        n = row["step"]
        alerts = watch.see(StepRecord(n, stage.total_steps, row, stage.past_groups(n), replayed=True))
    return _first(alerts, "stop")


def _first(alerts: Sequence[Alert], action: str) -> Alert | None:
    return next((alert for alert in alerts if alert.action == action), None)


def _roll_back(log: RunLog, config: TrainConfig, stage: Stage, n: int) -> int:
    """Go back to the last checkpoint after step n; how often the run has done so."""
    spent = stage.policy.flops
    step = load_last(log, stage)
    if not step:
        raise RunFailed(f"step {n}: an observer asked to go back, and there is no checkpoint yet; lower --save-every")
    stage.policy.flops = spent
    log.event("rolled_back", step=n, to=step)
    save_checkpoint(log, stage, n, config.keep)
    back = (row for row in read_jsonl(log.out / "events.jsonl") if row["event"] == "rolled_back")
    return len({row["step"] for row in back if row["step"] <= n})  # a kill may have come before the checkpoint


def _forget_end(log: RunLog, config: TrainConfig, step: int) -> None:
    """Remove the evaluation of a step that was the last one and is not any more: one long run makes none there."""
    if config.eval_every and step % config.eval_every:
        rows = read_metrics(log.out)
        if any(key.startswith(EVALUATION) for row in rows[-1:] for key in row):
            rows[-1] = {k: v for k, v in rows[-1].items() if not k.startswith(EVALUATION) and k != EVALUATION_SECONDS}
            log.write_lines("metrics.jsonl", rows)


def _over(n: int, stage: Stage, config: TrainConfig) -> bool:
    return (stage.total_steps is not None and n >= stage.total_steps) or _spent(stage.policy, config)


def _spent(policy: Policy, config: TrainConfig) -> bool:
    return config.max_flops is not None and policy.flops >= config.max_flops


def _step(stage: Stage, config: TrainConfig, n: int) -> StepRecord:
    compute = stage.policy.compute
    reset_peak_memory(compute)
    start = time.perf_counter()
    result = stage.step(n)
    metrics = read_numbers(result.metrics)  # waits for the device
    seconds = time.perf_counter() - start
    row = {
        "step": n,
        **metrics,
        "flops": stage.policy.flops,
        "step_seconds": seconds,
        "tokens_per_second": metrics["tokens"] / seconds,
        **peak_memory(compute),
    }
    due = config.eval_every and (n % config.eval_every == 0 or _over(n, stage, config))
    if due and not_finite(row) is None:  # a model that has diverged may not be able to answer
        row |= _evaluated(stage)
    return StepRecord(n, stage.total_steps, MappingProxyType(row), result.groups, result.rows)


def _evaluated(stage: Stage) -> dict[str, Any]:
    """What an evaluation on held-out data adds to the row of a step; nothing where there is nothing to evaluate."""
    start = time.perf_counter()
    spent = stage.policy.flops
    evaluation = stage.evaluate()
    stage.policy.flops = spent  # evaluation is not counted in max_flops
    if evaluation is None:
        return {}
    row = {f"{EVALUATION}{name}": value for name, value in read_numbers(evaluation).items()}
    return row | {EVALUATION_SECONDS: time.perf_counter() - start}


def _finish(log: RunLog, config: TrainConfig, stage: Stage, steps: int, ended_by: str) -> None:
    policy = stage.policy
    parent = weights_hash(policy.source)
    dtype = save_dtype(config.save_dtype, policy.source)
    if policy.has_adapter:
        log.write_folder("adapter", lambda out: policy.save_adapter(out, dtype))
    if progress_of(log.out).ended_by is not None:  # a shorter run had finished, and its model is replaced now
        shutil.rmtree(log.out / "evaluations", ignore_errors=True)
    folder = log.write_folder("model", lambda out: policy.save_model(out, dtype))
    rows = read_metrics(log.out)
    Cost(
        steps=steps,
        seconds=sum(row["step_seconds"] + row.get(EVALUATION_SECONDS, 0.0) for row in rows),
        tokens=sum(row["tokens"] for row in rows),
        flops=policy.flops,
    ).save(log)
    log.event("finished", steps=steps, ended_by=ended_by, optimizer_steps_of_this_process=policy.optimizer_steps)
    Lineage(
        stage=stage.kind,
        parents=[config.model],
        parent_weights_hash=parent,
        model=str(folder),
        weights_hash=weights_hash(folder),
        data=config.data,
        data_hash=data_hash(config.data),
        versions=versions(),
        threads=torch.get_num_threads(),
        **made_on(policy.compute),
    ).save(log)
    tidy(log.out, config.keep)
