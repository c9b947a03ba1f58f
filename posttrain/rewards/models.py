"""Models that score samples, in batches, in the process that holds them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch

from posttrain.batch.packing import Branch, Tree, micro_batches, pack
from posttrain.batch.types import Batch
from posttrain.chat import ChatFormat
from posttrain.chat.format import EncodedRow
from posttrain.losses.policy import sequence_sums
from posttrain.models import LanguageModel
from posttrain.models.scoring import branch_scores, response_tree, score_batches
from posttrain.rewards.protocol import Context, Needs, RewardResult
from posttrain.rows import CompletionRow, split_steps
from posttrain.types import InputError, Sample
from posttrain.workers.returns import BadReturn

T = TypeVar("T")
MICRO_BATCH_TOKENS = 4096
"""Tokens that go through a model at once."""
NO_ANSWER = "there is no message from the assistant to score"
"""Why a sample has no score."""


@dataclass(frozen=True)
class Learned:
    """See `learned.learned`."""

    lm: LanguageModel
    use: str
    variance_penalty: float
    name = "learned"
    needs = Needs(whole_batch=True)

    async def score(self, samples: Sequence[Sample], context: Context) -> list[RewardResult]:
        return _results(self.members(samples), self._result)

    def members(self, samples: Sequence[Sample], longest: int | None = None) -> list[torch.Tensor | str]:
        """The scores [K] that the members give each sample, or why there are none: it has more tokens than `longest`,
        or than the model's context."""
        limit = min(longest or self.lm.context, self.lm.context)
        rows = [encoded(self.lm.chat, sample, limit) for sample in samples]
        trees = [response_tree((), (scored_ids(found[-1]),)) for found in rows if not isinstance(found, str)]
        scores = iter([row for _, of in score_batches(self.lm, trees, MICRO_BATCH_TOKENS) for row in of.double()])
        return [found if isinstance(found, str) else next(scores) for found in rows]

    def _result(self, members: torch.Tensor) -> RewardResult:
        """From the scores [K] of the members."""
        deviation = members.std(correction=0)
        parts = {"mean": float(members.mean()), "deviation": float(deviation)} if len(members) > 1 else {}
        return _checked(float(of_members(members, self.use, self.variance_penalty)), parts)


@dataclass(frozen=True)
class Stepwise:
    """See `learned.learned`, of a process model."""

    lm: LanguageModel
    separator: str
    aggregate: str
    name = "learned"
    needs = Needs(whole_batch=True)

    async def score(self, samples: Sequence[Sample], context: Context) -> list[RewardResult]:
        rows = [self._encoded(sample) for sample in samples]
        trees = [whole_tree(row) for row in rows if not isinstance(row, str)]
        scores = iter(branch_scores(self.lm, trees, MICRO_BATCH_TOKENS))
        return _results(rows, lambda _: self._result(next(scores)))

    def _result(self, scores: torch.Tensor) -> RewardResult:
        """From the scores [n, 1] of n steps."""
        probabilities = torch.sigmoid(scores[:, 0].double())
        steps = tuple(probabilities.tolist())
        return _checked(float(of_steps(probabilities, self.aggregate)), {"steps": len(probabilities)}, steps)

    def _encoded(self, sample: Sample) -> EncodedRow | str:
        """The steps of the last answer, after what precedes it, or why there are none."""
        turns = [i for i, message in enumerate(sample.messages) if message.role == "assistant"]
        if not turns:
            return NO_ANSWER
        before = sample.messages[: turns[-1]]
        steps = split_steps(sample.messages[turns[-1]].content, self.separator)
        chat = self.lm.chat
        try:
            prompt = (*chat.conversation(sample.prompt), *before) if before else sample.prompt
            row = chat.encode_steps("sample", prompt, steps, self.separator)
        except InputError as error:
            return str(error)
        return row if len(row.token_ids) <= self.lm.context else too_long(chat, len(row.token_ids), self.lm.context)


