"""Weights and states in files, written so that a damaged file is known before any of it is used."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from posttrain.console import warn
from posttrain.runs.log import RunLog
from posttrain.types import RunFailed

if TYPE_CHECKING:
    from posttrain.train.loop import Stage

STATE = "state.json"


class DamagedFile(Exception):
    """A file of a checkpoint is missing, cut off, or not of this run. The message names it."""


def save_checkpoint(log: RunLog, stage: Stage, step: int, keep: int) -> None:
    log.checkpoint(step, keep, partial(fill_checkpoint, stage, step))


def fill_checkpoint(stage: Stage, step: int, folder: Path) -> None:
    stage.policy.save(folder)
    stage.save(folder)
    files = sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
    (folder / STATE).write_text(json.dumps({"step": step, "files": files, "rounding": stage.policy.rounding}))


def load_last(log: RunLog, stage: Stage) -> int:
    """Go back to the last checkpoint that can be read, and remove those after it; the step it was written after, 0
    where there are none. Raises RunFailed where there are some and none can be read."""
    step, damaged = 0, []
    for folder in reversed(log.checkpoints()):
        try:
            step = load_checkpoint(folder, stage)
            _tell_rounding(log, folder, stage, step)
            break
        except DamagedFile as error:
            damaged.append(folder)
            log.event("damaged_checkpoint", checkpoint=folder.name, reason=str(error))
            warn(f"the checkpoint {folder.name} cannot be used ({error}); going back to the one before")
    if damaged and not step:
        raise RunFailed(
            f"{log.out}: none of its checkpoints can be used; begin anew with another --out, or remove "
            f"{log.out / 'checkpoints'} to train again from the first step"
        )
    for folder in damaged:  # only now that the run has another to stand on
        shutil.rmtree(folder)
    return step


def _tell_rounding(log: RunLog, folder: Path, stage: Stage, step: int) -> None:
    """Say where a run goes on in another way than its checkpoint was made, one from before this was kept excepted."""
    before, now = json.loads((folder / STATE).read_text()).get("rounding", {}), stage.policy.rounding
    changed = [
        f"{name} {before[name]} before, {now[name]} now" for name in now if before.get(name, now[name]) != now[name]
    ]
    if changed:
        note = f"from step {step} on its numbers differ by rounding: {', '.join(changed)}"
        log.event("resumed_otherwise", reason=note)
        warn(f"{log.out}: {note}")


def load_checkpoint(folder: Path, stage: Stage) -> int:
    """Load a checkpoint; its step. Raises DamagedFile where a file of it is missing, cut off or not of this run."""
    try:
        state = json.loads((folder / STATE).read_text())
        step = state["step"]
        if step != int(folder.name.removeprefix("step-")) or not 1 <= step <= (stage.total_steps or step):
            raise DamagedFile(f"{folder / STATE}: its step is {step!r}")
        if missing := [name for name in state.get("files", ()) if not (folder / name).is_file()]:
            raise DamagedFile(f"{folder / missing[0]} is missing")
        stage.policy.load(folder)
        stage.load(folder)
    except (OSError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise DamagedFile(f"{folder}: {type(error).__name__}: {error}") from error
    return int(step)


def save_weights(parameters: Mapping[str, torch.Tensor], file: Path) -> None:
    save_file({name: p.detach().contiguous() for name, p in parameters.items()}, file)


def load_weights(parameters: Mapping[str, torch.Tensor], file: Path) -> None:
    """The inverse of `save_weights`. Raises DamagedFile, before any change, for other names, shapes or types."""
    try:
        saved = load_file(file)
    except (OSError, SafetensorError) as error:
        raise DamagedFile(f"{file}: {error}") from error
    check_like(saved, dict(parameters), file)
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(saved[name])


def read_state(file: Path) -> dict[str, Any]:
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
        raise DamagedFile(f"{file}: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(state, dict):
        raise DamagedFile(f"{file}: it holds no state")
    return state


def check_like(saved: Any, expected: Any, file: Path, name: str = "") -> None:
    """Raise DamagedFile unless `saved` has the structure of `expected`: the same keys, lengths, shapes and types."""
    if isinstance(expected, torch.Tensor):
        like = isinstance(saved, torch.Tensor) and (saved.shape, saved.dtype) == (expected.shape, expected.dtype)
    elif isinstance(expected, dict):
        like = isinstance(saved, dict) and saved.keys() == expected.keys()
    elif isinstance(expected, list | tuple):
        like = isinstance(saved, list | tuple) and len(saved) == len(expected)
    else:
        like = isinstance(saved, type(expected))
    if not like:
        raise DamagedFile(f"{file}: {name.strip('.') or 'what it holds'} is not what this run would have saved")
    if isinstance(expected, dict):
        for key in expected:
            check_like(saved[key], expected[key], file, f"{name}.{key}")
    elif isinstance(expected, list | tuple):
        for i, (one, like_one) in enumerate(zip(saved, expected, strict=True)):
            check_like(one, like_one, file, f"{name}.{i}")
