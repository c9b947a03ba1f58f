"""The one place that decides by which code a model is computed on a device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from posttrain.models import layers
from posttrain.models.attention import AttentionPlan
from posttrain.models.compute import Compute
from posttrain.models.cpu.linear import PRODUCTS as CPU_PRODUCTS
from posttrain.models.layers import Products

TORCH_PRODUCTS = Products()


@dataclass(frozen=True)
class Kernels:
    """What computes a model: the products with its weights, and if `fused` this package's layers and decoding."""

    products: Products
    fused: bool

    def hidden_states(
        self,
        module: Any,
        token_ids: torch.Tensor,
        position_ids: torch.Tensor,
        plan: AttentionPlan,
        sparse: bool = False,
    ) -> torch.Tensor:
        """Last hidden states [N, H]; `sparse`, for `fused` models: see `layers.hidden_states`."""
        if self.fused:
            return layers.hidden_states(module.model, token_ids, position_ids, plan, self.products, sparse)
        outputs = module.base_model(
            input_ids=token_ids[None],
            position_ids=position_ids[None],
            attention_mask=torch.empty(1, 1, 1, 1, device=token_ids.device),  # 4-D: transformers builds no mask
            use_cache=False,
            plan=plan,
        )
        return outputs.last_hidden_state[0]


def products_for(compute: Compute) -> Products:
    """What is tuned for one kind of device runs on no other."""
    return CPU_PRODUCTS if compute.device.type == "cpu" else TORCH_PRODUCTS


def kernels_for(module: PreTrainedModel, compute: Compute) -> Kernels:
    return Kernels(products_for(compute), layers.is_supported(module))
