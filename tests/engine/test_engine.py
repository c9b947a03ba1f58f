"""The local engine against transformers' `generate`, full forward passes and exact distributions."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import GenerationConfig

from posttrain.arrays import KeptTokens
from posttrain.batch.packing import Branch, pack, share_prefix
from posttrain.batch.types import Batch
from posttrain.engine.base import Request
from posttrain.engine.local.engine import LocalEngine
from posttrain.engine.local.sampling import BLOCK, Draw, doubling_sum, draw
from posttrain.models import LanguageModel, load_model
from posttrain.types import Completion, InputError, Sampling, Segment
from tests.model_helpers import ARCHITECTURES, plain_copy, plain_logprobs, small_model

PROMPTS = (
    "a",
    "What is 2 + 2?",
    "Name a river.",
    "x" * 70,
    "Grüße aus Köln",
    "1 2 3 4 5",
    "",
    "Tell me a story about a fox and a hen.",
    "?",
    "b",
)


def ids_of(completion: Completion) -> tuple[int, ...]:
    return tuple(completion.token_ids.tolist())


def prompt_ids(lm: LanguageModel, text: str) -> tuple[int, ...]:
    """Raw bytes, so that lengths differ from 1 to 70; an empty text is the end-of-text token alone."""
    return tuple(lm.tokenizer.encode(text, add_special_tokens=False)) or (0,)


def run(lm: LanguageModel, requests: Sequence[Request], slots: int = 64) -> dict[int, Completion]:
    """Completions by request id; every request is answered once."""
    answers = list(LocalEngine(lm, slots).generate(requests))
    assert sorted(i for i, _ in answers) == sorted(r.id for r in requests)
    return dict(answers)


def greedy_by_transformers(lm: LanguageModel, prompt: Sequence[int], tokens: int) -> tuple[int, ...]:
    """What `generate` gives in float64 with eager attention."""
    config = GenerationConfig(
        do_sample=False, max_new_tokens=tokens, eos_token_id=sorted(lm.chat.end_ids), pad_token_id=0, bos_token_id=0
    )
    ids = torch.tensor([list(prompt)])
    out = plain_copy(lm).generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)
    return tuple(out[0, len(prompt) :].tolist())


def batch_of(prompt: tuple[int, ...], completions: Sequence[Completion]) -> Batch:
    """The completions of one prompt as training rows, with the supports they were drawn from."""
    branches = []
    for completion in completions:
        segment = Segment.of(prompt, completion)
        n = segment.sampled_count
        branches.append(
            Branch(segment.token_ids, segment.sampled, (1.0,) * n, kept_token_ids=completion.kept_token_ids)
        )
    return pack([share_prefix(branches)])


def assert_logprobs_are_those_of_a_full_forward(
    lm: LanguageModel, prompt: tuple[int, ...], completions: Sequence[Completion], temperature: float
) -> None:
    """|log proximal/sampler| ≤ 1e-4 by the trainer's own forward pass, and by plain transformers in float64."""
    batch = batch_of(prompt, completions)
    sampler = torch.tensor([p for c in completions for p in c.sampler_logprobs], dtype=torch.float64)
    with torch.no_grad():
        trainer = lm.logprobs(batch, temperature).logprobs
        supports = [ids for c in completions for ids in c.kept_token_ids or ()]
        plain = plain_logprobs(plain_copy(lm), batch, temperature, supports or None)
    torch.testing.assert_close(trainer.double(), sampler, rtol=0, atol=1e-4)
    torch.testing.assert_close(plain, sampler, rtol=0, atol=1e-4)


# -- against transformers ----------------------------------------------------------------------------------------------


def test_greedy_equals_generate(tiny: LanguageModel) -> None:
    """Ten prompts of various lengths through three slots, which are therefore used again and again."""
    lengths = [24, 3, 17, 1, 30, 9, 12, 2, 21, 8]
    requests = [
        Request(i, prompt_ids(tiny, p), Sampling(n, temperature=0.0))
        for i, (p, n) in enumerate(zip(PROMPTS, lengths, strict=True))
    ]
    answers = run(tiny, requests, slots=3)
    for request in requests:
        expected = greedy_by_transformers(tiny, request.prompt_ids, request.sampling.max_new_tokens)
        assert ids_of(answers[request.id]) == expected
        assert_logprobs_are_those_of_a_full_forward(tiny, request.prompt_ids, [answers[request.id]], 1.0)


