"""KL from the start in evaluations: against full enumeration, and against a plain computation."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from functools import partial

import pytest
import torch

from posttrain.arrays import KeptTokens
from posttrain.engine.local.engine import LocalEngine
from posttrain.evals.kl import kl_of_answers
from posttrain.evals.run import evaluate_tasks
from posttrain.models import LanguageModel, load_model
from posttrain.models.divergence import sampling_kl
from posttrain.rewards.scorer import Scorer
from posttrain.types import Completion, Rollout, Sampling, Segment, Task
from tests.model_helpers import kept_of, plain_copy, small_model

END = 0
Ids = tuple[int, ...]


def sequences(vocabulary: Sequence[int], longest: int, end: int) -> list[Ids]:
    """Every answer there can be: it ends with the end token, or is cut at the longest length."""
    others = [t for t in vocabulary if t != end]
    bodies = [b for n in range(longest + 1) for b in itertools.product(others, repeat=n)]
    return [b if len(b) == longest else (*b, end) for b in bodies]


def nucleus(logits: torch.Tensor, temperature: float, top_p: float) -> Ids:
    """The smallest set of likeliest tokens with at least `top_p` of the mass, by hand."""
    p = (logits / temperature).softmax(-1)
    kept: list[int] = []
    for token in p.argsort(descending=True).tolist():
        if float(p[kept].sum()) < top_p:
            kept.append(token)
    return tuple(sorted(kept))


def whole_kl(answers: Sequence[Ids], policy: Callable[[Ids], float], start: Callable[[Ids], float]) -> float:
    """Σ P (log P − log Q) over all answers that the policy can give, from their log-probabilities."""
    logs = [(policy(y), start(y)) for y in answers]
    assert sum(math.exp(p) for p, _ in logs) == pytest.approx(1)
    return sum(math.exp(p) * (p - q) for p, q in logs if p > -math.inf)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("top_p", [1.0, 0.8])
def test_the_sum_over_prefixes_is_the_kl_of_whole_answers(temperature: float, top_p: float) -> None:
    """Two random distributions over answers of up to 4 of 4 tokens: weighed by its probability, the number of each
    answer adds up to the KL of whole answers. Without the end token's term it would not."""
    generator = torch.Generator().manual_seed(0)
    answers = sequences(range(4), 4, END)
    prefixes = sorted({y[:i] for y in answers for i in range(len(y))})
    logits = {x: 1.5 * torch.randn(2, 4, generator=generator, dtype=torch.float64) for x in prefixes}
    supports = {x: nucleus(logits[x][0], temperature, top_p) for x in prefixes}
    if top_p < 1:
        assert any(len(kept) < 4 for kept in supports.values())

    def policy(answer: Ids) -> float:
        total = 0.0
        for i, token in enumerate(answer):
            kept = supports[answer[:i]]
            if token not in kept:
                return -math.inf
            own = (logits[answer[:i]][0, list(kept)] / temperature).log_softmax(-1)
            total += float(own[kept.index(token)])
        return total

    def start(answer: Ids) -> float:
        rows = [(logits[answer[:i]][1] / temperature).log_softmax(-1)[t] for i, t in enumerate(answer)]
        return float(torch.stack(rows).sum())

    exact = whole_kl(answers, policy, start)
    estimate = without_end = 0.0
    for answer in answers:
        before = [answer[:i] for i in range(len(answer))]
        own, other = torch.stack([logits[x] for x in before]).unbind(1)
        kl = sampling_kl(own, other, temperature, None if top_p == 1 else kept_of([supports[x] for x in before]))
        estimate += math.exp(policy(answer)) * float(kl.sum())
        without_end += math.exp(policy(answer)) * float(kl[: len(answer) - (answer[-1] == END)].sum())
    assert estimate == pytest.approx(exact, rel=1e-9)
    assert abs(without_end - exact) > 0.1 * exact


