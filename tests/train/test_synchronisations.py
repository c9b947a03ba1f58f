"""A step waits for its device only to read its metrics, and a batch moves there once: counted on a fake device."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import posttrain
from posttrain.batch.types import Batch, LossOutput
from posttrain.config import DistillConfig, DpoConfig, OnlineDpoConfig, RewardModelConfig, RlConfig, SftConfig
from posttrain.models.token_logprobs import TokenOutputs
from posttrain.train import loop, sft
from posttrain.train.distill import Distill, train_distill
from posttrain.train.dpo.online import train_online_dpo
from posttrain.train.dpo.stage import train_dpo
from posttrain.train.reward_model.pairs import train_reward_model
from posttrain.train.rl.rollouts import RolloutStage
from posttrain.train.rl.setup import train_rl
from posttrain.train.sft import train_sft
from tests.batch.test_packing import tensors_of
from tests.fake_device import META, FakeDevice, move_policy_there, move_there
from tests.training_helpers import pair_rows, sft_rows, stepwise_rows, write_rows

Counted = Callable[[str], tuple[FakeDevice, list[Batch]]]
LABELS = [row | {"label": i % 2 == 0} for i, row in enumerate(sft_rows(4))]
TASKS = [{"prompt": row["prompt"]} for row in sft_rows(4)]
PAIRS = pair_rows(4)
REWARD = "def length(response):\n    return (len(response) * 7 % 11) / 10\n"
SAMPLED: dict[str, Any] = {"reward": ["reward.py:length"], "group_size": 2, "max_new_tokens": 6}
STEPS: dict[str, tuple[Callable[..., None], type[Any], list[dict[str, Any]], dict[str, Any], int]] = {
    # name: the command, its configuration, the rows, and how often a step waits for the device
    "sft": (train_sft, SftConfig, sft_rows(4), {}, 1),
    "dpo": (train_dpo, DpoConfig, PAIRS, {"loss": ["sigmoid", "sft=0.1"]}, 1),
    "kto": (train_dpo, DpoConfig, LABELS, {"loss": ["kto", "sft"]}, 2),  # for the baseline
    "reward-model": (train_reward_model, RewardModelConfig, PAIRS, {"members": 2, "centre_coefficient": 0.01}, 1),
    "length-head": (train_reward_model, RewardModelConfig, PAIRS, {"length_head": True}, 2),  # for the correlations
    "process-model": (train_reward_model, RewardModelConfig, stepwise_rows(4), {}, 1),
    "distill": (
        train_distill,
        DistillConfig,
        TASKS,
        {"teacher": "tiny-random", "lora_rank": 4, "max_new_tokens": 6},
        1,
    ),
    # for the reference and the policy before the step
    "grpo": (train_rl, RlConfig, TASKS, SAMPLED | {"beta": 0.1, "top_p": 0.9, "updates_per_batch": 2}, 3),
    "gspo": (train_rl, RlConfig, TASKS, SAMPLED | {"algorithm": "gspo", "beta": 0.1, "mismatch": "sequence-mask"}, 2),
    # for the reference and the values
    "ppo": (train_rl, RlConfig, TASKS, SAMPLED | {"algorithm": "ppo", "critic": "head", "entropy_bonus": 0.1}, 3),
    "critic": (train_rl, RlConfig, TASKS, SAMPLED | {"algorithm": "ppo", "beta": 0.0}, 2),  # for the values
    "online-dpo": (train_online_dpo, OnlineDpoConfig, TASKS, SAMPLED, 2),  # for the reference
}


def sampled_before(stage: Any) -> None:
    """Let the stage sample with its model still in main memory."""
    if isinstance(stage, RolloutStage):
        step = stage.rollouts.step(1)
        stage.rollouts.step = lambda n: step  # type: ignore[method-assign]
    if isinstance(stage, Distill):
        drawn = stage._sample(stage._planned(1)[0])
        stage._sample = lambda plans: drawn  # type: ignore[method-assign]
        move_there(stage.teacher)


def step_there(stage: Any, config: Any, device: FakeDevice) -> None:
    """The first step of a stage, on the fake device."""
    sampled_before(stage)
    move_policy_there(stage.policy)
    if own := getattr(getattr(stage, "critic", None), "own", None):
        move_policy_there(own)
    reference = getattr(stage, "reference", None)
    reference = getattr(reference, "reference", reference)
    if weights := getattr(reference, "weights", None):
        weights.update({name: weight.to(META) for name, weight in weights.items()})
    with device:
        record = loop._step(stage, config, 1)
    assert all(isinstance(value, int | float | None) for value in record.metrics.values())


@pytest.fixture
def counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Counted:
    """A step of STEPS with every tree a micro-batch of its own: the device, and the batches that moved there."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reward.py").write_text(REWARD)
    device, batches = FakeDevice(), []
    move = Batch.to

    def seen(batch: Batch, target: torch.device) -> Batch:
        batches.extend([batch] if target == META else [])
        return move(batch, target)

    monkeypatch.setattr(Batch, "to", seen)
    monkeypatch.setattr(loop, "run_stage", lambda log, config, stage, observers: step_there(stage, config, device))

    def run(name: str) -> tuple[FakeDevice, list[Batch]]:
        train, kind, rows, options, _ = STEPS[name]
        data = str(write_rows(tmp_path / "data.jsonl", rows))
        given = {"batch_size": 4, "max_steps": 2, "micro_batch_tokens": 1} | options
        train(kind(model="tiny-random", data=data, out=tmp_path / "run", **given))
        return device, batches

    return run


