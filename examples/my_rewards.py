"""A reward of one's own: it names what it wants to see. See docs/rewards.md."""

from __future__ import annotations


def concise(response: str, max_words: int = 30) -> float:  # max_words is a column of your data, or 30
    """1.0 up to so many words, else 0.0."""
    return 1.0 if len(response.split()) <= max_words else 0.0
