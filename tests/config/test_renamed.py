"""Options that have another name now, read by the old one."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from posttrain import console
from posttrain.cli.options import parse_options
from posttrain.config import RlConfig
from posttrain.recipes.load import load_recipe
from posttrain.recipes.run import _claim, _text
from posttrain.runs.config import read_settings

RECIPE = {
    "model": "tiny-random",
    "stages": {
        "rl": {"method": "rl", "parent": "start", "data": "d.jsonl", "reward": "math", "engine_slots": 8},
        "more": {"method": "rl", "parent": "rl", "data": "d.jsonl", "reward": "math"},
    },
}


@pytest.fixture(autouse=True)
def nothing_told() -> None:
    console._warn_once.cache_clear()


@pytest.mark.parametrize("given", [["--engine-slots", "8"], ["--engine-slots=8"], ["--max-concurrent", "8"]])
def test_an_option(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--model", "tiny-random", "--data", "d.jsonl", "--out", "o", "--reward", "math"]
    assert parse_options(RlConfig, [*words, *given], "posttrain rl").max_concurrent == 8
    assert ("warning: engine_slots is called max_concurrent now" in capsys.readouterr().err) == ("max" not in given[0])


def test_a_recipe_and_the_one_of_an_earlier_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(yaml.safe_dump(RECIPE, sort_keys=False))
    recipe = load_recipe(str(file), ("more.engine_slots=4",))
    assert [stage["max_concurrent"] for stage in recipe.stages.values()] == [8, 4]
    assert load_recipe(str(file), ("rl.engine_slots=2",)).stages["rl"]["max_concurrent"] == 2
    assert capsys.readouterr().err.count("warning: ") == 1
    out = tmp_path / "out"
    (out / "rl").mkdir(parents=True)
    (out / "recipe.yaml").write_text(_text(recipe).replace("max_concurrent", "engine_slots"))
    _claim(out, recipe)
    assert "max_concurrent: 8" in (out / "recipe.yaml").read_text()


def test_the_settings_of_an_earlier_run(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("seed: 1\nengine_slots: 8\ntop_k: 0\n")
    settings, notes = read_settings(tmp_path / "config.yaml")
    assert (list(settings.items()), notes) == ([("seed", 1), ("max_concurrent", 8), ("top_k", 0)], ())
