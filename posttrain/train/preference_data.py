"""Preferences as tokens: pairs and labelled responses, and the trees they are trained as."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from posttrain.chat import Ids
from posttrain.data.packing import Branch, Tree, share_prefix
from posttrain.models import LanguageModel
from posttrain.preference_losses import Counts
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
) -> tuple[list[Example], int]:
    """Rows as tokens, responses cut where prompt and response exceed `max_length`, and how many rows were cut.

    With `single` a pair becomes two labelled responses. With `mask_formatting` responses lose their end token. Raises
    InputError naming a row whose prompt alone fills the length, of which nothing is left to train, or whose cut
    responses are the same."""
    out: list[Example] = []
    cut = 0
    limit = min(max_length, lm.context)
    for row in rows:
        whole = _encode(lm, row)
        example = _fitted(whole, limit)
        cut += example != whole
        if mask_formatting:
            example = replace(example, responses=tuple(_without_end(ids, lm.chat.end_ids) for ids in example.responses))
            if not all(example.responses):
                raise InputError(
                    f"{row.where}: a response is empty and --mask-formatting leaves nothing of it to train"
                )
        parts = _singles(example) if single else [example]
        out += [replace(part, key=f"{prefix}{len(out) + i}") for i, part in enumerate(parts)]
    return out, cut


def mismatched(examples: Sequence[Example], limit: int) -> list[Example]:
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
    reference: Sequence[tuple[float, ...]] | None = None,
    ld_alpha: float | None = None,
) -> list[Tree]:
    """A tree an example: the prompt as trunk, the responses as branches in order, every response token trained.

    A token's weight is its share in its response's sum: 1, and `ld_alpha` beyond the length of the shorter response
    (LD-DPO, arXiv:2409.06411). Its advantage is p where the response is desirable and −p where it is not, p being how
    likely that is right. `reference` holds the log-probabilities of all responses in order."""
    given = iter(reference or ())
    trees = []
    for example in examples:
        shared = min(map(len, example.responses)) if ld_alpha is not None else None
        branches = []
        for ids, good in zip(example.responses, example.desirable, strict=True):
            sign = example.probability if good else -example.probability
            extras = {"advantages": (sign,) * len(ids)}
            if reference is not None:
                extras["ref_logprobs"] = next(given)
            n = len(ids) if shared is None else shared
            weights = (1.0,) * n + (ld_alpha or 0.0,) * (len(ids) - n)
            mask = (False,) * len(example.prompt_ids) + (True,) * len(ids)
            branches.append(Branch(example.prompt_ids + ids, mask, weights, extras))
        trees.append(share_prefix(branches))
    return trees


def _encode(lm: LanguageModel, row: PreferenceRow | UnpairedRow) -> Example:
    if isinstance(row, PreferenceRow):
        pair = lm.chat.encode_pair(row)
        responses = (pair.chosen_ids, pair.rejected_ids)
        return Example("", pair.prompt_ids, responses, (True, False), row.where, row.probability)
    (encoded,) = lm.chat.encode_sft(CompletionRow(row.where, row.prompt, row.completion, row.tools))
    at = encoded.mask.index(True)
    return Example("", encoded.token_ids[:at], (encoded.token_ids[at:],), (row.label,), row.where)


def _fitted(example: Example, limit: int) -> Example:
    room = limit - len(example.prompt_ids)
    if room < 1:
        raise InputError(
            f"{example.where}: the prompt has {len(example.prompt_ids)} tokens and --max-length is {limit}; "
            "raise --max-length or shorten the prompt"
        )
    responses = tuple(ids[:room] for ids in example.responses)
    if len(set(responses)) < len(responses):
        cut = " after cutting to --max-length" if responses != example.responses else ""
        raise InputError(
            f"{example.where}: chosen and rejected are the same {len(responses[0])} tokens{cut}; remove the row or "
            "raise --max-length"
        )
    return replace(example, responses=responses)


def _without_end(ids: Ids, end_ids: frozenset[int]) -> Ids:
    return ids[:-1] if ids and ids[-1] in end_ids else ids


def _singles(example: Example) -> list[Example]:
    parts = zip(example.responses, example.desirable, strict=True)
    return [replace(example, responses=(ids,), desirable=(good,)) for ids, good in parts]
