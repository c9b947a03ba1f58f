"""Rollouts whose reasoning is cut: the model must answer at once from what is left of it.

How early the reward is reached says how much of the reasoning it took (TRACE, arXiv:2510.01367): an answer that the
model works out needs most of its reasoning, one that it has from a loophole little.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace

from posttrain.chat import ChatFormat, Ids
from posttrain.engine.base import Engine, Request
from posttrain.rewards.extract import ANSWER_LINE, BOX, HASHES, Mark, marks
from posttrain.rollout.collect import sample_of
from posttrain.types import Message, Rollout, Sample, Sampling, Task

CUTS = (25, 50, 75)
"""Per cent of the reasoning's tokens that are kept."""
FORCED_TOKENS = 24
"""Longest answer that is sampled after a cut."""
LEAST_TOKENS = 4
"""Reasoning of fewer tokens cannot be cut at three different places."""
OPEN, CLOSE = "<think>", "</think>"


@dataclass(frozen=True)
class Reasoning:
    """The reasoning of a rollout: its tokens, all sampled before the answer, and the text that asks for an answer."""

    prompt_ids: Ids
    token_ids: Ids
    ask: str

    def cut(self, per_cent: int) -> Ids:
        """The first `per_cent` of the tokens."""
        return self.token_ids[: len(self.token_ids) * per_cent // 100]


def reasoning_of(chat: ChatFormat, task: Task, rollout: Rollout) -> Reasoning | None:
    """The reasoning of a single answer; None where nothing, or too little, stands before its answer, where tools may be
    called, and in conversations."""
    spans = [span for segment in rollout.segments for span in segment.sampled_spans]
    found = asked(rollout.text)
    if len(spans) != 1 or task.tools or rollout.status == "failed" or found is None:
        return None
    characters, ask = found
    ids = rollout.sampled_ids
    tokens = bisect_left(range(len(ids)), characters, key=lambda count: len(chat.decode(ids[:count])))
    return None if tokens < LEAST_TOKENS else Reasoning(rollout.prompt_ids, ids[:tokens], ask)


def asked(text: str) -> tuple[int, str] | None:
    r"""How many characters of a response are reasoning, and the text that asks for its answer; None without reasoning.

    With `<think>` or `</think>` the reasoning is what that tag closes, and `</think>` asks for the answer; else it is
    what stands before the last marked answer. The mark itself is asked for as the response began it: `\boxed{`,
    `<answer>`, `####` or an `Answer:` line."""
    thought, close, after = text.rpartition(CLOSE)
    if close or OPEN in text:
        reasoning, ask = (thought, after) if close else (text, "")
        last = marks(after)[-1:] if close else []
        ask = f"\n{CLOSE}\n" + "".join(_opening(after, mark) for mark in last)
    elif found := marks(text):
        reasoning, ask = text[: found[-1].start], "\n" + _opening(text, found[-1])
    else:
        return None
    return (len(reasoning), ask) if reasoning.replace(OPEN, "").strip() else None


def _opening(text: str, mark: Mark) -> str:
    """What a mark begins with, without blanks at its end: tokens of an answer often begin with one."""
    if mark.kind == "tag":
        return "<answer>"
    if mark.kind == "box":
        return f"{match.group().strip()}{{" if (match := BOX.match(text, mark.start)) else ""
    line = next(filter(None, (pattern.match(text, mark.start) for pattern in (ANSWER_LINE, HASHES))))
    return text[mark.start : line.start(1)].rstrip()


def answers_after_cuts(
    engine: Engine, chat: ChatFormat, context: int, members: Sequence[tuple[Task, Rollout, Reasoning]]
) -> dict[tuple[int, int], Sample]:
    """What a reward sees of the answers that the model gives greedily, by place in `members` and per cent kept. One
    that does not fit into the context is missing."""
    rows: dict[int, tuple[tuple[int, int], Ids]] = {}
    requests: list[Request] = []
    for i, (_, _, reasoning) in enumerate(members):
        for per_cent in CUTS:
            kept = reasoning.cut(per_cent)
            ask = reasoning.ask.removeprefix("\n") if chat.decode(kept).endswith("\n") else reasoning.ask
            forced = (*kept, *chat.continued(ask))
            room = min(FORCED_TOKENS, context - len(reasoning.prompt_ids) - len(forced))
            if room > 0:
                rows[len(requests)] = (i, per_cent), forced
                requests.append(Request(len(requests), reasoning.prompt_ids + forced, Sampling(room, temperature=0)))
    out = {}
    for number, completion in engine.generate(requests):
        key, forced = rows[number]
        task, rollout, _ = members[key[0]]
        ids = (*forced, *completion.token_ids.tolist())
        answer = _up_to_answer(chat.answer(ids).message.content, len(chat.decode(forced)))
        shown = replace(rollout, messages=(Message("assistant", answer),))
        out[key] = replace(sample_of(task, shown), completion_ids=ids)
    return out


def _up_to_answer(text: str, forced: int) -> str:
    """The text up to the end of the mark that reaches beyond its first `forced` characters, if there is one: what the
    model says after it would be further answers."""
    return next((text[: mark.end] for mark in marks(text) if mark.end > forced), text)
