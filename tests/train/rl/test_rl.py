"""GRPO against a plain reference that reads `rollouts.jsonl`, learning, and rewards that fail."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from posttrain.batch.packing import share_prefix
from posttrain.batch.types import Batch, LossOutput
from posttrain.config import RlConfig
from posttrain.models import LanguageModel, load_model
from posttrain.models.read import logprobs_at
from posttrain.models.token_logprobs import TokenOutputs
from posttrain.rewards.scorer import Scorer
from posttrain.rollout import rollout_from_json, score
from posttrain.runs.reader import Run
from posttrain.train.policy import LocalPolicy, Optimization
from posttrain.train.rl.advantages import Rows, scored_rows, with_advantages
from posttrain.train.rl.batch import batch_loss, branches_of, group_metrics, loss_choices, step_trees, with_numbers
from posttrain.train.rl.setup import train_rl
from posttrain.types import Group, RunFailed, Sampling, Task
from tests.training_helpers import (
    adamw,
    events,
    mask_tensor,
    metrics,
    padded_logprobs,
    plain_model,
    read_rows,
    write_rows,
)

PROMPTS = ("Say a word", "Name a colour please", "Count", "Write")
SCORES: tuple[tuple[float | None, ...], ...] = (
    (1.0, 0.0, 0.25, None),  # one unscored
    (None, None, 2.0, None),  # too few scored: dropped
    (0.5, 0.5, 0.5, 0.5),  # no variance
    (-1.0, 3.0, 0.0, 0.0),
)
REWARDS = """
import hashlib, os, signal, time

def letter(response):
    return response.count("e") / max(1, len(response))

def forgetful(response):
    len(response)

def noise(response):
    return hashlib.sha256(response.encode()).digest()[0] / 255

def picky(response, bad):
    if bad:
        raise KeyError("no such thing in " + repr(bad))
    return float(len(response))

def short_list(prompts, completions):
    return [1.0] * (len(prompts) - 1)

def clean(prompt, response):
    return float(digest(prompt, response) % 7)

def faulty(prompt, response):
    # one sample in 20 raises, whatever the order; of two prompts half of the responses hang, or kill the worker
    draw = digest(prompt, response)
    if prompt.endswith("number 3") and draw % 2:
        time.sleep(60)
    if prompt.endswith("number 5") and draw % 2:
        os.kill(os.getpid(), signal.SIGKILL)
    if draw % 20 == 0:
        raise ConnectionError("no answer")
    return clean(prompt, response)

def digest(*texts):
    return int.from_bytes(hashlib.sha256("|".join(texts).encode()).digest()[:4], "big")

def not_a_number(response):
    return float("nan")
"""


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., Path]:
    """Train tiny-random by RL in `tmp_path` and return the run folder."""
    (tmp_path / "rewards.py").write_text(REWARDS)

    def run(
        reward: str | Sequence[str], name: str = "run", rows: list[dict[str, Any]] | None = None, **options: Any
    ) -> Path:
        names = [reward] if isinstance(reward, str) else reward
        data = write_rows(tmp_path / "tasks.jsonl", rows or [{"prompt": p} for p in PROMPTS])
        defaults = {"model": "tiny-random", "data": str(data), "out": tmp_path / name, "max_new_tokens": 8}
        sizes = {
            "group_size": 4,
            "batch_size": 16,
            "max_steps": 1,
            "reward": [f"{tmp_path}/rewards.py:{n}" for n in names],
        }
        train_rl(RlConfig(**{**defaults, **sizes, **options}))
        return tmp_path / name

    return run


def sampled_rows(temperature: float, top_p: float, seed: int) -> list[dict[str, Any]]:
    """Rollouts of the tiny model for PROMPTS as lines of `rollouts.jsonl`, drawn here token by token: the nucleus is
    the smallest set of likeliest tokens with at least `top_p` of the mass."""
    module, tokenizer = plain_model("tiny-random")
    generator = torch.Generator().manual_seed(seed)
    out = []
    for task, prompt in enumerate(PROMPTS):
        before = tokenizer(f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n")["input_ids"]
        for index in range(4):
            ids, logprobs, supports = list(before), [0.0] * len(before), [[] for _ in before]
            for _ in range(2 + (3 * task + 2 * index) % 5):
                with torch.no_grad():
                    p = (module(torch.tensor([ids])).logits[0, -1] / temperature).softmax(-1)
                order = p.argsort(descending=True)
                count = int((p[order].double().cumsum(0) < top_p).sum()) + 1
                kept = order[:count]
                mass = p[kept] / p[kept].sum()
                pick = int(torch.multinomial(mass, 1, generator=generator))
                ids.append(int(kept[pick]))
                logprobs.append(float(mass[pick].log()))
                supports.append(sorted(kept.tolist()))
            new = len(ids) - len(before)
            segment = {
                "token_ids": ids,
                "sampled": [0] * len(before) + [1] * new,
                "sampler_logprobs": logprobs,
                "versions": [-1] * len(before) + [0] * new,
                "supports": supports if top_p < 1 else None,
            }
            score = SCORES[task][index]
            reason = "letter: it raised" if score is None else None
            row = {"step": 1, "task": str(task), "index": index, "seed": 0, "status": "ok", "error": None, "text": ""}
            out.append({**row, "score": score, "parts": {}, "reason": reason, "advantage": None, "segments": [segment]})
    return out


def drawn_logprobs(row: dict[str, Any]) -> list[float]:
    """The sampler's log-probabilities of what it drew."""
    segment = row["segments"][0]
    return [lp for lp, drawn in zip(segment["sampler_logprobs"], segment["sampled"], strict=True) if drawn]


