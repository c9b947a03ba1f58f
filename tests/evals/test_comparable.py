"""Which evaluations may be subtracted, and what is said and shown of those that may not."""

from __future__ import annotations

import json
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from posttrain.cli.main import _compare as compare_runs
from posttrain.cli.main import main
from posttrain.config import CompareConfig, EvalConfig
from posttrain.evals.compare import compare
from posttrain.evals.run import run_eval
from posttrain.evals.settings import reward_differences, task_settings, tasks_hash
from posttrain.report.html import write_report
from posttrain.rewards.check import reward_contents
from posttrain.rewards.scorer import Scorer
from posttrain.runs.comparison import Comparison
from posttrain.runs.records import Evaluation, is_graded
from posttrain.runs.table import Table
from posttrain.types import InputError, Message, Sampling, Task
from posttrain.wording import format_number
from tests.training_helpers import write_rows

QUESTIONS = [{"prompt": f"Name a thing of kind {i}", "answer": str(i)} for i in range(3)]
LENGTH = "from limits import LONGEST\n\ndef short(response):\n    return float(len(response) < LONGEST)\n"
SAMPLING: dict[str, Any] = {"temperature": 0.7, "max_new_tokens": 3, "top_p": 0.9, "samples": 3, "raw": True}


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Evaluations of the tiny model: `base`, and others that differ from it in what their name says. `again` differs in
    what does not matter: the seed, the speed, and from where the files are named."""
    folder = tmp_path_factory.mktemp("evaluated")
    data = write_rows(folder / "tasks.jsonl", QUESTIONS)
    other = write_rows(folder / "others.jsonl", [{**row, "prompt": f"{row['prompt']}?"} for row in QUESTIONS])
    (folder / "limits.py").write_text("LONGEST = 4\n")
    (folder / "reward.py").write_text(LENGTH)
    reward = str(folder / "reward.py:short")
    base: dict[str, Any] = {"model": "tiny-random", "data": str(data), "reward": (reward,), "samples": 2}
    base |= {"max_new_tokens": 2, "temperature": 0.8}
    changes: dict[str, dict[str, Any]] = {
        "base": {},
        "again": {"seed": 3, "max_concurrent": 2, "reward_timeout": 9.0, "reward": (f"{folder}/./reward.py:short",)},
        "reward": {"reward": ("math",)},  # which reads another column
        "tasks": {"data": str(other), "limit": 2},
        "sampling": SAMPLING,
    }
    for name, change in changes.items():
        run_eval(EvalConfig(**{**base, **change, "out": folder / name}))
    for name, value in SAMPLING.items():  # what was written when all changed, one at a time
        shutil.copytree(folder / "base", folder / name)
        file, changed = (folder / n / "evaluations" / "held_out.json" for n in (name, "sampling"))
        meta, settings = json.loads(file.read_text()), json.loads(changed.read_text())["settings"]
        assert settings[name] == value != meta["settings"][name]
        file.write_text(json.dumps(meta | {"settings": {**meta["settings"], name: settings[name]}}))
    (folder / "limits.py").write_text("LONGEST = 5\n")
    run_eval(EvalConfig(**base, out=folder / "helper"))
    return folder


def refusal(folder: Path, a: str, b: str, tmp_path: Path) -> str:
    with pytest.raises(InputError) as caught:
        compare_runs(CompareConfig(runs=(folder / a, folder / b), out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    return str(caught.value)


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        ("base", "reward", "reward (…reward.py:short and math)"),
        ("base", "temperature", "temperature (0.8 and 0.7)"),
        ("base", "max_new_tokens", "max_new_tokens (2 and 3)"),
        ("base", "top_p", "top_p (1.0 and 0.9)"),
        ("base", "samples", "samples (2 and 3)"),
        (
            "base",
            "tasks",
            "tasks (3 of …tasks.jsonl, hash … and 2 of …others.jsonl, limit 2, hash …; 0 in both by id and prompt)",
        ),
        ("base", "raw", "raw (False and True)"),
        ("base", "helper", "reward, the content of reward.py (… and …)"),
    ],
)
def test_evaluations_that_differ_in_a_setting_are_refused_by_its_name(
    evaluated: Path, a: str, b: str, said: str, tmp_path: Path
) -> None:
    message = refusal(evaluated, a, b, tmp_path)
    line = next(line for line in message.splitlines() if "differ in" in line)
    found = line.partition("differ in ")[2]
    assert found.count(" (") == 1 and line.strip().startswith(f"evaluation held_out: {a} and {b} ")
    for part in said.split("…"):
        assert part in found
        found = found.partition(part)[2]
    assert "--loose" in message


def test_what_does_not_matter_may_differ(evaluated: Path, tmp_path: Path) -> None:
    found = compare({n: evaluated / n for n in ("base", "again")}, {"base": None, "again": None}, tmp_path / "out")
    assert {c["evaluation"] for c in found["contrasts"]} >= {"accuracy", "greedy", "pass@2"}
    assert set(found) == {"stages", "contrasts", "leads"}  # no notes, nothing apart


def test_the_command_says_it_in_one_message(
    evaluated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["compare", str(evaluated / "base"), str(evaluated / "top_p"), "--out", str(tmp_path / "out")]
    assert main(command) == 2
    assert "top_p (1.0 and 0.9)" in capsys.readouterr().err
    assert main([*command, "--loose"]) == 0
    shown = capsys.readouterr().out
    assert "Results of base" in shown and "Results of top_p" in shown
    assert "no difference is shown: base and top_p differ in top_p (1.0 and 0.9)" in " ".join(shown.split())
    written: Comparison = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert written["contrasts"] == [] and set(written["stages"]["base"]["evaluations"]) >= {"accuracy", "greedy"}


# -- folders written by hand ------------------------------------------------------------------------------------------


def write_evaluation(
    run: Path, name: str, rows: list[dict[str, Any]], settings: dict[str, Any] | None = None, **meta: Any
) -> Path:
    (run / "evaluations").mkdir(parents=True, exist_ok=True)
    write_rows(run / "evaluations" / f"{name}.jsonl", rows)
    text = json.dumps({"suite": name, "settings": settings or {}, **meta})
    (run / "evaluations" / f"{name}.json").write_text(text)
    return run


def answers(prompts: list[str], said: str, score: float = 1.0, ids: str = "") -> list[dict[str, Any]]:
    return [
        {
            "task": f"{ids}{i}",
            "prompt": prompt,
            "values": {"accuracy": score, "greedy": score},
            "samples": [{"text": f"{said} {prompt}", "score": score, "reason": None}],
        }
        for i, prompt in enumerate(prompts)
    ]


class Samples(HTMLParser):
    """Of the part under `Samples`: the texts of `pre`, each with the last one that stands outside the answers."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.pairs: list[tuple[str, str]] = []
        self._open: list[str] = []
        self._prompt = ""
        self.feed("<h2>" + page.partition("<h2>Samples")[2].partition("<h2>Settings")[0])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open.append("answers" if dict(attrs).get("class") == "answers" else tag)

    def handle_endtag(self, tag: str) -> None:
        self._open.pop()

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "pre":
            if "answers" in self._open:
                self.pairs.append((self._prompt, data))
            else:
                self._prompt = data


