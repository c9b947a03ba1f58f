"""The families of docs/models.md: which path each takes, that it gives the numbers of single rows by transformers, and
that sampling and training agree."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from posttrain.arrays import ints
from posttrain.batch.packing import Branch, pack, share_prefix
from posttrain.batch.types import Node
from posttrain.engine.base import Request
from posttrain.engine.local.engine import LocalEngine
from posttrain.models import LanguageModel, load_model
from posttrain.models.attention import ForestPlan, register
from posttrain.models.compute import FLOAT32_CPU, Compute
from posttrain.models.tiny import tiny_tokenizer
from posttrain.types import Sampling
from tests.conftest import ROOT
from tests.model_helpers import plain_copy, plain_logprobs, random_trees, weighted_gradient, worst_relative
from tests.training_helpers import benchmark_module

BENCH = benchmark_module("families")
FAMILIES = {family.name: family for family in BENCH.FAMILIES}
FAMILY = pytest.mark.parametrize("name", FAMILIES)
BFLOAT16 = Compute(torch.device("cpu"), torch.bfloat16)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    yield {name: family.write(tmp_path_factory.mktemp("family")) for name, family in FAMILIES.items()}
    sys.modules.pop("families", None)


@FAMILY
def test_a_family_computes_what_transformers_does(
    name: str, folders: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    """By the path that the table names, padding being said: log-probabilities and gradient of single rows by eager
    attention in float64 (experts: float32). In bfloat16 the median distance from them is at most twice that of
    transformers' own bfloat16."""
    caplog.set_level(logging.WARNING, "posttrain")
    lm = load_model(folders[name], compute=FLOAT32_CPU, trained=True)
    assert BENCH.path_of(lm) == FAMILIES[name].path
    assert [r.getMessage() for r in caplog.records if "padded" in r.getMessage()] != [] or lm.packed
    batch = pack(random_trees(3, groups=3, longest=10))
    plain = plain_copy(lm)
    if hasattr(plain.config, "num_experts_per_tok"):
        plain = plain.float()  # torch has no grouped product in double precision
    expected = plain_logprobs(plain, batch).double()
    got = lm.logprobs(batch).logprobs
    torch.testing.assert_close(got.double(), expected, rtol=0, atol=1e-4)
    gradients = weighted_gradient(batch.weights, got, lm.module), weighted_gradient(batch.weights, expected, plain)
    assert worst_relative(*gradients) < 1e-3

    rounded = load_model(folders[name], compute=BFLOAT16, trained=True)
    assert rounded.packed == lm.packed
    theirs = BENCH.by_single_rows(load_model(folders[name], compute=FLOAT32_CPU).module.bfloat16(), batch)
    with torch.no_grad():
        ours = rounded.logprobs(batch).logprobs
    distance = [float((logprobs - expected.detach()).abs().median()) for logprobs in (ours, theirs)]
    assert 0 < distance[0] <= 2 * distance[1], distance


@FAMILY
def test_a_family_samples_what_it_trains(name: str, folders: dict[str, str]) -> None:
    """The sampler's log-probabilities of two answers are those of the trainer's pass over them."""
    lm = load_model(folders[name], compute=FLOAT32_CPU)
    prompt = (5, 9, 11, 40, 7, 30, 31)
    requests = [Request(i, prompt, Sampling(8, temperature=0.8), seed=i) for i in range(2)]
    answers = [answer for _, answer in sorted(LocalEngine(lm).generate(requests))]
    rows = []
    for answer in answers:
        n = len(answer.token_ids)
        rows.append(Branch.of(ints([*prompt, *answer.token_ids]), [False] * len(prompt) + [True] * n, 1.0))
    with torch.no_grad():
        trained = lm.logprobs(pack([share_prefix(rows)]), temperature=0.8).logprobs
    sampled = [float(p) for answer in answers for p in answer.sampler_logprobs]
    assert trained.tolist() == pytest.approx(sampled, abs=1e-4)


@pytest.mark.stress
@FAMILY
def test_a_family_takes_a_step_of_sft_and_rl(name: str, folders: dict[str, str], tmp_path: Path) -> None:
    for run in BENCH.steps(folders[name], tmp_path):
        assert math.isfinite(run.metrics[-1]["loss"])


def test_the_table_has_every_family() -> None:
    page = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    shown = [line.split(" | ") for line in page.partition(BENCH.START)[2].splitlines() if line.startswith("| ")]
    assert [(row[0][2:], row[2]) for row in shown[2:]] == [(f.name, f.path) for f in BENCH.FAMILIES]


def test_experts_are_counted_as_often_as_a_token_visits_them(folders: dict[str, str]) -> None:
    """Mixtral, a layer of width 32: queries and output 32·32 each, keys and values 32·16 each, the router 32·4, and of
    four experts of 3·32·48 weights two."""
    flops = load_model(folders["Mixtral"], compute=FLOAT32_CPU).flops
    assert flops.linear == 2 * (2 * 32 * 32 + 2 * 32 * 16 + 32 * 4 + 2 * 3 * 32 * 48)


def test_attention_that_is_not_known_is_refused() -> None:
    """Sinks, a cap on scores and values of another size are named, where a plan would leave them out."""
    register()
    attend = ALL_ATTENTION_FUNCTIONS["posttrain"]
    query, key, layer = torch.zeros(1, 2, 5, 8), torch.zeros(1, 2, 5, 8), SimpleNamespace(layer_idx=0)
    plan = ForestPlan([Node(-1, 5)])
    assert attend(layer, query, key, key, None, plan=plan)[0].shape == (1, 5, 2, 8)
    for unknown in ({"s_aux": torch.zeros(2)}, {"softcap": 50.0}):
        with pytest.raises(TypeError, match="attention has (s_aux|softcap)"):
            attend(layer, query, key, key, None, plan=plan, **unknown)
    with pytest.raises(TypeError, match="another size"):
        attend(layer, query, key, key[..., :4], None, plan=plan)


def test_capped_scores_and_logits_are_kept() -> None:
    """Gemma 2 caps both; torch's own attention would leave the first cap out."""
    config = Gemma2Config(
        vocab_size=259,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        layer_types=["full_attention"] * 2,
        attn_logit_softcapping=0.5,
        final_logit_softcapping=2.0,
    )
    torch.manual_seed(0)
    module = Gemma2ForCausalLM(config)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() == 2:
                parameter.normal_(0.0, 1.5 / math.sqrt(parameter.shape[1]))
    lm = LanguageModel("gemma-2", module, tiny_tokenizer(), Path())
    batch = pack(random_trees(3, groups=2, longest=10))
    expected = plain_logprobs(plain_copy(lm), batch).float()
    assert not lm.packed
    torch.testing.assert_close(lm.logprobs(batch).logprobs, expected, rtol=0, atol=1e-4)