@pytest.mark.parametrize("variant", [{}, {"rslora": True}, {"dora": True}], ids=["lora", "rslora", "dora"])
@pytest.mark.parametrize("architecture", ["llama-bias", "gpt-2"])
@pytest.mark.filterwarnings("ignore:fan_in_fan_out")
def test_a_trained_adapter_samples_as_generate_does(architecture: str, variant: dict[str, bool]) -> None:
    """Greedy answers with peft's own layers beside the weights in float64, and log-probabilities of a full pass."""
    lm = small_model(architecture)
    prompt = prompt_ids(lm, "Name a river.")
    before = greedy_by_transformers(lm, prompt, 14)
    lm.add_adapter(4, 8, 0, **variant)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in lm.trained_parameters().items():
            size = 0.5 if "magnitude" in name else 0.1
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=size)
    answer = run(lm, [Request(0, prompt, Sampling(14, temperature=0.0))])[0]
    assert ids_of(answer) == greedy_by_transformers(lm, prompt, 14) != before
    assert_logprobs_are_those_of_a_full_forward(lm, prompt, [answer], 1.0)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_architectures(architecture: str) -> None:
    """Packed or not: greedy equals `generate`, and logprobs are those of a full forward pass, for groups whose rows end
    at different times."""
    lm = small_model(architecture)
    assert lm.packed == ARCHITECTURES[architecture][1]
    prompts = [prompt_ids(lm, p) for p in ("a", "What is 2 + 2?", "Name a river.")]
    greedy = [Request(i, p, Sampling(14, temperature=0.0)) for i, p in enumerate(prompts)]
    answers = run(lm, greedy, slots=2)
    for request in greedy:
        assert ids_of(answers[request.id]) == greedy_by_transformers(lm, request.prompt_ids, 14)
        assert_logprobs_are_those_of_a_full_forward(lm, request.prompt_ids, [answers[request.id]], 1.0)
    sampled = [
        Request(10 * i + g, p, Sampling(4 + 3 * (g % 3), temperature=0.8, top_p=0.9), seed=g)
        for i, p in enumerate(prompts)
        for g in range(4)
    ]
    answers = run(lm, sampled, slots=3)
    for i, prompt in enumerate(prompts):
        group = [answers[10 * i + g] for g in range(4)]
        assert len({ids_of(c)[:4] for c in group}) > 1
        assert_logprobs_are_those_of_a_full_forward(lm, prompt, group, 0.8)


@pytest.mark.parametrize(
    "options",
    [{}, {"temperature": 0.7}, {"top_p": 0.9}, {"top_k": 5}, {"temperature": 1.4, "top_k": 20, "top_p": 0.8}],
    ids=str,
)
def test_logprobs_equal_a_full_forward(tiny: LanguageModel, options: dict[str, float]) -> None:
    sampling = Sampling(20, **options)  # type: ignore[arg-type]
    prompts = [prompt_ids(tiny, p) for p in PROMPTS[:3]]
    requests = [Request(i, prompts[i % 3], sampling, seed=i) for i in range(9)]
    answers = run(tiny, requests, slots=4)
    for k, prompt in enumerate(prompts):
        group = [answers[i] for i in range(k, 9, 3)]
        assert_logprobs_are_those_of_a_full_forward(tiny, prompt, group, sampling.temperature)
        for completion in group:
            if not sampling.truncated:
                assert completion.kept_token_ids is None
                continue
            assert completion.kept_token_ids is not None
            assert all(t in kept for t, kept in zip(completion.token_ids, completion.kept_token_ids, strict=True))
            assert not sampling.top_k or all(len(kept) <= sampling.top_k for kept in completion.kept_token_ids)


# -- distributions -----------------------------------------------------------------------------------------------------


