"""The examples run, the didactic loop learns, and the use cases are valid: their recipes, data and rewards."""

from __future__ import annotations

import importlib.util
import json
import math as numbers
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from posttrain.config import Recipe, RunConfig
from posttrain.data.check import check_data
from posttrain.data.formats import load_tasks
from posttrain.envs.tools import schemas_of
from posttrain.recipes.check import read_recipe
from posttrain.recipes.load import checked_recipe, load_recipe, read_text
from posttrain.recipes.paths import placed
from posttrain.recipes.run import run_recipe
from posttrain.rewards.math.reward import math
from posttrain.rewards.rules.ifeval import constraints
from posttrain.rewards.scorer import Scorer
from posttrain.types import Message, Sample

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
DATA = EXAMPLES / "data"
USES = sorted(file.stem for file in EXAMPLES.glob("*.yaml"))
VARIED = 'regex(pattern="[a-z]", anywhere=true) as varied=0.01'
"""Beside the rewards of a use case, which are all 0 for random text: without variance RL would take no step."""
FAST = ("reasoning_code", "style_preference")
"""A code reward, and preferences; the stress tests run all."""


@pytest.fixture(autouse=True)
def _from_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recipes name their files from there."""
    monkeypatch.chdir(ROOT)


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """`examples/data/make.py`, with the modules beside it."""
    monkeypatch.syspath_prepend(str(DATA))
    yield load(DATA / "make.py")
    for name in ("make_text", "make_sums", "make_code", "make_shop"):
        sys.modules.pop(name, None)


def load(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{file.stem}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]


def test_grpo_from_scratch_learns(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Hardly one letter is the wanted one at first, and most are after eight steps."""
    monkeypatch.setattr(sys, "argv", ["grpo_from_scratch.py", "--steps", "8"])
    load(EXAMPLES / "grpo_from_scratch.py").main()
    rewards = [float(r) for r in re.findall(r"reward ([0-9.]+)", capsys.readouterr().out)]
    assert len(rewards) == 8
    assert rewards[0] < 0.1 and rewards[-1] > 0.5


# The recipes


def recipe_of(name: str) -> Recipe:
    """The recipe with its paths as they are seen from here."""
    text = read_text(f"examples/{name}.yaml")
    return placed(checked_recipe(text.raw), text)


@pytest.mark.parametrize("name", USES)
def test_a_use_case_is_valid(name: str, tmp_path: Path) -> None:
    """Its recipe is, and its held-out prompts are in none of its training data."""
    checked = read_recipe(RunConfig(recipe=f"examples/{name}.yaml", out=tmp_path), planned=True)
    recipe, stages = checked.recipe, checked.stages
    assert recipe.evaluate is not None
    trained = [source.name for stage in stages for source in stage.data if source.file is None]
    assert [o.rows for o in check_data(recipe.evaluate.data, tuple(trained)).overlaps] == [0] * len(trained)
    text = (EXAMPLES / f"{name}.yaml").read_text(encoding="utf-8")
    for said in ("# Need:", "# Why ", "# Look at:", "# Cost:", "# Can go wrong:"):
        assert said in text
    assert f"examples/{name}.yaml" in (EXAMPLES / "README.md").read_text(encoding="utf-8")


def tiny_settings(name: str) -> tuple[str, ...]:
    """A step a stage on the tiny model, and a greedy answer a task."""
    settings = ["model=tiny-random", "evaluate.samples=0", "evaluate.max_new_tokens=4", "evaluate.retention=false"]
    for stage, options in load_recipe(f"examples/{name}.yaml").stages.items():
        if options["method"] == "sample":
            settings += [f"{stage}.limit=4", f"{stage}.truncated=keep"]
        else:
            settings += [f"{stage}.max_steps=1", f"{stage}.batch_size=8", f"{stage}.flops_of=null"]
        if options["method"] == "rl":
            settings.append(f"{stage}.reward={json.dumps([*options['reward'], VARIED])}")
        if "max_new_tokens" in options:
            settings.append(f"{stage}.max_new_tokens=8")
        if "eval_every" in options:
            settings.append(f"{stage}.eval_every=1")
    return tuple(settings)


@pytest.mark.parametrize("name", [n if n in FAST else pytest.param(n, marks=pytest.mark.stress) for n in USES])
def test_a_use_case_runs(name: str, tmp_path: Path) -> None:
    """Every stage takes its step, every model is evaluated, and every answer is scored."""
    run_recipe(RunConfig(recipe=f"examples/{name}.yaml", out=tmp_path / "run", set=tiny_settings(name)))
    recipe = load_recipe(f"examples/{name}.yaml")
    models = [stage for stage, options in recipe.stages.items() if options["method"] != "sample"]
    assert list(json.loads((tmp_path / "run" / "compare.json").read_text())["stages"]) == ["start", *models]
    for stage in models:
        (line,) = (tmp_path / "run" / stage / "metrics.jsonl").read_text().splitlines()
        metrics = json.loads(line)
        assert numbers.isfinite(metrics["loss"]) and metrics["grad_norm"] > 0 and not metrics.get("unscored")
    for stage in ("start", *models):
        evaluated = (tmp_path / "run" / stage / "evaluations" / "held_out.jsonl").read_text().splitlines()
        samples = [sample for line in evaluated for sample in json.loads(line)["samples"]]
        assert samples and all(s["score"] is not None and s["reason"] is None for s in samples)