def test_the_report_shows_no_answer_under_another_question(tmp_path: Path) -> None:
    """Two files without ids, whose tasks are numbered alike and share one question at another place."""
    first, second = ["red?", "blue?", "green?"], ["blue?", "one?", "two?"]
    runs = {
        "a": write_evaluation(tmp_path / "a", "held_out", answers(first, "a on")),
        "b": write_evaluation(tmp_path / "b", "held_out", answers(second, "b on", 0.0)),
    }
    out = tmp_path / "out"
    with pytest.raises(InputError, match=r"tasks \(3 and 3; 0 in both by id and prompt\)"):
        compare(runs, {"a": None, "b": None}, out)
    compare_runs(CompareConfig(runs=tuple(runs.values()), out=out, loose=True))
    page = (out / "report.html").read_text()
    pairs = Samples(page).pairs
    assert len(pairs) == 6
    assert all(answer in (f"a on {prompt}", f"b on {prompt}") for prompt, answer in pairs)
    assert "Results of a" in page and "Results of b" in page and "Differences in" not in page

    # even where an older comparison did not look: no row is matched by its number
    found = json.loads((out / "compare.json").read_text())
    (out / "compare.json").write_text(json.dumps({k: v for k, v in found.items() if k != "apart"}))
    write_report(out)
    assert Samples((out / "report.html").read_text()).pairs == []


