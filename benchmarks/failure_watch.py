"""How often and how soon a run is stopped for failing rewards: our watch beside an interval read after every step.

    python benchmarks/failure_watch.py            # rewrites the table in docs/rewards.md
    python benchmarks/failure_watch.py --print    # prints it only

Simulated runs of 300 steps with groups of 8 rollouts under a limit of 10%. The interval is the 95% Wilson bound of the
last 200 rollouts. Rollouts fail each by itself, or whole tasks do, or always the same rows of a file of 200 that is
reshuffled every time through. About a minute and a half on one core.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from posttrain.rewards.failures import ERROR
from posttrain.stats import MeanTest, wilson

DOC = Path(__file__).resolve().parent.parent / "docs" / "rewards.md"
START, END = "<!-- figures: python benchmarks/failure_watch.py -->\n", "<!-- end of figures -->\n"

LIMIT, GROUP, WINDOW, ROWS = 0.1, 8, 200, 200
STEPS, RUNS = 300, 2000
SIZES = (4, 8, 16, 32)
WITHIN, ABOVE = (0.02, 0.05, 0.08, 0.09, 0.1), (0.125, 0.15, 0.2)

Kind = Literal["rollouts", "tasks", "rows"]
Steps = NDArray[np.float64]


class Stops(NamedTuple):
    """The step at which each run was stopped, by the watch and by the interval; infinite if it was not."""

    watch: Steps
    interval: Steps


def stops(kind: Kind, share: float, tasks: int, clean: int = 0, runs: int = RUNS, steps: int = STEPS) -> Stops:
    """Simulate runs in which `share` fails after `clean` steps without a failure; the steps are counted from there."""
    test, recent = MeanTest(LIMIT), np.zeros((runs, 0), dtype=bool)
    found = Stops(np.full(runs, math.inf), np.full(runs, math.inf))
    rng = np.random.default_rng([runs, tasks, clean, round(1000 * share)])
    for t, failed in enumerate(failures(rng, kind, share, tasks, clean, runs, clean + steps), start=1 - clean):
        test.add(failed.mean(axis=2))
        recent = np.concatenate([recent, failed.reshape(runs, -1)], axis=1)[:, -WINDOW:]
        n = recent.shape[1]
        lows = np.array([wilson(k, n)[0] for k in range(n + 1)])
        above = (test.log_wealth >= math.log(1 / ERROR), lows[recent.sum(axis=1)] > LIMIT)
        for stop, over in zip(found, above, strict=True):
            stop[over & np.isinf(stop)] = t
        if not any(np.isinf(stop).any() for stop in found):
            break
    return found


def failures(
    rng: np.random.Generator, kind: Kind, share: float, tasks: int, clean: int, runs: int, steps: int
) -> Iterator[NDArray[np.bool_]]:
    """Which rollouts of a step fail, shape [runs, tasks, GROUP], step by step."""
    bad = np.broadcast_to(np.arange(ROWS) < round(share * ROWS), (runs, ROWS))
    stream = np.zeros((runs, 0), dtype=bool)
    for t in range(steps):
        if t < clean:
            failed = np.zeros((runs, tasks, 1), dtype=bool)
        elif kind == "rows":
            if stream.shape[1] < tasks:
                stream = np.concatenate([stream, rng.permuted(bad, axis=1)], axis=1)
            failed, stream = stream[:, :tasks, None], stream[:, tasks:]
        else:
            failed = rng.random((runs, tasks, GROUP if kind == "rollouts" else 1), dtype=np.float32) < share
        yield np.broadcast_to(failed, (runs, tasks, GROUP))


NAMES: dict[Kind, str] = {"rollouts": "single rollouts", "tasks": "whole tasks", "rows": "the same rows"}


def figures() -> str:
    """Two tables: runs stopped within the limit, and steps until one above it is stopped; the watch / the interval."""
    lines = [
        f"Of {RUNS:,} runs of {STEPS} steps whose true share is within the limit of {LIMIT:.0%}, how many are stopped "
        "by the watch / by the interval:",
        "",
        f"| what fails | tasks a step | {' | '.join(f'{p:.0%}' for p in WITHIN)} |",
        "| --- " * (2 + len(WITHIN)) + "|",
    ]
    for kind, name in NAMES.items():
        for tasks in SIZES:
            cells = [" / ".join(f"{np.isfinite(s).mean():.1%}" for s in stops(kind, p, tasks)) for p in WITHIN]
            lines.append(f"| {name} | {tasks} | {' | '.join(cells)} |")
    heads = ["what fails", "tasks a step", *(f"{p:.1%}" for p in ABOVE), "20% after 100 clean steps", "all after 250"]
    lines += [
        "",
        "Steps until a run above it is stopped: median and 99th percentile by the watch / median by the interval (– "
        f"where it is not within {STEPS} steps):",
        "",
        f"| {' | '.join(heads)} |",
        "| --- " * len(heads) + "|",
    ]
    for kind, name in NAMES.items():
        for tasks in SIZES:
            found = [stops(kind, p, tasks) for p in ABOVE]
            found += [stops(kind, 0.2, tasks, clean=100), stops(kind, 1.0, tasks, clean=250, runs=20)]
            lines.append(f"| {name} | {tasks} | {' | '.join(map(_times, found))} |")
    return "\n".join(lines) + "\n"


def _times(found: Stops) -> str:
    (watch, late), (interval, _) = (np.quantile(stop, (0.5, 0.99), method="higher") for stop in found)
    return " / ".join([", ".join(map(_step, (watch, late))), _step(interval)])


def _step(step: float) -> str:
    return f"{step:.0f}" if math.isfinite(step) else "–"


def main() -> None:
    """Print the figures, or write them to the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--print", action="store_true", help="print the table and leave the page alone")
    only_print = parser.parse_args().print
    found = figures()
    if only_print:
        print(found)
        return
    page = DOC.read_text(encoding="utf-8")
    replaced = re.sub(
        re.escape(START) + ".*" + re.escape(END), lambda _: START + "\n" + found + "\n" + END, page, flags=re.S
    )
    DOC.write_text(replaced, encoding="utf-8")


if __name__ == "__main__":
    main()
