"""Rewards loaded once before anything runs, so that a fault in one is reported then: files and functions, options,
the columns it asks for. What takes long is not done: models that rewards name are only looked for."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from posttrain.config import SampleConfig
from posttrain.config.model_names import local_model
from posttrain.expressions import Expression
from posttrain.rewards.learned import check_model_reward
from posttrain.rewards.protocol import Needs
from posttrain.rewards.registry import BUILTINS, Spec, check_columns, local_models
from posttrain.rewards.scorer import SERVER, named_twice
from posttrain.types import InputError
from posttrain.workers.pool import Closing, WorkerPool
from posttrain.workers.process import START_SECONDS, WorkerLost


class RewardCheck(Closing):
    """Loads rewards one after the other: those with code of a user in a worker process, which has `seconds` for each,
    the others here."""

    def __init__(self, seconds: float = START_SECONDS) -> None:
        self._seconds = seconds
        self._here, self._worker = (
            WorkerPool(SERVER, size, lambda slot: [], closed="the check is over", not_started=str) for size in (0, 1)
        )

    def close(self) -> None:
        self._here.close()
        self._worker.close()

    def check(self, texts: Sequence[str], columns: Collection[str] | None, coming: Collection[str] = ()) -> None:
        """Check the rewards of one stage against the columns of its data, where they are known. Models in `coming` are
        yet to be trained. Raises InputError for the first thing that is wrong."""
        specs = [Spec.parse(text) for text in texts]
        named_twice(specs)
        for spec in specs:
            for part in spec.expression.walk():
                if part.models:
                    check_model_reward(part)
            for name in local_models([spec.expression]):
                if name not in coming:
                    check_named_model(spec.expression, name)
            needs = self._load(spec.expression)
            if columns is not None:
                check_columns(spec, needs, columns)

    def _load(self, expression: Expression) -> Needs:
        pool = self._here if all(part.target in BUILTINS for part in expression.walk()) else self._worker
        try:
            answer = pool.worker(0).ask(
                {"kind": "load", "expressions": [expression], "without_judges": "all"}, self._seconds
            )
        except WorkerLost as lost:
            raise InputError(f"reward {expression.text} could not be loaded: {lost}") from None
        if "error" in answer:
            raise InputError(answer["error"])
        return Needs.read(answer["needs"][-1])


def check_named_model(expression: Expression, name: str) -> None:
    """Raise InputError where a model that a reward names is a path that leads to none."""
    try:
        local_model(name)
    except InputError as error:
        raise InputError(f"reward {expression.text}: {str(error).removeprefix('--model ')}") from None


def check_soft_labels(config: SampleConfig) -> None:
    """Raises InputError where soft labels are asked for and the scores are no win rates."""
    specs = [Spec.parse(text) for text in config.reward]
    if config.soft_labels and not (len(specs) == 1 and specs[0].win_rate):
        raise InputError(
            f"soft_labels needs judge_pair(...) as the only reward, with weight 1, not {' + '.join(config.reward)}: "
            "other scores say which answer is better, and not how likely"
        )