def test_rows_of_one_id_are_all_kept(tmp_path: Path) -> None:
    """Two rows with the same id, and two with the same id and prompt: four tasks, paired in their order."""
    for name, scores in (("a", (1.0, 0.0, 1.0, 1.0)), ("b", (0.0, 0.0, 0.0, 0.0))):
        rows = [
            {"task": "t", "prompt": prompt, "values": {"accuracy": score}, "samples": []}
            for prompt, score in zip("xyzz", scores, strict=True)
        ]
        write_evaluation(tmp_path / name, "held_out", rows)
        assert Evaluation("held_out", Table(rows)).keys == [("t", "x", 0), ("t", "y", 0), ("t", "z", 0), ("t", "z", 1)]
    found = compare({n: tmp_path / n for n in "ab"}, {"a": None, "b": "a"}, tmp_path / "out")
    (contrast,) = found["contrasts"]
    assert (contrast["value"], contrast["n"]) == (-0.75, 4)


def test_older_folders_are_compared_by_what_both_have(tmp_path: Path) -> None:
    prompts = ["red?", "blue?"]
    full = {"reward": ["math"], "temperature": 1.0, "samples": 1, "tasks_hash": "h", "reward_contents": {}}
    runs = {
        "old": write_evaluation(tmp_path / "old", "held_out", answers(prompts, ""), {"temperature": 1.0}),
        "new": write_evaluation(tmp_path / "new", "held_out", answers(prompts, "", 0.0), full),
    }
    parents: dict[str, str | None] = {"old": None, "new": "old"}
    assert len(compare(runs, parents, tmp_path / "out")["contrasts"]) == 2
    write_evaluation(tmp_path / "new", "held_out", answers(prompts, "", 0.0), full | {"temperature": 0.5})
    with pytest.raises(InputError, match=r"old and new differ in temperature \(1.0 and 0.5\)"):
        compare(runs, parents, tmp_path / "out")


def test_rows_that_are_gone_are_seen_though_the_hash_is_equal(tmp_path: Path) -> None:
    rows = answers(["red?", "blue?", "green?"], "")
    for name, n in (("a", 3), ("b", 2)):
        write_evaluation(tmp_path / name, "held_out", rows[:n], {"tasks_hash": "f" * 64, "data": "d.jsonl"})
    said = r"tasks \(3 of d.jsonl, hash ffffffff and 2 of d.jsonl, hash ffffffff; 2 in both by id and prompt\)"
    with pytest.raises(InputError, match=said):
        compare({n: tmp_path / n for n in "ab"}, {"a": None, "b": "a"}, tmp_path / "out")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ([1], "settings: "),
        ({"reward": None}, r"settings\.reward: "),
        ({"reward": [1]}, r"settings\.reward\.0: "),
        ({"reward_contents": None}, r"settings\.reward_contents: "),
        ({"tasks_hash": 3}, r"settings\.tasks_hash: "),
    ],
)
def test_damaged_settings_are_named(tmp_path: Path, settings: Any, said: str) -> None:
    write_evaluation(tmp_path / "a", "held_out", answers(["x", "y"], ""), settings)
    with pytest.raises(InputError, match=rf"a/evaluations/held_out.json: damaged, {said}"):
        compare({"a": tmp_path / "a"}, {"a": None}, tmp_path / "out")


