"""Pipelines: a whole small recipe, what is not run again, and recipes that are wrong."""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from posttrain.config import EvalConfig, RunConfig
from posttrain.evals.run import run_eval
from posttrain.evals.settings import differences
from posttrain.recipes.evaluate import Evaluator
from posttrain.recipes.load import load_recipe, shipped_recipes
from posttrain.recipes.run import _same_recipe, run_recipe
from posttrain.recipes.stages import START
from posttrain.runs.reader import Run
from posttrain.types import InputError
from posttrain.wording import format_quantity
from tests.recipe_helpers import check_stages
from tests.training_helpers import write_rows


def sums(tmp_path: Path, start: int, size: int) -> str:
    """Some of sixty questions, with their answers."""
    questions = [{"question": f"{i // 8 + 1} + {i % 8 + 1} =", "answer": str(i // 8 + i % 8 + 2)} for i in range(60)]
    return str(write_rows(tmp_path / f"sums-{start}-{size}.jsonl", questions[start : start + size]))


def recipe(tmp_path: Path) -> dict[str, Any]:
    reward = tmp_path / "rewards.py"
    reward.write_text("def digits(response):\n    return sum(c.isdigit() for c in response) / max(1, len(response))\n")
    return {
        "description": "A small <recipe>.",
        "model": "tiny-random",
        "evaluate": {
            "data": sums(tmp_path, 0, 12),
            "reward": ["math"],
            "samples": 2,
            "max_new_tokens": 4,
            "retention": False,
        },
        "stages": {
            "sft": {
                "method": "sft",
                "parent": "start",
                "data": sums(tmp_path, 12, 16),
                "max_steps": 2,
                "learning_rate": 1e-3,
            },
            "grpo": {
                "method": "rl",
                "parent": "sft",
                "data": sums(tmp_path, 28, 16),
                "reward": [f"{reward}:digits"],
                "max_steps": 2,
                "batch_size": 16,
                "max_new_tokens": 8,
            },
            "pairs": {
                "method": "sample",
                "write": "pairs",
                "parent": "sft",
                "data": sums(tmp_path, 28, 16),
                "limit": 4,
                "reward": [f"{reward}:digits"],
                "samples": 4,
                "max_new_tokens": 8,
            },
            "dpo": {"method": "dpo", "parent": "sft", "data": "pairs", "flops_of": "grpo", "batch_size": 2},
        },
    }


def write(tmp_path: Path, raw: dict[str, Any]) -> str:
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(raw, sort_keys=False))
    return str(file)


def test_a_recipe_runs_whole_and_only_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    config = RunConfig(recipe=write(tmp_path, recipe(tmp_path)), out=out)
    run_recipe(config)
    comparison = json.loads((out / "compare.json").read_text())
    assert list(comparison["stages"]) == ["start", "sft", "grpo", "dpo"]
    assert [s["parent"] for s in comparison["stages"].values()] == [None, "start", "sft", "sft"]
    assert {"of", "against", "evaluation", "value", "low", "high", "n"} == set(comparison["contrasts"][0])
    assert comparison["stages"]["sft"]["evaluations"]["greedy"]["n"] == 12
    assert "A small &lt;recipe&gt;." in (out / "report.html").read_text()
    assert "report.html" in capsys.readouterr().out

    # equal compute: the DPO arm, its pairs included, reaches GRPO's operations with its last step and not before
    grpo, dpo = (comparison["stages"][s]["flops"] for s in ("grpo", "dpo"))
    pairs = json.loads((out / "pairs" / "cost.json").read_text())["flops"]
    spent = [json.loads(line)["flops"] for line in (out / "dpo" / "metrics.jsonl").read_text().splitlines()]
    assert dpo == pairs + spent[-1] >= grpo
    assert len(spent) < 2 or pairs + spent[-2] < grpo

    stamps = {file: file.stat().st_mtime_ns for file in out.glob("*/model/model.safetensors")}
    assert len(stamps) == 3
    run_recipe(config)
    assert {file: file.stat().st_mtime_ns for file in stamps} == stamps

    with pytest.raises(InputError, match=r"another recipe or other settings \(sft.max_steps differs\)"):
        run_recipe(config.model_copy(update={"set": ("sft.max_steps=3",)}))


def test_a_reward_model_between_two_stages(tmp_path: Path) -> None:
    """Pairs of the SFT model's answers, a reward model on them, RL on its score. It is no arm of the comparison."""
    raw = recipe(tmp_path)
    raw["evaluate"]["samples"] = 0
    raw["stages"] = {
        **{name: raw["stages"][name] for name in ("sft", "pairs")},
        "rm": {"method": "reward-model", "parent": "sft", "data": "pairs", "max_steps": 2, "batch_size": 2},
        "ppo": {**raw["stages"]["grpo"], "reward": ["learned({rm})", "implicit({sft}, {start})=0.1"], "max_steps": 1},
    }
    out = tmp_path / "out"
    run_recipe(RunConfig(recipe=write(tmp_path, raw), out=out))
    comparison = json.loads((out / "compare.json").read_text())
    assert list(comparison["stages"]) == ["start", "sft", "ppo"]
    others = {name: (stage["parent"], stage["charged_to"]) for name, stage in comparison["others"].items()}
    assert others == {"pairs": ("sft", []), "rm": ("sft", [])}
    costs = {
        name: json.loads((out / name / "cost.json").read_text())["flops"] for name in ("sft", "pairs", "rm", "ppo")
    }
    assert comparison["others"]["rm"]["flops"] == costs["rm"] > 0
    assert comparison["total"]["flops"] == pytest.approx(sum(costs.values()))
    page = (out / "report.html").read_text()
    assert 'href="rm/report.html"' in page and (out / "rm" / "report.html").exists()
    (row,) = [json.loads(line) for line in (out / "ppo" / "metrics.jsonl").read_text().splitlines()]
    assert row["reward"] == pytest.approx(row["reward/learned"] + 0.1 * row["reward/implicit"])

    raw["stages"]["ppo"]["parent"] = "rm"
    with pytest.raises(InputError, match="parent is 'rm', which makes no model to train .*; use one of start, sft"):
        check_stages(load_recipe(write(tmp_path, raw)), out)
    raw["stages"] = {"ppo": {**raw["stages"]["ppo"], "parent": "start"}, "sft": raw["stages"]["sft"]}
    with pytest.raises(InputError, match="names sft, which is no earlier stage"):
        check_stages(load_recipe(write(tmp_path, raw)), out)


def test_stages_that_learn_from_sampled_answers(tmp_path: Path) -> None:
    """SFT on the best answers of a stage and on all those of a model of its own, and distillation from a stage; what
    making the data took is charged to the arm that uses it."""
    raw = recipe(tmp_path)
    raw["evaluate"]["samples"] = 0
    tasks = {key: raw["stages"]["pairs"][key] for key in ("data", "limit", "samples", "max_new_tokens")}
    tasks["truncated"] = "keep"
    raw["stages"] = {
        "sft": raw["stages"]["sft"],
        "best": {
            "method": "sample",
            "parent": "sft",
            "reward": raw["stages"]["grpo"]["reward"],
            **tasks,
        },
        "answers": {"method": "sample", "model": "tiny-random", "write": "all", **tasks},
        "rejection": {"method": "sft", "parent": "sft", "data": "best", "max_steps": 1, "batch_size": 4},
        "imitation": {"method": "sft", "parent": "start", "data": "answers", "max_steps": 1},
        "distilled": {
            "method": "distill",
            "parent": "start",
            "teacher": "sft",
            "data": "best",
            "on_policy_share": 0.5,
            "max_steps": 1,
            "batch_size": 4,
            "max_new_tokens": 8,
        },
    }
    out = tmp_path / "out"
    run_recipe(RunConfig(recipe=write(tmp_path, raw), out=out))
    comparison = json.loads((out / "compare.json").read_text())
    assert list(comparison["stages"]) == ["start", "sft", "rejection", "imitation", "distilled"]
    for stage, data in (("rejection", "best"), ("imitation", "answers"), ("distilled", "best")):
        costs = [json.loads((out / name / "cost.json").read_text())["flops"] for name in (stage, data)]
        assert comparison["stages"][stage]["flops"] == sum(costs) > costs[0] > 0
    events = (out / "distilled" / "events.jsonl").read_text()
    assert str(out / "sft" / "model") in events
    assert json.loads((out / "rejection" / "lineage.json").read_text())["data"] == str(out / "best" / "sft.jsonl")


def test_stages_that_have_not_begun_may_change(tmp_path: Path) -> None:
    """Pairs that cost more than the arm they are compared with are told before the stages that follow; with the remedy
    that the message gives the recipe goes on."""
    raw = recipe(tmp_path)
    raw["evaluate"]["samples"] = 0
    raw["stages"]["grpo"] |= {"max_steps": 1, "batch_size": 8}
    raw["stages"]["pairs"]["limit"] = 16
    raw["stages"] = {name: raw["stages"][name] for name in ("sft", "grpo", "pairs")} | {
        "longer": {"method": "sft", "parent": "sft", "data": sums(tmp_path, 12, 16), "max_steps": 1},
        "dpo": raw["stages"]["dpo"],
    }
    out = tmp_path / "out"
    config = RunConfig(recipe=write(tmp_path, raw), out=out)
    with pytest.raises(InputError, match=r"stage dpo: making its data in pairs took \S+ operations") as caught:
        run_recipe(config)
    costs = [json.loads((out / name / "cost.json").read_text())["flops"] for name in ("pairs", "grpo")]
    assert all(format_quantity(cost) in str(caught.value) for cost in costs)
    assert "--set pairs.limit" in str(caught.value) and f"remove {out / 'pairs'}" in str(caught.value)
    assert not (out / "longer").exists() and not (out / "dpo").exists()

    with pytest.raises(InputError, match=r"pairs.limit differs"):
        run_recipe(config.model_copy(update={"set": ("pairs.limit=1",)}))
    with pytest.raises(InputError, match=r"longer.data differs"):
        run_recipe(config.model_copy(update={"set": (f"longer.data={sums(tmp_path, 44, 4)}",)}))
    shutil.rmtree(out / "pairs")
    changes = ("pairs.limit=4", "pairs.samples=2", "pairs.seed=3", "longer.max_steps=2", "dpo.flops_of=null")
    run_recipe(config.model_copy(update={"set": (*changes, "dpo.max_steps=1")}))
    assert len((out / "longer" / "metrics.jsonl").read_text().splitlines()) == 2
    assert yaml.safe_load((out / "recipe.yaml").read_text())["stages"]["pairs"]["limit"] == 4


def test_what_is_kept_or_spent_may_change_until_a_stage_has_finished(tmp_path: Path) -> None:
    same = {"model": "m", "seed": 0, "chat_template": None, "evaluate": None}
    before = same | {"stages": {"s": {"method": "sample", "endpoint_max_requests": 5, "seed": 1}}}
    (tmp_path / "s").mkdir()
    now = same | {"stages": {"s": before["stages"]["s"] | {"endpoint_max_requests": 50}}}
    _same_recipe(before, now, tmp_path)
    with pytest.raises(InputError, match=r"s\.seed differs"):
        _same_recipe(before, same | {"stages": {"s": now["stages"]["s"] | {"seed": 2}}}, tmp_path)
    (tmp_path / "s" / "lineage.json").write_text("{}")
    with pytest.raises(InputError, match=r"s\.endpoint_max_requests differs"):
        _same_recipe(before, now, tmp_path)


def test_evaluations_that_a_file_has_changed_since_are_refused(tmp_path: Path) -> None:
    """The recipe is the same, but the start was evaluated by other content of its data and reward."""
    raw = recipe(tmp_path)
    held_out, reward = tmp_path / "held_out.jsonl", tmp_path / "own.py"
    held_out.write_text("".join(json.dumps({"prompt": f"p{i}"}) + "\n" for i in range(3)))
    reward.write_text("def own(response):\n    return 1\n")
    raw["evaluate"] |= {"data": str(held_out), "reward": [f"{reward}:own"], "samples": 0}
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"prompt": "a", "completion": "b"}) + "\n")
    raw["stages"] = {"sft": raw["stages"]["sft"] | {"data": str(rows)}}
    loaded, out = load_recipe(write(tmp_path, raw)), tmp_path / "out"
    stages = check_stages(loaded, out)
    with closing(Evaluator(loaded, stages, out)) as evaluator:
        evaluator.evaluate("start", "tiny-random")
        evaluator.check_earlier(["start", "sft"])
    settings = json.loads((out / "start" / "evaluations" / "held_out.json").read_text())["settings"]
    assert settings["reference"] and settings["tasks_hash"] and settings["top_p"] == 1 and settings["tasks"] == 3
    reward.write_text("def own(response):\n    return 0\n")
    with closing(Evaluator(loaded, stages, out)) as evaluator, pytest.raises(InputError, match="content of own.py"):
        evaluator.check_earlier(["start", "sft"])
    held_out.write_text(json.dumps({"prompt": "other"}) + "\n")
    message = r"start was evaluated when something else stood .* tasks \(3 of "
    with closing(Evaluator(loaded, stages, out)) as evaluator, pytest.raises(InputError, match=message):
        evaluator.check_earlier(["start", "sft"])


