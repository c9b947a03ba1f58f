"""Critique and revision: what the model is asked, what is written, what is left out, and resuming."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from posttrain.cli.main import main
from posttrain.config import ReviseConfig, RunConfig
from posttrain.data.fitting import DoesNotFit, Fitted
from posttrain.data.formats import load_sft
from posttrain.recipes.run import run_recipe
from posttrain.rewards.judge.prompts import read_rubric, shipped_rubrics
from posttrain.rollout import RolloutRequest
from posttrain.runs.log import RunLog
from posttrain.train.generate.revise import CRITIQUE, REVISE, _Revising, revise_answers
from posttrain.train.generate.sources import Sampled
from posttrain.types import InputError, Message, Rollout, RunFailed, Task
from tests.servers.chat import ChatServer, serve
from tests.servers.critic import Critic
from tests.training_helpers import events, metrics, read_rows, write_rows

PRINCIPLES = "criteria:\n  kind: The answer is kind.\n  short: The answer is short.\n"


@pytest.fixture
def critic(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    """A running `critic_server`."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serve(Critic) as running:
        yield running


def config(
    tmp_path: Path, url: str | None = None, prompts: tuple[Any, ...] = ("one", "two"), **options: Any
) -> ReviseConfig:
    write_rows(tmp_path / "tasks.jsonl", [{"prompt": prompt} for prompt in prompts])
    (tmp_path / "principles.yaml").write_text(PRINCIPLES)
    source = {"model": "tiny-random"} if url is None else {"endpoint": url, "endpoint_model": "m"}
    options = {"data": str(tmp_path / "tasks.jsonl"), "principles": str(tmp_path / "principles.yaml"), **options}
    return ReviseConfig(**{"out": tmp_path / "out", **source, **options})


def test_answer_critique_and_revision_by_a_principle_each(critic: ChatServer, tmp_path: Path) -> None:
    revise_answers(config(tmp_path, critic.url))
    rows = read_rows(tmp_path / "out" / "sft.jsonl")
    assert [(row["prompt"], row["first_answer"], row["completion"]) for row in rows] == [
        (prompt, f"{prompt}: first", f"{prompt}: revised twice") for prompt in ("one", "two")
    ]
    for row in rows:
        assert sorted(turn["principle"] for turn in row["rounds"]) == ["kind", "short"]
        assert [turn["revision"] for turn in row["rounds"]] == [f"{row['prompt']}: revised{n}" for n in ("", " twice")]
        assert [turn["critique"] for turn in row["rounds"]] == [f"not {turn['principle']}" for turn in row["rounds"]]
        assert (row["model"], row["weights_hash"]) == ("m", None)
    asked = [row["request"]["messages"] for row in critic.requests()]
    assert sorted(map(len, asked)) == [1, 1, 3, 3, 3, 3, 5, 5, 5, 5]
    # the second critique sees the first revision as the answer, and nothing of the first critique
    (second,) = [m for m in asked if len(m) == 3 and m[1]["content"] == "one: revised"]
    assert second[0] == {"role": "user", "content": "one"}
    assert [row.where for row in load_sft(str(tmp_path / "out" / "sft.jsonl"))]
    assert json.loads((tmp_path / "out" / "lineage.json").read_text())["rows"] == 2


def test_what_cannot_be_revised_to_its_end_is_left_out(critic: ChatServer, tmp_path: Path) -> None:
    prompts = ("one", "silent", "endless", "refused", "critique cut")
    revise_answers(config(tmp_path, critic.url, prompts, endpoint_retries=0, revisions=1))
    assert [row["prompt"] for row in read_rows(tmp_path / "out" / "sft.jsonl")] == ["one"]
    record = read_rows(tmp_path / "out" / "revisions.jsonl")
    assert [row["dropped"] for row in record] == [None, "empty", "truncated", "failed", "truncated"]
    assert "answers 400" in record[3]["error"]
    (told,) = events(tmp_path / "out", "dropped")
    assert {**told, "event": None} == {"event": None, "empty": 1, "truncated": 2, "failed": 1}
    with pytest.raises(RunFailed, match="no answer could be revised to its end"):
        revise_answers(config(tmp_path, critic.url, ("silent",), out=tmp_path / "none"))


def test_a_spent_budget_stops_and_a_resume_asks_only_what_is_left(critic: ChatServer, tmp_path: Path) -> None:
    options: dict[str, Any] = {"prompts": ("one", "two", "three"), "max_concurrent": 1, "endpoint_concurrency": 1}
    with pytest.raises(RunFailed, match="budget of max_requests=7 is spent"):
        revise_answers(config(tmp_path, critic.url, endpoint_max_requests=7, **options))
    assert len(metrics(tmp_path / "out")) == 1
    revise_answers(config(tmp_path, critic.url, resume=True, **options))
    assert len(critic.requests()) == 3 * 5
    whole = config(tmp_path, critic.url, out=tmp_path / "whole", **options)
    revise_answers(whole)
    assert (tmp_path / "whole" / "sft.jsonl").read_bytes() == (tmp_path / "out" / "sft.jsonl").read_bytes()
    assert (tmp_path / "whole" / "revisions.jsonl").read_bytes() == (tmp_path / "out" / "revisions.jsonl").read_bytes()