def test_with_loose_those_that_fit_are_still_compared(tmp_path: Path) -> None:
    """Three arms, one at another temperature: two stand in one table with a difference, the third alone."""
    settings = {"a": 1.0, "b": 1.0, "c": 0.5}
    runs = {
        n: write_evaluation(tmp_path / n, "held_out", answers([f"q{i}" for i in range(12)], n), {"temperature": t})
        for n, t in settings.items()
    }
    found = compare(runs, dict.fromkeys(runs), tmp_path / "out", loose=True)
    assert {(c["of"], c["against"]) for c in found["contrasts"]} == {("b", "a")}
    assert found["apart"] == [
        {
            "suite": "held_out",
            "groups": [["a", "b"], ["c"]],
            "differences": ["a and c differ in temperature (1.0 and 0.5)"],
        }
    ]


def test_a_value_with_a_condition_of_its_own_alone_goes_without_a_difference(tmp_path: Path) -> None:
    """KL is measured from the start, and perplexity on the tokens of a tokenizer; all else stays comparable."""
    text = [{"task": f"text-{i}", "values": {"text_nll": 2.0}, "samples": []} for i in range(3)]
    known = [{"task": "k", "prompt": "p", "values": {"knowledge": 1.0}, "samples": []} for _ in range(2)]
    for name in ("a", "b"):
        rows = [row | {"values": {**row["values"], "kl": 1.0}} for row in answers(["x", "y"], name)]
        write_evaluation(tmp_path / name, "held_out", rows, {"reference": name * 64})
        write_evaluation(tmp_path / name, "retention", known + text, {"text_hash": name * 64})
    found = compare({n: tmp_path / n for n in "ab"}, {"a": None, "b": "a"}, tmp_path / "out")
    assert [c["evaluation"] for c in found["contrasts"]] == ["accuracy", "greedy", "retention/knowledge"]
    no = "has no difference to that of a, since they differ in"
    assert found["notes"] == [
        f"b: KL {no} the model it is measured from (bbbbbbbb and aaaaaaaa)",
        f"b: perplexity {no} the tokens of the text (bbbbbbbb and aaaaaaaa)",
    ]
    write_evaluation(tmp_path / "b", "retention", known + text[:2])
    found = compare({n: tmp_path / n for n in "ab"}, {"a": None, "b": "a"}, tmp_path / "out")
    assert "they differ in windows (2 and 3)" in found["notes"][1]


def test_another_date_in_the_prompts_is_said(tmp_path: Path) -> None:
    for name, day in (("a", "2025-01-01"), ("b", "2025-01-02")):
        write_evaluation(tmp_path / name, "held_out", answers(["x", "y"], name), {"template_date": day})
    found = compare({n: tmp_path / n for n in "ab"}, {"a": None, "b": "a"}, tmp_path / "out")
    (note,) = found["notes"]
    assert note.startswith("b: the prompts of evaluation held_out name another day than those of a (2025-01-02 and")
    assert len(found["contrasts"]) == 2


# -- parents ----------------------------------------------------------------------------------------------------------


def write_lineage(run: Path, parents: list[str], start: str, weights: str) -> Path:
    write_evaluation(run, "held_out", answers(["x", "y"], run.name), weights_hash=weights)
    lineage = {"parents": parents, "parent_weights_hash": start, "weights_hash": weights, "model": str(run / "model")}
    (run / "lineage.json").write_text(json.dumps(lineage))
    return run


def parents_of(tmp_path: Path, *runs: Path) -> dict[str, str | None]:
    compare_runs(CompareConfig(runs=runs, out=tmp_path / "out"))
    found: Comparison = json.loads((tmp_path / "out" / "compare.json").read_text())
    return {name: stage["parent"] for name, stage in found["stages"].items()}


