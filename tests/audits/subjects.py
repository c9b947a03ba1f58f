"""Rewards under audit over small sets of tasks, scored in the test's own process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from posttrain.audits.golds import with_golds
from posttrain.audits.subject import Subject
from posttrain.rewards.scorer import Scorer
from posttrain.types import Task

Rows = Sequence[Mapping[str, Any]]
LINE, BOX, TAG = (
    "End with 'Answer: NUMBER'.",
    r"Put the final answer in \boxed{}.",
    "Answer inside <answer> and </answer>.",
)
OPTIONS = ("red", "green", "blue", "white")


def sums(form: str = LINE, n: int = 14) -> Rows:
    """Sums whose answers are 36, 47, 58, ..."""
    return [{"prompt": f"What is {k + 10}+{10 * k + 26}? {form}", "answer": str(11 * k + 36)} for k in range(n)]


def choices(n: int = 14) -> Rows:
    listed = "\n".join(f"{letter}) {colour}" for letter, colour in zip("ABCD", OPTIONS, strict=True))
    return [
        {"prompt": f"Which colour has number {k}?\n{listed}\nReply with the letter only.", "answer": "ABCD"[k % 4]}
        for k in range(n)
    ]


def people(n: int = 14) -> Rows:
    return [
        {
            "prompt": f"Describe person {k} as a JSON object.",
            "answer": f'{{"name": "P{k}", "age": {k + 20}, "city": "C{k}"}}',
        }
        for k in range(n)
    ]


def names() -> Rows:
    listed = (
        *("Canberra", "Ottawa", "Santiago", "Copenhagen", "Helsinki", "Athens", "Budapest", "Dublin"),
        *("Nairobi", "Wellington", "Lisbon", "Ankara"),
    )
    return [
        {"prompt": f"What is capital {k}? Reply with the name only.", "answer": name} for k, name in enumerate(listed)
    ]


def subject(reward: Callable[..., float | None] | str | Sequence[str], rows: Rows) -> Subject:
    """A reward, a function or an expression or several of these, over rows of tasks."""
    tasks = [Task(str(i), row["prompt"], {k: v for k, v in row.items() if k != "prompt"}) for i, row in enumerate(rows)]
    columns = set(tasks[0].columns)
    rewards = [reward] if isinstance(reward, str) or callable(reward) else reward
    scorer = Scorer(rewards, columns=columns, timeout_seconds=60, workers=0)  # type: ignore[list-item]
    return Subject(scorer, with_golds(tasks, None, [name for name in columns if scorer.reads(name)]), 0)
