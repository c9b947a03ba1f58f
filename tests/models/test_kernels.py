"""Which code computes a model on which device. The device `meta` stands for any that is no CPU."""

from __future__ import annotations

import copy

import pytest
import torch

from posttrain.batch.types import Node
from posttrain.models.attention import ForestPlan
from posttrain.models.compute import FLOAT32_CPU, Compute
from posttrain.models.cpu import linear as cpu
from posttrain.models.decoding import Decoder
from posttrain.models.kernels import kernels_for, products_for
from posttrain.models.token_logprobs import token_logprobs
from tests.model_helpers import small_model

META = Compute(torch.device("meta"), torch.float32)


@pytest.mark.parametrize(("architecture", "fused"), [("llama-bias", True), ("gpt-2", False)])
def test_a_family_has_our_layers_on_any_device(architecture: str, fused: bool) -> None:
    module = small_model(architecture).module
    assert [kernels_for(module, compute).fused for compute in (FLOAT32_CPU, META)] == [fused, fused]


def test_what_is_tuned_for_a_cpu_runs_on_no_other_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers, adapters, the head, the decoding step and their gradients, with the CPU's functions taken away."""
    lm = small_model("llama-bias")
    lm.add_adapter(2, 4, seed=0)
    module = copy.deepcopy(lm.module).to("meta")

    def refuse(*given: object) -> None:
        raise AssertionError("this is for a CPU")

    for name in ("linear", "input_gradient", "prepack_linear", "blocks", "use_in"):
        monkeypatch.setattr(cpu.CpuProducts, name, refuse)
    kernels = kernels_for(module, META)
    ids, positions = torch.arange(7, device="meta"), torch.arange(7, device="meta")
    plan = ForestPlan([Node(-1, 7)], META.device)
    for layer in module.modules():  # plain layers, as a model has that was loaded onto that device
        if type(layer) is cpu.OneDnnLinear:
            layer.__class__ = torch.nn.Linear
    hidden = kernels.hidden_states(module, ids, positions, plan)
    weight = module.lm_head.weight
    token_logprobs(hidden, weight, ids).logprobs.sum().backward()
    assert Decoder(module, kernels.products).logits(ids, positions, plan).shape == (7, len(weight))
    with pytest.raises(AssertionError, match="for a CPU"):
        products_for(FLOAT32_CPU).blocks(hidden)
