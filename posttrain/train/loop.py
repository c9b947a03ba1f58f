"""What every training stage shares: the run folder, resume, the steps, evaluation, the finished model."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import math
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from posttrain.chat.given import given_hash
from posttrain.config import TrainConfig
from posttrain.console import Progress, info, short_path, warn
from posttrain.data.sources import data_files
from posttrain.models import LanguageModel, load_model, save_dtype, weights_hash
from posttrain.runs.config import FILE, HASHES, read_settings
from posttrain.runs.log import RunLog, check_out, progress_of, read_metrics, tidy
from posttrain.runs.records import Cost, Lineage
from posttrain.train.events import nothing_learnt
from posttrain.train.policy import (
    DamagedFile,
    LocalPolicy,
    Optimization,
    load_weights,
    save_weights,
    seed_everything,
)
from posttrain.types import InputError, RunFailed

BEST = "best.safetensors"
EVALUATION, EVALUATION_SECONDS = "eval/", "eval_seconds"
"""What the keys of an evaluation begin with in a line of `metrics.jsonl`, and the key of its seconds."""
STATE = "state.json"
HELD_OUT = ("eval/loss", "eval/accuracy", "eval/reward", "tokens_per_second")
SHOWN: Mapping[str, tuple[str, ...]] = {
    "sft": ("loss", "grad_norm", *HELD_OUT),
    "dpo": ("loss", "margin", "accuracy", "chosen_drift", *HELD_OUT),
    "online-dpo": ("reward", "kl", "margin", "accuracy", "response_length", "loss", *HELD_OUT),
    "reward-model": ("loss", "accuracy", "margin", *HELD_OUT),
    "rl": ("reward", "kl", "grad_norm", "response_length", "loss", *HELD_OUT),
    "distill": ("loss", "response_length", *HELD_OUT),
}
"""Metrics shown beside the progress bar, by the kind of stage: what says most about it first."""


@dataclass(frozen=True)
class Evaluation:
    """Numbers to log as `eval/NAME`, and the one that early stopping minimises."""

    metrics: dict[str, float]
    objective: float


class Stage(Protocol):
    """A method of training, one step at a time."""

    kind: str
    policy: LocalPolicy
    total_steps: int | None

    def step(self, n: int) -> dict[str, Any]:
        """Do step n (from 1) and return its metrics, `tokens` (not padding) among them."""
        ...

    def evaluate(self) -> Evaluation | None:
        """Evaluate on the held-out data, if there is some."""
        ...

    def save(self, folder: Path) -> None:
        """Write into a checkpoint what the stage must remember between steps beyond the policy: by default nothing."""
        return

    def load(self, folder: Path) -> None:
        """The inverse of `save`."""
        return

    def rewind(self, log: RunLog, step: int) -> None:
        """Make the stage's own files what they were after `step`: by default there are none."""
        return


def resolved(config: TrainConfig, learning_rate: float) -> dict[str, Any]:
    """The configuration as written to `config.yaml`: defaults filled in, and hashes of the data files. LoRA takes ten
    times the full-weight rate."""
    out = with_hashes(config.model_dump(mode="json"))
    if config.learning_rate is None:
        out["learning_rate"] = learning_rate * (10 if config.lora_rank else 1)
    return out


def finished(out: Path, settings: dict[str, Any], resume: bool) -> bool:
    """Whether `out` holds this very run, finished: then it says so, and ends what a kill at the very end left undone.
    Raises what `check_out` raises."""
    if not check_out(out, settings, resume):
        return False
    tidy(out, read_settings(out / FILE)[0].get("keep", 1))
    info(f"{out}: finished, there is nothing to do")
    return True


def load_trained(config: TrainConfig) -> LanguageModel:
    """The model that a stage trains, with its adapter where LoRA is asked for: what it costs is counted with it."""
    lm = load_model(
        config.model,
        raw=config.raw,
        trust_remote_code=config.trust_remote_code,
        chat_template=config.chat_template,
    )
    if config.lora_rank:
        lm.add_adapter(config.lora_rank, config.lora_alpha, config.seed)
    return lm


def make_policy(lm: LanguageModel, config: TrainConfig, rate: float, total_steps: int | None) -> LocalPolicy:
    """The policy that trains `lm`, which `load_trained` gave."""
    seed_everything(config.seed)
    optimization = Optimization(
        learning_rate=rate,
        warmup_steps=config.warmup_steps,
        schedule=config.schedule,
        total_steps=total_steps,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
    )
    return LocalPolicy(lm, optimization, config.micro_batch_tokens)


