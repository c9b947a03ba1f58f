"""The run folder: whole files, whole lines, one writer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError

from posttrain.runs.files import read_jsonl, write_atomic
from posttrain.runs.log import RunLog, is_finished_run
from posttrain.types import InputError

CONFIG: dict[str, Any] = {"model": "m", "seed": 1, "out": "x", "resume": False}


@pytest.fixture
def log(tmp_path: Path) -> Iterator[RunLog]:
    with RunLog(tmp_path / "run", CONFIG, resume=False) as opened:
        yield opened


def test_lines_are_appended_and_read_back(log: RunLog) -> None:
    log.metrics({"step": 1, "loss": None})
    log.metrics({"step": 2, "loss": 0.1 + 0.2})
    log.event("stopped", reason="naïve\u2028line")
    assert read_jsonl(log.out / "metrics.jsonl") == [
        {"step": 1, "loss": None},
        {"step": 2, "loss": 0.30000000000000004},
    ]
    assert read_jsonl(log.out / "events.jsonl") == [{"event": "stopped", "reason": "naïve\u2028line"}]
    assert read_jsonl(log.out / "nothing.jsonl") == []


def test_a_number_that_json_has_not_is_refused_whole(log: RunLog) -> None:
    log.metrics({"step": 1})
    with pytest.raises(ValueError, match="JSON"):
        log.rollouts([{"step": 1}, {"step": 1, "score": float("nan")}])
    assert not (log.out / "rollouts.jsonl").exists()
    assert read_jsonl(log.out / "metrics.jsonl") == [{"step": 1}]


@pytest.mark.parametrize("torn", [b'{"step": 3', b'{"step": 3, "text": "caf\xc3', b"x"])
def test_a_torn_last_line_is_dropped(tmp_path: Path, torn: bytes) -> None:
    out = tmp_path / "run"
    with RunLog(out, CONFIG, resume=False) as first:
        first.metrics({"step": 1})
        first.metrics({"step": 2})
    with (out / "metrics.jsonl").open("ab") as stream:
        stream.write(torn)
    assert [row["step"] for row in read_jsonl(out / "metrics.jsonl")] == [1, 2]
    with RunLog(out, CONFIG, resume=True) as second:
        second.metrics({"step": 3})
    assert (out / "metrics.jsonl").read_text() == '{"step": 1}\n{"step": 2}\n{"step": 3}\n'


def test_keep_lines_cuts_back_and_writing_goes_on(log: RunLog) -> None:
    for step in range(1, 6):
        log.metrics({"step": step})
    log.keep_lines("metrics.jsonl", lambda row: row["step"] <= 3)
    log.metrics({"step": 4, "again": True})
    assert [row["step"] for row in read_jsonl(log.out / "metrics.jsonl")] == [1, 2, 3, 4]
    assert read_jsonl(log.out / "metrics.jsonl")[-1] == {"step": 4, "again": True}
    log.keep_lines("none.jsonl", lambda row: False)
    assert not (log.out / "none.jsonl").exists()


def test_a_folder_appears_whole_or_not_at_all(log: RunLog) -> None:
    log.write_folder("model", lambda folder: (folder / "weights").write_text("old") and None)

    def fails(folder: Path) -> None:
        (folder / "weights").write_text("half")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        log.write_folder("model", fails)
    assert (log.out / "model" / "weights").read_text() == "old"
    log.write_folder("model", lambda folder: (folder / "other").write_text("new") and None)
    assert [p.name for p in (log.out / "model").iterdir()] == ["other"]
    assert not list(log.out.rglob("*.partial"))


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SafetensorError("I/O error: disk full")])
def test_what_the_disk_refuses_is_told_with_the_remedy(log: RunLog, error: Exception) -> None:
    def full(folder: Path) -> None:
        raise error

    with pytest.raises(
        InputError, match=r"run: cannot write model \((No space left|I/O error).*\); make room .* --resume"
    ):
        log.write_folder("model", full)
    assert not (log.out / "model").exists()


def test_the_last_checkpoints_are_kept(log: RunLog) -> None:
    for step in (5, 10, 15, 100):
        log.checkpoint(step, 2, lambda folder: (folder / "state").write_text("s") and None)
    assert [p.name for p in log.checkpoints()] == ["step-00000015", "step-00000100"]
    (log.out / "checkpoints" / ".step-00000105.partial").mkdir()  # left by a kill
    assert [p.name for p in log.checkpoints()] == ["step-00000015", "step-00000100"]


def test_write_atomic_leaves_the_old_file_where_it_fails(tmp_path: Path) -> None:
    file = tmp_path / "f"
    write_atomic(file, "old")
    with pytest.raises(TypeError):
        write_atomic(file, 1)  # type: ignore[arg-type]
    assert file.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_half_a_surrogate_pair_does_not_end_a_run(log: RunLog) -> None:
    """A model or a reward may make one; it has no UTF-8."""
    log.event("unscored", reason="a \ud800 b")
    assert read_jsonl(log.out / "events.jsonl")[-1]["reason"] == "a ? b"


def test_one_process_at_a_time(log: RunLog) -> None:
    with pytest.raises(InputError, match="another process is writing this run; wait"):
        RunLog(log.out, CONFIG, resume=True)
    log.close()
    RunLog(log.out, CONFIG, resume=True).close()


def test_what_may_change_between_start_and_resume(tmp_path: Path) -> None:
    out = tmp_path / "run"
    RunLog(out, CONFIG, resume=False).close()
    assert is_finished_run(out, {**CONFIG, "resume": True, "out": "elsewhere"}, resume=True) is False
    with pytest.raises(InputError, match="--resume: seed was 1 in .* and is 2 now"):
        is_finished_run(out, {**CONFIG, "seed": 2}, resume=True)
    with pytest.raises(InputError, match="batch-size was None .* and is 4 now"):
        is_finished_run(out, {**CONFIG, "batch_size": 4}, resume=True)
    with pytest.raises(InputError, match="already holds a run; add --resume"):
        is_finished_run(out, CONFIG, resume=False)
    (out / "lineage.json").write_text(json.dumps({}))
    assert is_finished_run(out, CONFIG, resume=True) is True


@pytest.mark.parametrize("text", ["[1, 2]", "", "a: [", "\x00"])
def test_a_configuration_that_is_none_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(InputError, match=r"config\.yaml: damaged, it is not a run's configuration"):
        RunLog(tmp_path, CONFIG, resume=True)
