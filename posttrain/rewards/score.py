"""`posttrain score`: a reward over given completions, without a model."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from posttrain.config import ScoreConfig
from posttrain.config.compute import on_its_device
from posttrain.console import info_once
from posttrain.data.raw import RawRow, read_bytes
from posttrain.data.readers import EXTENSIONS, extension, iter_rows, parse_jsonl
from posttrain.data.shapes import renamed, standardised
from posttrain.rewards.registry import BUILTINS
from posttrain.rewards.scorer import open_scorer
from posttrain.text import printable, printable_json
from posttrain.types import InputError, Message, Prompt, RunFailed, Sample, Score, located

PROGRESS_SECONDS = 5.0
SHOWN = 80
"""Characters of a value beside a single score."""
COMPLETIONS = ("response", "output")
"""What a completion is called too."""


def run_score(config: ScoreConfig, stdin: BinaryIO, stdout: TextIO, stderr: TextIO) -> int:
    """Score every row of `config.data` and write one JSON object per row to `stdout`, in input order, with `score`
    (null if the row failed or no reward applies), `parts` and `error` (null unless it failed), and with `step_values`
    where a reward scores steps.

    Returns the exit code 0 when every row was answered, even if some failed. Raises InputError, before anything is
    written, for rows that cannot be read, and RunFailed, after everything is, where no row at all has a score."""
    assert config.data is not None
    started = time.monotonic()
    samples = read_samples(config.data, stdin, config.columns)
    with contextlib.redirect_stdout(stderr):
        scores, first_traceback = score_samples(config, samples, _Progress(len(samples), stderr).advance)
    if not write_scores(scores, stdout):
        return 0
    if len(samples) == 1:  # such as the answer of an audit's finding
        shown = {"completion": samples[0].text, **samples[0].columns}
        told = [
            f"{name} {text if len(text) <= SHOWN else f'{text[:SHOWN]}…'}"
            for name, text in ((name, repr(value)) for name, value in shown.items())
        ]
        print(printable(", ".join(told)), file=stderr)
    failed = sum(score.failed for score in scores)
    seconds = time.monotonic() - started
    print(f"scored {len(scores) - failed} of {len(scores)} rows in {seconds:.1f} s, {failed} failed", file=stderr)
    if failed and first_traceback:
        print(f"the first failure:\n{printable(first_traceback.rstrip())}", file=stderr)
    if all(score.total is None for score in scores):
        reasons = [score.reason for score in scores if score.reason is not None]
        raise RunFailed(f"no row could be scored: {(reasons or ['no reward applied'])[0]}")
    return 0


@on_its_device
def score_samples(
    config: ScoreConfig, samples: Sequence[Sample], progress: Callable[[int], None] | None = None
) -> tuple[list[Score], str | None]:
    """The scores, in order, and the traceback of the first failure."""
    columns = {name for sample in samples for name in sample.columns}
    with open_scorer(config, columns) as scorer:
        return scorer.score(samples, progress=progress), scorer.first_traceback


def describe_rewards() -> list[tuple[str, str]]:
    """How each built-in reward is written, with its options, and its documentation: rule, range, failure, source."""
    described = []
    for name, builtin in BUILTINS.items():
        module, _, target = builtin.target.partition(":")
        function = getattr(importlib.import_module(module), target)
        written = [
            str(parameter.replace(annotation=parameter.empty)).replace("*", "")
            + (", ..." if parameter.kind is parameter.VAR_POSITIONAL else "")
            for parameter in inspect.signature(function).parameters.values()
            if parameter.kind is parameter.KEYWORD_ONLY or builtin.wraps or builtin.models
        ]
        described.append((f"{name}({', '.join(written)})" if written else name, inspect.getdoc(function) or ""))
    return described


def read_samples(data: str, stdin: BinaryIO, names: Mapping[str, str] | None = None) -> list[Sample]:
    """The rows of a source as in training, or of JSONL on standard input for `-`; `names` says which of its columns are
    which of ours. A file whose name says nothing of its form is JSONL. Raises InputError with file:line for a bad
    row."""
    name = "<stdin>" if data == "-" else data
    if data == "-" or (os.path.exists(data) and extension(Path(data)) not in EXTENSIONS):
        rows = list(parse_jsonl(stdin.read() if data == "-" else read_bytes(Path(data)), name))
    else:
        rows = iter_rows(data)
    if not rows:
        raise InputError(f"{name} has no rows; each line is a JSON object with 'prompt' and 'completion'")
    named = _with_completions(standardised(renamed(rows, names), tasks=True), name)
    return [_sample(row.checked(), row.where) for row in named]


def _with_completions(rows: Sequence[RawRow], name: str) -> list[RawRow]:
    """The rows with `response` or `output` as the completion where no row has that column, with one note. An
    `answer` is what rewards compare with, and never taken. `output` stays a column too: in evaluations it is the
    wanted answer, and a reward may ask for it."""
    columns = {column for row in rows for column in row.columns}
    found = [column for column in COMPLETIONS if column in columns]
    if "completion" in columns or len(found) != 1:
        return list(rows)
    info_once(f"{name}: read as completions: {found[0]}")
    named = []
    for row in rows:
        kept = {column: value for column, value in row.columns.items() if column != "response"}
        with_it = found[0] in row.columns
        named.append(replace(row, columns={**kept, "completion": row.columns[found[0]]}) if with_it else row)
    return named


def write_scores(scores: Iterable[Score], stdout: TextIO) -> bool:
    """Write the scores as JSONL. False if the reader went away (`| head`), which is no error."""
    try:
        for score in scores:
            steps = {} if score.step_values is None else {"step_values": score.step_values}
            row = {"score": score.total, "parts": dict(score.parts), "error": score.reason, **steps}
            stdout.write(printable_json(json.dumps(row, ensure_ascii=False)) + "\n")
        stdout.flush()
    except BrokenPipeError:
        # The interpreter flushes standard output once more at its end; let that go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stdout.fileno())
        return False
    return True


class _Progress:
    def __init__(self, total: int, stderr: TextIO) -> None:
        self._total, self._stderr, self._last = total, stderr, time.monotonic()

    def advance(self, done: int) -> None:
        now = time.monotonic()
        if now - self._last >= PROGRESS_SECONDS:
            self._last = now
            print(f"scored {done} of {self._total} rows", file=self._stderr, flush=True)


def _sample(row: Mapping[str, Any], where: str) -> Sample:
    for field in ("prompt", "completion"):
        if field not in row:
            column = "response" if field == "completion" and "response" in row else "COLUMN"
            raise InputError(
                f"{where}: no {field!r}; the row has {', '.join(row) or 'nothing'}. If it has another name, give "
                f"--columns {field}={column}"
            )
    prompt: Prompt = row["prompt"] if isinstance(row["prompt"], str) else _messages(row["prompt"], f"{where}: prompt")
    completion = row["completion"]
    if isinstance(completion, str):
        messages: tuple[Message, ...] = (Message("assistant", completion),)
    else:
        messages = _messages(completion, f"{where}: completion")
    columns = {name: value for name, value in row.items() if name not in ("prompt", "completion")}
    return Sample(prompt, messages, (), columns)


def _messages(value: Any, where: str) -> tuple[Message, ...]:
    if not isinstance(value, list) or not all(isinstance(message, Mapping) for message in value):
        raise InputError(f"{where} must be a string or a list of messages with 'role' and 'content'")
    with located(where):
        return tuple(Message.from_dict(message) for message in value)