def moved(lm: LanguageModel, scale: float = 0.03) -> LanguageModel:
    """The model with other weights, so that it is a policy that has left its start."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in lm.module.parameters():
            parameter += scale * torch.randn(parameter.shape, generator=generator)
    return lm


def rollout(prompt: Ids, answer: Ids, sampling: Sampling, supports: tuple[Ids, ...] | None) -> Rollout:
    completion = Completion(
        answer, (0.0,) * len(answer), (0,) * len(answer), "stop", supports and KeptTokens.of(supports)
    )
    return Rollout("t", 0, sampling, 0, (), (Segment.of(prompt, completion),))


@pytest.mark.parametrize("architecture", ["qwen3", "gpt-2", "mistral-sliding", "gemma-3"])  # two packed, two padded
@pytest.mark.parametrize("chunk", [None, 2000])
def test_a_model_is_compared_over_all_of_its_answers(
    architecture: str, chunk: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All answers of up to 3 of the three tokens that sampling keeps, the end token among them, to two prompts: the
    mean by probability is the KL of whole answers by transformers in float64, however few logits are held at once."""
    start, policy = small_model(architecture), moved(small_model(architecture), 0.1)
    if chunk is not None:
        monkeypatch.setattr("posttrain.models.token_logprobs.CHUNK_ELEMENTS", chunk)
        monkeypatch.setattr("posttrain.evals.kl.CHUNK_ELEMENTS", chunk)
    end, kept, temperature = 2, (2, 17, 60), 0.7
    answers = sequences(kept, 3, end)
    prompts = [(5, 9, 11, 40, 41, 42, 43, 44, 45, 46), (5, 9, 30)]
    sampling = Sampling(3, temperature, top_p=0.5)
    groups = [[rollout(x, y, sampling, (kept,) * len(y)) for y in answers] for x in prompts]
    found, flops = kl_of_answers(policy, start, groups)
    assert flops > 0
    own, other = plain_copy(policy), plain_copy(start)

    def logprob(module: torch.nn.Module, prompt: Ids, answer: Ids, allowed: Sequence[int]) -> float:
        ids = torch.tensor([prompt + answer])
        with torch.no_grad():
            logits = module(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1] / temperature
        log_p = logits[:, list(allowed)].log_softmax(-1)
        return float(sum(log_p[i, list(allowed).index(t)] for i, t in enumerate(answer)))

    for prompt, kls in zip(prompts, found, strict=True):
        p = [logprob(own, prompt, y, kept) for y in answers]
        q = [logprob(other, prompt, y, range(start.vocabulary)) for y in answers]
        exact = sum(math.exp(a) * (a - b) for a, b in zip(p, q, strict=True))
        estimate = sum(math.exp(a) * kl for a, kl in zip(p, kls, strict=True))
        assert estimate == pytest.approx(exact, rel=1e-5) and exact > 1


def evaluated(policy: LanguageModel, start: LanguageModel, samples: int, sampling: Sampling) -> list[dict[str, float]]:
    tasks = [Task(f"t{i}", f"Say {i}") for i in range(3)]
    with Scorer(("length=0",), columns=(), timeout_seconds=30.0) as scorer:
        kl = partial(kl_of_answers, policy, start)
        chat, flops = policy.chat, policy.flops
        result = evaluate_tasks(LocalEngine(policy), chat, flops, tasks, scorer, samples, sampling, 0, kl)
    return [row["values"] for row in result.rows]


def test_only_sampled_answers_have_a_kl(tiny: LanguageModel) -> None:
    """Greedy answers alone are no sample of the model's distribution, and neither are samples at temperature 0."""
    policy = moved(load_model("tiny-random"))
    assert all(row["kl"] > 0.1 for row in evaluated(policy, tiny, 2, Sampling(4)))
    assert not any("kl" in row for row in evaluated(policy, tiny, 0, Sampling(4)))
    assert not any("kl" in row for row in evaluated(policy, tiny, 2, Sampling(4, temperature=0.0)))
    assert all(row["kl"] == pytest.approx(0.0, abs=1e-5) for row in evaluated(tiny, tiny, 2, Sampling(4)))
