"""Rewards that look at the form of a response alone."""

from __future__ import annotations

import re

TAG = re.compile(r"</?(?:think|answer)>")
TAGS_IN_ORDER = ["<think>", "</think>", "<answer>", "</answer>"]


def format(response: str) -> float:
    """1.0 if the response is exactly `<think>…</think><answer>…</answer>`, else 0.0.

    Both parts must hold more than whitespace; whitespace may stand before, between and after them; each tag occurs
    exactly once and in this order, so nothing is nested and nothing is said outside. Range {0, 1}, no unit; never
    fails. Source: the format reward of DeepSeek-R1 (arXiv:2501.12948, section 2.2.2), made exact."""
    if TAG.findall(response) != TAGS_IN_ORDER:
        return 0.0
    before, thought, between, answer, after = TAG.split(response)
    outside = before + between + after
    return float(not outside.strip() and bool(thought.strip()) and bool(answer.strip()))
