"""Training data from a model's own answers: the best by a reward, pairs of a better and a worse one, or all."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from posttrain.chat.template_date import dated, on_one_date
from posttrain.config import SampleConfig
from posttrain.console import Progress, short_path, warn
from posttrain.data.formats import load_tasks
from posttrain.rewards.check import check_soft_labels
from posttrain.rewards.scorer import Scorer, open_scorer
from posttrain.rollout import Plan, regroup, rollout_seed, rollout_to_json, score
from posttrain.runs.log import RunLog, read_metrics, read_recorded
from posttrain.runs.records import Cost, Lineage
from posttrain.train.events import warn_fitted
from posttrain.train.generate.select import listed, rows_of
from posttrain.train.generate.sources import Source, source_of
from posttrain.train.loop import data_hash, nothing_to_do, versions, with_hashes
from posttrain.train.observers import StepRecord, UnscoredWatch, Watch
from posttrain.types import Group, InputError, Rollout, RunFailed, Score, Task


@on_one_date
def sample_answers(config: SampleConfig) -> None:
    """Sample `config.samples` answers to each task, score them, and write the rows that `config.write` names to
    `OUT/sft.jsonl` or `OUT/pairs.jsonl`, each with task, model, weights, scores, index and seed.

    Answers and scores are recorded as they come; a resume takes them from there. Raises InputError for bad input and
    RunFailed where too much could not be scored, an endpoint's budget is spent, or there is nothing to write."""
    settings = with_hashes(config.model_dump(mode="json"))
    if nothing_to_do(config.out, settings, config.resume):
        return
    check_soft_labels(config)
    tasks = load_tasks(config.data, config.columns)[: config.limit]
    columns = set.intersection(*(set(task.columns) for task in tasks))
    with ExitStack() as stack:
        scorer = None
        if config.reward:
            scorer = open_scorer(config, columns)
            stack.enter_context(scorer)
        source = source_of(config, tasks)
        fitted = source.fitting(tasks)
        tasks = fitted.checked(config.data, config.strict)
        settings = dated(settings, source.writes_date, scorer is not None and scorer.writes_date)
        log = stack.enter_context(RunLog(config.out, settings, config.resume))
        warn_fitted(log, config.data, fitted)
        source.began(log, tasks)
        stage = _Sampling(config, tasks, source, scorer, log)
        try:
            rows, dropped = stage.rows()
        finally:
            source.ended(log)
        _tell(log, dropped)
        if not rows:
            raise RunFailed(f"{config.data}: no answer gave a row to write ({listed(dropped)})")
        cut = sum(row.get("chosen_status") == "truncated" for row in rows)
        if cut:
            warn(
                f"{cut} of {len(rows)} chosen answers were cut by max_new_tokens={config.max_new_tokens}: trained on, "
                "they teach to end there; raise it"
            )
        log.write_lines(config.file, rows)
        _finish(log, config, source, rows=len(rows), tasks=len(tasks), dropped=dropped)


