"""Where models run and in which type: the device, and what matrix products and attention see.

What is trained is float32 on every device: parameters, AdamW's moments, gradients summed over micro-batches. A
`Compute` of bfloat16 rounds the inputs of products and attention; a model that is only read is held in it too.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from posttrain.config.base import ComputeOptions
from posttrain.types import InputError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
HAS_BFLOAT16 = (8, 0)
"""CUDA compute capability from which a card multiplies bfloat16 by itself (Ampere); older ones emulate it."""

log = logging.getLogger("posttrain")


@dataclass(frozen=True)
class Compute:
    """A device, and the type in which matrix products and attention take their inputs there."""

    device: torch.device
    dtype: torch.dtype

    @classmethod
    def of(cls, tensor: torch.Tensor) -> Compute:
        return cls(tensor.device, tensor.dtype)

    @property
    def dtype_name(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    @property
    def device_name(self) -> str:
        """The card's own name where there is one: `NVIDIA H100 80GB HBM3`; else `cpu` or `mps`."""
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type


FLOAT32_CPU = Compute(torch.device("cpu"), torch.float32)

_current: Compute | None = None


def compute_for(options: ComputeOptions) -> Compute:
    """The device and type that options name, `auto` resolved: CUDA if there, then mps, else the CPU; bfloat16 on CUDA
    from compute capability 8.0, else float32. Says what was chosen where it is not float32 on a CPU. Raises InputError
    for a device that is not there, or a type it has not."""
    device = _device(options.device)
    compute = Compute(device, _dtype(options.dtype, device))
    if compute != FLOAT32_CPU:
        log.info(f"computes on {compute.device_name} in {compute.dtype_name}")
    return compute


def current() -> Compute:
    """What models are loaded for where nothing else is said: that of `use`, else `auto`."""
    global _current
    if _current is None:
        _current = compute_for(ComputeOptions())
    return _current


@contextmanager
def use(compute: Compute) -> Iterator[Compute]:
    """Load models for `compute` within, in every thread of this process."""
    global _current
    before, _current = _current, compute
    try:
        yield compute
    finally:
        _current = before


def _device(name: str) -> torch.device:
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind, found in there.items() if found)
    if not there[name]:
        found = ", ".join(kind for kind, is_there in there.items() if is_there)
        raise InputError(f"--device {name}: torch {torch.__version__} finds no such device here; it finds {found}")
    return torch.device(name)


def _dtype(name: str, device: torch.device) -> torch.dtype:
    capable = device.type == "cpu" or (
        device.type == "cuda" and torch.cuda.get_device_capability(device) >= HAS_BFLOAT16
    )
    if name == "auto":
        return torch.bfloat16 if capable and device.type == "cuda" else torch.float32
    if name == "bfloat16" and not capable:
        raise InputError(f"--dtype bfloat16: {device.type} devices like this one compute in float32 here; leave it out")
    return DTYPES[name]
