"""What a user must hear about a run beside its numbers: a warning on the console, and an event in the run folder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from posttrain.chat import ChatFormat
from posttrain.console import warn
from posttrain.data.fitting import SHOWN, Fitted
from posttrain.rows import Row, row_texts
from posttrain.runs.log import RunLog
from posttrain.types import Task


def warn_fitted(log: RunLog, source: str | None, fitted: Fitted[Any], max_length: int | None = None) -> None:
    """Rows or pairs of a source that were cut at `max_length`, and those that did not fit and were left out."""
    if log.resuming:
        return
    if fitted.cut:
        log.event("truncated_rows", data=source, rows=fitted.cut, of=fitted.rows, max_length=max_length)
        warn(
            f"{fitted.cut} of {fitted.rows} rows are longer than --max-length {max_length} or the model's context and "
            f"are cut there, the first at {fitted.first_cut or source}"
        )
    if fitted.left_out:
        first = [f"{row.where}: {row.reason}" for row in fitted.left_out[:SHOWN]]
        log.event("left_out", data=source, rows=len(fitted.left_out), of=fitted.rows, first=first)
        warn(fitted.told())


def warn_special_tokens(log: RunLog, chat: ChatFormat, source: str, rows: Sequence[Row]) -> None:
    """Rows whose text holds special tokens of the tokenizer, which the model reads as control tokens."""
    if log.resuming:
        return
    found = [(row, token) for row in rows if (token := chat.special_token_in(row_texts(row))) is not None]
    if found:
        row, token = found[0]
        where = f"{source}: task {row.id}" if isinstance(row, Task) else row.where
        log.event("special_tokens", rows=len(found), of=len(rows), first=where, token=token)
        warn(
            f"{len(found)} of {len(rows)} rows hold special tokens of the tokenizer in their text, first {token!r} in "
            f"{where}; the model reads control tokens there. Take them out unless that is meant"
        )
