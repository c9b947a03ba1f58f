"""What a `sample` or `revise` stage samples from: a model here, or one behind an endpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from posttrain.config import SourceConfig
from posttrain.data.fitting import Fitted
from posttrain.engine.endpoint import Endpoint, EndpointError, Question, Reply
from posttrain.engine.open import open_engine
from posttrain.models import weights_hash
from posttrain.models.load import load_model_of
from posttrain.rollout import RolloutRequest, fit_tasks, regroup, rollout_from_json, sample, sampling_flops
from posttrain.runs.log import RunLog
from posttrain.train.events import warn_special_tokens
from posttrain.types import InputError, Message, Rollout, Score, Task

CACHE = "endpoint-cache"


@dataclass(frozen=True)
class Sampled:
    """Rollouts in the order of their plans, and what they took: tokens (of a prompt once a task) and operations."""

    rollouts: tuple[Rollout, ...]
    tokens: int
    flops: float


class Source(Protocol):
    """Samples answers. The same plans give the same answers."""

    name: str
    weights_hash: str | None = None
    writes_date: bool = False
    """Whether its prompts may hold the date, as far as that is decided here (see `template_date`)."""

    def sample(self, plans: Sequence[RolloutRequest]) -> Sampled: ...

    def fitting(self, tasks: Sequence[Task]) -> Fitted[Task]:
        """Those with room for an answer after the prompt, as far as can be told."""

    def replay(self, row: Mapping[str, Any]) -> tuple[Rollout, Score]:
        """The rollout of a line of `rollouts.jsonl`, and its score."""

    def began(self, log: RunLog, tasks: Sequence[Task]) -> None:
        """Tell what is worth telling of the tasks once the run folder is open."""
        return

    def ended(self, log: RunLog) -> None:
        """Tell what this process used, where `cost.json` does not."""
        return


def source_of(config: SourceConfig, tasks: Sequence[Task]) -> Source:
    """Raises InputError for a model, an endpoint or a task that cannot be used, before anything is written."""
    return ModelSource(config, config.model) if config.model is not None else EndpointSource(config, tasks)


class ModelSource(Source):
    def __init__(self, config: SourceConfig, model: str) -> None:
        self.name = model
        self._data = config.data
        self._sampling = config.sampling()
        self._lm = load_model_of(config, model)
        self._engine = open_engine(config, self._lm)
        self.weights_hash = weights_hash(self._lm.source)
        self.writes_date = self._lm.chat.writes_date

    def fitting(self, tasks: Sequence[Task]) -> Fitted[Task]:
        return fit_tasks(self._lm.chat, tasks, self._lm.context, self._sampling.max_new_tokens, self._data)

    def sample(self, plans: Sequence[RolloutRequest]) -> Sampled:
        rollouts = sample(self._engine, self._lm.chat, plans)
        groups = regroup([plan.task for plan in plans], rollouts, [Score(None)] * len(plans))
        tokens = sum(len(g.rollouts[0].prompt_ids) + sum(r.response_length for r in g.rollouts) for g in groups)
        return Sampled(tuple(rollouts), tokens, sampling_flops(self._lm.flops, groups))

    def replay(self, row: Mapping[str, Any]) -> tuple[Rollout, Score]:
        return rollout_from_json(row, self._sampling, self._lm.chat)

    def began(self, log: RunLog, tasks: Sequence[Task]) -> None:
        warn_special_tokens(log, self._lm.chat, self._data, tasks)


class EndpointSource(Source):
    """Operations at an endpoint cannot be counted; its tokens are those it says it used. Which of its
    answers are new and which come from the cache makes no difference to what is written."""

    def __init__(self, config: SourceConfig, tasks: Sequence[Task]) -> None:
        assert config.endpoint is not None and config.endpoint_model is not None
        for task in tasks:
            if task.tools:
                raise InputError(f"{config.data}: task {task.id} has tools, which an endpoint is not given; drop them")
        self.name = config.endpoint_model
        self._sampling = config.sampling()
        self._endpoint = Endpoint(
            config.endpoint,
            config.endpoint_model,
            self._sampling,
            key_variable=config.endpoint_key,
            concurrency=config.endpoint_concurrency,
            timeout_seconds=config.endpoint_timeout,
            retries=config.endpoint_retries,
            cache=config.endpoint_cache or config.out / CACHE,
            max_requests=config.endpoint_max_requests,
            max_tokens=config.endpoint_max_tokens,
        )

    def fitting(self, tasks: Sequence[Task]) -> Fitted[Task]:
        return Fitted(len(tasks), list(tasks), 0, ())  # one that does not fit is answered with an error

    def sample(self, plans: Sequence[RolloutRequest]) -> Sampled:
        replies = self._endpoint.replies([Question(messages_of(plan.task), plan.seed) for plan in plans])
        rollouts = tuple(self._rollout(plan, reply) for plan, reply in zip(plans, replies, strict=True))
        return Sampled(rollouts, sum(reply.tokens for reply in replies if isinstance(reply, Reply)), 0.0)

    def replay(self, row: Mapping[str, Any]) -> tuple[Rollout, Score]:
        messages = () if row["status"] == "failed" else (Message("assistant", row["text"]),)
        rollout = Rollout(
            row["task"], row["index"], self._sampling, row["seed"], messages, (), row["status"], row["error"]
        )
        return rollout, Score(row["score"], row["parts"], row["reason"])

    def ended(self, log: RunLog) -> None:
        log.event("endpoint", requests=self._endpoint.requests, tokens=self._endpoint.tokens)

    def _rollout(self, plan: RolloutRequest, reply: Reply | EndpointError) -> Rollout:
        if isinstance(reply, EndpointError):
            return Rollout(plan.task.id, plan.index, plan.sampling, plan.seed, (), (), "failed", str(reply))
        status = "truncated" if reply.stop_reason == "length" else "ok"
        messages = (Message("assistant", reply.text),)
        return Rollout(plan.task.id, plan.index, plan.sampling, plan.seed, messages, (), status)  # type: ignore[arg-type]


def messages_of(task: Task) -> tuple[Message, ...]:
    return (Message("user", task.prompt),) if isinstance(task.prompt, str) else task.prompt
