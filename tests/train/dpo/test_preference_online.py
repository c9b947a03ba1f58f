"""Online DPO: which pairs a step takes, its loss and gradient against plain ones, and what it learns."""

from __future__ import annotations

import json
import math
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
import torch
import yaml
from torch.nn.functional import logsigmoid

from posttrain.cli.main import main
from posttrain.config import OnlineDpoConfig, RunConfig
from posttrain.engine.local.engine import LocalEngine
from posttrain.models import load_model
from posttrain.recipes.run import run_recipe
from posttrain.rewards.scorer import Scorer
from posttrain.runs.log import RunLog
from posttrain.train.dpo.online import OnlineDpo, pairs_of, train_online_dpo, with_signs
from posttrain.train.loop import make_policy
from posttrain.train.rl.advantages import TrainingRow, scored_rows
from posttrain.train.rl.rollouts import Rollouts, Sources
from posttrain.types import Group, Rollout, RunFailed, Sampling, Score, Segment, Task
from tests.servers.chat import ChatServer
from tests.training_helpers import (
    algorithms,
    events,
    metrics,
    padded_logprobs,
    pair_rows,
    plain_model,
    read_rows,
    write_rows,
)

BETA = 0.3
REWARD = """
def noise(response):
    return sum(response.encode()) % 97 / 97

def same(response):
    return 0.5

def picky(response):
    if sum(response.encode()) % 3:
        raise ValueError("not this one")
    return float(len(response))
"""
PROMPTS = [{"prompt": p} for p in ("Say a word", "Name a colour please", "Count", "Write", "Go on")]


def settings(tmp_path: Path, reward: str = "noise", **changes: Any) -> OnlineDpoConfig:
    (tmp_path / "reward.py").write_text(REWARD)
    data = str(write_rows(tmp_path / "prompts.jsonl", PROMPTS))
    given = {"model": "tiny-random", "data": data, "out": tmp_path / "run", "batch_size": 8, "max_new_tokens": 6}
    reward = reward if "(" in reward else f"{tmp_path}/reward.py:{reward}"
    return OnlineDpoConfig(**{**given, "reward": (reward,), "learning_rate": 1e-4, **changes})


def rollout(index: int, *tokens: int) -> Rollout:
    segment = Segment(
        (5, 6, *tokens), (False, False, *[True] * len(tokens)), (0.0,) * (2 + len(tokens)), (-1,) * (2 + len(tokens))
    )
    return Rollout("t", index, Sampling(4), 0, (), (segment,))


def group(*members: tuple[float | None, tuple[int, ...]]) -> Group:
    rollouts = tuple(rollout(i, *tokens) for i, (_, tokens) in enumerate(members))
    return Group(Task("t", "p"), rollouts, tuple(Score(total) for total, _ in members))


def signed(found: Group) -> list[TrainingRow]:
    return with_signs(scored_rows([found])[0])


def signs(found: Group) -> list[tuple[int, float]]:
    return [(row.rollout.index, row.advantages[0]) for row in signed(found) if row.advantages is not None]


def test_the_best_and_the_worst_of_a_group_are_its_pair() -> None:
    """The first of equals; the unscored one has no sign."""
    found = group((0.5, (7, 2)), (2.0, (8, 2)), (None, (9, 2)), (2.0, (9,)), (-1.0, (10, 11, 2)))
    assert signs(found) == [(0, 0.0), (1, 1.0), (3, 0.0), (4, -1.0)]
    assert [len(r.advantages) for r in signed(found) if r.advantages is not None] == [2, 2, 1, 3]
    ((better, worse),) = pairs_of(signed(found))
    assert (better.rollout.sampled_ids, worse.rollout.sampled_ids) == ((8, 2), (10, 11, 2))


