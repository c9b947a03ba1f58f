"""A run folder, read: the one reader under reports, comparisons, recipes, live pages and Python."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from posttrain.config.evaluation import MAIN_SUITE
from posttrain.runs.config import FILE, method_of, parse_settings
from posttrain.runs.files import ROLLOUTS, numbered_jsonl, parse_object, read_file, read_object
from posttrain.runs.log import LINEAGE
from posttrain.runs.records import Cost, Evaluation, EventLine, Lineage, RolloutLine, StepLine, checked
from posttrain.runs.rollouts import locate, with_lists
from posttrain.runs.table import Table
from posttrain.types import InputError

SHOWN_FIRST = ("step", "task", "prompt", "text", "score", "advantage", "status", "parts")
"""The keys that a row of a rollout begins with: a table shows its first columns."""
OF_A_STEP = re.compile(rb'\{"step": (\d+)[,}]')
"""How a line of `rollouts.jsonl` begins, so that lines of other steps need not be parsed."""


class Position(NamedTuple):
    """How far a file has been read, and which file it was: a resume puts another in its place."""

    file: int = 0
    end: int = 0


@dataclass(frozen=True)
class Tail:
    """What a run has written since an earlier look. `rewritten`: a resume has cut the metrics back, and `metrics` are
    all that there are now. `position` is for the next look."""

    metrics: Table
    events: Table
    rewritten: bool
    position: tuple[Position, Position]


@dataclass(frozen=True)
class Run:
    """A run folder, finished or not, of this version or an earlier one. Every look reads the files anew; a file that
    is missing is empty.

    Raises InputError where there is no such folder, or no longer, and for a file that is damaged, with its line."""

    path: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))
        _ = self.folder

    @property
    def folder(self) -> Path:
        """The run folder. Raises InputError if it is not there, or no longer."""
        if not self.path.is_dir():
            raise InputError(f"{self.path}: no such folder; give run folders, such as runs/quickstart/sft")
        return self.path

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.path.resolve().name

    @property
    def method(self) -> str | None:
        """The command that made it, such as `sft` or `online-dpo`; None where the folder does not say."""
        lineage = self.lineage
        return (lineage and lineage.stage) or method_of(self.config)

    @property
    def config(self) -> dict[str, Any]:
        """The settings, with defaults filled in and the hashes of data files."""
        return parse_settings(self.text(FILE), self.path / FILE)[0] if (self.folder / FILE).exists() else {}

    @property
    def is_finished(self) -> bool:
        return (self.folder / LINEAGE).exists()

    @property
    def metrics(self) -> Table:
        """A row a step."""
        return self._lines("metrics.jsonl", StepLine)

    @property
    def events(self) -> Table:
        """Alarms, notes, resumes and the end, each with `event` and mostly `reason`."""
        return self._lines("events.jsonl", EventLine)

    @property
    def cost(self) -> Cost | None:
        """What a finished run took."""
        return Cost.read(self.folder)

    @property
    def lineage(self) -> Lineage | None:
        """What a finished run was made from."""
        return Lineage.read(self.folder)

    @property
    def model(self) -> Path:
        """The folder of the trained model."""
        return self.path / "model"

    @property
    def evaluations(self) -> dict[str, Evaluation]:
        """The evaluations of tasks in the folder by their name, the main suite first."""
        files = sorted((self.folder / "evaluations").glob("*.jsonl"), key=lambda f: (f.stem != MAIN_SUITE, f.stem))
        return {file.stem: Evaluation.read(file) for file in files}

    @property
    def measured(self) -> dict[str, dict[str, Any]]:
        """Numbers that are not of tasks, by what they are of: a reward model's on held-out pairs, those of adversarial
        rounds."""
        suites = sorted((self.folder / "evaluations").glob("*.json"))
        files = [file for file in suites if not file.with_suffix(".jsonl").exists()]
        return {file.stem: found for file in (*files, self.path / "adversarial.json") if (found := read_object(file))}

    def text(self, name: str) -> str:
        """The text of one of its files, "" if it is missing. Raises InputError where it is not
        UTF-8."""
        return read_text(self.folder / name)

    def rollouts(self, step: int | None = None) -> Table:
        """Sampled answers with score, parts and advantage: of one step, or of all."""
        return Table(row for row in self._rollouts(step) if step is None or row.get("step") == step)

    def first_and_last_rollouts(self, n: int) -> tuple[Table, Table]:
        """At most `n` of each. Only these lines are parsed: the file can be large."""
        first: list[tuple[str, bytes]] = []
        last: deque[tuple[str, bytes]] = deque(maxlen=n)
        for line in self._rollout_lines():
            (first if len(first) < n else last).append(line)

        def rows(lines: Iterable[tuple[str, bytes]]) -> Table:
            return Table(checked(parse_object(line, where), RolloutLine, where) for where, line in lines)

        return rows(first), rows(last)

    def tail(self, since: tuple[Position, Position] | None = None) -> Tail:
        """The whole lines that were added after an earlier look; None is from the beginning."""
        before = since or (Position(), Position())
        metrics, rewritten, first = self._since("metrics.jsonl", before[0])
        events, _, second = self._since("events.jsonl", before[1])
        return Tail(metrics, events, rewritten, (first, second))

    def _lines(self, name: str, form: type) -> Table:
        return Table(checked(row, form, where) for where, row in numbered_jsonl(self.folder / name))

    def _rollouts(self, step: int | None) -> Iterator[dict[str, Any]]:
        for where, line in self._rollout_lines():
            begins = OF_A_STEP.match(line)
            if step is None or begins is None or int(begins.group(1)) == step:
                row = parse_object(line, where)
                try:
                    row = with_lists(locate(row, self.path))
                except (KeyError, TypeError, ValueError) as error:
                    raise InputError(f"{where}: damaged, {error}") from None
                yield {key: row[key] for key in SHOWN_FIRST if key in row} | row

    def _rollout_lines(self) -> Iterator[tuple[str, bytes]]:
        """The whole lines of `rollouts.jsonl` with their places."""
        path = self.folder / ROLLOUTS
        if path.exists():
            if not path.is_file():
                raise InputError(f"{path}: damaged, it is no file")
            with path.open("rb") as lines:
                yield from ((f"{path}:{i}", line) for i, line in enumerate(lines, start=1) if line.endswith(b"\n"))

    def _since(self, name: str, before: Position) -> tuple[Table, bool, Position]:
        path = self.folder / name
        if not path.is_file():
            return Table(), before.end > 0, Position()
        with path.open("rb") as stream:
            file = path.stat().st_ino
            rewritten = before.end > 0 and file != before.file
            start = 0 if rewritten else before.end
            stream.seek(start)
            data = stream.read()
        whole = data[: data.rfind(b"\n") + 1]
        rows = Table(parse_object(line, str(path)) for line in whole.split(b"\n") if line)
        return rows, rewritten, Position(file, start + len(whole))


def read_text(path: Path) -> str:
    """The text of a file, "" if it is missing. Raises InputError where it is not UTF-8."""
    try:
        return (read_file(path) or b"").decode()
    except UnicodeDecodeError:
        raise InputError(f"{path}: damaged, it is not UTF-8") from None
