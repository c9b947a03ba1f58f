"""Thread counts and library switches, set once by whoever owns the process."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import warnings

ALLOCATOR = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF")
"""Variables that torch reads the settings of its allocator of GPU memory from."""


def usable_cores() -> int:
    """Cores this process may run on: its affinity mask where the system has one, else all cores."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def configure_threads() -> None:
    """Set the environment that torch, tokenizers and the hub client read when they are imported.

    Call it before any of them is. What the user has set stays as it is.

    - `OMP_NUM_THREADS`: the usable cores. torch would count the machine's cores, of which a container or a job has
      fewer, and sums over another number of threads round differently: one fixed number keeps runs repeatable.
    - `TOKENIZERS_PARALLELISM=false`: worker processes fork once (`workers.supervisor`), which a thread pool
      does not survive.
    - `HF_HUB_DISABLE_TELEMETRY=1`: nothing about a run leaves the machine.
    - `PYTORCH_ALLOC_CONF=expandable_segments:True` on Linux, for CUDA: steps of ragged batches would leave gaps between
      blocks of fixed sizes. Older names of the variable count as set by the user.

    tqdm's advice to install widgets in a notebook is silenced: the bars of other libraries are off.

    It also lets this process keep memory that it has freed, for its own next step.
    """
    _keep_freed_memory()
    os.environ.setdefault("OMP_NUM_THREADS", str(usable_cores()))
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    if sys.platform == "linux" and not any(name in os.environ for name in ALLOCATOR):
        os.environ[ALLOCATOR[0]] = "expandable_segments:True"
    warnings.filterwarnings("ignore", message="IProgress not found")


def _keep_freed_memory() -> None:
    """Let glibc's `malloc` reuse what a step has freed instead of returning it to the system, which would hand it back
    page by page and zeroed in the next step. Other C libraries are left alone."""
    never_by_mmap, never_trim = -4, -1  # M_MMAP_MAX, M_TRIM_THRESHOLD of mallopt(3)
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(never_by_mmap, 0)
        libc.mallopt(never_trim, 2**31 - 1)
