"""How far two ways to compute the same may differ, by device and by the type of products and attention.

In bfloat16 both ways round the inputs of each product, to 8 significant bits, and a difference in the last bit of one
input may move the next. Bounds there are of the spread over many numbers and not of one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from posttrain.models.compute import Compute


@dataclass(frozen=True)
class Tolerances:
    logprob: float
    """Of one log-probability by two ways, in nats: forest and padded rows, sampler and trainer."""
    loss: float
    """Of a loss, relative."""
    gradient: float
    """Of the gradient of one parameter by two ways, relative to its norm."""
    micro_batches: float
    """Of the gradient of one parameter with other micro-batches, relative to its norm."""
    cosine: float
    """Least cosine of a gradient with that of float32."""


_BY_KIND = {
    ("cpu", torch.float32): Tolerances(1e-5, 1e-5, 1e-4, 1e-4, 1 - 1e-6),
    ("gpu", torch.float32): Tolerances(1e-4, 1e-5, 1e-4, 1e-4, 1 - 1e-6),
    ("cpu", torch.bfloat16): Tolerances(0.1, 3e-3, 5e-2, 3e-2, 0.998),
    ("gpu", torch.bfloat16): Tolerances(0.1, 3e-3, 5e-2, 3e-2, 0.998),
}


def tolerances(compute: Compute) -> Tolerances:
    return _BY_KIND["cpu" if compute.device.type == "cpu" else "gpu", compute.dtype]
