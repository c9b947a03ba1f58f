"""Where models run and in which type: the options of every command that loads one, and those in force."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, ClassVar, Literal, TypeVar, cast

from posttrain.config.base import Config, Group

Function = TypeVar("Function", bound=Callable[..., Any])


class ComputeOptions(Config):
    """Where models run and in which type."""

    DEVICE: ClassVar[Group] = Group("Device", last=True)
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where models run. `auto`: an NVIDIA GPU (`cuda`) if there is one, else Apple's (`mps`), else the CPU."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Type of the inputs of matrix products and attention. What is trained, its gradients, norms, logits and losses are
    float32 in both; models that are only read keep their weights in this type. `auto`: bfloat16 on NVIDIA GPUs
    that have it (compute capability 8.0 and up), float32 elsewhere. docs/gpu.md says more."""

    @property
    def asks_bfloat16(self) -> bool:
        """Whether it names bfloat16, or a kind of device that takes it by itself."""
        return self.dtype == "bfloat16" or (self.dtype == "auto" and self.device == "cuda")

    def within(self, outer: ComputeOptions) -> tuple[str, str]:
        """Device and type inside a command that runs by `outer`: what is `auto` here is as there."""
        if self.device not in ("auto", outer.device):
            return self.device, self.dtype
        return outer.device, outer.dtype if self.dtype == "auto" else self.dtype


_in_force = ComputeOptions()


def in_force() -> ComputeOptions:
    """What the command that runs was asked for; `auto` outside of any."""
    return _in_force


@contextmanager
def asked_for(options: ComputeOptions | None) -> Iterator[None]:
    """Load models as these options say, in every thread of this process; None forgets what was asked for before."""
    global _in_force
    before = _in_force
    device, dtype = ("auto", "auto") if options is None else options.within(before)
    _in_force = ComputeOptions(device=device, dtype=dtype)  # type: ignore[arg-type]
    try:
        yield
    finally:
        _in_force = before


def on_its_device(function: Function) -> Function:
    """The function of a command, with models loaded as its configuration says, which is its first argument."""

    @wraps(function)
    def run(config: ComputeOptions, *arguments: Any, **named: Any) -> Any:
        with asked_for(config):
            return function(config, *arguments, **named)

    return cast(Function, run)