def test_a_run_that_learnt_nothing_is_no_parent_of_its_siblings(tmp_path: Path) -> None:
    """Its weights are those of the start that both name."""
    rl = write_lineage(tmp_path / "rl", ["tiny-random"], "h0", "h0")
    sft = write_lineage(tmp_path / "sft", ["tiny-random"], "h0", "h1")
    assert parents_of(tmp_path, rl, sft) == {"rl": None, "sft": None}


def test_a_parent_that_is_named_and_there_is_not_replaced_by_one_of_equal_weights(tmp_path: Path) -> None:
    first = write_lineage(tmp_path / "first", ["tiny-random"], "h0", "h1")
    idle = write_lineage(tmp_path / "idle", [str(first)], "h1", "h1")
    child = write_lineage(tmp_path / "child", [str(idle)], "h1", "h2")
    assert parents_of(tmp_path, first, child) == {"first": None, "child": None}
    assert parents_of(tmp_path, first, idle, child) == {"first": None, "idle": "first", "child": "idle"}
    child = write_lineage(tmp_path / "moved", ["/gone/first/model"], "h1", "h3")
    assert parents_of(tmp_path, first, child) == {"first": None, "moved": "first"}


def test_copies_keep_their_parents_while_the_originals_are_there(tmp_path: Path) -> None:
    first = write_lineage(tmp_path / "first", ["tiny-random"], "h0", "h1")
    write_lineage(tmp_path / "idle", [f"{first}/model"], "h1", "h1")
    write_lineage(tmp_path / "child", [f"{tmp_path}/idle/model"], "h1", "h2")
    for name in ("first", "idle", "child"):
        (tmp_path / name / "model").mkdir()
        shutil.copytree(tmp_path / name, tmp_path / "copied" / name)
    runs = [tmp_path / "copied" / name for name in ("first", "idle", "child")]
    assert parents_of(tmp_path, *runs) == {"first": None, "idle": "first", "child": "idle"}
    assert parents_of(tmp_path, runs[0], runs[2]) == {"first": None, "child": None}


def test_an_evaluated_start_is_found_by_its_name(tmp_path: Path) -> None:
    start = write_evaluation(
        tmp_path / "start", "held_out", answers(["x", "y"], ""), model="tiny-random", weights_hash="h0"
    )
    sft = write_lineage(tmp_path / "sft", ["tiny-random"], "h0", "h1")
    assert parents_of(tmp_path, start, sft) == {"start": None, "sft": "start"}


def test_evaluations_of_other_weights_do_not_stand_for_the_run(tmp_path: Path) -> None:
    run = write_lineage(tmp_path / "run", ["tiny-random"], "h0", "h1")
    write_evaluation(run, "hard", answers(["x"], ""), weights_hash="h2")
    with pytest.raises(InputError, match=r"evaluations/hard.json is of other weights than lineage.json"):
        parents_of(tmp_path, run)
    data = write_rows(tmp_path / "d.jsonl", QUESTIONS)
    config = EvalConfig(model="tiny-random", data=str(data), reward=("math",), name="other", out=run)
    with pytest.raises(InputError, match=r"lineage.json there is of other weights than --model tiny-random"):
        run_eval(config)


# -- names, suites, labels --------------------------------------------------------------------------------------------


def test_a_folder_holds_several_evaluations_by_name(evaluated: Path, tmp_path: Path) -> None:
    shutil.copytree(evaluated / "base", tmp_path / "a")
    config = EvalConfig(
        model="tiny-random",
        data=str(write_rows(tmp_path / "hard.jsonl", QUESTIONS[:2])),
        reward=("length(max_length=3)",),
        samples=1,
        max_new_tokens=2,
        name="hard",
        out=tmp_path / "a",
    )
    run_eval(config)
    with pytest.raises(InputError, match="already holds an evaluation hard; give another --name or folder"):
        run_eval(config)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    out = tmp_path / "out"
    compare_runs(CompareConfig(runs=(tmp_path / "a", tmp_path / "b"), out=out))
    found: Comparison = json.loads((out / "compare.json").read_text())
    assert {"accuracy", "hard/accuracy", "hard/greedy"} <= set(found["stages"]["a"]["evaluations"])
    assert {c["evaluation"]: c["n"] for c in found["contrasts"]}["hard/accuracy"] == 2
    page = (out / "report.html").read_text()
    assert "<h2>hard</h2>" in page and "<h2>Samples: hard</h2>" in page and " on hard " in page
    assert "hard/" in write_report(tmp_path / "a").read_text()