class Reference:
    """GRPO on padded rows, from the lines of `rollouts.jsonl` and the definition alone:

    L = −1/R Σ_i 1/|o_i| Σ_t [min(ρ A, clip(ρ) A) − β k3],  A = (r − mean)/σ over the scored ones of a group of two or
    more, R the number of those responses, ρ = π/π_proximal."""

    def __init__(
        self, rows: Sequence[dict[str, Any]], temperature: float, beta: float, kl_in: str, clip: float
    ) -> None:
        self.module, _ = plain_model("tiny-random")
        self.start, _ = plain_model("tiny-random")
        self.temperature, self.beta, self.kl_in, self.clip = temperature, beta, kl_in, clip
        tasks = sorted({row["task"] for row in rows})
        self.groups = [g for t in tasks if (g := self._advantages([row for row in rows if row["task"] == t]))]

    def logprobs(self, module: Any, rows: Sequence[dict[str, Any]]) -> tuple[torch.Tensor, torch.Tensor]:
        """[rows, T] log-probabilities and the mask of sampled tokens."""
        segments = [row["segments"][0] for row in rows]
        supports = [s["supports"] for s in segments] if segments[0]["supports"] is not None else None
        values = padded_logprobs(module, [s["token_ids"] for s in segments], self.temperature, supports)
        return values, mask_tensor([[bool(x) for x in s["sampled"]] for s in segments])

    def _advantages(self, rows: list[dict[str, Any]]) -> list[tuple[dict[str, Any], float]]:
        scored = [row for row in rows if row["score"] is not None]
        if len(scored) < 2:
            return []
        rewards = []
        for row in scored:
            with torch.no_grad():
                ref, mask = self.logprobs(self.start, [row])
            drift = sum(drawn_logprobs(row)) - float(ref[mask].sum())
            rewards.append(row["score"] - (self.beta * drift if self.kl_in == "reward" else 0.0))
        sigma = float(np.std(rewards))
        return [
            (row, 0.0 if sigma < 1e-8 else (r - float(np.mean(rewards))) / sigma)
            for row, r in zip(scored, rewards, strict=True)
        ]

    def loss(
        self, groups: Sequence[Sequence[tuple[dict[str, Any], float]]], proximal: dict[int, torch.Tensor]
    ) -> torch.Tensor:
        """`proximal` holds a row's log-probabilities by its id; a row that is not in it is on-policy."""
        members = [member for group in groups for member in group]
        values, mask = self.logprobs(self.module, [row for row, _ in members])
        with torch.no_grad():
            ref, _ = self.logprobs(self.start, [row for row, _ in members])
        total = torch.zeros(())
        for i, (row, advantage) in enumerate(members):
            policy, reference = values[i][mask[i]], ref[i][mask[i]]
            ratio = (policy - proximal.get(id(row), policy.detach())).exp()
            gain = torch.minimum(ratio * advantage, ratio.clamp(1 - self.clip, 1 + self.clip) * advantage)
            if self.kl_in == "loss":
                gain = gain - self.beta * ((reference - policy).exp() - 1 - (reference - policy))
            total = total - gain.mean()
        return total / len(members)