def test_other_principles_are_another_run(critic: ChatServer, tmp_path: Path) -> None:
    spent = config(tmp_path, critic.url, endpoint_max_requests=1, endpoint_concurrency=1)
    with pytest.raises(RunFailed, match="is spent"):
        revise_answers(spent)
    (tmp_path / "principles.yaml").write_text(PRINCIPLES.replace("is kind", "is very kind"))
    with pytest.raises(InputError, match="principles"):
        revise_answers(spent.model_copy(update={"resume": True}))


def test_a_model_here_whose_answers_are_cut_gives_no_row(tmp_path: Path) -> None:
    """The tiny model never ends an answer: what the token limit cuts is no answer to learn from."""
    with pytest.raises(RunFailed, match="no answer could be revised to its end"):
        revise_answers(config(tmp_path, max_new_tokens=4))
    record = read_rows(tmp_path / "out" / "revisions.jsonl")
    assert [row["dropped"] for row in record] == ["truncated", "truncated"]
    assert metrics(tmp_path / "out")[-1]["flops"] > 0


class ShortContext:
    """A `Source` that answers `ok` and has room for the first question only."""

    name = "short"
    weights_hash = None

    def fitting(self, tasks: Sequence[Task]) -> Fitted[Task]:
        left_out = tuple(DoesNotFit(t.id, "it is long", "cut it") for t in tasks if len(t.prompt) >= 3)
        return Fitted(len(tasks), [t for t in tasks if len(t.prompt) < 3], 0, left_out)

    def sample(self, plans: Sequence[RolloutRequest]) -> Sampled:
        said = (Message("assistant", "ok"),)
        rollouts = [Rollout(p.task.id, 0, p.sampling, p.seed, said, (), "ok") for p in plans]
        return Sampled(tuple(rollouts), 7 * len(plans), 5.0)


def test_a_conversation_that_outgrows_the_context_is_left_out(tmp_path: Path) -> None:
    options = config(tmp_path)
    tasks = [Task("a", "one"), Task("b", (Message("user", "u"), Message("assistant", "a"), Message("user", "u")))]
    with RunLog(tmp_path / "out", {}, resume=False) as log:
        stage = _Revising(options, read_rubric(options.principles, "0-1"), tasks, ShortContext(), log)  # type: ignore[arg-type]
        first, second = stage.all()
    assert (first.first_answer, first.dropped, first.rounds) == ("ok", "too_long", [])
    assert (second.first_answer, second.dropped) == ("", "too_long")
    assert metrics(tmp_path / "out")[0]["tokens"] == 7


def test_in_a_recipe_sft_learns_from_revisions(critic: ChatServer, tmp_path: Path) -> None:
    sums = "reasoning-gym:chain_sum?seed=7&min_terms=2&max_terms=2&min_digits=1&max_digits=1&start=0&size=2"
    write_rows(tmp_path / "tasks.jsonl", [{"prompt": "one"}, {"prompt": "two"}])
    source = {"endpoint": critic.url, "endpoint_model": "m"}
    revise = {"method": "revise", **source, "data": str(tmp_path / "tasks.jsonl"), "principles": "honest"}
    recipe = {
        "description": "Constitutional SFT.",
        "model": "tiny-random",
        "evaluate": {"data": sums, "reward": ["reasoning-gym"], "samples": 0, "max_new_tokens": 2, "retention": False},
        "stages": {
            "revised": revise,
            "sft": {"method": "sft", "parent": "start", "data": "revised", "max_steps": 1},
        },
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    run_recipe(RunConfig(recipe=str(tmp_path / "recipe.yaml"), out=tmp_path / "out"))
    assert json.loads((tmp_path / "out" / "sft" / "lineage.json").read_text())["stage"] == "sft"
    assert len(read_rows(tmp_path / "out" / "revised" / "sft.jsonl")) == 2
    run_recipe(RunConfig(recipe=str(tmp_path / "recipe.yaml"), out=tmp_path / "out"))  # nothing is left to do
    recipe["stages"]["dpo"] = {"method": "dpo", "parent": "sft", "data": "revised"}  # type: ignore[index]
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    with pytest.raises(InputError, match="which has write: all; method dpo needs one with write: pairs"):
        run_recipe(RunConfig(recipe=str(tmp_path / "recipe.yaml"), out=tmp_path / "other"))


def test_the_shipped_principles_are_rubrics() -> None:
    assert shipped_rubrics() == ["harmless", "honest"]
    for name in shipped_rubrics():
        criteria = read_rubric(name, "0-1")
        assert len(criteria) >= 4
        assert all(
            (c.low, c.high) == (1, 10) and c.text.startswith(("The answer", "Everything", "Where")) for c in criteria
        )
    assert "{principle}" in CRITIQUE and "{" not in REVISE


def test_on_the_command_line(critic: ChatServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(tmp_path / "tasks.jsonl", [{"prompt": "one"}])
    source = ["--endpoint", critic.url, "--endpoint-model", "m", "--data", str(tmp_path / "tasks.jsonl")]
    out = tmp_path / "out"
    assert main(["revise", *source, "--principles", "honest", "--revisions", "1", "--out", str(out)]) == 0
    assert capsys.readouterr().out.strip() == str(out / "sft.jsonl")
    assert read_rows(out / "sft.jsonl")[0]["completion"] == "one: revised"
    other = ["--out", str(tmp_path / "other")]
    assert main(["revise", *source, "--principles", "nowhere.yaml", *other]) == 2
    assert "there is no rubric file nowhere.yaml" in capsys.readouterr().err
    assert main(["revise", "--model", "tiny-random", "--data", "d.jsonl", "--raw", *other]) == 2
    assert "leave raw out" in capsys.readouterr().err
