"""Rows of training data as every method reads them: typed, and each with the place it came from (`where`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from posttrain.types import InputError, Message, Prompt, Task

Tools = tuple[Mapping[str, Any], ...]
"""JSON schemas of the tools a prompt offers."""
Response = str | tuple[Message, ...]
"""What follows a prompt. A string is taken as it stands: exactly the text the model is to produce. Messages, the first
from the assistant, go through the chat template."""


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
    """A prompt with a better and a worse response: strings, or one assistant message each. `columns` are the others of
    the row, such as a margin.

    Raises InputError if they are equal."""

    where: str
    prompt: Prompt
    chosen: Response
    rejected: Response
    tools: Tools = ()
    columns: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.chosen == self.rejected:
            raise InputError("'chosen' and 'rejected' are equal; drop the row, a preference needs a difference")


@dataclass(frozen=True)
class UnpairedRow:
    """A prompt, a completion (a string or one assistant message), and whether it is good."""

    where: str
    prompt: Prompt
    completion: Response
    label: bool
    tools: Tools = ()


Row = SftRow | PreferenceRow | UnpairedRow | Task


def row_texts(row: Row) -> Iterator[str]:
    """Every piece of text in the row that a tokenizer reads; of a task its prompt alone."""
    if isinstance(row, TextRow):
        pieces: tuple[Prompt | Response, ...] = (row.text,)
    elif isinstance(row, MessagesRow):
        pieces = (row.messages,)
    elif isinstance(row, PreferenceRow):
        pieces = (row.prompt, row.chosen, row.rejected)
    else:
        pieces = (row.prompt,) if isinstance(row, Task) else (row.prompt, row.completion)
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
