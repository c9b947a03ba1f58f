"""Compiled element-wise functions on CUDA, where each operation of its own would be a pass over memory."""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
import shutil
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")

BACKEND = "inductor"

log = logging.getLogger("posttrain")


def fast(function: Callable[P, R], eager: Callable[P, R] | None = None) -> Callable[P, R]:
    """`function`, compiled for tensors on CUDA, with dynamic shapes: ragged batches compile it once. For pure
    element-wise functions and reductions of rows, whose first argument is a tensor of rows; never for a model, which
    would be compiled again and again. Gradients do not go through it: it belongs into autograd functions.

    `eager` is the same rule for other devices, where it can be written with fewer passes and allocations."""
    plain = eager or function

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if torch.compiler.is_compiling():
            return function(*args, **kwargs)  # a part of what is compiled
        if not is_compiled_for(args[0]):
            return plain(*args, **kwargs)
        compiled: Callable[..., R] = compiled_form(function)
        # whether a tensor requires gradients is part of what a compiled form was made for
        return compiled(*(a.detach() if isinstance(a, torch.Tensor) else a for a in args), **kwargs)

    return call


def is_compiled_for(rows: Any) -> bool:
    """One row or none is left to the plain form: compiled forms assume two or more."""
    return compiles(rows) and bool(rows.shape[0] > 1)


def compiles(rows: torch.Tensor) -> bool:
    return rows.is_cuda and _can_compile()  # on other devices asked for every small operation: it has to be cheap


@functools.cache
def compiled_form(function: Callable[..., Any]) -> Any:
    # sizes that happen to be equal, as the heads of a model and half their width, may differ in the next call
    torch.fx.experimental._config.use_duck_shape = False
    return torch.compile(function, dynamic=True, backend=BACKEND)


@functools.cache
def _can_compile() -> bool:
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if importlib.util.find_spec("triton") is not None and compiler:
        return True
    log.warning("without triton and a C compiler (gcc) element-wise functions are not compiled: training is slower")
    return False
