"""The shipped recipes: every size is right and the tiny one runs; plans and their memory; pooled data; averages."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from posttrain.chat import EncodedRow
from posttrain.cli.main import main
from posttrain.config import (
    AverageConfig,
    DistillConfig,
    DpoConfig,
    ModelShape,
    RlConfig,
    RunConfig,
    SampleConfig,
    SftConfig,
)
from posttrain.models import LanguageModel, load_model
from posttrain.models.compute import DTYPES, Compute, use
from posttrain.models.load import model_folder
from posttrain.recipes.load import load_recipe
from posttrain.recipes.memory import SHAPES, Memory, adapters, memory_of, parameters
from posttrain.recipes.plan import plan_recipe
from posttrain.recipes.run import run_recipe
from posttrain.train.average import average_models
from posttrain.train.loop import load_trained, make_policy
from posttrain.train.sft import loss_of, sft_trees
from posttrain.types import InputError
from tests.servers.chat import ChatServer
from tests.training_helpers import ending_tiny, metrics, read_rows, write_rows

SIZED = ("constitutional", "deepseek-r1", "instructgpt", "llama3", "tulu3")
LLAMA_8B = ModelShape(layers=32, hidden=4096, intermediate=14336, heads=32, key_heads=8, vocabulary=128256)


# -- the recipes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SIZED)
def test_every_size_is_right_and_planned(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for size in ("laptop", "paper", "tiny"):
        assert main(["run", name, "--size", size, "--plan"]) == 0
        shown = capsys.readouterr().out
        assert all(stage in shown for stage in load_recipe(name, size=size).stages)
        assert "Memory in" in shown
    assert not list(tmp_path.iterdir())


def test_the_first_size_is_the_default() -> None:
    for name in SIZED:
        assert load_recipe(name) == load_recipe(name, size="laptop")
        assert load_recipe(name).model == "smollm2-135m"


def run_tiny(name: str, out: Path, *changes: str) -> dict[str, Any]:
    """Run a recipe at its tiny size; what compare.json says of its stages."""
    run_recipe(RunConfig(recipe=name, size="tiny", out=out, set=changes))
    stages: dict[str, Any] = json.loads((out / "compare.json").read_text())["stages"]
    assert all("greedy" in stage["evaluations"] for stage in stages.values())
    return stages


def test_instructgpt(tmp_path: Path) -> None:
    stages = run_tiny("instructgpt", tmp_path / "out")
    assert {name: stage["parent"] for name, stage in stages.items()} == {"start": None, "sft": "start", "ppo": "sft"}
    (row,) = metrics(tmp_path / "out" / "ppo")
    assert row["reward"] == row["reward/learned"] and row["ptx_loss"] > 0
    assert (tmp_path / "out" / "rm" / "model").is_dir()
    run_tiny("instructgpt", tmp_path / "out")  # the folder goes on at the same size
    with pytest.raises(InputError, match="model differs"):
        run_recipe(RunConfig(recipe="instructgpt", size="laptop", out=tmp_path / "out"))


@pytest.mark.stress
def test_tulu3(tmp_path: Path) -> None:
    stages = run_tiny("tulu3", tmp_path / "out")
    assert {name: stage["parent"] for name, stage in stages.items()} == {
        "start": None,
        "sft": "start",
        "dpo": "sft",
        "rlvr": "dpo",
    }


@pytest.mark.stress
def test_deepseek_r1(tmp_path: Path) -> None:
    stages = run_tiny("deepseek-r1", tmp_path / "out")
    assert list(stages) == ["start", "cold-start", "reasoning", "sft", "rl"]
    (row,) = metrics(tmp_path / "out" / "rl")
    assert row["reward"] == pytest.approx(row["reward/regex"] + 0.1 * row["reward/learned"])
    costs = [json.loads((tmp_path / "out" / s / "cost.json").read_text())["flops"] for s in ("sft", "rejection")]
    assert stages["sft"]["flops"] == sum(costs)


@pytest.mark.stress
def test_llama3(tmp_path: Path) -> None:
    stages = run_tiny("llama3", tmp_path / "out")
    assert list(stages) == ["start", "annotated", "sft-1", "dpo-1", "sft-2", "dpo-2", "dpo-2-wider", "average"]
    assert stages["average"]["parent"] == "dpo-2" and stages["average"]["flops"] == 0
    pooled = read_rows(tmp_path / "out" / "_pooled" / "sft-2.jsonl")
    parts = [read_rows(tmp_path / "out" / f"rejection-{n}" / "sft.jsonl") for n in (1, 2)]
    assert len(pooled) == 8 + sum(map(len, parts)) and pooled[8:] == [*parts[0], *parts[1]]


@pytest.mark.stress
def test_constitutional(tmp_path: Path, judge_server: ChatServer) -> None:
    """With a judge behind an endpoint for the labels; it likes the longer answer."""
    judge = f'judge_pair(url="{judge_server.url}", model="m", rubric="harmless", clamp=0.4)'
    changes = (
        f"model={ending_tiny(tmp_path)}",
        f"labels.reward={json.dumps([judge])}",
        "labels.samples=2",
        "labels.soft_labels=true",
    )
    stages = run_tiny("constitutional", tmp_path / "out", *changes)
    assert list(stages) == ["start", "sl", "rl"]
    pairs = read_rows(tmp_path / "out" / "labels" / "pairs.jsonl")
    assert pairs and all((p["chosen_score"], p["rejected_score"]) == (0.6, 0.4) for p in pairs)
    assert all(p["probability"] == 0.6 for p in pairs)
    assert all(len(p["chosen"]) > len(p["rejected"]) for p in pairs)
    assert all(row["rounds"] for row in read_rows(tmp_path / "out" / "revised" / "sft.jsonl"))


# -- plans ------------------------------------------------------------------------------------------------------------


def test_parameters_are_those_of_the_models(tiny: LanguageModel) -> None:
    """By hand for `tiny-random`: 259 · 128 + 5 (128 (2 · 128 + 2 · 64 + 3 · 352) + 2 · 128) + 128."""
    assert parameters(SHAPES["tiny-random"]) == 956_160 == sum(p.numel() for p in tiny.module.parameters())
    assert parameters(LLAMA_8B) == 8_030_261_248  # as its model card says, 8.03 billion
    assert parameters(SHAPES["smollm2-135m"]) == 134_515_008
    assert parameters(LLAMA_8B.model_copy(update={"parameters": 1e9})) == 1e9


def test_adapters_are_those_that_are_put_in() -> None:
    """By hand: 5 · 8 (2 (128 + 128) + 2 (128 + 64) + 3 (128 + 352)), and 5 (3 · 128 + 2 · 64 + 2 · 352) lengths."""
    for dora, expected in ((False, 93_440), (True, 93_440 + 6_080)):
        lm = load_model("tiny-random")
        lm.add_adapter(8, 32, 0, dora=dora)
        trained = sum(p.numel() for p in lm.trained_parameters().values())
        assert adapters(SHAPES["tiny-random"], 8, dora) == expected == trained


@pytest.mark.parametrize(
    ("rank", "dora", "dtype"),
    [(0, False, "float32"), (8, False, "float32"), (8, True, "float32"), (0, False, "bfloat16")],
)
def test_what_a_step_of_the_tiny_model_holds(rank: int, dora: bool, dtype: str) -> None:
    """Weights, gradients and moments are counted in the model itself; what the backward pass needs is what autograd
    saves, parameters and the copies of them that products see apart. Of that the estimate leaves one or two parts in a
    hundred out."""
    config = SftConfig(
        model="tiny-random", data="d", out=Path("o"), micro_batch_tokens=256, lora_rank=rank, use_dora=dora
    )
    need = memory_of(config, SHAPES["tiny-random"], "cpu", dtype)
    with use(Compute(torch.device("cpu"), DTYPES[dtype])):
        policy = make_policy(load_trained(config), config, 1e-3, None)
    own = {p.untyped_storage().data_ptr() for p in policy.lm.module.parameters()}
    shapes = {p.shape for p in policy.lm.module.parameters()}
    saved: dict[int, int] = {}
    copies = 0 if dtype == "float32" else 2 * 956_160

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own and not (copies and tensor.shape in shapes):
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    row = EncodedRow(tuple(range(256)), (False,) + (True,) * 255, "row")
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        policy.forward_backward(sft_trees([row]), loss_of)
    trained = list(policy.parameters.values())
    states = [policy.optimizer.state[p] for p in trained]
    assert need.weights - copies == sum(p.nbytes for p in policy.lm.module.parameters())
    assert need.gradients == sum(p.grad.nbytes for p in trained if p.grad is not None)
    assert need.optimizer == sum(state[m].nbytes for state in states for m in ("exp_avg", "exp_avg_sq"))
    assert need.activations == pytest.approx(sum(saved.values()), rel=0.03)


def test_memory_of_an_8b_model_by_hand() -> None:
    """P = 8,030,261,248; a layer has 4096 (2 · 4096 + 2 · 1024 + 3 · 14336) = 218,103,808 numbers in its matrices."""
    common = {"model": "m", "data": "d", "out": Path("o")}
    full = memory_of(SftConfig(**common), LLAMA_8B)
    activations = 4 * 4096 * (32 * (2 * 4096 + 2 * 4096 + 2 * 1024 + 2 * 14336) + 2 * 4096)
    assert activations == 24_830_279_680
    assert full == Memory(32_121_044_992, 32_121_044_992, 64_242_089_984, activations=activations)
    assert full.peak == 4 * 32_121_044_992 + activations

    ppo = memory_of(RlConfig(**common, algorithm="ppo", reward=("learned(a/b)",)), LLAMA_8B)
    assert (ppo.reference, ppo.critic, ppo.rewards) == (32_121_044_992, 4 * 32_121_044_992, 32_121_044_992)
    assert ppo.engine == 4 * (32 * 218_103_808 + 128256 * 4096)
    assert ppo.cache == 4 * 2 * 32 * 1024 * (64 * 256 + 64 * 256)  # answers, and as many prompts
    assert ppo.peak == (1 + 2 + 1 + 4 + 1) * 32_121_044_992 + 32_121_044_992 + activations

    lora = memory_of(RlConfig(**common, algorithm="rloo", reward=("math",), lora_rank=16), LLAMA_8B)
    extra = 32 * 16 * (2 * 8192 + 2 * 5120 + 3 * 18432)
    assert (lora.weights, lora.gradients, lora.optimizer) == (4 * (8_030_261_248 + extra), 4 * extra, 8 * extra)
    assert (lora.reference, lora.critic, lora.rewards) == (0, 0, 0)


def test_memory_of_an_8b_model_on_a_card_by_hand() -> None:
    """In bfloat16: 18 bytes a trained parameter, 2 one that is only read; 16,384 tokens at once."""
    common = {"model": "m", "data": "d", "out": Path("o")}
    p, layer = 8_030_261_248, 4 * 2 * 4096 + 2 * (2 * 4096 + 2 * 1024 + 2 * 14336)
    full = memory_of(SftConfig(**common), LLAMA_8B, "cuda", "bfloat16")
    assert full == Memory(6 * p, 4 * p, 8 * p, activations=16_384 * (32 * layer + 4 * 2 * 4096))
    again = memory_of(SftConfig(**common, checkpoint_activations=True), LLAMA_8B, "cuda", "bfloat16")
    assert again.activations == 16_384 * (layer + 32 * 4 * 4096 + 4 * 2 * 4096)
    rl = memory_of(RlConfig(**common, reward=("learned(a/b)",), beta=0.1), LLAMA_8B, "cuda", "bfloat16")
    assert (rl.reference, rl.rewards) == (2 * p, 2 * p)
    assert (rl.engine, rl.cache) == (2 * (32 * 218_103_808 + 128256 * 4096), 2 * 2 * 32 * 1024 * (64 * 256 + 8 * 256))


def test_a_plan_is_of_the_device_that_it_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a card too where there is none; a stage may say its own."""
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "model: tiny-random\nstages:\n  a: {method: sft, parent: start, data: d.jsonl}\n"
        "  b: {method: sft, parent: a, data: d.jsonl, dtype: float32}\n"
    )
    plan = plan_recipe(RunConfig(recipe=str(recipe), device="cuda"))
    assert plan.device == "cuda"
    assert [stage.dtype for stage in plan.stages] == ["bfloat16", "float32"]
    assert [stage.memory and stage.memory["weights"] for stage in plan.stages] == [6 * 956_160, 4 * 956_160]
    assert main(["run", str(recipe), "--plan", "--device", "cuda", "--dtype", "float32"]) == 0
    assert "on cuda in float32" in capsys.readouterr().out


