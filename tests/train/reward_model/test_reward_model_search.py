"""The search for answers that fool a reward model, and the rounds of training against them."""

from __future__ import annotations

import datetime
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from posttrain.cli.main import main
from posttrain.config import AdversarialConfig
from posttrain.train.reward_model.adversarial import FOUND, train_adversarial
from posttrain.train.reward_model.search import calibrate, disagreement, hill_climb, text_edits
from posttrain.types import InputError
from tests.train.reward_model.test_reward_model import plain_scores, world
from tests.training_helpers import events, metrics, read_rows, write_rows

GOLD = "def gold(response):\n    return float(response.count('e') - response.count('a'))\n"


def test_disagreement_is_one_member_against_the_mean_of_the_others() -> None:
    """max_i (z_i − mean of the others), by hand: 3 − (0 + 0)/2, and where all agree 0."""
    value, member = disagreement(np.array([[0.0, 3.0, 0.0], [1.0, 1.0, 1.0], [-4.0, 2.0, 3.0]]))
    assert value.tolist() == pytest.approx([3.0, 0.0, 4.0]) and member.tolist() == [1, 0, 2]
    z = np.random.default_rng(0).normal(size=(20, 5))
    plain = [max(row[i] - np.delete(row, i).mean() for i in range(5)) for row in z]
    assert disagreement(z)[0].tolist() == pytest.approx(plain)


def test_what_fools_is_disputed_and_above_the_accepted_answer() -> None:
    """Two members, ordinary scores ±1 and, on another scale, 10 ± 10: z as they are drawn. Of ordinary answers the
    most disputed has 2, in either direction."""
    ordinary = np.array([[1.0, 20.0], [-1.0, 0.0], [1.0, 0.0], [-1.0, 20.0]])
    found = calibrate(ordinary, 1.0)
    assert (found.mean.tolist(), found.deviation.tolist(), found.threshold) == (
        [0.0, 10.0],
        [1.0, 10.0],
        2.0,
    )
    accepted = np.array([[0.5, 15.0]] * 5)
    scores = np.array([[3.0, 0.0], [0.4, -40.0], [3.0, 40.0], [0.0, 50.0], [np.nan, np.nan]])
    # disputed by 4 and ahead by 2.5; disputed but behind by 0.1; no dispute; by member 2: 4 and 3.5; too long
    assert found.is_adversarial(scores, accepted).tolist() == [True, False, False, True, False]
    threat = found.attack_score(scores, accepted)
    assert threat.tolist() == pytest.approx([4.0, 5.4 - 0.1, 0.0, 4.0, -np.inf])
    with pytest.raises(ValueError, match="two members"):
        calibrate(ordinary[:, :1], 0.9)


def test_climbing_goes_up_and_stays_where_nothing_is_better() -> None:
    """Each start by itself to the nearest multiple of ten from below, two steps at most."""
    asked = []

    def worth(candidates: Any) -> list[np.ndarray]:
        asked.append([list(of) for of in candidates])
        return [np.array([float(x % 10) for x in of]) for of in candidates]

    assert hill_climb([4, 8, 19], lambda x: [x - 1, x + 1], worth, 2) == [6, 9, 19]
    assert asked[0] == [[4], [8], [19]] and asked[1] == [[3, 5], [7, 9], [18, 20]]
    assert hill_climb([], lambda x: [x], worth, 2) == []


def test_edits_are_small() -> None:
    rng = np.random.default_rng(0)
    found = text_edits("one two three", ["four"], 200, rng)
    assert "one two" in found and "one one two three" in found and "two one three" in found
    assert "one two four" in found and "one four two three" in found and "one two three two three" in found
    assert len(found) == len(set(found)) and "one two three" not in found
    assert all(abs(len(text.split()) - 3) <= 2 for text in found)
    assert text_edits("", [], 5, rng) == []


def settings(tmp_path: Path, rows: list[dict[str, Any]], **changes: Any) -> AdversarialConfig:
    (tmp_path / "gold.py").write_text(GOLD)
    given = {
        "model": "tiny-random",
        "data": str(write_rows(tmp_path / "pairs.jsonl", rows)),
        "eval_data": str(write_rows(tmp_path / "held-out.jsonl", world(6, seed=1))),
        "eval_every": 100,
        "gold": f"{tmp_path}/gold.py:gold",
        "out": tmp_path / "run",
        "batch_size": 8,
        "learning_rate": 1e-3,
        "members": 3,
        "rounds": 1,
        "prompts": 10,
        "samples": 4,
        "edit_steps": 3,
        "edit_tries": 4,
        "quantile": 0.7,
        "max_new_tokens": 6,
    }
    return AdversarialConfig(**{**given, **changes})


def snapshot(run: Path) -> dict[str, bytes]:
    clocks = ("metrics.jsonl", "cost.json", "events.jsonl", ".lock")
    return {
        str(p.relative_to(run)): p.read_bytes() for p in sorted(run.rglob("*")) if p.is_file() and p.name not in clocks
    }


