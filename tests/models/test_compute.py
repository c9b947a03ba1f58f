"""Which device and type models are loaded for. A card is stood in for by what torch would say of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from posttrain.cli.main import BAD_INPUT, main
from posttrain.config import ComputeOptions, SftConfig
from posttrain.config.compute import asked_for, on_its_device
from posttrain.console import info_once
from posttrain.methods import METHODS
from posttrain.models import compute
from posttrain.models.compute import FLOAT32_CPU, Compute, compute_for, current, use
from posttrain.types import InputError
from tests.training_helpers import pair_rows, sft_rows, write_rows

CUDA_BFLOAT16 = Compute(torch.device("cuda"), torch.bfloat16)
CPU_BFLOAT16 = Compute(torch.device("cpu"), torch.bfloat16)

FLAGS: list[tuple[Any, str]] = [
    (torch.backends.cuda.matmul, "allow_tf32"),
    (torch.backends.cudnn, "allow_tf32"),
    (torch.backends.cuda.matmul, "allow_bf16_reduced_precision_reduction"),
]


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test before says where models run, and the flags of torch are as before."""
    monkeypatch.setattr(compute, "_enclosing", None)
    before = [getattr(module, name) for module, name in FLAGS]
    compute._resolved.cache_clear()
    info_once.cache_clear()
    yield
    compute._resolved.cache_clear()
    for (module, name), value in zip(FLAGS, before, strict=True):
        setattr(module, name, value)


def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


def a_card(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int] = (9, 0)) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a card")


def test_a_cpu_alone_computes_in_float32(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    no_gpu(monkeypatch)
    assert current() == compute_for(ComputeOptions()) == FLOAT32_CPU
    assert capsys.readouterr().err == ""
    assert compute_for(ComputeOptions(dtype="bfloat16")) == CPU_BFLOAT16


def test_a_card_is_taken_by_itself_in_the_type_it_has(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    a_card(monkeypatch)
    assert current() == CUDA_BFLOAT16 == current()
    assert capsys.readouterr().err == "computes on a card in bfloat16\n"
    assert not any(getattr(module, name) for module, name in FLAGS)
    assert compute_for(ComputeOptions(device="cpu")) == FLOAT32_CPU
    assert compute_for(ComputeOptions(dtype="float32")).dtype == torch.float32


def test_an_older_card_computes_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    a_card(monkeypatch, (7, 5))
    assert current() == Compute(torch.device("cuda"), torch.float32)
    with pytest.raises(InputError, match="capability 8.0"):
        compute_for(ComputeOptions(dtype="bfloat16"))


def test_apples_gpu_computes_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    no_gpu(monkeypatch)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert current() == Compute(torch.device("mps"), torch.float32)
    with pytest.raises(InputError, match="mps computes in float32"):
        compute_for(ComputeOptions(dtype="bfloat16"))


def test_what_encloses_a_command_holds_where_it_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    a_card(monkeypatch)
    recipe, stage = ComputeOptions(device="cpu", dtype="bfloat16"), ComputeOptions()
    seen = on_its_device(lambda config: current())
    assert on_its_device(lambda config: seen(stage))(recipe) == CPU_BFLOAT16
    assert on_its_device(lambda config: seen(ComputeOptions(device="cuda")))(recipe) == CUDA_BFLOAT16
    assert on_its_device(lambda config: seen(ComputeOptions(dtype="float32")))(recipe) == FLOAT32_CPU
    with use(FLOAT32_CPU):
        assert seen(stage) == FLOAT32_CPU
        assert seen(ComputeOptions(device="cuda")) == CUDA_BFLOAT16
        with asked_for(recipe), use(FLOAT32_CPU):
            assert seen(stage) == FLOAT32_CPU
    assert current() == CUDA_BFLOAT16


@pytest.mark.parametrize("name", sorted({*METHODS, "eval", "chat", "score", "run"} - {"average"}))
def test_every_command_that_loads_a_model_takes_its_device(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    no_gpu(monkeypatch)
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "rows.jsonl", sft_rows(4))
    write_rows(tmp_path / "tasks.jsonl", [{"prompt": "Say one word"}])
    write_rows(tmp_path / "pairs.jsonl", pair_rows(4))
    (tmp_path / "r.yaml").write_text(
        "model: tiny-random\nstages: {a: {method: sft, parent: start, data: rows.jsonl, max_steps: 1}}\n"
    )
    model = ["--model", "tiny-random", "--out", "out", "--data"]
    words = {
        "chat": ["tiny-random"],
        "distill": [*model, "rows.jsonl", "--teacher", "tiny-random"],
        "eval": ["tiny-random", "--data", "tasks.jsonl", "--reward", "length", "--reward-workers", "0"],
        "online-dpo": [*model, "tasks.jsonl", "--reward", "length", "--reward-workers", "0"],
        "rl": [*model, "tasks.jsonl", "--reward", "length", "--batch-size", "8"],
        "run": ["r.yaml"],
        "sample": [*model, "tasks.jsonl", "--write", "all"],
        "revise": [*model, "tasks.jsonl"],
        "score": ["--data", "rows.jsonl", "--reward", "learned(x)", "--reward-workers", "0"],
        "sft": [*model, "rows.jsonl"],
    }
    assert main([name, *words.get(name, [*model, "pairs.jsonl"]), "--device", "cuda"]) == BAD_INPUT
    assert "--device cuda: torch" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_deterministic_algorithms_are_asked_of_a_gpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    for wanted, at, expected in (
        (True, CUDA_BFLOAT16, True),
        (False, CUDA_BFLOAT16, False),
        (True, FLOAT32_CPU, False),
    ):
        with compute.repeatable(wanted, at):
            assert torch.are_deterministic_algorithms_enabled() is expected
        assert not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]


def test_a_gpu_takes_larger_micro_batches() -> None:
    config = SftConfig(model="m", data="d", out=Path("o"))
    assert (config.tokens_at_once("cpu"), config.tokens_at_once("mps"), config.tokens_at_once("cuda")) == (
        4096,
        4096,
        16384,
    )
    assert config.model_copy(update={"micro_batch_tokens": 7}).tokens_at_once("cuda") == 7


def test_peak_memory_is_a_metric_on_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    reset: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", reset.append)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 17)
    compute.reset_peak_memory(CUDA_BFLOAT16)
    assert reset == [CUDA_BFLOAT16.device]
    assert compute.peak_memory(CUDA_BFLOAT16) == {"peak_memory_bytes": 17}
    assert compute.peak_memory(FLOAT32_CPU) == {}