def test_the_users_own_recipe_is_not_overwritten(tmp_path: Path) -> None:
    name = write(tmp_path, recipe(tmp_path))
    before = Path(name).read_text()
    with pytest.raises(InputError, match=r"its recipe.yaml was not written by a run; choose another folder"):
        run_recipe(RunConfig(recipe=name, out=tmp_path))
    assert Path(name).read_text() == before


def test_held_out_tasks_that_are_trained_on_are_removed(tmp_path: Path) -> None:
    raw = recipe(tmp_path)
    raw["evaluate"]["data"] = sums(tmp_path, 0, 20)  # 12..19 are SFT rows
    del raw["stages"]["grpo"], raw["stages"]["pairs"], raw["stages"]["dpo"]
    out = tmp_path / "out"
    run_recipe(RunConfig(recipe=write(tmp_path, raw), out=out))
    evaluation = json.loads((out / "sft" / "evaluations" / "held_out.json").read_text())
    assert evaluation["settings"]["removed_as_overlap"] == 8
    assert len((out / "sft" / "evaluations" / "held_out.jsonl").read_text().splitlines()) == 12


@pytest.mark.parametrize("name", shipped_recipes())
def test_shipped_recipes_are_right(name: str, tmp_path: Path) -> None:
    assert check_stages(load_recipe(name), tmp_path)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            ("stages", "sft", "method"),
            "ppo2",
            "stage sft: method is 'ppo2'; use one of sft, dpo, online-dpo, reward-model, adversarial, rl, distill, "
            "sample, revise, average",
        ),
        (("stages", "dpo", "parent"), "pairs", "stage dpo: parent is 'pairs', which makes no model"),
        (("stages", "sft", "parent"), "grpo", "which makes no model to train or comes later; use one of start"),
        (("stages", "sft", "parent"), None, "stage sft: has no parent, the model it begins with; add parent: and one"),
        (("stages", "sft", "max_steps"), "ten", "stage sft: max_steps: must be a valid integer, not 'ten'"),
        (("stages", "grpo", "reward"), 5, "stage grpo: reward: must be a valid list, not 5"),
        (("stages", "sft", "parent"), "grpq", "stage sft: parent is 'grpq', which is no stage; use one of start"),
        (("stages", "dpo", "flops_of"), "ppo", "stage dpo: flops_of is 'ppo'"),
        (("stages", "dpo", "data"), "grpo", "makes no data; use a sample stage"),
        (
            ("stages", "pairs", "write"),
            "best",
            "stage dpo: data is the stage 'pairs', which has write: best;",
        ),
        (
            ("stages", "more"),
            {"method": "sft", "parent": "sft", "data": "pairs"},
            "sft needs one with write: best or",
        ),
        (("stages", "grpo2"), {"method": "rl", "parent": "sft", "data": "pairs"}, "method rl takes tasks"),
        (("stages", "pairs", "samples"), 1, "stage pairs: samples must be at least 2 to write pairs"),
        (("stages", "pairs", "model"), "tiny-random", "stage pairs: parent is the model to sample from"),
        (
            ("stages", "distilled"),
            {"method": "distill", "parent": "sft", "data": "d"},
            "teacher: Field required",
        ),
        (("stages", "sft", "learning_rat"), 1.0, "stage sft: learning_rat: unknown key"),
        (("stages", "grpo", "group_size"), 1, "stage grpo: group_size must be at least 2, not 1"),
        (("evaluate", "sampels"), 1, "evaluate.sampels: unknown key"),
        (("stages", "../out"), {"method": "sft", "parent": "start"}, "stage '../out': a name has letters"),
        (("stages", "start"), {"method": "sft", "parent": "start"}, "stage 'start': a name has letters"),
        (("stages", "sft", "data"), ["rows.jsonl", 3], "stage sft: data is ['rows.jsonl', 3]; give one name or a list"),
        (
            ("stages", "grpo", "data"),
            ["rows.jsonl"],
            "give one name; lists are for sft, dpo, reward-model, adversarial, distill",
        ),
        (("stages", "sft", "out"), "elsewhere", "stage sft: out is set by the pipeline"),
        (("stages",), {}, "the recipe has no stages"),
        (
            ("stages", "more"),
            {"method": "sft", "parent": "sft", "data": ["rows.jsonl", "pairs"]},
            "stage more: data is the stage 'pairs', which has write: pairs",
        ),
        (("stages", "sft", "data"), ["pairs"], "stage sft: data names pairs, which is no earlier stage"),
        (("stages", "sft", "data"), [], "data is []; give one name or a list of them"),
        (("stages", "mean"), {"method": "average"}, "stage mean: of is None; give a list of two or more of start, sft"),
        (("stages", "mean"), {"method": "average", "of": ["sft"]}, "stage mean: of is ['sft']; give a list of two"),
        (("stages", "mean"), {"method": "average", "of": ["sft", "pairs"]}, "give a list of two or more of start, sft"),
        (("stages", "mean"), {"method": "average", "of": ["sft", "dpo"], "parent": "sft"}, "mean: parent: unknown key"),
        (("sizes",), ["small"], "sizes is a mapping of names to changes"),
        (("sizes",), {"small": {"sft2.max_steps": 1}}, "size small: sft2.max_steps is not in the recipe"),
    ],
)
def test_a_wrong_recipe_names_stage_and_key(path: tuple[str, ...], value: object, message: str, tmp_path: Path) -> None:
    raw = recipe(tmp_path)
    where = raw
    for key in path[:-1]:
        where = where[key]
    where[path[-1]] = value
    with pytest.raises(InputError) as error:
        check_stages(load_recipe(write(tmp_path, raw)), tmp_path / "out")
    assert message in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_stage_that_is_given_twice_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "twice.yaml"
    file.write_text("model: tiny-random\nstages:\n  a: {method: sft}\n  a: {method: dpo}\n")
    with pytest.raises(InputError, match="'a' is given twice"):
        load_recipe(str(file))