def rl_config(**options: Any) -> RlConfig:
    defaults = {"model": "tiny-random", "data": "-", "out": "-", "reward": ("none",), "group_size": 4}
    return RlConfig(**{**defaults, **options})


def trained_rows(rows: Rows) -> Rows:
    return [[row for row in group if row.advantages is not None] for group in rows]


def plain_loss(config: RlConfig) -> Callable[[Batch, TokenOutputs], LossOutput]:
    return partial(batch_loss, config=config, choices=loss_choices(config, config.beta), mismatch="off")


def our_groups(rows: Sequence[dict[str, Any]], lm: LanguageModel) -> list[Group]:
    sampling = Sampling(8)
    out = []
    for task, prompt in enumerate(PROMPTS):
        both = [rollout_from_json(row, sampling, lm.chat) for row in rows if row["task"] == str(task)]
        out.append(Group(Task(str(task), prompt), tuple(r for r, _ in both), tuple(s for _, s in both)))
    return out


CASES = [
    pytest.param(1.0, 1.0, 0.0, "loss", id="plain"),
    pytest.param(1.0, 1.0, 0.3, "loss", id="kl in the loss"),
    pytest.param(1.0, 1.0, 0.3, "reward", id="kl in the reward"),
    pytest.param(0.7, 0.9, 0.0, "loss", id="temperature and nucleus"),
    pytest.param(0.7, 0.9, 0.3, "loss", id="everything"),
]


@pytest.mark.parametrize(("temperature", "top_p", "beta", "kl_in"), CASES)
@pytest.mark.parametrize("keep_zero", [False, True])
def test_loss_and_gradient_equal_a_padded_reference(
    temperature: float, top_p: float, beta: float, kl_in: str, keep_zero: bool
) -> None:
    """The policy is moved off its start first, so that neither ratio nor KL is trivial; the proximal policy is the
    start. `keep_zero` computes what a group without variance could have been spared: the gradient is the same."""
    rows = sampled_rows(temperature, top_p, seed=1)
    for i, row in enumerate(rows):  # as if another policy had sampled: the KL in the reward is that of the sampler
        logprobs = row["segments"][0]["sampler_logprobs"]
        row["segments"][0]["sampler_logprobs"] = [lp and lp - 0.03 * ((i + t) % 5) for t, lp in enumerate(logprobs)]
    reference = Reference(rows, temperature, beta, kl_in, clip=0.2)
    lm = load_model("tiny-random")
    with torch.no_grad():
        noise = torch.Generator().manual_seed(3)
        for (name, p), (other, q) in zip(
            lm.module.named_parameters(), reference.module.named_parameters(), strict=True
        ):
            assert name == other
            delta = 0.02 * torch.randn(p.shape, generator=noise) * p.std().nan_to_num(0.0)
            p += delta
            q += delta

    groups = our_groups(rows, lm)
    flat = [r for g in groups for r in g.rollouts]
    start_policy = LocalPolicy(load_model("tiny-random"), Optimization(1e-4), 4096)
    from_start = start_policy.logprobs([share_prefix(branches_of(r)) for r in flat], temperature)
    config = rl_config(beta=beta, temperature=temperature, **({"kl_in": kl_in} if beta else {}))
    references = iter(from_start)
    rows_of = [
        [replace(row, proximal_logprobs=row.sampler_logprobs, ref_logprobs=next(references)) for row in group]
        for group in scored_rows(groups)
    ]
    trained = trained_rows(with_advantages(config, rows_of, beta=beta, weights={}))
    assert [len(group) for group in trained] == [3, 0, 4, 4]
    trees = step_trees(config, trained, keep_zero or (beta > 0 and kl_in == "loss"))
    policy = LocalPolicy(lm, Optimization(1e-4), 200)
    result = policy.forward_backward(trees, plain_loss(config), logprobs_at(temperature))

    fixed = {id(row): torch.tensor(drawn_logprobs(row)) for row in rows}
    expected = reference.loss(reference.groups, fixed)
    expected.backward()
    # a group without variance has the loss 0 at every ratio, but its responses count in the mean
    assert result["loss"] == pytest.approx(expected.item(), abs=2e-5)
    ours = torch.cat([p.grad.flatten() for p in policy.parameters.values() if p.grad is not None])
    theirs = torch.cat([p.grad.flatten() for p in reference.module.parameters() if p.grad is not None])
    assert float((ours - theirs).norm() / theirs.norm()) < 1e-4
    assert float(theirs.norm()) > 0.01


