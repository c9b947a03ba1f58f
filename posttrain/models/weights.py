"""Weights on disk: the types they are written in, and their hash."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from functools import reduce
from pathlib import Path

import torch
from safetensors import safe_open

from posttrain.config.base import SaveDtype
from posttrain.types import InputError, RunFailed

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
HEADERS = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
"""By what a safetensors file calls them. Whatever else there is, as float64 or eight bits, is trained in float32."""


def save_dtype(name: SaveDtype, source: Path) -> torch.dtype:
    """The type of that name; `auto` is the finest that the floating-point weights in the folder `source` have."""
    return finest(_dtypes(source)) if name == "auto" else DTYPES[name]


def finest(dtypes: Iterable[torch.dtype]) -> torch.dtype:
    """The smallest type that holds all of these; float32 where there is none."""
    found = set(dtypes)
    return reduce(torch.promote_types, found) if found else torch.float32


def rounded(weight: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The weight in another type. Raises RunFailed where that cannot hold it."""
    largest = weight.abs().max() if weight.numel() else torch.zeros(())
    if largest > torch.finfo(dtype).max:
        raise RunFailed(
            f"a weight of {float(largest):.3g} is beyond the range of {dtype}; continue with --resume and --save-dtype "
            "bfloat16 or float32"
        )
    return weight.to(dtype)


def _dtypes(folder: Path) -> set[torch.dtype]:
    found = set()
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as weights:
            kinds = {weights.get_slice(name).get_dtype() for name in weights.keys()}  # noqa: SIM118, no mapping
        found |= {HEADERS.get(kind, torch.float32) for kind in kinds if kind.startswith(("F", "BF"))}
    return found


def stored_weight(folder: Path, name: str) -> torch.Tensor | None:
    """The weight of that name as it is in the safetensors files of a model folder; None where there is none."""
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as weights:
            if name in weights.keys():  # noqa: SIM118, no mapping
                found: torch.Tensor = weights.get_tensor(name)
                return found
    return None


def stored_parameters(folder: Path) -> int:
    """How many numbers the safetensors files of a model folder hold; tied weights are there once."""
    total = 0
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as weights:
            total += sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118
    return total


def weights_hash(folder: Path) -> str:
    """SHA-256 over the safetensors files of a model folder, in name order."""
    digest = hashlib.sha256()
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise InputError(f"{folder} holds no .safetensors file")
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()
