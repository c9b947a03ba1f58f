"""The nouns every part of posttrain shares.

`Task -> Rollout -> Score -> Group -> advantages -> Batch -> loss -> step`; SFT and preferences enter at `Batch`.
Task, Completion, Rollout and Score cross processes: plain data, no tensors, no live objects. Every type is frozen and
checks its invariants when it is made, so a wrong length is found where it arises and not three stages later.

This module does not import torch at run time: `--help` and bad options must answer at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posttrain.arrays import Bools, Comparable, Floats, Ints, KeptTokens, bools, floats, ints
from posttrain.tool_calls import read_calls

Role = Literal["system", "developer", "user", "assistant", "tool"]
ROLES: tuple[str, ...] = ("system", "developer", "user", "assistant", "tool")
REASONING = frozenset({"reasoning", "reasoning_content", "thinking"})
"""What APIs and templates call the reasoning of a message."""
API_FIELDS = ("id", "annotations")
"""Fields of a message from an API that say nothing about its text: its number, and where quotations come from."""


class InputError(Exception):
    """The user's input is wrong. The message says what was found, where, and what to do; the command line prints it
    without a traceback and exits with 2. Raised on validation only, never for a fault of ours."""


@contextmanager
def located(where: str) -> Iterator[None]:
    """Have an InputError that is raised in here say first `where` the fault is."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


class RunFailed(Exception):
    """A run had to stop for a reason that is neither bad input nor a fault of ours (too many rewards failed, a worker
    that will not start). The command line prints the message and exits with 1."""


class RunPaused(Exception):
    """A run stopped for its user to look at it, and can go on: an observer asked for that. The command line prints the
    message and exits with 4."""


@dataclass(frozen=True)
class Message:
    """One turn of a conversation, in the shape chat templates read. `tool_calls` are brought to one form, in which
    arguments are objects (see `read_calls`). `name` is that of the tool whose result a message is, or of who speaks."""

    role: str
    content: str
    reasoning: str | None = None
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    tool_call_id: str | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise InputError(f"unknown role {self.role!r}; use one of {', '.join(ROLES)}")
        if not isinstance(self.content, str):
            raise InputError(f"the content of a message must be text, not {type(self.content).__name__}")
        for part, value in (("name", self.name), ("reasoning", self.reasoning)):
            if value is not None and not isinstance(value, str):
                raise InputError(f"the '{part}' of a message must be text, not {value!r}")
        if self.tool_calls == ():
            return
        try:
            object.__setattr__(self, "tool_calls", read_calls(self.tool_calls))
        except ValueError as error:
            raise InputError(str(error)) from None

    def to_dict(self) -> dict[str, Any]:
        """The message as a JSON-able dict, without the fields that are empty."""
        out: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.reasoning is not None:
            out["reasoning"] = self.reasoning
        if self.tool_calls:
            out["tool_calls"] = [dict(call) for call in self.tool_calls]
        if self.tool_call_id is not None:
            out["tool_call_id"] = self.tool_call_id
        if self.name is not None:
            out["name"] = self.name
        return out

    @staticmethod
    def from_dict(row: Mapping[str, Any]) -> Message:
        """The inverse of `to_dict`, and messages as APIs write them: `content` may be a list of parts that are text,
        null beside tool calls; `reasoning_content` and `thinking` are `reasoning`; OpenAI's older form,
        `function_call` and the role `function`, is read as the newer one. A field that is null or empty says nothing;
        `id` and `annotations` say nothing about the text.

        Raises InputError for a missing role, a content that is not text, a `weight` but 1, an unknown field, or what is
        no call."""
        if row.keys() == {"role", "content"} and row["role"] in ROLES and isinstance(row["content"], str):
            return Message(row["role"], row["content"])  # as most are, in files of many
        given = {name: value for name, value in row.items() if value is not None and value != []}
        calls, older = given.pop("tool_calls", ()), given.pop("function_call", None)
        if calls and older:
            raise InputError("a message has 'tool_calls' and 'function_call'; keep the first, which replaced the other")
        calls = (older,) if older else calls
        reasons = [given.pop(name) for name in REASONING & given.keys()]
        said = [reason for reason in reasons if reason] or reasons
        if any(reason != said[0] for reason in said):
            raise InputError("a message has several fields of reasoning that differ; keep 'reasoning'")
        if (weight := given.pop("weight", 1)) != 1:
            raise InputError(f"'weight' is {weight!r}; a message counts whole here, so drop it or the message")
        known = ("role", "content", "reasoning", "tool_calls", "tool_call_id", "name")
        for name, value in given.items():
            if name not in known and name not in API_FIELDS and value not in ("", {}):
                raise InputError(f"unknown field {name!r} in a message; known are {', '.join(sorted(known))}")
        if "role" not in given:
            raise InputError("a message has no 'role'")
        content = given.get("content", "" if calls else None)
        if content is None:
            raise InputError("a message has no 'content'")
        role = "tool" if given["role"] == "function" else given["role"]
        return Message(
            role,
            _plain_text(content),
            said[0] if said else None,
            calls,
            given.get("tool_call_id"),
            given.get("name"),
        )