@pytest.mark.parametrize(("updates_per_batch", "minibatches", "beta"), [(1, 1, 0.0), (2, 2, 0.2), (2, 1, 0.0)])
def test_a_recorded_step_is_trained_as_the_reference_does(
    start: Callable[..., Path], updates_per_batch: int, minibatches: int, beta: float
) -> None:
    """A run whose rollouts are recorded and whose step is not done trains on them as they are: so a script of rollouts
    goes through the whole stage. The proximal policy is the one the step began with, in every pass."""
    options = {
        "updates_per_batch": updates_per_batch,
        "minibatches": minibatches,
        "beta": beta,
        "learning_rate": 1e-3,
        "temperature": 0.7,
        "top_p": 0.9,
    }
    options["max_unscored_share"] = 1.0
    # finished once, for the settings; then back to where nothing but the settings and the rollouts is there
    out = start("letter", **options)
    order = [row["task"] for row in read_rows(out / "rollouts.jsonl")][::4]
    for file in ("lineage.json", "metrics.jsonl", "events.jsonl"):
        (out / file).unlink()
    scripted = sampled_rows(0.7, 0.9, seed=5)
    in_order = [row for task in order for row in scripted if row["task"] == task]
    write_rows(out / "rollouts.jsonl", in_order)
    start("letter", resume=True, **options)
    (got,) = metrics(out)
    assert read_rows(out / "rollouts.jsonl") == in_order  # not sampled or scored again

    reference = Reference(in_order, 0.7, beta, "loss", clip=0.2)
    by_task = {group[0][0]["task"]: group for group in reference.groups}
    proximal: dict[int, torch.Tensor] = {}
    for row in in_order:
        with torch.no_grad():
            values, mask = reference.logprobs(reference.start, [row])
        proximal[id(row)] = values[mask]
    optimizer = adamw(reference.module, 1e-3)
    losses, norms = [], []
    size = len(order) // minibatches
    for _ in range(updates_per_batch):
        for i in range(0, len(order), size):
            loss = reference.loss([by_task.get(task, []) for task in order[i : i + size]], proximal)
            optimizer.zero_grad()
            loss.backward()
            norms.append(torch.nn.utils.clip_grad_norm_(reference.module.parameters(), 1.0).item())
            optimizer.step()
            losses.append(loss.item())
    # later updates stand on weights whose smallest gradients Adam has blown up
    tolerance = 1e-5 if updates_per_batch * minibatches == 1 else 2e-3
    assert got["loss"] == pytest.approx(sum(losses) / len(losses), abs=tolerance)
    assert got["grad_norm"] == pytest.approx(sum(norms) / len(norms), rel=10 * tolerance)
    assert got["unscored"] == 4 / 16
    assert got["zero_variance_groups"] == 1 / 4
    assert got["dropped_groups"] == 1 / 4
    assert got["reward"] == pytest.approx((1.25 + 2.0 + 2.0 + 2.0) / 12)


def test_the_first_step_is_on_policy(start: Callable[..., Path]) -> None:
    """Sampler and plain model agree to 1e-4 with temperature and nucleus, and the logged KL to the start is 0."""
    out = start("letter", temperature=0.7, top_p=0.9, beta=0.1, max_new_tokens=24)
    rows = list(Run(out).rollouts())
    reference = Reference(rows, 0.7, 0.1, "loss", 0.2)
    with torch.no_grad():
        values, mask = reference.logprobs(reference.start, rows)
    sampled = [lp for row in rows for lp in drawn_logprobs(row)]
    assert len(sampled) > 16 * 4
    assert float((values[mask] - torch.tensor(sampled)).abs().max()) <= 1e-4
    (row,) = metrics(out)
    assert row["clip_fraction"] == 0.0
    assert row["kl"] == pytest.approx(0.0, abs=1e-6)
    assert row["kl_sequence"] == pytest.approx(0.0, abs=1e-3)
    assert row["response_length"] == pytest.approx(len(sampled) / 16)