def test_what_other_stages_need() -> None:
    common = {"model": "m", "data": "d", "out": Path("o")}
    weights = 4.0 * 956_160
    shape = SHAPES["tiny-random"]
    assert memory_of(DpoConfig(**common), shape).reference == 0
    assert memory_of(DpoConfig(**common, reference_every=2), shape).reference == weights
    assert memory_of(DistillConfig(**common, teacher="t"), shape).reference == weights
    head = memory_of(RlConfig(**common, algorithm="ppo", critic="head", reward=("math",)), shape)
    assert (head.critic, head.reference) == (0, weights)
    two = memory_of(SampleConfig(**common, reward=("gate(math, implicit(a/b, c/d))",)), shape)
    assert (two.rewards, two.gradients, two.activations) == (2 * weights, 0, 0)
    endpoint = {"endpoint": "http://x/v1", "endpoint_model": "m", "data": "d", "out": Path("o")}
    assert memory_of(SampleConfig(**endpoint, write="all"), shape) == Memory()
    assert memory_of(AverageConfig(models=("a", "b"), out=Path("o")), shape) == Memory(weights=weights)


def test_a_plan_imports_no_torch_and_names_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = (
        "import sys; from posttrain.cli.main import main; r = main(sys.argv[1:]); sys.exit(r or 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "run", "tulu3", "--plan", "--device", "cpu"], capture_output=True
    )
    assert done.returncode == 0, done.stderr
    for change, message in (
        ("rlvr.reward=['maths']", "unknown reward 'maths'"),
        ("rlvr.group_size=3", "stage rlvr: batch_size counts rollouts"),
        ("evaluate.reward=['gate()']", "reward gate"),
    ):
        assert main(["run", "tulu3", "--plan", "--out", str(tmp_path / "out"), "--set", change]) == 2
        assert message in capsys.readouterr().err
    assert main(["run", "constitutional", "--plan", "--set", "revised.principles=none.yaml"]) == 2
    assert "there is no rubric file none.yaml" in capsys.readouterr().err
    assert main(["run", "constitutional", "--plan", "--set", "labels.soft_labels=true"]) == 2
    assert "soft_labels needs judge_pair" in capsys.readouterr().err
    assert main(["run", "tulu3", "--plan", "--set", "model=owner/name"]) == 0
    assert "the recipe has no shape of owner/name" in capsys.readouterr().out