def _plain_text(content: Any) -> Any:
    """The text of a list of parts, as they follow each other; anything else as it is. Raises InputError for a part that
    is no text."""
    if not isinstance(content, list | tuple) or not all(isinstance(part, Mapping) for part in content):
        return content
    for number, part in enumerate(content, start=1):
        if part.get("type") not in ("text", "input_text", "output_text") or not isinstance(part.get("text"), str):
            raise InputError(
                f"part {number} of the content is of type {part.get('type')!r}; only text is read, as in "
                '{"type": "text", "text": "..."}'
            )
    return "".join(part["text"] for part in content)


Prompt = str | tuple[Message, ...]
"""Raw text, or a conversation that the model is to continue."""


@dataclass(frozen=True)
class Task:
    """A prompt and what a reward needs to judge the answer. The answer lives in `columns` and never enters a prompt."""

    id: str
    prompt: Prompt
    columns: Mapping[str, Any] = field(default_factory=dict)
    tools: tuple[Mapping[str, Any], ...] = ()
    where: str = field(default="", compare=False)
    """File and line it was read from, if it was."""

    def __post_init__(self) -> None:
        if not self.prompt:
            raise InputError(f"task {self.id}: the prompt is empty")

    @property
    def asked(self) -> str:
        """The prompt as text; of a conversation its last message."""
        return self.prompt if isinstance(self.prompt, str) else self.prompt[-1].content


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn. `temperature=0` is greedy. `top_k=0` and `top_p=1` keep the whole vocabulary.
    `stop` strings end a completion and stay in it."""

    max_new_tokens: int
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise InputError(f"max_new_tokens must be at least 1, not {self.max_new_tokens}")
        if self.temperature < 0:
            raise InputError(f"temperature must not be negative, not {self.temperature}")
        if self.top_k < 0:
            raise InputError(f"top_k must not be negative (0 keeps all), not {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p must be in (0, 1], not {self.top_p}")

    @property
    def truncated(self) -> bool:
        """Whether the sampler can leave tokens out, so that logprobs are those of the kept support."""
        return self.temperature > 0 and (self.top_k > 0 or self.top_p < 1)


StopReason = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True, eq=False)
class Completion(Comparable):
    """What an engine sampled after one prompt.

    `token_ids` includes the end token. `sampler_logprobs[i]` is the natural log of the probability with which token i
    was drawn: after temperature and truncation (greedy: at temperature 1). `kept_token_ids` has the token ids that
    truncation kept for each token, and is None when nothing can be left out. `versions[i]` is the policy version that
    drew token i. `stop_reason` is `stop` (an end token or a stop string), `length`, or `cancelled`.

    Raises TypeError for what are no numbers, and ValueError for fields that differ in length."""

    token_ids: Ints
    sampler_logprobs: Floats
    versions: Ints
    stop_reason: StopReason
    kept_token_ids: KeptTokens | None = None

    def __post_init__(self) -> None:
        _fix(self, token_ids=ints, sampler_logprobs=floats, versions=ints)


@dataclass(frozen=True, eq=False)
class Segment(Comparable):
    """One token row of a rollout: prompt and sampled tokens in order. `sampled` marks what the policy drew; the other
    fields are 0 (logprob), -1 (version) and nothing (kept tokens) elsewhere. A segment only grows. Raises what a
    Completion raises."""

    token_ids: Ints
    sampled: Bools
    sampler_logprobs: Floats
    versions: Ints
    kept_token_ids: KeptTokens | None = None

    def __post_init__(self) -> None:
        _fix(self, token_ids=ints, sampled=bools, sampler_logprobs=floats, versions=ints)

    @staticmethod
    def of(prompt_ids: Sequence[int], completion: Completion | None = None) -> Segment:
        """The row of a single-turn rollout, or a prompt after which nothing was sampled."""
        n = len(prompt_ids)
        row = Segment(ints(prompt_ids), bools([False] * n), floats([0.0] * n), ints([-1] * n))
        return row if completion is None else row.grown((), completion)

    def grown(self, context: Sequence[int], completion: Completion) -> Segment:
        """The row with tokens that were not sampled, and what was sampled after them."""
        before, drawn, kept = len(context), len(completion.token_ids), completion.kept_token_ids
        if kept is not None:
            own = self.kept_token_ids or KeptTokens.counted((), [0] * len(self.token_ids))
            kept = KeptTokens.joined([own, KeptTokens.counted((), [0] * before), kept])
        return Segment(
            np.concatenate([self.token_ids, ints(context), completion.token_ids]),
            np.concatenate([self.sampled, np.arange(before + drawn) >= before]),
            np.concatenate([self.sampler_logprobs, np.zeros(before), completion.sampler_logprobs]),
            np.concatenate([self.versions, ints([-1] * before), completion.versions]),
            kept,
        )

    @property
    def sampled_count(self) -> int:
        return int(np.count_nonzero(self.sampled))

    @property
    def sampled_spans(self) -> list[range]:
        """Where the turns of the policy lie, in order."""
        edges = np.flatnonzero(np.diff(self.sampled, prepend=False, append=False)).tolist()
        return [range(start, stop) for start, stop in zip(edges[::2], edges[1::2], strict=True)]


def _fix(row: Completion | Segment, **kinds: Callable[[ArrayLike], NDArray[Any]]) -> None:
    """Make read-only arrays of a dataclass's fields, which have one length."""
    for name, kind in kinds.items():
        object.__setattr__(row, name, kind(getattr(row, name)))
    lengths = {len(getattr(row, name)) for name in kinds}
    lengths |= {len(row.kept_token_ids)} if row.kept_token_ids is not None else set()
    if len(lengths) != 1:
        raise ValueError(f"the fields of a {type(row).__name__} differ in length: {sorted(lengths)}")


