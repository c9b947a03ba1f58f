"""What the weights of a run take in memory, and whether a card has it. Imports no torch: plans count by it too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from posttrain.config import TrainConfig
from posttrain.types import InputError, RunFailed
from posttrain.wording import format_bytes

if TYPE_CHECKING:
    from posttrain.models.compute import Compute

FLOAT32 = 4
"""Bytes of a number that is trained, of its gradient, and of each of AdamW's two moments."""
BYTES = {"float32": FLOAT32, "bfloat16": 2}


@dataclass(frozen=True)
class WeightMemory:
    """Bytes, by what for; see `weight_memory`."""

    weights: float
    gradients: float = 0.0
    optimizer: float = 0.0
    reference: float = 0.0
    critic: float = 0.0

    @property
    def total(self) -> float:
        return self.weights + self.gradients + self.optimizer + self.reference + self.critic


def weight_memory(config: TrainConfig, parameters: float, adapters: float, dtype: str) -> WeightMemory:
    """What a run of `config` holds of a model of so many `parameters`, P, with T that are trained: all of them, or
    those of the `adapters`, which then come on top. With d bytes a number of the type that products see:

    - weights 4 T, or with adapters d P + 4 T; in bfloat16 another 2 T, the copies that products see;
    - gradients 4 T, AdamW's two moments 8 T: 16 bytes a trained parameter in float32, 18 in bfloat16;
    - reference, where a copy is kept, d T, or 4 T if it moves (adapters: only if it moves); a teacher d P;
    - critic: as much as the policy where it is a model of its own."""
    size = BYTES[dtype]
    trained = adapters if config.lora_rank else parameters
    copies = size * trained if size < FLOAT32 else 0
    weights = FLOAT32 * trained + copies + (size * parameters if config.lora_rank else 0)
    reference = 0.0
    if getattr(config, "reference_every", None):
        reference = FLOAT32 * trained
    elif config.keeps_reference and not config.lora_rank:
        reference = size * trained
    if hasattr(config, "teacher"):
        reference = size * parameters
    gradients, moments = FLOAT32 * trained, 2 * FLOAT32 * trained
    critic = weights + gradients + moments if config.trains_critic else 0.0
    return WeightMemory(weights, gradients, moments, reference, critic)


def check_fits(config: TrainConfig, parameters: int, dtype: str, available: float) -> None:
    """Raise InputError for a model whose weights, with all that training keeps beside them, are more than the
    `available` bytes of a card; activations and what is sampled come on top. Adapters count as nothing here."""
    need = weight_memory(config, parameters, 0.0, dtype).total
    if need <= available:
        return
    what = "adapters" if config.lora_rank else "the full weights"
    lora = weight_memory(config.model_copy(update={"lora_rank": 16}), parameters, 0.0, dtype).total
    ways = [f"--lora-rank 16 ({format_bytes(lora)})"] if not config.lora_rank and lora < available else []
    ways += ["--critic head"] if config.trains_critic else []
    ways += ["a smaller model", "a larger card"]
    raise InputError(
        f"--model {config.model}: to train {what} of {_count(parameters)} parameters takes {format_bytes(need)} before "
        f"the first token, and this card has {format_bytes(available)}: use {', '.join(ways[:-1])} or {ways[-1]} "
        "(docs/gpu.md has the table)"
    )


def check_card(config: TrainConfig, compute: Compute) -> None:
    """`check_fits` of the model of `config` and the card it is to be trained on; elsewhere nothing is checked."""
    if compute.device.type != "cuda":
        return
    import torch

    from posttrain.models.load import model_folder
    from posttrain.models.weights import stored_parameters

    parameters = stored_parameters(Path(model_folder(config.model, config.trust_remote_code)))
    check_fits(config, parameters, compute.dtype_name, torch.cuda.mem_get_info(compute.device)[1])


@contextmanager
def memory_told(config: TrainConfig, compute: Compute) -> Iterator[None]:
    """Raise RunFailed, saying how to go on, where a run finds no memory on its card."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        raise RunFailed(
            f"--out {config.out}: {compute.device_name} has no memory left; continue with --resume and a smaller "
            f"--micro-batch-tokens (it is {config.tokens_at_once(compute.device.type)}) or --checkpoint-activations, "
            "or see docs/gpu.md for what weights take"
        ) from error


def _count(parameters: int) -> str:
    for word, unit in (("billion", 1e9), ("million", 1e6)):
        if parameters >= unit:
            return f"{parameters / unit:.3g} {word}"
    return f"{parameters:,}"
