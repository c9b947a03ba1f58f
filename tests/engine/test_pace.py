"""Steps between two reads, recorded steps, and memory: none of them may change a completion."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from posttrain.engine.base import Request
from posttrain.engine.local import sampling as drawing
from posttrain.engine.local.engine import LocalEngine
from posttrain.engine.local.graphs import CudaGraphs, Pace, Step
from posttrain.engine.local.rows import UNIFORMS, Row
from posttrain.models import LanguageModel
from posttrain.types import Completion, InputError, Sampling
from tests.model_helpers import small_model

SAMPLINGS = {
    "free": Sampling(23),
    "greedy": Sampling(23, temperature=0.0),
    "top-p": Sampling(23, top_p=0.9),
    "top-k": Sampling(23, temperature=0.8, top_k=6),
}


class Recorder:
    """A stand-in for CUDA graphs: a recorded step is run again with the tensors that it has seen the first time, and
    writes to the same results, which its caller must not keep."""

    def __init__(self) -> None:
        self.recorded = 0
        self.replayed = 0

    def __call__(self, step: Step) -> Step:
        self.recorded += 1
        results: tuple[torch.Tensor, ...] | None = None

        def take() -> tuple[torch.Tensor, ...]:
            nonlocal results
            fresh = step()
            if results is None:
                results = fresh
            else:
                self.replayed += 1
                for result, new in zip(results, fresh, strict=True):
                    result.copy_(new)
            return tuple(result.clone() for result in results)

        return take


def requests_of(sampling: Sampling, count: int = 13, vocabulary: int = 250) -> list[Request]:
    """Groups of up to four rows a prompt, prompts of 1 to 40 tokens, of which some begin alike; answers of 1 to all
    tokens."""
    rng = np.random.default_rng(4)
    start = tuple(rng.integers(3, vocabulary, 12).tolist())
    prompts = [tuple(rng.integers(3, vocabulary, n).tolist()) for n in (1, 40, 7)]
    prompts.append(start + prompts[2])
    lengths = [1 + 5 * i % sampling.max_new_tokens for i in range(count)]
    return [
        Request(i, prompts[i * 3 // count + i % 2], replace(sampling, max_new_tokens=n), seed=i)
        for i, n in enumerate(lengths)
    ]


def run(
    lm: LanguageModel, requests: Sequence[Request], pace: Pace | None = None, slots: int = 64, memory: int | None = None
) -> dict[int, Completion]:
    answers = list(LocalEngine(lm, slots, pace, memory).generate(requests))
    assert len(answers) == len(requests)
    return dict(answers)


def assert_same(answers: dict[int, Completion], expected: dict[int, Completion], atol: float = 1e-5) -> None:
    """The same tokens, reasons to stop and kept tokens; log-probabilities to a rounding that differs with the shapes of
    the products."""
    assert answers.keys() == expected.keys()
    for i, completion in answers.items():
        assert completion.token_ids.tolist() == expected[i].token_ids.tolist(), i
        assert completion.stop_reason == expected[i].stop_reason
        assert completion.kept_token_ids == expected[i].kept_token_ids
        np.testing.assert_allclose(completion.sampler_logprobs, expected[i].sampler_logprobs, rtol=0, atol=atol)


@pytest.mark.parametrize("slots", [64, 5])
@pytest.mark.parametrize("kind", SAMPLINGS)
def test_the_pace_changes_nothing(tiny: LanguageModel, kind: str, slots: int) -> None:
    """Reads every 3 and 8 steps, and recorded steps, for rows that end at different times and slots that are given to
    waiting requests in between."""
    requests = requests_of(SAMPLINGS[kind])
    expected = run(tiny, requests, slots=slots)
    for pace in (Pace(3), Pace(8), Pace(3, Recorder), Pace(8, Recorder)):
        assert_same(run(tiny, requests, pace, slots), expected)


@pytest.mark.parametrize("kind", SAMPLINGS)
def test_an_interval_changes_no_bit(tiny: LanguageModel, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where every step has the same shapes, as long as no row ends, with nuclei of more tokens than are looked at
    first, for which rows wait until the next read."""
    monkeypatch.setattr(drawing, "TOP_P_FIRST_TRY", 40)
    requests = [replace(r, sampling=SAMPLINGS[kind]) for r in requests_of(SAMPLINGS[kind], 8)]
    one, three, eight = (run(tiny, requests, Pace(every, Recorder)) for every in (1, 3, 8))
    assert one == three == eight
    if kind == "top-p":
        assert any(completion.kept_token_ids.counts.max() > 40 for completion in one.values())


