"""`meta` in the place of a GPU: it has no numbers, so that whoever would wait for those of a GPU has to ask here."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from posttrain.models import LanguageModel
from posttrain.models.kernels import kernels_for
from posttrain.train.policy import LocalPolicy

META = torch.device("meta")
READS = (torch.ops.aten._local_scalar_dense.default,)
COPIES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)


class FakeDevice(TorchDispatchMode):
    """While it lasts, `reads` gets the place in posttrain of whatever waits for the device (`float`, `tolist`, `cpu`, a
    condition), which is answered with zeros, and `moved` the tensors of main memory that are copied to the device.

    What a GPU refuses raises: tensors of both in one operation, but for single numbers. So does selecting by a mask,
    which a GPU would have to count."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[str] = []
        self.moved: list[torch.Tensor] = []

    def __torch_dispatch__(
        self, func: Any, types: Sequence[Any], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        there = [t for t in tensors if t.device == META]
        here = [t for t in tensors if t.device != META]
        if func in READS and there:
            self.reads.append(_place())
            return 0
        if func in COPIES:
            source, target = (args[1], args[0].device) if len(args) > 1 else (args[0], kwargs.get("device"))
            target = source.device if target is None else torch.device(target)
            if source.device == META and target != META:
                self.reads.append(_place())
                return torch.zeros(source.shape, dtype=kwargs.get("dtype") or source.dtype)
            if source.device != META and target == META:
                self.moved.append(source)
        elif there and any(t.dim() for t in here):
            raise AssertionError(f"{func} of tensors on the device and in main memory, {_place()}")
        return func(*args, **kwargs)


def _place() -> str:
    """The innermost line of posttrain that is running."""
    frame: Any = sys._getframe(2)
    while frame is not None and "/posttrain/" not in frame.f_code.co_filename.replace("\\", "/"):
        frame = frame.f_back
    return "outside posttrain" if frame is None else f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"


def move_there(lm: LanguageModel) -> None:
    """Put a model's tensors on the fake device; who holds its parameters goes on holding them."""
    for owner in (module for whole in (lm.module, *lm.heads.values()) for module in whole.modules()):
        for parameter in owner.parameters(recurse=False):
            if parameter.device != META:
                there = torch.nn.Parameter(parameter.detach().to(META), requires_grad=parameter.requires_grad)
                torch.utils.swap_tensors(parameter, there)
        for name, buffer in owner.named_buffers(recurse=False):
            owner._buffers[name] = buffer.to(META)
    lm.compute = replace(lm.compute, device=META)
    lm.kernels = kernels_for(lm.module, lm.compute)


def move_policy_there(policy: LocalPolicy) -> None:
    """Put model and optimizer on the fake device."""
    move_there(policy.lm)
    for state in policy.optimizer.state.values():
        state.update({name: value.to(META) for name, value in state.items()})
