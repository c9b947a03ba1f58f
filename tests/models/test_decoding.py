"""The fused decoding step against the model's own layers, and when its copies of the weights are made again."""

from __future__ import annotations

import pytest
import torch

from posttrain.batch.types import Node
from posttrain.engine.base import Request
from posttrain.engine.local.engine import LocalEngine
from posttrain.models import LanguageModel
from posttrain.models import decoding as decoder
from posttrain.models import layers as fused
from posttrain.models.attention import ForestPlan
from posttrain.models.cpu.linear import PACKED_FOR, PRODUCTS
from posttrain.models.decoding import Decoder
from posttrain.types import Sampling
from tests.model_helpers import ARCHITECTURES, small_model

KNOWN = ("llama-bias", "mistral", "qwen3")
PROMPT = (5, 9, 11, 40, 7)


def perturb(lm: LanguageModel, seed: int = 0) -> None:
    """Other weights everywhere, norms and biases and adapters included: none may be left at 1 or 0."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in lm.module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)


def both_logits(lm: LanguageModel) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the model's own layers and of the fused step, for a row of seven tokens with odd positions."""
    ids, positions, plan = torch.arange(5, 12), torch.tensor([0, 1, 2, 3, 50, 51, 200]), ForestPlan([Node(-1, 7)])
    with torch.no_grad():
        hidden = lm.hidden_states(ids, positions, plan)
        return lm.head(hidden), decoder.Decoder(lm.module, lm.kernels.products).logits(ids, positions, plan)


def test_what_is_known() -> None:
    """Families with the same layers; a sliding window is refused by packing, not here."""
    known = {name for name in ARCHITECTURES if fused.is_supported(small_model(name).module)}
    assert known == {*KNOWN, "mistral-sliding"}
    with pytest.raises(ValueError, match="GPT2LMHeadModel is not of a family"):
        Decoder(small_model("gpt-2").module, PRODUCTS)


@pytest.mark.parametrize("architecture", KNOWN)
def test_logits_are_the_models_own(architecture: str) -> None:
    lm = small_model(architecture)
    perturb(lm)
    plain, fused = both_logits(lm)
    torch.testing.assert_close(fused, plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("architecture", KNOWN)
@pytest.mark.parametrize("dora", [False, True])
def test_adapters_count_while_they_are_on(architecture: str, dora: bool) -> None:
    lm = small_model(architecture)
    perturb(lm)
    without, _ = both_logits(lm)
    lm.add_adapter(4, 8, 0, rslora=dora, dora=dora)
    perturb(lm, 1)
    plain, fused = both_logits(lm)
    torch.testing.assert_close(fused, plain, rtol=1e-4, atol=1e-4)
    with lm.without_adapter():
        plain_off, fused_off = both_logits(lm)
    torch.testing.assert_close(fused_off, plain_off, rtol=1e-4, atol=1e-4)
    assert (fused - fused_off).abs().max() > 0.01 and (without - fused_off).abs().max() > 0.01


@pytest.mark.parametrize(("inputs", "outputs"), [(576, 960), (1536, 576), (64, 5000)])
def test_packed_products_serve_any_number_of_rows(inputs: int, outputs: int) -> None:
    """The layout is made for PACKED_FOR rows; fewer and more of them, one and odd numbers too, give x W' + b."""
    generator = torch.Generator().manual_seed(0)
    linear = torch.nn.Linear(inputs, outputs)
    product = PRODUCTS.prepack_linear(linear.weight.detach(), linear.bias.detach())
    for rows in (*range(1, 2 * PACKED_FOR + 2, 3), 200, 513):
        x = torch.randn(rows, inputs, generator=generator)
        with torch.no_grad():
            torch.testing.assert_close(product(x), linear(x), rtol=1e-4, atol=1e-5)


def sampled(engine: LocalEngine) -> tuple[int, ...]:
    (_, completion), *_ = engine.generate([Request(0, PROMPT, Sampling(12), seed=4)])
    return tuple(completion.token_ids.tolist())


@pytest.mark.parametrize("adapter", ["", "LoRA", "DoRA"], ids=["full", "LoRA", "DoRA"])
def test_changed_weights_are_laid_out_again(adapter: str) -> None:
    """After a change in place, told to the engine or not, the next completion is that of a new engine; an adapter that
    is switched off is a change too. Without one the copy is kept."""
    lm = small_model("qwen3")
    if adapter:
        lm.add_adapter(4, 8, 0, dora=adapter == "DoRA")
    engine = LocalEngine(lm)
    seen = [sampled(engine)]
    first = lm._decoder
    assert first is not None and sampled(engine) == seen[0] and lm._decoder is first
    for seed in range(3):
        perturb(lm, seed)
        seen.append(sampled(engine))
        lm.release_decoding()
        assert sampled(LocalEngine(lm)) == seen[-1]
    assert len(set(seen)) == 4
    if adapter:
        with lm.without_adapter():
            assert sampled(engine) not in seen


def test_pause_gives_the_copy_back() -> None:
    lm = small_model("qwen3")
    engine = LocalEngine(lm)
    before = sampled(engine)
    assert lm._decoder is not None
    engine.pause()
    assert lm._decoder is None and sampled(engine) == before
