"""Rollouts as lines of `rollouts.jsonl`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from posttrain.chat import ChatFormat
from posttrain.runs.rollouts import segments_of
from posttrain.types import Message, Rollout, Sampling, Score, Task


def rollout_to_json(
    step: int,
    task: Task,
    rollout: Rollout,
    value: Score,
    advantage: float | list[float] | None,
    regraded: Mapping[str, float | None] = MappingProxyType({}),
) -> dict[str, Any]:
    """A line of `rollouts.jsonl`, whose token rows `RunLog.rollouts` writes: readable, and enough to train on again
    without an engine or an environment. `advantage` is a number, or a list of them by token; `regraded` has the
    rollout's values of `Group.regraded`."""
    return {
        "step": step,
        "task": rollout.task_id,
        "prompt": task.asked,
        "index": rollout.index,
        "seed": rollout.seed,
        "temperature": rollout.sampling.temperature,
        "status": rollout.status,
        "error": rollout.error,
        "text": rollout.text,
        "messages": [message.to_dict() for message in rollout.messages],
        "environment_reward": rollout.environment_reward,
        "score": value.total,
        "parts": dict(value.parts),
        "reason": value.reason,
        **({} if value.step_values is None else {"step_values": value.step_values}),
        **({"regraded": dict(regraded)} if regraded else {}),
        "advantage": advantage,
        "segments": rollout.segments,
    }


def rollout_from_json(row: Mapping[str, Any], sampling: Sampling, chat: ChatFormat) -> tuple[Rollout, Score]:
    """The inverse of `rollout_to_json`, but for the state of an environment, from a line as `read_rollouts` gives it;
    floats survive exactly. Where a line holds no messages, it is of a single answer, which is decoded."""
    segments = segments_of(row)
    rollout = Rollout(row["task"], row["index"], sampling, row["seed"], (), segments, row["status"], row["error"])
    if "messages" in row:
        messages = tuple(Message.from_dict(message) for message in row["messages"])
    else:
        messages = (chat.answer(rollout.sampled_ids).message,)
    rollout = replace(rollout, messages=messages, environment_reward=row.get("environment_reward"))
    steps = row.get("step_values")
    return rollout, Score(row["score"], row["parts"], row["reason"], None if steps is None else tuple(steps))


def regraded_from_json(row: Mapping[str, Any]) -> dict[str, float | None]:
    """The values of `Group.regraded` in a line. Raises ValueError for what are no finite numbers."""
    found: dict[str, float | None] = dict(row.get("regraded", {}))
    if wrong := [value for value in found.values() if value is not None and not _is_finite(value)]:
        raise ValueError(f"it is graded {wrong[0]!r} once more, which is no number")
    return found


def _is_finite(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]
