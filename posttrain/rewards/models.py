"""Models that score samples, in batches, in the process that holds them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch

from posttrain.batch.packing import Branch, Tree, response_tree, share_prefix
from posttrain.batch.types import Batch
from posttrain.chat import ChatFormat
from posttrain.chat.format import EncodedRow
from posttrain.models import LanguageModel
from posttrain.models.read import SCORES, read, read_by
from posttrain.rewards.protocol import Context, Needs, RewardResult
from posttrain.rows import CompletionRow, split_steps
from posttrain.types import InputError, Sample
from posttrain.workers.user_code import BadReturn

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
        scores = iter(_by_prefix(trees, lambda part: read(self.lm, part, MICRO_BATCH_TOKENS, SCORES)))
        return [found if isinstance(found, str) else next(scores)[0].double() for found in rows]

    def _result(self, members: torch.Tensor) -> RewardResult:
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
        scores = iter(_by_prefix(trees, lambda part: read(self.lm, part, MICRO_BATCH_TOKENS, SCORES)))
        return _results(rows, lambda _: self._result(next(scores)))

    def _result(self, scores: torch.Tensor) -> RewardResult:
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
        logprobs = _by_prefix(trees, lambda part: read_by(self.policy, part, MICRO_BATCH_TOKENS, self._logprobs))
        ratios = (self.beta * float(policy - reference) for policy, reference in map(summed, logprobs))
        return _results(rows, lambda found: _checked(sum(next(ratios) for _ in found)))

    def _logprobs(self, batch: Batch) -> torch.Tensor:
        """Log-probabilities [M, 2] of the trained tokens by policy and reference."""
        return torch.stack([lm.logprobs(batch).logprobs for lm in (self.policy, self.reference)], dim=1)


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
    return f"prompt and response have {chat.counted(tokens)}, and the model's context is {context}"


def scored_ids(row: EncodedRow) -> tuple[int, ...]:
    """The tokens up to the end of the last answer, which is where a response is scored."""
    return row.token_ids[: len(row.mask) - row.mask[::-1].index(True)]


def whole_tree(row: EncodedRow) -> Tree:
    return share_prefix([Branch.of(row.token_ids, row.mask, 1.0)])


def _by_prefix(trees: Sequence[Tree], reader: Callable[[Sequence[Tree]], Sequence[torch.Tensor]]) -> list[torch.Tensor]:
    """What `reader` finds of each tree, of one branch each. It gets them sorted by their tokens: neighbours in a
    micro-batch share the tokens that they begin with, which are then computed once."""
    tokens = [tree.branches[0].token_ids.tolist() for tree in trees]
    order = sorted(range(len(trees)), key=tokens.__getitem__)
    found = dict(zip(order, reader([trees[i] for i in order]), strict=True))
    return [found[i] for i in range(len(trees))]


def summed(rows: torch.Tensor) -> torch.Tensor:
    """The sum of rows in float64, added up in their order."""
    rows = rows.double()
    return torch.cat([rows.new_zeros(1, rows.shape[1]), rows]).cumsum(0)[-1]


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
