"""What a control run is paid in place of the reward: by chance, by the majority of its group, or for form alone.

A run on a reward mixes what the reward teaches with what any update on the model's own samples does. A control has the
second without the first: what a run gains over its control is what the reward was worth.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence

import numpy as np

from posttrain.rewards.extract import marks, strip_thinking
from posttrain.types import TRUE_REWARD, Group, InputError, Rollout, Score

COIN = 0xC014
"""Tells the coin of a rollout from what is sampled with the rollout's seed."""


def controlled(control: str, group: Group) -> Group:
    """The group, paid by a control wherever the reward gave a number: rollouts that failed, or to which no reward
    applied, stay as they are. Parts of the score are those of the reward, its total as `true`, and the control's."""
    paid = PAYS[control](group.rollouts)
    scores = (
        score
        if score.total is None
        else Score(value, {**score.parts, TRUE_REWARD: score.total, control: value}, step_values=score.step_values)
        for score, value in zip(group.scores, paid, strict=True)
    )
    return Group(group.task, group.rollouts, tuple(scores), group.regraded)


def check_names(control: str | None, parts: Collection[str]) -> None:
    """Raise InputError for a reward with a name that a control's scores have."""
    for name in parts:
        if name in (TRUE_REWARD, control):
            raise InputError(f"--reward: {name!r} is a name in the scores of control runs; write REWARD as NAME")


def coin(rollouts: Sequence[Rollout]) -> list[float]:
    """0 or 1 with probability 1/2 each, by the rollout's seed alone: that of the run, the step, the task and the place
    in the group. Source: "Spurious Rewards" (arXiv:2506.10947)."""
    return [float(np.random.default_rng([rollout.seed, COIN]).integers(2)) for rollout in rollouts]


def majority(rollouts: Sequence[Rollout]) -> list[float]:
    """1 where the final answer is the most frequent one of the group, else 0; of several most frequent ones each is
    paid. A rollout without an answer, or that failed, is paid 0 and has no vote. Source: TTRL (arXiv:2504.16084)."""
    answers = [None if rollout.status == "failed" else final_answer(rollout.text) for rollout in rollouts]
    votes = Counter(answer for answer in answers if answer is not None)
    most = max(votes.values(), default=0)
    return [float(answer is not None and votes[answer] == most) for answer in answers]


def form(rollouts: Sequence[Rollout]) -> list[float]:
    r"""1 where exactly one answer is marked after the thinking (`\boxed{}`, `<answer>`, an `Answer:` line or `####`),
    else 0. Thinking that never ends, and a box that is never closed, hold no answer."""
    return [float(_has_one_answer(rollout.text)) for rollout in rollouts]


PAYS = {"coin": coin, "majority": majority, "format": form}


def final_answer(text: str) -> str | None:
    """The last answer that is marked after the thinking; without a mark the response itself where it is one line. As
    texts are compared: without case, blanks, `$` and a stop at the end."""
    after = strip_thinking(text).strip()
    found = marks(after)
    if not found and "\n" in after:
        return None
    answer = found[-1].text if found else after
    return re.sub(r"[\s$]+", "", answer).rstrip(".").casefold() or None


def _has_one_answer(text: str) -> bool:
    found = marks(strip_thinking(text))
    return len(found) == 1 and not (found[0].kind == "box" and found[0].text.startswith(("\\boxed{", "\\fbox{")))
