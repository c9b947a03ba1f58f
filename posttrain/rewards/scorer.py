"""Rewards seen from the trainer: samples in, scores out, failures told apart from low scores.

`expressions` is the grammar of `--reward` and `specs` what it may name, `calls` the call convention, `wrapped` rewards
made of rewards, `workers` the processes that functions run in and `server` what these do.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from posttrain.rewards.registry import Loaded, Signature, Spec, check_columns
from posttrain.types import LARGEST_SCORE, InputError, RunFailed, Sample, Score
from posttrain.workers.process import START_SECONDS, Worker, WorkerLost

if TYPE_CHECKING:
    from posttrain.expressions import Expression
    from posttrain.rewards.precomputed import ModelReward

ROUNDING = 1e-9
"""How far below 1 a sum of shares may end that means full marks."""
TOGETHER = 16
"""Samples of an async reward that one worker has under way at once."""
JUDGES = ("judge", "judge_pair")
GRACE_SECONDS = 1.0
"""Samples that run together have clocks of their own; the parent waits so much longer."""


@dataclass
class Job:
    """Samples that one worker scores with one reward, in order."""

    reward: int
    pending: deque[int]
    together: int = TOGETHER
    """How many of its samples may run at once if the reward is async."""


@dataclass
class Round:
    """The state of one call of `Scorer.score`: results[reward][sample] is an answer of a worker."""

    samples: Sequence[Sample]
    state: Mapping[str, Any]
    jobs: deque[Job]
    results: list[list[dict[str, Any]]]
    progress: Callable[[int], None] | None = None
    done: int = 0

    def put(self, reward: int, sample: int, answer: dict[str, Any]) -> None:
        """Keep an answer. Raises RunFailed for one that says to stop."""
        if "stop" in answer:
            raise RunFailed(answer["stop"])
        self.results[reward][sample] = answer
        self.done += 1
        if self.progress is not None:
            self.progress(self.done // len(self.results))


@dataclass
class Scorer:
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
    workers: int = field(default=2, kw_only=True)
    metrics: dict[str, float] = field(default_factory=dict, init=False)
    """What rewards logged with `log_metric` in the last call."""
    extras: dict[str, list[Any]] = field(default_factory=dict, init=False)
    """Columns that rewards logged with `log_extra` in the last call."""
    first_traceback: str | None = field(default=None, init=False)
    """The traceback (or reason) of the first failure there was."""

    def __post_init__(self) -> None:
        self._specs = [Spec.parse(text) for text in self.specs]
        named_twice(self._specs)
        if self.workers < 1 or not self.timeout_seconds > 0:
            raise InputError("a scorer needs at least one worker and a timeout above 0")
        self._pool: list[Worker | None] = [None] * self.workers
        self._warm: set[Worker] = set()
        self._closed = False
        try:
            self._loaded = self._load(0)
            for spec, loaded in zip(self._specs, self._loaded, strict=True):
                check_columns(spec, loaded, self.columns)
            self._models = self._load_models()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the workers; idempotent."""
        self._closed = True
        for worker in self._pool:
            if worker is not None:
                worker.close()

    def abort(self) -> None:
        """Close the scorer from another thread than the one that is scoring, which soon gets RunFailed."""
        self._closed = True
        for worker in self._pool:
            if worker is not None:
                worker.kill()  # wakes the thread that waits for it

    @property
    def whole_batch(self) -> bool:
        """Whether some reward sees all samples of a call together, so that a step must be one call. A model's does:
        while the policy samples, it would take its processor and depend on what is finished when."""
        return bool(self._models) or any(loaded.kind == "batched" for loaded in self._loaded)

    def score(
        self,
        samples: Sequence[Sample],
        trainer_state: Mapping[str, Any] | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> list[Score]:
        """One score per sample, in order. `progress` is told how many samples are done.

        Raises RunFailed where a reward does: it cannot go on, as a judge whose budget is spent."""
        if self._closed:
            raise RunFailed("the scorer is closed")
        self.metrics, self.extras = {}, {}
        if not samples:
            return []
        samples = self._with_model_scores(samples)
        results: list[list[dict[str, Any]]] = [[{} for _ in samples] for _ in self._specs]
        this = Round(samples, dict(trainer_state or {}), self._jobs(len(samples)), results, progress)
        slots = range(min(self.workers, len(this.jobs)))
        if len(slots) == 1:
            self._drive(0, this)
        else:
            with ThreadPoolExecutor(len(slots), thread_name_prefix="reward") as threads:
                try:
                    for future in [threads.submit(self._drive, slot, this) for slot in slots]:
                        future.result()
                except BaseException:
                    self.abort()
                    raise
        return self._scores(results, this.state.get("step"))

    @property
    def wants_environments(self) -> bool:
        """Whether a reward names `environments`, so that samples should carry theirs."""
        return any("environments" in leaf.names for loaded in self._loaded for leaf in loaded.leaves)

    def reads(self, column: str) -> bool:
        """Whether some reward may read a column of the data."""
        leaves = [leaf for loaded in self._loaded for leaf in loaded.leaves]
        needed = [name for spec in self._specs for _, builtin in spec.builtins for name in builtin.needs]
        return column in needed or any(leaf.takes_all or leaf.kind == "verl" or column in leaf.names for leaf in leaves)

    @property
    def writes_date(self) -> bool:
        """Whether the chat template of a model that scores here may write the date (see `template_date`)."""
        names = local_models(spec.expression for spec in self._specs)
        if not names:
            return False
        from posttrain.models import model_writes_date

        return any(map(model_writes_date, names))

    def weights(self, step: float | None) -> dict[str, float]:
        """The weight of each part at an optimizer step."""
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

    def _jobs(self, n: int) -> deque[Job]:
        # Four chunks a worker even out slow samples; chunks of less than four cost more in messages than they even out,
        # and more than 256 samples would make a message large.
        size = max(min(4, -(-n // self.workers)), min(256, -(-n // (4 * self.workers))))
        jobs: deque[Job] = deque()
        for k, loaded in enumerate(self._loaded):
            # Samples of an async reward wait together, so its chunks are as large as they can be.
            step = n if loaded.kind == "batched" else min(256, -(-n // self.workers)) if loaded.is_async else size
            jobs += [Job(k, deque(range(start, min(start + step, n)))) for start in range(0, n, step)]
        return jobs

    def _drive(self, slot: int, this: Round) -> None:
        """Work off jobs with the worker of one slot, replacing it when it is lost."""
        while this.jobs and not self._closed:
            try:
                job = this.jobs.popleft()
            except IndexError:  # another thread was faster
                return
            while job.pending:
                self._run(self._ready(slot), job, this)

    def _run(self, worker: Worker, job: Job, this: Round) -> None:
        """One request. If the worker is lost, its job keeps what is not to blame and not done."""
        loaded = self._loaded[job.reward]
        crowded = loaded.kind != "batched" and loaded.is_async and job.together > 1
        request = {
            "kind": "score",
            "reward": job.reward,
            "samples": [this.samples[i] for i in job.pending],
            "trainer_state": this.state,
            "seconds": self.timeout_seconds,
            "together": job.together,
        }
        seconds = self.timeout_seconds + GRACE_SECONDS * crowded
        try:
            for answer in worker.stream(request, len(job.pending), seconds):
                this.put(job.reward, job.pending.popleft(), answer)
        except WorkerLost as lost:
            if crowded:
                job.together = 1  # any of those under way may be to blame: again, one by one
                return
            for i in list(islice(job.pending, None if loaded.kind == "batched" else 1)):
                this.put(job.reward, i, {"error": str(lost), "traceback": str(lost)})
                job.pending.popleft()

    def _ready(self, slot: int) -> Worker:
        """The worker of a slot, started, loaded and with its slow imports done."""
        worker = self._pool[slot]
        if worker is None or not worker.alive:
            self._load(slot)
            worker = self._pool[slot]
        assert worker is not None
        if worker not in self._warm:
            modules = [module for spec in self._specs for _, builtin in spec.builtins for module in builtin.imports]
            self._prepare(worker, {"kind": "import", "modules": modules})
            self._warm = {other for other in self._warm if other.alive} | {worker}
        return worker

    def _load_models(self) -> dict[str, ModelReward]:
        expressions = [spec.expression for spec in self._specs]
        if not any(part.models for expression in expressions for part in expression.walk()):
            return {}
        from posttrain.rewards.learned import load_models

        return load_models(expressions)

    def _with_model_scores(self, samples: Sequence[Sample]) -> Sequence[Sample]:
        if not self._models:
            return samples
        answers = {text: model.answers(samples) for text, model in self._models.items()}
        return [replace(sample, given={text: a[i] for text, a in answers.items()}) for i, sample in enumerate(samples)]

    def _load(self, slot: int) -> list[Loaded]:
        if self._closed:
            raise RunFailed("the scorer is closed")
        worker = self._pool[slot] = Worker()
        answer = self._prepare(worker, {"kind": "load", "expressions": [spec.expression for spec in self._specs]})
        return loaded_rewards(answer)

    def _prepare(self, worker: Worker, request: dict[str, Any]) -> dict[str, Any]:
        try:
            return worker.ask(request, START_SECONDS)
        except WorkerLost as lost:
            if self._closed:
                raise RunFailed("the scorer is closed") from None
            what = ", ".join(spec.expression.text for spec in self._specs)
            raise RunFailed(f"a reward worker did not start ({lost}) while importing {what}") from None

    def _scores(self, results: Sequence[Sequence[dict[str, Any]]], step: float | None) -> list[Score]:
        for answers in results:
            for answer in answers:
                self.metrics |= answer.get("metrics", {})
                self.extras |= answer.get("extras", {})
                if self.first_traceback is None and "error" in answer:
                    self.first_traceback = answer["traceback"]
        weights = self.weights(step)
        return [combine(weights, answers) for answers in zip(*results, strict=True)]


def loaded_rewards(answer: Mapping[str, Any]) -> list[Loaded]:
    """What a worker says about the rewards that it has loaded. Raises InputError where it could not load one."""
    if "error" in answer:
        raise InputError(f"reward {answer['target']} could not be loaded: {answer['error']}")
    return [
        Loaded(loaded["kind"], loaded["is_async"], tuple(Signature(**leaf) for leaf in loaded["leaves"]))
        for loaded in answer["loaded"]
    ]


def named_twice(specs: Sequence[Spec]) -> None:
    """Raise InputError for two rewards of one name."""
    names = [spec.name for spec in specs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(
            f"two rewards are named {twice[0]!r}; their parts could not be told apart, rename one: {twice[0]} as NAME"
        )


def local_models(expressions: Iterable[Expression]) -> list[str]:
    """The models of this machine that these rewards and those inside them load: of rewards that a model computes, and
    of judges without a `url`."""
    parts = [part for expression in expressions for part in expression.walk()]
    judges = [part.options for part in parts if part.target in JUDGES and part.options.get("url") is None]
    named = [options["model"] for options in judges if isinstance(options.get("model"), str)]
    return [*named, *(name for part in parts for name in part.models)]


def combine(weights: Mapping[str, float], answers: Sequence[Mapping[str, Any]]) -> Score:
    """The score of one sample from the weight and the answer of each reward; values of steps are those of the first
    reward that has some."""
    parts: dict[str, float | None] = {}
    total, reason = None, None
    steps: tuple[float, ...] = ()
    for (name, weight), answer in zip(weights.items(), answers, strict=True):
        value = parts[name] = answer.get("value")
        parts |= {f"{name}/{sub}": part for sub, part in answer.get("parts", {}).items()}
        steps = steps or tuple(answer.get("step_values", ()))
        if "error" in answer:
            reason = reason or f"{name}: {answer['error']}"
        elif value is not None:
            total = (total or 0.0) + weight * value
    if total is not None and not abs(total) <= LARGEST_SCORE:
        reason = reason or f"the weighted sum is {total:g}, beyond {LARGEST_SCORE:g}"
    return Score(total=None if reason else total, parts=parts, reason=reason, step_values=steps or None)
