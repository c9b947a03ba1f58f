"""Pairs for a reward model: tokens, labels, margins, weights, and gold scores where the data has them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from posttrain.batch.packing import Tree, response_tree
from posttrain.chat import ChatFormat, Ids
from posttrain.config import RewardModelConfig
from posttrain.data.fitting import Fitted, Limit, fit
from posttrain.losses.reward_model import balanced_weights, bootstrap_weights
from posttrain.models import LanguageModel
from posttrain.rows import PreferenceRow
from posttrain.train.dpo.data import encode_example
from posttrain.train.loop import load_trained
from posttrain.types import InputError

SHOWN = ("loss", "accuracy", "margin")
"""Metrics shown beside the progress bar."""
MARGIN = "margin"
GOLD = ("chosen_score", "rejected_score")
"""Columns of what is true of the responses, for validation."""


@dataclass(frozen=True)
class Pair:
    """A prompt and two responses, the chosen one first. `weights` has an entry a member. `gold` are scores that are
    taken as true. `probability` is how likely the chosen response is the better one."""

    prompt_ids: Ids
    responses: tuple[Ids, ...]
    margin: float = 0.0
    weights: tuple[float, ...] = (1.0,)
    gold: tuple[float, float] | None = None
    probability: float = 1.0

    @property
    def lengths(self) -> tuple[int, int]:
        chosen, rejected = map(len, self.responses)
        return chosen, rejected


def encode_pairs(lm: LanguageModel, rows: Sequence[PreferenceRow], max_length: int, members: int) -> Fitted[Pair]:
    """Rows as pairs of weight 1 for every member; see `encode_pair`."""
    limit = Limit.of(max_length, lm.context)
    chat = lm.chat_within(limit.tokens)

    def ready(row: PreferenceRow) -> tuple[list[Pair], bool]:
        pair, cut = encode_pair(chat, row, limit, members)
        return [pair], cut

    return fit(rows, ready)


def encode_pair(chat: ChatFormat, row: PreferenceRow, limit: Limit, members: int = 1) -> tuple[Pair, bool]:
    """A row as a pair, and whether it was cut. Raises what `encode_example` and `_number` raise."""
    margin = _number(row, MARGIN)
    chosen, rejected = (_number(row, name) for name in GOLD)
    gold = None if chosen is None or rejected is None else (chosen, rejected)
    example, cut = encode_example(chat, row, limit)
    weights = (1.0,) * members
    return Pair(example.prompt_ids, example.responses, margin or 0.0, weights, gold, row.probability), cut


def weighted(pairs: Sequence[Pair], config: RewardModelConfig) -> list[Pair]:
    """The pairs with the weights asked for. Raises InputError where lengths cannot be balanced."""
    weights = bootstrap_weights(len(pairs), config.members, config.seed)
    if config.length_balanced:
        differences = [chosen - rejected for chosen, rejected in (pair.lengths for pair in pairs)]
        balance = balanced_weights(differences, [pair.probability for pair in pairs])
        if not balance.any():
            raise InputError(
                f"{config.data}: the better response is on the same side in length in every pair, so that nothing can "
                "be balanced; leave out --length-balanced, or add pairs of the other kind"
            )
        weights = weights * balance[:, None]
    return [replace(pair, weights=tuple(row)) for pair, row in zip(pairs, weights.tolist(), strict=True)]


def untrained(
    config: RewardModelConfig, outputs: int, saved: int | None = None, step_separator: str | None = None
) -> LanguageModel:
    """The model to train, with its reward head. Raises InputError for one that could not be written."""
    lm = load_trained(config)
    lm.add_reward_head(outputs, config.seed, saved, step_separator)
    return lm


def pair_trees(pairs: Sequence[Pair]) -> list[Tree]:
    weight = 1 / max(1, 2 * len(pairs))
    return [response_tree(pair.prompt_ids, pair.responses, weight, _label(pair)) for pair in pairs]


def _label(pair: Pair) -> dict[str, float | Sequence[float]]:
    return {"margin": pair.margin, "member_weights": pair.weights, "probability": pair.probability}


def _number(row: PreferenceRow, column: str) -> float | None:
    """The value of a column, None where there is none. CSV files hold numbers as text."""
    value: Any = row.columns.get(column)
    if value is None or value == "":
        return None
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"{row.where}: column {column!r} must be a number, not {value!r}; rename it if it is no score")
    return number
