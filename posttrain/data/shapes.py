"""Rows as other projects write them, read as rows of ours: Alpaca, ShareGPT, question and answer, a system column.

What a row is read as follows from the names of its columns, and is told once a file. Where two readings are possible
nothing is guessed: the error names `--columns`, which says what each column is.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from posttrain.console import info_once
from posttrain.data import forms
from posttrain.data.columns import ASSISTANT_MARK, STEPS, parsed_json, short
from posttrain.data.raw import RawRow
from posttrain.data.readers import iter_rows
from posttrain.types import InputError

Columns = dict[str, Any]
Names = Mapping[str, str]
"""Which columns of a file are which of ours, as `--columns` says."""

ASKED = ("instruction", "question", "query", "problem", "input")
ANSWERED = ("output", "answer", "response", "solution")
TALKS = ("conversations", "conversation")
SYSTEMS = ("system", "system_prompt")
FIELDS: Mapping[str, frozenset[str]] = {
    "messages": frozenset({"messages"}),
    "text": frozenset({"text"}),
    "completion": frozenset({"prompt", "completion", "label", "kto_tag"}),
    "preference": frozenset({"prompt", "chosen", "rejected"}),
    "stepwise": frozenset({"prompt", *STEPS, "labels"}),
}
"""The columns that make a row one of its kind."""
ALL_FIELDS = frozenset().union(*FIELDS.values())
OTHERS = {kind: ALL_FIELDS - of for kind, of in FIELDS.items()}
MESSAGES = ("messages", "prompt", "completion", "chosen", "rejected")
NOT_OURS = frozenset((*ASKED, *ANSWERED, *TALKS, *SYSTEMS, *forms.PREFERRED, "label", "kto_tag", "functions"))
"""Columns of which one at least stands in every row that is read as something else."""
WHOLE = {
    "messages": ("messages",),
    "completion": ("prompt", "completion"),
    "preference": ("chosen", "rejected"),
    "text": ("text",),
}
"""What must not be null for a row to be of a kind."""
SHOWN = 3
"""Readings of one file that are told."""


def standard_rows(
    source: str, names: Names | None = None, *, tasks: bool = False, optional: bool = False
) -> list[RawRow]:
    """The rows of a source with the columns that `data.formats` knows; `names` says which columns of the file are which
    of ours (`--columns`), `optional` that a file may have none of them. For `tasks` an answer stays a column for the
    reward, else it is the completion.

    A row that could not be read, or not without guessing, has a `problem`. Raises InputError as `iter_rows` does, and
    for columns that are not there."""
    return standardised(renamed(iter_rows(source), names, optional), tasks)


def standardised(rows: Sequence[RawRow], tasks: bool = False) -> list[RawRow]:
    """As `standard_rows`, of rows that have been read; says once what they are read as."""
    told: dict[str, None] = {}
    out = []
    for row in rows:
        try:
            columns, remark = (row.columns, "") if row.problem is not None else standard(row.columns, tasks)
        except InputError as error:
            out.append(replace(row, problem=str(error)))
            continue
        if remark:
            told[f"{_file(row)}: {remark}"] = None
        out.append(RawRow(row.where, columns, row.problem, row.index))
    for line in list(told)[:SHOWN]:
        info_once(line)
    return out


def renamed(rows: Sequence[RawRow], names: Names | None, optional: bool = False) -> list[RawRow]:
    """The rows with the columns that are named moved to our fields. What makes a row another kind than the fields named
    say is dropped. A file with none of the columns is left as it is where another file has them or they are `optional`.
    Raises InputError for a column that no row of a file has."""
    if not names:
        return list(rows)
    files: dict[str, dict[str, None]] = {}
    for row in rows:
        files.setdefault(_file(row), {}).update(dict.fromkeys(row.columns))
    having = {file for file, has in files.items() if not has.keys().isdisjoint(names.values())}
    for file, has in files.items():
        missing = [column for column in names.values() if column not in has]
        if missing and has and (file in having or not (optional or having)):
            close = difflib.get_close_matches(missing[0], has, n=1)
            raise InputError(
                f"--columns: {file} has no column {missing[0]!r}"
                + (f"; did you mean {close[0]!r}?" if close else ".")
                + f" It has {', '.join(has) or 'none'}"
            )
    return [_renamed(row, names) if _file(row) in having else row for row in rows]


def _renamed(row: RawRow, names: Names) -> RawRow:
    said = ALL_FIELDS & set(names)
    kept = frozenset().union(*(of for of in FIELDS.values() if said <= of)) if said else ALL_FIELDS
    dropped = {*names, *names.values(), *(ALL_FIELDS - kept)}
    columns = {name: value for name, value in row.columns.items() if name not in dropped}
    columns |= {field: row.columns[column] for field, column in names.items() if column in row.columns}
    return replace(row, columns=columns)


def _file(row: RawRow) -> str:
    return row.where.rpartition(":")[0]


def standard(columns: Mapping[str, Any], tasks: bool) -> tuple[Columns, str]:
    """The row in our columns, and what it was read as where that is not as it stands. Raises InputError for columns
    that can be read in two ways."""
    out = _without_nulls(columns)
    remarks: list[str | None] = []
    if foreign := not NOT_OURS.isdisjoint(out):
        remarks += [_conversation(out), forms.preferences(out), forms.labelled(out), _question(out, tasks)]
    remarks += [forms.as_messages(out, name) for name in MESSAGES if name in out]
    if foreign:
        remarks.append(_system(out))
        forms.functions(out)
    remarks.append(_transcripts(out))
    return out, "; ".join(filter(None, remarks))


def _without_nulls(columns: Mapping[str, Any]) -> Columns:
    """The row without the null fields of other kinds than its own, as where rows of two kinds went through Arrow."""
    if None not in columns.values():
        return dict(columns)
    for kind, needed in WHOLE.items():
        if all(columns.get(name) is not None for name in needed):
            return {name: columns[name] for name in columns if columns[name] is not None or name not in OTHERS[kind]}
    return dict(columns)


def _conversation(out: Columns) -> str | None:
    """ShareGPT: a column `conversations` of `{"from", "value"}`, the prompt of a pair where there is one."""
    name = next((name for name in TALKS if name in out), None)
    if name is None or "messages" in out:
        return None
    forms.refuse_python(out[name], name)
    if not forms.is_messages(out[name]) and out[name] != []:
        return None
    field = "prompt" if _is_pair(out) else "messages"
    if field in out:
        return None
    out[field] = out.pop(name)
    return f"read as ShareGPT ({field} = {name})"


def _question(out: Columns, tasks: bool) -> str | None:
    """What is asked and what is answered, under other names than `prompt` and `completion`."""
    if "messages" in out or set(STEPS) & set(out):
        return None
    if "prompt" in out:
        return None if tasks or _is_pair(out) or "completion" in out else _response(out)
    asked = [name for name in ASKED if name in out and not (name == "input" and "instruction" in out)]
    answers = ["completion"] if "completion" in out else [name for name in ANSWERED if name in out]
    if not asked or not (tasks or answers or _is_pair(out)):
        return None
    alpaca = asked == ["instruction"] and (answers == ["output"] or _is_pair(out))
    if "text" in out and not alpaca:
        if not answers:
            return None
        raise InputError(_two_ways("the row", ["text", *asked, *answers], f"prompt={asked[0]},completion={answers[0]}"))
    if len(asked) > 1:
        learnt = f",completion={answers[0]}" if answers and not tasks else ""
        raise InputError(_two_ways("the prompt", asked, f"prompt={asked[0]}{learnt}"))
    parts = _join(out, asked[0]) + (" after history" if "history" in out else "")
    history = _history(out)
    if tasks or _is_pair(out) or len(answers) > 1 or not _can_be_said(out[answers[0]]):
        if history:
            out["prompt"] = [*history, _turn("user", out["prompt"])]
        return f"read as {'pairs' if _is_pair(out) else 'tasks'} (prompt = {parts})"
    (answer,) = answers
    out["completion"] = out.pop(answer)
    if history:  # the answers of a history are trained too, as LLaMA-Factory documents
        first, *turns = history
        last = [_turn("user", out["prompt"]), _turn("assistant", out["completion"])]
        out |= {"prompt": [first], "completion": [*turns, *last]}
    shape = "Alpaca" if alpaca else f"{asked[0]}/{answer}"
    return f"read as {shape} (prompt = {parts}, completion = {answer}){_unread(out)}"


def _can_be_said(answer: Any) -> bool:
    """Whether an answer can be what a model is to write; a number or a list of choices is a reference."""
    return answer is None or isinstance(answer, str) or forms.is_messages(answer)


def _response(out: Columns) -> str | None:
    """`prompt` with `response` or `output`. An `answer` beside a prompt may be a task's and is not taken."""
    answers = [name for name in ("response", "output") if name in out]
    if len(answers) != 1 or "text" in out:
        return None
    if asked := [name for name in ASKED if name in out]:
        raise InputError(_two_ways("the prompt", ["prompt", *asked], f"prompt=prompt,completion={answers[0]}"))
    out["completion"] = out.pop(answers[0])
    return f"read as prompt/{answers[0]} (completion = {answers[0]}){_unread(out)}"


