"""Steps of a few tasks each: some are taken from the record, others are made, and a damaged record is refused."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from pathlib import Path

import pytest

from posttrain.runs.files import read_recorded
from posttrain.runs.log import RunLog
from posttrain.train.generate.loop import Generation, Step
from posttrain.types import InputError, Task
from tests.training_helpers import events, metrics, read_rows


class Doubled(Generation[int]):
    """Two items a task: its place, and twice that."""

    file = "revisions.jsonl"

    def recorded(self, steps: Container[int]) -> Iterator[tuple[int, int]]:
        self.log.keep_lines(self.file, lambda row: row["step"] in steps)
        for row in read_recorded(self.log.out / self.file, lambda row: row["item"]):
            yield row["step"], row["item"]

    def record(self, n: int, items: Sequence[int]) -> None:
        self.log.revisions({"step": n, "item": item} for item in items)

    def make(self, n: int, places: range) -> Step[int]:
        return Step([x for i in places for x in (i, 2 * i)], {"places": 1.0}, len(places), 10.0 * n)


def run(out: Path, resume: bool, tasks: int = 5) -> list[tuple[int, list[int], bool]]:
    with RunLog(out, {}, resume=resume) as log:
        generation = Doubled(None, [Task(str(i), "q") for i in range(tasks)], log, 2, 2)  # type: ignore[arg-type]
        return [(n, list(items), new) for n, items, new in generation.steps()]


def test_recorded_steps_are_not_made_again(tmp_path: Path) -> None:
    """Five tasks in steps of two. After a kill in the second step, whose line of metrics is torn, it is made again."""
    whole = [(1, [0, 0, 1, 2], True), (2, [2, 4, 3, 6], True), (3, [4, 8], True)]
    assert run(tmp_path / "run", resume=False) == whole
    rows = metrics(tmp_path / "run")
    assert [(r["step"], r["tokens"], r["flops"]) for r in rows] == [(1, 2, 10), (2, 2, 30), (3, 1, 60)]
    file = tmp_path / "run" / "metrics.jsonl"
    first, *_ = file.read_text().splitlines()
    file.write_text(first + '\n{"step": 2, "tok')
    assert run(tmp_path / "run", resume=True) == [(1, [0, 0, 1, 2], False), *whole[1:]]
    assert [r["flops"] for r in metrics(tmp_path / "run")] == [10, 30, 60]
    assert len(read_rows(tmp_path / "run" / "revisions.jsonl")) == 10
    assert [e["resumed_from"] for e in events(tmp_path / "run", "resumed_from")] == [1]


def test_a_record_that_lacks_items_is_refused(tmp_path: Path) -> None:
    run(tmp_path / "run", resume=False)
    file = tmp_path / "run" / "revisions.jsonl"
    file.write_text("\n".join(file.read_text().splitlines()[1:]) + "\n")
    with pytest.raises(InputError, match=r"revisions\.jsonl: damaged, it holds 3 of the 4 answers of step 1"):
        run(tmp_path / "run", resume=True)