def test_graded_rewards_are_called_mean_reward(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not is_graded(answers(["x"], "", 1.0)) and is_graded(answers(["x"], "", 0.5))
    (tmp_path / "r.py").write_text("def half(response):\n    return 0.5\n\ndef one(response):\n    return True\n")
    data = write_rows(tmp_path / "d.jsonl", QUESTIONS)
    for name in ("half", "one"):
        reward = (f"{tmp_path}/r.py:{name}",)
        run = tmp_path / name
        run_eval(EvalConfig(model="tiny-random", data=str(data), reward=reward, samples=1, max_new_tokens=2, out=run))
        printed = capsys.readouterr().out
        compare_runs(CompareConfig(runs=(run,), out=tmp_path / f"out-{name}"))
        printed += capsys.readouterr().out + (tmp_path / f"out-{name}" / "report.html").read_text()
        assert ("mean reward" in printed, "accuracy" in printed.partition("Settings")[0]) == (
            name == "half",
            name == "one",
        )
        assert (
            "accuracy"
            in json.loads((tmp_path / f"out-{name}" / "compare.json").read_text())["stages"][name]["evaluations"]
        )


def test_a_difference_of_rounding_is_none() -> None:
    assert [format_number(v, share=False) for v in (1.1e-16, -2e-15, 1e-6)] == ["0", "0", "1e-06"]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--suite", "retention", "--data", "d"], "--data means nothing to the suite retention"),
        (["--suite", "retention", "--reward", "math"], "--reward means nothing to the suite retention"),
        (["--suite", "retention", "--name", "hard"], "--name means nothing to the suite retention"),
        (["--suite", "retention", "--samples", "2"], "--samples means nothing to the suite retention"),
        (["--suite", "memory"], "--suite must be 'tasks' or 'retention', not 'memory'"),
        (["--data", "d", "--reward", "math", "--name", "../x"], "--name must have letters, digits, _ and - alone, not"),
        (["--data", "d", "--reward", "math", "--name", "retention"], "--name must be another word"),
        (["--reward", "math"], "--data is required"),
        (["--data", "d"], "--reward is required"),
    ],
)
def test_wrong_options_are_refused(args: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "tiny-random", *args]) == 2
    assert capsys.readouterr().err.startswith(f"error: {said}")


# -- hashes -----------------------------------------------------------------------------------------------------------


def test_the_hash_of_tasks_sees_what_is_asked_and_what_the_reward_reads() -> None:
    def of(*tasks: Task) -> str:
        return tasks_hash(tasks, lambda column: column == "answer")

    one, two = Task("0", "x", {"answer": 1, "note": "a"}), Task("1", "y", {"answer": {"b", "a"}})
    turns = (Message("system", "be brief"), Message("user", "x"))
    assert of(one, two) == of(two, one) == of(Task("0", "x", {"answer": 1, "note": "b"}), two)
    others = [
        Task("2", "x", {"answer": 1}),
        Task("0", "z", {"answer": 1}),
        Task("0", "x", {"answer": 2}),
        Task("0", turns, {"answer": 1}),
        Task("0", turns[1:], {"answer": 1}),
        Task("0", "x", {"answer": 1}, ({"type": "function"},)),
    ]
    assert len({of(other, two) for other in (one, *others)}) == 7
    assert of(one) != of(one, one)


