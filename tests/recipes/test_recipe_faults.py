"""Recipes that are wrong in a late stage, folders with odd names, pooled sources and averages of unlike models."""

from __future__ import annotations

import datetime
import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from posttrain.cli.main import main
from posttrain.config import AverageConfig, RunConfig
from posttrain.data.formats import pooled_text
from posttrain.models import load_model
from posttrain.models.load import model_folder
from posttrain.recipes.load import load_recipe
from posttrain.recipes.run import _claim, run_recipe
from posttrain.rewards.registry import Spec
from posttrain.rows import CompletionRow, MessagesRow, row_prompts
from posttrain.train.average import average_models
from posttrain.types import InputError, Message
from tests.recipe_helpers import check_stages
from tests.training_helpers import metrics, pair_rows, sft_rows, write_rows


def stages(tmp_path: Path) -> dict[str, dict[str, Any]]:
    """A stage of most methods, each of a step."""
    rows = str(write_rows(tmp_path / "rows.jsonl", sft_rows(8)))
    pairs = str(write_rows(tmp_path / "pairs.jsonl", pair_rows(8)))
    tasks = str(write_rows(tmp_path / "prompts.jsonl", [{"prompt": row["prompt"]} for row in sft_rows(8)]))
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    write_rows(tmp_path / "turns.jsonl", [{"messages": turns}])
    common = {"parent": "start", "max_steps": 1}
    answers = {"parent": "start", "data": tasks, "max_new_tokens": 4}
    return {
        "sft": {"method": "sft", "data": rows, **common},
        "rm": {"method": "reward-model", "data": pairs, "batch_size": 4, **common},
        "answers": {"method": "sample", "write": "all", "samples": 2, "truncated": "keep", **answers},
        "revised": {"method": "revise", "principles": "honest", **answers},
        "rl": {
            "method": "rl",
            "data": tasks,
            "reward": ["learned({rm})"],
            "batch_size": 4,
            "group_size": 2,
            "max_new_tokens": 4,
            **common,
        },
        "more": {"method": "sft", "data": ["answers", rows], **common},
        "mean": {"method": "average", "of": ["sft", "more"]},
    }


def write(tmp_path: Path, of: dict[str, dict[str, Any]], model: str = "tiny-random") -> str:
    held_out = write_rows(tmp_path / "held out.jsonl", [{"prompt": f"Name {n}"} for n in range(3)])
    evaluate = {"data": str(held_out), "reward": ["length(max_length=3)"], "samples": 0, "max_new_tokens": 4}
    raw = {"model": model, "evaluate": {**evaluate, "retention": False}, "stages": of}
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(raw, sort_keys=False))
    return str(file)


# -- told before anything runs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stage", "changes", "message"),
    [
        (
            "rl",
            {"reward": ["learned({rn})"]},
            "stage rl: reward 'learned({rn})' names {rn}, and the recipe has no such",
        ),
        ("rl", {"reward": ["{rn}"]}, "names {rn}, and the recipe has no such stage"),
        ("rl", {"reward": "learned({rn})"}, "stage rl: reward 'learned({rn})' names {rn}"),
        ("rl", {"reward": ["maths"]}, "stage rl: unknown reward 'maths'"),
        ("rl", {"reward": ["gate(format, nowhere.py:f)"]}, "there is no file nowhere.py"),
        ("rl", {"eval_data": "nowhere.jsonl", "eval_every": 1}, "no such file: nowhere.jsonl"),
        ("revised", {"principles": "none.yaml"}, "stage revised: there is no rubric file none.yaml"),
        ("more", {"data": ["{rows}", "{turns}"]}, "turns.jsonl has a 'messages' column, but"),
        ("more", {"data": ["answers", "{turns}"]}, "turns.jsonl has a 'messages' column, but answers has 'prompt' and"),
    ],
)
def test_what_is_wrong_with_a_late_stage_is_told_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], stage: str, changes: dict[str, Any], message: str
) -> None:
    of = stages(tmp_path)
    if "data" in changes:
        changes = {
            "data": [name.format(**{n: tmp_path / f"{n}.jsonl" for n in ("rows", "turns")}) for name in changes["data"]]
        }
    of[stage] |= changes
    out = tmp_path / "out"
    assert main(["run", write(tmp_path, of), "--out", str(out)]) == 2
    told = capsys.readouterr().err.strip()
    assert message in told and told.startswith("error: ") and "\n" not in told
    assert not out.exists()