def test_a_round_adds_what_fools_the_model_and_says_where_it_is_from(tmp_path: Path) -> None:
    rows = [row if i % 4 else {**row, "probability": 0.9} for i, row in enumerate(world(40, seed=0))]
    config = settings(tmp_path, rows)
    train_adversarial(config)
    written = read_rows(config.out / "pairs-1.jsonl")
    assert written[:40] == rows
    added = written[40:]
    assert added and {row[FOUND]["by"] for row in added} <= {"policy", "edit"} and len(added) <= 20
    (event,) = events(config.out, "found")
    assert (event["pairs"], event["of_prompts"]) == (len(added), 10)
    sources = {f"{config.data}:{i}": row for i, row in enumerate(rows, start=1)}
    for row in added:
        found, source = row[FOUND], sources[row[FOUND]["of"]]
        assert (row["prompt"], row["chosen"]) == (source["prompt"], source["chosen"])
        assert row["rejected"] not in (source["chosen"], "") and found["round"] == 1
    for side, key in (("rejected", "scores"), ("chosen", "chosen_scores")):
        told = [float(np.mean(row[FOUND][key])) for row in added[:4]]
        assert told == pytest.approx(plain_scores(config.out / "round-0" / "model", added[:4], side), abs=1e-3)

    report = json.loads((config.out / "adversarial.json").read_text())
    assert [r["round"] for r in report["rounds"]] == [0, 1] and sum(report["rounds"][1]["added"].values()) == len(added)
    better, worse = (
        np.array(plain_scores(config.out / "round-1" / "model", added, side)) for side in ("chosen", "rejected")
    )
    assert report["rounds"][1]["ranked_above_accepted"] == pytest.approx(float((worse > better).mean()))
    assert report["gold"]["n"] == 4 and len(report["gold"]["rounds"]) == 2
    assert report["gold"]["best"]["value"] >= max(r["value"] for r in report["gold"]["rounds"])
    same = "model/model.safetensors"
    assert (config.out / same).read_bytes() == (config.out / "round-1" / same).read_bytes()

    before = snapshot(config.out)
    again = config.model_copy(update={"resume": True})
    train_adversarial(again)
    assert snapshot(config.out) == before
    for name in ("lineage.json", "adversarial.json", "round-1/lineage.json"):  # killed after the search
        (config.out / name).unlink()
    shutil.rmtree(config.out / "model")
    train_adversarial(again)
    assert snapshot(config.out) == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--members 1", ["--members must be at least 2"]),
        ("--gold math", ["--gold needs --eval-data"]),
        ("--policy no/such-model", ["no/such-model"]),
        ("--max-new-tokens 5000", ["--max-new-tokens"]),
        ("--length-head", ["members 1"]),
        ("--gold no_such_reward --eval-data {data} --eval-every 5", ["no_such_reward"]),
        ("--eval-data nowhere.jsonl --eval-every 5", ["no such file: nowhere.jsonl"]),
        ("--max-length 12", ["pairs.jsonl:1", "--max-length"]),
    ],
)
def test_bad_input_is_told_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: str, words: list[str]
) -> None:
    data = write_rows(tmp_path / "pairs.jsonl", world(8, seed=0))
    out = tmp_path / "out"
    assert main(f"adversarial --model tiny-random --data {data} --out {out} {options.format(data=data)}".split()) == 2
    message = capsys.readouterr().err
    assert all(word in message for word in words), message
    assert not out.exists()


def test_rows_with_tools_alone_cannot_be_searched(tmp_path: Path) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    rows = [
        {
            "prompt": [{"role": "user", "content": "q"}],
            "chosen": [{"role": "assistant", "content": "a"}],
            "rejected": [{"role": "assistant", "content": "b"}],
            "tools": [tool],
        }
    ]
    with pytest.raises(InputError, match="only plain answers"):
        train_adversarial(settings(tmp_path, rows))


def test_edits_keep_lines() -> None:
    """An edited answer of several lines has as many as before, but for the line whose words were said again."""
    text = "one two\n\nthree four\n- five"
    for edited in text_edits(text, ["six"], 100, np.random.default_rng(1)):
        assert "\n" in edited and len(edited.split()) >= 3
    assert text_edits("a", [], 50, np.random.default_rng(1)) == ["a a"]


def test_odd_data_is_searched_and_only_what_was_added_is_counted(tmp_path: Path) -> None:
    """Rows of a Parquet file with a column that has the name of ours, a date, and a call in the prompt."""
    call = {"type": "function", "function": {"name": "f", "arguments": "{}"}}
    asked = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "3"},
    ]
    rows: list[dict[str, Any]] = [
        {
            "prompt": asked,
            "chosen": [{"role": "assistant", "content": row["chosen"]}],
            "rejected": [{"role": "assistant", "content": row["rejected"]}],
            "found": True,
            "created": datetime.datetime(2024, 5, 6),
        }
        for row in world(12, seed=0)
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows.parquet")
    config = settings(tmp_path, [], data=str(tmp_path / "rows.parquet"), prompts=4, edit_steps=1, quantile=0.0)
    train_adversarial(config)
    written = read_rows(config.out / "pairs-1.jsonl")
    added = written[12:]
    assert added and all(row[FOUND] is True and row["created"] == "2024-05-06 00:00:00" for row in written[:12])
    report = json.loads((config.out / "adversarial.json").read_text())
    assert [sum(r["added"].values()) for r in report["rounds"]] == [0, len(added)]


def test_a_round_that_finds_nothing_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Accepted answers that training cuts are not searched. Both rounds together have the budget."""
    rows = [{"prompt": f"Say {i}", "chosen": "apple river", "rejected": "stone cloud"} for i in range(8)]
    held_out = str(write_rows(tmp_path / "held_out.jsonl", rows[:2]))
    config = settings(tmp_path, rows, eval_data=held_out, gold=None, max_length=30, max_flops=6e9)
    train_adversarial(config)
    (event,) = events(config.out, "found")
    assert (event["pairs"], event["of_prompts"]) == (0, 0)
    assert "nothing was found that fools the model" in capsys.readouterr().err
    assert read_rows(config.out / "pairs-1.jsonl") == rows
    for k in range(2):
        spent = [row["flops"] for row in metrics(config.out / f"round-{k}")]
        assert spent[-1] >= 3e9 and all(flops < 3e9 for flops in spent[:-1])
    report = json.loads((config.out / "adversarial.json").read_text())
    assert report["rounds"][1]["ranked_above_accepted"] is None and report["gold"] is None
