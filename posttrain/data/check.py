"""What `posttrain check-data` finds out about a file: its kind, problems with their lines, duplicates and overlaps."""

from __future__ import annotations

import json
import shlex
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from posttrain.config import CheckDataConfig
from posttrain.config.base import option_name
from posttrain.data import builtin
from posttrain.data.formats import FITS, NEEDS, Loader, kind_of, parse_rows
from posttrain.data.raw import RawRow
from posttrain.data.readers import iter_rows
from posttrain.data.shapes import Names, renamed, standard, standard_rows, standardised
from posttrain.methods import commands_for
from posttrain.rows import Kind, MessagesRow, PreferenceRow, Response, Row, StepwiseRow, TextRow, fields, row_prompts
from posttrain.types import InputError, Prompt, Task

SHOWN_PROBLEMS = 20
SHOWN_PLACES = 3
ANSWERS = ("response", "output", "answer", "answers", "solution", "target", "reply")
"""Columns of tasks that may have been meant as what is to be imitated."""
Found = tuple[str, Row | InputError]
"""Where a row stands, and the row, or what is wrong with it."""


@dataclass(frozen=True)
class Spread:
    """Of a number over the valid rows, such as a length in characters."""

    least: float
    median: float
    mean: float
    most: float

    @staticmethod
    def of(values: Sequence[float]) -> Spread | None:
        """None of no values."""
        if not values:
            return None
        return Spread(min(values), statistics.median(values), statistics.fmean(values), max(values))

    def text(self, unit: str = "") -> str:
        return f"{self.least:g} to {self.most:g}{unit}, median {self.median:g}, mean {self.mean:.4g}"


@dataclass(frozen=True)
class Overlap:
    """How many valid rows of the checked file have a prompt that `other` shows in training, and the first of them."""

    other: str
    rows: int
    first: str | None


@dataclass(frozen=True)
class Report:
    """Everything `check_data` found.

    `columns` counts the rows that have a column; `duplicates` counts rows whose prompt stood in an earlier row, and
    `duplicate_of` is the first of them with that earlier one; `problem_count` counts rows, and `problems` holds the
    first 20 different faults (see `grouped`)."""

    source: str
    kind: Kind | None
    rows: int
    valid_rows: int
    columns: dict[str, int]
    file_columns: dict[str, int]
    """The same of the file, before its columns were read as ours."""
    as_tasks: tuple[str, ...]
    """Of completion rows that `rl` and `eval` read too, as tasks: the columns which then go to the reward."""
    prompt_chars: Spread | None
    response_chars: Spread | None
    probability: Spread | None
    """Of soft labels."""
    answers: tuple[str, ...]
    """Columns of tasks that look like answers; they go to the reward."""
    empty: tuple[str, ...]
    """Where rows with a response of no characters stand."""
    duplicates: int
    duplicate_of: tuple[str, str] | None
    overlaps: tuple[Overlap, ...]
    problem_count: int
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """No row has a problem. Duplicates and overlaps are reported, but may be wanted."""
        return self.problem_count == 0