@pytest.mark.parametrize(
    ("stage", "settings", "message"),
    [
        ("mean", {"method": "average", "of": ["sft", ["more"]]}, "of is ['sft', ['more']]; give a list of two"),
        (
            "last",
            {"method": "sft", "parent": "sft", "data": "d", "flops_of": "mean"},
            "'mean', which takes no operations",
        ),
        (
            "last",
            {"method": "sft", "parent": "sft", "data": "d", "flops_of": "sft", "max_flops": 1.0},
            "leave one of them",
        ),
        (
            "last",
            {"method": "distill", "parent": "sft", "data": "d", "teacher": "rm"},
            "teacher is 'rm', no earlier stage with a model; use start, sft, rl, more, mean",
        ),
        (
            "rm",
            {"method": "reward-model", "parent": "start", "data": "d", "policy": "more"},
            "policy is 'more', no earlier",
        ),
    ],
)
def test_stages_that_name_the_wrong_stage(tmp_path: Path, stage: str, settings: dict[str, Any], message: str) -> None:
    of = stages(tmp_path)
    of[stage] = settings
    with pytest.raises(InputError) as error:
        check_stages(load_recipe(write(tmp_path, of)), tmp_path / "out")
    assert message in str(error.value)


def test_a_recipe_of_endpoints_alone_can_be_planned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answers = {"method": "sample", "write": "all", "data": "d.jsonl", "endpoint": "http://x/v1", "endpoint_model": "m"}
    of = {"answers": answers, "sft": {"method": "sft", "parent": "start", "data": "answers", "flops_of": "answers"}}
    with pytest.raises(InputError, match="flops_of is 'answers', which takes no operations here"):
        check_stages(load_recipe(write(tmp_path, of)), tmp_path)
    assert main(["run", write(tmp_path, {"answers": answers}), "--plan"]) == 0
    assert "Memory in bytes" in capsys.readouterr().out


def test_a_folder_in_which_nothing_has_begun_may_be_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    of = {"sft": stages(tmp_path)["sft"]}
    out = tmp_path / "out"
    assert main(["run", write(tmp_path, of, model="./nowhere"), "--out", str(out)]) == 2
    assert "no such folder" in capsys.readouterr().err
    right = load_recipe(write(tmp_path, of))
    _claim(out, right)
    assert load_recipe(str(out / "recipe.yaml")) == right
    (out / "start").mkdir()
    with pytest.raises(InputError, match="model differs"):
        _claim(out, right.model_copy(update={"model": "./nowhere"}))
    mixed = right.model_copy(update={"stages": {"sft": {**right.stages["sft"], "ptx_data": "shown.jsonl"}}})
    with pytest.raises(InputError, match="sft.ptx_data differs"):  # it too decides which tasks are held out
        _claim(out, mixed)


def test_settings_may_be_taken_over_with_a_merge_key(tmp_path: Path) -> None:
    file = tmp_path / "merged.yaml"
    head = yaml.safe_dump({"model": "tiny-random", "evaluate": {"data": "t.jsonl", "reward": ["math"]}})
    first, second = "a: &a {method: sft, parent: start, data: d, seed: 1}", "b: {<<: *a, parent: a, seed: 2}"
    file.write_text(f"{head}stages:\n  {first}\n  {second}\n")
    recipe = load_recipe(str(file))
    assert recipe.stages["b"] == {"method": "sft", "parent": "a", "data": "d", "seed": 2}
    assert recipe.stages["a"]["seed"] == 1


# -- models of stages in rewards --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "read", "models"),
    [
        ("learned({rm})=0.5", "learned", ["{out}/rm/model"]),
        ('learned("{rm}", use="min")', "learned", ["{out}/rm/model"]),
        ("{rm}", "learned", ["{out}/rm/model"]),
        ('"{rm}" as liked=0.5', "liked", ["{out}/rm/model"]),
        ("gate(format, implicit({sft}, {start}))", "gate", ["{out}/sft/model", "tiny-random"]),
        ('regex(pattern="[a-z]{3}")', "regex", []),
    ],
)
@pytest.mark.parametrize("out", ["runs/one", "my runs/a (1), b=c"])
def test_models_are_named_wherever_they_are(
    tmp_path: Path, written: str, read: str, models: list[str], out: str
) -> None:
    of = stages(tmp_path)
    of["rl"]["reward"] = [written]
    spec = next(s for s in check_stages(load_recipe(write(tmp_path, of)), Path(out)) if s.name == "rl")
    (text,) = spec.options["reward"]
    parsed = Spec.parse(text)
    assert parsed.name == read
    assert [model for part in parsed.expression.walk() for model in part.models] == [m.format(out=out) for m in models]
    assert models or text == written