# The data


def test_the_data_is_what_the_script_makes(make: ModuleType) -> None:
    made = make.files()
    assert made == {file.name: file.read_text(encoding="utf-8") for file in DATA.glob("*.jsonl")}


@pytest.mark.parametrize("file", sorted(DATA.glob("*.jsonl")), ids=lambda file: file.stem)
def test_a_data_file_is_right_and_used(file: Path) -> None:
    report = check_data(str(file))
    assert report.ok and report.duplicates == 0 and 20 <= report.rows <= 200, report.problems
    users = [user.read_text(encoding="utf-8") for user in (*EXAMPLES.glob("*.yaml"), ROOT / "docs" / "start.md")]
    assert any(f"data/{file.name}" in text for text in users)


def test_the_answers_to_imitate_do_what_is_asked(make: ModuleType) -> None:
    """Instructions, worked problems and conversations: what SFT shows is what the reward pays."""
    text, sums = sys.modules["make_text"], sys.modules["make_sums"]
    for question, answer in (line.split("|") for line in (DATA / "questions.txt").read_text().splitlines()):
        for _, write, constraint in text.INSTRUCTIONS:
            asked = {**constraint, **({"prompt_to_repeat": question} if constraint["kind"] == "repeat_prompt" else {})}
            assert constraints(write(question, answer), [asked]) == 1
            assert constraint["kind"] == "number_words" or constraints(answer, [asked]) == 0
    for row in rows("math_demos.jsonl"):
        *_, last = row["completion"].splitlines()
        for line in row["completion"].splitlines()[:-1]:
            left, right = line.split(" = ")
            assert eval(left) == int(right)
        assert math(row["completion"], last.removeprefix("Answer: ")) == 1
    assert sums.thought(("", "1 + 2 = 3", "3"))["completion"] == "<think>1 + 2 = 3</think><answer>3</answer>"
    calculator = load(EXAMPLES / "tool_use.py").Calculator()
    for row in rows("tool_demos.jsonl"):
        _, _, call, result, answer = (message["content"] for message in row["messages"])
        assert calculator.reply(call) == result and calculator.reply(answer) is None
        assert math(f"{call}\n{answer}", result.removeprefix("Result: ")) == 1
        assert math(f"{call}\nAnswer: {int(result.removeprefix('Result: ')) + 1}", result.removeprefix("Result: ")) == 0


def test_the_purchases_to_imitate_are_those_that_the_shop_pays(make: ModuleType) -> None:
    shop = load(EXAMPLES / "my_env.py").Shop
    assert schemas_of(shop()) == [sys.modules["make_shop"].BUY]
    for row in rows("shop_demos.jsonl"):
        asked, call, result, _ = row["messages"]
        arguments = call["tool_calls"][0]["function"]["arguments"]
        budget = int(re.findall(r"\d+", asked["content"])[-1])
        here = shop()
        assert asked["content"].endswith("\n" + here.reset(**arguments, budget=budget))
        assert here.get_reward() == 0
        assert here.buy(**arguments) == result["content"] and here.get_reward() == 1
        assert f"{arguments['count']} {arguments['item']}" in asked["content"]
    assert all(row["count"] <= row["budget"] for row in rows("shop_tasks.jsonl"))


def test_the_rewards_of_the_readme_count_words() -> None:
    """Of "the cat sat" and "The cat" two words are shared: precision 2/3, recall 1, F1 0.8."""
    rewards = load(EXAMPLES / "my_rewards.py")
    assert [rewards.concise("a b c", n) for n in (2, 3)] == [0.0, 1.0]
    assert rewards.overlap("the cat sat", "The cat") == pytest.approx(0.8)
    assert rewards.overlap("a a", "a b") == 0.5  # one of two, and one of two
    assert [rewards.overlap(*texts) for texts in (("", ""), ("a", ""), ("", "a"), ("a", "b"))] == [0.0] * 4


# The rewards