def test_overrides(tmp_path: Path) -> None:
    name = write(tmp_path, recipe(tmp_path))
    changed = load_recipe(name, ("sft.max_steps=7", "evaluate.samples=3", "model=smollm2-135m", "seed=5"))
    assert changed.stages["sft"]["max_steps"] == 7
    assert (changed.evaluate.samples, changed.model, changed.seed) == (3, "smollm2-135m", 5)
    with pytest.raises(InputError, match=r"--set sft2.max_steps=1: sft2.max_steps is not in the recipe"):
        load_recipe(name, ("sft2.max_steps=1",))
    with pytest.raises(InputError, match="write it as stage.key=value"):
        load_recipe(name, ("sft.max_steps",))


def test_sizes(tmp_path: Path) -> None:
    raw = recipe(tmp_path)
    raw["sizes"] = {"small": None, "large": {"sft.max_steps": 9, "evaluate.samples": 3, "model": "smollm2-135m"}}
    name = write(tmp_path, raw)
    small, large = load_recipe(name), load_recipe(name, ("evaluate.samples=1",), size="large")
    assert small == load_recipe(name, size="small") and small.stages["sft"]["max_steps"] == 2
    assert (large.stages["sft"]["max_steps"], large.model) == (9, "smollm2-135m")
    assert large.evaluate.samples == 1  # --set comes last
    with pytest.raises(InputError, match="has no size 'huge'; its sizes are small, large"):
        load_recipe(name, size="huge")
    with pytest.raises(InputError, match="recipe quickstart: has no sizes; leave --size small out"):
        load_recipe("quickstart", size="small")
    folders = [RunConfig(recipe=name, size=size).folder for size in (None, "large")]
    assert folders == [Path("runs/recipe"), Path("runs/recipe-large")]