def test_ties_and_unscored_groups_give_no_pair() -> None:
    """Equal scores, or one text scored in two ways: nothing to learn. Fewer than two scores: dropped."""
    ties = group((1.0, (7, 2)), (1.0, (8, 2))), group((1.0, (7, 2)), (0.0, (7, 2)))
    assert [signs(tie) for tie in ties] == [[(0, 0.0), (1, 0.0)]] * 2
    assert not any(pairs_of(signed(tie)) for tie in ties)
    assert signs(group((1.0, (7, 2)), (None, (8, 2)))) == []


# -- the same numbers as a plain form ---------------------------------------------------------------------------------


def score_of(module: Any, member: Rollout) -> torch.Tensor:
    (segment,) = member.segments
    return (padded_logprobs(module, [segment.token_ids])[0] * torch.tensor(segment.sampled)).sum()


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_loss_and_gradient_are_the_plain_ones_in_float64(tmp_path: Path, temperature: float) -> None:
    """A policy that has left its reference: −log σ(β Δ) over the pairs of four prompts, best against worst of three,
    each response alone through transformers in float64. What pairs were sampled with does not matter."""
    config = settings(tmp_path, batch_size=12, group_size=3, beta=BETA, temperature=temperature)
    lm = load_model("tiny-random")
    tasks = [Task(str(i), row["prompt"]) for i, row in enumerate(PROMPTS)]
    with (
        Scorer(config.reward, columns=(), timeout_seconds=30.0) as scorer,
        RunLog(config.out, {}, resume=False) as log,
    ):
        rollouts = Rollouts(config, tasks, lm, LocalEngine(lm), Sources(scorer))
        stage = OnlineDpo(config, make_policy(lm, config, 1e-4, 1), rollouts, [], log, 1)
        with torch.no_grad():
            for i, parameter in enumerate(stage.policy.parameters.values()):
                parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i)))
        rows = stage._with_reference([with_signs(g) for g in scored_rows(rollouts.step(1).trained)])
    pairs = [pair for g in rows for pair in pairs_of(g)]
    assert len(pairs) == 4
    for g in rows:
        totals = [row.reward for row in g if row.reward is not None]
        ((better, worse),) = pairs_of(g)
        assert (totals.index(max(totals)), totals.index(min(totals))) == (better.rollout.index, worse.rollout.index)
    found = stage._gradient(pairs)
    lm.save(tmp_path / "moved")

    module, start = plain_model(tmp_path / "moved")[0].double(), plain_model("tiny-random")[0].double()
    loss = torch.zeros((), dtype=torch.float64)
    margins = []
    for better, worse in pairs:
        with torch.no_grad():
            reference = score_of(start, better.rollout) - score_of(start, worse.rollout)
        margins.append(BETA * (score_of(module, better.rollout) - score_of(module, worse.rollout) - reference))
        loss = loss - logsigmoid(margins[-1]) / len(pairs)
    loss.backward()
    assert found["loss"] == pytest.approx(loss.item(), abs=1e-5)
    assert found["margin"] == pytest.approx(mean(m.item() for m in margins), abs=1e-4)
    assert found["accuracy"] == mean(float(m > 0) for m in margins)
    assert max(abs(m.item()) for m in margins) > 0.05  # it had left
    plain = {name: p.grad for name, p in module.named_parameters()}
    for name, parameter in stage.policy.parameters.items():
        assert parameter.grad is not None
        assert (parameter.grad.double() - plain[name]).norm() < 1e-3 * plain[name].norm(), name


@pytest.mark.parametrize("lora", [0, 4])
def test_it_begins_at_ln_2_and_without_kl(tmp_path: Path, lora: int) -> None:
    config = settings(tmp_path, lora_rank=lora, max_steps=2, group_size=4, learning_rate=1e-3)
    train_online_dpo(config)
    first, second = metrics(config.out)
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert first["kl"] == pytest.approx(0.0, abs=1e-6) and second["kl"] > 1e-6
    assert first["margin"] == pytest.approx(0.0, abs=1e-4) and abs(first["chosen_drift"]) < 1e-3
    assert abs(second["loss"] - math.log(2)) > 1e-4
    rows = read_rows(config.out / "rollouts.jsonl")
    assert [row["advantage"] for row in rows].count(1) == first["pairs"] + second["pairs"] == 4
    for start in range(0, len(rows), 4):
        scores = {row["advantage"]: row["score"] for row in rows[start : start + 4]}
        assert scores[1] == max(r["score"] for r in rows[start : start + 4])
        assert scores[-1] == min(r["score"] for r in rows[start : start + 4])


