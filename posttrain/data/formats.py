"""The kinds of rows, and loading a source as the kind a method needs.

The columns of a row tell its kind (`kind_of`); one file holds one kind. `parse_rows` turns raw rows into typed ones and
gives an InputError in the place of a bad row; the `load_…` functions raise the first, `check-data` collects them.
Their `names` says which columns of the file are which of ours, `optional` that the file may have none of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from posttrain.data import builtin
from posttrain.data.columns import (
    STEPS,
    after_prompt,
    check_one_answer,
    parse_label,
    parse_pair,
    parse_probability,
    parse_prompt,
    parse_steps,
    parse_text,
    parse_tools,
    parse_weighted,
    short,
)
from posttrain.data.forms import refuse_what_is_lost
from posttrain.data.raw import RawRow
from posttrain.data.readers import iter_rows
from posttrain.data.shapes import ALL_FIELDS, Names, renamed, standard_rows, standardised
from posttrain.methods import commands_for
from posttrain.rows import (
    CompletionRow,
    Kind,
    MessagesRow,
    PreferenceRow,
    Row,
    SftRow,
    StepwiseRow,
    TextRow,
    Tools,
    UnpairedRow,
)
from posttrain.types import InputError, Message, Task, located

NEEDS: dict[Kind, str] = {
    "messages": "a 'messages' column",
    "completion": "'prompt' and 'completion' columns",
    "text": "a 'text' column",
    "preference": "'chosen' and 'rejected' columns, and 'prompt' unless both begin with it",
    "unpaired": "'prompt', 'completion' and 'label' columns",
    "stepwise": "'prompt', 'steps' and 'labels' columns",
    "task": "a 'prompt' column and no 'completion'",
}
FITS: Mapping[Kind, str] = {
    kind: " and ".join(commands_for(kind) + (["posttrain eval"] if kind == "task" else [])) for kind in NEEDS
}
"""The commands that rows of a kind are meant for."""

PREFERENCE_COLUMNS = ("prompt", "chosen", "rejected", "tools", "probability")


R = TypeVar("R", bound=Row)


@dataclass(frozen=True)
class Loader(Generic[R]):
    """Loads rows of `kinds`; `method` is what messages say that the rows are for."""

    kinds: tuple[Kind, ...]
    method: str

    def __call__(
        self, source: str, names: Names | None = None, method: str | None = None, *, optional: bool = False
    ) -> list[R]:
        """The rows of a source; of a built-in one tasks, or their answers as completions. Raises InputError naming file
        and line for the first row that is wrong."""
        if builtin.is_builtin(source):
            return cast(list[R], self._of_tasks(source))
        raw = standard_rows(source, names, tasks=self.kinds == ("task",), optional=optional)
        columns = raw[0].checked()
        with located(raw[0].where):
            kind = kind_of(columns, self.kinds)
        if kind not in self.kinds:
            who = method or self.method
            needs = f"{who} need{'' if ' and ' in who else 's'} {' or '.join(NEEDS[k] for k in self.kinds)}"
            raise InputError(
                f"{raw[0].where}: {needs}, but the columns are {', '.join(columns)}. Such rows fit {FITS[kind]}"
                f"{_hint(kind, self.kinds, columns)}"
            )
        rows: list[Row] = []
        for _, row in parse_rows(raw):
            if isinstance(row, InputError):
                raise row
            rows.append(row)
        return cast(list[R], rows)

    def _of_tasks(self, source: str) -> list[Row]:
        if not {"task", "completion"}.intersection(self.kinds):
            lacking = "steps" if self.kinds == ("stepwise",) else "preferences"
            raise InputError(f"{source} holds tasks without {lacking}; it fits {FITS['task']}")
        rows: list[Row] = []
        for task in builtin.builtin_tasks(source):
            answer = task.columns.get("answer")
            if "completion" in self.kinds and isinstance(answer, str):
                rows.append(CompletionRow(f"{source}#{task.id}", task.prompt, answer))
            elif "task" in self.kinds:
                rows.append(task)
            else:
                raise InputError(f"{source}: {task.id} has no answer to imitate; it fits {FITS['task']}")
        return rows


load_sft = Loader[SftRow](("messages", "completion", "text"), "posttrain sft")
"""Rows for supervised fine-tuning; of reasoning-gym its tasks with their answers."""
load_preferences = Loader[PreferenceRow](("preference",), "posttrain dpo")
load_stepwise = Loader[StepwiseRow](("stepwise",), "posttrain reward-model with data in steps")
load_feedback = Loader[PreferenceRow | UnpairedRow](("unpaired", "preference"), FITS["unpaired"])
"""Rows for KTO: labelled responses, or pairs."""
load_prompts = Loader[Task | CompletionRow](("task", "completion"), "posttrain distill")
load_tasks = Loader[Task](("task",), FITS["task"])
"""Tasks for RL and evaluation: a `prompt`, and columns for the reward. A task's id is its column `id`, which must be
unique, else its index."""


def load_judged(
    source: str, names: Names | None = None, *, optional: bool = False
) -> tuple[list[PreferenceRow], list[StepwiseRow]]:
    """Rows for reward models: pairs, or answers in steps. One file holds one kind, and the other list is empty."""
    rows = Loader[PreferenceRow | StepwiseRow](("preference", "stepwise"), "posttrain reward-model")(
        source, names, optional=optional
    )
    pairs = [row for row in rows if isinstance(row, PreferenceRow)]
    return pairs, [row for row in rows if isinstance(row, StepwiseRow)]


def kind_of(columns: Collection[str], wanted: Sequence[Kind] | None = None) -> Kind:
    """The kind of a row from the names of its columns. Raises InputError if they fit none, or two; the message says
    what the `wanted` kinds need, without these what every kind needs."""
    has = set(columns)
    found = f"found the columns {', '.join(sorted(has))}"
    if {"chosen", "rejected"} <= has:
        return "preference"
    for one, other in (("chosen", "rejected"), ("rejected", "chosen")):
        if one in has:
            raise InputError(f"'{one}' without '{other}'; preferences need both ({found})")
    pair = {"prompt", "completion"} <= has
    if pair and "label" in has:
        return "unpaired"
    steps = [name for name in STEPS if name in has]
    if steps and {"prompt", "labels"} <= has:
        for other in (*steps[1:], "completion", "messages", "margin"):
            if other in has:
                raise InputError(f"'{other}' has no meaning beside '{steps[0]}'; drop one of them ({found})")
        return "stepwise"
    if "messages" in has and (pair or "text" in has):
        raise InputError(
            "'messages' beside 'text' or 'completion' is ambiguous; keep one of them, as --columns messages=messages "
            f"does ({found})"
        )
    if "messages" in has:
        return "messages"
    if pair:
        return "completion"
    if "prompt" in has:
        return "task"
    if "text" in has:
        return "text"
    alike = {name.lower(): name for name in sorted(has) if re.fullmatch(r"\w+", name)}
    so = ",".join(f"{field}={name}" for field, name in alike.items() if field in ALL_FIELDS and name not in ALL_FIELDS)
    raise InputError(
        f"the row fits no method: {found}; needed are {'; or '.join(NEEDS[kind] for kind in wanted or NEEDS)}. Columns "
        f"of other names are named by --columns, as in --columns {so or 'prompt=question,completion=answer'}"
    )


def parse_rows(raw: Iterable[RawRow]) -> Iterator[tuple[str, Row | InputError]]:
    """Each row, or what is wrong with it, with its place. The message begins with the place.

    Checked across rows: one kind, and for tasks unique ids and the same columns in every row."""
    first: tuple[Kind, str] | None = None
    ids: dict[str, str] = {}
    task_columns: set[str] | None = None
    for number, raw_row in enumerate(raw):
        where = raw_row.where
        index = number if raw_row.index is None else raw_row.index
        try:
            columns = raw_row.checked()
            with located(where):
                kind = kind_of(columns)
                first = first or (kind, where)
                if kind != first[0]:
                    raise InputError(
                        f"the row has {NEEDS[kind]}, but {first[1]} has {NEEDS[first[0]]}; use a file for each"
                    )
                row = _parse(kind, columns, where, index)
                if isinstance(row, Task):
                    task_columns = task_columns if task_columns is not None else set(row.columns)
                    _check_task(row, where, ids, task_columns)
        except InputError as error:
            yield where, error
        else:
            yield where, row


def _task(columns: Mapping[str, Any], where: str, index: int) -> Task:
    id_ = columns.get("id", index)
    if isinstance(id_, bool) or not isinstance(id_, str | int) or id_ == "":
        raise InputError(f"column 'id' must be text or a whole number, not {short(id_)}")
    rest = {name: value for name, value in columns.items() if name not in ("id", "prompt", "tools")}
    return Task(str(id_), parse_prompt(columns["prompt"]), rest, parse_tools(columns), where)


def _hint(kind: Kind, wanted: Sequence[Kind], columns: Mapping[str, Any]) -> str:
    """How rows of a kind can be read as another that is wanted."""
    if tuple(wanted) == ("task",):
        prompts = {
            "messages": "; where a column holds the prompt, say so: --columns prompt=COLUMN",
            "completion": "; with the completion as a reference: --columns prompt=prompt,answer=completion",
        }
        return prompts.get(kind, "")
    if "messages" not in wanted:
        return ""
    if kind == "task":
        return "; where a column holds the answer to learn, say so: --columns completion=COLUMN"
    if kind == "unpaired":
        return "; to learn from good and bad ones alike, drop 'label'"
    if kind == "preference":
        whole = "text" if isinstance(columns["chosen"], str) else "messages"
        return f"; to learn the chosen ones: --columns {'completion' if 'prompt' in columns else whole}=chosen"
    return ""


def _parse(kind: Kind, columns: Mapping[str, Any], where: str, index: int) -> Row:
    refuse_what_is_lost(columns, kind == "task")
    if kind == "task":
        return _task(columns, where, index)
    if kind == "text":
        return TextRow(where, parse_text(columns))
    tools = parse_tools(columns)
    if kind == "messages":
        return _conversation(where, *parse_weighted(columns["messages"], "messages"), tools)
    if kind == "preference":
        rest = {name: value for name, value in columns.items() if name not in PREFERENCE_COLUMNS}
        return PreferenceRow(where, *parse_pair(columns), tools, rest, parse_probability(columns))
    if kind == "stepwise":
        return StepwiseRow(where, parse_prompt(columns["prompt"]), *parse_steps(columns), tools)
    prompt, completion = after_prompt(parse_prompt(columns["prompt"]), columns["completion"], "completion")
    if kind == "completion":
        return CompletionRow(where, prompt, completion, tools)
    check_one_answer(completion, "completion")
    return UnpairedRow(where, prompt, completion, parse_label(columns["label"]), tools)


def _conversation(
    where: str, messages: tuple[Message, ...], trained: tuple[bool, ...], tools: Tools
) -> MessagesRow | CompletionRow:
    """A conversation, up to the last message that is trained. Where the first ones of the assistant are not, they are
    the prompt. Raises InputError where nothing is trained, and for an untrained one between trained ones."""
    answers = [i for i, message in enumerate(messages) if message.role == "assistant"]
    if not answers:
        raise InputError("column 'messages' has no message from the assistant, so nothing could be trained")
    if answers[0] == 0:
        raise InputError("column 'messages' begins with the assistant; put what it answers to before it")
    kept = [i for i in answers if trained[i]]
    if not kept:
        raise InputError("column 'messages': every message from the assistant has weight 0, so nothing is trained")
    if len(kept) == len(answers):
        return MessagesRow(where, messages, tools)
    first, last = kept[0], kept[-1]
    if between := [i for i in answers if first < i < last and not trained[i]]:
        raise InputError(
            f"column 'messages', message {between[0] + 1}: has weight 0 between messages that are trained; make a row "
            "of the conversation up to each message that is trained, with weight 0 for those before it"
        )
    return CompletionRow(where, messages[:first], messages[first : last + 1], tools)


def _check_task(task: Task, where: str, ids: dict[str, str], columns: set[str]) -> None:
    """A reward reads whole columns, so each row must have them all; null says that a value is left out on purpose."""
    if task.id in ids:
        raise InputError(f"the id {task.id!r} was already used at {ids[task.id]}; ids must be unique")
    ids[task.id] = where
    for name in sorted(columns ^ set(task.columns)):
        side = "is missing here" if name in columns else "is not in the first row"
        raise InputError(f"column '{name}' {side}; give every row the same columns (null where it does not apply)")


def pooled_text(sources: Iterable[str], names: Names | None = None, optional: bool = False) -> str:
    """The rows of all sources as JSONL, in our columns, `names` as in `data.shapes`; of a built-in task its prompt, and
    its answer as completion. What JSON has no form for, as the date in a column of a Parquet file, becomes text."""
    pooled: list[RawRow] = []
    for source in sources:
        if not builtin.is_builtin(source):
            pooled += iter_rows(source)
            continue
        for task in builtin.builtin_tasks(source):
            answer = task.columns.get("answer")
            learnt = {"completion": answer} if isinstance(answer, str) else {}
            pooled.append(RawRow(f"{source}:{task.id}", {"prompt": task.prompt, **learnt}))
    rows = standardised(renamed(pooled, names, optional))
    return "".join(json.dumps(row.checked(), ensure_ascii=False, default=str) + "\n" for row in rows)
