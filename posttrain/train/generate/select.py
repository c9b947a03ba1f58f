"""From scored answers to rows of training data, with what was left out and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from posttrain.config import SampleConfig
from posttrain.types import Group, Rollout, Score

Answers = list[tuple[Rollout, Score]]


def rows_of(group: Group, config: SampleConfig, rng: np.random.Generator) -> tuple[list[dict[str, Any]], Counter[str]]:
    """A task's rows, and how many answers (`tasks_…`: tasks) were left out why. `rng` decides between equals."""
    if config.write == "pairs":
        return _pair(group, rng, config.soft_labels)
    usable, dropped = _usable(group, config)
    chosen = usable
    if config.write == "best":
        chosen, duplicates = _best(usable, config.keep, rng)
        dropped["duplicates"] += duplicates
    if not chosen:
        dropped["tasks_without_a_row"] += 1
    return [_row(group, *answer) for answer in chosen], +dropped


def _usable(group: Group, config: SampleConfig) -> tuple[Answers, Counter[str]]:
    """The answers that may be written, and the others by the first reason against them."""
    usable: Answers = []
    dropped: Counter[str] = Counter()
    needs_score = config.write == "best" or config.threshold is not None
    for rollout, score in zip(group.rollouts, group.scores, strict=True):
        if rollout.status == "failed":
            dropped["failed"] += 1
        elif rollout.status == "truncated" and config.truncated == "drop":
            dropped["truncated"] += 1
        elif needs_score and score.total is None:
            dropped["unscored"] += 1
        elif config.threshold is not None and score.total is not None and score.total < config.threshold:
            dropped["below_threshold"] += 1
        else:
            usable.append((rollout, score))
    return usable, dropped


def _best(answers: Answers, keep: int, rng: np.random.Generator) -> tuple[Answers, int]:
    """The `keep` best answers that differ in text, and how many were passed over as duplicates of a better one."""
    order = [answers[i] for i in rng.permutation(len(answers))]
    chosen: Answers = []
    duplicates = 0
    for rollout, score in sorted(order, key=lambda answer: -_total(answer)):
        if len(chosen) == keep:
            break
        if any(rollout.text == other.text for other, _ in chosen):
            duplicates += 1
        else:
            chosen.append((rollout, score))
    return chosen, duplicates


def _pair(group: Group, rng: np.random.Generator, soft_label: bool) -> tuple[list[dict[str, Any]], Counter[str]]:
    """One pair of an answer with the highest and one with the lowest score, where these differ."""
    scored = [(r, s) for r, s in zip(group.rollouts, group.scores, strict=True) if s.total is not None]
    dropped = Counter(unscored=len(group.rollouts) - len(scored))
    if not scored:
        return [], +(dropped + Counter(tasks_without_a_score=1))
    totals = [_total(answer) for answer in scored]
    best, worst = max(totals), min(totals)
    if best == worst:
        return [], +(dropped + Counter(tasks_of_equal_scores=1))
    chosen = _draw([answer for answer in scored if _total(answer) == best], rng)
    rejected = _draw([answer for answer in scored if _total(answer) == worst], rng)
    if chosen[0].text == rejected[0].text:  # a reward that scores one text in two ways
        return [], +(dropped + Counter(tasks_of_equal_answers=1))
    label = {"probability": preference(best, worst)} if soft_label else {}
    return [_pair_row(group, chosen, rejected) | label], +dropped


def preference(chosen: float, rejected: float) -> float:
    """(s_w + 1 − s_l) / 2: how likely the chosen of two answers is the better one, from their win rates s against the
    others to the same prompt.

    Without others it is p_wl, what the judge made of the two. Where all of G were compared it is the mean over the
    G − 1 ways from the one to the other: p_wl itself, and (p_wk + p_kl) / 2 by way of each third answer k. It stays
    within the bounds that p is clamped to."""
    return (chosen + (1 - rejected)) / 2


def _draw(answers: Answers, rng: np.random.Generator) -> tuple[Rollout, Score]:
    return answers[int(rng.integers(len(answers)))]


def _total(answer: tuple[Rollout, Score]) -> float:
    total = answer[1].total
    assert total is not None
    return total


def _row(group: Group, rollout: Rollout, score: Score) -> dict[str, Any]:
    return {
        **_task_fields(group),
        "completion": _response(group, rollout),
        "score": score.total,
        "parts": dict(score.parts),
        "status": rollout.status,
        "index": rollout.index,
        "seed": rollout.seed,
        "task": group.task.id,
    }


def _pair_row(group: Group, chosen: tuple[Rollout, Score], rejected: tuple[Rollout, Score]) -> dict[str, Any]:
    sides = {"chosen": chosen, "rejected": rejected}
    return {
        **_task_fields(group),
        **{side: _response(group, rollout) for side, (rollout, _) in sides.items()},
        **{f"{side}_score": score.total for side, (_, score) in sides.items()},
        **{f"{side}_status": rollout.status for side, (rollout, _) in sides.items()},
        **{f"{side}_index": rollout.index for side, (rollout, _) in sides.items()},
        **{f"{side}_seed": rollout.seed for side, (rollout, _) in sides.items()},
        "task": group.task.id,
    }


def _task_fields(group: Group) -> dict[str, Any]:
    prompt = group.task.prompt
    tools: Sequence[Mapping[str, Any]] = group.task.tools
    fields: dict[str, Any] = {"prompt": prompt if isinstance(prompt, str) else [m.to_dict() for m in prompt]}
    return fields | ({"tools": [dict(tool) for tool in tools]} if tools else {})


def _response(group: Group, rollout: Rollout) -> str | list[dict[str, Any]]:
    return rollout.text if isinstance(group.task.prompt, str) else [m.to_dict() for m in rollout.messages]


def format_counts(dropped: Counter[str]) -> str:
    """`3 truncated, 2 tasks without a row`; or that there was nothing."""
    return ", ".join(f"{n} {reason.replace('_', ' ')}" for reason, n in dropped.items()) or "no answer was left out"