def run_stage(log: RunLog, config: TrainConfig, stage: Stage) -> None:
    """Train from the last checkpoint (or the start) to the end, and write the model."""
    for note in log.notes:
        log.event("resumed_otherwise", reason=note)
        warn(note)
    tracker = _Tracker(config)
    first = _resume(log, stage, tracker) + 1
    resumed = first > 1
    total = stage.total_steps
    if resumed and not _done(first, total, stage.policy, config):
        _forget_end(log, config, first - 1)
    title = f"{stage.kind} {short_path(config.model)}"
    with Progress(title, total) as progress:
        if resumed:
            progress.advance(first - 1, {})
        n = first
        while not _done(n, total, stage.policy, config) and not tracker.stop:
            row = _step(stage, n)
            _check_finite(log, row)
            tracker.at_end = None
            if config.eval_every and n % config.eval_every == 0:
                _evaluate(log, stage, tracker, n, row)
            elif config.eval_every and _done(n + 1, total, stage.policy, config):
                tracker.at_end = _evaluated(stage, row)
            log.metrics(row)
            progress.advance(n, {name: row[name] for name in SHOWN[stage.kind] if name in row})
            if n % config.save_every == 0:
                log.checkpoint(n, config.keep, _checkpoint(stage, tracker, n))
            n += 1
    if config.keep and n > first and (n - 1) % config.save_every:  # of the end, for a longer run to go on from
        log.checkpoint(n - 1, config.keep, _checkpoint(stage, tracker, n - 1))
    _finish(log, config, stage, tracker, n - 1)


class _Tracker:
    """Early stopping: the best evaluation so far."""

    def __init__(self, config: TrainConfig) -> None:
        self.patience = config.patience
        self.best: float | None = None
        self.best_step = 0
        self.worse = 0
        self.at_end: float | None = None
        """The objective after the last step, where no evaluation falls on it. A longer run takes none there, so that it
        counts neither as the best so far nor for the patience."""

    @property
    def stop(self) -> bool:
        return self.patience is not None and self.worse >= self.patience

    @property
    def ends_best(self) -> bool:
        """Whether the evaluation after the last step is better than all before it."""
        return self.at_end is not None and (self.best is None or self.at_end < self.best)

    def see(self, step: int, objective: float) -> bool:
        """Take in an evaluation; True if it is the best so far."""
        if self.best is None or objective < self.best:
            self.best, self.best_step, self.worse = objective, step, 0
            return True
        self.worse += 1
        return False

    def state(self) -> dict[str, Any]:
        return {"best": self.best, "best_step": self.best_step, "worse": self.worse, "at_end": self.at_end}

    def load(self, state: dict[str, Any]) -> None:
        best, best_step, worse, at_end = state["best"], state["best_step"], state["worse"], state.get("at_end")
        numbers = all(value is None or isinstance(value, float | int) for value in (best, at_end))
        if not numbers or not type(best_step) is type(worse) is int:
            raise ValueError(f"{state} is no state of early stopping")
        self.best, self.best_step, self.worse, self.at_end = best, best_step, worse, at_end


def _forget_end(log: RunLog, config: TrainConfig, step: int) -> None:
    """Remove the evaluation of a step that was the last one and is not any more: one long run makes none there."""
    if config.eval_every and step % config.eval_every:
        rows = read_metrics(log.out)
        if any(key.startswith(EVALUATION) for row in rows[-1:] for key in row):
            rows[-1] = {k: v for k, v in rows[-1].items() if not k.startswith(EVALUATION) and k != EVALUATION_SECONDS}
            log.write_lines("metrics.jsonl", rows)


def _done(n: int, total: int | None, policy: LocalPolicy, config: TrainConfig) -> bool:
    return (total is not None and n > total) or _spent(policy, config)


def _spent(policy: LocalPolicy, config: TrainConfig) -> bool:
    return config.max_flops is not None and policy.flops >= config.max_flops


def _step(stage: Stage, n: int) -> dict[str, Any]:
    start = time.perf_counter()
    metrics = stage.step(n)
    seconds = time.perf_counter() - start
    return {
        "step": n,
        **metrics,
        "flops": stage.policy.flops,
        "step_seconds": seconds,
        "tokens_per_second": metrics["tokens"] / seconds,
    }


def _check_finite(log: RunLog, row: dict[str, Any]) -> None:
    """Stop a run that has diverged, before its weights go into a checkpoint."""
    for name in ("loss", "grad_norm"):
        if row[name] is not None and not math.isfinite(row[name]):
            message = f"step {row['step']}: {name} is {row[name]}; the run has diverged, lower --learning-rate"
            log.event("stopped", step=row["step"], reason=message)
            raise RunFailed(message)


def _evaluated(stage: Stage, row: dict[str, Any]) -> float | None:
    """Evaluate on held-out data and add the numbers to the row of a step; what early stopping makes smaller, or None
    where there is nothing to evaluate."""
    start = time.perf_counter()
    spent = stage.policy.flops
    evaluation = stage.evaluate()
    stage.policy.flops = spent  # evaluation is not counted in max_flops
    if evaluation is None:
        return None
    row.update({f"{EVALUATION}{name}": value for name, value in evaluation.metrics.items()})
    row[EVALUATION_SECONDS] = time.perf_counter() - start
    return evaluation.objective


def _evaluate(log: RunLog, stage: Stage, tracker: _Tracker, n: int, row: dict[str, Any]) -> None:
    objective = _evaluated(stage, row)
    if objective is not None and tracker.patience is not None and tracker.see(n, objective):
        log.write_folder("best", lambda out: save_weights(stage.policy.parameters, out / BEST))


