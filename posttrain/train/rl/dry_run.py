"""What a run would train on, shown before any training: rollouts, scores, advantages, and which tokens are trained."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from posttrain.models import LanguageModel
from posttrain.train.rl.advantages import Signal
from posttrain.types import Group, Rollout, Score

SHOWN = 10
"""Rollouts that are shown."""
LEGEND = "What stands between « and » was sampled, and is trained where there is an advantage."


def describe(lm: LanguageModel, groups: Sequence[Group], signals: Sequence[Sequence[Signal]]) -> str:
    """The first rollouts as text; what stands between « and » was sampled and is trained."""
    advantages = {id(s.rollout): s.advantages for members in signals for s in members}
    blocks = [
        _rollout(lm, group, rollout, score, advantages.get(id(rollout)))
        for group in groups
        for rollout, score in zip(group.rollouts, group.scores, strict=True)
    ]
    return "\n\n".join([LEGEND, *blocks[:SHOWN]])


def _rollout(
    lm: LanguageModel, group: Group, rollout: Rollout, score: Score, advantages: tuple[float, ...] | None
) -> str:
    parts = ", ".join(f"{name} {'–' if value is None else f'{value:.4g}'}" for name, value in score.parts.items())
    worth = (
        f"score {score.total:.4g}" if score.total is not None else f"no score: {score.reason or 'no reward applied'}"
    )
    head = [
        f"task {rollout.task_id}, rollout {rollout.index + 1} of {len(group.rollouts)}",
        rollout.status,
        f"{worth} ({parts})" if parts else worth,
        _advantage(advantages),
        f"{rollout.response_length} tokens sampled",
    ]
    return "\n".join([" · ".join(head), *(_marked(lm, segment) for segment in _rows(rollout))])


def _advantage(advantages: tuple[float, ...] | None) -> str:
    if not advantages:
        return "not trained on"
    low, high = min(advantages), max(advantages)
    return f"advantage {low:+.3f}" if low == high else f"advantages {low:+.3f} to {high:+.3f}"


def _rows(rollout: Rollout) -> list[tuple[tuple[int, ...], tuple[bool, ...]]]:
    return [(segment.token_ids, segment.sampled) for segment in rollout.segments]


def _marked(lm: LanguageModel, row: tuple[tuple[int, ...], tuple[bool, ...]]) -> str:
    out = []
    for sampled, run in groupby(zip(*row, strict=True), key=lambda pair: pair[1]):
        text = lm.tokenizer.decode([token for token, _ in run], skip_special_tokens=False)
        out.append(f"«{text}»" if sampled else str(text))
    return "".join(out)