def chi_square_p(counts: Sequence[int], expected: Sequence[float]) -> float:
    """Pearson's test; cells expecting fewer than 5 are put together."""
    cells = sorted(zip(expected, counts, strict=True))
    pooled: list[tuple[float, int]] = []
    for e, n in cells:
        if pooled and pooled[-1][0] < 5:
            e, n = e + pooled[-1][0], n + pooled.pop()[1]
        pooled.append((e, n))
    statistic = sum((n - e) ** 2 / e for e, n in pooled)
    half = torch.tensor([(len(pooled) - 1) / 2, statistic / 2], dtype=torch.float64)
    return float(torch.special.gammaincc(half[0], half[1]))


@pytest.mark.parametrize(
    "sampling", [Sampling(1, temperature=1.3), Sampling(1, top_p=0.8), Sampling(1, temperature=0.7, top_k=6)], ids=str
)
def test_first_tokens_follow_the_exact_distribution(tiny: LanguageModel, sampling: Sampling) -> None:
    """4,000 draws, with the seeds 0 … 3999, against softmax(logits/T) worked out in float64: p > 0.001, and nothing
    outside the support."""
    prompt = prompt_ids(tiny, "Name a river.")
    with torch.no_grad():
        logits = plain_copy(tiny)(input_ids=torch.tensor([prompt])).logits[0, -1]
    p = (logits / sampling.temperature).softmax(-1).tolist()
    order = sorted(range(len(p)), key=lambda t: -p[t])[: sampling.top_k or len(p)]
    kept, mass, whole = [], 0.0, sum(p[t] for t in order)
    for token in order:
        if mass >= sampling.top_p * whole:
            break
        kept.append(token)
        mass += p[token]
    draws = 4000
    answers = run(tiny, [Request(i, prompt, sampling, seed=i) for i in range(draws)], slots=500)
    counts = dict.fromkeys(range(len(p)), 0)
    for completion in answers.values():
        counts[completion.token_ids[0]] += 1
        if sampling.truncated:
            assert completion.kept_token_ids == KeptTokens.of([sorted(kept)])
    assert sum(counts[t] for t in kept) == draws
    assert chi_square_p([counts[t] for t in kept], [draws * p[t] / mass for t in kept]) > 0.001


def test_the_chi_square_test_can_fail() -> None:
    """100 throws of a die, and of one whose six comes twice as often."""
    assert chi_square_p([17, 16, 18, 15, 17, 17], [100 / 6] * 6) > 0.9
    assert chi_square_p([140, 145, 140, 145, 140, 290], [1000 / 6] * 6) < 1e-6


P = (0.5, 0.0, 0.3, 0.2)


def numbers(*uniforms: float) -> torch.Tensor:
    return torch.tensor(uniforms, dtype=torch.float64)


def kept_ids(drawn: Draw) -> list[list[int]]:
    """Of each row, in rising order; no rows if nothing was cut."""
    return [] if drawn.kept is None else [sorted(t for t in row if t >= 0) for row in drawn.kept.tolist()]


