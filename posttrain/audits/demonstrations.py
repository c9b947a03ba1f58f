"""What a policy learns before it is trained against a reward: the tasks, and answers in the forms that are paid."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from posttrain.audits.forms import FORMS, Form
from posttrain.audits.golds import GoldTask
from posttrain.audits.guard import Guard
from posttrain.audits.subject import PAID, Subject
from posttrain.functions import FunctionText
from posttrain.runs.files import write_atomic
from posttrain.types import Message, Task

TASKS_FILE, DEMONSTRATIONS_FILE = "tasks.jsonl", "demonstrations.jsonl"
PLACE = "audited_task"
"""The column with the index of a task."""
EACH = 8
"""Demonstrations of a task; every other one is right."""
MOST_FORMS = 4
WORK = ("I work it out step by step.", "Let me see.", "First I get {other}.", "It is {answer}, I think.")
"""What stands for reasoning in the forms that have some."""
SHORT = 40
"""A reference answer of more characters is not written into the reasoning."""
OTHER_KINDS = ("id", "prompt", "completion", "chosen", "rejected", "messages")
"""Columns that a row of tasks cannot have, or is no task with."""


@dataclass(frozen=True)
class TrainingData:
    """Files to train on: `tasks` for RL, how many they are (`n`), and `demonstrations` of at most `longest` bytes
    for SFT. `earned` is a reward to add, which takes from answers that are not surely wrong what right ones are paid:
    a policy that learnt right answers first would not sample again what is rare."""

    tasks: Path
    n: int
    demonstrations: Path
    longest: int
    earned: FunctionText


def write_training_data(subject: Subject, tasks: Sequence[int], folder: Path) -> TrainingData:
    """Write the tasks of these indices, and EACH demonstrations of every one.

    Half of the demonstrations give the reference answer (the `completion` of the row where it has one), half that of
    another task: the policy learns the form, and what is left to learn is which answers are paid. The forms are those
    that are paid, at most MOST_FORMS: the one that is paid best, those that the prompts ask for, then the others."""
    rng = subject.random("A19")
    golds = [subject.tasks[i] for i in tasks]
    forms = _forms(subject, golds)
    rows: list[dict[str, Any]] = []
    longest = 0
    for gold in golds:
        for text in _answers(gold, golds, forms, rng):
            longest = max(longest, len(text.encode()))
            rows.append(as_row(gold.task, text))
    rng.shuffle(rows)
    kept = []
    for i, gold in enumerate(golds):
        columns = {name: value for name, value in gold.columns.items() if name not in OTHER_KINDS}
        kept.append({"id": gold.task.id, "prompt": as_row(gold.task, "")["prompt"], **columns, PLACE: i})
    folder.mkdir(parents=True)
    for name, lines in ((TASKS_FILE, kept), (DEMONSTRATIONS_FILE, rows)):
        write_atomic(folder / name, "".join(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in lines))
    scale = subject.calibration["best"] - subject.calibration["empty"]
    earned = FunctionText.of(partial(earned_by, golds=golds, guard=Guard(golds)), f"={-scale!r}")
    return TrainingData(folder / TASKS_FILE, len(kept), folder / DEMONSTRATIONS_FILE, longest, earned)


def earned_by(response: str, audited_task: int, *, golds: Sequence[GoldTask], guard: Guard) -> float:
    """1 for a response that is not surely wrong; 0 for a wrong one, and where only running code or a judge decides."""
    gold = golds[audited_task]
    return float(guard.decides(gold) and guard.wrong(gold, response) is not True)


def _forms(subject: Subject, golds: Sequence[GoldTask]) -> list[Form]:
    paid = [form for form in FORMS if subject.calibration["forms"][form.name] >= PAID]
    wanted = [form for form in paid if any(form.wanted(gold.task.asked) for gold in golds)]
    return list(dict.fromkeys((subject.form, *wanted, *paid)))[:MOST_FORMS]


def _answers(gold: GoldTask, golds: Sequence[GoldTask], forms: Sequence[Form], rng: random.Random) -> Iterator[str]:
    others = [other for other in golds if other.gold != gold.gold]
    for k in range(EACH):
        other = rng.choice(others)
        given = (gold, other)[k % 2]
        if (text := given.columns.get("completion")) and isinstance(text, str):
            yield text
            continue
        short = len(given.gold) <= SHORT and len(other.gold) <= SHORT
        work = rng.choice(WORK if short else WORK[:2]).format(answer=given.gold, other=rng.choice(others).gold)
        yield rng.choice(forms).render(given.gold, work)


def as_row(task: Task, text: str) -> dict[str, Any]:
    """The columns of a prompt and of an answer to it."""
    if isinstance(task.prompt, str):
        return {"prompt": task.prompt, "completion": text}
    messages = [message.to_dict() for message in task.prompt]
    return {"prompt": messages, "completion": [Message("assistant", text).to_dict()]}
