"""Activation checkpointing (Chen et al. 2016, arXiv:1604.06174): layers are computed again in the backward pass."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import MethodType
from typing import Any, TypeVar

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

R = TypeVar("R")


def recomputed(function: Callable[..., R]) -> Callable[..., R]:
    """`function`, which keeps its inputs alone for the backward pass and is run again there. It draws no random
    numbers."""
    return partial(checkpoint, function, use_reentrant=False, preserve_rng_state=False)


def recompute_layers(module: nn.Module) -> bool:
    """`recomputed` for the decoder layers of a transformers model, which does it by itself only while its dropout is
    on. Whether it has such layers."""
    layers = [layer for layer in module.modules() if isinstance(layer, GradientCheckpointingLayer)]
    for layer in layers:
        layer.forward = MethodType(_forward, layer)
    return bool(layers)


def _forward(layer: nn.Module, *args: Any, **kwargs: Any) -> Any:
    forward = partial(type(layer).forward, layer)
    return (recomputed(forward) if torch.is_grad_enabled() else forward)(*args, **kwargs)