def test_held_out_prompts_are_looked_for_in_every_source_and_in_the_mix(tmp_path: Path) -> None:
    raw = recipe(tmp_path)
    held_out = tmp_path / "held_out.jsonl"
    held_out.write_text("".join(json.dumps({"prompt": f"p{i}"}) + "\n" for i in range(6)))
    turns = [{"role": "user", "content": "p2"}, {"role": "assistant", "content": "c"}]
    rows = {"one": {"prompt": "p0", "completion": "c"}, "two": {"prompt": "p1", "completion": "c"}}
    for name, row in (rows | {"mix": {"messages": turns}}).items():
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    raw["evaluate"] |= {"data": str(held_out), "reward": ["length(max_length=3)"]}
    raw["stages"]["sft"]["data"] = [str(tmp_path / "one.jsonl"), str(tmp_path / "two.jsonl")]
    raw["stages"]["grpo"]["ptx_data"] = str(tmp_path / "mix.jsonl")
    loaded = load_recipe(write(tmp_path, raw))
    with closing(Evaluator(loaded, check_stages(loaded, tmp_path / "out"), tmp_path / "out")) as evaluator:
        assert [task.prompt for task in evaluator.tasks] == ["p3", "p4", "p5"]
        assert evaluator.removed == 3


def test_held_out_prompts_that_do_not_fit_are_left_out_of_every_evaluation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Counted in the settings of each, told once; `posttrain eval` of the same file is alike; with `strict` the
    evaluation stops."""
    raw = recipe(tmp_path)
    held_out = write_rows(tmp_path / "held_out.jsonl", [{"prompt": "x" * 2048}, {"prompt": "a"}])
    rest = {"samples": 0, "max_new_tokens": 4, "retention": False}
    raw["evaluate"] = {"data": str(held_out), "reward": ["length(max_length=3)"], **rest}
    write_rows(tmp_path / "rows.jsonl", [{"prompt": "p", "completion": "c"}])
    raw["stages"]["sft"]["data"] = str(tmp_path / "rows.jsonl")
    out = tmp_path / "out"
    loaded = load_recipe(write(tmp_path, raw))
    with closing(Evaluator(loaded, check_stages(loaded, out), out)) as evaluator:
        for name in (START, "sft"):
            evaluator.evaluate(name, "tiny-random")
            suite = out / name / "evaluations" / "held_out"
            assert json.loads(suite.with_suffix(".json").read_text())["settings"]["left_out"] == 1
            assert [json.loads(line)["task"] for line in suite.with_suffix(".jsonl").read_text().splitlines()] == ["1"]
        evaluator.check_earlier([START, "sft"])
    assert capsys.readouterr().err.count("1 of 2 rows do not fit and are left out") == 1
    alone: dict[str, Any] = {k: v for k, v in raw["evaluate"].items() if k != "retention"}
    run_eval(EvalConfig(model="tiny-random", out=tmp_path / "alone", **alone))
    of_recipe, own = (Run(folder).evaluations["held_out"] for folder in (out / START, tmp_path / "alone"))
    assert differences(of_recipe, own) == []
    strict = load_recipe(write(tmp_path, raw), ("evaluate.strict=true",))
    message = r"1 of 2 rows do not fit(.|\n)*held_out.jsonl:1: the prompt has"
    with closing(Evaluator(strict, check_stages(strict, out), out)) as judge, pytest.raises(InputError, match=message):
        judge.evaluate("grpo", "tiny-random")


def test_bad_data_is_found_before_anything_is_written(tmp_path: Path) -> None:
    raw = recipe(tmp_path)
    broken = tmp_path / "rows.jsonl"
    broken.write_text('{"prompt": "a", "completion": "b"}\n{"prompt": "a"\n')
    raw["stages"]["sft"]["data"] = str(broken)
    with pytest.raises(InputError, match=r"rows.jsonl:2"):
        run_recipe(RunConfig(recipe=write(tmp_path, raw), out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()