def _join(out: Columns, asked: str) -> str:
    """Make the prompt of what is asked, and of an instruction's input: `instruction`, a line break, `input`, which is
    how LLaMA-Factory reads Alpaca for chat models (data/README.md). Returns the names of its columns."""
    out["prompt"] = out.pop(asked)
    context = next((name for name in ("input", "context") if name in out and name != asked), None)
    if context is None:
        return asked
    if not _says_nothing(given := out.pop(context)):
        if asked != "instruction":
            raise InputError(
                f"column {context!r} beside {asked!r}: write both into one column 'prompt', or leave it out by "
                f"--columns prompt={asked}"
            )
        if not isinstance(given, str) or not isinstance(out["prompt"], str):
            raise InputError(f"columns {asked!r} and {context!r} must be text, not {short(given)}")
        out["prompt"] += f"\n{given}"
    return f"{asked} and {context}"


def _history(out: Columns) -> list[dict[str, str]]:
    """The messages of Alpaca's `history`, pairs of what was asked and answered before."""
    history = out.pop("history", None)
    if _says_nothing(history):
        return []
    turns = parsed_json(history, "history")
    if not isinstance(turns, list | tuple) or not all(
        isinstance(turn, list | tuple) and len(turn) == 2 and all(isinstance(text, str) for text in turn)
        for turn in turns
    ):
        raise InputError(f"column 'history' must be a list of pairs of texts, not {short(history)}")
    return [_turn(role, text) for turn in turns for role, text in zip(("user", "assistant"), turn, strict=True)]


