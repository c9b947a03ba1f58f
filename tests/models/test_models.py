"""Packed forests against plain transformers in float64; heads, adapters, saving, loading."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from posttrain.arrays import KeptTokens
from posttrain.batch import packing
from posttrain.batch.packing import Branch, Tree, micro_batches, pack
from posttrain.batch.types import Batch
from posttrain.models import LanguageModel, load_model, weights_hash
from posttrain.models import token_logprobs as head
from posttrain.models.attention import ForestPlan, forest
from posttrain.models.layers.decoder import project
from posttrain.models.padded import padded_rows
from posttrain.models.token_logprobs import logprobs_from_logits, token_logprobs
from posttrain.types import InputError
from tests.model_helpers import (
    ARCHITECTURES,
    kept_of,
    plain_copy,
    plain_logprobs,
    random_supports,
    random_trees,
    small_model,
    weighted_gradient,
    worst_relative,
)


def distinct_tokens(trees: Sequence[Tree]) -> int:
    """Distinct prefixes before a row's first trained token, counted in a set, and what follows them in each row."""
    prefixes: set[tuple[int, ...]] = set()
    rest = 0
    for ids, free in ((tuple(ids.tolist()), free) for tree in trees for ids, free in tree.rows()):
        prefixes |= {ids[: i + 1] for i in range(free)}
        rest += len(ids) - free
    return len(prefixes) + rest


def separate(trees: Sequence[Tree]) -> list[Tree]:
    """The same rows, each a tree of its own: nothing shared."""
    return [
        Tree((), (replace(b, token_ids=(*t.trunk, *b.token_ids), mask=(*[False] * len(t.trunk), *b.mask)),))
        for t in trees
        for b in t.branches
    ]


