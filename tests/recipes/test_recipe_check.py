"""What is known to be wrong with a recipe, or with the files that a command names, before anything is trained."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from posttrain.cli.main import main
from posttrain.config import RunConfig
from posttrain.expressions import parse_call, parse_entry, written
from posttrain.recipes.check import read_recipe
from posttrain.recipes.load import checked_recipe, read_text
from posttrain.recipes.paths import placed
from posttrain.recipes.run import run_recipe
from posttrain.rewards.calls import build, run
from posttrain.rewards.check import RewardCheck
from posttrain.types import InputError, Message, Sample
from posttrain.workers.user_code import Failure
from tests.training_helpers import sft_rows, write_rows

FAULTY = """\
model: tiny-random
modle: x
evaluate: {data: tasks.jsonl, reward: [mth]}
stages:
  sft: {method: sft, data: rows.jsonl, learning_rat: 3, lr: 2}
  rl:
    method: rl
    parent: sft
    data: tasks.jsonl
    algorithm: grop
    reward: ["my.py:scor", "length(max_lenght=3)"]
  b: {method: stf, parent: rl}
  c: {method: sft, parent: b, data: rows.jsonl, num_generations: 3}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with files that recipes name, below the current directory."""
    found = tmp_path / "mine"
    found.mkdir()
    write_rows(found / "rows.jsonl", sft_rows(4))
    write_rows(found / "tasks.jsonl", [{"prompt": "a", "answer": "1"}, {"prompt": "b", "answer": "2"}])
    (found / "my.py").write_text("def score(response):\n    return len(response) % 2\n")
    monkeypatch.chdir(tmp_path)
    return found


def write(folder: Path, stages: dict[str, Any], **top: Any) -> str:
    file = folder / "r.yaml"
    file.write_text(yaml.safe_dump({"model": "tiny-random", **top, "stages": stages}, sort_keys=False))
    return str(file)


# -- all faults at once -----------------------------------------------------------------------------------------------


def test_every_fault_is_told_at_once_in_the_order_of_the_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "r.yaml").write_text(FAULTY)
    assert main(["run", "mine/r.yaml", "--plan"]) == 2
    first, *lines = capsys.readouterr().err.splitlines()
    assert first == "error: recipe mine/r.yaml has 9 faults:"
    wanted = (
        (2, "modle: unknown key; did you mean model?"),
        (3, "evaluate: unknown reward 'mth'; did you mean 'math'?"),
        (5, "stage sft: has no parent, the model it begins with; add parent: and one of start"),
        (5, "stage sft: learning_rat: unknown key; did you mean learning_rate?"),
        (5, "stage sft: lr: unknown key; did you mean learning_rate?"),
        (10, "stage rl: algorithm: must be 'reinforce', "),
        (11, "stage rl: reward mine/my.py:scor could not be loaded: "),
        (12, "stage b: method is 'stf'; did you mean sft? use one of sft, "),
        (13, "stage c: num_generations: unknown key"),
    )
    assert len(lines) == len(wanted)
    for line, (number, text) in zip(lines, wanted, strict=True):
        assert line.startswith(f"  line {number}: {text}")
    assert lines[5].endswith("not 'grop'; did you mean grpo?")


def test_faults_without_evaluate_and_files_that_are_no_recipes(folder: Path) -> None:
    stages = {"sft": {"method": "sft", "parent": "start", "data": "rows.jsonl"}, "rl": None, "more": 3}
    with pytest.raises(InputError, match=r"(?s)r\.yaml has 2 faults:.*stages\.rl: .*stages\.more: "):
        read_recipe(RunConfig(recipe=write(folder, stages)))
    for text, told in (
        ("base_model: x\nadapter: lora\n", "has no stages, and base_model, adapter as another trainer's files have"),
        ("model: tiny-random\nstages: [{method: sft}]\n", "stages is a mapping: the name of each stage"),
        ("- 3\n", "needs a mapping with model and stages"),
    ):
        (folder / "r.yaml").write_text(text)
        with pytest.raises(InputError, match=told):
            read_recipe(RunConfig(recipe="mine/r.yaml"))
    with pytest.raises(InputError, match=r"no such file; posttrain run quickstart runs the shipped recipe"):
        read_recipe(RunConfig(recipe="quickstart.yaml"))


def test_one_fault_of_an_override_or_a_size_names_its_place(folder: Path) -> None:
    stages = {"sft": {"method": "sft", "parent": "start", "data": "rows.jsonl"}}
    name = write(folder, stages, sizes={"small": {"sft.batch_siz": 2}, "large": {}})
    line = (folder / "r.yaml").read_text().splitlines().index("    sft.batch_siz: 2") + 1
    with pytest.raises(InputError, match=rf"r\.yaml, line {line}: stage sft: batch_siz: .*did you mean batch_size\?$"):
        read_recipe(RunConfig(recipe=name))
    with pytest.raises(InputError, match=r"r\.yaml, --set sft\.max_step=1: stage sft: max_step: unknown key"):
        read_recipe(RunConfig(recipe=name, size="large", set=("sft.max_step=1",)))
    with pytest.raises(InputError, match=r"no size 'larg'; did you mean large\? its sizes are small, large"):
        read_recipe(RunConfig(recipe=name, size="larg"))
    with pytest.raises(InputError, match=r"quickstrat: unknown; did you mean quickstart\? shipped are"):
        read_recipe(RunConfig(recipe="quickstrat"))


# -- rewards and environments of late stages --------------------------------------------------------------------------


def test_rewards_and_environments_are_loaded_before_anything_trains(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "torn.py").write_text("def f(response:\n")
    (folder / "asks.py").write_text("def f(response, level):\n    return 0\n")
    (folder / "rooms.py").write_text("class Rooms:\n    def reset(self, colour):\n        return 'x'\n")
    (folder / "rubric.yaml").write_text("criteria: 3\n")
    common = {"parent": "start", "data": "tasks.jsonl", "batch_size": 4, "group_size": 2}
    rl = {"method": "rl", **common}
    rewards = {
        "torn": "torn.py:f",
        "lost": "my.py:scores",
        "asks": "gate(format, asks.py:f)=0.5",
        "cases": "code",
        "use": 'learned(tiny-random, use="mode")',
        "gone": "learned(./nowhere)",
        "judged": 'judge(model="./nowhere", rubric="harmless")',
        "rubric": 'judge(model="m", url="http://x/v1", rubric="rubric.yaml")',
    }
    stages: dict[str, Any] = {name: {**rl, "reward": [reward]} for name, reward in rewards.items()}
    pairs = {"method": "sample", "parent": "start", "data": "tasks.jsonl", "write": "pairs", "reward": ["math"]}
    stages |= {
        "pairs": pairs,
        "rm": {"method": "reward-model", "parent": "start", "data": "pairs"},
        "comes": {**rl, "reward": ["learned({rm})", "math=0.1", "my.py:score"]},
        "env": {**rl, "env": "rooms.py:Rooms", "reward": ["math"]},
        "unpaid": {**rl, "env": "rooms.py:Room", "reward": ["math"]},
    }
    name = write(folder, stages)
    assert main(["run", name, "--out", "out"]) == 2
    told = capsys.readouterr().err
    for stage, text in (
        ("torn", "could not be loaded: SyntaxError: '(' was never closed"),
        ("lost", "my.py has no function 'scores'; did you mean 'score'? it has score"),
        ("asks", "asks for 'level', which is no column of all rows; the data's columns are: answer"),
        ("cases", "reward code needs a column 'cases' or"),
        ("use", "use is 'mode'; it must be one of mean, min"),
        ("gone", "reward learned(./nowhere): ./nowhere: no such folder"),
        ("judged", "./nowhere: no such folder"),
        ("rubric", "has no criteria"),
        ("env", "Rooms.reset asks for 'colour', which is no column"),
        ("unpaid", "has no class or function 'Room'; did you mean 'Rooms'? it has Rooms"),
    ):
        (line,) = [line for line in told.splitlines() if f" stage {stage}: " in line]
        assert text in line
    assert len(told.splitlines()) == 1 + len(rewards) + 2, told
    assert not Path("out").exists()


def test_a_reward_that_hangs_when_it_is_loaded_has_a_deadline(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text("import time\ntime.sleep(600)\n")
    with RewardCheck(seconds=2.0) as check, pytest.raises(InputError, match=r"slow\.py:f could not be loaded: timed"):
        check.check([f"{tmp_path}/slow.py:f"], None)


# -- paths ------------------------------------------------------------------------------------------------------------


def test_paths_are_relative_to_the_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a,b.jsonl", "docs.jsonl", "p.yaml", "env.py", "schema.json"):
        (folder / name).write_text("")
    (folder / "rm").mkdir()
    Path("here.jsonl").write_text("")
    Path("docs.jsonl").write_text("")
    stages: dict[str, Any] = {
        "sft": {
            "method": "sft",
            "parent": "start",
            "data": ["rows.jsonl*0.5,owner/name?split=test,a,b.jsonl", "answers*2"],
        },
        "rl": {
            "method": "rl",
            "parent": "sft",
            "data": "reasoning-gym:chain_sum?size=4",
            "eval_data": "here.jsonl",
            "ptx_data": "nowhere.jsonl",
            "env": "search(docs.jsonl, env.py:Ranks, top=3)",
            "reward": [
                "my.py:score=0.2",
                "gate(format, clip(my.py:score, low=0)) as q=0:1,5:0.5",
                "rm=2",
                "learned(rm)",
                'json(schema="schema.json")',
                'judge(model="rm", rubric="p.yaml", cache="rm")',
                "math",
                "package.module:f",
                "{rm}",
            ],
        },
        "answers": {"method": "revise", "model": "rm", "data": "/abs/t.jsonl", "principles": "p.yaml"},
    }
    held_out = {"data": "docs.jsonl", "reward": ["my.py:score"]}
    name = write(folder, stages, evaluate=held_out)
    text = read_text("mine/r.yaml", ("evaluate.data=docs.jsonl",))
    recipe = placed(checked_recipe(text.raw), text)
    assert recipe.evaluate is not None
    assert (recipe.evaluate.data, recipe.evaluate.reward) == ("docs.jsonl", ("mine/my.py:score",))
    assert recipe.stages["sft"]["data"] == [
        "mine/rows.jsonl*0.5,owner/name?split=test,mine/a,b.jsonl",
        "answers*2",
    ]
    rl = recipe.stages["rl"]
    assert (rl["data"], rl["eval_data"], rl["ptx_data"]) == (
        "reasoning-gym:chain_sum?size=4",
        "here.jsonl",
        "nowhere.jsonl",
    )
    assert rl["env"] == "search(mine/docs.jsonl, mine/env.py:Ranks, top=3)"
    assert rl["reward"] == [
        "mine/my.py:score=0.2",
        "gate(format, clip(mine/my.py:score, low=0)) as q=0:1,5:0.5",
        "mine/rm=2",
        "learned(mine/rm)",
        'json(schema="mine/schema.json")',
        'judge(model="mine/rm", rubric="mine/p.yaml", cache="rm")',
        "math",
        "package.module:f",
        "{rm}",
    ]
    answers = recipe.stages["answers"]
    assert (answers["model"], answers["principles"], answers["data"]) == ("mine/rm", "mine/p.yaml", "/abs/t.jsonl")
    warned = capsys.readouterr().err
    assert warned.count("warning") == 1 and "taken from the current directory: here.jsonl. Paths" in warned
    assert read_text(name).raw["stages"] == stages  # what is written down stays as it is


def test_a_path_may_begin_with_the_home_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder))
    stages = {"sft": {"method": "rl", "parent": "start", "data": "~/tasks.jsonl*2", "reward": 'regex(pattern="~/no")'}}
    text = read_text(write(folder, stages))
    stage = placed(checked_recipe(text.raw), text).stages["sft"]
    assert (stage["data"], stage["reward"]) == (f"{folder}/tasks.jsonl*2", ('regex(pattern="~/no")',))


@pytest.mark.parametrize(
    "text",
    ['"a b.py/x y" as r', "my.py:f", 'gate(format, "a (1)", low=0.5, words=["é"], on=true) as q', "learned({rm})"],
)
def test_an_expression_is_written_as_it_is_read(text: str) -> None:
    (expression, _), (again, _) = parse_entry(text), parse_entry(written(parse_entry(text)[0]))
    assert [(p.target, p.options, p.renamed) for p in expression.walk()] == [
        (p.target, p.options, p.renamed) for p in again.walk()
    ]


# -- without evaluate -------------------------------------------------------------------------------------------------


def test_stages_are_trained_without_an_evaluation_and_from_any_directory(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stages = {"sft": {"method": "sft", "parent": "start", "data": "rows.jsonl", "max_steps": 1, "batch_size": 2}}
    write(folder, stages)
    run_recipe(RunConfig(recipe="mine/r.yaml", out=Path("out")))
    shown = " ".join(capsys.readouterr().out.split())
    assert "nothing was compared: the recipe has no evaluate. Add `evaluate: {data: TASKS" in shown
    assert (folder.parent / "out" / "report.html").exists() and not (folder.parent / "out" / "start").exists()
    assert yaml.safe_load(Path("out/sft/config.yaml").read_text())["data"] == "mine/rows.jsonl"
    Path("out/sft/lineage.json").unlink()
    monkeypatch.chdir(folder)
    run_recipe(RunConfig(recipe="r.yaml", out=Path("../out")))
    assert Path("../out/sft/lineage.json").exists()
    assert yaml.safe_load(Path("../out/sft/config.yaml").read_text())["data"] == "rows.jsonl"
    trained, _ = Path("../out/sft/metrics.jsonl").stat().st_mtime_ns, capsys.readouterr()
    held_out = {"data": "tasks.jsonl", "reward": "math", "samples": 0, "max_new_tokens": 2, "retention": False}
    write(folder, stages, evaluate=held_out)
    run_recipe(RunConfig(recipe="r.yaml", out=Path("../out")))
    assert set(json.loads(Path("../out/compare.json").read_text())["stages"]) == {"start", "sft"}
    assert "nothing was compared" not in capsys.readouterr().out
    assert Path("../out/sft/metrics.jsonl").stat().st_mtime_ns == trained  # and was not trained again
    write_rows(Path("rows.jsonl"), sft_rows(3))
    Path("../out/sft/lineage.json").unlink()
    with pytest.raises(InputError, match=r"rows\.jsonl has other content"):
        run_recipe(RunConfig(recipe="r.yaml", out=Path("../out")))


# -- single commands --------------------------------------------------------------------------------------------------

COMMANDS = [
    ("sft --model nowhere --data rows.jsonl --out o", "--model nowhere: no such folder; give a model folder"),
    ("sft --model tiny-random --data nope.jsonl --out o", "no such file: nope.jsonl. Give a path ending in"),
    ("sft --model tiny-random --data rows.jsonl*0.5,no.csv --out o", "no such file: no.csv. Give a path"),
    ("sft --model tiny-random --data rows.jsonl --out rows.jsonl", "--out rows.jsonl: is a file; give a folder"),
    ("sft --model tiny-random --data rows.jsonl --out rows.jsonl/o", "cannot be written (Not a directory); choose"),
    ("sft --model tiny-random --data rows.jsonl --out .", "--out .: not empty and not a run; choose another folder"),
    ("dpo --model tiny-random --data rows.jsonl --eval-data no.tsv --eval-every 1 --out o", "no such file: no.tsv"),
    ("rl --model tiny-random --data tasks.jsonl --out o --reward no.py:f", "FileNotFoundError: there is no file no.py"),
    ("rl --model tiny-random --data tasks.jsonl --out o --reward mth", "unknown reward 'mth'; did you mean 'math'?"),
    ("rl --model tiny-random --data tasks.jsonl --out o --reward learned(no)", "reward learned(no): no: no such fold"),
    ("rl --model tiny-random --data tasks.jsonl --out o --env calculatr", "'calculatr'; did you mean 'calculator'? b"),
    ("rl --model tiny-random --data tasks.jsonl --out o --env no.py:E", "environment no.py:E cannot be used: FileNot"),
    ("rl --model tiny-random --data t --out o --reward math --algorithm grop", "'grop'; did you mean grpo?"),
    ("distill --model tiny-random --teacher ./t --data tasks.jsonl --out o", "--teacher ./t: no such folder; give"),
    ("revise --model tiny-random --data tasks.jsonl --out o --principles harmles", "did you mean 'harmless'? shipp"),
    ("average ./a ./b --out o", "error: ./a: no such folder"),
    ("eval ./no --data tasks.jsonl --reward math", "error: ./no: no such folder"),
    ("eval tiny-random --data no.jsonl --reward math", "no such file: no.jsonl"),
    ("chat ./no", "error: ./no: no such folder"),
    ("sft --model tiny-random --data rows.jsonl --out o --chat-template no", "--chat-template no: no such file; give"),
    ("eval tiny-random --data tasks.jsonl --reward math --chat-template no", "--chat-template no: no such file"),
    ("rl --model tiny-random --data tasks.jsonl --out o --replay no.jsonl", "--replay no.jsonl: no such file; give"),
    ("rl --model tiny-random --data tasks.jsonl --out o --reward my.py", "is a file; name the function in it: my.py:F"),
    ("rl --model tiny-random --data tasks.jsonl --out o --env my.py", "is a file; name the class in it: my.py:CLASS"),
    ("score --data rows.jsonl --reward no.py:f", "FileNotFoundError: there is no file no.py"),
    ("score --data no.jsonl --reward math", "no such file: no.jsonl"),
    ("compare ./no --out o", "error: no: no such folder; give run folders"),
]
CHILD = """\
import sys
from posttrain.cli.main import main
for line in sys.stdin.read().splitlines():
    print(main(line.split()), "torch" in sys.modules, "transformers" in sys.modules)
