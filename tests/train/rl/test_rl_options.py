"""What the options of online RL do to a run: replay, dry run, refills, critics, mixes, references, ratios."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from posttrain.batch.packing import Branch, Tree, share_prefix
from posttrain.cli.main import main
from posttrain.config import RlConfig
from posttrain.engine.base import Request
from posttrain.engine.local.engine import LocalEngine
from posttrain.losses.policy import PolicyLoss, policy_loss
from posttrain.models import load_model
from posttrain.models.read import logprobs_at
from posttrain.train.policy import LocalPolicy, Optimization
from posttrain.train.rl.advantages import TrainingRow
from posttrain.train.rl.batch import batch_loss, branches_of, loss_choices, step_trees
from posttrain.train.rl.setup import train_rl
from posttrain.types import InputError, Rollout, Sampling, Score, Segment
from tests.training_helpers import ending_tiny, events, metrics, read_rows, sft_rows, write_rows

REWARDS = """
import random

def letter(response):
    return response.count("e") / max(1, len(response))

def by_prompt(prompt):
    return float(prompt in ("Count", "Write"))

def spread(response):
    return (len(response) * 7 % 11) / 10

class Echo:
    def reset(self, seed):
        self.secret = random.Random(seed).choice("xyz")
        self.last = ""
        return f"({self.secret})"

    def reply(self, text):
        self.last = text
        return "again" if len(text) % 2 else None

    def get_reward(self):
        return len(self.last) / 8