# -- packed against plain ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seed", "limit"), [(0, 1 << 8), (1, 1 << 10), (2, forest.BLOCK_LIMIT)])
def test_packed_equals_separate_rows(
    tiny: LanguageModel, seed: int, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Log-probabilities, loss and gradient of a ragged forest: packed in float32 and plain rows in float64, for every
    grouping of attention into blocks. The model sees each distinct token once."""
    monkeypatch.setattr(forest, "BLOCK_LIMIT", limit)
    monkeypatch.setattr(packing, "MIN_SAVED", 1)
    trees = random_trees(seed)
    batch = pack(trees)
    blocks = ForestPlan(batch.nodes).blocks
    assert any(b.mask is not None for b in blocks) and (limit > 1 << 10 or any(b.mask is None for b in blocks))
    plain = plain_copy(tiny)
    expected = plain_logprobs(plain, batch)
    before = tiny.forwarded_tokens
    got = tiny.logprobs(batch).logprobs
    assert tiny.packed and tiny.forwarded_tokens - before == distinct_tokens(trees)
    torch.testing.assert_close(got.double(), expected, rtol=0, atol=2e-5)
    losses = [float((batch.weights * logprobs.detach()).sum()) for logprobs in (got, expected)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    gradients = weighted_gradient(batch.weights, got, tiny.module), weighted_gradient(batch.weights, expected, plain)
    assert worst_relative(*gradients) < 1e-4


def gradient_in_parts(
    lm: LanguageModel, trees: Sequence[Tree], max_tokens: int
) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradient added up over micro-batches."""
    loss, total = 0.0, {n: torch.zeros_like(p) for n, p in lm.module.named_parameters()}
    for part in micro_batches(trees, max_tokens):
        batch = pack(part)
        logprobs = lm.logprobs(batch).logprobs
        loss -= float((batch.weights * logprobs.detach()).sum())
        for name, gradient in weighted_gradient(batch.weights, logprobs, lm.module).items():
            total[name] += gradient
    return loss, total


def test_splitting_and_sharing_do_not_change_the_gradient(tiny: LanguageModel) -> None:
    """A tree at a time, eight trees at once, and rows that share nothing: one loss and one gradient."""
    trees = random_trees(5, groups=8, longest=12)
    whole_loss, whole = gradient_in_parts(tiny, trees, 1 << 20)
    for other in (gradient_in_parts(tiny, trees, 1), gradient_in_parts(tiny, separate(trees), 1 << 20)):
        assert other[0] == pytest.approx(whole_loss, abs=1e-5)
        assert worst_relative(other[1], whole) < 1e-4


def test_padded_rows_equal_packed_ones(tiny: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fall-back of the same model: same log-probabilities, supports, temperature, entropy, same gradient."""
    batch = pack(random_trees(7))
    batch = replace(batch, kept_token_ids=kept_of(random_supports(batch, 7)))
    packed = tiny.logprobs(batch, temperature=0.7, entropy=True)
    packed_gradient = weighted_gradient(batch.weights, packed.logprobs, tiny.module)
    monkeypatch.setattr(tiny, "packed", False)
    padded = tiny.logprobs(batch, temperature=0.7, entropy=True)
    torch.testing.assert_close(packed.logprobs, padded.logprobs, rtol=0, atol=2e-5)
    torch.testing.assert_close(packed.entropy, padded.entropy, rtol=0, atol=2e-5)
    assert worst_relative(weighted_gradient(batch.weights, padded.logprobs, tiny.module), packed_gradient) < 1e-4


@pytest.mark.parametrize("model", ["llama-bias", "gpt-2"])
def test_values_are_read_before_their_tokens(model: str) -> None:
    """V_t = w·h + b with h the last hidden state of the token before t on its path, packed and padded, with the same
    log-probabilities beside them."""
    lm = small_model(model)
    batch = pack(random_trees(11))
    with pytest.raises(ValueError, match="no value head"):
        lm.values(batch)
    lm.add_value_head()
    assert not lm.values(batch).any()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        lm.value_head.weight.normal_(generator=generator)
        lm.value_head.bias.fill_(0.25)
    expected = []
    for row, column in zip(*(t.tolist() for t in padded_rows(batch)[1].unbind(1)), strict=True):
        ids = torch.tensor([padded_rows(batch)[0][row][: column + 1]])
        with torch.no_grad():
            expected.append(float(lm.value_head(lm.module.base_model(input_ids=ids).last_hidden_state[0, -1])))
    both = []
    for packed in (True, False):
        lm.packed = packed
        both.append(lm.logprobs(batch, values=True))
        assert both[-1].values.tolist() == pytest.approx(expected, abs=2e-5)
        assert lm.values(batch).tolist() == pytest.approx(expected, abs=2e-5)
    torch.testing.assert_close(both[0].logprobs, both[1].logprobs, rtol=0, atol=2e-5)
    assert {"scalar_head.weight", "scalar_head.bias"} <= set(lm.trained_parameters())


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
@pytest.mark.parametrize("restricted", [False, True])
def test_temperature_and_supports(tiny: LanguageModel, temperature: float, restricted: bool) -> None:
    """log softmax(logits / T) over the vocabulary, or over the kept tokens alone; a lone kept token has log 1 = 0."""
    batch = pack(random_trees(11))
    supports = random_supports(batch, 11) if restricted else None
    got = tiny.logprobs(replace(batch, kept_token_ids=supports and kept_of(supports)), temperature).logprobs.detach()
    expected = plain_logprobs(plain_copy(tiny), batch, temperature, supports).detach()
    torch.testing.assert_close(got.double(), expected, rtol=0, atol=3e-5)
    if supports is not None:
        assert {float(p) for p, kept in zip(got, supports, strict=True) if len(kept) == 1} == {0.0}


@pytest.mark.parametrize("packed", [True, False])
def test_nothing_to_train(tiny: LanguageModel, packed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch whose rows train nothing has no log-probabilities, and is no error."""
    monkeypatch.setattr(tiny, "packed", packed)
    for kept in (None, KeptTokens.of([])):
        batch = pack([Tree((), (Branch((5, 6), (False, False), (), kept_token_ids=kept),))])
        assert tiny.logprobs(batch).logprobs.shape == (0,)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_architectures_pack_or_fall_back(architecture: str) -> None:
    """Plain full attention is packed; sliding windows and recurrent layers run as padded rows. Both give the numbers
    and the gradient of single rows."""
    lm = small_model(architecture)
    assert lm.packed == ARCHITECTURES[architecture][1]
    assert lm.forwarded_tokens == 0, "the self-check does not count"
    trees = random_trees(3, groups=4, longest=12)
    batch = pack(trees)
    plain = plain_copy(lm)
    expected = plain_logprobs(plain, batch)
    got = lm.logprobs(batch).logprobs
    torch.testing.assert_close(got.double(), expected, rtol=0, atol=5e-5)
    gradients = weighted_gradient(batch.weights, got, lm.module), weighted_gradient(batch.weights, expected, plain)
    assert worst_relative(*gradients) < 1e-4
    rows = [(*t.trunk, *b.token_ids) for t in trees for b in t.branches]
    expected_tokens = distinct_tokens(trees) if lm.packed else len(rows) * max(map(len, rows))
    assert lm.forwarded_tokens == expected_tokens


# -- the head ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk_rows", [1, 3, 100])
@pytest.mark.parametrize("restricted", [False, True])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("of_entropy", [False, True])
def test_chunked_head(
    chunk_rows: int, restricted: bool, biased: bool, of_entropy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """7 rows over a vocabulary of 11: value, entropy and the gradients of both against log_softmax in float64."""
    monkeypatch.setattr(head, "CHUNK_ELEMENTS", 11 * chunk_rows)
    generator = torch.Generator().manual_seed(1)
    hidden, weight, bias = (torch.randn(*s, generator=generator) for s in ((7, 5), (11, 5), (11,)))
    targets = torch.tensor([0, 10, 3, 3, 7, 1, 5])
    supports = [(0, 4), (10,), (1, 3, 5), tuple(range(11)), (2, 7), (1, 0), (5, 9)] if restricted else None
    upstream = torch.randn(7, generator=generator)
    leaves = [t.clone().requires_grad_() for t in (hidden, weight, bias)]
    got = token_logprobs(
        leaves[0],
        leaves[1],
        targets,
        bias=leaves[2] if biased else None,
        temperature=0.6,
        kept=supports and kept_of(supports),
        entropy=True,
    )
    exact = [t.double().requires_grad_() for t in (hidden, weight, bias)]
    logits = (exact[0] @ exact[1].T + (exact[2] if biased else 0)) / 0.6
    if supports is not None:
        left_out = torch.tensor([[j not in kept for j in range(11)] for kept in supports])
        logits = logits.masked_fill(left_out, float("-inf"))
    log_p = logits.log_softmax(-1)
    expected = log_p[range(7), targets]
    torch.testing.assert_close(got.logprobs.double(), expected, rtol=0, atol=1e-5)
    entropy = -(log_p.exp() * log_p.masked_fill(log_p.isneginf(), 0.0)).sum(-1)
    assert got.entropy is not None
    torch.testing.assert_close(got.entropy.double(), entropy, rtol=0, atol=1e-5)
    used = 3 if biased else 2
    also = torch.randn(7, generator=generator) * of_entropy
    mine = (upstream * got.logprobs).sum() + ((also * got.entropy).sum() if of_entropy else 0.0)
    gradients = torch.autograd.grad(mine, leaves[:used])
    wanted = torch.autograd.grad((upstream * expected + also * entropy).sum(), exact[:used])
    for one, other in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=5e-5 if of_entropy else 1e-5)


def test_plain_head_by_hand() -> None:
    """Logits 0, ln 2, ln 5 are probabilities 1/8, 2/8, 5/8; over tokens 0 and 1 alone 1/3, 2/3. At temperature ½ they
    are squared first: 1/30, 4/30, 25/30."""
    logits = torch.log(torch.tensor([[1.0, 2.0, 5.0]]))
    target = torch.tensor([1])

    def chosen(**options: object) -> float:
        return math.exp(float(logprobs_from_logits(logits, target, **options).logprobs))  # type: ignore[arg-type]

    assert chosen() == pytest.approx(2 / 8)
    assert chosen(kept=kept_of([(0, 1)])) == pytest.approx(2 / 3)
    assert chosen(temperature=0.5) == pytest.approx(4 / 30)
    out = logprobs_from_logits(logits, target, kept=kept_of([(0, 1)]), entropy=True)
    assert float(out.entropy) == pytest.approx(math.log(3) - 2 / 3 * math.log(2))  # type: ignore[arg-type]


# -- saving, adapters --------------------------------------------------------------------------------------------------


def check_batch() -> Batch:
    return pack(random_trees(21, groups=3, longest=12))


def all_logprobs(lm: LanguageModel) -> torch.Tensor:
    with torch.no_grad():
        return lm.logprobs(check_batch()).logprobs


def test_save_and_load_give_the_same_numbers(tiny: LanguageModel, tmp_path: Path) -> None:
    tiny.save(tmp_path / "run" / "model")
    again = load_model(str(tmp_path / "run"))  # a run folder stands for its model/
    assert torch.equal(all_logprobs(again), all_logprobs(tiny))
    assert again.chat.end_ids == tiny.chat.end_ids and again.chat.prompt_ids("Hé!") == tiny.chat.prompt_ids("Hé!")
    assert weights_hash(tmp_path / "run" / "model") == weights_hash(tiny.source)


def test_weights_hash_tells_weights_apart(tmp_path: Path) -> None:
    for name, value in (("one", 1.0), ("two", 2.0), ("again", 1.0)):
        (tmp_path / name).mkdir()
        save_file({"w": torch.tensor([value])}, tmp_path / name / "model.safetensors")
    one, two, again = (weights_hash(tmp_path / name) for name in ("one", "two", "again"))
    assert one == again != two
    with pytest.raises(InputError, match="no .safetensors"):
        weights_hash(tmp_path)


@pytest.mark.parametrize("architecture", ["llama-bias", "gpt-2", "mistral-sliding"])
def test_a_padding_token_within_a_row_learns(architecture: str) -> None:
    """The end-of-turn token of these models is their padding too, and stands between turns. Its embedding gets the
    gradient of a plain computation that looks tokens up by index, with no notion of padding."""
    lm = small_model(architecture)
    end = lm.tokenizer.pad_token_id
    row = (7, 31, end, 5, 101, 44, end, 12, 90)
    mask = (False,) * 3 + (True,) * 6
    batch = pack([Tree((), (Branch(row, mask, (1.0,) * 6),))])
    weight = lm.module.get_input_embeddings().weight
    (found,) = torch.autograd.grad(lm.logprobs(batch).logprobs.sum(), [weight])
    module = plain_copy(lm)
    plain = module.get_input_embeddings().weight
    logits = module(inputs_embeds=plain[list(row)][None], use_cache=False).logits[0]
    chosen = [logits[i - 1].log_softmax(-1)[row[i]] for i in range(3, len(row))]
    (expected,) = torch.autograd.grad(torch.stack(chosen).sum(), [plain])
    assert float(expected[end].norm()) > 0.01 * float(expected.norm())
    found = found.to_dense().double()
    assert float((found[end] - expected[end]).norm()) < 1e-4 * float(expected[end].norm())


VARIANTS = pytest.mark.parametrize(
    "variant",
    [{}, {"rslora": True}, {"dora": True}, {"rslora": True, "dora": True}],
    ids=["lora", "rslora", "dora", "rslora-dora"],
)


def trained_adapter(seed: int, **variant: bool) -> LanguageModel:
    """The tiny model with an adapter whose B matrices are no longer zero, nor its lengths those of the weights."""
    lm = load_model("tiny-random")
    lm.add_adapter(rank=4, alpha=8, seed=seed, **variant)
    with torch.no_grad():
        for name, parameter in lm.trained_parameters().items():
            generator = torch.Generator().manual_seed(len(name))
            if "lora_B" in name:
                parameter.normal_(0.0, 0.05, generator=generator)
            elif "magnitude" in name:
                parameter.mul_(torch.rand(parameter.shape, generator=generator) + 0.5)
    return lm


@VARIANTS
@pytest.mark.parametrize("biased", [False, True])
def test_a_layer_with_an_adapter_by_one_function(variant: dict[str, bool], biased: bool) -> None:
    """What training computes for it equals peft's own layer: value, and gradients of the input, A, B and lengths."""
    lm = trained_adapter(seed=3, **variant)
    layer: Any = lm.module.model.layers[0].mlp.gate_proj
    if biased:
        layer.base_layer.bias = torch.nn.Parameter(torch.randn(layer.out_features), requires_grad=False)
    trained = [p for name, p in layer.named_parameters() if "lora_" in name]
    assert len(trained) == (3 if variant.get("dora") else 2)
    assert layer.scaling["default"] == (4.0 if variant.get("rslora") else 2.0)  # 8/√4, 8/4
    layer.double()
    x = torch.randn(5, layer.in_features, generator=torch.Generator().manual_seed(0)).double().requires_grad_()
    results = []
    for compute in (partial(project, lm.kernels.products), lambda layer, x: layer(x)):
        y = compute(layer, x)
        results.append([y, *torch.autograd.grad(y.square().sum(), [x, *trained])])
    torch.testing.assert_close(results[0], results[1])
    with lm.without_adapter():
        torch.testing.assert_close(project(lm.kernels.products, layer, x), layer.base_layer(x))


@pytest.mark.parametrize("dora", [False, True])
def test_adapter_starts_as_the_base_and_trains_alone(tiny: LanguageModel, dora: bool) -> None:
    lm = load_model("tiny-random")
    with pytest.raises(ValueError, match="no adapter"), lm.without_adapter():
        pass
    state = torch.random.get_rng_state()
    lm.add_adapter(rank=4, alpha=8, seed=1, dora=dora)
    assert torch.equal(torch.random.get_rng_state(), state), "global randomness is not touched"
    assert torch.equal(all_logprobs(lm), all_logprobs(tiny))
    names = lm.trained_parameters()
    assert all("lora_" in n for n in names)
    # 5 layers of 7 matrices, A and B each: rank 4 x (inputs + outputs), with 128 hidden, 64 key/value and 352 inner
    sizes = [(128, 128), (128, 64), (128, 64), (128, 128), (128, 352), (128, 352), (352, 128)]
    lengths = 5 * sum(b for _, b in sizes) if dora else 0
    assert sum(p.numel() for p in names.values()) == 5 * 4 * sum(a + b for a, b in sizes) + lengths


def test_adapter_seed_fixes_its_weights() -> None:
    first, second, other = (
        {n: p for n, p in trained_adapter(seed).trained_parameters().items() if "lora_A" in n} for seed in (1, 1, 2)
    )
    assert all(torch.equal(first[n], second[n]) for n in first)
    assert not any(torch.equal(first[n], other[n]) for n in first)


@VARIANTS
def test_adapter_switches_off_and_merges(tiny: LanguageModel, tmp_path: Path, variant: dict[str, bool]) -> None:
    """Switched off, the model is its start, bit for bit; merged and loaded again, it is what was trained, and so is
    peft's model with the saved adapter."""
    lm = trained_adapter(1, **variant)
    trained = all_logprobs(lm)
    assert float((trained - all_logprobs(tiny)).abs().max()) > 0.01
    with lm.without_adapter():
        assert torch.equal(all_logprobs(lm), all_logprobs(tiny))
    assert torch.equal(all_logprobs(lm), trained)
    lm.save_adapter(tmp_path / "adapter", torch.float32)
    adapted = PeftModel.from_pretrained(plain_copy(tiny), str(tmp_path / "adapter")).eval()
    torch.testing.assert_close(plain_logprobs(adapted, check_batch()).float(), trained, rtol=0, atol=2e-5)
    lm.save(tmp_path / "model")
    torch.testing.assert_close(all_logprobs(lm), trained, rtol=0, atol=1e-5)
    assert set(load_file(tmp_path / "model" / "model.safetensors")) == set(load_file(tiny.source / "model.safetensors"))
    torch.testing.assert_close(all_logprobs(load_model(str(tmp_path / "model"))), trained, rtol=0, atol=1e-5)


# -- loading -----------------------------------------------------------------------------------------------------------


def broken(tiny: LanguageModel, folder: Path, fault: str) -> str:
    """A copy of the tiny model with one fault."""
    tiny.save(folder)
    weights = folder / "model.safetensors"
    if fault == "no weights":
        weights.unlink()
    elif fault == "cut weights":
        weights.write_bytes(weights.read_bytes()[:100_000])
    elif fault == "a weight missing":
        kept = {n: w for n, w in load_file(weights).items() if n != "model.layers.2.mlp.up_proj.weight"}
        save_file(kept, weights, metadata={"format": "pt"})
    elif fault == "another size":
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 64}))
    elif fault == "no tokenizer":
        (folder / "tokenizer.json").unlink()
        (folder / "tokenizer_config.json").unlink()
    elif fault == "unknown architecture":
        (folder / "config.json").write_text('{"model_type": "abacus"}')
    else:
        (folder / "config.json").write_text("{")
    return str(folder)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("no weights", "model.safetensors"),
        ("cut weights", "cannot be loaded"),
        ("a weight missing", "lack 'model.layers.2.mlp.up_proj.weight' \\(1 missing"),
        ("another size", r"has the shape \(\d+, \d+\), but its config.json needs \(\d+, \d+\)"),
        ("no tokenizer", "cannot be loaded"),
        ("unknown architecture", "abacus"),
        ("no JSON", "config.json cannot be read"),
    ],
)
def test_broken_folders_are_refused(tiny: LanguageModel, tmp_path: Path, fault: str, message: str) -> None:
    name = broken(tiny, tmp_path / "m", fault)
    with pytest.raises(InputError, match=message) as caught:
        load_model(name)
    assert name in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("./nowhere", "no such folder; give a model folder, a hub id"),
        ("/nowhere/at/all", "no such folder"),
        ("tiny-rando", "tiny-random"),
        ("no-such-owner/no-such-model", "no such folder, and the hub did not give it"),
    ],
)
def test_unknown_models_are_refused(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_model(name)
    assert f"--model {name}:" in str(caught.value)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no config.json there, nor in its model/"):
        load_model(str(tmp_path))


def test_tiny_random_is_what_it_says(tiny: LanguageModel) -> None:
    assert tiny.context == 2048 and tiny.packed and tiny.module.dtype == torch.float32
    assert 0.9e6 < sum(p.numel() for p in tiny.module.parameters()) < 1.1e6
    assert tiny.chat.prompt_ids("a") == tuple(
        tiny.tokenizer.encode("<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n", add_special_tokens=False)
    )
