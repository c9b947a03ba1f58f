"""Rows of training data as every method reads them: typed, and each with the place it came from (`where`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from posttrain.types import InputError, Message, Prompt, Task

Tools = tuple[Mapping[str, Any], ...]
"""JSON schemas of the tools a prompt offers."""
Response = str | tuple[Message, ...]
"""What follows a prompt. A string is taken as it stands: exactly the text the model is to produce. Messages, the first
from the assistant, go through the chat template."""
EQUAL = "'chosen' and 'rejected' are equal; drop the row, a preference needs a difference"

SHOWN = 3
"""Rows that a message names."""


@dataclass(frozen=True)
class MessagesRow:
    """A conversation of which every assistant turn is trained."""

    where: str
    messages: tuple[Message, ...]
    tools: Tools = ()


@dataclass(frozen=True)
class CompletionRow:
    """A prompt and the completion to train; of messages every assistant turn in the completion."""

    where: str
    prompt: Prompt
    completion: Response
    tools: Tools = ()


@dataclass(frozen=True)
class TextRow:
    """Raw text of which every token is trained."""

    where: str
    text: str


SftRow = MessagesRow | CompletionRow | TextRow


@dataclass(frozen=True)
class PreferenceRow:
    """A prompt with a better and a worse response: strings, or one assistant message each. `probability` is how likely
    the chosen one is the better: 1 is a certain label, and below 0.5 it is more likely the worse. `columns` are the
    others of the row, such as a margin.

    Raises InputError if they are equal, and for a probability outside (0, 1]."""

    where: str
    prompt: Prompt
    chosen: Response
    rejected: Response
    tools: Tools = ()
    columns: Mapping[str, Any] = field(default_factory=dict)
    probability: float = 1.0

    def __post_init__(self) -> None:
        if self.chosen == self.rejected:
            raise InputError(EQUAL)
        if not 0 < self.probability <= 1:
            raise InputError(
                f"'probability' is {self.probability}; give one above 0 and at most 1 that 'chosen' is the better, and "
                "for 0 exchange the two"
            )


@dataclass(frozen=True)
class UnpairedRow:
    """A prompt, a completion (a string or one assistant message), and whether it is good."""

    where: str
    prompt: Prompt
    completion: Response
    label: bool
    tools: Tools = ()


@dataclass(frozen=True)
class StepwiseRow:
    """A prompt, the steps of an answer, and for each of them how right it is, from 0 to 1.

    Raises InputError for no steps, a blank one, and another number of labels."""

    where: str
    prompt: Prompt
    steps: tuple[str, ...]
    labels: tuple[float, ...]
    tools: Tools = ()

    def __post_init__(self) -> None:
        if not self.steps:
            raise InputError("the answer has no steps; drop the row")
        if len(self.steps) != len(self.labels):
            raise InputError(f"there are {len(self.steps)} steps, but {len(self.labels)} labels; give each step one")
        if blank := [k for k, step in enumerate(self.steps, start=1) if not step.strip()]:
            raise InputError(f"step {blank[0]} of {len(self.steps)} is empty; drop it with its label")


Row = SftRow | PreferenceRow | UnpairedRow | StepwiseRow | Task
Kind = Literal["messages", "completion", "text", "preference", "unpaired", "stepwise", "task"]
KINDS: Mapping[type[Row], Kind] = {
    MessagesRow: "messages",
    CompletionRow: "completion",
    TextRow: "text",
    PreferenceRow: "preference",
    UnpairedRow: "unpaired",
    StepwiseRow: "stepwise",
    Task: "task",
}


def split_steps(text: str, separator: str) -> tuple[str, ...]:
    """The steps of an answer: what stands between its separators, without line breaks around it; blank parts are left
    out. An answer without a separator is one step, an empty one too."""
    return tuple(part.strip("\r\n") for part in text.split(separator) if part.strip()) or ("",)


def fields(row: Row, *names: str) -> list[Prompt | Response]:
    """What a row has of these fields, which hold text or messages."""
    return [getattr(row, name) for name in names if hasattr(row, name)]


def row_texts(row: Row) -> Iterator[str]:
    """Every piece of text in the row that a tokenizer reads; of a task its prompt alone."""
    pieces = fields(row, "text", "messages", "prompt", "completion", "chosen", "rejected")
    if isinstance(row, StepwiseRow):
        pieces += row.steps
    for piece in pieces:
        if isinstance(piece, str):
            yield piece
        else:
            yield from (text for message in piece for text in (message.content, message.reasoning) if text)


def row_prompts(row: Row) -> tuple[Prompt, ...]:
    """Every prompt that training on the row shows: of a conversation what precedes each answer, and each user turn
    alone. Raw text has none."""
    if isinstance(row, TextRow):
        return ()
    if isinstance(row, MessagesRow):
        messages, shown = row.messages, 0
    elif isinstance(row, CompletionRow) and not isinstance(row.completion, str) and not isinstance(row.prompt, str):
        messages, shown = row.prompt + row.completion, len(row.prompt)
    else:
        return (row.prompt,)
    answered = (messages[:i] for i, m in enumerate(messages) if i >= shown and m.role == "assistant")
    return (*answered, *(m.content for m in messages[shown:] if m.role == "user"))


class TaskColumns(set[str]):
    """The columns that all of some tasks have. `rows` is how many tasks there are, and `lacking` has the places of the
    tasks without a column that others have."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        super().__init__(set.intersection(*(set(task.columns) for task in tasks)))
        self.rows, others = len(tasks), {name for task in tasks for name in task.columns} - self
        self.lacking = {name: [t.where or f"task {t.id}" for t in tasks if name not in t.columns] for name in others}


def told_columns(columns: Iterable[str], wanted: Iterable[str]) -> str:
    """Which columns there are, for a message that one of the `wanted` is none, and which rows lack it."""
    for name in wanted:
        if isinstance(columns, TaskColumns) and (places := columns.lacking.get(name)):
            shown = ", ".join(places[:SHOWN]) + (", ..." if len(places) > SHOWN else "")
            others = f"; all rows have: {', '.join(sorted(columns)) or 'nothing else'}"
            return f"{len(places)} of {columns.rows} rows lack {name!r} ({shown}){others}"
    return f"the data's columns are: {', '.join(sorted(columns)) or 'none'}"
