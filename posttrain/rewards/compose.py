"""Rewards made of several: each takes rewards and gives one, in Python and in expressions such as `gate(format, math)`.

The values of all parts are kept beside the whole (`gate/format`, `gate/math`), unweighted. Where a part does not apply
(null), neither does the whole; where one fails, the whole has failed.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from operator import or_
from typing import Any

from posttrain.rewards.calls import Function, as_reward, run, try_score
from posttrain.rewards.protocol import Context, Needs, Reward, RewardResult, Signature, is_reward
from posttrain.rewards.registry import NOT_COLUMNS
from posttrain.types import InputError, Message, Sample
from posttrain.workers.user_code import number

__posttrain_internal__ = True

Values = Sequence[float]
Rule = Callable[[Values, Sample], float]
"""The value of a sample from those of the rewards inside."""
BatchRule = Callable[[Sequence[Values], Sequence[Sample]], Sequence[float]]
"""The values of all samples of a batch from those of the rewards inside, one row a sample."""
Edit = Callable[[Sample], Sample]
AnyReward = Function | Reward


@dataclass(frozen=True)
class Wrapped:
    """Rewards, and a rule that makes one value of theirs. Made by `wrap`.

    The rewards inside see the sample as `edit` returns it, the rule sees the sample itself. Parts are named after them:
    `gate/format`, `gate/clip/math`. A sample to which one of them does not apply has no value (null), and one in which
    one of them fails has failed; a rule need not care. It needs the whole batch where a reward inside does, or where it
    has a rule over the batch; else it is called by sample, so that a hung or failing one costs only itself.

    It is also a batched reward function, for other trainers: called with lists `prompts` and `completions` (and
    `completion_ids` and columns), it returns a list of float or None; there a failure is raised. It can be pickled if
    its functions can."""

    name: str
    rewards: tuple[Reward, ...]
    rule: Rule | None = None
    """None: the value of the first reward inside."""
    batch_rule: BatchRule | None = None
    """Follows `rule`, over the samples for which that gave a value, and has the last word."""
    edit: Edit | None = None
    columns: tuple[str, ...] = ()

    @property
    def __name__(self) -> str:
        return self.name

    @property
    def needs(self) -> Needs:
        own = Signature(self.name, "sample", self.columns, self.columns, takes_all=False)
        return reduce(or_, (r.needs for r in self.rewards), Needs((own,), whole_batch=self.batch_rule is not None))

    async def score(self, samples: Sequence[Sample], context: Context) -> list[RewardResult]:
        results = [RewardResult() for _ in samples]
        seen: dict[int, Sample] = {}
        for i, sample in enumerate(samples):
            try:
                seen[i] = self.edit(sample) if self.edit else sample
            except Exception as error:
                results[i] = RewardResult.failed(error)
        columns: list[list[RewardResult]] = []
        for reward in self.rewards:
            if all(any(column[k].error for column in columns) for k in range(len(seen))):
                break  # nothing is left to score
            columns.append(await reward.score(list(seen.values()), context))
        for i, *row in zip(seen, *columns, strict=True):
            results[i] = await try_score(partial(self._combined, row, samples[i]))
        if self.batch_rule is not None:
            used = [i for i, result in enumerate(results) if result.value is not None]
            rows = {i: [result.value for result in row] for i, *row in zip(seen, *columns, strict=True)}
            values = self.batch_rule([rows[i] for i in used], [samples[i] for i in used])
            for i, value in zip(used, values, strict=True):
                results[i] = replace(results[i], value=number(value, self.name))
        return results

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]:
        offered = {name: columns[name] for name in columns if name in NOT_COLUMNS}
        ids = offered.pop("completion_ids", None) or [()] * len(prompts)
        data = {name: values for name, values in columns.items() if name not in NOT_COLUMNS}
        samples = [
            Sample(_turns(prompt), _answer(completion), tuple(ids[i]), {name: data[name][i] for name in data})
            for i, (prompt, completion) in enumerate(zip(prompts, completions, strict=True))
        ]
        scoring = self.score(samples, offered)
        results = asyncio.run(scoring) if self.needs.is_async else run(scoring)
        if failed := [result.error for result in results if result.error]:
            raise RuntimeError(f"{len(failed)} of {len(results)} samples failed; the first:\n{failed[0].traceback}")
        return [result.value for result in results]

    def _combined(self, results: Sequence[RewardResult], sample: Sample) -> RewardResult:
        """The result of a sample, as yet without a rule over the batch."""
        if failed := next((result for result in results if result.error), None):
            return failed
        parts: dict[str, float | None] = {}
        for reward, result in zip(self.rewards, results, strict=True):
            parts[reward.name] = result.value
            parts |= {f"{reward.name}/{name}": value for name, value in result.parts.items()}
        values = [result.value for result in results if result.value is not None]
        if len(values) < len(results):
            return RewardResult(None, parts)
        return RewardResult(number(self.rule(values, sample) if self.rule else values[0], self.name), parts)


def wrap(
    name: str,
    rewards: Sequence[Function | Reward],
    rule: Rule | None = None,
    *,
    batch_rule: BatchRule | None = None,
    edit: Edit | None = None,
    columns: tuple[str, ...] = (),
) -> Wrapped:
    """Rewards and a rule as one reward. Raises InputError for none, for two of one name, for what is no reward, and for
    a model's reward behind an `edit`."""
    if not rewards:
        raise InputError(f"{name} needs at least one reward")
    for reward in rewards:
        if not callable(reward) and not is_reward(reward):
            raise InputError(f"{name} is made of rewards, and {reward!r} is none; options are given by name")
    inside = tuple(map(as_reward, rewards))
    names = [reward.name for reward in inside]
    if twice := [other for other in names if names.count(other) > 1]:
        raise InputError(f"{name} has two parts named {twice[0]!r}; rename one: {twice[0]} as NAME")
    if edit is not None and any(reward.needs.precomputed for reward in inside):
        raise InputError(
            f"{name} changes what the rewards inside see, and the score of a model was made before; put the model's "
            "reward outside of it"
        )
    return Wrapped(name, inside, rule, batch_rule, edit, columns)


