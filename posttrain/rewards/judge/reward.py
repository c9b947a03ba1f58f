"""Judges: a model that reads a response and says how good it is, or which of two is better.

The model is behind an OpenAI-compatible endpoint (`url` and `model`), or here (`model` alone). A reply that says
nothing in the form asked for leaves the response unscored.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from posttrain.engine.endpoint import Answering
from posttrain.rewards.calls import try_score
from posttrain.rewards.judge.backend import JudgeModel, Outcome, open_model, outcomes_of, text_of, with_model_options
from posttrain.rewards.judge.prompts import (
    Criterion,
    Unclear,
    better_question,
    read_better,
    read_rubric,
    read_score,
    score_question,
)
from posttrain.rewards.protocol import Context, Needs, RewardResult, Signature
from posttrain.types import InputError, Sample

T = TypeVar("T")
Ask = Callable[[Sample], list[str]]
Read = Callable[[Sequence[Outcome]], RewardResult]


@with_model_options
def judge(
    judging: JudgeModel,
    *,
    rubric: str | None = None,
    reference: str | None = None,
    scale: str = "1-10",
) -> Judge:
    """Σ w·(s − low)/(high − low) / Σ w over the criteria of `rubric`, where s is the score that a judge gives the
    response by one criterion, each asked for alone.

    `rubric` is a text, or a text or YAML file; `scale` that of criteria without their own (`0-1`: met or not).
    `reference` names a column with a good answer to show to the judge. Each criterion's share is a part. See
    docs/judges.md for the model's options.
    Range [0, 1], no unit. Fails where the reply for one criterion is late, cut off or does not end in `Score: N`; stops
    the run where the budget is spent or the judge cannot be used at all. Source: LLM-as-a-judge (arXiv:2306.05685),
    rubrics with a weight for each criterion (arXiv:2507.17746)."""
    criteria = _criteria("judge", rubric, scale)
    ask = partial(_ask_scores, criteria=criteria, column=reference)
    return _judge("judge", judging, reference, ask, partial(_read_scores, criteria=criteria))


@with_model_options
def judge_pair(
    judging: JudgeModel,
    *,
    rubric: str | None = None,
    reference: str | None = None,
    opponents: int | None = None,
    clamp: float = 0.0,
) -> Judge | GroupJudge:
    """The mean of p over the comparisons of a response, where p is 1 if a judge finds it better in both orders of
    showing the two, 0 if it finds the other better in both, else 0.5: a judge that changes its mind with the order has
    no opinion. Then p is clamped to [clamp, 1 − clamp].

    Without `reference` a response is compared with the others to the same prompt in the batch, or with `opponents`
    neighbours to each side; with it, with the text in that column alone. Equal texts are a tie without being asked
    about. The part `consistent` is the share of comparisons in which the orders agreed: 1 minus the position bias.
    Range [0, 1], a probability. Fails where no comparison could be read (each takes two replies that end in
    `Better: A`, `B` or `tie`), and for the only response to a prompt; stops the run as `judge` does. Source: both
    orders, MT-Bench (arXiv:2306.05685, section 3.4); clamped labels, Constitutional AI (arXiv:2212.08073)."""
    if not 0 <= clamp < 0.5:
        raise InputError(f"judge_pair has clamp={clamp:g}; give one from 0 to below 0.5, such as 0.4")
    if opponents is not None and (opponents < 1 or reference is not None):
        raise InputError("judge_pair takes opponents=N of at least 1, and none beside a reference")
    criteria = _criteria("judge_pair", rubric, "0-1")
    if reference is None:
        return GroupJudge("judge_pair", open_model("judge_pair", judging), criteria, clamp, opponents)
    ask = partial(_ask_better, criteria=criteria, column=reference)
    return _judge("judge_pair", judging, reference, ask, partial(_read_against, clamp=clamp))


@dataclass(frozen=True)
class Judge:
    """A reward of one response. `ask` makes the questions about a sample, `read` its result of the replies; both raise
    where that cannot be done. All samples of a call are asked about together, as a model in this process wants it."""

    name: str
    model: Answering
    ask: Ask
    read: Read
    needs: Needs

    async def score(self, samples: Sequence[Sample], context: Context) -> list[RewardResult]:
        asked = [_attempt(partial(self.ask, sample)) for sample in samples]
        questions = [question for one in asked if isinstance(one, list) for question in one]
        outcomes = iter(await outcomes_of(self.model, questions))
        results = []
        for one in asked:
            if isinstance(one, Exception):
                results.append(RewardResult.failed(one))
            else:
                results.append(await try_score(partial(self.read, [next(outcomes) for _ in one])))
        return results


@dataclass(frozen=True)
class GroupJudge:
    """A reward of responses to one prompt by comparing them; see `judge_pair`."""

    name: str
    model: Answering
    criteria: tuple[Criterion, ...]
    clamp: float = 0.0
    opponents: int | None = None
    needs = Needs(whole_batch=True, is_async=True)

    async def score(self, samples: Sequence[Sample], context: Context) -> list[RewardResult]:
        pairs = [pair for members in _groups(samples) for pair in pairs_of(members, self.opponents)]
        asked = [_both_orders(self.criteria, samples[i], samples[j].text) for i, j in pairs]
        outcomes = iter(await outcomes_of(self.model, [question for questions in asked for question in questions]))
        verdicts: list[list[Verdict | Exception]] = [[] for _ in samples]
        for (i, j), questions in zip(pairs, asked, strict=True):
            verdict = _attempt(partial(read_verdict, [next(outcomes) for _ in questions], self.clamp))
            verdicts[i].append(verdict)
            verdicts[j].append(verdict if isinstance(verdict, Exception) else verdict.turned)
        return [await try_score(partial(_mean_verdict, own)) for own in verdicts]


@dataclass(frozen=True)
class Verdict:
    """The probability that the first of two is better, and whether both orders said the same (None: not asked)."""

    probability: float
    consistent: bool | None

    @property
    def turned(self) -> Verdict:
        return Verdict(1 - self.probability, self.consistent)


def read_verdict(outcomes: Sequence[Outcome], clamp: float) -> Verdict:
    """From the replies for (first, second) and (second, first); none for equal texts, which tie. Raises Unclear, or
    what came in the way of a reply."""
    if not outcomes:
        return Verdict(0.5, None)
    forward, backward = (read_better(text_of(outcome)) for outcome in outcomes)
    same = {"A": "B", "B": "A", "tie": "tie"}[backward] == forward
    probability = {"A": 1.0, "B": 0.0, "tie": 0.5}[forward] if same else 0.5
    return Verdict(min(1 - clamp, max(clamp, probability)), same)


def _mean_verdict(verdicts: Sequence[Verdict | Exception]) -> RewardResult:
    """Raises the error of the first comparison if none could be read."""
    read = [verdict for verdict in verdicts if not isinstance(verdict, Exception)]
    if not verdicts:
        raise Unclear("there is no other response to this prompt to compare it with")
    if not read:
        raise next(verdict for verdict in verdicts if isinstance(verdict, Exception))
    value = sum(verdict.probability for verdict in read) / len(read)
    agreed = [verdict.consistent for verdict in read if verdict.consistent is not None]
    return RewardResult(value, {"consistent": sum(agreed) / len(agreed) if agreed else None})


def pairs_of(members: Sequence[int], opponents: int | None) -> list[tuple[int, int]]:
    """Every two members once; with `opponents`, those at most so many places apart on a circle."""
    n = len(members)
    reach = n // 2 if opponents is None else min(opponents, n // 2)
    places = {(min(i, j), max(i, j)) for i in range(n) for d in range(1, reach + 1) for j in [(i + d) % n]}
    return [(members[i], members[j]) for i, j in sorted(places)]


def _groups(samples: Sequence[Sample]) -> list[list[int]]:
    groups: dict[str, list[int]] = {}
    for i, sample in enumerate(samples):
        groups.setdefault(json.dumps(sample.prompt_argument, sort_keys=True), []).append(i)
    return list(groups.values())


def _ask_scores(sample: Sample, criteria: Sequence[Criterion], column: str | None) -> list[str]:
    reference = None if column is None else _column(sample, column)
    return [score_question(criterion, sample.prompt, sample.text, reference) for criterion in criteria]


def _read_scores(outcomes: Sequence[Outcome], criteria: Sequence[Criterion]) -> RewardResult:
    pairs = zip(criteria, outcomes, strict=True)
    shares = {criterion.name: criterion.share(read_score(text_of(o), criterion)) for criterion, o in pairs}
    total = sum(criterion.weight * shares[criterion.name] for criterion in criteria)
    return RewardResult(total / sum(criterion.weight for criterion in criteria), shares)


def _ask_better(sample: Sample, criteria: Sequence[Criterion], column: str) -> list[str]:
    return _both_orders(criteria, sample, _column(sample, column))


def _both_orders(criteria: Sequence[Criterion], sample: Sample, other: str) -> list[str]:
    orders = [] if sample.text == other else [(sample.text, other), (other, sample.text)]
    return [better_question(criteria, sample.prompt, *shown) for shown in orders]


def _read_against(outcomes: Sequence[Outcome], clamp: float) -> RewardResult:
    verdict = read_verdict(outcomes, clamp)
    consistent = None if verdict.consistent is None else float(verdict.consistent)
    return RewardResult(verdict.probability, {"consistent": consistent})


def _column(sample: Sample, column: str) -> str:
    text = sample.columns.get(column)
    if not isinstance(text, str):
        raise TypeError(f"the column {column!r} holds {text!r}, not the text of a reference")
    return text


def _judge(name: str, judging: JudgeModel, reference: str | None, ask: Ask, read: Read) -> Judge:
    columns = () if reference is None else (reference,)
    signature = Signature(name, "sample", columns, columns, takes_all=False)
    needs = Needs((signature,), whole_batch=judging.url is None, is_async=True)
    return Judge(name, open_model(name, judging), ask, read, needs)


def _attempt(make: Callable[[], T]) -> T | Exception:
    try:
        return make()
    except Exception as error:
        return error


def _criteria(name: str, rubric: str | None, scale: str) -> tuple[Criterion, ...]:
    if rubric is None:
        raise InputError(f'{name} needs rubric="TEXT", or a text or YAML file: what to judge by')
    return read_rubric(rubric, scale)
