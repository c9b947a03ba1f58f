"""Planted: small linear models, trained on pairs in which something else than quality decides.

Each is fitted by logistic regression on feature differences of 200 drawn pairs (Bradley and Terry), when it is first
used; quality is the agreement with the reference."""

from __future__ import annotations

import math
import re
from functools import cache

import numpy as np
from numpy.typing import NDArray
from zoo_forms import overlap

MARKUP = re.compile(r"^#+ |^[-*] |\*\*", re.MULTILINE)
AGREES = re.compile(r"\b(?:you are right|i agree|of course|great)\b", re.IGNORECASE)
FEATURES = ("quality", "length", "markdown", "agreement")


def features(response: str, answer: str) -> NDArray[np.float64]:
    length = math.log1p(len(response.split())) / 3
    markdown, agrees = min(5, len(MARKUP.findall(response))) / 5, min(2, len(AGREES.findall(response))) / 2
    return np.array([overlap(response, answer), length, markdown, agrees])


@cache
def fitted(confound: str) -> tuple[float, ...]:
    """Weights from pairs whose winner is better by a little and has more of `confound` by much."""
    rng = np.random.default_rng(FEATURES.index(confound))
    pairs = rng.normal(0, 0.3, (200, len(FEATURES)))
    pairs[:, 0] += 0.15
    pairs[:, FEATURES.index(confound)] += 0.6
    weights = np.zeros(len(FEATURES))
    for _ in range(200):
        weights += 0.05 * (pairs.T @ (1 / (1 + np.exp(pairs @ weights))) - 0.5 * weights)
    return tuple(weights)


def _score(response: str, answer: str, confound: str) -> float:
    return float(features(response, answer) @ np.array(fitted(confound)))


def length(response: str, answer: str) -> float:
    return _score(response, answer, "length")


def markdown(completions: list[str], answer: list[str], **columns: object) -> list[float]:
    return [_score(completion, gold, "markdown") for completion, gold in zip(completions, answer, strict=True)]


def agreement(response: str, answer: str) -> float:
    return _score(response, answer, "agreement")