@pytest.mark.parametrize(
    ("options", "u", "token", "probability", "support"),
    [
        # cumulative probabilities in token order: 0.5, 0.5, 0.8, 1
        ({}, 0.0, 0, 0.5, None),
        ({}, 0.4999, 0, 0.5, None),
        ({}, 0.5001, 2, 0.3, None),
        ({}, 0.8001, 3, 0.2, None),
        ({}, 1 - 2**-53, 3, 0.2, None),
        ({"top_k": 2}, 0.99, 2, 0.3 / 0.8, (0, 2)),
        ({"top_k": 1}, 0.99, 0, 1.0, (0,)),
        ({"top_k": 99}, 0.99, 3, 0.2, (0, 1, 2, 3)),
        ({"top_p": 0.4}, 0.99, 0, 1.0, (0,)),
        ({"top_p": 0.6}, 0.99, 2, 0.3 / 0.8, (0, 2)),
        ({"top_p": 0.79}, 0.1, 0, 0.5 / 0.8, (0, 2)),
        ({"top_p": 0.81}, 0.99, 3, 0.2, (0, 2, 3)),
        # top-k first: of the two left, 0.5 is 5/8 of the mass
        ({"top_k": 2, "top_p": 0.62}, 0.99, 0, 1.0, (0,)),
        ({"top_k": 2, "top_p": 0.63}, 0.99, 2, 0.3 / 0.8, (0, 2)),
        # probabilities ∝ p²: 25, 9, 4 of 38
        ({"temperature": 0.5}, 0.7, 2, 9 / 38, None),
        ({"temperature": 0.0}, 0.99, 0, 0.5, None),
    ],
)
def test_draw_by_hand(
    options: dict[str, float], u: float, token: int, probability: float, support: tuple[int, ...] | None
) -> None:
    drawn = draw(torch.log(torch.tensor([P])), Sampling(1, **options), numbers(u))  # type: ignore[arg-type]
    assert drawn.tokens.tolist() == [token]
    assert drawn.logprobs.tolist() == pytest.approx([math.log(probability)], abs=1e-6)
    assert kept_ids(drawn) == ([] if support is None else [list(support)])