@pytest.mark.parametrize("pace", [Pace(8), Pace(8, Recorder)], ids=["read", "recorded"])
def test_kinds_stops_and_ends_in_one_batch(tiny: LanguageModel, pace: Pace) -> None:
    """Rows that draw differently, three of which stop at a string and one at an end token, among them; what the device
    drew after that is cut off."""
    samplings = [*SAMPLINGS.values(), Sampling(40, stop=("e", "q\x7f", "o"))]
    requests = [replace(r, sampling=samplings[i % 5]) for i, r in enumerate(requests_of(SAMPLINGS["free"], 20))]
    engine = LocalEngine(tiny, 64)
    expected = dict(engine.generate(requests))
    assert {c.stop_reason for c in expected.values()} == {"stop", "length"}
    read = LocalEngine(tiny, 64, pace)
    assert_same(dict(read.generate(requests)), expected)
    assert read.forwarded_tokens == engine.forwarded_tokens


def test_end_tokens_stop_a_row_on_the_device() -> None:
    """Every third token of the vocabulary ends an answer, so that rows end within an interval."""
    lm = small_model("qwen3")
    lm.chat.end_ids = frozenset(range(0, 259, 12))
    requests = requests_of(Sampling(40), 16)
    expected = run(lm, requests)
    assert sum(c.stop_reason == "stop" for c in expected.values()) > 8
    for pace in (Pace(8), Pace(5, Recorder)):
        assert_same(run(lm, requests, pace, 6), expected)


def test_steps_are_recorded_once_for_sizes_and_replayed(tiny: LanguageModel) -> None:
    """40 tokens of 8 rows are few recordings, and new weights are read by the next `generate`."""
    recorders: list[Recorder] = []

    def made() -> Recorder:
        recorders.append(Recorder())
        return recorders[-1]

    lm = small_model("qwen3")
    requests = [replace(r, sampling=Sampling(40)) for r in requests_of(Sampling(40), 8)]
    engine = LocalEngine(lm, 8, Pace(8, made))
    first = dict(engine.generate(requests))
    assert recorders[0].recorded == 1 and recorders[0].replayed == 38
    engine.pause()
    with torch.no_grad():
        for parameter in lm.module.parameters():
            parameter.mul_(1.1)
    engine.update(None, version=1)
    second = dict(engine.generate(requests))
    assert_same(second, run(lm, requests))
    assert len(recorders) == 2 and any(a != b for a, b in zip(first.values(), second.values(), strict=True))


def test_cancel_and_deadline_take_effect_at_a_read(tiny: LanguageModel) -> None:
    requests = [Request(i, (5, 6, 7), Sampling(n, temperature=0.0)) for i, n in enumerate((3, 100, 100))]
    engine = LocalEngine(tiny, 8, Pace(8))
    stream = engine.generate(requests)
    assert next(stream)[0] == 0
    engine.cancel(2)
    answers = dict(stream)
    assert answers[2].stop_reason == "cancelled" and len(answers[2].token_ids) == 9
    assert answers[1].stop_reason == "length" and len(answers[1].token_ids) == 100
    late = dict(LocalEngine(tiny, 8, Pace(8)).generate(requests, deadline_seconds=-1.0))
    assert {c.stop_reason for c in late.values()} == {"cancelled"}


def test_a_step_that_cannot_be_recorded_runs_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    """CUDA graphs without a device, whose recording fails: one sentence, and the step's own results."""
    graphs = CudaGraphs.__new__(CudaGraphs)
    graphs.fails, graphs.record = False, failing  # type: ignore[method-assign]
    steps = [graphs(lambda k=k: (torch.tensor([k]),)) for k in range(2)]
    assert [[int(step()[0]) for _ in range(3)] for step in steps] == [[0] * 3, [1] * 3]
    assert [r.message for r in caplog.records] == ["decoding without CUDA graphs, which is slower: no capture"]


