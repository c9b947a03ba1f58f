"""The examples run, and the didactic loop learns."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_grpo_from_scratch_learns() -> None:
    """The share of the wanted letter at least doubles within fifteen steps."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "grpo_from_scratch.py"), "--steps", "15"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rewards = [float(r) for r in re.findall(r"reward ([0-9.]+)", done.stdout)]
    assert len(rewards) == 15
    assert sum(rewards[-3:]) / 3 > max(0.1, 2 * rewards[0])
