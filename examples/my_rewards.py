"""Rewards of one's own: a function names what it wants to see. See docs/rewards.md."""

from __future__ import annotations

from collections import Counter


def concise(response: str, max_words: int = 30) -> float:  # max_words is a column of your data, or 30
    """1.0 up to so many words, else 0.0."""
    return 1.0 if len(response.split()) <= max_words else 0.0


def overlap(response: str, output: str) -> float:  # output is a column of your data, as in Alpaca's
    """F1 of the words that response and output share, counted with repeats, 0 to 1: as SQuAD scores answers."""
    words, wanted = Counter(response.lower().split()), Counter(output.lower().split())
    shared = (words & wanted).total()
    return 2 * shared / (words.total() + wanted.total()) if shared else 0.0
