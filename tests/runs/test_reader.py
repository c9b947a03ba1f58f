"""`Run`, the reader of run folders, and the tables it shows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from posttrain.config import SftConfig
from posttrain.runs.log import RunLog
from posttrain.runs.reader import Run
from posttrain.runs.table import Table
from posttrain.types import InputError


@pytest.fixture
def log(tmp_path: Path):
    config = SftConfig(model="tiny-random", data="rows.jsonl", out=tmp_path / "run")
    with RunLog(config.out, config.model_dump(mode="json"), resume=False) as log:
        yield log


def test_an_unfinished_run_shows_what_it_has(log: RunLog):
    run = Run(log.out)
    assert (run.metrics, run.events, run.cost, run.lineage, run.evaluations, run.rollouts()) == (
        [],
        [],
        None,
        None,
        {},
        [],
    )
    log.metrics({"step": 1, "loss": 2.5})
    log.event("note", reason="why")
    assert run.metrics == [{"step": 1, "loss": 2.5}]
    assert run.events == [{"event": "note", "reason": "why"}]
    assert (run.name, run.method, run.config["batch_size"]) == ("run", "sft", 16)
    assert not run.is_finished


def test_a_finished_run_says_what_it_was_made_from(log: RunLog):
    log.write_json("cost.json", {"steps": 1, "seconds": 0.5, "tokens": 3, "flops": 2.0})
    log.write_json("lineage.json", {"stage": "rl", "parents": ["runs/sft"]})
    run = Run(log.out)
    assert run.is_finished and run.method == "rl"
    assert run.cost is not None and run.cost.flops == 2.0
    assert run.lineage is not None and run.lineage.parents == ["runs/sft"]


def test_rollouts_are_those_of_the_step(log: RunLog):
    log.rollouts([{"step": step, "task": task, "segments": ()} for step in (1, 10, 2) for task in "ab"])
    with (log.out / "rollouts.jsonl").open("a") as file:
        file.write('{"task": "c", "step": 10, "segments": []}\n{"step": 10, "task": "torn by a ki')
    assert [row["task"] for row in Run(log.out).rollouts(step=10)] == ["a", "b", "c"]
    assert len(Run(log.out).rollouts()) == 7


def test_a_line_that_is_no_rollout_is_named(log: RunLog):
    (log.out / "rollouts.jsonl").write_text('{"step": 1, "segments": [{"file": "../other.npz"}]}\n')
    with pytest.raises(InputError, match=r"rollouts\.jsonl:1: damaged"):
        Run(log.out).rollouts()


def test_the_tail_has_whole_lines_once(log: RunLog):
    run = Run(log.out)
    log.metrics({"step": 1})
    first = run.tail()
    assert first.metrics == [{"step": 1}] and not first.rewritten
    log.metrics({"step": 2})
    with (log.out / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3')
    second = run.tail(first.position)
    assert second.metrics == [{"step": 2}] and second.events == []
    with (log.out / "metrics.jsonl").open("a") as file:
        file.write("}\n")
    assert run.tail(second.position).metrics == [{"step": 3}]


def test_the_tail_begins_anew_where_a_resume_cut_the_metrics(log: RunLog):
    for step in (1, 2, 3):
        log.metrics({"step": step})
    before = Run(log.out).tail().position
    log.keep_lines("metrics.jsonl", lambda row: row["step"] < 2)
    for step in (2, 3, 4):  # longer than before by the next look
        log.metrics({"step": step})
    tail = Run(log.out).tail(before)
    assert tail.rewritten and tail.metrics.column("step") == [1, 2, 3, 4]


def test_evaluations_are_read_with_their_values(log: RunLog):
    folder = log.out / "evaluations"
    folder.mkdir()
    rows = [{"task": t, "prompt": t, "values": {"accuracy": v}, "samples": []} for t, v in (("a", 1.0), ("b", None))]
    (folder / "held_out.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "held_out.json").write_text(
        '{"model": "runs/rl", "weights_hash": "00", "settings": {"reward": ["math"]}}'
    )
    suite = Run(log.out).evaluations["held_out"]
    assert suite.values == {"accuracy": {("a", "a", 0): 1.0, ("b", "b", 0): None}}
    assert (suite.model, suite.settings) == ("runs/rl", {"reward": ["math"]})


def test_a_missing_folder_and_a_damaged_file_are_named(log: RunLog):
    with pytest.raises(InputError, match="runs/none: no such folder"):
        Run(Path("runs/none"))
    (log.out / "metrics.jsonl").write_text('{"step": 1}\nno json\n')
    with pytest.raises(InputError, match=r"metrics\.jsonl:2: damaged"):
        _ = Run(log.out).metrics


def test_reading_needs_no_torch():
    code = "import sys, posttrain.runs.reader; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_table_prints_rounded_with_the_keys_of_mappings_and_without_lists():
    table = Table([{"step": 1, "loss": 1 / 3, "parts": {"a": 1}, "ids": [1]}, {"step": 2, "note": "a|b"}])
    assert str(table) == "step  loss    parts/a  note\n1     0.3333  1\n2                      a|b"
    assert table._repr_markdown_().splitlines()[-1] == "| 2 |  |  | a\\|b |"
    assert "<td>0.3333</td>" in table._repr_html_() and "ids" not in table._repr_html_()
    assert table.column("loss") == [1 / 3, None]
    with pytest.raises(KeyError, match="step, loss"):
        table.column("lost")


def test_a_long_table_shows_its_ends_and_html_is_escaped():
    table = Table([{"step": n, "text": "<b>"} for n in range(100)])
    assert len(str(table).splitlines()) == 22
    assert "<b>" not in table._repr_html_()
    assert str(Table()) == "no rows"


def test_a_wide_table_names_the_columns_that_it_does_not_show():
    wide = {f"c{n}": n for n in range(11)}
    assert str(Table([wide])).splitlines()[-1] == "and 2 more columns: c9, c10"
    del wide["c10"]
    assert str(Table([wide])).splitlines()[-1] == "and 1 more column: c9"
