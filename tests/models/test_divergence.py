"""The generalised Jensen-Shannon divergence: by hand, its limits, and the chunked form against the dense one."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from posttrain.batch.packing import pack
from posttrain.batch.types import Batch
from posttrain.models import LanguageModel, token_logprobs
from posttrain.models.divergence import (
    Head,
    batch_divergence,
    divergence_from_logits,
    generalised_jsd,
    token_divergence,
)
from tests.model_helpers import random_trees, small_model

BETAS = [0.0, 0.1, 0.5, 0.9, 1.0]


def logs(*p: float) -> torch.Tensor:
    return torch.tensor([p], dtype=torch.float64).log()


@pytest.mark.parametrize(
    ("beta", "expected"),
    [
        # teacher P = (3/4, 1/4), student Q = (1/2, 1/2)
        (0.0, 0.75 * math.log(1.5) + 0.25 * math.log(0.5)),
        (1.0, 0.5 * math.log(2 / 3) + 0.5 * math.log(2)),
        # m = P/4 + 3Q/4 = (9/16, 7/16)
        (
            0.25,
            0.25 * (0.75 * math.log(12 / 9) + 0.25 * math.log(4 / 7))
            + 0.75 * (0.5 * math.log(8 / 9) + 0.5 * math.log(8 / 7)),
        ),
    ],
)
def test_by_hand(beta: float, expected: float) -> None:
    value = generalised_jsd(logs(0.5, 0.5), logs(0.75, 0.25), beta)
    assert value.tolist() == pytest.approx([expected], abs=1e-12)


def test_known_values() -> None:
    """0.1308 and 0.1438 nats are the two KLs of these distributions, 0.0249 the mixture's at β = 1/4."""
    student, teacher = logs(0.5, 0.5), logs(0.75, 0.25)
    values = [float(generalised_jsd(student, teacher, beta)) for beta in (0.0, 1.0, 0.25)]
    assert values == pytest.approx([0.130812, 0.143841, 0.024870], abs=1e-6)


def test_the_ends_are_what_the_middle_tends_to() -> None:
    student, teacher = logs(0.2, 0.5, 0.3), logs(0.6, 0.1, 0.3)
    tiny = 1e-6
    forward, reverse = (generalised_jsd(student, teacher, beta) for beta in (0.0, 1.0))
    assert float(generalised_jsd(student, teacher, tiny) / tiny) == pytest.approx(float(forward), rel=1e-4)
    assert float(generalised_jsd(student, teacher, 1 - tiny) / tiny) == pytest.approx(float(reverse), rel=1e-4)


def test_the_middle_is_symmetric_and_bounded() -> None:
    one, other = logs(0.2, 0.5, 0.3), logs(0.6, 0.1, 0.3)
    assert torch.allclose(generalised_jsd(one, other, 0.5), generalised_jsd(other, one, 0.5))
    apart = [torch.tensor([[a, -a]], dtype=torch.float64).log_softmax(-1) for a in (40.0, -40.0)]
    assert float(generalised_jsd(*apart, 0.5)) == pytest.approx(math.log(2), abs=1e-9)
    assert [float(generalised_jsd(one, one, beta)) for beta in BETAS] == pytest.approx([0.0] * 5, abs=1e-12)


# -- the chunked form -------------------------------------------------------------------------------------------------