Status = Literal["ok", "truncated", "failed"]


@dataclass(frozen=True)
class Rollout:
    """A prompt with what was sampled after it: single-turn, multi-turn and tools alike.

    `messages` are the turns after the prompt (for a raw prompt one assistant message). `truncated` means that a limit
    of tokens or turns ended it; `failed` rollouts carry `error` and are never scored 0 for it. `environment_state` is
    what the rollout's environment has kept for rewards, pickled; it is not recorded."""

    task_id: str
    index: int
    sampling: Sampling
    seed: int
    messages: tuple[Message, ...]
    segments: tuple[Segment, ...]
    status: Status = "ok"
    error: str | None = None
    environment_reward: float | None = None
    environment_state: bytes | None = None

    @property
    def text(self) -> str:
        """What the assistant said, turns joined by newlines."""
        return "\n".join(m.content for m in self.messages if m.role == "assistant")

    @property
    def response_length(self) -> int:
        """Sampled tokens, the end token included."""
        return sum(s.sampled_count for s in self.segments)

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        """The tokens before the first sampled one."""
        first = self.segments[0]
        return tuple(first.token_ids[: first.sampled.argmax() if first.sampled.any() else None].tolist())

    @property
    def sampled_ids(self) -> tuple[int, ...]:
        """All sampled tokens, end tokens included."""
        return tuple(t for s in self.segments for t in s.token_ids[s.sampled].tolist())

    @property
    def sampler_logprobs(self) -> Floats:
        """Those of all sampled tokens."""
        return np.concatenate([floats([]), *(s.sampler_logprobs[s.sampled] for s in self.segments)])