def test_settings_say_what_a_reward_reads(tmp_path: Path) -> None:
    tasks = [Task("0", "x", {"answer": "1", "note": "a"})]
    with Scorer(("math",), columns=("answer", "note"), timeout_seconds=60) as scorer:
        assert scorer.reads("answer") and not scorer.reads("note")
        found = task_settings(tasks, scorer, Sampling(4, 0.5), samples=2, raw=False)
    assert found == found | {"reward": ["math"], "reward_contents": {}, "tasks": 1, "max_new_tokens": 4, "top_p": 1.0}
    (tmp_path / "rubric.txt").write_text("Is it good?")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "f.py").write_text("import helper\n\ndef f(response):\n    return 1\n")
    reward = f"clip({tmp_path}/sub/f.py:f, low=0)"
    judge = f'judge(rubric="{tmp_path}/rubric.txt", model="m", url="http://x")'
    before = reward_contents([reward, judge])
    assert set(before) == {f"{tmp_path}/sub/f.py", f"{tmp_path}/rubric.txt"}
    (tmp_path / "sub" / "helper.py").write_text("import deeper\n")
    after = reward_contents([reward, judge])
    assert after != before and after[f"{tmp_path}/rubric.txt"] == before[f"{tmp_path}/rubric.txt"]
    (tmp_path / "sub" / "deeper.py").write_text("x = 1\n")
    assert reward_contents([reward]) != {k: v for k, v in after.items() if k in reward}


def test_a_reward_from_another_folder_is_the_same_if_its_file_is() -> None:
    a = {"reward": ["a/r.py:f=0.5"], "reward_contents": {"a/r.py": "1" * 64}}
    b = {"reward": ["/b/r.py:f=0.5"], "reward_contents": {"/b/r.py": "1" * 64}}
    assert reward_differences(a, b) == []
    assert reward_differences(a, {"reward": b["reward"]}) == ["reward (a/r.py:f=0.5 and /b/r.py:f=0.5)"]
    changed = {**b, "reward_contents": {"/b/r.py": "2" * 64}}
    assert reward_differences(a, changed) == ["reward, the content of r.py (11111111 and 22222222)"]


def test_what_differs_in_a_function_of_python_is_said() -> None:
    def settings(digit: str, **parts: str) -> dict[str, Any]:
        reward = f"<function brief sha256={digit * 64}>"
        known = {"reward_functions": {digit * 64: {k.replace("_", " "): v for k, v in parts.items()}}}
        return {"reward": ["math", f"{reward}=0.5"], "reward_contents": {}} | (known if parts else {})

    said = "reward <function brief>=0.5 (11111111 and 22222222): {}; give both evaluations the same function"
    one = settings("1", its_source="a", model="sklearn 1.5 b")
    assert reward_differences(one, one) == []
    assert reward_differences(one, settings("2", its_source="c", model="sklearn 1.5 b")) == [said.format("its source")]
    other = settings("2", its_source="a", model="sklearn 1.6 d")
    assert reward_differences(one, other) == [said.format("model (sklearn 1.5 and sklearn 1.6)")]
    unknown = said.format("its source, its defaults or a value that it reads")
    assert reward_differences(settings("1"), settings("2")) == [unknown] == reward_differences(one, settings("2"))
    assert reward_differences(one, {"reward": ["math"]})[0].startswith("reward (math, <function brief sha256=1")


def test_files_of_one_name_are_told_apart() -> None:
    """Two folders have a file of the same name: the content of each counts, and which reward it belongs to."""

    def read(first: str, second: str) -> dict[str, Any]:
        return {"reward": ["a/r.py:f", "b/r.py:f=2"], "reward_contents": {"a/r.py": first * 64, "b/r.py": second * 64}}

    assert reward_differences(read("1", "2"), read("1", "2")) == []
    said = "reward, the content of r.py (11111111, 22222222 and {})"
    assert reward_differences(read("1", "2"), read("3", "2")) == [said.format("33333333, 22222222")]
    assert reward_differences(read("1", "2"), read("2", "1")) == [said.format("22222222, 11111111")]