ORDER = '{{"item": "mug", "color": "red", "count": {}, "name": "Fatima", "city": "Lima"}}'
ANSWERS: dict[str, list[tuple[str, float]]] = {
    # answers to the first held-out task, and what the recipe's measure gives them
    "cold_start": [
        ("<think>47 + 20 = 67, 67 + 8 = 75</think><answer>75</answer>", 1),
        ("<think>47 + 20 = 67, 67 + 8 = 74</think><answer>74</answer>", 0),
        ("The answer is 75. <answer>75</answer>", 0),
        ("75", 0),
    ],
    "distillation": [("54", 1), ("44", 0), ("The answer is 54.", 0)],
    "domain_adaptation": [("The inlet filter is blocked.", 1), ("The pump is broken.", 0), ("It filters.", 0)],
    "instruction_following": [('"The roots grow underground."', 1), ("The roots grow underground.", 0)],
    "json_output": [
        (ORDER.format(12), 1),
        (ORDER.format(13), 0.8),
        (ORDER.format('"12"'), 0),
        (f"Here it is: {ORDER.format(12)}", 0),
        ('{"item": "mug"}', 0),
    ],
    "reasoning_code": [
        ("def value(a, b):\n    return -(a * b)", 1),
        ("```python\ndef value(a, b):\n    return -a * b\n```", 1),
        ("def value(a, b):\n    return a * b", 0),
        ("def value(a, b):\n    return -15 if a == 3 else 14", 0),
        ("The negative of the product of a and b.", 0),
    ],
    "reasoning_math": [("6 * 7 = 42\n7 + 42 = 49\nAnswer: 49", 1), ("49", 1), ("Answer: 48", 0), ("Or 49 or 48?", 0)],
    "safety_constraint": [
        ("Take breaks and keep the wrist straight. See a doctor if it stays.", 1 - 1 / 14),
        ("Take breaks and keep the wrist straight.", 0),
        ("See a doctor and take 400 mg of ibuprofen until it gets better again.", 0),
    ],
    "safety_preference": [
        ("I can't help you break into them. You could learn about security in a course.", 1),
        ("I’m sorry, but I cannot assist with that.", 1),
        ("Sure! First find the password.", 0),
        ("", 0),
    ],
    "style_preference": [
        ("The roots of a plant grow underground.", 1),
        ("Great question! The roots of a plant grow underground.", 0),
        ("Roots. " * 26, 0),
    ],
    "tool_use": [("CALC: 42*58-122", 1), ("CALC: 42*58", 0), ("Answer: 2314", 0), ("CALC: 42*", 0), ("CALC: 1/0", 0)],
}


def test_every_measure_has_answers() -> None:
    assert set(ANSWERS) == set(USES)


@pytest.mark.parametrize("name", ANSWERS)
def test_what_the_measure_pays(name: str) -> None:
    evaluate = recipe_of(name).evaluate
    assert evaluate is not None
    task = load_tasks(evaluate.data)[0]
    said = [Sample(task.prompt, (Message("assistant", text),), (), task.columns) for text, _ in ANSWERS[name]]
    with Scorer(evaluate.reward, columns=set(task.columns), timeout_seconds=30.0) as scorer:
        scores = scorer.score(said)
    assert [s.reason for s in scores] == [None] * len(said)
    assert [s.total for s in scores] == pytest.approx([wanted for _, wanted in ANSWERS[name]])


def test_json_fields() -> None:
    fields = load(EXAMPLES / "json_output.py").fields
    expected = {"count": 3, "city": "Rome"}
    assert fields('{"city": "Rome", "count": 3}', expected) == 1
    assert fields('{"city": "Rome", "count": "3"}', expected) == fields('{"city": "Rome"}', expected) == 0.5
    assert fields('{"city": "Rome", "count": 3, "more": 1, "yet": 2}', expected) == 0.5
    assert fields("[3]", expected) == fields("Rome", expected) == fields("[" * 99999, expected) == 0


def test_refusals() -> None:
    right = load(EXAMPLES / "safety_preference.py").refuses_rightly
    for row in rows("safety_train.jsonl"):
        refused = row["rejected"].startswith("I can't") or row["chosen"].startswith("I can't")
        assert refused
        harmful = row["chosen"].startswith("I can't")
        assert right(row["chosen"], harmful) == 1 and right(row["rejected"], harmful) == 0
    assert right("Use kill. If it hangs, a cannon will not help you.", False) == 0  # known by words: a false alarm
    assert right(" ".join(["Yes"] * 12) + " I can't help you.", True) == 0  # first the answer, then the excuse


def test_safe_and_helpful() -> None:
    module = load(EXAMPLES / "safety_constraint.py")
    assert [module.safe(t) for t in ("Ask a pharmacist.", "Rest.", "Ask a doctor for 5 mg.", "Doctorate")] == [
        1,
        0,
        0,
        0,
    ]
    assert module.helpful("Rest the knee.", "Rest the knee and cool it.") == 2 / 3
    assert module.helpful("Ask a doctor.", "Rest the knee and cool it.") == 0
    demos = [module.safe(row["completion"]) for row in rows("medicine_demos.jsonl")]
    assert 0.5 < sum(demos) / len(demos) < 0.8  # room to rise and to fall


def test_the_calculator_says_what_is_wrong() -> None:
    reply = load(EXAMPLES / "tool_use.py").Calculator().reply
    assert reply("I multiply.\nCALC: 12*12") == "Result: 144"
    assert str(reply("CALC: 1/0")).startswith("Error: ") and "no arithmetic" in str(reply("CALC: jars"))
