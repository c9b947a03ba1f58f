"""Several sources as the data of one stage: the rows of all of them, in order, in one file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from posttrain.data.builtin import builtin_tasks, is_builtin
from posttrain.data.formats import NEEDS
from posttrain.data.raw import RawRow
from posttrain.data.readers import iter_rows
from posttrain.data.shapes import Names, renamed, standardised
from posttrain.rows import Kind
from posttrain.types import InputError, Task


def check_one_kind(kinds: Mapping[str, Kind]) -> None:
    """Raise InputError for the first source whose rows are of another kind than those of the first one."""
    first = next(iter(kinds), "")
    for source, kind in kinds.items():
        if kind != kinds[first]:
            raise InputError(
                f"data: {source} has {NEEDS[kind]}, but {first} has {NEEDS[kinds[first]]}; sources that are pooled "
                "must be of one kind"
            )


def pooled_text(sources: Iterable[str], names: Names | None = None, optional: bool = False) -> str:
    """The rows of all sources as JSONL, in our columns, `names` as in `data.shapes`; of a built-in task its prompt, and
    its answer as completion. What JSON has no form for, as the date in a column of a Parquet file, becomes text."""
    rows = standardised(renamed([row for source in sources for row in _rows(source)], names, optional))
    return "".join(json.dumps(row.checked(), ensure_ascii=False, default=str) + "\n" for row in rows)


def _rows(source: str) -> list[RawRow]:
    if not is_builtin(source):
        return iter_rows(source)
    return [RawRow(f"{source}:{task.id}", _answered(task)) for task in builtin_tasks(source)]


def _answered(task: Task) -> dict[str, Any]:
    answer = task.columns.get("answer")
    return {"prompt": task.prompt} | ({"completion": answer} if isinstance(answer, str) else {})