"""


def test_what_a_command_names_is_looked_for_before_torch_is_imported(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHILD],
        input="\n".join(words for words, _ in COMMANDS),
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["2 False False"] * len(COMMANDS)
    told = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    for line, (words, message) in zip(told, COMMANDS, strict=True):
        assert message in line, words
    assert not (folder / "o").exists()


# -- refusals of what is built in -------------------------------------------------------------------------------------


def test_the_place_of_a_failure_is_that_of_the_users_own_code(tmp_path: Path) -> None:
    def failure(text: str) -> Failure:
        reward = build(parse_call(text, "reward"))
        (result,) = run(reward.score([Sample("p", (Message("assistant", "{}"),), (), {})], {}))
        assert result.error is not None
        return result.error

    def reason(text: str) -> str:
        return failure(text).reason

    assert reason("length") == "ValueError: length needs min_length, max_length or target_length"
    assert failure("length").traceback == reason("length")
    assert reason('regex(pattern="[")') == "PatternError: unterminated character set at position 0" or (
        reason('regex(pattern="[")') == "error: unterminated character set at position 0"
    )
    assert " at " not in reason('json(schema={"type": 3})')
    (tmp_path / "own.py").write_text("def f(response):\n    return 1 / 0\n")
    assert reason(f"clip({tmp_path}/own.py:f)") == "ZeroDivisionError: division by zero at own.py:2"