"""
PROMPTS = ("Say a word", "Name a colour please", "Count", "Write")


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., Path]:
    """Train tiny-random by RL in `tmp_path` and return the run folder."""
    (tmp_path / "own.py").write_text(REWARDS)
    data = write_rows(tmp_path / "tasks.jsonl", [{"prompt": p} for p in PROMPTS])

    def run(name: str = "run", reward: tuple[str, ...] = ("spread",), **options: Any) -> Path:
        fixed = {"model": "tiny-random", "data": str(data), "out": tmp_path / name, "max_new_tokens": 8}
        sizes = {"group_size": 4, "batch_size": 16, "max_steps": 3, "learning_rate": 1e-3}
        named = tuple(f"{tmp_path}/own.py:{r}" for r in reward)
        train_rl(RlConfig(**{**fixed, **sizes, "reward": named, **options}))
        return tmp_path / name

    return run


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


def equal(one: Path, other: Path) -> bool:
    a, b = weights(one), weights(other)
    return all(torch.equal(a[name], b[name]) for name in a)


def test_a_replay_trains_on_the_same_rollouts(start: Callable[..., Path], tmp_path: Path) -> None:
    """Without importance weights the same start, data and rate give the same weights, bit for bit, and nothing is
    sampled or written anew."""
    first = start("first", updates_per_batch=2)
    recorded = str(first / "rollouts.jsonl")
    again = start("again", (), updates_per_batch=2, replay=recorded, mismatch="off", max_steps=None)
    assert equal(first, again)
    assert not (again / "rollouts.jsonl").exists()
    weighed = start("weighed", (), replay=recorded, learning_rate=3e-3)
    assert all(row["mismatch_kl"] is not None for row in metrics(weighed))
    assert metrics(weighed)[2]["mismatch_kl"] > 1e-6  # the other run's policy has gone another way
    with pytest.raises(InputError, match="no such file"):
        start("none", (), replay=str(tmp_path / "none.jsonl"))
    other = write_rows(tmp_path / "other.jsonl", [{"prompt": "x", "id": "x"}])
    with pytest.raises(InputError, match="of task '[0-3]', which --data does not have"):
        start("other", (), data=str(other), replay=recorded)
    turned = write_rows(tmp_path / "turned.jsonl", [{"prompt": p} for p in reversed(PROMPTS)])
    with pytest.raises(InputError, match="is of another prompt than task [0-3] of --data"):
        start("turned", (), data=str(turned), replay=recorded)
    with pytest.raises(InputError, match="sampled at temperature 1.0"):
        start("warm", (), replay=recorded, temperature=0.5)
    with pytest.raises(InputError, match="no reward has this name; there are spread"):
        start("held", (), replay=recorded, constraint=("letter>=0.9",))
    assert not any((tmp_path / name).exists() for name in ("none", "other", "turned", "warm", "held"))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda row: row["segments"][0]["token_ids"].__setitem__(0, 10**6), "can be trained"),
        (lambda row: row["segments"][0]["token_ids"].__setitem__(0, -3), "can be trained"),
        (lambda row: row["segments"][0]["sampler_logprobs"].__setitem__(-1, None), "not a rollout"),
        (lambda row: row.update(segments=[]), "not a rollout"),
        (lambda row: row.update(step="x"), "can be trained"),
        (lambda row: row.update(status="weird"), "can be trained"),
        (lambda row: row.update(score="high"), "not a rollout of a run"),
        (lambda row: row.update(of=99), "step 1 is not whole"),
    ],
)
def test_a_replay_of_what_is_no_rollout_names_the_line(
    start: Callable[..., Path], tmp_path: Path, edit: Callable[[dict[str, Any]], None], message: str
) -> None:
    rows = read_rows(start("first", max_steps=1) / "rollouts.jsonl")
    edit(rows[0])
    file = write_rows(tmp_path / "edited.jsonl", rows)
    with pytest.raises(InputError, match=message):
        start("replayed", (), replay=str(file))
    assert not (tmp_path / "replayed").exists()


def test_truncated_samples_are_replayed_from_their_arrays(start: Callable[..., Path], tmp_path: Path) -> None:
    """The update is the same, and a copy of the lines alone is told what it lacks."""
    options = {"max_steps": 1, "top_k": 5, "mismatch": "off"}
    recorded = start("first", **options) / "rollouts.jsonl"
    assert "supports" not in recorded.read_text() and (recorded.parent / "rollouts/000001.npz").exists()
    again = start("again", (), replay=str(recorded), **options)
    assert metrics(again)[0]["loss"] == metrics(recorded.parent)[0]["loss"]
    assert metrics(again)[0]["grad_norm"] == metrics(recorded.parent)[0]["grad_norm"]
    copied = tmp_path / "copied.jsonl"
    copied.write_bytes(recorded.read_bytes())
    with pytest.raises(InputError, match=r"copied.jsonl:1: .*rollouts/000001.npz is missing"):
        start("lines", (), replay=str(copied), **options)


def test_a_step_without_any_difference_is_a_logged_no_op(start: Callable[..., Path]) -> None:
    """dapo, and a reward that is the same for all: no refill helps, nothing is learnt, and the run ends and says so."""
    out = start(reward=("letter=0",), algorithm="dapo", overlong_share=0.0, max_refills=1, max_steps=2)
    assert [row["loss"] for row in metrics(out)] == [None, None]
    assert [row["zero_variance_groups"] for row in metrics(out)] == [1.0, 1.0]
    assert [e["groups"] for e in events(out, "short_batch")] == [0, 0] and events(out, "nothing_learnt")


def test_a_dry_run_shows_and_writes_nothing(
    start: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = start(dry_run=True)
    text = capsys.readouterr().out
    assert not out.exists()
    assert text.count("tokens sampled") == 10
    assert (
        "task " in text
        and "rollout 1 of 4" in text
        and "advantage" in text
        and text.startswith("The run would take 3 steps of 16 rollouts, from 4 tasks.\n\nWhat stands between « and »")
    )
    command = ["rl", "--model", "tiny-random", "--data", str(tmp_path / "tasks.jsonl"), "--out", str(tmp_path / "cli")]
    command += ["--reward", f"{tmp_path}/own.py:spread", "--max-new-tokens", "4", "--batch-size", "16", "--dry-run"]
    assert main(command) == 0 and not (tmp_path / "cli").exists()
    trained = text.split("«")[2].split("»")[0]  # [1] is in the legend
    assert "<|im_start|>" not in trained.removesuffix("<|im_end|>")
    assert "<|im_start|>assistant\n«" in text


def test_groups_of_equal_scores_are_refilled(tmp_path: Path) -> None:
    """Every second prompt's answers all score 0. With refills each step trains on four groups that differ, and the
    others are recorded as not used; a prompt that comes twice in a step does not get the same seeds."""
    (tmp_path / "some.py").write_text("def some(response, pays):\n    return pays * (len(response) * 7 % 11) / 10\n")
    rows = [{"prompt": f"{p} {i}", "pays": i % 2} for i, p in enumerate(PROMPTS)]
    data = write_rows(tmp_path / "some.jsonl", rows)
    train_rl(
        RlConfig(
            model="tiny-random",
            data=str(data),
            out=tmp_path / "run",
            reward=(f"{tmp_path}/some.py:some",),
            algorithm="dapo",
            group_size=4,
            batch_size=16,
            max_new_tokens=8,
            max_steps=2,
        )
    )
    for row in metrics(tmp_path / "run"):
        assert row["zero_variance_groups"] == 0.0
        assert row["sampled_groups"] >= 8
    recorded = read_rows(tmp_path / "run" / "rollouts.jsonl")
    assert {row["of"] for row in recorded if row["step"] == 1} == {sum(row["step"] == 1 for row in recorded)}
    used = [row for row in recorded if row["used"]]
    assert len(used) == 2 * 16 and {row["task"] for row in used} <= {"1", "3"}
    assert all(row["advantage"] is None for row in recorded if not row["used"])
    seeds = [row["seed"] for row in recorded if row["step"] == 1]
    assert len(set(seeds)) == len(seeds)


@pytest.mark.parametrize("critic", ["head", pytest.param("separate", marks=pytest.mark.stress)])
def test_critics_learn_the_value_of_a_prompt(start: Callable[..., Path], critic: str) -> None:
    """Two of the four prompts pay, whatever the answer: a critic that knows nothing explains nothing of that, and
    after some steps it explains most."""
    options = {"value_coefficient": 1.0} if critic == "head" else {}
    out = start(
        reward=("by_prompt",), algorithm="ppo", critic=critic, group_size=1, max_steps=22, max_new_tokens=4, **options
    )
    rows = metrics(out)
    assert rows[0]["explained_variance"] == pytest.approx(0.0, abs=1e-9) and rows[0]["kl"] is not None
    assert rows[-1]["explained_variance"] > 0.5 and rows[-1]["value_loss"] < 0.5 * rows[0]["value_loss"]
    assert not any("scalar_head" in name for name in weights(out))


def test_the_mix_is_imitated(start: Callable[..., Path], tmp_path: Path) -> None:
    """Beside a reward that never differs only the mixed rows are trained on, and their loss falls."""
    rows = write_rows(tmp_path / "mix.jsonl", sft_rows(4))
    out = start(ptx_data=str(rows), ptx_batch_size=4, max_steps=10, reward=("letter=0",))
    losses = [row["ptx_loss"] for row in metrics(out)]
    assert losses[-1] < 0.7 * losses[0]
    write_rows(tmp_path / "mix.jsonl", sft_rows(5))
    with pytest.raises(InputError, match=r"mix.jsonl has other content"):
        start(ptx_data=str(rows), ptx_batch_size=4, max_steps=10, reward=("letter=0",), resume=True)
    write_rows(tmp_path / "mix.jsonl", sft_rows(4))
    twice = start("twice", ptx_data=str(rows), ptx_batch_size=4, ptx_coefficient=2.0, max_steps=1, reward=("letter=0",))
    assert metrics(twice)[0]["ptx_loss"] == pytest.approx(losses[0], rel=1e-5)
    assert metrics(twice)[0]["grad_norm"] == pytest.approx(2 * metrics(out)[0]["grad_norm"], rel=1e-3)


@pytest.mark.parametrize("lora_rank", [0, 4])
def test_the_reference_moves_when_it_is_told_to(start: Callable[..., Path], lora_rank: int) -> None:
    """Right after a reset the KL of the next step is 0; without one it has grown."""
    options = {"beta": 0.01, "lora_rank": lora_rank, "max_steps": 4, "learning_rate": 3e-3, "max_new_tokens": 4}
    still = [row["kl"] for row in metrics(start("still", **options))]
    moved = [row["kl"] for row in metrics(start("moved", reference_every=2, **options))]
    assert still[:2] == moved[:2] and still[2] > 1e-5
    assert moved[2] == pytest.approx(0.0, abs=1e-6) and moved[3] > 1e-6


def test_a_reference_is_put_in_place_and_taken_out_again() -> None:
    lm = load_model("tiny-random")
    policy = LocalPolicy(lm, Optimization(1e-3), 1000)
    reference = policy.reference(moves=True)
    tree = [Tree((), (Branch((5, 6, 7), (False, True, True), (1.0, 1.0)),))]
    (start,) = policy.logprobs(tree)
    with torch.no_grad():
        for p in policy.parameters.values():
            p += 0.01 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1))
    (now,) = policy.logprobs(tree)
    assert (now != start).all()
    with reference.active():
        assert (policy.logprobs(tree)[0] == start).all()
    assert (policy.logprobs(tree)[0] == now).all()
    reference.follow()
    with reference.active():
        assert (policy.logprobs(tree)[0] == now).all()


def test_passes_end_early_when_the_policy_has_moved_far(start: Callable[..., Path]) -> None:
    out = start(updates_per_batch=8, kl_stop=1e-4, learning_rate=3e-3, max_steps=2)
    stops = events(out, "kl_stop")
    assert [e["step"] for e in stops] == [1, 2]
    assert all(1 < e["updates"] < 8 and e["policy_kl"] > 1e-4 for e in stops)


def test_beta_is_led_to_its_target(start: Callable[..., Path]) -> None:
    """A KL of 0 at first and a target of 100 nats: β falls by 2% a step."""
    betas = [row["beta"] for row in metrics(start(beta=0.1, kl_target=100.0))]
    assert betas == pytest.approx([0.1, 0.098, 0.09604])


def test_a_missed_constraint_gains_weight(start: Callable[..., Path], tmp_path: Path) -> None:
    """Letters e are rare: the level of 0.9 is missed by nearly that, so λ grows by about rate·0.9 a step."""
    out = start(reward=("spread", "letter=0"), constraint=("letter>=0.9",), constraint_rate=0.5)
    multipliers = [row["multiplier/letter"] for row in metrics(out)]
    means = [row["reward/letter"] for row in metrics(out)]
    assert multipliers == pytest.approx([0.0, 0.5 * (0.9 - means[0]), 0.5 * (1.8 - means[0] - means[1])])
    with pytest.raises(InputError, match="no reward has this name; there are spread"):
        start("wrong", constraint=("safe>=0.9",))


def test_an_environment_of_many_turns(start: Callable[..., Path], tmp_path: Path) -> None:
    """Its own reward is the score; what it says is context, what the model says is trained."""
    model = ending_tiny(tmp_path)
    out = start(reward=(), env=f"{tmp_path}/own.py:Echo", max_turns=3, max_steps=2, model=model, max_new_tokens=30)
    rows = read_rows(out / "rollouts.jsonl")
    assert any(len(row["messages"]) > 1 for row in rows)
    for row in rows:
        assert row["parts"] == {"environment": row["score"]}
        (segment,) = row["segments"]
        turns = sum(m["role"] == "assistant" for m in row["messages"])
        starts = np.diff([0, *segment["sampled"]]) == 1
        assert starts.sum() == turns <= 3
    assert metrics(out)[0]["loss"] is not None
    (tmp_path / "mute.py").write_text("class Mute:\n    def reset(self):\n        return None\n")
    with pytest.raises(InputError, match="has no get_reward, so --reward is required"):
        start("mute", reward=(), env=f"{tmp_path}/mute.py:Mute")


def test_an_option_without_effect_ends_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_rows(tmp_path / "t.jsonl", [{"prompt": "p"}])
    command = ["rl", "--model", "tiny-random", "--data", str(data), "--out", str(tmp_path / "o"), "--reward", "math"]
    assert main([*command, "--gae-lambda", "0.9"]) == 2
    assert "--gae-lambda has no effect here; it needs baseline critic (ppo)" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


# -- off policy --------------------------------------------------------------------------------------------------------


def row_of(rollout: Rollout, advantage: float) -> TrainingRow:
    advantages = np.full(rollout.response_length, advantage)
    return TrainingRow(rollout, Score(0.0), 0.0, rollout.sampler_logprobs, advantages=advantages)


def test_the_ratio_is_unbiased_under_truncated_sampling() -> None:
    """Top-p 0.8 at temperature 0.7, then an optimizer step: over samples drawn before it the mean of π/π_sampler is 1
    where π is restricted to the kept support, since Σ_kept p_s · π/p_s = 1. Without the supports it is the mass that π
    gives them, about 0.8."""
    lm = load_model("tiny-random")
    sampling = Sampling(32, temperature=0.7, top_p=0.8)
    prompts = [lm.chat.prompt_ids(p) for p in PROMPTS]
    requests = [Request(i, prompts[i % 4], sampling, seed=i) for i in range(96)]
    done = dict(LocalEngine(lm).generate(requests))
    rollouts = [Rollout("0", 0, sampling, 0, (), (Segment.of(prompts[i % 4], done[i]),)) for i in range(96)]
    rng = np.random.default_rng(0)
    rows = [[row_of(r, float(rng.normal())) for r in rollouts]]
    config = RlConfig(model="m", data="d", out="o", reward=("r",), temperature=0.7, top_p=0.8)
    policy = LocalPolicy(lm, Optimization(3e-5), 4096)
    loss = partial(batch_loss, config=config, choices=loss_choices(config, 0.0), mismatch="off")
    policy.forward_backward(step_trees(config, rows, False), loss, logprobs_at(0.7))
    policy.step()

    def mean_ratio(kept: bool) -> tuple[float, float]:
        branches = [b if kept else replace(b, kept_token_ids=None) for r in rollouts for b in branches_of(r)]
        now = policy.logprobs([share_prefix([b]) for b in branches], 0.7)
        drawn = np.concatenate([r.sampler_logprobs for r in rollouts])
        ratios = np.exp(np.concatenate(now) - drawn)
        return float(ratios.mean()), float(ratios.std() / math.sqrt(len(ratios)))

    mean, error = mean_ratio(kept=True)
    assert error < 0.005 and mean == pytest.approx(1.0, abs=0.01)
    biased, _ = mean_ratio(kept=False)
    assert biased < 0.9


# -- length ------------------------------------------------------------------------------------------------------------


def stop_slope(p: float, normalisation: str, longest: int) -> float:
    """d/dlogit(p) of the expected objective of answers with advantage 1 that stop at each token with probability p.

    The score function of a length L is 1 − pL, and E[L] = 1/p: weighed by 1/L it is E[1/L] − p = −p ln p/(1−p) − p > 0,
    by a constant 0."""
    return -p * math.log(p) / (1 - p) - p if normalisation == "sequence" else 0.0 * longest


@pytest.mark.parametrize("normalisation", ["sequence", "constant"])
def test_length_bias_in_closed_form(normalisation: str) -> None:
    """Two modes, right (A = 1) and wrong (A = −1), whose answers' lengths do not matter to the reward (Dr. GRPO,
    arXiv:2503.20783). The gradient that the trees and the loss of a step give is the closed form; following it, 1/|o|
    makes wrong answers grow without end and right ones shrink to a token, and a constant leaves both at 10."""
    longest = 512
    rng = np.random.default_rng(0)
    lengths = {1.0: rng.geometric(0.1, 1500).clip(max=longest), -1.0: rng.geometric(0.1, 1500).clip(max=longest)}
    config = RlConfig(model="m", data="d", out="o", reward=("r",), normalisation=normalisation, max_new_tokens=longest)
    rows = []
    for advantage, drawn in lengths.items():
        for n in map(int, drawn):
            segment = Segment((0,) * (n + 1), (False,) + (True,) * n, (0.0,) * (n + 1), (0,) * (n + 1))
            rows.append(row_of(Rollout("0", 0, Sampling(longest), 0, (), (segment,)), advantage))
    (tree,) = step_trees(config, [rows], keep_zero_advantage=False)
    per_token = torch.tensor([w for b in tree.branches for w in b.weights], dtype=torch.float64)
    advantages = torch.tensor([a for row in rows for a in row.advantages], dtype=torch.float64)
    ends = torch.tensor([t == n - 1 for drawn in lengths.values() for n in drawn for t in range(n)])
    logits = {a: torch.tensor(math.log(0.1 / 0.9), dtype=torch.float64, requires_grad=True) for a in lengths}
    logit = torch.where(advantages > 0, logits[1.0], logits[-1.0])
    logprobs = torch.where(ends, torch.nn.functional.logsigmoid(logit), torch.nn.functional.logsigmoid(-logit))
    out = policy_loss(PolicyLoss(), logprobs, logprobs.detach(), advantages, per_token)
    slopes = dict(zip(logits, torch.autograd.grad(out.loss, list(logits.values())), strict=True))
    scale = 0.5 if normalisation == "sequence" else 0.5 / longest  # each mode is half of the responses
    spread = scale * (0.35 if normalisation == "sequence" else 1.0) / math.sqrt(1500)
    for advantage, found in slopes.items():
        expected = -scale * advantage * stop_slope(0.1, normalisation, longest)
        assert float(found) == pytest.approx(expected, abs=4 * spread)

    stops = {1.0: math.log(0.1 / 0.9), -1.0: math.log(0.1 / 0.9)}
    for _ in range(400):
        for advantage, value in stops.items():
            p = 1 / (1 + math.exp(-value))
            stops[advantage] = value + 0.5 * advantage * stop_slope(p, normalisation, longest)
    right, wrong = (1 + math.exp(-stops[a]) for a in (1.0, -1.0))
    if normalisation == "sequence":
        assert wrong > 300 and right < 1.2
    else:
        assert wrong == pytest.approx(10.0) and right == pytest.approx(10.0)
