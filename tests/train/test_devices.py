"""What holds on every device and in both types: forests, micro-batches, sampling and resumes give the same numbers as
the plain way; checkpoints cross devices. `pytest --device cuda` runs these on a card."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from posttrain.batch import packing
from posttrain.batch.packing import Tree
from posttrain.batch.types import Batch, LossOutput
from posttrain.config import RlConfig, SftConfig
from posttrain.engine.base import Request
from posttrain.engine.local.engine import LocalEngine
from posttrain.models import LanguageModel, load_model
from posttrain.models.compute import FLOAT32_CPU, Compute, use
from posttrain.models.token_logprobs import TokenOutputs
from posttrain.models.weights import stored_weight
from posttrain.runs.records import Lineage
from posttrain.train.policy import LocalPolicy, Optimization
from posttrain.train.rl.stage import Rl
from posttrain.train.sft import train_sft
from posttrain.types import Sampling
from tests.engine.test_engine import batch_of, greedy_by_transformers
from tests.model_helpers import random_trees, worst_relative
from tests.tolerances import Tolerances, tolerances
from tests.training_helpers import events, metrics, sft_rows, write_rows

BFLOAT16_CPU = Compute(torch.device("cpu"), torch.bfloat16)


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def compute(request: pytest.FixtureRequest, device: torch.device) -> Iterator[Compute]:
    if device.type == "mps" and request.param == torch.bfloat16:
        pytest.skip("mps computes in float32")
    with use(Compute(device, request.param)) as compute:
        yield compute


@pytest.fixture
def near(compute: Compute) -> Tolerances:
    return tolerances(compute)


@pytest.fixture
def forest(monkeypatch: pytest.MonkeyPatch) -> list[Tree]:
    monkeypatch.setattr(packing, "MIN_SAVED", 1)
    return random_trees(3)


def policy_of(lm: LanguageModel, tokens: int = 10_000) -> LocalPolicy:
    return LocalPolicy(lm, Optimization(1e-3), tokens)


def likelihood(batch: Batch, outputs: TokenOutputs) -> LossOutput:
    loss = -(batch.weights * outputs.logprobs).sum()
    return LossOutput(loss, {"loss": loss.detach()})


def gradient(policy: LocalPolicy, trees: Sequence[Tree]) -> tuple[float, dict[str, torch.Tensor]]:
    """The loss, and the gradient by the names of the parameters, which is taken away again."""
    loss = float(policy.forward_backward(trees, likelihood)["loss"])
    found = {name: p.grad.to_dense().cpu() for name, p in policy.parameters.items() if p.grad is not None}
    assert all(g.dtype == torch.float32 for g in found.values())
    policy.optimizer.zero_grad(set_to_none=True)
    return loss, found


def alone(trees: Sequence[Tree]) -> list[Tree]:
    """Every row a tree of its own."""
    rows = (
        replace(b, token_ids=(*t.trunk, *b.token_ids), mask=(*[False] * len(t.trunk), *b.mask))
        for t in trees
        for b in t.branches
    )
    return [Tree((), (row,)) for row in rows]


def test_forests_padded_rows_and_micro_batches_agree(compute: Compute, near: Tolerances, forest: list[Tree]) -> None:
    lm = load_model("tiny-random", trained=True)
    assert lm.compute == compute and {p.dtype for p in lm.module.parameters()} == {torch.float32}
    policy = policy_of(lm)
    logprobs = torch.cat([torch.from_numpy(found) for found in policy.logprobs(forest)])
    loss, whole = gradient(policy, forest)
    policy.micro_batch_tokens = 40
    split_loss, split = gradient(policy, forest)
    assert split_loss == pytest.approx(loss, rel=near.loss)
    assert worst_relative(split, whole) < near.micro_batches
    assert worst_relative(gradient(policy, alone(forest))[1], whole) < near.gradient
    lm.packed, policy.micro_batch_tokens = False, 10_000
    padded = torch.cat([torch.from_numpy(found) for found in policy.logprobs(forest)])
    assert float((padded - logprobs).abs().max()) < near.logprob
    padded_loss, rows = gradient(policy, forest)
    assert padded_loss == pytest.approx(loss, rel=near.loss)
    assert worst_relative(rows, whole) < near.gradient


def test_a_gradient_points_where_that_of_float32_on_a_cpu_does(near: Tolerances, forest: list[Tree]) -> None:
    loss, found = gradient(policy_of(load_model("tiny-random", trained=True)), forest)
    exact = load_model("tiny-random", compute=FLOAT32_CPU, trained=True)
    expected_loss, expected = gradient(policy_of(exact), forest)
    assert loss == pytest.approx(expected_loss, rel=near.loss)
    one, other = (torch.cat([g.flatten() for g in grads.values()]) for grads in (found, expected))
    assert float(torch.cosine_similarity(one, other, dim=0)) >= near.cosine
    assert float(one.norm()) == pytest.approx(float(other.norm()), rel=2e-2)


def test_the_engine_samples_what_the_trainer_reads(compute: Compute, near: Tolerances) -> None:
    """With the trained weights, which decoding rounds as training does; greedy answers are those of transformers."""
    lm = load_model("tiny-random", trained=True)
    prompts = [tuple(lm.chat.prompt_ids(text)) for text in ("a", "What is 2 + 2?")]
    engine = LocalEngine(lm, slots=3)
    sampled = [Request(i, prompts[i % 2], Sampling(12, temperature=0.8, top_p=0.9), seed=i) for i in range(6)]
    for i, completion in engine.generate(sampled):
        with torch.no_grad():
            read = lm.logprobs(batch_of(prompts[i % 2], [completion]).to(compute.device), temperature=0.8).logprobs
        assert read.tolist() == pytest.approx(completion.sampler_logprobs.tolist(), abs=max(near.logprob, 1e-4))
    if compute.dtype == torch.float32:
        exact = load_model("tiny-random", compute=FLOAT32_CPU)
        greedy = [Request(i, prompt, Sampling(12, temperature=0.0)) for i, prompt in enumerate(prompts)]
        for i, completion in engine.generate(greedy):
            assert tuple(completion.token_ids.tolist()) == greedy_by_transformers(exact, prompts[i], 12)


def test_checkpoints_cross_devices(tmp_path: Path, compute: Compute, forest: list[Tree]) -> None:
    """From the CPU to the device and back: weights and moments as they were."""
    places = [FLOAT32_CPU, compute, FLOAT32_CPU]
    policies = [policy_of(load_model("tiny-random", compute=place, trained=True)) for place in places]
    policies[0].forward_backward(forest, likelihood)
    policies[0].step()
    for i, (policy, after) in enumerate(pairwise(policies)):
        folder = tmp_path / str(i)
        folder.mkdir()
        policy.save(folder)
        after.load(folder)
        for name, parameter in after.parameters.items():
            assert parameter.device.type == after.compute.device.type
            torch.testing.assert_close(parameter.cpu(), policy.parameters[name].cpu(), rtol=0, atol=0)
            states = (after.optimizer.state[parameter], policy.optimizer.state[policy.parameters[name]])
            for key in ("exp_avg", "exp_avg_sq", "step"):
                torch.testing.assert_close(states[0][key].cpu(), states[1][key].cpu(), rtol=0, atol=0)
    policies[1].forward_backward(forest, likelihood)
    assert policies[1].step()["grad_norm"] > 0


def test_a_checkpoint_of_a_card_loads_without_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = policy_of(load_model("tiny-random", compute=FLOAT32_CPU, trained=True))
    with monkeypatch.context() as patch:
        patch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
        policy.save(tmp_path)
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="CUDA device"):
            torch.load(tmp_path / "optimizer.pt", weights_only=True)
    policy.optimizer.defaults["fused"] = False  # as on a device whose AdamW is not one kernel
    policy.load(tmp_path)
    assert {group["fused"] for group in policy.optimizer.param_groups} == {False}


# -- runs -------------------------------------------------------------------------------------------------------------


def run(folder: Path, **options: Any) -> Path:
    data = write_rows(folder / "rows.jsonl", sft_rows(12))
    common = {"model": "tiny-random", "data": str(data), "batch_size": 4, "learning_rate": 1e-3, "keep": 1}
    config = SftConfig(**{"out": folder / "run", "max_steps": 4, "deterministic": True, **common, **options})
    train_sft(config)
    return config.out


def test_a_resumed_run_is_the_run_that_never_ended(tmp_path: Path, compute: Compute) -> None:
    lora = 0 if compute.dtype == torch.float32 else 4
    whole = run(tmp_path, lora_rank=lora)
    run(tmp_path, lora_rank=lora, out=tmp_path / "parts", max_steps=2)
    parts = run(tmp_path, lora_rank=lora, out=tmp_path / "parts", resume=True)
    assert metrics(parts, timeless=True) == metrics(whole, timeless=True)
    assert not events(parts, "resumed_otherwise")
    made = Lineage.read(whole)
    assert made is not None and (made.device, made.dtype) == (compute.device.type, compute.dtype_name)


def test_a_run_goes_on_in_another_type_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, max_steps=2, device="cpu")
    shutil.copytree(tmp_path / "run", tmp_path / "plain")
    plain = run(tmp_path, out=tmp_path / "plain", resume=True, device="cpu")
    out = run(tmp_path, resume=True, device="cpu", dtype="bfloat16", micro_batch_tokens=64)
    (told,) = events(out, "resumed_otherwise")
    assert told["reason"] == (
        "from step 2 on its numbers differ by rounding: dtype float32 before, bfloat16 now, "
        "micro_batch_tokens 4096 before, 64 now"
    )
    assert told["reason"] in capsys.readouterr().err
    same, other = metrics(plain), metrics(out)
    assert [row["tokens"] for row in same] == [row["tokens"] for row in other]  # the rows of a step are the same
    assert other[-1]["loss"] == pytest.approx(same[-1]["loss"], rel=1e-2)
    assert other[-1]["loss"] != same[-1]["loss"]


def test_layers_that_are_computed_again_give_the_same_run(tmp_path: Path, compute: Compute) -> None:
    kept, again = (run(tmp_path, out=tmp_path / str(i), max_steps=2, checkpoint_activations=i) for i in (False, True))
    assert metrics(again, timeless=True) == metrics(kept, timeless=True)


# -- models that are only read ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dora", [False, True])
def test_an_adapter_is_merged_into_the_exact_weights(tmp_path: Path, dora: bool) -> None:
    """W + s B A with the W of the files, though the model held one that was rounded to bfloat16; with DoRA scaled to
    the trained length of each row."""
    lm = load_model("tiny-random", compute=BFLOAT16_CPU)
    lm.add_adapter(4, 8, seed=0, dora=dora)
    assert lm.module.dtype == torch.bfloat16
    trained = lm.trained_parameters()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in trained.values():
            assert parameter.dtype == torch.float32
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    a, b = (next(p for n, p in trained.items() if f"layers.0.mlp.up_proj.lora_{x}" in n) for x in "AB")
    lm.save(tmp_path, torch.float32)
    name = "model.layers.0.mlp.up_proj.weight"
    before, after = stored_weight(lm.source, name), stored_weight(tmp_path, name)
    assert before is not None and after is not None
    expected = before + 8 / 4 * b.detach() @ a.detach()
    if dora:
        lengths = next(p.detach() for n, p in trained.items() if "layers.0.mlp.up_proj.lora_magnitude_vector" in n)
        expected *= (lengths / expected.norm(dim=1))[:, None]
    torch.testing.assert_close(after, expected)
    norm = "model.norm.weight"
    torch.testing.assert_close(stored_weight(tmp_path, norm), stored_weight(lm.source, norm), rtol=0, atol=0)


def test_a_reference_in_bfloat16_changes_no_number(forest: list[Tree]) -> None:
    lm = load_model("tiny-random", compute=BFLOAT16_CPU, trained=True)
    policy = policy_of(lm)
    reference, moving = policy.reference(), policy.reference(moves=True)
    assert reference.weights is not None and moving.weights is not None
    dtypes = {name.rpartition(".")[0].rpartition(".")[2]: w.dtype for name, w in reference.weights.items()}
    assert (dtypes["q_proj"], dtypes["norm"], dtypes["embed_tokens"]) == (torch.bfloat16, torch.float32, torch.float32)
    assert {w.dtype for w in moving.weights.values()} == {torch.float32}
    own = policy.logprobs(forest)
    with reference.active():
        assert {p.dtype for p in lm.module.parameters()} == {torch.bfloat16, torch.float32}
        read = policy.logprobs(forest)
    assert {p.dtype for p in lm.module.parameters()} == {torch.float32}
    for one, other in zip(own, read, strict=True):
        assert one.tolist() == other.tolist()


@pytest.mark.parametrize(("at", "rule"), [(FLOAT32_CPU, "off"), (BFLOAT16_CPU, "token-truncate")])
def test_samples_of_another_type_are_weighed(at: Compute, rule: str) -> None:
    config = RlConfig(model="m", data="d", out=Path("o"), reward=("math",))
    policy: Any = SimpleNamespace(compute=at)
    parts: dict[str, Any] = dict.fromkeys(("rollouts", "log", "total_steps", "critic", "mix"))
    assert Rl(config=config, policy=policy, held_out=(), **parts).mismatch == rule
    given = config.model_copy(update={"mismatch": "sequence-mask"})
    assert Rl(config=given, policy=policy, held_out=(), **parts).mismatch == "sequence-mask"
