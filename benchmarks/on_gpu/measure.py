"""Clocks, memory and rates on any device."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

PEAK_FLOPS = 989e12
"""bfloat16 operations a second of an H100 or H200 (SXM) in its data sheet, without sparsity: what MFU divides by."""


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak_gb(device: torch.device) -> float:
    """The largest memory that tensors took since `reset_peak`; on a CPU the process's largest resident size."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def fragmented_gb(device: torch.device) -> float:
    """Memory that the allocator keeps beyond what tensors take now."""
    if device.type != "cuda":
        return 0.0
    return (torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)) / 1e9


@dataclass
class Steps:
    """Timed steps: seconds and tokens (or pairs) of each."""

    seconds: list[float] = field(default_factory=list)
    amounts: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return statistics.median(a / s for a, s in zip(self.amounts, self.seconds, strict=True))

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def timed(
    device: torch.device,
    step: Callable[[int], float],
    warm: int,
    count: int,
    note: Callable[[Steps], None] | None = None,
) -> Steps:
    """`warm` steps and then `count` timed ones, each between two synchronisations. `step` takes the number of the step
    and returns what it did: tokens or pairs. `note` sees the timed steps after each of them."""
    steps = Steps()
    for n in range(warm + count):
        synchronize(device)
        start = time.perf_counter()
        amount = step(n)
        synchronize(device)
        if n >= warm:
            steps.seconds.append(time.perf_counter() - start)
            steps.amounts.append(amount)
            if note is not None:
                note(steps)
    return steps


def seconds_of(device: torch.device, function: Callable[[], object], repeats: int = 10) -> float:
    """Median seconds of a short function: of 5 runs of `repeats` calls each, after one that is not counted."""
    runs = timed(device, lambda n: [function() for _ in range(repeats)] and 1.0, 1, 5)
    return runs.median / repeats


def difference(values: torch.Tensor, reference: torch.Tensor) -> float:
    """‖values − reference‖ / ‖reference‖ in float64; infinite where a value is not finite."""
    values, reference = values.detach().double().cpu(), reference.detach().double().cpu()
    if not bool(values.isfinite().all()):
        return float("inf")
    return float((values - reference).norm() / reference.norm().clamp_min(1e-300))


def round_figures(figures: dict[str, float]) -> dict[str, float]:
    """Four significant digits."""
    return {name: float(f"{value:.4g}") for name, value in figures.items()}
