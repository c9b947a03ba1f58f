"""Sampling and scoring: groups are scored by a thread of their own while others are still being sampled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from posttrain.chat import ChatFormat
from posttrain.engine.base import Engine, Request
from posttrain.envs.pool import EnvPool
from posttrain.rewards.scorer import Scorer
from posttrain.rollout.plan import Limits, RolloutRequest
from posttrain.rollout.turns import converse
from posttrain.types import Completion, Group, InputError, Rollout, Sample, Score, Segment, Status, Task

ENVIRONMENT_PART = "environment"
"""The part of a score that is the environment's own reward, with weight 1."""

STATUS: Mapping[str, Status] = {"stop": "ok", "length": "truncated", "cancelled": "failed"}


def sample(
    engine: Engine,
    chat: ChatFormat,
    plans: Sequence[RolloutRequest],
    deadline_seconds: float | None = None,
    environment: EnvPool | None = None,
    limits: Limits | None = None,
) -> list[Rollout]:
    """Rollouts in the order of the plans, whatever order they finish in: an answer to each prompt, or with an
    environment a conversation within the limits. Raises InputError for a prompt that is too long for the model."""
    done = dict(_finished(engine, chat, plans, deadline_seconds, environment, limits))
    return [done[i] for i in range(len(plans))]


def _finished(
    engine: Engine,
    chat: ChatFormat,
    plans: Sequence[RolloutRequest],
    deadline_seconds: float | None,
    environment: EnvPool | None,
    limits: Limits | None,
) -> Iterator[tuple[int, Rollout]]:
    """(Place in the plans, rollout) as each is finished."""
    if environment is None:
        return _single_turns(engine, chat, plans, deadline_seconds)
    if limits is None:
        raise ValueError("conversations with an environment need limits")
    if deadline_seconds is not None and (limits.seconds is None or deadline_seconds < limits.seconds):
        limits = replace(limits, seconds=deadline_seconds)
    return converse(engine, chat, plans, environment, limits)


def _single_turns(
    engine: Engine, chat: ChatFormat, plans: Sequence[RolloutRequest], deadline_seconds: float | None
) -> Iterator[tuple[int, Rollout]]:
    tasks = {id(p.task): p.task for p in plans}
    prompts = {i: chat.prompt_ids(task.prompt, task.tools) for i, task in tasks.items()}
    requests = [Request(i, prompts[id(p.task)], p.sampling, p.seed) for i, p in enumerate(plans)]
    for i, completion in engine.generate(requests, deadline_seconds):
        yield i, _rollout(chat, plans[i], requests[i].prompt_ids, completion)


def _rollout(chat: ChatFormat, plan: RolloutRequest, prompt_ids: tuple[int, ...], completion: Completion) -> Rollout:
    return Rollout(
        task_id=plan.task.id,
        index=plan.index,
        sampling=plan.sampling,
        seed=plan.seed,
        messages=(chat.answer(completion.token_ids.tolist(), plan.task.tools).message,),
        segments=(Segment.of(prompt_ids, completion),),
        status=STATUS[completion.stop_reason],
        error="cancelled at the deadline" if completion.stop_reason == "cancelled" else None,
    )


def sample_of(task: Task, rollout: Rollout) -> Sample:
    """What a reward sees of a rollout."""
    state = rollout.environment_state
    return Sample(task.prompt, rollout.messages, rollout.sampled_ids, task.columns, environment=state)


def score(
    scorer: Scorer | None,
    tasks: Sequence[Task],
    rollouts: Sequence[Rollout],
    trainer_state: Mapping[str, Any] | None = None,
) -> list[Score]:
    """A score for every rollout; a failed rollout is unscored with its error as the reason. The environment's reward is
    the part `environment`, added with weight 1; without a scorer it is the only one."""
    alive = [i for i, r in enumerate(rollouts) if r.status != "failed"]
    scores = [Score(None, reason=r.error or "the rollout failed") for r in rollouts]
    samples = [sample_of(tasks[i], rollouts[i]) for i in alive]
    values = [Score(None) for _ in samples] if scorer is None else scorer.score(samples, trainer_state)
    for i, value in zip(alive, values, strict=True):
        scores[i], reward = value, rollouts[i].environment_reward
        if reward is not None:
            total = None if value.failed else (value.total or 0.0) + reward
            scores[i] = replace(value, total=total, parts={**value.parts, ENVIRONMENT_PART: reward})
    return scores