def check_data(source: str, against: tuple[str, ...] = (), names: Names | None = None) -> Report:
    """Validate every row of `source` and compare its prompts with those of the sources in `against`.

    Two prompts are the same as `builtin.prompt_key` says. Raises InputError where there is nothing to check row by row
    (no such file, empty, not a list), and for the first bad row of a file in `against`."""
    in_file = [] if builtin.is_builtin(source) else iter_rows(source)
    raw = standardised(renamed(in_file, names))
    parsed = found_rows(source) if builtin.is_builtin(source) else list(parse_rows(raw))
    if builtin.is_builtin(source):
        columns = Counter(name for _, task in parsed if isinstance(task, Task) for name in ("prompt", *task.columns))
    else:
        columns = Counter(name for row in raw for name in row.columns)
    kind = "task" if builtin.is_builtin(source) else _first_kind(raw)
    valid = [(where, row) for where, row in parsed if not isinstance(row, InputError)]
    problems = [(where, str(error)) for where, error in parsed if isinstance(error, InputError)]
    responses = [(where, _response_chars(row)) for where, row in valid]
    duplicates = list(_duplicates(valid))
    return Report(
        source=source,
        kind=kind,
        rows=len(parsed),
        valid_rows=len(valid),
        columns=dict(columns),
        file_columns=dict(Counter(name for row in in_file for name in row.columns)),
        as_tasks=_as_tasks(renamed(in_file[:1], names)) if kind == "completion" else (),
        prompt_chars=Spread.of([_chars(row.prompt) for _, row in valid if not isinstance(row, MessagesRow | TextRow)]),
        response_chars=Spread.of([n for _, counts in responses for n in counts]),
        probability=Spread.of([row.probability for _, row in valid if isinstance(row, PreferenceRow)])
        if "probability" in columns
        else None,
        answers=tuple(name for name in ANSWERS if name in columns) if raw and kind == "task" else (),
        empty=tuple(where for where, counts in responses if 0 in counts),
        duplicates=len(duplicates),
        duplicate_of=duplicates[0] if duplicates else None,
        overlaps=tuple(_overlap(valid, other, names) for other in against),
        problem_count=len(problems),
        problems=tuple(grouped(problems)[:SHOWN_PROBLEMS]),
    )


def next_command(report: Report, config: CheckDataConfig) -> str:
    """The command that trains on the rows as they were checked, or "" where none does."""
    if report.kind is None or not report.ok:
        return ""
    command, _, rest = commands_for(report.kind)[0].removeprefix("posttrain ").partition(" ")
    if report.kind == "task":
        rest = "--reward " + ("math" if "answer" in report.columns else "FILE.py:FUNCTION")
    words = ["posttrain", command, "--model", config.model or "smollm2-135m", "--data", config.file]
    if config.columns:
        words += ["--columns", ",".join(f"{field}={column}" for field, column in config.columns.items())]
    for name in ("max_length", "max_new_tokens", "chat_template"):
        if (value := getattr(config, name)) != CheckDataConfig.model_fields[name].default:
            words += [option_name(name), str(value)]
    words += [option_name(name) for name in ("raw", "trust_remote_code", "strict") if getattr(config, name)]
    return shlex.join([*words, *rest.split(), "--out", f"runs/{command}"])


def _as_tasks(rows: Sequence[RawRow]) -> tuple[str, ...]:
    """The columns for the reward, where the first of the rows can be read as a task too; else none."""
    try:
        columns, _ = standard(rows[0].checked(), tasks=True)
        return tuple(name for name in columns if name in ANSWERS) if kind_of(columns) == "task" else ()
    except InputError:
        return ()


def found_rows(source: str, names: Names | None = None) -> list[Found]:
    """The rows of a source with their places and faults. Raises InputError where there is nothing to check row by
    row."""
    if builtin.is_builtin(source):
        return [(f"{source}#{task.id}", task) for task in builtin.builtin_tasks(source)]
    return list(parse_rows(standard_rows(source, names)))


def grouped(problems: Iterable[tuple[str, str]]) -> list[str]:
    """A line for each different fault of these (place, message): the first place, the message, and how many other rows
    have it."""
    places: dict[str, list[str]] = {}
    for where, message in problems:
        places.setdefault(message.removeprefix(f"{where}: "), []).append(where)
    lines = []
    for message, (first, *rest) in places.items():
        shown = ", ".join(rest[:SHOWN_PLACES]) + ", …" * (len(rest) > SHOWN_PLACES)
        lines.append(f"{first}: {message}" + (f" (and {len(rest)} more rows: {shown})" if rest else ""))
    return lines


