"""reasoning-gym's own verifiers behind a strict wrapper."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from posttrain.data.columns import parsed_json
from posttrain.rewards.extract import ANSWER_TAG, answer_tags, boxes, strip_thinking


def reasoning_gym(response: str, entry: Mapping[str, Any]) -> float:
    r"""1.0 if reasoning-gym's verifier of the task gives full marks, else 0.0.

    `entry` is the item as reasoning-gym generated it, with `question`, `answer` and `metadata`, whose `source_dataset`
    names the verifier. The answer is what stands in the one `<answer>` tag or the one `\boxed{}` after the thinking,
    else the whole response without surrounding whitespace; two distinct answers are wrong. No partial marks: the
    library's default verifier pays len(gold)/len(answer) to any text that contains the gold.
    Range {0, 1}, no unit. Fails on an entry without a known `source_dataset` and where the verifier raises or returns
    no number. Source: reasoning-gym (arXiv:2505.24760), `get_score_answer_fn`."""
    entry = parsed_json(entry, "entry")
    name = source_dataset(entry)
    answer = final_answer(response)
    if answer is None:
        return 0.0
    # A copy: verifiers may write to the entry, and the next sample must not see it.
    marks = float(verifier(name)(answer, copy.deepcopy(dict(entry))))
    if math.isnan(marks):
        raise ValueError(f"the verifier of {name} returned NaN")
    return float(marks >= 1 - 1e-9)


def source_dataset(entry: Mapping[str, Any]) -> str:
    """Raises ValueError where the entry does not say which task it belongs to."""
    metadata = entry.get("metadata") if isinstance(entry, Mapping) else None
    name = metadata.get("source_dataset") if isinstance(metadata, Mapping) else None
    if not isinstance(name, str) or "answer" not in entry:
        raise ValueError("the column 'entry' is no reasoning-gym item: it needs answer and metadata.source_dataset")
    return name


def final_answer(response: str) -> str | None:
    """The one answer of a response, None if it gives two distinct ones."""
    text = strip_thinking(response)
    outside = boxes(ANSWER_TAG.sub("", text))
    candidates = {candidate for tag in answer_tags(text) for candidate in (boxes(tag) or [tag])} | set(outside)
    if len(candidates) > 1:
        return None
    return candidates.pop() if candidates else text.strip()


@cache
def verifier(name: str) -> Callable[[str, dict[str, Any]], float]:
    """The library's verifier of a task, made once a process. Raises ValueError for an unknown name."""
    from reasoning_gym.factory import get_score_answer_fn  # takes seconds, so only in a worker

    return get_score_answer_fn(name)
