"""The one place that decides by which code a model is computed on a device."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from posttrain.models import layers
from posttrain.models.attention import AttentionPlan
from posttrain.models.compute import Compute
from posttrain.models.cpu.linear import CpuProducts
from posttrain.models.layers.elementwise import wide
from posttrain.models.layers.products import Products, WideProducts


@dataclass(frozen=True)
class Kernels:
    """What computes a model: the products with its weights, and if `fused` this package's layers and decoding."""

    products: Products
    fused: bool
    recompute: bool = False
    """Whether the backward pass of `fused` layers makes their intermediate results again."""

    def hidden_states(
        self,
        module: Any,
        token_ids: torch.Tensor,
        position_ids: torch.Tensor,
        plan: AttentionPlan,
        sparse: bool = False,
    ) -> torch.Tensor:
        """Last hidden states [N, H] in float32; `sparse`, for `fused` models: see `layers.hidden_states`."""
        if self.fused:
            return layers.hidden_states(
                module.model, token_ids, position_ids, plan, self.products, sparse, self.recompute
            )
        with self.products.autocast(token_ids.device):
            outputs = module.base_model(
                input_ids=token_ids[None],
                position_ids=position_ids[None],
                attention_mask=torch.empty(1, 1, 1, 1, device=token_ids.device),  # 4-D: transformers builds no mask
                use_cache=False,
                plan=plan,
            )
        return wide(outputs.last_hidden_state[0])


@functools.cache
def products_for(compute: Compute) -> Products:
    """What is tuned for one kind of device runs on no other."""
    dtype = compute.dtype if compute.dtype.itemsize < 4 else torch.float32  # a model in double precision keeps it
    return (CpuProducts if compute.device.type == "cpu" else Products)(dtype)


def exact_kernels(module: PreTrainedModel) -> Kernels:
    """The model in float32 whatever its weights are held in: slow, to check others by."""
    return Kernels(WideProducts(), layers.is_supported(module))


def kernels_for(module: PreTrainedModel, compute: Compute) -> Kernels:
    return Kernels(products_for(compute), layers.is_supported(module))