# -- through the command line -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["sigmoid --loss sft=0.2", "ipo", "simpo", "apo_zero --ld-alpha 0.5", "hinge"])
def test_losses_train_from_the_command_line(tmp_path: Path, loss: str) -> None:
    config = settings(tmp_path)
    command = f"online-dpo --model tiny-random --data {config.data} --out {config.out} --reward {config.reward[0]}"
    options = "--batch-size 8 --max-new-tokens 6 --max-steps 2 --learning-rate 1e-4 --top-k 50 --reference-every 1"
    if loss == "simpo":
        options = options.removesuffix("--reference-every 1")
    assert main(f"{command} --loss {loss} {options}".split()) == 0
    first, second = metrics(config.out)
    assert first["grad_norm"] > 0 and second["grad_norm"] > 0
    assert (first["chosen_drift"] is None) == (first["kl"] is None) == (loss == "simpo")
    if loss != "simpo":  # the reference has followed
        assert second["chosen_drift"] == pytest.approx(0.0, abs=1e-3) and second["margin"] == pytest.approx(
            0.0, abs=1e-3
        )
    assert (config.out / "report.html").exists()


def test_steps_without_a_pair_change_nothing(tmp_path: Path) -> None:
    config = settings(tmp_path, "same", max_steps=2, max_refills=1)
    train_online_dpo(config)
    for row in metrics(config.out):
        assert row["loss"] is None and row["accuracy"] is None and row["grad_norm"] == 0.0
        assert (row["pairs"], row["zero_variance_groups"], row["dropped_groups"]) == (0, 1.0, 0.0)
        assert row["sampled_groups"] == 8  # four, and four that should have replaced them
    assert [e["step"] for e in events(config.out, "no_loss_token")] == [1, 2]
    assert events(config.out, "nothing_learnt")
    start, end = (dict(plain_model(m)[0].named_parameters()) for m in ("tiny-random", config.out / "model"))
    assert all(torch.equal(start[name], end[name]) for name in start)


def test_unscored_answers_are_counted_and_too_many_stop_the_run(tmp_path: Path) -> None:
    config = settings(tmp_path, "picky", max_steps=2, group_size=4, max_unscored_share=1.0)
    train_online_dpo(config)
    rows = read_rows(config.out / "rollouts.jsonl")
    for row in metrics(config.out):
        of = [r for r in rows if r["step"] == row["step"]]
        assert row["unscored"] == mean(float(r["score"] is None) for r in of) > 0.2
        assert row["pairs"] == [r["advantage"] for r in of].count(1)
    assert all(r["advantage"] is None for r in rows if r["score"] is None)
    with pytest.raises(RunFailed, match="not this one"):
        train_online_dpo(settings(tmp_path, "picky", max_steps=9, out=tmp_path / "stopped"))


def test_a_pairwise_judge_labels(tmp_path: Path, judge_server: ChatServer) -> None:
    """The judge of the tests prefers the longer of two answers, and so does the sign."""
    judge = f'judge_pair(url="{judge_server.url}", model="m", rubric="Is it good?")'
    config = settings(tmp_path, judge, max_steps=1, batch_size=10, max_new_tokens=12)
    train_online_dpo(config)
    (row,) = metrics(config.out)
    rows = read_rows(config.out / "rollouts.jsonl")
    chosen = [
        (a, b) if a["advantage"] > 0 else (b, a) for a, b in zip(rows[::2], rows[1::2], strict=True) if a["advantage"]
    ]
    assert len(chosen) == row["pairs"] >= 3
    assert all(len(better["text"]) > len(worse["text"]) for better, worse in chosen)
    assert {better["score"] for better, _ in chosen} == {1.0}
    assert len(judge_server.requests()) >= 2 * len(chosen)  # in both orders


