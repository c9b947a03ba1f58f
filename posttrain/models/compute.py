"""Where models run and in which type: the device, and what matrix products and attention see.

What is trained is float32 on every device: parameters, AdamW's moments, gradients summed over micro-batches. A
`Compute` of bfloat16 rounds the inputs of products and attention; a model that is only read keeps its weights
in it too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from posttrain.config.compute import ComputeOptions, asked_for, in_force
from posttrain.console import info_once
from posttrain.types import InputError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
GPUS = ("cuda", "mps")
HAS_BFLOAT16 = (8, 0)
"""CUDA compute capability from which a card multiplies bfloat16 by itself (Ampere); older ones emulate it."""


@dataclass(frozen=True)
class Compute:
    """A device, and the type in which matrix products and attention take their inputs there. A GPU has a number, 0
    where none is given, so that it equals the device of its tensors."""

    device: torch.device
    dtype: torch.dtype

    def __post_init__(self) -> None:
        if self.device.type in GPUS and self.device.index is None:
            object.__setattr__(self, "device", torch.device(self.device.type, 0))

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

_enclosing: Compute | None = None


def compute_for(options: ComputeOptions) -> Compute:
    """The device and type that options name; what is `auto` is as in the `use` around it. Else `auto` is CUDA if there,
    then mps, then the CPU, and bfloat16 on CUDA from compute capability 8.0, float32 elsewhere. Says what was chosen
    where it is not float32 on a CPU. Raises InputError for a device that is not there, or a type it has not."""
    return _resolved(options.device, options.dtype, _enclosing)


def current() -> Compute:
    """What models are loaded for where nothing else is said: what the command that runs was asked for, else `auto`."""
    return compute_for(in_force())


@contextmanager
def use(compute: Compute) -> Iterator[Compute]:
    """Load models for `compute` within, in every thread of this process, but where a command names another."""
    global _enclosing
    before, _enclosing = _enclosing, compute
    try:
        with asked_for(None):
            yield compute
    finally:
        _enclosing = before


@contextmanager
def repeatable(wanted: bool, compute: Compute) -> Iterator[None]:
    """If `wanted`, let what runs on a GPU within give the same bits every time, slower: torch takes algorithms that add
    up in a fixed order, and raises for those that have none. On a CPU that is so anyway."""
    if not wanted or compute.device.type == "cpu":
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it at its first product
    fill: Any = torch.utils.deterministic
    before = torch.are_deterministic_algorithms_enabled(), fill.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    fill.fill_uninitialized_memory = False  # nothing here reads memory before it writes it
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        fill.fill_uninitialized_memory = before[1]


def reset_peak_memory(compute: Compute) -> None:
    """Begin to measure for `peak_memory`."""
    if compute.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(compute.device)


def peak_memory(compute: Compute) -> dict[str, int]:
    """The most bytes that tensors have taken on a card since `reset_peak_memory`, as a metric; elsewhere nothing."""
    if compute.device.type != "cuda":
        return {}
    return {"peak_memory_bytes": torch.cuda.max_memory_allocated(compute.device)}


@cache
def _resolved(device_name: str, dtype_name: str, enclosing: Compute | None) -> Compute:
    device = enclosing.device if enclosing is not None and device_name == "auto" else _device(device_name)
    if dtype_name == "auto" and enclosing is not None and enclosing.device.type == device.type:
        compute = Compute(device, enclosing.dtype)
    else:
        compute = Compute(device, _dtype(dtype_name, device))
    if device.type == "cuda":
        _set_cuda_flags()
    if compute != FLOAT32_CPU:
        info_once(f"computes on {compute.device_name} in {compute.dtype_name}")
    return compute


def _set_cuda_flags() -> None:
    """Float32 is float32, and sums of bfloat16 products are kept in it."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False


def _device(name: str) -> torch.device:
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind, found in there.items() if found)
    if not there[name]:
        found = ", ".join(kind for kind, is_there in there.items() if is_there)
        raise InputError(f"--device {name}: torch {torch.__version__} finds no such device here; it finds {found}")
    return torch.device(name)


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if device.type == "cuda":
        has_bfloat16 = torch.cuda.get_device_capability(device) >= HAS_BFLOAT16
    else:
        has_bfloat16 = device.type == "cpu"
    if name == "auto":
        return torch.bfloat16 if has_bfloat16 and device.type == "cuda" else torch.float32
    if name == "bfloat16" and not has_bfloat16:
        what = "cards before compute capability 8.0 compute" if device.type == "cuda" else "mps computes"
        raise InputError(f"--dtype bfloat16: {what} in float32 here; leave it out, or give --dtype float32")
    return DTYPES[name]
