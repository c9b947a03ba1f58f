"""Operating systems: what works on Linux and macOS only, and what on Linux only."""

from __future__ import annotations

import sys

from posttrain.types import InputError


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