def collect(
    engine: Engine,
    chat: ChatFormat,
    scorer: Scorer | None,
    plans: Sequence[RolloutRequest],
    trainer_state: Mapping[str, Any] | None = None,
    environment: EnvPool | None = None,
    limits: Limits | None = None,
) -> list[Group]:
    """Sample and score; rollouts of one task that stand next to each other in the plans form its group.

    A group is scored as soon as it is whole, while others are still being sampled: what is scored together follows from
    the plans and not from time. Where a reward sees all samples together, all are scored at the end.
    Raises InputError for a reward that has the name of the environment's part."""
    if environment is not None and scorer is not None and ENVIRONMENT_PART in scorer.weights(None):
        raise InputError(f"a reward cannot be named {ENVIRONMENT_PART!r} beside an environment; write REWARD as NAME")
    tasks = [p.task for p in plans]
    finished = _finished(engine, chat, plans, None, environment, limits)
    if scorer is not None and not scorer.whole_batch:
        rollouts, scores = _score_as_finished(finished, scorer, plans, trainer_state)
    else:
        done = dict(finished)
        rollouts = [done[i] for i in range(len(plans))]
        scores = score(scorer, tasks, rollouts, trainer_state)
    return regroup(tasks, rollouts, scores)


def _score_as_finished(
    finished: Iterator[tuple[int, Rollout]],
    scorer: Scorer,
    plans: Sequence[RolloutRequest],
    trainer_state: Mapping[str, Any] | None,
) -> tuple[list[Rollout], list[Score]]:
    """Rollouts and scores in the order of the plans. An exception on either side ends both, and closes the scorer."""
    groups = _group_ranges([plan.task for plan in plans], plans)
    group_of = {i: members for members in groups for i in members}
    rollouts: dict[int, Rollout] = {}
    scores: dict[range, Future[list[Score]]] = {}
    with ThreadPoolExecutor(1, thread_name_prefix="score") as thread:
        try:
            for i, rollout in finished:
                rollouts[i] = rollout
                members = group_of[i]
                if not all(k in rollouts for k in members):
                    continue
                for earlier in [future for future in scores.values() if future.done()]:
                    earlier.result()  # what went wrong there is told before more is sampled
                tasks, whole = [plans[k].task for k in members], [rollouts[k] for k in members]
                scores[members] = thread.submit(score, scorer, tasks, whole, trainer_state)
            values = [value for members in groups for value in scores[members].result()]
        except BaseException:
            thread.shutdown(wait=False, cancel_futures=True)
            scorer.abort()
            raise
    return [rollouts[i] for i in range(len(plans))], values


def _group_ranges(tasks: Sequence[Task], members: Sequence[RolloutRequest | Rollout]) -> list[range]:
    """Where the groups lie: consecutive members of the same task; index 0 begins a new group."""
    starts = [i for i, m in enumerate(members) if i == 0 or tasks[i - 1].id != tasks[i].id or m.index == 0]
    return [range(a, b) for a, b in zip(starts, [*starts[1:], len(members)], strict=False)]  # none of none


def regroup(
    tasks: Sequence[Task],
    rollouts: Sequence[Rollout],
    scores: Sequence[Score],
    regraded: Sequence[Mapping[str, float | None]] = (),
) -> list[Group]:
    """Groups of consecutive rollouts of the same task. A rollout of index 0 begins a new group. `regraded` has the
    further gradings of each rollout, or none at all."""

    return [
        Group(tasks[g.start], tuple(rollouts[g.start : g.stop]), tuple(scores[g.start : g.stop]), by_grading(more))
        for g in _group_ranges(tasks, rollouts)
        for more in [regraded[g.start : g.stop]]
    ]


def by_grading(regraded: Sequence[Mapping[str, float | None]]) -> dict[str, tuple[float | None, ...]]:
    """`Group.regraded` from the gradings of each of its rollouts: None where a rollout has not one that others have."""
    names = sorted({name for values in regraded for name in values})
    return {name: tuple(values.get(name) for values in regraded) for name in names}