def _turns(prompt: Any) -> Any:
    return prompt if isinstance(prompt, str) else tuple(map(Message.from_dict, prompt))


def _answer(completion: Any) -> tuple[Message, ...]:
    return (Message("assistant", completion),) if isinstance(completion, str) else tuple(_turns(completion))


def weighted_sum(*rewards: AnyReward, weights: Sequence[float] | None = None) -> Wrapped:
    """Σ weight · part; all weights are 1 unless given.

    For sums inside other rewards, and for penalties: `gate(format, weighted_sum(math, repetition))`. At the top, a list
    of rewards with weights is the same and each part has a weight of its own in the log.
    Range as the parts give it, in their unit. Null where a part is; fails where one does, and at the start unless there
    is a weight for each. Source: linear scalarisation."""
    weights = [1.0] * len(rewards) if weights is None else weights
    if len(weights) != len(rewards):
        raise InputError(f"weighted_sum has {len(rewards)} rewards and {len(weights)} weights")
    return wrap("weighted_sum", rewards, partial(_weighted_sum, weights=tuple(weights)))


def _weighted_sum(values: Values, sample: Sample, weights: Sequence[float]) -> float:
    return math.fsum(w * value for w, value in zip(weights, values, strict=True))


def product(*rewards: AnyReward) -> Wrapped:
    """Π part: with parts in [0, 1], all of them are wanted at once.

    Range [0, 1] for parts in [0, 1] (two negative parts would make a positive one: shift or clip them first), no unit.
    Null where a part is; fails where one does. Source: the multiplicative form of "task × format" against "task +
    w · format", which pays for format alone."""
    return wrap("product", rewards, partial(_of_values, rule=math.prod))


def minimum(*rewards: AnyReward) -> Wrapped:
    """min over the parts: no part can make up for another.

    Range as the parts give it, in their unit. Null where a part is; fails where one does. Source: egalitarian
    (max-min) scalarisation."""
    return wrap("minimum", rewards, partial(_of_values, rule=min))


def _of_values(values: Values, sample: Sample, rule: Callable[[Values], float]) -> float:
    return rule(values)


def gate(condition: AnyReward, reward: AnyReward, *, threshold: float = 1.0) -> Wrapped:
    """The reward where the condition is at least `threshold`, else 0.

    Behind a closed gate a negative reward becomes 0, so that failing the condition would pay: clip it first.
    Range that of the reward and 0, in its unit. Null where condition or reward is null, whatever the other says; fails
    where one of them does. Source: the format gate of rule-based rewards, as in DeepSeek-R1 (arXiv:2501.12948), made a
    product."""
    return wrap("gate", (condition, reward), partial(_gate, threshold=threshold))


def _gate(values: Values, sample: Sample, threshold: float) -> float:
    condition, value = values
    return value if condition >= threshold else 0.0