def format_report(report: Report) -> str:
    """The report as text for a terminal."""
    kind = f"{report.kind} rows, for {FITS[report.kind]}" if report.kind else "rows that fit no method"
    lines = [f"{report.source}: {report.rows} {kind}"]
    if report.answers:
        named = " and ".join(f"'{name}'" for name in report.answers)
        goes = "goes to the reward and is" if len(report.answers) == 1 else "go to the reward and are"
        lines.append(f"read as tasks: {named} {goes} not trained; for that it must be 'completion'")
    if report.as_tasks:
        named = " and ".join(f"'{name}'" for name in report.as_tasks)
        lines.append(f"for {FITS['task']} too: they read the rows as tasks, with {named} for the reward")
    if report.file_columns and report.file_columns != report.columns:
        lines.append("columns of the file: " + _counted(report.file_columns, report.rows))
        lines.append("read as: " + _counted(report.columns, report.rows))
    else:
        lines.append("columns: " + _counted(report.columns, report.rows))
    spreads = {"prompts": report.prompt_chars, "responses": report.response_chars, "probability": report.probability}
    for name, spread in spreads.items():
        if spread is not None:
            lines.append(f"{name}: {spread.text('' if name == 'probability' else ' characters')}")
    if report.empty:
        lines.append(f"empty responses: {len(report.empty)} rows, the first at {report.empty[0]}")
    if report.duplicate_of:
        repeated, first = report.duplicate_of
        lines.append(f"repeated prompts: {report.duplicates} rows, the first at {repeated}, as at {first}")
    else:
        lines.append("repeated prompts: none")
    for overlap in report.overlaps:
        first_shared = f", the first at {overlap.first}" if overlap.first else ""
        lines.append(f"prompts also in {overlap.other}: {overlap.rows} rows{first_shared}")
    if report.ok:
        lines.append("problems: none")
    else:
        lines.append(f"problems: {report.problem_count} of {report.rows} rows:")
        lines.extend(f"  {problem}" for problem in report.problems)
    return "\n".join(lines)


def _counted(columns: Mapping[str, int], rows: int) -> str:
    """The columns, with how many rows have one where not all do."""
    return ", ".join(name if n == rows else f"{name} ({n} of {rows})" for name, n in columns.items())


def _first_kind(raw: Iterable[RawRow]) -> Kind | None:
    """The kind of the first row that has one: what the other rows are held to."""
    for row in raw:
        if row.problem is None:
            try:
                return kind_of(row.columns)
            except InputError:
                continue
    return None


def _duplicates(valid: Sequence[tuple[str, Row]]) -> Iterator[tuple[str, str]]:
    """(where, where it stood first) of each row whose prompt stood before; a row that was taken twice counts too."""
    seen: dict[str, str] = {}
    for where, row in valid:
        prompt = builtin.prompt_key(row.text if isinstance(row, TextRow) else row_prompts(row)[0])
        if prompt in seen:
            yield where, seen[prompt]
        seen.setdefault(prompt, where)


def _overlap(valid: Sequence[tuple[str, Row]], other: str, names: Names | None) -> Overlap:
    rows = Loader[Row](tuple(NEEDS), "")(other, names, optional=True)
    shown = {builtin.prompt_key(prompt) for row in rows for prompt in row_prompts(row)}
    shared = [where for where, row in valid if any(builtin.prompt_key(prompt) in shown for prompt in row_prompts(row))]
    return Overlap(other, len(shared), shared[0] if shared else None)


def _response_chars(row: Row) -> tuple[int, ...]:
    if isinstance(row, MessagesRow):
        return tuple(_chars((m,)) for m in row.messages if m.role == "assistant")
    if isinstance(row, StepwiseRow):
        return (sum(map(len, row.steps)),)
    return tuple(_chars(text) for text in fields(row, "text", "completion", "chosen", "rejected"))


def _chars(text: Prompt | Response) -> int:
    if isinstance(text, str):
        return len(text)
    calls = (dict(call) for message in text for call in message.tool_calls)
    written = sum(len(json.dumps(call, ensure_ascii=False, default=str)) for call in calls)
    return written + sum(len(message.content) + len(message.reasoning or "") for message in text)