def test_a_large_vocabulary_is_drawn_from_in_blocks() -> None:
    """Two and a half blocks of tokens, one of them without any mass, against the plain inverse distribution function in
    float64, for a thousand numbers spread over [0, 1)."""
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(1, 2 * BLOCK + BLOCK // 2, generator=generator) * 2
    logits[0, BLOCK : 2 * BLOCK] = float("-inf")
    p = (logits[0].double() / 0.7).softmax(-1)
    u = (torch.arange(1000, dtype=torch.float64) + 0.37) / 1000
    expected = torch.searchsorted(p.cumsum(-1), u, right=True)
    drawn = draw(logits.expand(1000, -1), Sampling(1, temperature=0.7), u)
    assert (drawn.tokens == expected).float().mean() > 0.998, "all but numbers within rounding of a boundary"
    torch.testing.assert_close(drawn.logprobs.double(), p.log()[drawn.tokens], rtol=0, atol=1e-5)
    assert draw(logits, Sampling(1), numbers(1 - 2**-53)).tokens.tolist() == [logits.shape[1] - 1]


@pytest.mark.parametrize("n", [1, 2, 7, 64, 1000])
def test_the_running_sum_without_a_scan(n: int) -> None:
    p = torch.rand(3, n, generator=torch.Generator().manual_seed(n), dtype=torch.float64)
    torch.testing.assert_close(doubling_sum(p), p.cumsum(-1), rtol=1e-14, atol=0)


def test_greedy_takes_the_first_of_equals() -> None:
    logits = torch.tensor([[1.0, 3.0, 3.0]])
    assert draw(logits, Sampling(1, temperature=0.0), numbers(0.9)).tokens.tolist() == [1]


def test_a_nucleus_of_more_tokens_than_are_looked_at_first() -> None:
    """2,000 equal tokens: top-p 0.9 keeps 1,800, and one peaked row beside it keeps its one. The first look settles the
    peaked row alone; the whole vocabulary settles both."""
    logits = torch.zeros(2, 2000)
    logits[1, 7] = 50.0
    first = draw(logits, Sampling(1, top_p=0.9), numbers(0.5, 0.5))
    assert first.settled is not None and first.settled.tolist() == [False, True]
    drawn = draw(logits, Sampling(1, top_p=0.9), numbers(0.5, 0.5), whole=True)
    flat, peaked = kept_ids(drawn)
    assert drawn.settled is None and len(flat) in (1800, 1801) and peaked == [7]
    assert drawn.logprobs[0].item() == pytest.approx(-math.log(len(flat)), abs=1e-4)


# -- seeds -------------------------------------------------------------------------------------------------------------


def test_draws_do_not_depend_on_their_neighbours() -> None:
    """A row's token is a function of its logits and its uniform number, bit for bit, wherever it stands."""
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(40, 259, generator=generator) * 3
    u = torch.rand(40, generator=generator, dtype=torch.float64)
    order = torch.randperm(40, generator=generator).tolist()
    for sampling in (Sampling(1), Sampling(1, top_p=0.8), Sampling(1, temperature=0.6, top_k=9)):
        together = draw(logits, sampling, u)
        shuffled = draw(logits[order], sampling, u[order])
        assert shuffled.tokens.tolist() == [int(together.tokens[i]) for i in order]
        for i in (0, 7, 39):
            assert int(draw(logits[i : i + 1], sampling, u[i : i + 1]).tokens) == int(together.tokens[i])


def test_a_seed_fixes_its_completion(tiny: LanguageModel) -> None:
    """The same request alone, among others, in another order and with other slots. Logits may differ by some 1e-6 with
    the shape of a batch, which moves a draw only where its uniform number lies that close to a boundary; these seeds
    have none. Nothing is read from, or written to, torch's global randomness."""
    requests = [Request(i, prompt_ids(tiny, PROMPTS[i % 5]), Sampling(12), seed=100 + i) for i in range(10)]
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    together = run(tiny, requests)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(2)
    reversed_order = run(tiny, requests[::-1], slots=3)
    for request in requests:
        alone = run(tiny, [request])[request.id]
        assert ids_of(alone) == ids_of(together[request.id]) == ids_of(reversed_order[request.id])
    assert run(tiny, requests) == together, "the same batch again gives the same bits"
    again = run(tiny, [Request(0, requests[0].prompt_ids, Sampling(12), seed=7)])
    assert ids_of(again[0]) != ids_of(together[0])


# -- ends --------------------------------------------------------------------------------------------------------------


def test_a_stop_string_ends_a_completion_and_stays_in_it(tiny: LanguageModel) -> None:
    """The string is cut from what the same seed says without it, so that it must occur; the tokens are the same up to
    its first occurrence."""
    prompt = prompt_ids(tiny, "a")
    free = ids_of(run(tiny, [Request(0, prompt, Sampling(30), seed=3)])[0])
    decode = tiny.tokenizer.decode
    texts = [decode(free[: i + 1]) for i in range(len(free))]
    places = [i for i in range(4, 25) if "�" not in decode(free[i : i + 2])]
    assert places, "the seed's text has two plain characters in a row"
    stop = decode(free[places[0] : places[0] + 2])
    end = next(i for i, text in enumerate(texts) if stop in text)
    stopped = run(tiny, [Request(0, prompt, Sampling(30, stop=("never said at all", stop)), seed=3)])[0]
    assert ids_of(stopped) == free[: end + 1] and stopped.stop_reason == "stop"
    assert decode(ids_of(stopped)).endswith(stop)


def test_max_new_tokens(tiny: LanguageModel) -> None:
    for n in (1, 2, 7):
        completion = run(tiny, [Request(0, prompt_ids(tiny, "a"), Sampling(n, temperature=0.0))])[0]
        assert len(completion.token_ids) == n and completion.stop_reason == "length"


@pytest.mark.parametrize("packed", [True, False])
def test_end_tokens_of_the_generation_config(packed: bool) -> None:
    """The fifth token of a completion, made an end token, ends it and stays in it; one on the last allowed place still
    counts as a stop."""
    lm = small_model("qwen3" if packed else "gemma-3")
    prompt = prompt_ids(lm, "What is 2 + 2?")
    free = ids_of(run(lm, [Request(0, prompt, Sampling(14), seed=1)])[0])
    end = free[4]
    assert lm.module.generation_config is not None
    lm.module.generation_config.eos_token_id = [2, end]
    ending = LanguageModel("ending", lm.module, lm.tokenizer, Path())
    assert ending.packed == packed and end in ending.chat.end_ids
    n = free.index(end) + 1
    for room in (14, n):
        completion = run(ending, [Request(0, prompt, Sampling(room), seed=1)])[0]
        assert ids_of(completion) == free[:n] and completion.stop_reason == "stop"


def test_different_sampling_in_one_batch(tiny: LanguageModel) -> None:
    """Greedy, truncated and free rows decode side by side as each does alone."""
    kinds = [Sampling(9, temperature=0.0), Sampling(9, top_p=0.7), Sampling(9), Sampling(5, temperature=0.5, top_k=3)]
    requests = [Request(i, prompt_ids(tiny, "Name a river."), kinds[i % 4], seed=i) for i in range(8)]
    together = run(tiny, requests)
    for request in requests:
        alone = run(tiny, [request])[request.id]
        assert (alone.token_ids.tolist(), alone.kept_token_ids) == (
            together[request.id].token_ids.tolist(),
            together[request.id].kept_token_ids,
        )


# -- what is forwarded, cancelled, refused -----------------------------------------------------------------------------


@pytest.mark.parametrize("slots", [2, 64])
def test_a_prompt_is_forwarded_once(tiny: LanguageModel, slots: int) -> None:
    """Two prompts with five completions each: each prompt once, and of each completion all tokens but the last."""
    prompts = [prompt_ids(tiny, p) for p in ("What is 2 + 2?", "Name a river.")]
    requests = [Request(i, prompts[i // 5], Sampling(3 + i), seed=i) for i in range(10)]
    engine = LocalEngine(tiny, slots)
    before = tiny.forwarded_tokens
    answers = dict(engine.generate(requests))
    expected = sum(map(len, prompts)) + sum(len(c.token_ids) - 1 for c in answers.values())
    assert engine.forwarded_tokens == expected == tiny.forwarded_tokens - before


def test_long_and_many_prompts(tiny: LanguageModel) -> None:
    """More prompt tokens than are prefilled at once: 40 prompts of 37 to 76 tokens, and one of 800."""
    alphabet = "abcdefgh"
    prompts = [prompt_ids(tiny, alphabet[i % 8] * (37 + i)) for i in range(40)] + [prompt_ids(tiny, "fox " * 200)]
    requests = [Request(i, p, Sampling(2, temperature=0.0)) for i, p in enumerate(prompts)]
    answers = run(tiny, requests)
    for i in (0, 17, 39, 40):
        assert_logprobs_are_those_of_a_full_forward(tiny, prompts[i], [answers[i]], 1.0)


@pytest.mark.parametrize("architecture", ["qwen3", "gemma-3"])
def test_cancel(architecture: str) -> None:
    """Once the first completion is out, one request that is being decoded and one that waits are called off."""
    lm = small_model(architecture)
    engine = LocalEngine(lm, slots=2)
    same = prompt_ids(lm, "Name a river.")
    sizes = [1, 60, 5, 6]
    stream = engine.generate([Request(i, same, Sampling(n, temperature=0.0)) for i, n in enumerate(sizes)])
    first, _ = next(stream)
    assert first == 0
    engine.cancel(1)
    engine.cancel(3)
    answers = dict(stream)
    assert {i: c.stop_reason for i, c in answers.items()} == {1: "cancelled", 2: "length", 3: "cancelled"}
    assert 1 <= len(answers[1].token_ids) < 60 and not len(answers[3].token_ids) and len(answers[2].token_ids) == 5
    # what was cancelled once is not cancelled for ever
    again = dict(engine.generate([Request(1, same, Sampling(2, temperature=0.0))]))
    assert again[1].stop_reason == "length"


@pytest.mark.parametrize("architecture", ["qwen3", "gemma-3"])
def test_deadline(monkeypatch: pytest.MonkeyPatch, architecture: str) -> None:
    """Time for 20 of 200 tokens: the two active rows of 400 come back with what they have, the waiting ones empty, and
    every request is answered."""
    clock = SimpleNamespace(monotonic=itertools.count().__next__)
    monkeypatch.setattr("posttrain.engine.local.engine.time", clock)
    lm = small_model(architecture)
    prompt = prompt_ids(lm, "a")
    requests = [Request(i, prompt, Sampling(200), seed=i) for i in range(400)]
    answers = dict(LocalEngine(lm, slots=2).generate(requests, deadline_seconds=20))
    assert sorted(answers) == list(range(400))
    cancelled = [c for c in answers.values() if c.stop_reason == "cancelled"]
    assert (
        len([c for c in cancelled if len(c.token_ids)]) <= 2
        and len([c for c in cancelled if not len(c.token_ids)]) > 300
    )


def test_prompts_without_room_are_refused(tiny: LanguageModel) -> None:
    """A context of 2,048: 2,000 tokens and 48 new ones fit, 49 do not; nothing is sampled before the check."""
    prompt = tuple(prompt_ids(tiny, "x") * 2000)
    assert run(tiny, [Request(0, prompt, Sampling(48, temperature=0.0, stop=("x",)))])
    before = tiny.forwarded_tokens
    with pytest.raises(InputError, match=r"request 8: a prompt of 2000 tokens and max_new_tokens=49 need 2049"):
        run(tiny, [Request(7, (5,), Sampling(1)), Request(8, prompt, Sampling(49))])
    assert tiny.forwarded_tokens == before


def test_empty_requests() -> None:
    with pytest.raises(ValueError, match="empty prompt"):
        Request(0, (), Sampling(1))


def test_no_requests(tiny: LanguageModel) -> None:
    assert list(LocalEngine(tiny).generate([])) == []
    with pytest.raises(ValueError, match="slot"):
        LocalEngine(tiny, slots=0)


# -- new weights -------------------------------------------------------------------------------------------------------


def changed(lm: LanguageModel) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(9)
    return {n: p.detach() + 0.05 * torch.randn(p.shape, generator=generator) for n, p in lm.module.named_parameters()}


def test_update_takes_new_weights_and_counts_versions(tmp_path: Path) -> None:
    lm = small_model("qwen3")
    engine = LocalEngine(lm)
    request = Request(0, prompt_ids(lm, "Name a river."), Sampling(12, temperature=0.0))

    def answer() -> Completion:
        return dict(engine.generate([request]))[0]

    first = answer()
    assert first.versions.tolist() == [0] * 12
    other = copy.deepcopy(lm)
    new = changed(lm)
    engine.update(new, version=3)
    second = answer()
    assert second.versions.tolist() == [3] * 12 and ids_of(second) != ids_of(first)
    assert_logprobs_are_those_of_a_full_forward(lm, request.prompt_ids, [second], 1.0)
    engine.update(None, version=4)  # engine and trainer share the module
    assert ids_of(answer()) == ids_of(second) and answer().versions.tolist() == [4] * 12
    # a folder gives the same weights
    lm.save(tmp_path / "model")
    engine = LocalEngine(other)
    assert ids_of(answer()) == ids_of(first)
    engine.update(tmp_path / "model", version=5)
    assert ids_of(answer()) == ids_of(second)


def test_update_from_a_folder_with_tied_weights(tiny: LanguageModel, tmp_path: Path) -> None:
    """The head that is the embedding stands in the file once."""
    lm = load_model("tiny-random")
    lm.save(tmp_path)
    LocalEngine(lm).update(tmp_path, version=1)
    assert all(torch.equal(a, b) for a, b in zip(lm.module.parameters(), tiny.module.parameters(), strict=True))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("unknown", "hold 'model.norm.weights', which"),
        ("shape", r"'model.norm.weight' has the shape \(1,\), but this model needs \(32,\)"),
        ("empty folder", "lack 'lm_head.weight'"),
    ],
)
def test_wrong_weights_are_refused_whole(fault: str, message: str, tmp_path: Path) -> None:
    """Nothing has changed afterwards, the version neither."""
    lm = small_model("qwen3")
    before = {n: p.detach().clone() for n, p in lm.module.named_parameters()}
    engine = LocalEngine(lm)
    weights: dict[str, torch.Tensor] | Path = tmp_path
    if fault != "empty folder":
        name = "model.norm.weights" if fault == "unknown" else "model.norm.weight"
        weights = {"model.embed_tokens.weight": before["model.embed_tokens.weight"] + 1, name: torch.ones(1)}
    with pytest.raises(InputError, match=message):
        engine.update(weights, version=1)
    assert engine.version == 0
    assert all(torch.equal(p, before[n]) for n, p in lm.module.named_parameters())
