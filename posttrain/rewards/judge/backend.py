"""The model that judges, and what becomes of the questions it is asked."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

from posttrain.engine.endpoint import Answering, Endpoint, EndpointError, Question, Reply
from posttrain.rewards.judge.prompts import Unclear
from posttrain.types import InputError, Message, RunFailed, Sampling

R = TypeVar("R")
LEDGER = "spent"
"""The file in the cache that counts the requests and tokens of all workers and runs that use it."""

WITHOUT: ContextVar[str | None] = ContextVar("WITHOUT", default=None)
"""Which judges are made without their models: `all`, `local` ones, or none."""

Outcome = str | Unclear
"""The judge's reply to a question, or why there is none that can be read."""


@dataclass(frozen=True)
class JudgeModel:
    """The options of a judge that say which model it is; see docs/judges.md."""

    model: str | None = None
    url: str | None = None
    temperature: float = 0.0
    max_new_tokens: int = 1024
    key: str = "OPENAI_API_KEY"
    timeout: float = 60.0
    retries: int = 3
    concurrency: int = 16
    cache: str | None = None
    max_requests: int | None = None
    max_tokens: int | None = None


def with_model_options(make: Callable[..., R]) -> Callable[..., R]:
    """A function whose first parameter is a `JudgeModel`, as one that takes the options of it instead, by name."""
    model, url, *rest = inspect.signature(JudgeModel).parameters.values()
    own = list(inspect.signature(make).parameters.values())[1:]

    @wraps(make)
    def judge(**options: Any) -> R:
        judging = JudgeModel(**{p.name: options.pop(p.name) for p in (model, url, *rest) if p.name in options})
        return make(judging, **options)

    parameters = [p.replace(kind=p.KEYWORD_ONLY) for p in (model, url, *own, *rest)]
    judge.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return judge


@contextmanager
def without_models(which: str) -> Iterator[None]:
    """`all` judges that are made in here, or the `local` ones, have no model: it is not loaded, nor the library of an
    endpoint."""
    token = WITHOUT.set(which)
    try:
        yield
    finally:
        WITHOUT.reset(token)


class Unopened:
    """In the place of a judge's model, see `without_models`."""

    async def answers(self, questions: Sequence[Question]) -> list[Reply | EndpointError]:
        raise RuntimeError("this judge was made without its model")


def open_model(name: str, options: JudgeModel) -> Answering:
    """The endpoint at `url`, or without one the model in a folder or on the hub, loaded. `name` is that of the reward.

    Raises InputError for options that do not fit together, and for a model that cannot be loaded."""
    if options.model is None:
        raise InputError(f'{name} needs model="NAME": a model at url="http://...", or a folder or hub id without url')
    sampling = Sampling(options.max_new_tokens, options.temperature)
    cache = None if options.cache is None else Path(options.cache)
    budget = options.max_requests is not None or options.max_tokens is not None
    if options.url is None:
        if budget or cache is not None:
            raise InputError(f"{name}: cache and budgets are for a judge at a url; leave them out")
        if WITHOUT.get():
            return Unopened()
        from posttrain.engine.local_answers import LocalAnswers  # imports torch

        return LocalAnswers(options.model, sampling)
    if budget and cache is None:
        raise InputError(f'{name}: a budget needs cache="FOLDER", where the workers of a run count together')
    if not options.timeout > 0 or options.retries < 0 or options.concurrency < 1:
        raise InputError(f"{name}: timeout must be above 0, retries at least 0 and concurrency at least 1")
    if WITHOUT.get() == "all":
        return Unopened()
    endpoint = Endpoint(
        options.url,
        options.model,
        sampling,
        key_variable=options.key,
        concurrency=options.concurrency,
        timeout_seconds=options.timeout,
        retries=options.retries,
        cache=cache,
        max_requests=options.max_requests,
        max_tokens=options.max_tokens,
        ledger=cache / LEDGER if budget and cache is not None else None,
    )
    importlib.import_module("openai")  # takes a second, which is not to be the first response's
    return endpoint


async def outcomes_of(model: Answering, questions: Sequence[str]) -> list[Outcome]:
    """What became of each question. Raises RunFailed where the judge cannot be used at all, or no more."""
    try:
        replies = await model.answers([Question((Message("user", question),)) for question in questions])
    except InputError as error:  # a refused key or model is no fault of a response
        raise RunFailed(f"the judge cannot be used: {error}") from None
    return [_outcome(reply) for reply in replies]


def text_of(outcome: Outcome) -> str:
    if isinstance(outcome, Unclear):
        raise outcome
    return outcome


def _outcome(reply: Reply | EndpointError) -> Outcome:
    if isinstance(reply, EndpointError):
        return Unclear(f"no reply of the judge: {reply}")
    if reply.stop_reason == "length":  # its last line may be anything, a quotation of the response too
        return Unclear("the judge's reply is cut off; raise max_new_tokens")
    return reply.text
