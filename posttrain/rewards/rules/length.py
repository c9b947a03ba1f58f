"""Rewards that count the length of a response and what it repeats."""

from __future__ import annotations

from collections.abc import Sequence


def length(
    response: str,
    completion_ids: Sequence[int],
    *,
    unit: str = "words",
    target_length: int | None = None,
    min_length: int | None = None,
    max_length: int | None = None,
) -> float:
    """1.0 if the length lies between `min_length` and `max_length`, else 0.0; with a target, how near it is.

    With `target_length` = t and n counted, max(0, 1 − |n − t| / t), and still 0.0 outside the bounds. `unit` is words
    (separated by whitespace), characters or tokens. Range [0, 1], without a target {0, 1}. Fails where no bound and no
    target is given, the target is below 1, the unit is unknown, or tokens are asked for and not known.
    Source: the exact and maximum length rewards of L1 (arXiv:2503.04697), scaled to [0, 1]."""
    if target_length is None and min_length is None and max_length is None:
        raise ValueError("length needs min_length, max_length or target_length")
    if target_length is not None and target_length < 1:
        raise ValueError(f"target_length is {target_length}; it must be at least 1")
    counted = len(units(response, completion_ids, unit))
    if counted < (min_length or 0) or (max_length is not None and counted > max_length):
        return 0.0
    return max(0.0, 1 - abs(counted - target_length) / target_length) if target_length else 1.0


def overlong(response: str, completion_ids: Sequence[int], *, max_tokens: int, cache_tokens: int) -> float:
    """The soft overlong punishment: 0 up to `max_tokens − cache_tokens`, then falling linearly to −1 at `max_tokens`.

    With n tokens, L = `max_tokens` and C = `cache_tokens`: 0 if n ≤ L − C, (L − C − n)/C if n ≤ L, else −1.
    Range [−1, 0], counted in tokens; a penalty to add to another reward. Fails where tokens are not known, and unless
    0 ≤ C ≤ L. Source: DAPO (arXiv:2503.14476), equation 13."""
    if not 0 <= cache_tokens <= max_tokens:
        raise ValueError(f"cache_tokens must be between 0 and max_tokens, not {cache_tokens} of {max_tokens}")
    excess = len(units(response, completion_ids, "tokens")) - (max_tokens - cache_tokens)
    if excess <= 0:
        return 0.0
    return -excess / cache_tokens if excess <= cache_tokens else -1.0


def repetition(
    response: str,
    completion_ids: Sequence[int],
    *,
    unit: str = "words",
    ngram_size: int = 3,
    max_penalty: float = -1.0,
) -> float:
    """The n-gram repetition penalty: `max_penalty` × (1 − distinct n-grams / n-grams).

    n-grams of `ngram_size` words in lower case, or of tokens or characters (`unit`). 0.0 for a response that is too
    short to have one. Range (max_penalty, 0], a share of n-grams; a penalty to add to another reward. Fails where
    `max_penalty` is above 0, `ngram_size` below 1, the unit unknown, or tokens are asked for and not known.
    Source: Demystifying Long Chain-of-Thought (arXiv:2502.03373), `get_repetition_penalty` of the authors' code."""
    if max_penalty > 0 or ngram_size < 1:
        raise ValueError(f"max_penalty must be at most 0 and ngram_size at least 1, not {max_penalty}, {ngram_size}")
    parts = units(response.lower(), completion_ids, unit)
    ngrams = list(zip(*(parts[i:] for i in range(ngram_size)), strict=False))
    return max_penalty * (1 - len(set(ngrams)) / len(ngrams)) if ngrams else 0.0


def units(response: str, completion_ids: Sequence[int], unit: str) -> Sequence[str | int]:
    """The words, characters or tokens of a response. Raises ValueError for another unit, or unknown tokens."""
    if unit == "words":
        return response.split()
    if unit == "characters":
        return response
    if unit != "tokens":
        raise ValueError(f"the unit {unit!r} is unknown; use words, characters or tokens")
    if response and not completion_ids:
        raise ValueError("the tokens of this response are not known (posttrain score has none); count words instead")
    return completion_ids
