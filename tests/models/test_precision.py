"""bfloat16: what products round and what stays float32, how far the numbers move; layers that are computed again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from posttrain.batch.packing import pack
from posttrain.batch.types import Batch
from posttrain.models import LanguageModel, load_model
from posttrain.models import token_logprobs as head
from posttrain.models.compute import FLOAT32_CPU, Compute
from posttrain.models.kernels import products_for
from posttrain.models.layers import decoder, elementwise
from posttrain.models.padded import in_float32
from posttrain.models.token_logprobs import token_logprobs
from tests.model_helpers import random_trees, small_model, weighted_gradient
from tests.tolerances import tolerances

BFLOAT16 = Compute(torch.device("cpu"), torch.bfloat16)
PRODUCTS = products_for(BFLOAT16)
FAMILIES = ["qwen3", "llama-bias", "gpt-2", "gemma-3"]
"""Layers of ours with and without norms of queries, another family packed, and one padded."""


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def twice(architecture: str) -> tuple[LanguageModel, LanguageModel]:
    """A model in float32, and the same one whose products see bfloat16."""
    plain, lm = small_model(architecture), small_model(architecture)
    return plain, LanguageModel(architecture, lm.module, lm.tokenizer, lm.source, compute=BFLOAT16)


def gradients(lm: LanguageModel, batch: Batch) -> dict[str, torch.Tensor]:
    found = weighted_gradient(batch.weights, lm.logprobs(batch).logprobs, lm.module)
    return {name: gradient.to_dense() for name, gradient in found.items()}


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    a, b = a.double().flatten(), b.double().flatten()
    return float(a @ b / (a.norm() * b.norm()))


def test_products_round_their_inputs_and_sum_in_float32() -> None:
    x, weight, bias, g = random(5, 40), random(7, 40, seed=1), random(7, seed=2), random(5, 7, seed=3)
    rx, rw, rb, rg = (t.bfloat16().float() for t in (x, weight, bias, g))
    logits = PRODUCTS.logits(x, weight, bias)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, rx @ rw.T + bias, rtol=0, atol=1e-5)
    torch.testing.assert_close(PRODUCTS.prepack_logits(weight, bias)(x), logits)
    for linear in (PRODUCTS.linear(x, weight, bias), PRODUCTS.prepack_linear(weight, bias)(x)):
        assert linear.dtype == torch.bfloat16
        torch.testing.assert_close(linear.float(), rx @ rw.T + rb, rtol=2**-7, atol=2**-7)
    assert PRODUCTS.input_gradient(g, weight).dtype == torch.bfloat16
    torch.testing.assert_close(PRODUCTS.weight_gradient(g, x), rg.T @ rx, rtol=0, atol=1e-5)
    total = torch.ones(7, 40)
    PRODUCTS.add_weight_gradient(total, g, x, first=False)
    torch.testing.assert_close(total, 1 + rg.T @ rx, rtol=0, atol=1e-5)


@pytest.mark.parametrize("architecture", FAMILIES)
def test_only_products_see_bfloat16(architecture: str) -> None:
    """Log-probabilities and gradients are float32, as the parameters, and near those of float32."""
    plain, lm = twice(architecture)
    assert lm.packed == plain.packed
    assert {p.dtype for p in lm.module.parameters()} == {torch.float32}
    batch, bound = pack(random_trees(3)), tolerances(BFLOAT16)
    expected, found = (model.logprobs(batch).logprobs.detach() for model in (plain, lm))
    assert found.dtype == torch.float32 and not torch.equal(found, expected)
    assert float((found - expected).square().mean().sqrt()) < bound.logprob
    assert lm.padded_logits(batch).dtype == torch.float32
    got, wanted = gradients(lm, batch), gradients(plain, batch)
    assert {g.dtype for g in got.values()} == {torch.float32}
    whole = [torch.cat([g.flatten() for g in found.values()]) for found in (got, wanted)]
    assert cosine(*whole) > bound.cosine


def test_between_products_all_is_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """The residual stream, norms and rotations; queries, keys and values reach attention in bfloat16."""
    _, lm = twice("qwen3")
    seen: dict[str, set[torch.dtype]] = {"stream": set(), "attention": set(), "rotated": set()}
    layer, rotate = decoder.decoder_layer, elementwise.rotate

    def watched(part: Any, x: torch.Tensor, angles: Any, plan: Any, index: int, products: Any) -> torch.Tensor:
        class Watched:
            def attend(
                self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float
            ) -> torch.Tensor:
                seen["attention"] |= {t.dtype for t in (query, key, value)}
                out: torch.Tensor = plan.attend(layer, query, key, value, scaling)
                return out

        out = layer(part, x, angles, Watched(), index, products)
        seen["stream"] |= {x.dtype, out.dtype}
        return out

    def rotated(x: torch.Tensor, cos: torch.Tensor, *more: Any) -> torch.Tensor:
        seen["rotated"] |= {x.dtype, cos.dtype}
        return rotate(x, cos, *more)

    monkeypatch.setattr(decoder, "decoder_layer", watched)
    monkeypatch.setattr(decoder, "rotate", rotated)
    with torch.no_grad():
        lm.logprobs(pack(random_trees(1)))
    assert seen["stream"] == seen["rotated"] == {torch.float32}
    assert seen["attention"] == {torch.bfloat16}


def test_tiny_is_no_further_from_float32_than_transformers(tiny: LanguageModel) -> None:
    """Root of the mean square over the trained tokens, against the model of transformers in bfloat16."""
    lm = load_model("tiny-random", compute=BFLOAT16, trained=True)
    held = load_model("tiny-random", compute=BFLOAT16)
    assert held.packed and {p.dtype for p in held.module.parameters()} == {torch.bfloat16}
    batch = pack(random_trees(3, vocabulary=lm.vocabulary))
    with torch.no_grad():
        exact = tiny.logprobs(batch).logprobs
        theirs = held.padded_logits(batch).log_softmax(-1).gather(1, batch.token_ids[batch.trained][:, None])[:, 0]
        rms = [float((m - exact).square().mean().sqrt()) for m in (lm.logprobs(batch).logprobs, theirs)]
    assert 0 < rms[0] <= rms[1]


def test_a_held_model_is_checked_in_float32() -> None:
    """Within `in_float32` a model held in bfloat16 is the float32 model of its rounded weights; after it, itself."""
    held = load_model("tiny-random", compute=BFLOAT16)
    rounded = load_model("tiny-random", compute=FLOAT32_CPU, trained=True)
    with torch.no_grad():
        for parameter in rounded.module.parameters():
            parameter.copy_(parameter.bfloat16())
        ids = torch.arange(3, 12)[None]
        before = held.module(input_ids=ids).logits
        with in_float32(held.module):
            head_class, held.module.lm_head.__class__ = type(held.module.lm_head), torch.nn.Linear
            found = held.module(input_ids=ids).logits
            held.module.lm_head.__class__ = head_class
        torch.testing.assert_close(found, rounded.module(input_ids=ids).logits)
        assert torch.equal(held.module(input_ids=ids).logits, before)
    assert {p.dtype for p in held.module.parameters()} == {torch.bfloat16}


def test_a_base_held_in_bfloat16_has_float32_adapters() -> None:
    lm, plain = load_model("tiny-random", compute=BFLOAT16), load_model("tiny-random", trained=True)
    batch, found = pack(random_trees(3, vocabulary=lm.vocabulary)), []
    for model in (lm, plain):
        model.add_adapter(4, 8, seed=0)
        with torch.no_grad():
            for i, p in enumerate(model.trained_parameters().values()):
                p.copy_(0.05 * random(*p.shape, seed=i))
        parameters = model.trained_parameters()
        assert {p.dtype for p in parameters.values()} == {torch.float32}
        loss = -(batch.weights * model.logprobs(batch).logprobs).sum()
        found.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(parameters.values()))]))
    assert found[0].dtype == torch.float32 and cosine(*found) > tolerances(BFLOAT16).cosine


def head_gradient(weight: torch.Tensor, hidden: torch.Tensor, targets: torch.Tensor, scale: float) -> torch.Tensor:
    """Of the sum over rows of their log-probability x scale."""
    weight = weight.clone().requires_grad_()
    (scale * token_logprobs(hidden, weight, targets, products=PRODUCTS).logprobs).sum().backward()
    assert weight.grad is not None and weight.grad.dtype == torch.float32
    return weight.grad.double()


@pytest.mark.parametrize(("scale", "seed"), [(1.0, 0), (1.0, 1), (1 / 3989, 2)])
def test_the_gradient_of_the_head_has_no_bias(scale: float, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its error over 1,000 chunks of 4 tokens is 0 within 3 standard errors: along the gradient of each chunk, along
    that of all, and along a random direction; and so is that of the sum of all in one pass, but not of a sum in
    bfloat16, where small terms are lost. Most targets are unlikely, and the second scale is no number of bfloat16. The
    inputs are such numbers, so that what is rounded are gradients alone."""
    weight = (random(50, 16, seed=seed) / 4).bfloat16().float()
    hidden = (random(1000, 4, 16, seed=seed + 10) + 1).bfloat16().float()
    targets = torch.randint(0, 50, (1000, 4), generator=torch.Generator().manual_seed(seed))
    slopes = torch.nn.functional.one_hot(targets, 50) - (hidden.double() @ weight.double().T).softmax(-1)
    exact = scale * slopes.mT @ hidden.double()
    found = [head_gradient(weight, h, y, scale) for h, y in zip(hidden, targets, strict=True)]
    error, mean, other = torch.stack(found) - exact, exact.mean(0), random(50, 16, seed=seed + 20).double()

    def along(direction: torch.Tensor) -> torch.Tensor:
        return (error * direction).sum((1, 2))

    for errors in (along(exact) / exact.square().sum((1, 2)), along(mean), along(other)):
        assert abs(errors.mean()) < 3 * errors.std() / 1000**0.5

    monkeypatch.setattr(head, "CHUNK_ELEMENTS", 50 * 4)

    def of_the_sum(direction: torch.Tensor) -> float:
        total = head_gradient(weight, hidden.flatten(0, 1), targets.flatten(), scale) - exact.sum(0)
        return abs(float((total * direction).sum() / along(direction).std())) / 1000**0.5

    assert of_the_sum(mean) < 3 and of_the_sum(other) < 3

    def rounded(self: Any, total: torch.Tensor, g: torch.Tensor, x: torch.Tensor, *, first: bool) -> None:
        before = torch.zeros_like(total) if first else total
        total.copy_((before + g.float().T @ x.float()).bfloat16())

    monkeypatch.setattr(type(PRODUCTS), "add_weight_gradient", rounded)
    assert of_the_sum(mean) > 10