class _Sampling:
    """The steps of a stage, each a few tasks with all their samples, so that a kill costs one step at most.

    A step is done once its line is in `metrics.jsonl`; its rollouts were written before."""

    def __init__(
        self, config: SampleConfig, tasks: Sequence[Task], source: Source, scorer: Scorer | None, log: RunLog
    ) -> None:
        self.config = config
        self.tasks = tasks
        self.source = source
        self.scorer = scorer
        self.log = log
        self.watch = Watch(log, [UnscoredWatch(config.max_unscored_share, scorer)])
        self.sampling = config.sampling()
        self.size = max(1, 4 * config.engine_slots // config.samples)
        self.flops = 0.0

    def rows(self) -> tuple[list[dict[str, Any]], Counter[str]]:
        """All rows in the order of the tasks, and how many answers were left out for which reason."""
        rows: list[dict[str, Any]] = []
        dropped: Counter[str] = Counter()
        origin = {"model": self.source.name, "weights_hash": self.source.weights_hash}
        with Progress(f"sample {short_path(self.config.source)}", len(self.tasks), unit="tasks") as progress:
            done = 0
            for groups in self._groups():
                for group in groups:
                    written, left_out = rows_of(group, self.config, np.random.default_rng([self.config.seed, done]))
                    rows += [row | origin for row in written]
                    dropped += left_out
                    done += 1
                progress.advance(done, {"rows": len(rows)})
        return rows, dropped

    def _groups(self) -> Iterator[list[Group]]:
        """The groups of each step, recorded or new."""
        recorded = self._recorded()
        for n, start in enumerate(range(0, len(self.tasks), self.size), start=1):
            plans = [
                Plan(task, k, self.sampling, rollout_seed(self.config.seed, 0, start + j, k))
                for j, task in enumerate(self.tasks[start : start + self.size])
                for k in range(self.config.samples)
            ]
            if n in recorded:
                if len(recorded[n]) != len(plans):
                    file = self.log.out / "rollouts.jsonl"
                    raise InputError(
                        f"{file}: damaged, it holds {len(recorded[n])} of the {len(plans)} answers of step {n}; begin "
                        "anew with another --out"
                    )
                answers = [self.source.replay(row) for row in recorded[n]]
                groups = _groups_of(plans, answers)
                self.watch.see(StepRecord(n, None, {}, groups, replayed=True))
            else:
                groups = self._sample(n, plans)
            yield groups

    def _recorded(self) -> dict[int, list[dict[str, Any]]]:
        """The rollouts of the steps that are done."""
        metrics = read_metrics(self.log.out)
        steps: dict[int, list[dict[str, Any]]] = {row["step"]: [] for row in metrics}
        self.log.keep_lines("metrics.jsonl", lambda row: True)  # but for a torn one
        self.log.keep_lines("rollouts.jsonl", lambda row: row["step"] in steps)
        for row in read_recorded(self.log.out / "rollouts.jsonl", self.source.replay):
            steps[row["step"]].append(row)
        if steps:
            self.flops = metrics[-1]["flops"]
        if self.log.resuming:
            self.log.event("resumed_from", resumed_from=len(steps))
        return steps

    def _sample(self, n: int, plans: Sequence[Plan]) -> list[Group]:
        """Sample, score and record one step."""
        start = time.perf_counter()
        sampled = self.source.sample(plans)
        if self.scorer is not None:
            scores = score(self.scorer, [plan.task for plan in plans], sampled.rollouts)
        else:
            scores = [Score(None, reason=rollout.error) for rollout in sampled.rollouts]
        answers = list(zip(sampled.rollouts, scores, strict=True))
        groups = _groups_of(plans, answers)
        self.watch.see(StepRecord(n, None, {}, groups))
        self.flops += sampled.flops
        self.log.rollouts(rollout_to_json(n, rollout, value, None) for rollout, value in answers)
        totals = [value.total for value in scores if value.total is not None]
        self.log.metrics(
            {
                "step": n,
                "reward": sum(totals) / len(totals) if totals else None,
                "truncated": sum(r.status == "truncated" for r in sampled.rollouts) / len(plans),
                "unscored": None if self.scorer is None else 1 - len(totals) / len(plans),
                "tokens": sampled.tokens,
                "flops": self.flops,
                "step_seconds": time.perf_counter() - start,
            }
        )
        return groups


def _groups_of(plans: Sequence[Plan], answers: Sequence[tuple[Rollout, Score]]) -> list[Group]:
    return regroup([plan.task for plan in plans], [r for r, _ in answers], [s for _, s in answers])


def _tell(log: RunLog, dropped: Counter[str]) -> None:
    if dropped:
        log.event("dropped", **dropped)
        warn(f"left out: {listed(dropped)}")


def _finish(log: RunLog, config: SampleConfig, source: Source, rows: int, tasks: int, dropped: Counter[str]) -> None:
    Cost.sampled(read_metrics(log.out)).save(log)
    Lineage(
        stage="sample",
        parents=[source.name],
        parent_weights_hash=source.weights_hash,
        endpoint=config.endpoint,
        data=config.data,
        data_hash=data_hash(config.data),
        write=config.write,
        rows=rows,
        of_tasks=tasks,
        dropped=dict(dropped),
        versions=versions(),
    ).save(log)
