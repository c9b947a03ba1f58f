"""New weights for a module that is already in memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file

from posttrain.types import InputError


def copy_weights(module: torch.nn.Module, weights: Mapping[str, torch.Tensor] | Path) -> None:
    """Copy `weights` into the parameters of `module`: tensors by name, or a folder of safetensors files, which has to
    hold all of them (tied ones once).

    Raises InputError, before anything is changed, for names that the module does not have, for other shapes and for a
    folder that lacks some."""
    own = dict(module.named_parameters(remove_duplicate=False))
    if isinstance(weights, Path):
        folder = weights
        weights = {k: v for file in sorted(folder.glob("*.safetensors")) for k, v in load_file(file).items()}
        filled = {id(own[name]) for name in weights if name in own}
        if missing := sorted(name for name, parameter in own.items() if id(parameter) not in filled):
            raise InputError(f"the weights in {folder} lack {missing[0]!r}; give a whole checkpoint of this model")
    if unknown := sorted(set(weights) - set(own)):
        raise InputError(f"the new weights hold {unknown[0]!r}, which this model does not have")
    for name, value in weights.items():
        if value.shape != own[name].shape:
            raise InputError(
                f"the new weight {name!r} has the shape {tuple(value.shape)}, but this model needs "
                f"{tuple(own[name].shape)}"
            )
    with torch.no_grad():
        for name, value in weights.items():
            own[name].copy_(value)
