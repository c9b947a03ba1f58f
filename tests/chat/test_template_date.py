"""A run keeps the date that its chat templates write, whatever the day on which it is resumed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest
import yaml

from posttrain.chat import ChatFormat, template_date
from posttrain.chat.template_date import VARIABLE, fixed_date
from posttrain.config import DpoConfig, EvalConfig, RlConfig, RunConfig, SampleConfig, SftConfig
from posttrain.evals.run import run_eval
from posttrain.models import model_writes_date
from posttrain.models.load import model_folder
from posttrain.recipes.run import run_recipe
from posttrain.rewards.registry import Spec, local_models
from posttrain.rewards.scorer import Scorer
from posttrain.runs.files import read_jsonl
from posttrain.train.dpo.stage import train_dpo
from posttrain.train.generate.sample import sample_answers
from posttrain.train.rl.setup import train_rl
from posttrain.train.sft import train_sft
from posttrain.types import InputError
from posttrain.workers.process import Worker
from tests.chat.test_chat import CHATML, tokenizer

DATED = "{{ '<|im_start|>system\nToday is ' + strftime_now('%d %b %Y %H:%M') + '<|im_end|>\n' }}" + CHATML
MONDAY, TUESDAY = date(2025, 1, 6), date(2025, 1, 7)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with a template that writes today's date."""
    folder = tmp_path_factory.mktemp("dated") / "model"
    shutil.copytree(model_folder("tiny-random"), folder)
    (folder / "chat_template.jinja").write_text(DATED)
    return folder


@pytest.fixture
def day(monkeypatch: pytest.MonkeyPatch) -> Callable[[date], None]:
    """Sets what day it is."""
    monkeypatch.delenv(VARIABLE, raising=False)

    def turn(to: date) -> None:
        monkeypatch.setattr(template_date, "date", type("Day", (date,), {"today": staticmethod(lambda: to)}))

    turn(MONDAY)
    return turn


def rows(path: Path, lines: list[dict[str, object]]) -> str:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def written(run: Path) -> object:
    return yaml.safe_load((run / "config.yaml").read_text()).get("template_date")


def cut_back(run: Path, to: Path, step: int) -> Path:
    """The run as if it had been killed after a checkpoint."""
    shutil.copytree(run, to)
    for name in ("model", "lineage.json", "cost.json"):
        shutil.rmtree(to / name) if (to / name).is_dir() else (to / name).unlink()
    for checkpoint in (to / "checkpoints").iterdir():
        if int(checkpoint.name.removeprefix("step-")) > step:
            shutil.rmtree(checkpoint)
    return to


def losses(run: Path) -> list[object]:
    return [(row["step"], row["loss"]) for row in read_jsonl(run / "metrics.jsonl")]


def test_templates_get_midnight_of_the_day_they_are_loaded_on(day: Callable[[date], None]) -> None:
    made = tokenizer(DATED)
    chat = ChatFormat(made)
    day(TUESDAY)
    assert made.decode(chat.prompt_ids("q")).startswith("<|im_start|>system\nToday is 06 Jan 2025 00:00<|im_end|>")
    assert "07 Jan 2025" in made.decode(ChatFormat(made).prompt_ids("q"))
    assert chat.writes_date and not ChatFormat(tokenizer(CHATML)).writes_date


