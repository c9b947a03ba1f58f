"""engine x rewards -> groups: the one place that turns tasks into scored rollouts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from posttrain.chat import ChatFormat
from posttrain.data.packing import nodes_of, radix
from posttrain.engine.base import Engine, Request
from posttrain.models.flops import FlopCounter
from posttrain.rewards.base import Sample, Scorer
from posttrain.types import Completion, Group, InputError, Node, Rollout, Sampling, Score, Segment, Task


@dataclass(frozen=True)
class Plan:
    """One rollout to make: the task, its place in its group, how to sample it and with which seed."""

    task: Task
    index: int
    sampling: Sampling
    seed: int


def rollout_seed(run_seed: int, step: int, task: int, index: int) -> int:
    """The seed of one rollout, from these four numbers alone."""
    return int(np.random.SeedSequence([run_seed, step, task, index]).generate_state(1, np.uint64)[0])


def check_prompts(chat: ChatFormat, tasks: Sequence[Task], room: int, where: str) -> None:
    """Raise InputError, before anything is sampled, for a task whose prompt cannot be written or has more than `room`
    tokens; `room` is negative where the new tokens alone exceed the context."""
    for task in tasks:
        try:
            n = len(chat.prompt_ids(task.prompt, task.tools))
        except InputError as error:
            raise InputError(f"{where}: task {task.id}: {error}") from None
        if n > room:
            fit = f"only {room} fit" if room > 0 else "none fit"
            raise InputError(
                f"{where}: the prompt of task {task.id} has {n} tokens, but {fit} beside max_new_tokens in the model's "
                f"context; lower --max-new-tokens by {n - room}{' or shorten the prompt' if room > 0 else ''}"
            )


def sample(
    engine: Engine, chat: ChatFormat, plans: Sequence[Plan], deadline_seconds: float | None = None
) -> list[Rollout]:
    """Rollouts in the order of the plans, whatever order they finish in. Raises InputError for a prompt that is too
    long for the model."""
    prompts = {id(p.task): chat.prompt_ids(p.task.prompt, p.task.tools) for p in plans}
    requests = [Request(i, prompts[id(p.task)], p.sampling, p.seed) for i, p in enumerate(plans)]
    done: dict[int, Completion] = dict(engine.generate(requests, deadline_seconds))
    return [_rollout(chat, plan, prompts[id(plan.task)], done[i]) for i, plan in enumerate(plans)]


def _rollout(chat: ChatFormat, plan: Plan, prompt_ids: tuple[int, ...], completion: Completion) -> Rollout:
    status = {"stop": "ok", "length": "truncated", "cancelled": "failed"}[completion.stop_reason]
    return Rollout(
        task_id=plan.task.id,
        index=plan.index,
        sampling=plan.sampling,
        seed=plan.seed,
        messages=chat.response_messages(completion.token_ids),
        segments=(Segment.of(prompt_ids, completion),),
        status=status,  # type: ignore[arg-type]
        error="cancelled at the deadline" if completion.stop_reason == "cancelled" else None,
    )


def score(
    scorer: Scorer, tasks: Sequence[Task], rollouts: Sequence[Rollout], trainer_state: Mapping[str, Any] | None = None
) -> list[Score]:
    """A score for every rollout; a failed rollout is unscored with its error as the reason."""
    alive = [i for i, r in enumerate(rollouts) if r.status != "failed"]
    samples = [
        Sample(tasks[i].prompt, rollouts[i].messages, _sampled_ids(rollouts[i]), tasks[i].columns) for i in alive
    ]
    scores = [Score(None, reason=r.error or "the rollout failed") for r in rollouts]
    for i, value in zip(alive, scorer.score(samples, trainer_state), strict=True):
        scores[i] = value
    return scores


def collect(
    engine: Engine,
    chat: ChatFormat,
    scorer: Scorer,
    plans: Sequence[Plan],
    trainer_state: Mapping[str, Any] | None = None,
) -> list[Group]:
    """Sample and score; rollouts of one task that stand next to each other in the plans form its group."""
    rollouts = sample(engine, chat, plans)
    return regroup([p.task for p in plans], rollouts, score(scorer, [p.task for p in plans], rollouts, trainer_state))


def regroup(tasks: Sequence[Task], rollouts: Sequence[Rollout], scores: Sequence[Score]) -> list[Group]:
    """Groups of consecutive rollouts of the same task. A rollout of index 0 begins a new group."""
    groups: list[tuple[Task, list[Rollout], list[Score]]] = []
    for task, rollout, value in zip(tasks, rollouts, scores, strict=True):
        if not groups or groups[-1][0].id != task.id or rollout.index == 0:
            groups.append((task, [], []))
        groups[-1][1].append(rollout)
        groups[-1][2].append(value)
    return [Group(task, tuple(members), tuple(values)) for task, members, values in groups]


def prompt_ids(rollout: Rollout) -> tuple[int, ...]:
    """The tokens before the first sampled one."""
    segment = rollout.segments[0]
    return segment.token_ids[: segment.sampled.index(True)] if True in segment.sampled else segment.token_ids


def sampling_flops(flops: FlopCounter, groups: Sequence[Group]) -> float:
    """What it takes to sample these groups together: the forest of their prompts forwarded once, and of each completion
    all tokens but the last. Every sampled token takes a row of the head; the first ones of a group share it."""
    prompts = [prompt_ids(group.rollouts[0]) for group in groups]
    spans = radix([(ids, len(ids) - 1) for ids in prompts])
    ends = [i for i, span in enumerate(spans) if span.leaf]
    nodes = list(nodes_of(spans))
    for end, group in zip(ends, groups, strict=True):
        nodes += [Node(end, max(0, r.response_length - 1)) for r in group.rollouts]
    decoded = sum(node.length for node in nodes[len(spans) :])
    return flops.forward(nodes, len(groups) + decoded)


def _sampled_ids(rollout: Rollout) -> tuple[int, ...]:
    return tuple(t for s in rollout.segments for t, sampled in zip(s.token_ids, s.sampled, strict=True) if sampled)


def rollout_to_json(step: int, rollout: Rollout, value: Score, advantage: float | None) -> dict[str, Any]:
    """A line of `rollouts.jsonl`: readable, and enough to train on again without an engine."""
    return {
        "step": step,
        "task": rollout.task_id,
        "index": rollout.index,
        "seed": rollout.seed,
        "status": rollout.status,
        "error": rollout.error,
        "text": rollout.text,
        "score": value.total,
        "parts": dict(value.parts),
        "reason": value.reason,
        "advantage": advantage,
        "segments": [
            {
                "token_ids": s.token_ids,
                "sampled": [int(x) for x in s.sampled],
                "sampler_logprobs": s.sampler_logprobs,
                "versions": s.versions,
                "supports": s.supports,
            }
            for s in rollout.segments
        ],
    }


def rollout_from_json(row: Mapping[str, Any], sampling: Sampling, chat: ChatFormat) -> tuple[Rollout, Score]:
    """The inverse of `rollout_to_json` for single-turn rollouts; floats survive JSON exactly."""
    segments = tuple(
        Segment(
            token_ids=tuple(s["token_ids"]),
            sampled=tuple(bool(x) for x in s["sampled"]),
            sampler_logprobs=tuple(s["sampler_logprobs"]),
            versions=tuple(s["versions"]),
            supports=None if s["supports"] is None else tuple(tuple(k) for k in s["supports"]),
        )
        for s in row["segments"]
    )
    rollout = Rollout(row["task"], row["index"], sampling, row["seed"], (), segments, row["status"], row["error"])
    messages = chat.response_messages(_sampled_ids(rollout))
    rollout = Rollout(row["task"], row["index"], sampling, row["seed"], messages, segments, row["status"], row["error"])
    return rollout, Score(row["score"], row["parts"], row["reason"])
