"""Conversations of a model with an environment, in rounds: all that go on are sampled together in the order of
requests, then the environment answers, so that decoding batches follow from the configuration alone. A row holds what
was sampled and what the template writes between; where the template rewrites what came before, a new segment begins."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from posttrain.chat import ChatFormat, Ids
from posttrain.engine.base import Engine, Request
from posttrain.envs.pool import EnvPool, Lost, Outcome
from posttrain.rollout.plan import Limits, RolloutRequest, turn_seed
from posttrain.rows import Tools
from posttrain.types import Completion, InputError, Message, Prompt, Rollout, Segment, Status

UNREADABLE = "The tool call could not be read: {fault}. Write the call again."
"""Sent as a user turn, because a tool message would need the id of a call."""

NOTHING = Segment.of(())


def converse(
    engine: Engine, chat: ChatFormat, requests: Sequence[RolloutRequest], environment: EnvPool, limits: Limits
) -> Iterator[tuple[int, Rollout]]:
    """Yield (place in the requests, rollout) as conversations end.

    A call that cannot be read is told to the model in a user turn and goes no further. A rollout whose environment is
    lost, or that runs out of time, has failed. The environment's tools are offered, or without any those of the task.
    Raises InputError for raw prompts, and for a template that ignores the tools."""
    start = time.monotonic()
    first = environment.reset({i: (_columns(request), request.episode_seed) for i, request in enumerate(requests)})
    active = {i: _begin(chat, request, environment.tools, first[i], limits) for i, request in enumerate(requests)}
    while active:
        left = None if limits.seconds is None else max(0.0, limits.seconds - (time.monotonic() - start))
        turns = [conversation.next_request(i, limits) for i, conversation in active.items() if not conversation.status]
        for i, completion in engine.generate(turns, left) if turns else ():
            active[i].add_completion(chat, completion, limits)
        _take_replies(environment, chat, active, limits)
        ended = [i for i, conversation in active.items() if conversation.status is not None]
        outcomes = environment.finish(ended) if ended else {}
        for i in ended:
            yield i, active.pop(i).rollout(outcomes[i])


@dataclass
class _Conversation:
    """`row` is the segment that grows, `context` what precedes the next answer; it goes on while `status` is None."""

    request: RolloutRequest
    tools: Tools
    opening: tuple[Message, ...]
    context: Ids
    messages: list[Message] = field(default_factory=list)
    rows: list[Segment] = field(default_factory=list)
    row: Segment = field(default_factory=lambda: NOTHING)
    turns: int = 0
    calls: int = 0
    sampled: Ids = ()
    fault: str | None = None
    status: Status | None = None
    error: str | None = None

    @property
    def prompt_ids(self) -> Ids:
        return (*self.row.token_ids.tolist(), *self.context)

    def fail(self, error: str) -> None:
        self.status, self.error = "failed", error

    def next_request(self, key: int, limits: Limits) -> Request:
        room = limits.max_tokens - len(self.prompt_ids)
        sampling = self.request.sampling
        if room < sampling.max_new_tokens:
            sampling = replace(sampling, max_new_tokens=room)
        return Request(key, self.prompt_ids, sampling, turn_seed(self.request.seed, self.turns))

    def add_completion(self, chat: ChatFormat, completion: Completion, limits: Limits) -> None:
        self.row = self.row.grown(self.context, completion)
        self.context, self.sampled = (), tuple(completion.token_ids.tolist())
        self.turns += 1
        if completion.stop_reason == "stop":
            answer = chat.answer(self.sampled, self.tools, self.calls)
            self.fault = answer.fault
            self.calls += len(answer.message.tool_calls)
            self.messages.append(answer.message)
            return
        if self.sampled:
            self.messages.append(Message("assistant", chat.decode(self.sampled)))
        self.status = "truncated"
        if completion.stop_reason == "cancelled":
            limit = "" if limits.seconds is None else f" of {limits.seconds:g} s"
            self.fail(f"the conversation was not over within its time limit{limit}")

    def add_messages(self, chat: ChatFormat, new: tuple[Message, ...], limits: Limits) -> None:
        """Take the messages that follow an answer, and make ready for the next one. A conversation that the template
        cannot write has failed: what the model said may be to blame."""
        before = (*self.opening, *self.messages)
        self.messages += new
        if self.turns == limits.max_turns:
            self.status = "truncated"
            return
        try:
            context = chat.continuation_ids(before, self.sampled, new, self.tools)
            if context is None:
                context = chat.history_ids((*before, *new), self.tools)
                self.rows.append(self.row)
                self.row = NOTHING
        except InputError as error:
            self.fail(str(error))
            return
        self.context = context
        if len(self.prompt_ids) >= limits.max_tokens:
            self.status = "truncated"

    def rollout(self, outcome: Outcome | Lost) -> Rollout:
        """The rollout of a conversation that has ended; one that has failed is not judged."""
        if self.status != "failed" and isinstance(outcome, Lost):
            self.fail(outcome.reason)
        judged = None if self.status == "failed" or isinstance(outcome, Lost) else outcome
        rows = [*self.rows, self.row] if len(self.row.token_ids) else self.rows
        request = self.request
        return Rollout(
            task_id=request.task.id,
            index=request.index,
            sampling=request.sampling,
            seed=request.seed,
            messages=tuple(self.messages),
            segments=tuple(rows) or (Segment.of(self.context),),
            status=self.status or "ok",
            error=self.error,
            environment_reward=None if judged is None else judged.reward,
            environment_state=None if judged is None else judged.state,
        )


def _begin(
    chat: ChatFormat, request: RolloutRequest, tools: Tools, first: str | Lost | None, limits: Limits
) -> _Conversation:
    prompt = with_observation(request.task.prompt, first) if isinstance(first, str) else request.task.prompt
    opening, offered = chat.conversation(prompt), tools or request.task.tools
    conversation = _Conversation(request, offered, opening, chat.prompt_ids(opening, offered))
    if isinstance(first, Lost):
        conversation.fail(first.reason)
    elif len(conversation.context) >= limits.max_tokens:
        length = chat.counted(len(conversation.context))
        conversation.fail(
            f"the prompt with the environment's first observation has {length}, which leaves no room for an answer in "
            f"{limits.max_tokens}"
        )
    return conversation


def _take_replies(
    environment: EnvPool, chat: ChatFormat, conversations: Mapping[int, _Conversation], limits: Limits
) -> None:
    waiting = {i: conversation for i, conversation in conversations.items() if conversation.status is None}
    answers = {i: conversation.messages[-1] for i, conversation in waiting.items() if conversation.fault is None}
    replies = environment.act(answers) if answers else {}
    for i, conversation in waiting.items():
        if conversation.fault is not None:
            conversation.add_messages(chat, (Message("user", UNREADABLE.format(fault=conversation.fault)),), limits)
            continue
        reply = replies[i]
        if isinstance(reply, Lost):
            conversation.fail(reply.reason)
            continue
        new = tuple(replace(m, content=_encodable(m.content)) for m in reply.messages)
        if reply.done:
            conversation.messages += new
            conversation.status = "ok"
        else:
            conversation.add_messages(chat, new, limits)


def with_observation(prompt: Prompt, observation: str) -> Prompt:
    """The prompt with an observation behind the last user message (or a new one), or on a line after a string."""
    observation = _encodable(observation)
    if isinstance(prompt, str):
        return f"{prompt}\n{observation}"
    last = max((i for i, m in enumerate(prompt) if m.role == "user"), default=None)
    if last is None:
        return (*prompt, Message("user", observation))
    said = replace(prompt[last], content=prompt[last].content + observation)
    return (*prompt[:last], said, *prompt[last + 1 :])


def _encodable(text: str) -> str:
    """Text from an environment without halves of characters, which no tokenizer takes."""
    return text.encode(errors="replace").decode()


def _columns(request: RolloutRequest) -> dict[str, Any]:
    prompt = request.task.prompt
    plain = prompt if isinstance(prompt, str) else [message.to_dict() for message in prompt]
    return {"prompt": plain, **request.task.columns}
