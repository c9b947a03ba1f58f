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
            raise InputError("'chosen' and 'rejected' are equal; drop the row, a preference needs a difference")
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
    """Every prompt that training on the row shows: of a conversation what precedes its first answer, and each user
    turn alone. Raw text has none."""
    if isinstance(row, TextRow):
        return ()
    if not isinstance(row, MessagesRow):
        return (row.prompt,)
    first = next(i for i, m in enumerate(row.messages) if m.role == "assistant")
    return (row.messages[:first], *(m.content for m in row.messages if m.role == "user"))