@dataclass(frozen=True)
class Implicit:
    """See `learned.implicit`."""

    policy: LanguageModel
    reference: LanguageModel
    beta: float
    name = "implicit"
    needs = Needs(whole_batch=True)

    async def score(self, samples: Sequence[Sample], context: Context) -> list[RewardResult]:
        longest = min(self.policy.context, self.reference.context)
        rows = [encoded(self.policy.chat, sample, longest) for sample in samples]
        trees = [whole_tree(row) for found in rows if not isinstance(found, str) for row in found]
        ratios = iter([self.beta * ratio for ratio in self._log_ratios(trees)])
        return _results(rows, lambda found: _checked(sum(next(ratios) for _ in found)))

    def _log_ratios(self, trees: Sequence[Tree]) -> list[float]:
        """log π/π_ref of the trained tokens of each row, summed."""
        out: list[float] = []
        for part in micro_batches(trees, MICRO_BATCH_TOKENS):
            batch = pack(part).to(self.policy.device)
            ratio = summed(self.policy, batch) - summed(self.reference, batch)
            out += ratio.tolist()
        return out


def of_members(scores: torch.Tensor, use: str, variance_penalty: float = 0.0) -> torch.Tensor:
    """The score of an ensemble from those of its members [..., K]: their mean, or with `use` "min" the least, less
    `variance_penalty` times their variance (Coste et al. 2023, arXiv:2310.02743)."""
    value = scores.amin(-1) if use == "min" else scores.mean(-1)
    return value - variance_penalty * scores.var(-1, correction=0)


def of_steps(probabilities: torch.Tensor, aggregate: str) -> torch.Tensor:
    """The score of an answer from the probabilities [n] that each of its steps is right: the "min", the "last", their
    "product" or "mean"."""
    if aggregate == "min":
        return probabilities.amin()
    if aggregate == "last":
        return probabilities[-1]
    return probabilities.prod() if aggregate == "product" else probabilities.mean()


def encoded(chat: ChatFormat, sample: Sample, context: int) -> list[EncodedRow] | str:
    """The sample as token rows of which the assistant's tokens are trained, or why there are none. A single answer is
    taken as its text, as a sampled response is."""
    single = len(sample.messages) == 1 and not sample.messages[0].tool_calls
    completion = sample.text if single else sample.messages
    if not any(message.role == "assistant" for message in sample.messages):
        return NO_ANSWER
    try:
        rows = chat.encode_sft(CompletionRow("sample", sample.prompt, completion))
    except InputError as error:
        return str(error)
    longest = max(len(row.token_ids) for row in rows)
    return rows if longest <= context else too_long(chat, longest, context)


def too_long(chat: ChatFormat, tokens: int, context: int) -> str:
    """Why a sample has no score."""
    return f"prompt and response have {chat.counted(tokens)}, and the model's context is {context}"


def scored_ids(row: EncodedRow) -> tuple[int, ...]:
    """The tokens up to the end of the last answer, which is where a response is scored."""
    return row.token_ids[: len(row.mask) - row.mask[::-1].index(True)]


def whole_tree(row: EncodedRow) -> Tree:
    return Tree((), (Branch(row.token_ids, row.mask, (1.0,) * sum(row.mask)),))


def summed(lm: LanguageModel, batch: Batch) -> torch.Tensor:
    """log-probability [S] of each sequence's trained tokens, in float64."""
    with torch.no_grad():
        logprobs = lm.logprobs(batch).logprobs.double()
    return sequence_sums(logprobs, batch.sequence[batch.mask], batch.sequences)


def _results(found: Iterable[T | str], result_of: Callable[[T], RewardResult]) -> list[RewardResult]:
    """Of each item, or in its place of why there is none."""
    return [RewardResult.failed(item) if isinstance(item, str) else result_of(item) for item in found]


def _checked(
    value: float, parts: Mapping[str, float] | None = None, steps: tuple[float, ...] | None = None
) -> RewardResult:
    try:
        return replace(RewardResult.of({**(parts or {}), "score": value}), step_values=steps)
    except BadReturn as error:
        return RewardResult.failed(str(error))
