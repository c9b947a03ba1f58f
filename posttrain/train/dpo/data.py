"""Preferences as tokens: pairs and labelled responses, and the trees they are trained as."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from posttrain.arrays import Floats, ints
from posttrain.batch.packing import Branch, Tree, share_prefix
from posttrain.chat import ChatFormat, Ids
from posttrain.data.fitting import DoesNotFit, Fitted, Limit, fit
from posttrain.losses.preference import Counts
from posttrain.models import LanguageModel
from posttrain.rows import CompletionRow, PreferenceRow, UnpairedRow
from posttrain.types import InputError


@dataclass(frozen=True)
class Example:
    """A prompt with a pair of responses, the better one first, or with a single one that is `desirable` or not. `key`
    names it among the examples of a run. `probability` is how likely that order or label is right."""

    key: str
    prompt_ids: Ids
    responses: tuple[Ids, ...]
    desirable: tuple[bool, ...]
    where: str
    probability: float = 1.0


def encode_examples(
    lm: LanguageModel,
    rows: Sequence[PreferenceRow | UnpairedRow],
    max_length: int,
    *,
    single: bool,
    mask_formatting: bool = False,
    prefix: str = "",
) -> Fitted[Example]:
    """Rows as tokens; see `encode_example`. With `single` a pair becomes two labelled responses."""
    limit = Limit.of(max_length, lm.context)
    chat = lm.chat_within(limit.tokens)

    def ready(row: PreferenceRow | UnpairedRow) -> tuple[list[Example], bool]:
        example, cut = encode_example(chat, row, limit, mask_formatting)
        parts = zip(example.responses, example.desirable, strict=True)
        singles = [replace(example, responses=(ids,), desirable=(good,)) for ids, good in parts]
        return singles if single else [example], cut

    fitted = fit(rows, ready)
    named = [replace(example, key=f"{prefix}{i}") for i, example in enumerate(fitted.kept)]
    return replace(fitted, kept=named)


def encode_example(
    chat: ChatFormat, row: PreferenceRow | UnpairedRow, limit: Limit, mask_formatting: bool = False
) -> tuple[Example, bool]:
    """A row as tokens, responses cut where prompt and response exceed the limit, and whether they were. With
    `mask_formatting` responses lose their end token.

    Raises DoesNotFit for a prompt that alone fills the length and for responses that are the same once they are cut,
    and InputError naming a row of which nothing is left to train."""
    whole = _encode(chat, row)
    example = _fitted(chat, whole, limit)
    cut = example.responses != whole.responses
    if mask_formatting:
        responses = (ids[:-1] if ids and ids[-1] in chat.end_ids else ids for ids in example.responses)
        example = replace(example, responses=tuple(responses))
        if not all(example.responses):
            raise InputError(f"{row.where}: a response is empty and --mask-formatting leaves nothing of it to train")
    return example, cut


def shuffled_for_kl(examples: Sequence[Example], limit: int) -> list[Example]:
    """Each prompt with the response of the next example of another prompt (the first follows the last), cut to `limit`
    tokens; without those that have no such neighbour. For `kto_baseline`."""
    out = []
    for i, example in enumerate(examples):
        others = (*examples[i + 1 :], *examples[:i])
        other = next((o for o in others if o.prompt_ids != example.prompt_ids), None)
        if other is not None:
            responses = tuple(ids[: limit - len(example.prompt_ids)] for ids in other.responses)
            out.append(
                replace(other, key=f"{example.key}+{other.key}", prompt_ids=example.prompt_ids, responses=responses)
            )
    return out


def counts_of(examples: Sequence[Example]) -> Counts:
    good = sum(sum(example.desirable) for example in examples)
    return Counts(good, sum(len(example.desirable) for example in examples) - good)


def example_trees(
    examples: Sequence[Example],
    reference: Sequence[Floats] | None = None,
    ld_alpha: float | None = None,
) -> list[Tree]:
    """A tree an example: the prompt as trunk, the responses as branches in order, every response token trained.

    A token has its `share` in its response's sum: 1, and `ld_alpha` beyond the length of the shorter response (LD-DPO,
    arXiv:2409.06411). A response is `desirable` or not, with the `probability` that this is right. `reference` holds
    the log-probabilities of all responses in order. The losses read no weights, which are 1/(responses x length)."""
    given = iter(reference or ())
    count = sum(len(example.responses) for example in examples)
    trees = []
    for example in examples:
        shared = min(map(len, example.responses)) if ld_alpha is not None else None
        branches = []
        for ids, good in zip(example.responses, example.desirable, strict=True):
            n = len(ids) if shared is None else shared
            token = {"share": np.where(np.arange(len(ids)) < n, 1.0, ld_alpha or 0.0)}
            if reference is not None:
                token["ref_logprobs"] = next(given)
            row_ids = ints(example.prompt_ids + ids)
            mask = np.arange(len(row_ids)) >= len(example.prompt_ids)
            weights = np.full(len(ids), 1.0 / (count * max(1, len(ids))))
            row, flags = {"probability": example.probability}, {"desirable": good}
            branches.append(Branch(row_ids, mask, weights, token, row, flags))
        trees.append(share_prefix(branches))
    return trees


def _encode(chat: ChatFormat, row: PreferenceRow | UnpairedRow) -> Example:
    if isinstance(row, PreferenceRow):
        pair = chat.encode_pair(row)
        responses = (pair.chosen_ids, pair.rejected_ids)
        return Example("", pair.prompt_ids, responses, (True, False), row.where, row.probability)
    (encoded,) = chat.encode_sft(CompletionRow(row.where, row.prompt, row.completion, row.tools))
    at = encoded.mask.index(True)
    return Example("", encoded.token_ids[:at], (encoded.token_ids[at:],), (row.label,), row.where)


def _fitted(chat: ChatFormat, example: Example, limit: Limit) -> Example:
    room = limit.tokens - len(example.prompt_ids)
    if room < 1:
        length = chat.counted(len(example.prompt_ids))
        raise DoesNotFit(example.where, f"the prompt has {length} and {limit.text}", limit.advice)
    responses = tuple(ids[:room] for ids in example.responses)
    if len(set(responses)) < len(responses):
        raise DoesNotFit(
            example.where,
            f"chosen and rejected are the same {room} tokens after cutting, as {limit.text}",
            limit.advice,
        )
    return replace(example, responses=responses)
