"""Tasks of `verifiers` 0.4 outside of that library: made of the columns of a row, scored on a conversation of ours.

The library is imported by whoever has made the object that comes in, so it is there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


class NoRuntime:
    """What a task's functions get for the `runtime` (a machine to run commands on), which there is not."""

    def __getattr__(self, name: str) -> Any:
        raise TypeError(f"the task uses runtime.{name}; only tasks of text, which need no runtime, can be adapted")


def check_task(kind: Any, config: Any) -> None:
    """Raises TypeError for a class of tasks that needs more than text."""
    if kind.NEEDS_CONTAINER:
        raise TypeError(f"{kind.__name__} needs a container; only tasks of text can be adapted")
    if kind.toolsets(config):
        raise TypeError(f"{kind.__name__} has tools; only tasks of text can be adapted")


def make_task(taskset: Any, columns: Mapping[str, Any]) -> Any:
    """A task of the taskset's class whose data are the columns that it has fields for. Raises what the class raises for
    data that do not fit."""
    kind = taskset.task_type()
    fields = kind.data_type()
    return kind(fields(**{name: columns[name] for name in fields.model_fields if name in columns}), taskset.config.task)


def make_trace(task: Any, agent: Any = None) -> Any:
    """An empty trace of the task. `agent` is the configuration of the model that will answer."""
    from verifiers.v1 import AgentConfig, AgentInfo, Trace, TraceTask
    from verifiers.v1.state import state_cls

    about = TraceTask(type=type(task).__name__, data=task.data, key=task.key, hash=task.hash)
    return Trace(task=about, state=state_cls(type(task))(), agent=AgentInfo(config=agent or AgentConfig()))


def say(trace: Any, messages: Iterable[Mapping[str, Any]], sampled: bool = False) -> None:
    """Add messages in the form of OpenAI to a trace; the assistant's are the model's where they are `sampled`."""
    from verifiers.v1 import MessageNode
    from verifiers.v1.dialects import parse_message

    for message in messages:
        parent = len(trace.nodes) - 1 if trace.nodes else None
        theirs = sampled and message["role"] == "assistant"
        trace.nodes.append(MessageNode(parent=parent, message=parse_message(dict(message)), sampled=theirs))


def taskset_reward(taskset: Any) -> Any:
    """The functions that a `verifiers` taskset's class of tasks marks with `@reward`, as a per-sample reward.

    score = Σ weight · function, each function a part under its name. A task is made of the columns that the class of
    its data has fields for, and its trace of the prompt and the answer. Unlike in `verifiers`, a function that raises
    makes the sample unscored, not 0. Raises TypeError for tasks with tools or a container. Source: `Task.score` of
    verifiers 0.4."""
    check_task(taskset.task_type(), taskset.config.task)

    async def score(
        prompt: str, response: str, messages: Any, prompt_messages: Any = None, **columns: Any
    ) -> dict[str, float]:
        asked = prompt_messages or [{"role": "user", "content": prompt}]
        task = make_task(taskset, {**columns, "prompt": asked})
        trace = make_trace(task)
        say(trace, asked)
        say(trace, messages or [{"role": "assistant", "content": response}], sampled=True)
        await task.score(trace, NoRuntime())
        return {**{name: one.score for name, one in trace.rewards.items()}, "score": trace.reward}

    return score
