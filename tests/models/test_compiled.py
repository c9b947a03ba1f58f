"""Functions that are compiled on CUDA, compiled here: their numbers are those of the plain forms, and ragged batches
compile them no more than twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from posttrain.batch.packing import pack
from posttrain.models.compute import Compute
from posttrain.models.kernels import kernels_for
from posttrain.models.language_model import LanguageModel
from posttrain.models.layers import compiled
from posttrain.models.token_logprobs import TokenOutputs
from tests.model_helpers import random_trees, small_model, worst_relative

compile_afresh = compiled.compiled_form.__wrapped__  # without its cache
CPU = torch.device("cpu")
Outputs = tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]


class Compiling:
    """Compiles on a CPU while `on`; `count` is by function."""

    def __init__(self, backend: str) -> None:
        self.on = False
        self.count: Counter[str] = Counter()
        self._backend = backend
        self._forms: dict[Any, Any] = {}

    def form(self, function: Any) -> Any:
        from torch._dynamo.backends.registry import lookup_backend

        inner = lookup_backend(self._backend)

        def counted(graph: Any, inputs: Any) -> Any:
            self.count[function.__name__] += 1
            return inner(graph, inputs)

        if function not in self._forms:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(compiled, "BACKEND", counted)
                self._forms[function] = compile_afresh(function)
        return self._forms[function]


@pytest.fixture
def compiling(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Compiling]:
    found = Compiling(request.param)
    monkeypatch.setattr(compiled, "compiled_form", found.form)
    monkeypatch.setattr(compiled, "compiles", lambda rows: found.on)
    config: Any = torch.fx.experimental._config
    with config.patch(use_duck_shape=config.use_duck_shape):
        yield found
    torch._dynamo.reset()


def outputs(lm: LanguageModel, seed: int) -> Outputs:
    lm.module.zero_grad()
    found: TokenOutputs = lm.logprobs(pack(random_trees(seed)), entropy=True)
    assert found.entropy is not None
    (found.logprobs.mean() + 0.1 * found.entropy.mean()).backward()
    gradients = {n: p.grad.to_dense() for n, p in lm.module.named_parameters() if p.grad is not None}
    return found.logprobs.detach(), found.entropy.detach(), gradients


def check(compiling: Compiling, dtype: torch.dtype, batches: int) -> None:
    lm = small_model("qwen3")
    lm.kernels = kernels_for(lm.module, Compute(CPU, dtype))
    for seed in range(batches):
        plain = outputs(lm, seed)
        compiling.on = True
        found = outputs(lm, seed)
        compiling.on = False
        near = 2e-5 if dtype == torch.float32 else 5e-2
        torch.testing.assert_close(found[:2], plain[:2], rtol=0, atol=near)
        assert worst_relative(found[2], plain[2]) < 10 * near
    assert len(compiling.count) == 9, compiling.count
    assert max(compiling.count.values()) <= 2, compiling.count


@pytest.mark.parametrize("compiling", ["eager"], indirect=True)
def test_ragged_batches_compile_a_function_twice_at_most(compiling: Compiling) -> None:
    """20 batches of a model with all of the functions, traced and guarded as on CUDA; what is traced runs as it is."""
    check(compiling, torch.bfloat16, batches=20)


@pytest.mark.stress
@pytest.mark.parametrize("compiling", ["inductor"], indirect=True)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiled_functions_are_the_plain_ones(compiling: Compiling, dtype: torch.dtype) -> None:
    check(compiling, dtype, batches=3)