def test_policy_over_proximal_is_exactly_one_at_the_start_of_a_batch() -> None:
    """Both when the policy is its own proximal policy and when that was computed before several passes."""
    rows = [row for row in sampled_rows(1.0, 1.0, seed=2) if row["task"] in "03"]
    lm = load_model("tiny-random")
    groups = [g for g in our_groups(rows, lm) if g.rollouts]
    policy = LocalPolicy(lm, Optimization(1e-4), 4096)
    config = rl_config(clip=1e-9)
    rows_of = trained_rows(with_advantages(config, scored_rows(groups), weights={}))
    trees = step_trees(config, rows_of, keep_zero_advantage=False)
    seen: list[torch.Tensor] = []

    def loss(batch: Batch, outputs: TokenOutputs) -> LossOutput:
        seen.append(outputs.logprobs.detach() - batch.token["proximal_logprobs"])
        return plain_loss(config)(batch, outputs)

    rows_of = with_numbers(rows_of, "proximal_logprobs", policy.logprobs)
    with_proximal = policy.forward_backward(step_trees(config, rows_of, keep_zero_advantage=False), loss)
    without = policy.forward_backward(trees, plain_loss(config))
    assert torch.equal(seen[0], torch.zeros_like(seen[0]))
    assert with_proximal["clip_fraction"] == without["clip_fraction"] == 0.0


