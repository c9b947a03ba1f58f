"""Small models of several architectures, random forests, and the plain computation they are compared with."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from random import Random
from typing import Any

import torch
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3NextConfig,
    Qwen3NextForCausalLM,
)

from posttrain.arrays import KeptTokens
from posttrain.batch.packing import Branch, Tree, share_prefix
from posttrain.batch.types import Batch, KeptPlaces
from posttrain.models import LanguageModel
from posttrain.models.compute import Compute
from posttrain.models.padded import padded_rows
from posttrain.models.tiny import tiny_tokenizer

VOCABULARY = 259
_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "pad_token_id": 2,
}

ARCHITECTURES: dict[str, tuple[Callable[[], PreTrainedModel], bool]] = {
    # name: how to build it, and whether forests may run packed
    "gemma-3": (
        lambda: Gemma3ForCausalLM(
            Gemma3TextConfig(
                **_SIZES, head_dim=8, sliding_window=4, layer_types=["sliding_attention", "full_attention"]
            )
        ),
        False,
    ),
    "qwen3-next": (
        lambda: Qwen3NextForCausalLM(
            Qwen3NextConfig(
                **_SIZES,
                head_dim=8,
                linear_num_value_heads=2,
                linear_num_key_heads=2,
                linear_key_head_dim=8,
                linear_value_head_dim=8,
                num_experts=0,
                mlp_only_layers=[0, 1],
                layer_types=["linear_attention", "full_attention"],
            )
        ),
        False,
    ),
    "mistral-sliding": (lambda: MistralForCausalLM(MistralConfig(**_SIZES, sliding_window=4)), False),
    "gpt-2": (
        lambda: GPT2LMHeadModel(
            GPT2Config(
                vocab_size=VOCABULARY,
                n_embd=32,
                n_layer=2,
                n_head=4,
                n_positions=256,
                bos_token_id=0,
                eos_token_id=2,
                pad_token_id=2,
            )
        ),
        True,
    ),
    "qwen3": (lambda: Qwen3ForCausalLM(Qwen3Config(**_SIZES, head_dim=8)), True),
    "mistral": (lambda: MistralForCausalLM(MistralConfig(**_SIZES, sliding_window=None)), True),
    "llama-bias": (lambda: LlamaForCausalLM(LlamaConfig(**_SIZES, attention_bias=True)), True),
}


def small_model(architecture: str, seed: int = 0, compute: Compute | None = None) -> LanguageModel:
    """A model of random weights, large enough that tokens matter to each other; biases are not zero. Its weights are
    held in float32."""
    build, _ = ARCHITECTURES[architecture]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = build()
        with torch.no_grad():
            for parameter in module.parameters():
                if parameter.dim() == 2:
                    parameter.normal_(0.0, 1.5 / math.sqrt(parameter.shape[1]))
                else:
                    parameter.add_(0.1 * torch.randn_like(parameter))
    if compute is not None:
        module = module.to(compute.device)
    return LanguageModel(architecture, module, tiny_tokenizer(), Path(), compute=compute)


def plain_copy(lm: LanguageModel) -> PreTrainedModel:
    """The model in float64 with transformers' eager attention: none of posttrain's code in its forward pass."""
    module = copy.deepcopy(lm.module).double()
    module.set_attn_implementation("eager")
    return module


def random_trees(seed: int, groups: int = 4, longest: int = 24, vocabulary: int = VOCABULARY) -> list[Tree]:
    """Ragged groups of rows as trees: shared prompts, single rows, rows with nothing in common, untrained tokens inside
    answers. Weights are random and sum to about 1."""
    random = Random(seed)

    def tokens(n: int) -> tuple[int, ...]:
        return tuple(random.randrange(3, vocabulary) for _ in range(n))

    trees = []
    for g in range(groups):
        prompt = tokens(random.randint(1, longest))
        rows = []
        for _ in range(1 if g % 4 == 3 else random.randint(2, 4)):
            start = tokens(random.randint(1, longest)) if g % 4 == 2 else prompt
            answer = tokens(random.randint(1, longest))
            mask = (False,) * len(start) + tuple(random.random() < 0.9 for _ in answer[1:]) + (True,)
            weights = tuple(random.uniform(0.0, 2.0) / (groups * longest) for _ in range(sum(mask)))
            rows.append(Branch(start + answer, mask, weights))
        trees.append(share_prefix(rows))
    return trees


def random_supports(batch: Batch, seed: int, vocabulary: int = VOCABULARY) -> tuple[tuple[int, ...], ...]:
    """For each trained token a few random token ids and the token itself."""
    random = Random(seed)
    targets = batch.token_ids[batch.trained].tolist()
    return tuple(tuple(sorted({t, *random.sample(range(vocabulary), random.randint(0, 9))})) for t in targets)


def kept_of(supports: Iterable[Iterable[int]]) -> KeptPlaces:
    """The token ids kept at each trained token, as a batch holds them."""
    return KeptPlaces.of([KeptTokens.of([list(ids) for ids in supports])])


def plain_logprobs(
    module: PreTrainedModel,
    batch: Batch,
    temperature: float = 1.0,
    supports: Iterable[Iterable[int]] | None = None,
) -> torch.Tensor:
    """Each row of the batch by itself through the model; log-softmax over the vocabulary, or over the tokens of a
    support alone. Shape [M]."""
    rows, places = padded_rows(batch)
    log_p = []
    for r, row in enumerate(rows):
        columns = [c for i, c in places.tolist() if i == r]
        if columns:
            logits = module(input_ids=torch.tensor([row]), use_cache=False).logits[0, columns]
            log_p += [x / temperature for x in logits]
    rows_kept = [[int(t) for t in kept] for kept in supports or ()]
    out = []
    for i, (logits, target) in enumerate(zip(log_p, batch.token_ids[batch.trained].tolist(), strict=True)):
        kept = list(range(len(logits))) if supports is None else rows_kept[i]
        out.append(logits[kept].log_softmax(-1)[kept.index(target)])
    return torch.stack(out)


def weighted_gradient(
    loss_weights: torch.Tensor, logprobs: torch.Tensor, module: PreTrainedModel
) -> dict[str, torch.Tensor]:
    """Gradient of −Σ w·logprob by parameter name."""
    parameters = dict(module.named_parameters())
    loss = -(loss_weights.to(logprobs.dtype) * logprobs).sum()
    found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    return {n: torch.zeros_like(p) if g is None else g for (n, p), g in zip(parameters.items(), found, strict=True)}


def worst_relative(got: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    """Largest distance of one parameter's gradients, relative to the expected one's norm (or to a thousandth of the
    largest norm where that is more: a gradient that is zero by symmetry has no scale of its own)."""
    assert got.keys() == expected.keys()
    floor = 1e-3 * max(float(g.norm()) for g in expected.values())
    return max(float((got[n].double() - g.double()).norm()) / max(float(g.norm()), floor) for n, g in expected.items())
