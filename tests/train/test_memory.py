"""What weights take on a card, by hand, and which runs are refused before anything is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from posttrain.config import DistillConfig, RlConfig, SftConfig
from posttrain.models import load_model
from posttrain.models.compute import FLOAT32_CPU, Compute
from posttrain.models.weights import stored_parameters
from posttrain.train import memory
from posttrain.train.loop import load_trained
from posttrain.train.memory import WeightMemory, check_fits, weight_memory
from posttrain.train.sft import train_sft
from posttrain.types import InputError, RunFailed
from tests.training_helpers import sft_rows, write_rows

COMMON: dict[str, Any] = {"model": "m", "data": "d", "out": Path("o")}
SEVEN = 7_615_616_512
"""The parameters of Qwen2.5-7B."""
H100 = 80e9


def test_bytes_of_a_trained_parameter() -> None:
    sft, lora = SftConfig(**COMMON), SftConfig(**COMMON, lora_rank=4)
    assert weight_memory(sft, 100, 0, "float32") == WeightMemory(400, 400, 800)
    assert weight_memory(sft, 100, 0, "bfloat16") == WeightMemory(600, 400, 800)  # 18 bytes each
    assert weight_memory(lora, 100, 10, "float32") == WeightMemory(440, 40, 80)
    assert weight_memory(lora, 100, 10, "bfloat16") == WeightMemory(200 + 60, 40, 80)


def test_other_models_of_a_run_are_counted_with_it() -> None:
    ppo = RlConfig(**COMMON, algorithm="ppo", reward=("math",))
    assert weight_memory(ppo, 100, 0, "bfloat16") == WeightMemory(600, 400, 800, reference=200, critic=1800)
    moving = ppo.model_copy(update={"reference_every": 5, "critic": "head"})
    assert weight_memory(moving, 100, 0, "bfloat16") == WeightMemory(600, 400, 800, reference=400)
    teacher = DistillConfig(**COMMON, teacher="t", lora_rank=4)
    assert weight_memory(teacher, 100, 10, "bfloat16").reference == 200


def test_a_model_beyond_the_card_is_refused_with_what_would_fit() -> None:
    with pytest.raises(InputError) as refused:
        check_fits(SftConfig(**COMMON), SEVEN, "bfloat16", H100)
    assert str(refused.value) == (
        "--model m: to train the full weights of 7.62 billion parameters takes 137 GB before the first token, and this "
        "card has 80 GB: use --lora-rank 16 (15.2 GB), a smaller model or a larger card (docs/gpu.md has the table)"
    )
    check_fits(SftConfig(**COMMON, lora_rank=16), SEVEN, "bfloat16", H100)
    check_fits(SftConfig(**COMMON), SEVEN, "bfloat16", 141e9)
    ppo = RlConfig(**COMMON, algorithm="ppo", reward=("math",))
    with pytest.raises(InputError, match=r"takes 117 GB .* --lora-rank 16 \(12.3 GB\), --critic head, a smaller"):
        check_fits(ppo, 3_085_938_688, "bfloat16", H100)


def test_stored_parameters_are_those_of_the_model(tmp_path: Path) -> None:
    lm = load_model("tiny-random")
    assert stored_parameters(lm.source) == 956_160 == sum(p.numel() for p in lm.module.parameters())
    assert stored_parameters(tmp_path) == 0


def test_a_card_is_asked_before_the_weights_are_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    config = SftConfig(model="tiny-random", data="d", out=Path("o"), device="cuda")
    card = Compute(torch.device("cuda"), torch.bfloat16)
    monkeypatch.setattr("posttrain.train.loop.current", lambda: card)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1e6, 17e6))
    with pytest.raises(InputError, match="956,160 parameters takes 17.2 MB .* this card has 17 MB"):
        load_trained(config)
    memory.check_card(config, FLOAT32_CPU)  # there is no card to ask


def test_a_model_that_is_only_read_and_finds_no_memory_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(module: object, device: torch.device) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    monkeypatch.setattr(PreTrainedModel, "to", full)
    with pytest.raises(InputError, match="--model tiny-random: its weights, 3.82 MB, find no room on cpu; give a"):
        load_model("tiny-random", compute=FLOAT32_CPU)


def test_a_step_that_finds_no_memory_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_rows(tmp_path / "rows.jsonl", sft_rows(4))
    config = SftConfig(model="tiny-random", data=str(data), out=tmp_path / "run", micro_batch_tokens=512)

    def full(*given: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    monkeypatch.setattr("posttrain.train.dataset_stage.DatasetStage.gradient", full)
    with pytest.raises(RunFailed, match=r"cpu has no memory left; .* --micro-batch-tokens \(it is 512\)"):
        train_sft(config)
