"""The local engine in float32 and bfloat16, on the device of `--device`, against `generate`, the trainer's forward pass
and attention in double precision."""

from __future__ import annotations

import pytest
import torch

from posttrain.engine.base import Request
from posttrain.engine.local.caches import Cache
from posttrain.engine.local.graphs import Pace
from posttrain.engine.local.plans import DecodePlan
from posttrain.engine.local.rows import Row
from posttrain.engine.local.table import Seating, Table
from posttrain.models.compute import Compute
from posttrain.types import Sampling
from tests.engine.test_engine import batch_of, greedy_by_transformers, prompt_ids, run
from tests.engine.test_pace import Recorder, assert_same
from tests.engine.test_pace import run as run_at_pace
from tests.model_helpers import plain_copy, small_model
from tests.tolerances import tolerances

DTYPES = [torch.float32, torch.bfloat16]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("architecture", ["qwen3", "llama-bias", "gpt-2"])
def test_the_sampler_is_the_trainer(device: torch.device, dtype: torch.dtype, architecture: str) -> None:
    """Log-probabilities of sampled tokens by both, for prompts that rows share and for rows that end at different
    times: in float32 to 1e-4, in bfloat16 k3 = e^d - 1 - d of a token at most 1e-3 in the mean."""
    compute = Compute(device, dtype)
    lm = small_model(architecture, compute=compute)
    prompts = [prompt_ids(lm, p) for p in ("a", "What is 2 + 2?", "Name a river.")]
    requests = [Request(4 * i + g, p, Sampling(6 + 3 * g), seed=g) for i, p in enumerate(prompts) for g in range(4)]
    for pace in (None, Pace(8, Recorder)):
        answers = run_at_pace(lm, requests, pace)
        differences = []
        for i, prompt in enumerate(prompts):
            completions = [answers[4 * i + g] for g in range(4)]
            with torch.no_grad():
                trainer = lm.logprobs(batch_of(prompt, completions).to(device)).logprobs.double().cpu()
            sampler = torch.tensor([p for c in completions for p in c.sampler_logprobs], dtype=torch.float64)
            differences.append(trainer - sampler)
        d = torch.cat(differences)
        assert d.abs().max() <= (1e-4 if dtype == torch.float32 else tolerances(compute).logprob)
        assert (d.exp() - 1 - d).mean() <= (1e-8 if dtype == torch.float32 else 1e-3)
        assert dtype == torch.float32 or d.abs().max() > 1e-4, "bfloat16 was not used"


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_greedy_equals_generate(device: torch.device, dtype: torch.dtype) -> None:
    """Eight prompts of `generate` in float64. A difference counts unless the two best logits are as close there as
    rounding moves them."""
    compute = Compute(device, dtype)
    lm, reference = small_model("qwen3", compute=compute), small_model("qwen3")
    close = 1e-4 if dtype == torch.float32 else 0.2
    prompts = [prompt_ids(lm, text) for text in ("a", "b", "?", "1 2 3", "Grüße", "Name a river.", "x" * 40, "What?")]
    answers = run(lm, [Request(i, p, Sampling(16, temperature=0.0)) for i, p in enumerate(prompts)])
    plain = plain_copy(reference)
    same = 0
    for i, prompt in enumerate(prompts):
        got = answers[i].token_ids.tolist()
        expected = list(greedy_by_transformers(reference, prompt, 16))
        until = next((k for k, (a, b) in enumerate(zip(got, expected, strict=False)) if a != b), None)
        same += until is None
        if until is not None:
            with torch.no_grad():
                best = plain(input_ids=torch.tensor([[*prompt, *got[:until]]])).logits[0, -1].topk(2).values
            assert float(best[0] - best[1]) <= close, f"prompt {i} differs at token {until}"
    assert same >= (8 if dtype == torch.float32 else 4)


def test_recorded_steps_in_bfloat16(device: torch.device) -> None:
    """A product of other shapes may sum in another order, and the next input be rounded to the other neighbour."""
    lm = small_model("llama-bias", compute=Compute(device, torch.bfloat16))
    requests = [Request(i, (5, 6, 7 + i % 3), Sampling(12, top_k=5), seed=i) for i in range(9)]
    assert_same(run_at_pace(lm, requests, Pace(8, Recorder), 4), run_at_pace(lm, requests, Pace(), 4), atol=0.05)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("pace", [Pace(), Pace(8, Recorder)], ids=["exact", "rounded"])
def test_attention_is_that_of_double_precision(device: torch.device, dtype: torch.dtype, pace: Pace) -> None:
    """Five rows of three prompts with unlike numbers of own tokens; only the inputs of the products are rounded."""
    generator = torch.Generator().manual_seed(2)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(device, dtype)

    prompts = [(1, 2, 3), (4,), (5, 6, 7, 8, 9)]
    rows = [Row(Request(i, prompts[k], Sampling(9)), 0) for i, k in enumerate((0, 2, 2, 1, 0))]
    for row, tokens in zip(rows, (1, 4, 2, 6, 3), strict=True):
        row.token_ids += [0] * tokens
    like = torch.zeros(1, 2, 2, 1, 8, device=device, dtype=dtype)
    of_prompts, of_rows = Cache(), Cache()
    for cache in (of_prompts, of_rows):
        cache.reserve(8, 8, like)
        cache.keys, cache.values = normal(*cache.keys.shape), normal(*cache.values.shape)
    before = of_rows.keys.clone(), of_rows.values.clone()
    seating = Seating.of(rows, prompts, pace, 8, 8)
    table = Table(seating.sizes, seating.even, [0], device)
    table.fill(rows, seating)
    n = seating.sizes.rows
    query, key, value = (normal(1, heads, n, 8).float() for heads in (4, 2, 2))
    plan = DecodePlan(of_prompts, of_rows, table, pace.size(6, 128, 8), even=False)
    out = plan.attend(0, query, key, value, 0.5)
    for i, row in enumerate(rows):
        slot, length, own = prompts.index(row.request.prompt_ids), len(row.request.prompt_ids), len(row.token_ids) - 1
        for head in range(4):
            h = head // 2
            past = of_prompts.keys[0, slot, h, :, :length].T, before[0][0, i, h, :, :own].T, key[0, h, i][None]
            read = of_prompts.values[0, slot, h, :length], before[1][0, i, h, :own], value[0, h, i][None]
            keys, values = (torch.cat([part.double() for part in parts]) for parts in (past, read))
            expected = (keys @ query[0, head, i].double() * 0.5).softmax(0) @ values
            tolerance = 1e-5 if dtype == torch.float32 else 2**-7
            torch.testing.assert_close(out[i, head].double(), expected, rtol=0, atol=tolerance)
