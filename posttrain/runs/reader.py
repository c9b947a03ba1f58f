"""A run folder, read: the one reader under reports, comparisons, recipes, live pages and Python."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from posttrain.config import commands
from posttrain.runs.config import FILE, method_of, read_settings
from posttrain.runs.files import CostFile, LineageFile, SuiteFile, TaskLine, checked
from posttrain.runs.log import LINEAGE, numbered_jsonl, parse_object, read_object
from posttrain.runs.table import Table
from posttrain.types import InputError

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
class Suite:
    """One evaluation: what it was made with, and a row a task with `task`, `prompt`, `values` and `samples`."""

    name: str
    model: str | None
    weights_hash: str | None
    settings: Mapping[str, Any]
    rows: Table

    @property
    def values(self) -> dict[str, list[float | None]]:
        """Each value over the tasks; None where a task could not be scored."""
        names = dict.fromkeys(name for row in self.rows for name in row["values"])
        return {name: [row["values"].get(name) for row in self.rows] for name in names}


@dataclass(frozen=True)
class Run:
    """A run folder, finished or not, of this version or an earlier one. Every look reads the files anew; whatever is
    missing is empty.

    Raises InputError where there is no such folder, and whenever a file is read that is damaged, with its line."""

    path: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))
        if not self.path.is_dir():
            raise InputError(f"{self.path}: no such folder; give run folders, such as runs/quickstart/sft")

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.path.resolve().name

    @property
    def method(self) -> str | None:
        """The command that made it, such as `sft` or `online-dpo`; None where the folder does not say."""
        made_by: str | None = self.lineage.get("stage")
        return made_by or method_of(self.config, commands())

    @property
    def config(self) -> dict[str, Any]:
        """The settings, with defaults filled in and the hashes of data files."""
        return read_settings(self.path / FILE)[0] if (self.path / FILE).exists() else {}

    @property
    def is_finished(self) -> bool:
        return (self.path / LINEAGE).exists()

    @property
    def metrics(self) -> Table:
        """A row a step."""
        return self._lines("metrics.jsonl")

    @property
    def events(self) -> Table:
        """Alarms, notes, resumes and the end, each with `event` and mostly `reason`."""
        return self._lines("events.jsonl")

    @property
    def cost(self) -> dict[str, Any]:
        """`steps`, `seconds`, `tokens` and `flops` of a finished run."""
        return self._object("cost.json", CostFile)

    @property
    def lineage(self) -> dict[str, Any]:
        """What a finished run was made from: `stage`, `parents`, `data`, hashes, versions."""
        return self._object(LINEAGE, LineageFile)

    @property
    def model(self) -> Path:
        """The folder of the trained model."""
        return self.path / "model"

    @property
    def evaluations(self) -> dict[str, Suite]:
        """The evaluations of tasks in the folder by their name."""
        return {file.stem: self._suite(file) for file in sorted((self.path / "evaluations").glob("*.jsonl"))}

    def rollouts(self, step: int | None = None) -> Table:
        """Sampled answers with score, parts and advantage: of one step, or of all."""
        return Table(row for row in self._rollouts(step) if step is None or row.get("step") == step)

    def tail(self, since: tuple[Position, Position] | None = None) -> Tail:
        """The whole lines that were added after an earlier look; None is from the beginning."""
        before = since or (Position(), Position())
        metrics, rewritten, first = self._since("metrics.jsonl", before[0])
        events, _, second = self._since("events.jsonl", before[1])
        return Tail(metrics, events, rewritten, (first, second))

    def _lines(self, name: str) -> Table:
        return Table(row for _, row in numbered_jsonl(self.path / name))

    def _object(self, name: str, form: type) -> dict[str, Any]:
        found = read_object(self.path / name)
        return checked(found, form, self.path / name) if found else {}

    def _suite(self, file: Path) -> Suite:
        about = file.with_suffix(".json")
        meta = checked(read_object(about), SuiteFile, about)
        rows = Table(checked(row, TaskLine, where) for where, row in numbered_jsonl(file))
        return Suite(file.stem, meta.get("model"), meta.get("weights_hash"), meta.get("settings") or {}, rows)

    def _rollouts(self, step: int | None) -> Iterator[dict[str, Any]]:
        path = self.path / "rollouts.jsonl"
        if not path.is_file():
            return
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                begins = OF_A_STEP.match(line)
                other = step is not None and begins is not None and int(begins.group(1)) != step
                if line.endswith(b"\n") and not other:  # else torn by a kill, or of another step
                    yield parse_object(line, f"{path}:{number}")

    def _since(self, name: str, before: Position) -> tuple[Table, bool, Position]:
        path = self.path / name
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