def _checkpoint(stage: Stage, tracker: _Tracker, n: int) -> Callable[[Path], None]:
    def fill(folder: Path) -> None:
        stage.policy.save(folder)
        stage.save(folder)
        files = sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
        (folder / STATE).write_text(json.dumps({"step": n, "tracker": tracker.state(), "files": files}))

    return fill


def _resume(log: RunLog, stage: Stage, tracker: _Tracker) -> int:
    """Go back to the last checkpoint that can be read; the step it was written after, 0 where there are none. Raises
    RunFailed where there are some and none can be read."""
    step, damaged = 0, []
    for folder in reversed(log.checkpoints()):
        try:
            step = _restore(folder, stage, tracker)
            break
        except DamagedFile as error:
            damaged.append(folder)
            log.event("damaged_checkpoint", checkpoint=folder.name, reason=str(error))
            warn(f"the checkpoint {folder.name} cannot be used ({error}); going back to the one before")
    if damaged and not step:
        raise RunFailed(
            f"{log.out}: none of its checkpoints can be used; begin anew with another --out, or remove "
            f"{log.out / 'checkpoints'} to train again from the first step"
        )
    for folder in damaged:  # only now that the run has another to stand on
        shutil.rmtree(folder)
    if read_metrics(log.out) or step:
        log.event("resumed_from", resumed_from=step)
    log.keep_lines("metrics.jsonl", lambda row: row["step"] <= step)
    stage.rewind(log, step)
    return step


def _restore(folder: Path, stage: Stage, tracker: _Tracker) -> int:
    """Load a checkpoint; its step. Raises DamagedFile where a file of it is missing, cut off or not of this run."""
    try:
        state = json.loads((folder / STATE).read_text())
        step = state["step"]
        if step != int(folder.name.removeprefix("step-")) or not 1 <= step <= (stage.total_steps or step):
            raise DamagedFile(f"{folder / STATE}: its step is {step!r}")
        if missing := [name for name in state.get("files", ()) if not (folder / name).is_file()]:
            raise DamagedFile(f"{folder / missing[0]} is missing")
        stage.policy.load(folder)
        stage.load(folder)
        tracker.load(state["tracker"])
    except (OSError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise DamagedFile(f"{folder}: {type(error).__name__}: {error}") from error
    return int(step)


def _finish(log: RunLog, config: TrainConfig, stage: Stage, tracker: _Tracker, steps: int) -> None:
    policy = stage.policy
    if tracker.patience is not None and tracker.ends_best:
        log.event("best_step", step=steps, objective=tracker.at_end)
    elif tracker.patience is not None and tracker.best_step:
        try:
            load_weights(policy.parameters, log.out / "best" / BEST)
        except DamagedFile as error:
            raise RunFailed(
                f"the weights of the best step cannot be used: {error}; begin anew with another --out"
            ) from error
        log.event("best_step", step=tracker.best_step, objective=tracker.best)
    parent = weights_hash(policy.lm.source)
    dtype = save_dtype(config.save_dtype, policy.lm.source)
    if policy.lm.adapter is not None:
        log.write_folder("adapter", lambda out: policy.lm.save_adapter(out, dtype))
    if progress_of(log.out).ended_by is not None:  # a shorter run had finished, and its model is replaced now
        shutil.rmtree(log.out / "evaluations", ignore_errors=True)
    folder = log.write_folder("model", lambda out: policy.lm.save(out, dtype))
    rows = read_metrics(log.out)
    Cost(
        steps=steps,
        seconds=sum(row["step_seconds"] + row.get(EVALUATION_SECONDS, 0.0) for row in rows),
        tokens=sum(row["tokens"] for row in rows),
        flops=policy.flops,
    ).save(log)
    nothing_learnt(log, rows)
    ended_by = "patience" if tracker.stop else "max_flops" if _spent(policy, config) else "steps"
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
    ).save(log)
    tidy(log.out, config.keep)


def data_hash(source: str) -> str | None:
    """SHA-256 of a data file, or of the hashes of several; None for built-in sets and hub ids, which their name and the
    versions pin, and where there is nothing to read."""
    try:
        hashes = [hashlib.sha256(file.read_bytes()).hexdigest() for file in data_files(source)]
    except (OSError, InputError):  # for its reader to tell
        return None
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest() if hashes else None


def with_hashes(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings with the hashes of the data files and the chat template they name, so that a resume notices changed
    content. Raises InputError where there is no such template."""
    hashes = {
        key: (given_hash if source == "chat_template" else data_hash)(settings[source])
        for key, source in HASHES.items()
        if settings.get(source) is not None
    }
    return settings | {key: value for key, value in hashes.items() if value is not None}


def versions() -> dict[str, str]:
    """What a result depends on."""
    names = ("posttrain", "torch", "transformers", "peft", "safetensors", "tokenizers", "numpy")
    out = {}
    for name in names:
        try:
            out[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            out[name] = "not installed"
    return out