def test_the_variable_sets_the_day_for_this_process_and_its_workers(
    day: Callable[[date], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(VARIABLE, "2024-02-29")
    assert "29 Feb 2024" in tokenizer(DATED).decode(ChatFormat(tokenizer(DATED)).prompt_ids("q"))
    with fixed_date(MONDAY):
        worker = Worker("tests.servers.date:Today")
        assert worker.ask({}, 60) == {"day": "2025-01-06"}
        worker.close()
    assert template_date.template_date() == date(2024, 2, 29)
    monkeypatch.setenv(VARIABLE, "yesterday")
    with pytest.raises(InputError, match="POSTTRAIN_TEMPLATE_DATE is 'yesterday'; give a date as 2025-01-31"):
        ChatFormat(tokenizer(DATED))


def test_a_run_that_is_resumed_on_another_day_is_the_run_that_was_not(
    model: Path,
    tmp_path: Path,
    day: Callable[[date], None],
) -> None:
    data = rows(tmp_path / "d.jsonl", [{"prompt": f"colour {i}", "completion": c} for i, c in enumerate("abcd")])

    def config(out: str, resume: bool = False) -> SftConfig:
        return SftConfig(
            model=str(model),
            data=data,
            out=tmp_path / out,
            max_steps=3,
            batch_size=2,
            save_every=1,
            keep=9,
            learning_rate=1e-3,
            resume=resume,
        )

    train_sft(config("whole"))
    assert written(tmp_path / "whole") == "2025-01-06"
    day(TUESDAY)
    cut_back(tmp_path / "whole", tmp_path / "cut", 1)
    train_sft(config("cut", resume=True))
    train_sft(config("later"))
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole") != losses(tmp_path / "later")
    assert written(tmp_path / "cut") == "2025-01-06" and written(tmp_path / "later") == "2025-01-07"
    settings = yaml.safe_load((tmp_path / "cut" / "config.yaml").read_text())
    del settings["template_date"]  # as a run from before dates were kept
    (tmp_path / "cut" / "config.yaml").write_text(yaml.safe_dump(settings))
    shutil.rmtree(tmp_path / "cut" / "model")
    (tmp_path / "cut" / "lineage.json").unlink()
    with pytest.raises(InputError, match="does not say which date its chat template wrote"):
        train_sft(config("cut", resume=True))
    train_sft(config("plain").model_copy(update={"model": "tiny-random"}))
    assert written(tmp_path / "plain") is None


def test_the_stored_reference_of_dpo_holds_on_another_day(
    model: Path,
    tmp_path: Path,
    day: Callable[[date], None],
) -> None:
    """The policy does not move, so that it never drifts from what was stored on the first day."""
    data = rows(tmp_path / "p.jsonl", [{"prompt": f"{i}", "chosen": "yes", "rejected": "no"} for i in range(2)])

    def config(resume: bool) -> DpoConfig:
        return DpoConfig(
            model=str(model),
            data=data,
            out=tmp_path / "run",
            max_steps=2,
            batch_size=2,
            save_every=1,
            keep=9,
            learning_rate=1e-20,
            resume=resume,
        )

    train_dpo(config(False))
    cut = cut_back(tmp_path / "run", tmp_path / "copy", 1)
    shutil.rmtree(tmp_path / "run")
    cut.rename(tmp_path / "run")
    day(TUESDAY)
    train_dpo(config(True))
    drifts = [row["chosen_drift"] for row in read_jsonl(tmp_path / "run" / "metrics.jsonl")]
    assert len(drifts) == 2 and max(map(abs, drifts)) < 1e-4


def test_sampling_stages_and_evaluations_say_their_date(
    model: Path,
    tmp_path: Path,
    day: Callable[[date], None],
) -> None:
    tasks = rows(tmp_path / "t.jsonl", [{"prompt": "1+1?", "answer": "2"}])
    common = {"model": str(model), "data": tasks, "max_new_tokens": 2}
    train_rl(RlConfig(**common, out=tmp_path / "rl", reward=("math",), max_steps=1, batch_size=2, group_size=2))
    sample_answers(SampleConfig(**common, out=tmp_path / "sample", write="all", samples=1, truncated="keep"))
    day(TUESDAY)
    run_eval(EvalConfig(**common, out=tmp_path / "rl", reward=("math",), samples=0))
    assert (written(tmp_path / "rl"), written(tmp_path / "sample")) == ("2025-01-06", "2025-01-06")
    evaluation = json.loads((tmp_path / "rl" / "evaluations" / "held_out.json").read_text())
    assert evaluation["settings"]["template_date"] == "2025-01-07"  # that of its use, not of the training


def test_a_pipeline_has_one_date(model: Path, tmp_path: Path, day: Callable[[date], None]) -> None:
    """That of its first evaluation, for stages and evaluations of later days too."""
    tasks = rows(tmp_path / "t.jsonl", [{"prompt": "1+1?", "answer": "2"}])
    data = rows(tmp_path / "d.jsonl", [{"prompt": "2+2?", "completion": "4"}])
    evaluate = {"data": tasks, "reward": ["math"], "samples": 0, "max_new_tokens": 2, "retention": False}
    stage = {"method": "sft", "parent": "start", "data": data, "max_steps": 1}
    recipe = {"model": str(model), "evaluate": evaluate, "stages": {"one": stage}}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
    config = RunConfig(recipe=str(tmp_path / "r.yaml"), out=tmp_path / "out")
    run_recipe(config)
    shutil.rmtree(tmp_path / "out" / "one")
    day(TUESDAY)
    run_recipe(config)
    settings = [
        json.loads((tmp_path / "out" / name / "evaluations" / "held_out.json").read_text())["settings"]
        for name in ("start", "one")
    ]
    assert [each["template_date"] for each in settings] == ["2025-01-06"] * 2 == [written(tmp_path / "out" / "one")] * 2


def test_the_models_of_rewards_count_too(model: Path) -> None:
    judged = f'gate(judge(model="{model}", rubric="r"), judge_pair(model="m", url="http://x", rubric="r"))'
    rewards = [Spec.parse(text).expression for text in (judged, "math", "implicit(one, two) as drift=0.1")]
    assert local_models(rewards) == [str(model), "one", "two"]
    assert model_writes_date(str(model)) and not model_writes_date("tiny-random")
    with Scorer((f"implicit({model}, tiny-random)",), columns=["answer"], timeout_seconds=60, workers=1) as scorer:
        assert scorer.writes_date