def test_a_step_without_signal_is_a_logged_no_op(
    start: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """All answers of one token to one prompt differ in nothing a constant reward sees; a run of such steps says so."""
    out = start("letter=0", max_steps=2)
    (event,) = events(out, "nothing_learnt")
    assert event["steps"] == 2 and "in none of 2 steps" in event["reason"] and "mean score was 0)" in event["reason"]
    (warning,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert event["reason"] in warning and "--group-size" in warning
    assert [e["step"] for e in events(out, "no_loss_token")] == [1, 2]
    assert all(e["reason"].startswith("no group had unequal scores") for e in events(out, "no_loss_token"))
    assert [m["loss"] for m in metrics(out)] == [None, None]
    assert [m["zero_variance_groups"] for m in metrics(out)] == [1.0, 1.0]
    before, after = plain_model("tiny-random")[0], plain_model(out)[0]
    assert all(torch.equal(p, q) for p, q in zip(before.parameters(), after.parameters(), strict=True))


def test_rounding_in_the_kl_is_no_signal(start: Callable[..., Path]) -> None:
    """Equal scores on the first step: the KL to the start is 0 but for float noise, which must not be an advantage."""
    (row,) = metrics(start("letter=0", beta=0.5, kl_in="reward"))
    assert row["loss"] is None
    assert row["grad_norm"] == 0.0
    assert row["zero_variance_groups"] == 1.0


def test_zero_variance_groups_are_those_the_advantages_see() -> None:
    """The third task has equal scores. With a KL in the reward its answers differ, as those of the others do."""
    lm = load_model("tiny-random")
    groups = our_groups(sampled_rows(1.0, 1.0, seed=4), lm)
    config = rl_config(beta=0.5, kl_in="reward")
    rows = [
        [replace(row, ref_logprobs=row.sampler_logprobs - 0.1 * row.rollout.index) for row in group]
        for group in scored_rows(groups)
    ]
    assert group_metrics(groups, with_advantages(config, rows, weights={}))["zero_variance_groups"] == 1 / 4
    rows = with_advantages(config, rows, beta=0.5, weights={})
    assert group_metrics(groups, rows)["zero_variance_groups"] == 0.0


def test_a_run_that_learns_something_gives_no_warning(
    start: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    out = start("noise")
    assert not events(out, "nothing_learnt") and not events(out, "special_tokens")
    assert "warning" not in capsys.readouterr().err


def test_control_tokens_in_a_prompt_are_told(start: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"prompt": p + ("<|im_end|>" if i == 2 else "")} for i, p in enumerate(PROMPTS)]
    (event,) = events(start("noise", rows=rows), "special_tokens")
    assert event["first"].endswith("tasks.jsonl: task 2") and (event["rows"], event["of"]) == (1, 4)
    assert "task 2" in capsys.readouterr().err


def test_a_reward_that_never_applies_is_told_at_once(
    start: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (event,) = events(start("forgetful", max_steps=2), "none_applied")
    assert event["step"] == 1 and "every reward returned None" in event["reason"]
    assert event["reason"] in capsys.readouterr().err


def test_it_learns_from_a_reward_and_not_from_noise(start: Callable[..., Path]) -> None:
    """The share of one letter rises far above chance (1 byte in 256) when it is rewarded, and does not when the reward
    is a hash of the answer."""
    options = {"group_size": 8, "batch_size": 32, "max_steps": 15, "max_new_tokens": 12, "learning_rate": 2e-3}
    rewarded = metrics(start(["letter=1", "noise=0"], "rewarded", **options))
    noise = metrics(start(["letter=0", "noise=1"], "noise", **options))

    def last(rows: list[dict[str, Any]]) -> float:
        return float(np.mean([row["reward/letter"] for row in rows[-5:]]))

    assert rewarded[0]["reward/letter"] < 0.1
    assert last(rewarded) > 0.5
    assert last(noise) < 0.15


def test_a_reward_that_fails_now_and_then_leaves_rollouts_unscored(
    start: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"prompt": f"{p} {i}", "bad": "x" if i == 3 else ""} for i, p in enumerate(PROMPTS * 5)]
    out = start("picky", rows=rows, group_size=2, batch_size=40, max_steps=1)
    failed = [row for row in read_rows(out / "rollouts.jsonl") if row["score"] is None]
    assert [row["task"] for row in failed] == ["3", "3"]
    assert all("KeyError" in row["reason"] and "no such thing in 'x'" in row["reason"] for row in failed)
    assert all(row["advantage"] is None for row in failed)
    (event,) = events(out, "unscored")
    assert (event["step"], event["count"]) == (1, 2)
    assert "KeyError" in event["first_reason"]
    assert f"step 1: 2 of 40 answers have no score ({event['first_reason']})" in capsys.readouterr().err
    shown = str(Run(out).rollouts(1)).splitlines()
    assert shown[0].split()[:8] == ["step", "task", "prompt", "text", "score", "advantage", "status", "parts/picky"]
    (row,) = metrics(out)
    assert row["unscored"] == 2 / 40
    assert row["reward"] == pytest.approx(
        np.mean([r["score"] for r in read_rows(out / "rollouts.jsonl") if r["score"] is not None])
    )


@pytest.mark.parametrize(
    ("reward", "said"),
    [("picky", "KeyError"), ("short_list", "returned 15 scores for 16"), ("not_a_number", "nan")],
)
def test_too_many_failures_stop_the_run(start: Callable[..., Path], tmp_path: Path, reward: str, said: str) -> None:
    rows = [{"prompt": p, "bad": "yes"} for p in PROMPTS]
    with pytest.raises(
        RunFailed, match=r"100.0% of the rollouts of 4 tasks since step 1 could not be scored"
    ) as caught:
        start(reward, rows=rows)
    assert said in str(caught.value)
    if reward == "picky":
        assert "Traceback" in str(caught.value) and "rewards.py" in str(caught.value)
    recorded = read_rows(tmp_path / "run" / "rollouts.jsonl")
    assert [row["score"] for row in recorded] == [None] * 16
    assert all(said in row["reason"] for row in recorded)
    assert events(tmp_path / "run", "stopped")[0]["step"] == 1
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_resumed_run_is_stopped_by_what_failed_before_as_well(start: Callable[..., Path], tmp_path: Path) -> None:
    """One of four tasks always fails, which takes several steps to be surely too much. The resume begins before the
    last of them, and scores it again, so that a run whose reward has been mended goes on."""
    rows = [{"prompt": p, "bad": "yes" if i == 0 else ""} for i, p in enumerate(PROMPTS)]
    options = {"rows": rows, "max_steps": 20, "max_unscored_share": 0.02, "save_every": 1, "max_new_tokens": 2}
    with pytest.raises(RunFailed) as first:
        start("picky", **options)
    with pytest.raises(RunFailed) as second:
        start("picky", resume=True, **options)
    message = str(first.value).splitlines()[0]
    assert str(second.value).splitlines()[0] == message
    assert "25.0% of the rollouts of" in message and "since step 1 " in message
    stops = [event["step"] for event in events(tmp_path / "run", "stopped")]
    assert stops[0] == stops[1] >= 3
    (tmp_path / "rewards.py").write_text("def picky(response, bad):\n    return 1.0\n")
    out = start("picky", resume=True, **options)
    unscored = [row["step"] for row in metrics(out) if row["unscored"]]
    assert unscored == list(range(1, stops[0])) and len(metrics(out)) == 20


def test_a_run_completes_with_a_hung_verifier_a_killed_worker_and_random_failures(start: Callable[..., Path]) -> None:
    """The scores that there are equal those of the same reward without faults on the same rollouts."""
    rows = [{"prompt": f"{PROMPTS[i % 4]} number {i}"} for i in range(40)]
    sizes = {"group_size": 4, "batch_size": 80, "max_steps": 2, "max_new_tokens": 4, "reward_timeout": 2.0}
    out = start("faulty", rows=rows, **sizes)
    recorded = read_rows(out / "rollouts.jsonl")
    chat = load_model("tiny-random").chat
    rollouts = [rollout_from_json(row, Sampling(4), chat)[0] for row in recorded]
    tasks = [Task(row["task"], rows[int(row["task"])]["prompt"]) for row in recorded]
    with Scorer([f"{out.parent}/rewards.py:clean"], columns=[], timeout_seconds=60) as scorer:
        plain = [value.total for value in score(scorer, tasks, rollouts)]
    assert len(recorded) == 160 and None not in plain
    unscored = [row for row in recorded if row["score"] is None]
    assert [row["score"] for row in recorded] == [
        None if row["score"] is None else value for row, value in zip(recorded, plain, strict=True)
    ]
    reasons = {row["reason"].split(" at ")[0] for row in unscored}
    assert reasons == {
        "faulty: timed out after 2 s",
        "faulty: the worker process was killed by SIGKILL",
        "faulty: ConnectionError: no answer",
    }
    assert 0.04 < len(unscored) / len(recorded) < 0.16
    assert sum(e["count"] for e in events(out, "unscored")) == len(unscored)
    assert [row["unscored"] for row in metrics(out)] == [sum(row["step"] == n for row in unscored) / 80 for n in (1, 2)]
    assert all(row["grad_norm"] > 0 for row in metrics(out))
    assert (out / "lineage.json").exists()


def test_a_curriculum_is_a_function_of_the_step(start: Callable[..., Path]) -> None:
    """From step 1 to 3 the weight goes from 2 to 0."""
    rewards = ["letter=1:2,3:0", "noise=0.5"]
    whole = start(rewards, "whole", max_steps=3)
    rows = metrics(whole)
    assert [row["weight/letter"] for row in rows] == [2.0, 1.0, 0.0]
    assert "weight/noise" not in rows[0]
    for line in read_rows(whole / "rollouts.jsonl"):
        weight = {1: 2.0, 2: 1.0, 3: 0.0}[line["step"]]
        assert line["score"] == pytest.approx(weight * line["parts"]["letter"] + 0.5 * line["parts"]["noise"])


@pytest.mark.parametrize("aggregation", ["sum", "gdpo"])
def test_advantages_of_several_rewards(start: Callable[..., Path], aggregation: str) -> None:
    out = start(["letter=3", "noise=0.5"], aggregation=aggregation)
    rows = read_rows(out / "rollouts.jsonl")

    def normalised(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        spread = values.std(axis=1, keepdims=True)
        return np.where(spread > 1e-8, (values - values.mean(axis=1, keepdims=True)) / np.maximum(spread, 1e-8), 0.0)

    letter, noise = (np.array([row["parts"][name] for row in rows]).reshape(4, 4) for name in ("letter", "noise"))
    if aggregation == "sum":
        expected = normalised(3 * letter + 0.5 * noise)
    else:
        expected = 3 * normalised(letter) + 0.5 * normalised(noise)
        expected = (expected - expected.mean()) / expected.std()
    assert [row["advantage"] for row in rows] == pytest.approx(expected.flatten().tolist())


def test_gdpo_has_no_place_for_a_kl_in_the_reward() -> None:
    options: dict[str, Any] = {"model": "m", "data": "d", "out": Path("o"), "reward": ("format",)}
    with pytest.raises(ValueError, match="use kl_in 'loss'"):
        RlConfig(**options, aggregation="gdpo", beta=0.1, kl_in="reward")
