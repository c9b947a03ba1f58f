"""Counted operations: by hand, and beside torch's own counter on transformers' and peft's modules."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM

from posttrain.batch.types import Node
from posttrain.models import LanguageModel, load_model
from posttrain.models.load import model_folder
from tests.model_helpers import ARCHITECTURES, small_model

ROWS, WIDTH = 2, 24


def plain(name: str) -> Any:
    return AutoModelForCausalLM.from_pretrained(model_folder(name), dtype=torch.float32, attn_implementation="eager")


def counted_by_torch(module: Any, rank: int, train: bool) -> float:
    """The operations of a pass over some rows of one width, with logits and perhaps a gradient of every token.

    torch counts an attention as if every query saw every key, WIDTH² pairs a row where there are WIDTH (WIDTH + 1)/2:
    its share, the batched products of eager attention, is corrected by that."""
    if rank:
        module = get_peft_model(module, LoraConfig(r=rank, target_modules="all-linear", task_type="CAUSAL_LM"))
    ids = torch.randint(0, 250, (ROWS, WIDTH), generator=torch.Generator().manual_seed(0))
    with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(train):
        logits = module(input_ids=ids, use_cache=False).logits
        if train:
            logits.sum().backward()
    counts = {str(operation): n for operation, n in counter.get_flop_counts()["Global"].items()}
    attention = counts["aten.bmm"]
    return sum(counts.values()) - attention + attention * (WIDTH + 1) / (2 * WIDTH)


def check_against_torch(lm: LanguageModel, build: Callable[[], Any], rank: int) -> None:
    """`build` makes a module like the model's, for transformers' own layers."""
    full = lm.flops
    if rank:
        lm.add_adapter(rank, 16, seed=0)
    nodes, predicted = [Node(-1, WIDTH)] * ROWS, ROWS * WIDTH
    assert lm.flops.training(nodes, predicted) == pytest.approx(counted_by_torch(build(), rank, True), rel=1e-3)
    assert lm.flops.forward(nodes, predicted) == pytest.approx(counted_by_torch(build(), rank, False), rel=1e-3)
    if rank:
        with lm.without_adapter():  # a reference pass
            assert lm.flops == full
        assert lm.flops.adapter > 0


@pytest.mark.parametrize("rank", [0, 4, 16, 64])
def test_operations_are_those_that_torch_counts(rank: int) -> None:
    check_against_torch(load_model("tiny-random"), lambda: plain("tiny-random"), rank)


@pytest.mark.filterwarnings("ignore:fan_in_fan_out")  # peft sees by itself that GPT-2's layers are transposed
@pytest.mark.parametrize("architecture", ["gemma-3", "gpt-2", "llama-bias", "qwen3"])
def test_operations_of_other_shapes_are_those_that_torch_counts(architecture: str) -> None:
    """At an odd rank; weights and padding make no difference to them."""
    build, _ = ARCHITECTURES[architecture]

    def eager() -> Any:
        module = build()
        module.set_attn_implementation("eager")
        return module

    check_against_torch(small_model(architecture), eager, 3)


@pytest.mark.stress
@pytest.mark.real_model
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("rank", [0, 8, 32, 128])
def test_operations_of_a_real_model_are_those_that_torch_counts(rank: int) -> None:
    check_against_torch(load_model("smollm2-135m"), lambda: plain("smollm2-135m"), rank)


def test_flops_by_hand(tiny: LanguageModel) -> None:
    """tiny-random, a layer: query and output 128·128 each, key and value 128·64 each, gate, up and down 128·352 each:
    184,320 weights; five layers 921,600; the head 259·128 = 33,152. One query seeing one key costs 2·32 for the score
    and 2·32 for the sum, 4 heads, 5 layers: 2,560.

    A trunk of 3 and branches of 2 and 1: 6 tokens; pairs 6 in the trunk, 2·3 + 3 and 1·3 + 1 in the branches: 19."""
    assert 2 * 128 * 128 + 2 * 128 * 64 + 3 * 128 * 352 == 184_320
    forward = 2 * 921_600 * 6 + 2 * 33_152 * 3 + 2_560 * 19
    nodes = [Node(-1, 3), Node(0, 2), Node(0, 1)]
    assert tiny.flops.forward(nodes, predicted=3) == forward
    assert tiny.flops.training(nodes, 3) == 3 * forward
    # a grandchild of 2 sees its parent's 2 and the trunk's 3: pairs 6 + (2·3 + 3) + (2·5 + 3) = 28
    deep = [Node(-1, 3), Node(0, 2), Node(1, 2)]
    assert tiny.flops.forward(deep, predicted=1) == 2 * 921_600 * 7 + 2 * 33_152 + 2_560 * 28


def test_flops_of_conv1d_and_biases() -> None:
    """GPT-2, a layer of width 32: 32·96 + 32·32 + 2·32·128 = 12,288 weights, biases and positions free; head 259·32."""
    flops = small_model("gpt-2").flops
    assert (flops.linear, flops.head, flops.attention) == (2 * 12_288, 259 * 32, 4 * 2 * 4 * 8)


def test_flops_of_an_adapter_by_hand(tmp_path: Path) -> None:
    """Rank 4 on tiny-random: 4 x (in + out) weights beside each matrix, a layer 4·(256 + 192 + 192 + 256 + 3·480) =
    9,344. Backward, the large matrices and the head give the gradient of their input alone, A and B that of their
    weights too, attention twice its forward pass. What reads the embedding, query, key and value of the first layer
    (32,768 weights and 3·4·128 of their A), gives none of its input.

    Decoding merges B A into the weights once, 2·4 operations a weight, and then runs without the adapter."""
    lm = load_model("tiny-random")
    lm.add_adapter(rank=4, alpha=8, seed=0)
    nodes = [Node(-1, 3), Node(0, 2), Node(0, 1)]
    adapter = 5 * 9_344
    forward = 2 * (921_600 + adapter) * 6 + 2 * 33_152 * 3 + 2_560 * 19
    backward = 2 * (921_600 + 2 * adapter - 32_768 - 1_536) * 6 + 2 * 33_152 * 3 + 2 * 2_560 * 19
    assert lm.flops.forward(nodes, 3) == forward
    assert lm.flops.training(nodes, 3) == forward + backward
    assert lm.flops.merge == 2 * 4 * 921_600
    assert lm.flops.sampling(nodes, 2, 3) == forward - 2 * adapter * 2
    lm.save(tmp_path / "merged")
    assert lm.flops == load_model("tiny-random").flops


def test_flops_of_dora_by_hand() -> None:
    """The lengths of the rows of W + s B A take the product B A once a pass, however many tokens there are, and have no
    gradient."""
    counters = []
    for dora in (False, True):
        lm = load_model("tiny-random")
        lm.add_adapter(rank=4, alpha=8, seed=0, dora=dora)
        counters.append(lm.flops)
        assert lm.flops.without_adapter() == load_model("tiny-random").flops
    for nodes in ([Node(-1, 3)], [Node(-1, 300)]):
        plain, dora = counters
        assert dora.forward(nodes, 2) - plain.forward(nodes, 2) == 2 * 4 * 921_600
        assert dora.training(nodes, 2) - plain.training(nodes, 2) == 2 * 4 * 921_600


def test_an_adapter_that_decoding_does_not_merge() -> None:
    """Gemma 3 decodes by transformers' own layers, the adapter beside them."""
    lm = small_model("gemma-3")
    plain = lm.flops
    lm.add_adapter(rank=2, alpha=4, seed=0)
    nodes = [Node(-1, 3)]
    assert lm.flops.merge == 0 and lm.flops.linear == plain.linear
    assert lm.flops.sampling(nodes, 2, 1) == lm.flops.forward(nodes, 1) > plain.forward(nodes, 1)