def test_it_learns_the_bandit(tmp_path: Path) -> None:
    """One token in answer to four prompts, the best mean reward 0.7: near 0.07 at the start."""
    task = algorithms().tasks(tmp_path)["bandit"]
    data = str(write_rows(tmp_path / "bandit.jsonl", task.rows))
    config = OnlineDpoConfig(
        model="tiny-random",
        data=data,
        out=tmp_path / "run",
        group_size=8,
        save_every=1000,
        eval_data=data,
        eval_every=30,
        max_steps=30,
        **{name: value for name, value in task.options.items() if name not in ("entropy_bonus", "max_steps")},
    )
    train_online_dpo(config)
    rows = metrics(config.out)
    assert rows[0]["reward"] < 0.2
    assert mean(row["reward"] for row in rows[-5:]) > 0.85 * task.best
    assert rows[-1]["eval/reward"] == pytest.approx(task.best)
    assert rows[-1]["kl_sequence"] > 0.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": "kto"}, "loss 'kto' is not for pairs of own samples"),
        ({"loss": ("sigmoid", "orpo=0.1")}, "loss 'orpo' is not for pairs"),
        ({"group_size": 1}, "greater than or equal to 2"),
        ({"group_size": 3}, "multiple of group_size"),
        ({"mask_formatting": True}, "mask_formatting would leave open"),
        ({"loss": "simpo", "reference_every": 2}, "does nothing for loss 'simpo'"),
    ],
)
def test_options_that_do_not_go_together(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        settings(tmp_path, **changes)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--max-new-tokens 6", ["--reward is required"]),
        ("--reward magic", ["magic"]),
        ("--reward {reward}:noise --max-new-tokens 5000", ["which leave", "lower --max-new-tokens"]),
        ("--reward {reward}:noise --loss kto", ["kto", "sigmoid"]),
        ("--reward {reward}:noise --updates-per-batch 2", ["unknown option --updates-per-batch"]),
    ],
)
def test_bad_input_is_told_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: str, words: list[str]
) -> None:
    config = settings(tmp_path)
    command = f"online-dpo --model tiny-random --data {config.data} --out {config.out} --batch-size 4 {options}"
    assert main(command.format(reward=tmp_path / "reward.py").split()) == 2
    message = capsys.readouterr().err
    assert all(word in message for word in words), message
    assert not config.out.exists()


def test_a_recipe_trains_on_the_reward_model_of_an_earlier_stage(tmp_path: Path) -> None:
    """An adversarial reward model, then online DPO on it; the evaluation knows the stages that make a model."""
    config = settings(tmp_path)
    recipe = {
        "model": "tiny-random",
        "evaluate": {
            "data": str(write_rows(tmp_path / "held-out.jsonl", [{"prompt": "Something else"}])),
            "reward": list(config.reward),
            "samples": 2,
            "max_new_tokens": 4,
            "retention": False,
        },
        "stages": {
            "rm": {
                "method": "adversarial",
                "parent": "start",
                "data": str(write_rows(tmp_path / "pairs.jsonl", pair_rows(8))),
                "members": 2,
                "rounds": 1,
                "prompts": 2,
                "samples": 2,
                "edit_steps": 1,
                "max_new_tokens": 4,
            },
            "online": {
                "method": "online-dpo",
                "parent": "start",
                "data": config.data,
                "reward": ['learned({rm}, use="min")'],
                "batch_size": 4,
                "max_new_tokens": 4,
                "max_steps": 2,
            },
        },
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    run_recipe(RunConfig(recipe=str(tmp_path / "recipe.yaml"), out=tmp_path / "out"))
    assert list(json.loads((tmp_path / "out" / "compare.json").read_text())["stages"]) == ["start", "online"]
    assert all(row["pairs"] == 2 for row in metrics(tmp_path / "out" / "online"))
