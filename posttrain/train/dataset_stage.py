"""Training on a data set: rows become examples, the examples of a step become trees, and a loss is made smaller."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from posttrain.batch.packing import Tree
from posttrain.config import TrainConfig
from posttrain.data.fitting import Fitted
from posttrain.models import LanguageModel
from posttrain.models.read import LOGPROBS, Reading
from posttrain.rows import Row
from posttrain.runs.log import RunLog
from posttrain.train.data_order import planned_steps, rows_drawn, step_rows
from posttrain.train.loop import Prepared, Stage, StepResult, load_trained, make_policy
from posttrain.train.policy import Loss, Policy, training_flops
from posttrain.train.settings import tokens_at_once

R = TypeVar("R", bound=Row)
T = TypeVar("T")


@dataclass(frozen=True)
class DatasetMethod(Generic[R, T]):
    """What is a method's own: how rows are loaded (see `load_rows`), what model they train, what examples they become
    (of held-out rows with `held_out`), the trees of the examples of a step, the loss over these and `what` of the model
    it reads, and the numbers of an evaluation. `stage` is a subclass where a step is more than that."""

    kind: str
    shown: Sequence[str]
    load: Callable[..., list[R]]
    encode: Callable[[LanguageModel, Sequence[R], bool], Fitted[T]]
    trees: Callable[[Sequence[T]], list[Tree]]
    loss: Loss | None = None
    evaluate: Callable[[Policy, Sequence[T]], dict[str, Any]] | None = None
    what: Reading = LOGPROBS
    model: Callable[[Sequence[R]], LanguageModel] | None = None
    stage: type[DatasetStage[Any]] | None = None


@dataclass(frozen=True)
class Data(Generic[T]):
    """The examples of `data` and `eval_data`, and what to say of the rows that they were (see `Prepared`)."""

    train: list[T]
    held_out: list[T]
    fitted: list[tuple[str | None, Fitted[Any], int | None]]


def load_rows(config: TrainConfig, load: Callable[..., list[R]]) -> tuple[list[R], list[R]]:
    rows = load(config.data, config.columns)
    return rows, load(config.eval_data, config.columns, optional=True) if config.eval_data else []


def fit_rows(
    config: TrainConfig,
    rows: Sequence[R],
    held_out: Sequence[R],
    encode: Callable[[Sequence[R], bool], Fitted[T]],
    max_length: int | None,
) -> Data[T]:
    """The rows as examples. Raises InputError where none is left, or with `strict` where one does not fit."""
    fitted, fitted_held_out = encode(rows, False), encode(held_out, True)
    return Data(
        fitted.checked(config.data, config.strict),
        fitted_held_out.checked(str(config.eval_data), config.strict),
        [(config.data, fitted, max_length), (config.eval_data, fitted_held_out, max_length)],
    )


def prepare_dataset(config: TrainConfig, method: DatasetMethod[R, T], stack: ExitStack) -> Prepared:
    rows, held_out = load_rows(config, method.load)
    lm = method.model(rows) if method.model else load_trained(config)
    data = fit_rows(config, rows, held_out, partial(method.encode, lm), config.max_length)

    def flops(chosen: list[int]) -> float:
        trees = method.trees([data.train[i] for i in chosen])
        return training_flops(lm, trees, tokens_at_once(config, lm), method.what.head)

    steps = planned_steps(config, len(data.train), flops)

    def stage(log: RunLog, rate: float) -> Stage:
        policy = make_policy(lm, config, rate, steps)
        limit = min(config.max_length, lm.context)
        made = (method.stage or DatasetStage)(config, method, policy, data, steps, limit)
        made.prepare(log)
        return made

    return Prepared(lm, rows, data.fitted, stage)


@dataclass
class DatasetStage(Stage, Generic[T]):
    """See `Stage`. `limit` is the longest row in tokens."""

    config: Any
    method: DatasetMethod[Any, T]
    policy: Policy
    data: Data[T]
    total_steps: int | None
    limit: int

    def __post_init__(self) -> None:
        self.kind, self.shown = self.method.kind, self.method.shown
        self.examples, self.held_out = self.data.train, self.data.held_out
        self._drawn = rows_drawn(self.config, len(self.examples))

    def prepare(self, log: RunLog) -> None:
        """What is to be done once the run folder is open: by default nothing."""

    def step(self, n: int) -> StepResult:
        metrics, tokens = self.gradient(self.step_examples(n))
        return StepResult({**metrics, **self.policy.step(), **self.after_step(n), "tokens": tokens})

    def after_step(self, n: int) -> dict[str, Any]:
        """What follows the optimizer's step, and metrics of it: by default nothing."""
        return {}

    def gradient(self, examples: Sequence[T]) -> tuple[dict[str, Any], int]:
        assert self.method.loss is not None
        trees = self.method.trees(examples)
        metrics = self.policy.forward_backward(trees, self.method.loss, self.method.what)
        return metrics, sum(tree.size for tree in trees)

    def evaluate(self) -> dict[str, Any] | None:
        return self.method.evaluate(self.policy, self.held_out) if self.held_out and self.method.evaluate else None

    def step_examples(self, n: int) -> list[T]:
        config = self.config
        chosen = step_rows(len(self.examples), config.seed, n, config.batch_size, self._drawn)
        return [self.examples[i] for i in chosen]