def test_small_steps_move_the_weights() -> None:
    """100 steps of AdamW at a learning rate of 1e-6 change at least 99% of them: they are float32."""
    lm = load_model("tiny-random", compute=BFLOAT16, trained=True)
    parameters = lm.trained_parameters()
    before = {name: p.detach().clone() for name, p in parameters.items()}
    optimizer = torch.optim.AdamW(parameters.values(), lr=1e-6, weight_decay=0.0)
    batch = pack(random_trees(0, groups=2, longest=8, vocabulary=lm.vocabulary))
    for _ in range(100):
        optimizer.zero_grad()
        (-lm.logprobs(batch).logprobs.mean()).backward()
        for p in parameters.values():
            p.grad = p.grad.to_dense() if p.grad is not None else None
        optimizer.step()
    moved = sum(int((p != before[name]).sum()) for name, p in parameters.items())
    assert moved >= 0.99 * sum(p.numel() for p in parameters.values())


@pytest.mark.parametrize("compute", [FLOAT32_CPU, BFLOAT16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize(("architecture", "rank"), [(name, 0) for name in FAMILIES] + [("qwen3", 2), ("gemma-3", 2)])
def test_layers_that_are_computed_again_give_the_same_bits(architecture: str, rank: int, compute: Compute) -> None:
    """Log-probabilities and gradients, with less that is kept from the forward pass."""
    results, kept = [], []
    batch = pack(random_trees(3))
    for again in (False, True):
        lm = small_model(architecture)
        lm = LanguageModel(architecture, lm.module, lm.tokenizer, lm.source, compute=compute)
        if rank:
            lm.add_adapter(rank, 4, seed=0)
        if again:
            lm.recompute_activations()
        saved: list[int] = []

        def pack_tensor(tensor: torch.Tensor, saved: list[int] = saved) -> torch.Tensor:
            saved.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack_tensor, lambda tensor: tensor):
            logprobs = lm.logprobs(batch).logprobs
        kept.append(sum(saved))
        parameters = lm.trained_parameters()
        found = torch.autograd.grad((batch.weights * logprobs).sum(), list(parameters.values()))
        results.append([logprobs.detach(), *(g.to_dense() for g in found)])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    assert kept[1] < 0.7 * kept[0]


def test_a_model_without_layers_to_compute_again_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    lm = small_model("gpt-2")
    lm.kernels = replace(lm.kernels, fused=False)
    lm.module.transformer.h = torch.nn.ModuleList()
    lm.recompute_activations()
    assert "their activations are kept" in caplog.text
