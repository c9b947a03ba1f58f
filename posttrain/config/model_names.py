"""What names a model: one that ships with posttrain, a folder of this machine, or an id of the hub."""

from __future__ import annotations

from pathlib import Path

from posttrain.types import InputError

SMOLLM2 = "smollm2-135m"
TINY = "tiny-random"


def local_model(name: str) -> Path | None:
    """The folder that holds the model `name`, which may be its run folder; None for a shipped model and for what can
    only be an id of the hub. Raises InputError where it is a path and no model is there."""
    if name in (TINY, SMOLLM2):
        return None
    path = Path(name)
    for candidate in (path, path / "model"):
        if (candidate / "config.json").is_file():
            return candidate
    if path.exists():
        raise InputError(f"--model {name}: no config.json there, nor in its model/; give a model or a finished run")
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise InputError(
            f"--model {name}: no such folder; give a model folder, a hub id (owner/name), {SMOLLM2} or {TINY}"
        )
    return None
