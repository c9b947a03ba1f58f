"""Folders that appear whole, with the modes that the umask says."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path


def write_folder(target: Path, fill: Callable[[Path], None]) -> Path:
    """`fill` writes into a scratch folder, which reaches the disk and is then renamed to `target`, so that a power cut
    leaves the old folder or the new one.

    Files get the modes that the umask says, whatever library wrote them: safetensors makes its files by way of private
    temporary ones, which nobody else could read. Raises what `fill` raises; then nothing has changed."""
    scratch = target.with_name(f".{target.name}.partial")
    try:
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        plain = stat.S_IMODE(scratch.stat().st_mode)  # the one way to ask for the umask that is safe with threads
        fill(scratch)
        for part in (*scratch.rglob("*"), scratch):
            part.chmod(plain if part.is_dir() else plain & 0o666)
            sync(part)
        shutil.rmtree(target, ignore_errors=True)
        os.replace(scratch, target)
        sync(target.parent)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target


def sync(path: Path) -> None:
    """Have the system write a file, or the entries of a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