@pytest.mark.parametrize("name", STEPS)
def test_a_step_waits_for_its_metrics_alone(name: str, counted: Counted) -> None:
    device, batches = counted(name)
    assert len(batches) >= 2, "there are several micro-batches"
    assert len(device.reads) == STEPS[name][-1], device.reads
    moved = [tensor.data_ptr() for tensor in device.moved]
    of_batches = [tensor for batch in batches for tensor in tensors_of(batch) if tensor.numel()]
    assert [moved.count(tensor.data_ptr()) for tensor in of_batches] == [1] * len(of_batches), "each moves once"


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (lambda batch, logprobs: float(logprobs.sum()), None),
        (lambda batch, logprobs: logprobs * torch.ones(len(logprobs)), "on the device and in main memory"),
        (lambda batch, logprobs: logprobs[batch.weights > 0], "nonzero"),
    ],
    ids=["float", "main memory", "mask"],
)
def test_what_would_wait_in_a_micro_batch_is_found(
    fault: Callable[[Batch, torch.Tensor], object],
    message: str | None,
    counted: Counted,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    right = sft.loss_of

    def wrong(batch: Batch, outputs: TokenOutputs) -> LossOutput:
        fault(batch, outputs.logprobs.detach())
        return right(batch, outputs)

    monkeypatch.setattr(sft, "loss_of", wrong)
    if message is not None:
        with pytest.raises((AssertionError, NotImplementedError), match=message):
            counted("sft")
        return
    device, batches = counted("sft")
    assert len(device.reads) == len(batches) + 1


PLACES = ("losses", "rewards", "evals", "train/rl", "train/dpo", "train/reward_model", "train/generate")
STAGES = ("train/sft.py", "train/distill.py", "train/dataset_stage.py")


def test_no_stage_loss_or_reward_names_a_device() -> None:
    """`Batch.to`, `read` and the policy move what has to move; a dtype is no device."""
    package = Path(posttrain.__file__).parent
    files = [file for place in PLACES for file in (package / place).rglob("*.py")] + [package / file for file in STAGES]
    assert len(files) > 60
    found = [f"{file.relative_to(package)}:{node.lineno}" for file in files for node in devices_in(file.read_text())]
    assert found == []


def devices_in(source: str) -> list[Any]:
    """Where a source names a device: an attribute `device`, `to`, `cpu` or `cuda`, an argument `device` or its name."""
    return [
        node
        for node in ast.walk(ast.parse(source))
        if (isinstance(node, ast.Attribute) and node.attr in ("device", "to", "cpu", "cuda") and not _of_record(node))
        or (isinstance(node, ast.keyword) and node.arg == "device" and not _of_record(node.value))
        or (isinstance(node, ast.Constant) and node.value in ("cpu", "cuda", "mps", "meta"))
    ]


def _of_record(node: ast.AST) -> bool:
    """Whether it is what the lineage of a run says of its device."""
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "first"


@pytest.mark.parametrize("line", ["x.to(d)", "x.cuda()", "y = x.device", "torch.zeros(3, device=d)", "f('cuda')"])
def test_a_named_device_is_found(line: str) -> None:
    assert devices_in(line)
