"""The numeric core on the real model SmolLM2-135M-Instruct."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from transformers import GenerationConfig

from posttrain.batch.packing import Branch, Tree, pack, share_prefix
from posttrain.engine.base import Request
from posttrain.engine.local.engine import LocalEngine
from posttrain.models import LanguageModel, load_model
from posttrain.types import Completion, Sampling, Segment

pytestmark = [pytest.mark.stress, pytest.mark.real_model, pytest.mark.timeout(1200)]

TOPICS = ("rivers", "the moon", "bread", "prime numbers", "volcanoes", "chess", "bees", "Rome", "the sea", "glass")
PROMPTS = [f"Tell me one fact about {t}." for t in TOPICS] + [
    f"What is {17 * i + 4} plus {29 * i + 3}? " + "Think step by step. " * i for i in range(10)
]


@pytest.fixture(scope="module")
def smollm2() -> LanguageModel:
    return load_model("smollm2-135m")


def branch(prompt: tuple[int, ...], completion: Completion) -> Branch:
    segment = Segment.of(prompt, completion)
    n = segment.sampled_count
    return Branch(segment.token_ids, segment.sampled, (1.0 / n,) * n, kept_token_ids=completion.kept_token_ids)


def unshared(trees: Sequence[Tree]) -> list[list[Tree]]:
    """The same rows, each a forest of its own, in which nothing is shared."""
    return [
        [Tree((), (replace(b, token_ids=(*t.trunk, *b.token_ids), mask=(*[False] * len(t.trunk), *b.mask)),))]
        for t in trees
        for b in t.branches
    ]


def test_greedy_takes_the_best_token(smollm2: LanguageModel) -> None:
    """20 prompts x 64 tokens through 7 slots. Every token is the best one after those before it, in transformers' own
    forward pass over the whole row, and its logprob is that of the row to 1e-4: by induction this is what `generate`
    gives. A difference counts only where the two best logits are more than 1e-4 apart."""
    requests = [Request(i, smollm2.chat.prompt_ids(p), Sampling(64, temperature=0.0)) for i, p in enumerate(PROMPTS)]
    answers = dict(LocalEngine(smollm2, slots=7).generate(requests))
    for request in requests:
        completion = answers[request.id]
        with torch.no_grad():
            row = torch.tensor([[*request.prompt_ids, *completion.token_ids.tolist()]])
            logits = smollm2.module(input_ids=row).logits[0, len(request.prompt_ids) - 1 : -1]
        drawn = torch.tensor(completion.token_ids.tolist())
        chosen = logits.gather(1, drawn[:, None])[:, 0]
        assert float((logits.amax(-1) - chosen).max()) <= 1e-4, f"prompt {request.id}"
        expected = chosen - logits.logsumexp(-1)
        torch.testing.assert_close(torch.tensor(completion.sampler_logprobs.tolist()), expected, rtol=0, atol=1e-4)
        ended = completion.token_ids[-1] in smollm2.chat.end_ids
        assert completion.stop_reason == ("stop" if ended else "length")
        assert not smollm2.chat.end_ids & set(completion.token_ids[:-1].tolist())


@pytest.mark.parametrize("prompt", range(20))
def test_greedy_equals_generate(smollm2: LanguageModel, prompt: int) -> None:
    """The same 20 prompts x 64 tokens by `generate` itself; a difference counts unless the two best logits tie there
    to 1e-4."""
    request = Request(0, smollm2.chat.prompt_ids(PROMPTS[prompt]), Sampling(64, temperature=0.0))
    got = tuple(dict(LocalEngine(smollm2).generate([request]))[0].token_ids.tolist())
    ends = sorted(smollm2.chat.end_ids)
    config = GenerationConfig(do_sample=False, max_new_tokens=64, eos_token_id=ends, pad_token_id=ends[0])
    ids = torch.tensor([request.prompt_ids])
    with torch.no_grad():
        out = smollm2.module.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)
        expected = tuple(out[0, ids.shape[1] :].tolist())
        if got != expected:
            same = next(i for i, (x, y) in enumerate(zip(got, expected, strict=False)) if x != y)
            row = torch.tensor([request.prompt_ids + got[:same]])
            best = smollm2.module(input_ids=row).logits[0, -1].topk(2).values
            assert float(best[0] - best[1]) <= 1e-4, f"differs at token {same}"


@pytest.mark.parametrize("options", [{}, {"temperature": 0.7, "top_p": 0.9}, {"top_k": 5}], ids=str)
def test_groups(smollm2: LanguageModel, options: dict[str, float]) -> None:
    """Five prompts with four completions each: sampler logprobs are the trainer's to 1e-4; what went through the model
    is the forest's distinct tokens without the last of each completion; loss and gradient are those of separate
    rows."""
    sampling = Sampling(32, **options)  # type: ignore[arg-type]
    prompts = [smollm2.chat.prompt_ids(p) for p in PROMPTS[::4]]
    requests = [Request(4 * i + g, p, sampling, seed=g) for i, p in enumerate(prompts) for g in range(4)]
    engine = LocalEngine(smollm2)
    answers = dict(engine.generate(requests))
    trees = [share_prefix([branch(p, answers[4 * i + g]) for g in range(4)]) for i, p in enumerate(prompts)]
    assert [len(t.trunk) for t in trees] == [len(p) for p in prompts]
    distinct = len(pack(trees).token_ids)
    rows = sum(
        len(p) + len(answers[r.id].token_ids) for i, p in enumerate(prompts) for r in requests[4 * i : 4 * i + 4]
    )
    assert distinct < rows
    # what prompts share is worth a node of its own for fewer rows than there are completions: counted for itself
    prefill = pack([Tree((), (Branch(p, (False,) * (len(p) - 1) + (True,), (1.0,)),)) for p in prompts])
    decoded = sum(len(c.token_ids) - 1 for c in answers.values())
    assert engine.forwarded_tokens == len(prefill.token_ids) + decoded
    assert len(prefill.token_ids) < sum(map(len, prompts))

    parameters = list(smollm2.trained_parameters().values())
    results = []
    for forests, tokens in (([trees], distinct), (unshared(trees), rows)):
        before = smollm2.forwarded_tokens
        logprobs, loss, gradient = [], 0.0, [torch.zeros_like(p) for p in parameters]
        for forest in forests:
            batch = pack(forest)
            values = smollm2.logprobs(batch, sampling.temperature).logprobs
            part = -(batch.weights * values).sum()
            for total, g in zip(gradient, torch.autograd.grad(part, parameters), strict=True):
                total += g
            logprobs.append(values.detach())
            loss += float(part.detach())
        assert smollm2.forwarded_tokens - before == tokens
        results.append((torch.cat(logprobs), loss, gradient))
    (shared, shared_loss, shared_gradient), (single, single_loss, single_gradient) = results
    sampler = torch.tensor([p for r in requests for p in answers[r.id].sampler_logprobs.tolist()])
    torch.testing.assert_close(shared, sampler, rtol=0, atol=1e-4)
    torch.testing.assert_close(shared, single, rtol=0, atol=1e-4)
    assert shared_loss == pytest.approx(single_loss, abs=1e-4)
    for one, other in zip(shared_gradient, single_gradient, strict=True):
        assert float((one - other).norm()) <= 1e-3 * float(other.norm())
