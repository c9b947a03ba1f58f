"""Answers of a policy as a reward model sees them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from posttrain.config import RewardModelConfig
from posttrain.data.fitting import Fitted
from posttrain.data.formats import load_preferences
from posttrain.engine.open import Slots, open_engine
from posttrain.models import LanguageModel, load_model
from posttrain.rewards.models import Learned
from posttrain.rollout import RolloutRequest, fit_tasks, regroup, rollout_seed, sample
from posttrain.rows import PreferenceRow
from posttrain.types import Sample, Sampling, Score, Task


def held_out_prompts(config: RewardModelConfig) -> list[Task]:
    """The different prompts of the held-out pairs as tasks, each with the columns of the first row that has it."""
    rows = load_preferences(str(config.eval_data), config.columns, optional=True)
    first: dict[str, PreferenceRow] = {}
    for row in rows:
        first.setdefault(repr((row.prompt, row.tools)), row)  # messages with calls in them cannot be hashed
    return [Task(row.where, row.prompt, row.columns, row.tools, row.where) for row in first.values()]


def fit_policy(config: RewardModelConfig, tasks: Sequence[Task], source: str) -> Fitted[Task]:
    """The tasks that leave the policy room for an answer. Raises InputError where there is no such model."""
    lm = _policy(config)
    return fit_tasks(lm.chat, tasks, lm.context, config.max_new_tokens, source)


def sampled(config: RewardModelConfig, tasks: Sequence[Task], n: int, seed: int) -> list[list[Sample]]:
    """n answers of the policy to each task (of those that fit it), at temperature 1."""
    lm = _policy(config)
    how = Sampling(config.max_new_tokens)
    plans = [
        RolloutRequest(task, k, how, rollout_seed(seed, 0, i, k)) for i, task in enumerate(tasks) for k in range(n)
    ]
    rollouts = sample(open_engine(Slots(), lm), lm.chat, plans)
    groups = regroup([plan.task for plan in plans], rollouts, [Score(None)] * len(plans))
    return [
        [Sample(group.task.prompt, r.messages, r.sampled_ids, group.task.columns) for r in group.rollouts]
        for group in groups
    ]


def _policy(config: RewardModelConfig) -> LanguageModel:
    """The model to sample from: `policy` with its own chat template, or the start with `chat_template`."""
    return load_model(
        config.policy or config.model,
        raw=config.raw,
        trust_remote_code=config.trust_remote_code,
        chat_template=None if config.policy else config.chat_template,
    )


def member_scores(lm: LanguageModel, samples: Sequence[Sample], longest: int | None = None) -> NDArray[np.float64]:
    """Members' scores [n, K]; NaN where a sample has more than `longest` tokens or exceeds the context."""
    out = np.full((len(samples), lm.reward_head.out_features), np.nan)
    for i, found in enumerate(Learned(lm, "mean", 0.0).members(samples, longest)):
        if not isinstance(found, str):
            out[i] = found.numpy()
    return out
