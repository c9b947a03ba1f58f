"""What is to be sampled, and within which limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from posttrain.chat import ChatFormat, Ids
from posttrain.data.fitting import DoesNotFit, Fitted, fit
from posttrain.rows import Tools
from posttrain.types import InputError, Sampling, Task, located


@dataclass(frozen=True)
class RolloutRequest:
    """One rollout to make: the task, its place in its group, how to sample it and with which seed. The rollouts of a
    group have one `episode_seed`, so that their environments begin alike."""

    task: Task
    index: int
    sampling: Sampling
    seed: int
    episode_seed: int = 0


@dataclass(frozen=True)
class Limits:
    """What one conversation may take: `max_turns` answers of the model, `max_tokens` in a row (prompt, answers and all
    between them), `seconds` from the start of all (None: no limit). `Sampling.max_new_tokens` is for each answer.

    At the limit of turns or tokens a rollout is truncated, and scored as it is; at that of time it has failed."""

    max_turns: int
    max_tokens: int
    seconds: float | None = None

    def __post_init__(self) -> None:
        if self.max_turns < 1 or self.max_tokens < 1 or (self.seconds is not None and not self.seconds > 0):
            raise InputError(f"the limits of turns, tokens and seconds must be above 0, not {self}")


def rollout_seed(run_seed: int, step: int, task: int, index: int) -> int:
    """The seed of one rollout, from these four numbers alone."""
    return int(np.random.SeedSequence([run_seed, step, task, index]).generate_state(1, np.uint64)[0])


def turn_seed(seed: int, turn: int) -> int:
    """The sampling seed of one turn of a conversation; turns count from 0."""
    return int(np.random.SeedSequence([seed, turn]).generate_state(1, np.uint64)[0])


def fit_tasks(
    chat: ChatFormat,
    tasks: Sequence[Task],
    context: int,
    new_tokens: int,
    source: str,
    environment_tools: Tools | None = None,
) -> Fitted[Task]:
    """The tasks whose prompt leaves `new_tokens` of the model's context; see `fitting_prompt`."""

    def ready(task: Task) -> tuple[list[Task], bool]:
        fitting_prompt(chat, task, context, new_tokens, source, environment_tools)
        return [task], False

    return fit(tasks, ready)


def fitting_prompt(
    chat: ChatFormat, task: Task, context: int, new_tokens: int, source: str, environment_tools: Tools | None = None
) -> Ids:
    """The tokens of a task's prompt, a conversation where there is an environment (its tools may be none). Raises
    DoesNotFit where less than `new_tokens` of the context is left, and InputError for a prompt that cannot be
    written."""
    where = task.where or f"{source}: task {task.id}"
    with located(where):
        prompt = task.prompt if environment_tools is None else chat.conversation(task.prompt)
        ids = chat.prompt_ids(prompt, environment_tools or task.tools)
    n = len(ids)
    if n >= context:
        reason = f"the prompt has {chat.counted(n)} and the model's context is {context}"
        raise DoesNotFit(where, reason, "shorten the prompt")
    if n + new_tokens > context:
        raise DoesNotFit(
            where,
            f"the prompt has {chat.counted(n)}, which leave {context - n} of the model's context of {context}, and "
            f"--max-new-tokens is {new_tokens}",
            "lower --max-new-tokens or shorten the prompt",
        )
    return ids