def test_a_folder_with_a_space_and_a_policy_of_a_stage(tmp_path: Path) -> None:
    of = stages(tmp_path)
    held_out = str(write_rows(tmp_path / "h.jsonl", pair_rows(3)))
    of["rm"] |= {
        "members": 2,
        "eval_data": held_out,
        "eval_every": 1,
        "best_of": 4,
        "policy": "sft",
        "max_new_tokens": 4,
    }
    out = tmp_path / "my runs" / "a b"
    run_recipe(RunConfig(recipe=write(tmp_path, {name: of[name] for name in ("sft", "rm", "rl")}), out=out))
    assert metrics(out / "rl")[0]["reward/learned"] is not None
    assert yaml.safe_load((out / "rm" / "config.yaml").read_text())["policy"] == str(out / "sft" / "model")


# -- rows -------------------------------------------------------------------------------------------------------------


def test_pooled_rows_hold_what_json_has_no_form_for(tmp_path: Path) -> None:
    day = datetime.datetime(2024, 5, 6)
    file = tmp_path / "dated.parquet"
    row = {"prompt": "p", "completion": "c", "created": day}
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), file)
    own = str(write_rows(tmp_path / "own.jsonl", [{"prompt": "é", "completion": "d"}]))
    pooled = [json.loads(line) for line in pooled_text([own, str(file), "reasoning-gym:chain_sum?size=1"]).splitlines()]
    assert pooled[:2] == [{"prompt": "é", "completion": "d"}, {**row, "created": str(day)}]
    assert set(pooled[2]) == {"prompt", "completion"}
    assert set(json.loads(pooled_text(["humaneval"]).splitlines()[0])) == {"prompt"}


def test_every_prompt_of_a_conversation_is_shown() -> None:
    """A held-out conversation that is the beginning of one that was trained is found again."""
    one, answer, two, last = turns = tuple(
        Message(role, text) for role, text in (("user", "1"), ("assistant", "a"), ("user", "2"), ("assistant", "b"))
    )
    assert row_prompts(MessagesRow("w", turns)) == ((one,), (one, answer, two), "1", "2")
    assert row_prompts(CompletionRow("w", (one,), (answer, two, last))) == ((one,), (one, answer, two), "2")
    assert row_prompts(CompletionRow("w", "p", "c")) == ("p",)


# -- averages ---------------------------------------------------------------------------------------------------------


def changed(folder: Path, by: float, kind: torch.dtype = torch.float32, **config: int) -> str:
    """tiny-random with every weight moved, in another type or with another configuration."""
    shutil.copytree(model_folder("tiny-random"), folder)
    weights = {name: (w + by).to(kind) for name, w in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | config))
    return str(folder)


def test_the_finer_type_is_kept_whatever_the_order(tmp_path: Path) -> None:
    coarse, fine = changed(tmp_path / "coarse", 0.25, torch.bfloat16), changed(tmp_path / "fine", 0.5)
    name = "model.layers.0.mlp.up_proj.weight"
    mean = sum(load_file(Path(m) / "model.safetensors")[name].double() for m in (coarse, fine)) / 2
    for i, models in enumerate(((coarse, fine), (fine, coarse))):
        average_models(AverageConfig(models=models, out=tmp_path / str(i)))
        found = load_file(tmp_path / str(i) / "model" / "model.safetensors")[name]
        assert found.dtype == torch.float32 and found.equal(mean.float())


def test_an_average_of_unlike_templates_says_whose_it_gets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny, other = model_folder("tiny-random"), changed(tmp_path / "other", 0.5)
    (Path(other) / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    average_models(AverageConfig(models=(tiny, tiny), out=tmp_path / "alike"))
    assert "template" not in capsys.readouterr().err
    average_models(AverageConfig(models=(tiny, other), out=tmp_path / "out"))
    told = capsys.readouterr().err
    assert f"{other} was saved with another chat template than {tiny}, and the average gets that of {tiny}" in told
    assert load_model(str(tmp_path / "out")).tokenizer.chat_template == load_model(tiny).tokenizer.chat_template


def test_models_that_cannot_be_read_or_differ_in_heads(tmp_path: Path) -> None:
    tiny = model_folder("tiny-random")
    heads = changed(tmp_path / "heads", 0.0, num_attention_heads=8, num_key_value_heads=4, head_dim=16)
    broken, bare = Path(changed(tmp_path / "broken", 0.0)), Path(changed(tmp_path / "bare", 0.0))
    (broken / "config.json").write_text("{")
    for file in bare.glob("*token*"):
        file.unlink()
    for other, what in (
        (heads, "num_attention_heads is 8 and 4"),
        (broken, "cannot be read"),
        (bare, "cannot be read"),
    ):
        with pytest.raises(InputError, match=f"{other}.*{what}"):
            average_models(AverageConfig(models=(tiny, str(other)), out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()