def _system(out: Columns) -> str | None:
    """Put a column `system` before the prompt or the messages; a null and an empty text say nothing."""
    name = next((name for name in SYSTEMS if name in out), None)
    field = next((field for field in ("messages", "prompt") if field in out), None)
    if name is None or field is None:
        return f"not read: {name}" if name is not None and _is_pair(out) else None
    text, remark = out.pop(name), f"{name} = the system message"
    if _says_nothing(text):
        return remark
    if not isinstance(text, str):
        raise InputError(f"column {name!r} must be text, the system message, not {short(text)}; rename it otherwise")
    turns = parsed_json(out[field], field) if field == "messages" else out[field]
    if not isinstance(turns, list | tuple):
        turns = [_turn("user", turns)]
    first = turns[0] if turns and isinstance(turns[0], Mapping) else {}
    if "system" not in (first.get("role"), first.get("from")):
        out[field] = [_turn("system", text), *turns]
    elif text not in (first.get("content"), first.get("value")):
        raise InputError(f"column {name!r} beside another system message in {field!r}; drop one of them")
    return remark


def _transcripts(out: Columns) -> str | None:
    """Pairs of whole dialogues as text (HH-RLHF): they stay text, for a model whose template has no part in it."""
    if "prompt" in out or not all(ASSISTANT_MARK in str(out.get(name)) for name in ("chosen", "rejected")):
        return None
    mark = ASSISTANT_MARK.strip()
    return f"read as transcripts (prompt = what both begin with, up to the last {mark!r}, as one text)"


def _says_nothing(value: Any) -> bool:
    return value is None or value == [] or (isinstance(value, str) and not value.strip())


def _is_pair(columns: Collection[str]) -> bool:
    return "chosen" in columns and "rejected" in columns


def _turn(role: str, text: Any) -> dict[str, Any]:
    return {"role": role, "content": text}


def _unread(out: Columns) -> str:
    others = [name for name in out if name not in ("prompt", "completion", "tools", "label", *SYSTEMS)]
    return f"; not read: {', '.join(others)}" if others else ""


def _two_ways(what: str, names: Sequence[str], example: str) -> str:
    return f"{' and '.join(map(repr, names))} could each be {what}; say which, as in --columns {example}"
