"""Rewards seen from the trainer: samples in, scores out, failures told apart from low scores."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from posttrain.functions import as_text
from posttrain.rewards.calls import run
from posttrain.rewards.learned import load_models
from posttrain.rewards.protocol import Needs, RewardResult
from posttrain.rewards.registry import (
    Spec,
    check_columns,
    check_sealed,
    local_judges,
    local_models,
    reads_column,
    references_read,
)
from posttrain.types import LARGEST_SCORE, InputError, RunFailed, Sample, Score, located
from posttrain.workers.pool import WorkerPool, say_workers, worker_count
from posttrain.workers.process import Closing, WorkerLost

if TYPE_CHECKING:
    from posttrain.config import EvalConfig, OnlineDpoConfig, RlConfig, SampleConfig, ScoreConfig

SERVER = "posttrain.rewards.server:Server"
ROUNDING = 1e-9
"""How far below 1 a sum of shares may end that means full marks."""
CONCURRENT_PER_WORKER = 16
"""How many samples of an async reward each worker scores at once."""
GRACE_SECONDS = 1.0
"""Samples that run together have clocks of their own; the parent waits so much longer."""


@dataclass
class Job:
    """Samples that one worker scores with one reward, in order."""

    reward: int
    pending: deque[int]
    together: int = CONCURRENT_PER_WORKER
    """How many of its samples may run at once if the reward is async."""


@dataclass
class Round:
    """The state of one call of `Scorer.score`: results[reward][sample]."""

    samples: Sequence[Sample]
    state: Mapping[str, Any]
    first: deque[Job]
    """For slot 0 alone, whose worker has the model that they need."""
    jobs: deque[Job]
    """For whichever worker is free."""
    results: list[list[RewardResult]]
    progress: Callable[[int], None] | None = None
    done: int = 0

    def put(self, reward: int, sample: int, result: RewardResult) -> None:
        """Keep a result. Raises RunFailed for one that says to stop."""
        if result.error and result.error.stops_run is not None:
            raise RunFailed(result.error.stops_run)
        self.results[reward][sample] = result
        self.done += 1
        if self.progress is not None:
            self.progress(self.done // len(self.results))


@dataclass
class Scorer(Closing):
    """Several weighted rewards, run in killable worker processes with one thread each; what a model computes, in this
    process, before the workers get the samples.

    total = Σ weight · part over the parts that apply, with the weights of the step in the trainer's state; None without
    a reason if none applies; None with a reason if any part failed. A part that raises, exceeds `timeout_seconds`,
    kills its process or returns no finite number fails that sample alone, or for a batched function all samples of the
    call. Samples of an async reward run together, each with a clock of its own. Parts are recorded unweighted,
    sub-parts of a returned dict as `name/sub`.

    Raises InputError where a reward cannot be found or imported or asks for what is neither a column nor otherwise
    offered; RunFailed where a worker does not start."""

    specs: Sequence[str]
    columns: Collection[str] = field(kw_only=True)
    timeout_seconds: float = field(kw_only=True)
    workers: int | None = field(default=None, kw_only=True)
    """Worker processes; None: one less than the usable cores, at least 1. With 0 rewards run in this process, as a
    debugger wants it: none is killed, and `timeout_seconds` does not hold."""
    metrics: dict[str, float] = field(default_factory=dict, init=False)
    """What rewards logged with `log_metric` in the last call."""
    first_traceback: str | None = field(default=None, init=False)
    """The traceback (or reason) of the first failure there was."""

    def __post_init__(self) -> None:
        self.specs = [as_text(spec) for spec in self.specs]  # Python may give functions
        self._specs = [Spec.parse(text) for text in self.specs]
        named_twice(self._specs)
        workers = worker_count(self.workers)
        if workers < 0 or not self.timeout_seconds > 0:
            raise InputError("a scorer needs a number of workers of at least 0 and a timeout above 0")
        expressions = [spec.expression for spec in self._specs]
        texts = ", ".join(expression.text for expression in expressions)
        self._pool = WorkerPool(
            SERVER,
            workers,
            self._prepare,
            closed="the scorer is closed",
            not_started=lambda lost: f"a reward worker did not start ({lost}) while importing {texts}",
        )
        try:
            self._needs = [Needs.read(row) for row in self._pool.start(0)["needs"]]
            for spec, needs in zip(self._specs, self._needs, strict=True):
                check_columns(spec, needs, self.columns)
            self._models = load_models(expressions)
        except BaseException:
            self.close()
            raise

    def _prepare(self, slot: int) -> list[Mapping[str, Any]]:
        """What a new worker is asked first. The models of local judges are loaded in slot 0 alone."""
        expressions = [spec.expression for spec in self._specs]
        modules = [module for spec in self._specs for _, builtin in spec.builtins for module in builtin.imports]
        return [
            {"kind": "load", "expressions": expressions, "without_judges": "local" if slot else None},
            {"kind": "import", "modules": modules},
        ]

    def close(self) -> None:
        self._pool.close()

    def abort(self) -> None:
        """Close the scorer from another thread than the one that is scoring, which soon gets RunFailed."""
        self._pool.abort()

    @property
    def whole_batch(self) -> bool:
        """Whether some reward sees all samples of a call together, so that a step must be one call. A model's does:
        while the policy samples, it would take its processor and depend on what is finished when."""
        return bool(self._models) or any(needs.whole_batch for needs in self._needs)

    def score(
        self,
        samples: Sequence[Sample],
        trainer_state: Mapping[str, Any] | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> list[Score]:
        """One score per sample, in order. Calls `progress` with the number of samples done.

        Raises RunFailed where a reward does: it cannot go on, as a judge whose budget is spent."""
        self._pool.check_open()
        self.metrics = {}
        if not samples:
            return []
        say_workers("rewards", self.workers)
        samples = self._with_model_scores(samples)
        results = [[RewardResult() for _ in samples] for _ in self._specs]
        call = Round(samples, dict(trainer_state or {}), *self._jobs(len(samples)), results, progress)
        slots = range(min(len(self._pool), len(call.first) + len(call.jobs)))
        self._pool.side_by_side([partial(self._drive, slot, call) for slot in slots])
        for result in (result for row in results for result in row):
            self.metrics |= result.metrics
            if self.first_traceback is None and result.error:
                self.first_traceback = result.error.traceback
        weights = self.weights(call.state.get("step"))
        return [combine(weights, row) for row in zip(*results, strict=True)]

    @property
    def wants_environments(self) -> bool:
        return any(needs.environment for needs in self._needs)

    def reads(self, column: str) -> bool:
        return reads_column(self._specs, self._needs, column)

    def references(self, columns: Collection[str]) -> list[str]:
        """See `references_read`."""
        return references_read(self._specs, self._needs, columns)

    @property
    def writes_date(self) -> bool:
        """Whether the chat template of a model that scores here may write the date (see `template_date`)."""
        names = local_models(spec.expression for spec in self._specs)
        if not names:
            return False
        from posttrain.models import model_writes_date

        return any(map(model_writes_date, names))

    def weights(self, step: float | None) -> dict[str, float]:
        return {spec.name: spec.weight.at(step) for spec in self._specs}

    def curriculum(self, step: float) -> dict[str, float]:
        """The weights that change during training, at a step."""
        return {spec.name: spec.weight.at(step) for spec in self._specs if spec.weight.varies}

    def full_marks(self, score: Score) -> bool:
        """Whether every reward of positive weight (in the end) that applies gave at least 1, its part and not its
        weighted share; False if none applies or one failed. Penalties and rewards of weight 0 have no say."""
        if score.total is None:
            return False
        parts = [score.parts.get(spec.name) for spec in self._specs if spec.weight.at(None) > 0]
        applied = [part for part in parts if part is not None]
        return bool(applied) and min(applied) >= 1 - ROUNDING

    def _jobs(self, n: int) -> tuple[deque[Job], deque[Job]]:
        # Four chunks a worker even out slow samples; chunks of less than four cost more in messages than they even out,
        # and more than 256 samples would make a message large.
        workers = len(self._pool)
        size = max(min(4, -(-n // workers)), min(256, -(-n // (4 * workers))))
        first: deque[Job] = deque()
        jobs: deque[Job] = deque()
        for k, (spec, needs) in enumerate(zip(self._specs, self._needs, strict=True)):
            # Samples of an async reward wait together, so its chunks are as large as they can be.
            step = n if needs.whole_batch else min(256, -(-n // workers)) if needs.is_async else size
            queue = first if local_judges(spec.expression) else jobs
            queue += [Job(k, deque(range(start, min(start + step, n)))) for start in range(0, n, step)]
        return first, jobs

    def _drive(self, slot: int, call: Round) -> None:
        """Work off jobs with the worker of one slot, replacing it when it is lost."""
        while not self._pool.closed:
            try:
                job = (call.first if slot == 0 and call.first else call.jobs).popleft()
            except IndexError:
                return
            while job.pending:
                self._request(slot, job, call)

    def _request(self, slot: int, job: Job, call: Round) -> None:
        """One request. If the worker is lost, its job keeps what is not to blame and not done."""
        needs = self._needs[job.reward]
        crowded = not needs.whole_batch and needs.is_async and job.together > 1
        request = {
            "kind": "score",
            "reward": job.reward,
            "samples": [call.samples[i] for i in job.pending],
            "trainer_state": call.state,
            "seconds": self.timeout_seconds,
            "together": job.together,
        }
        seconds = self.timeout_seconds + GRACE_SECONDS * crowded
        try:
            for answer in self._pool.worker(slot).stream(request, len(job.pending), seconds):
                call.put(job.reward, job.pending.popleft(), RewardResult.read(answer))
        except WorkerLost as lost:
            if crowded:
                job.together = 1  # any of those under way may be to blame: again, one by one
                return
            for i in list(islice(job.pending, None if needs.whole_batch else 1)):
                call.put(job.reward, i, RewardResult.failed(str(lost)))
                job.pending.popleft()

    def _with_model_scores(self, samples: Sequence[Sample]) -> Sequence[Sample]:
        if not self._models:
            return samples
        columns = {text: run(model.score(samples, {})) for text, model in self._models.items()}
        return [
            replace(sample, precomputed={text: results[i] for text, results in columns.items()})
            for i, sample in enumerate(samples)
        ]


def open_scorer(
    config: RlConfig | OnlineDpoConfig | SampleConfig | EvalConfig | ScoreConfig, columns: Collection[str]
) -> Scorer:
    """The scorer that the options of a command describe. Raises what `Scorer` raises."""
    return _open(config.reward, config, columns)


def open_sealed(config: RlConfig | OnlineDpoConfig, columns: Collection[str]) -> Scorer | None:
    """The scorer of the sealed reward, if there is one. Raises what `check_sealed` and `Scorer` raise."""
    check_sealed(config.reward, config.sealed_reward)
    with located("--sealed-reward"):
        return _open(config.sealed_reward, config, columns) if config.sealed_reward else None


def _open(
    rewards: Sequence[str],
    config: RlConfig | OnlineDpoConfig | SampleConfig | EvalConfig | ScoreConfig,
    columns: Collection[str],
) -> Scorer:
    timeout, workers = config.reward_timeout, config.reward_workers
    return Scorer(rewards, columns=columns, timeout_seconds=timeout, workers=workers)


def named_twice(specs: Sequence[Spec]) -> None:
    """Raise InputError for two rewards of one name."""
    names = [spec.name for spec in specs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(
            f"two rewards are named {twice[0]!r}; their parts could not be told apart, rename one: {twice[0]} as NAME"
        )


def combine(weights: Mapping[str, float], results: Sequence[RewardResult]) -> Score:
    """The score of one sample from the weight and the result of each reward; values of steps are those of the first
    reward that has some."""
    parts: dict[str, float | None] = {}
    total, reason = None, None
    steps: tuple[float, ...] = ()
    for (name, weight), result in zip(weights.items(), results, strict=True):
        parts[name] = result.value
        parts |= {f"{name}/{sub}": part for sub, part in result.parts.items()}
        steps = steps or result.step_values or ()
        if result.error:
            reason = reason or f"{name}: {result.error.reason}"
        elif result.value is not None:
            total = (total or 0.0) + weight * result.value
    if total is not None and not abs(total) <= LARGEST_SCORE:
        reason = reason or f"the weighted sum is {total:g}, beyond {LARGEST_SCORE:g}"
    return Score(total=None if reason else total, parts=parts, reason=reason, step_values=steps or None)