# -- averages and pooled rows -----------------------------------------------------------------------------------------


def shifted(folder: Path, by: float) -> str:
    """tiny-random with every weight moved."""
    shutil.copytree(model_folder("tiny-random"), folder)
    weights = {name: w + by for name, w in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return str(folder)


def test_an_average_is_the_mean_of_the_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = [shifted(tmp_path / f"m{by}", by) for by in (0.25, 0.5, 3.0)]
    out = tmp_path / "out"
    assert main(["average", *models, "--out", str(out)]) == 0
    base = load_file(Path(model_folder("tiny-random")) / "model.safetensors")
    mean = load_file(out / "model" / "model.safetensors")
    assert mean.keys() == base.keys()
    for name, weight in base.items():
        torch.testing.assert_close(mean[name], weight + 1.25, rtol=0, atol=1e-6)
    lm = load_model(str(out))
    assert lm.module.get_input_embeddings().weight.equal(mean["model.embed_tokens.weight"])
    lineage = json.loads((out / "lineage.json").read_text())
    assert lineage["parents"] == models and len(set(lineage["parent_weights_hashes"])) == 3
    assert json.loads((out / "cost.json").read_text())["flops"] == 0

    assert main(["average", models[0], "--out", str(tmp_path / "one")]) == 2
    assert "give two or more models" in capsys.readouterr().err
    assert main(["average", *models, "--out", str(out)]) == 2
    assert "already holds a run" in capsys.readouterr().err
    before = (out / "lineage.json").stat().st_mtime_ns
    assert main(["average", *models, "--out", str(out), "--resume"]) == 0
    assert (out / "lineage.json").stat().st_mtime_ns == before


def test_models_that_are_not_alike_are_not_averaged(tmp_path: Path) -> None:
    tiny = model_folder("tiny-random")
    narrow, named, worded = (Path(shifted(tmp_path / name, 0.0)) for name in ("narrow", "named", "worded"))
    weights = load_file(narrow / "model.safetensors")
    weights["model.norm.weight"] = weights["model.norm.weight"][:127].clone()
    save_file(weights, narrow / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((named / "config.json").read_text()) | {"architectures": ["LlamaForSequenceClassification"]}
    (named / "config.json").write_text(json.dumps(config))
    tokenizer = (worded / "tokenizer.json").read_text()
    (worded / "tokenizer.json").write_text(tokenizer.replace("<|im_start|>", "<|im_begin|>"))
    for other, what in (
        (narrow, r"model.norm.weight is \(127,\) and \(128,\)"),
        (named, r"the architecture is \['LlamaForSequenceClassification'\]"),
        (worded, "the vocabulary is 260 tokens"),
    ):
        with pytest.raises(InputError, match=f"{other} cannot be averaged with {tiny}: {what}"):
            average_models(AverageConfig(models=(tiny, str(other)), out=tmp_path / "out"))
    with pytest.raises(InputError, match="no such folder"):
        average_models(AverageConfig(models=(tiny, "./nowhere"), out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_stages_pool_rows_and_average_merged_adapters(tmp_path: Path) -> None:
    rows = [{"prompt": f"Say {word}", "completion": word} for word in ("apple", "river", "stone")]
    tasks = write_rows(tmp_path / "tasks.jsonl", [{"prompt": f"Name {n}"} for n in range(4)])
    own = write_rows(tmp_path / "own.jsonl", rows)
    sft = {"method": "sft", "parent": "start", "max_steps": 1, "batch_size": 4, "lora_rank": 4, "learning_rate": 1e-2}
    raw = {
        "model": "tiny-random",
        "evaluate": {
            "data": str(tasks),
            "reward": ["length(max_length=3)"],
            "samples": 0,
            "max_new_tokens": 4,
            "retention": False,
        },
        "stages": {
            "answers": {
                "method": "sample",
                "parent": "start",
                "write": "all",
                "samples": 2,
                "truncated": "keep",
                "max_new_tokens": 4,
                "data": str(write_rows(tmp_path / "more.jsonl", [{"prompt": "One more"}])),
            },
            "a": {**sft, "data": ["answers", str(own), "reasoning-gym:chain_sum?size=2"]},
            "b": {**sft, "data": str(own), "seed": 1},
            "mean": {"method": "average", "of": ["b", "a", "start"]},
        },
    }
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(raw, sort_keys=False))
    out = tmp_path / "out"
    run_recipe(RunConfig(recipe=str(file), out=out))
    stages = json.loads((out / "compare.json").read_text())["stages"]
    assert {name: stage["parent"] for name, stage in stages.items()} == {
        "start": None,
        "a": "start",
        "b": "start",
        "mean": "b",
    }
    pooled = read_rows(out / "_pooled" / "a.jsonl")
    sampled = read_rows(out / "answers" / "sft.jsonl")
    assert pooled[:5] == [*sampled, *rows] and len(sampled) == 2
    assert [set(row) for row in pooled[5:]] == [{"prompt", "completion"}] * 2
    assert json.loads((out / "a" / "lineage.json").read_text())["data"] == str(out / "_pooled" / "a.jsonl")
    assert stages["a"]["flops"] > json.loads((out / "a" / "cost.json").read_text())["flops"]

    models = [out / "a" / "model", out / "b" / "model", Path(model_folder("tiny-random"))]
    merged = [load_file(folder / "model.safetensors") for folder in models]
    mean = load_file(out / "mean" / "model" / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    assert not merged[0][name].equal(merged[1][name])
    torch.testing.assert_close(mean[name], sum(w[name] for w in merged) / 3)
