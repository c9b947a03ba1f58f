"""Attention over a packed forest: transformers' attention function `posttrain`, which reads the argument `plan`, and
without a plan is transformers' own SDPA. All else runs on the packed tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from posttrain.batch.types import Node
from posttrain.models.attention.forest import ForestPlan
from posttrain.models.attention.varlen import VarlenPlan
from posttrain.models.compute import Compute

__all__ = ["IMPLEMENTATION", "AttentionPlan", "ForestPlan", "VarlenPlan", "plan_for", "register"]

IMPLEMENTATION = "posttrain"


class AttentionPlan(Protocol):
    """One pass: `query` [1, heads, N, D], `key` and `value` [1, key heads, N, D]; the result is [N, heads, D]."""

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float
    ) -> torch.Tensor: ...


def plan_for(nodes: Sequence[Node], compute: Compute) -> AttentionPlan:
    """The plan of a forest: `VarlenPlan` on CUDA in bfloat16, for which torch has the kernel, else `ForestPlan`."""
    if compute.device.type == "cuda" and compute.dtype == torch.bfloat16:
        return VarlenPlan(nodes, compute)
    return ForestPlan(nodes, compute.device)


def register() -> None:
    """Make `posttrain` known to transformers; calling it twice does no harm."""
    AttentionInterface.register(IMPLEMENTATION, _attention)
    AttentionMaskInterface.register(IMPLEMENTATION, sdpa_mask)


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    plan: AttentionPlan | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    if plan is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    if scaling is None:
        scaling = query.shape[-1] ** -0.5
    for unknown in ("s_aux", "softcap"):
        if kwargs.get(unknown) is not None:
            raise TypeError(f"its attention has {unknown}, which is not known here")
    if value.shape[-1] != key.shape[-1]:
        raise TypeError("its values have another size than its keys")
    layer = module.layer_idx
    assert isinstance(layer, int)
    return plan.attend(layer, query, key, value, scaling)[None], None