def failing(step: Step) -> None:
    raise RuntimeError("no capture\nand much more")


# -- uniform numbers ---------------------------------------------------------------------------------------------------


def test_a_row_draws_the_numbers_of_its_seed_in_any_portions() -> None:
    """Those of numpy's Philox one by one, though they are drawn in blocks: a token has its number whenever it is
    drawn."""
    rng = np.random.Generator(np.random.Philox(11))
    expected = [rng.random() for _ in range(3 * UNIFORMS)]
    row = Row(Request(0, (1,), Sampling(3 * UNIFORMS), seed=11), 0)
    for count, taken in [(8, 8), (8, 3), (1, 1), (UNIFORMS + 5, UNIFORMS), (8, 8), (1, 0), (3, 3)]:
        at = len(row.token_ids)
        assert row.uniforms(count) == expected[at : at + count]
        row.token_ids += [0] * taken


# -- memory ------------------------------------------------------------------------------------------------------------

TOKEN_BYTES = 2 * 2 * 2 * 8 * 4
"""Of small_model("qwen3"): keys and values, 2 layers, 2 key heads of 8 in float32."""


def bytes_for(slots: int, prompt: int, new: int) -> int:
    return slots * ((prompt + new) * TOKEN_BYTES + 24 * 259)


@pytest.mark.parametrize("pace", [Pace(), Pace(8, Recorder)], ids=["plain", "recorded"])
def test_memory_bounds_the_slots(pace: Pace, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for three rows of 40 prompt tokens and 24 new ones: the caches have that size from the start to the end,
    prompts that wait for their second row included, and the completions are those without a limit."""
    lm = small_model("qwen3")
    requests = requests_of(SAMPLINGS["free"])
    requests += [replace(r, id=100 + r.id, seed=r.seed + 9) for r in requests]
    expected = run(lm, requests)
    sizes: set[tuple[int, ...]] = set()
    step = lm.next_logits

    def watched(ids: torch.Tensor, positions: torch.Tensor, plan: object) -> torch.Tensor:
        sizes.update(tuple(cache.keys.shape) for cache in (plan.of_prompts, plan.of_rows))  # type: ignore[attr-defined]
        return step(ids, positions, plan)  # type: ignore[arg-type]

    monkeypatch.setattr(lm, "next_logits", watched)
    with caplog.at_level(logging.INFO, logger="posttrain"):
        answers = run(lm, requests, pace, slots=10, memory=bytes_for(4, 40, 24) - 1)
    assert_same(answers, expected)
    assert sizes == {(2, 3, 2, 8, 40), (2, 3, 2, 8, 24)}
    assert "decodes 3 completions at once and not 10" in caplog.text


def test_a_request_that_does_not_fit_is_refused_by_name() -> None:
    lm = small_model("qwen3")
    requests = [Request(0, (5,), Sampling(8)), Request(7, (5,) * 100, Sampling(60))]
    assert len(run(lm, requests, memory=bytes_for(1, 104, 64))) == 2
    message = (
        r"request 7: keys and values of a prompt of 100 tokens and max_new_tokens=60 need 4.92e-05 GB in qwen3, but "
        r"4.92e-05 GB are free on cpu; shorten the prompt, lower max_new_tokens or use a smaller model"
    )
    with pytest.raises(InputError, match=message):
        run(lm, requests, memory=bytes_for(1, 104, 64) - 1)
    with pytest.raises(InputError, match="but 0 GB are free"):  # a card that is full is not one without a limit
        run(lm, requests, memory=0)


def test_the_longest_prompt_and_the_longest_answer_have_to_fit_together() -> None:
    lm = small_model("qwen3")
    requests = [Request(3, (5,) * 100, Sampling(8)), Request(4, (5,), Sampling(60))]
    assert len(run(lm, requests, memory=bytes_for(1, 104, 64))) == 2
    message = "request 3 with a prompt of 100 tokens and request 4 with max_new_tokens=60 decode in one cache"
    with pytest.raises(InputError, match=message):
        run(lm, requests, memory=bytes_for(1, 104, 64) - 1)