def heads(rows: int = 11, seed: int = 0, biased: bool = True) -> tuple[Head, Head]:
    """A student and a wider teacher over 7 tokens, float64."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    student = Head(random(rows, 3), random(7, 3), random(7) if biased else None)
    teacher = Head(random(rows, 5), random(7, 5), random(7) if biased else None)
    for tensor in (*student, *teacher):
        if tensor is not None:
            tensor.requires_grad_()
    return student, teacher


def dense(student: Head, teacher: Head, **options: Any) -> torch.Tensor:
    """The plain form in float64."""
    logits = [h.hidden @ h.weight.T + (0 if h.bias is None else h.bias) for h in (student, teacher)]
    q, p = ((x / options["temperature"]).log_softmax(-1) for x in logits)
    return generalised_jsd(q, p.detach(), options["beta"])


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize(("chunk_rows", "biased"), [(4, True), (100, False)])
def test_chunked_equals_dense(
    beta: float, temperature: float, chunk_rows: int, biased: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_logprobs, "CHUNK_ELEMENTS", 2 * 7 * chunk_rows)
    monkeypatch.setattr("posttrain.models.cpu.linear.BLOCK_ROWS", 3)
    student, teacher = heads(biased=biased)
    weights = torch.linspace(0.1, 1.0, 11, dtype=torch.float64)
    options = {"beta": beta, "temperature": temperature}
    given = [tensor for tensor in student if tensor is not None]
    plain = dense(student, teacher, **options)
    expected = torch.autograd.grad((weights * plain).sum(), given)
    found = token_divergence(student, teacher, **options)
    assert torch.allclose(found.values, plain, atol=1e-12)
    for one, other in zip(torch.autograd.grad((weights * found.values).sum(), given), expected, strict=True):
        assert torch.allclose(one, other, atol=1e-12)
    q = ((student.hidden @ student.weight.T + (student.bias if biased else 0)) / temperature).softmax(-1)  # type: ignore[operator]
    assert torch.allclose(found.entropy, torch.distributions.Categorical(q).entropy(), atol=1e-12)
    assert not found.entropy.requires_grad


@pytest.mark.parametrize("beta", BETAS)
def test_the_gradient_is_that_of_finite_differences(beta: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_logprobs, "CHUNK_ELEMENTS", 2 * 7 * 2)
    student, teacher = heads(rows=5)
    frozen = Head(*(None if t is None else t.detach() for t in teacher))  # type: ignore[arg-type]

    def values(*given: torch.Tensor) -> torch.Tensor:
        return token_divergence(Head(*given), frozen, beta=beta, temperature=0.7).values

    assert torch.autograd.gradcheck(values, tuple(t for t in student if t is not None))


def test_a_frozen_head_and_no_rows() -> None:
    student, teacher = heads(rows=0)
    found = token_divergence(student, teacher, beta=0.5)
    assert found.values.shape == found.entropy.shape == (0,)
    found.values.sum().backward()
    assert student.weight.grad is not None and not student.weight.grad.any()
    student, teacher = heads()
    frozen = Head(student.hidden, student.weight.detach(), student.bias.detach() if student.bias is not None else None)
    token_divergence(frozen, teacher, beta=0.5).values.sum().backward()
    assert student.hidden.grad is not None and student.weight.grad is None and teacher.weight.grad is None


def test_extreme_logits_stay_finite() -> None:
    hidden = torch.eye(3) * 1e4
    student = Head(hidden.requires_grad_(), torch.eye(3))
    teacher = Head(torch.eye(3).flip(0) * 1e4, torch.eye(3))
    for beta in BETAS:
        found = token_divergence(student, teacher, beta=beta)
        (gradient,) = torch.autograd.grad(found.values.sum(), student.hidden)
        assert found.values.isfinite().all() and gradient.isfinite().all()


# -- models -----------------------------------------------------------------------------------------------------------


def padded_reference(student: LanguageModel, teacher: LanguageModel, batch: Batch, beta: float) -> torch.Tensor:
    logits = student.padded_logits(batch), teacher.padded_logits(batch).detach()
    return divergence_from_logits(*logits, beta=beta, temperature=0.8).values


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("own", "other"), [("llama-bias", "qwen3"), ("gemma-3", "qwen3"), ("gpt-2", "gemma-3")])
def test_packed_models_equal_padded_rows(own: str, other: str, beta: float) -> None:
    """Two packed models, and those of which only one is."""
    student, teacher = small_model(own), small_model(other, seed=1)
    batch = pack(random_trees(3))
    expected = padded_reference(student, teacher, batch, beta)
    weights = batch.weights
    (weights * expected).sum().backward()
    gradients = {n: p.grad for n, p in student.trained_parameters().items() if p.grad is not None}
    student.module.zero_grad(set_to_none=True)
    found = batch_divergence(student, teacher, batch, beta=beta, temperature=0.8).values
    assert torch.allclose(found, expected, atol=2e-4)
    (weights * found).sum().backward()
    assert all(p.grad is None for p in teacher.module.parameters())
    for name, parameter in student.trained_parameters().items():
        if name in gradients:
            assert parameter.grad is not None
            assert torch.allclose(parameter.grad, gradients[name], atol=1e-3, rtol=1e-3), name
