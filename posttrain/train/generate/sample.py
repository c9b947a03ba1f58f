"""Training data from a model's own answers: the best by a reward, pairs of a better and a worse one, or all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from posttrain.alerts import StepRecord
from posttrain.chat.template_date import dated, on_one_date
from posttrain.config import SampleConfig
from posttrain.config.compute import on_its_device
from posttrain.console import Progress, short_path, warn
from posttrain.data.formats import load_tasks
from posttrain.rewards.check import check_soft_labels
from posttrain.rewards.scorer import Scorer, open_scorer
from posttrain.rollout import RolloutRequest, regroup, rollout_seed, rollout_to_json, score
from posttrain.rows import TaskColumns
from posttrain.runs.files import read_rollouts
from posttrain.runs.log import RunLog
from posttrain.train.generate.loop import Generation, Step, sampling_from, write_data
from posttrain.train.generate.select import rows_of
from posttrain.train.generate.sources import Source, source_of
from posttrain.train.observers import UnscoredWatch, Watch
from posttrain.train.settings import nothing_to_do, with_hashes
from posttrain.types import Group, Rollout, Score, Task

Answer = tuple[Rollout, Score]


@on_its_device
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
    columns = TaskColumns(tasks)
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
        with sampling_from(source, log, config.data, fitted):
            rows, dropped = _Sampling(config, tasks, source, scorer, log).rows()
        cut = sum(row.get("chosen_status") == "truncated" for row in rows)
        failure = "no answer gave a row to write ({left_out})"
        of = {"stage": "sample", "write": config.write, "of_tasks": len(tasks)}
        write_data(log, config, source, rows, dropped, failure, **of)
        if cut:
            warn(
                f"{cut} of {len(rows)} chosen answers were cut by max_new_tokens={config.max_new_tokens}: trained on, "
                "they teach to end there; raise it"
            )


class _Sampling(Generation[Answer]):
    file = "rollouts.jsonl"

    def __init__(
        self, config: SampleConfig, tasks: Sequence[Task], source: Source, scorer: Scorer | None, log: RunLog
    ) -> None:
        super().__init__(source, tasks, log, max(1, 4 * config.max_concurrent // config.samples), config.samples)
        self.config = config
        self.by_id = {task.id: task for task in tasks}
        self.scorer = scorer
        self.watch = Watch(log, [UnscoredWatch(config.max_unscored_share, scorer)])

    def rows(self) -> tuple[list[dict[str, Any]], Counter[str]]:
        rows: list[dict[str, Any]] = []
        dropped: Counter[str] = Counter()
        origin = {"model": self.source.name, "weights_hash": self.source.weights_hash}
        done = 0
        with Progress(f"sample {short_path(self.config.source)}", len(self.tasks), unit="tasks") as progress:
            for n, answers, new in self.steps():
                groups = self._groups(done, answers)
                if not new:
                    self.watch.see(StepRecord(n, None, {}, groups, replayed=True))
                for group in groups:
                    written, left_out = rows_of(group, self.config, np.random.default_rng([self.config.seed, done]))
                    rows += [row | origin for row in written]
                    dropped += left_out
                    done += 1
                progress.advance(done, {"rows": len(rows)})
        return rows, dropped

    def recorded(self, steps: Container[int]) -> Iterator[tuple[int, Answer]]:
        self.log.keep_rollouts(steps)
        for n, rows in read_rollouts(self.log.out, self.source.replay).items():
            yield from ((n, self.source.replay(row)) for row in rows)

    def record(self, n: int, items: Sequence[Answer]) -> None:
        lines = (rollout_to_json(n, self.by_id[rollout.task_id], rollout, value, None) for rollout, value in items)
        self.log.rollouts(lines)

    def make(self, n: int, places: range) -> Step[Answer]:
        sampling, seed = self.config.sampling(), self.config.seed
        plans = [
            RolloutRequest(self.tasks[i], k, sampling, rollout_seed(seed, 0, i, k))
            for i in places
            for k in range(self.config.samples)
        ]
        sampled = self.source.sample(plans)
        if self.scorer is not None:
            scores = score(self.scorer, [plan.task for plan in plans], sampled.rollouts)
        else:
            scores = [Score(None, reason=rollout.error) for rollout in sampled.rollouts]
        answers = list(zip(sampled.rollouts, scores, strict=True))
        self.watch.see(StepRecord(n, None, {}, self._groups(places.start, answers)))
        totals = [value.total for value in scores if value.total is not None]
        metrics = {
            "reward": sum(totals) / len(totals) if totals else None,
            "truncated": sum(r.status == "truncated" for r in sampled.rollouts) / len(plans),
            "unscored": None if self.scorer is None else 1 - len(totals) / len(plans),
        }
        return Step(answers, metrics, sampled.tokens, sampled.flops)

    def _groups(self, first: int, answers: Sequence[Answer]) -> list[Group]:
        tasks = [self.tasks[first + i // self.items_of_task] for i in range(len(answers))]
        return regroup(tasks, [rollout for rollout, _ in answers], [value for _, value in answers])
