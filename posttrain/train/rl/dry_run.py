"""What a run would train on, shown before any training: rollouts, scores, advantages, and which tokens are trained."""

from __future__ import annotations

from itertools import groupby

from posttrain.arrays import Floats
from posttrain.models import LanguageModel
from posttrain.train.rl.advantages import Rows, TrainingRow
from posttrain.types import Segment

SHOWN = 10
"""Rollouts that are shown."""
LEGEND = "What stands between « and » was sampled, and is trained where there is an advantage."


def describe(lm: LanguageModel, rows: Rows) -> str:
    """The first rollouts as text; what stands between « and » was sampled and is trained."""
    blocks = [_rollout(lm, row, len(group)) for group in rows for row in group]
    return "\n\n".join([LEGEND, *blocks[:SHOWN]])


def _rollout(lm: LanguageModel, row: TrainingRow, group_size: int) -> str:
    rollout, score = row.rollout, row.score
    parts = ", ".join(f"{name} {'–' if value is None else f'{value:.4g}'}" for name, value in score.parts.items())
    worth = (
        f"score {score.total:.4g}" if score.total is not None else f"no score: {score.reason or 'no reward applied'}"
    )
    head = [
        f"task {rollout.task_id}, rollout {rollout.index + 1} of {group_size}",
        rollout.status,
        f"{worth} ({parts})" if parts else worth,
        _advantage(row.advantages),
        f"{rollout.response_length} tokens sampled",
    ]
    return "\n".join([" · ".join(head), *(_marked(lm, segment) for segment in rollout.segments)])


def _advantage(advantages: Floats | None) -> str:
    if advantages is None:
        return "not trained on"
    low, high = advantages.min(), advantages.max()
    return f"advantage {low:+.3f}" if low == high else f"advantages {low:+.3f} to {high:+.3f}"


def _marked(lm: LanguageModel, segment: Segment) -> str:
    out = []
    tokens = zip(segment.token_ids.tolist(), segment.sampled.tolist(), strict=True)
    for sampled, run in groupby(tokens, key=lambda pair: pair[1]):
        text = lm.tokenizer.decode([token for token, _ in run], skip_special_tokens=False)
        out.append(f"«{text}»" if sampled else str(text))
    return "".join(out)