TRUE_REWARD = "true"
"""The part that is the reward's own total where a control was paid in its place. No reward may have this name."""
LARGEST_SCORE = 1e15
"""What a score may be at the most, in absolute value, so that sums of squares of many fit into a float32."""


@dataclass(frozen=True)
class Score:
    """What the rewards returned for one rollout.

    A part of None did not apply and left the sum. A part that raised, timed out or was no number up to LARGEST_SCORE
    fails the sample: `reason` says why and `total` is None. An error is never a 0. `step_values` are those of the steps
    of its last answer, where a reward scores steps."""

    total: float | None
    parts: Mapping[str, float | None] = field(default_factory=dict)
    reason: str | None = None
    step_values: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.total is not None and not abs(self.total) <= LARGEST_SCORE:
            raise ValueError(f"a score must be at most {LARGEST_SCORE:g}, not {self.total}")
        if self.total is not None and self.reason is not None:
            raise ValueError("a score with a total has no reason for failing")

    @property
    def failed(self) -> bool:
        """Something went wrong; that no part applied is not a failure."""
        return self.reason is not None

    @property
    def by_reward(self) -> float | None:
        """The total that the reward gave, also where a control was paid in its place."""
        return self.parts.get(TRUE_REWARD, self.total)


@dataclass(frozen=True)
class Group:
    """The rollouts of one task and their scores: what baselines and pairwise rewards see.

    `regraded` has further gradings of the rollouts that are measured and never trained on, by name: a number for each
    rollout, None where it was not graded so, or could not be."""

    task: Task
    rollouts: tuple[Rollout, ...]
    scores: tuple[Score, ...]
    regraded: Mapping[str, tuple[float | None, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for what, values in (("scores", self.scores), *self.regraded.items()):
            if len(self.rollouts) != len(values):
                raise ValueError(f"{len(self.rollouts)} rollouts but {len(values)} {what}")


@dataclass(frozen=True)
class Sample:
    """What a reward sees of one rollout; plain data. `messages` are the turns after the prompt; `environment` is its
    environment by `workers.user_code.freeze`, `precomputed` the results of rewards that a model
    computes, by the text of their expression."""

    prompt: Prompt
    messages: tuple[Message, ...]
    completion_ids: tuple[int, ...]
    columns: Mapping[str, Any]
    environment: bytes | None = None
    precomputed: Mapping[str, Any] = field(default_factory=dict)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "columns": dict(self.columns)}  # a read-only view of a dict cannot be pickled

    @property
    def text(self) -> str:
        """What the assistant said, turns joined by newlines."""
        return "\n".join(m.content for m in self.messages if m.role == "assistant")

    @property
    def prompt_text(self) -> str:
        """The prompt as one string: the contents of a conversation joined by newlines."""
        return self.prompt if isinstance(self.prompt, str) else "\n".join(m.content for m in self.prompt)

    @property
    def prompt_argument(self) -> str | list[dict[str, Any]]:
        """The prompt as a batched reward gets it: a string, or a list of message dicts."""
        return self.prompt if isinstance(self.prompt, str) else [m.to_dict() for m in self.prompt]

    @property
    def completion_argument(self) -> str | list[dict[str, Any]]:
        """The completion as a batched reward gets it: like its prompt, a string or a list of message dicts."""
        return self.text if isinstance(self.prompt, str) else [m.to_dict() for m in self.messages]
