"""What `learning.py` found, as numbers, a table in Markdown, and pictures."""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from learning_pictures import Line, panel

T_90 = {2: 6.314, 3: 2.920, 4: 2.353, 5: 2.132, 6: 2.015, 7: 1.943, 8: 1.895, 9: 1.860, 10: 1.833, 11: 1.812, 12: 1.796}
"""95% quantiles of Student's t by the number of seeds (degrees of freedom + 1): a two-sided interval of 90%."""
MARGIN = 5.0
"""Points within which the interval of the difference must lie for both sides to count as alike."""
MEASURES = ("accuracy", "greedy", "pass@4")
OURS, TRL = "posttrain", "TRL"
COLOURS = {OURS: "#2563eb", TRL: "#d97706", "plain PyTorch": "#111827", "TRL as it comes": "#9ca3af"}

Row = dict[str, Any]


@dataclass
class Results:
    """Everything that was measured. `sft` holds the runs by side, `seeds` those of GRPO by seed and side."""

    sft_settings: Row
    grpo_settings: Row
    sft: Row
    start: Row = field(default_factory=dict)
    seeds: dict[int, Row] = field(default_factory=dict)
    replay: Row | None = None
    rewards_differ: tuple[int, int] = (0, 0)

    def save(self, out: Path) -> None:
        found = asdict(self) | {"summary": summary(self), "machine": machine()}
        (out / "learning.json").write_text(json.dumps(found, indent=1) + "\n")


def machine() -> Row:
    names = ("torch", "transformers")
    return {
        "cores": os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in names},
    }


def t_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean with a 90% t-interval over seeds, of which there are at least two."""
    mean = statistics.fmean(values)
    half = T_90[min(len(values), max(T_90))] * statistics.stdev(values) / math.sqrt(len(values))
    return mean, mean - half, mean + half


def summary(results: Results) -> Row:
    """Differences posttrain − TRL in points, paired by seed, and the ratio of seconds TRL ÷ posttrain (geometric)."""
    runs = list(results.seeds.values())
    if len(runs) < 2:
        return {}
    out: Row = {m: t_interval([100 * (run[OURS][m] - run[TRL][m]) for run in runs]) for m in MEASURES}
    ratios = [math.log(sum(run[TRL]["seconds"]) / sum(run[OURS]["seconds"])) for run in runs]
    out["seconds ratio"] = tuple(map(math.exp, t_interval(ratios)))
    for side in (OURS, TRL):
        out[f"seconds {side}"] = statistics.median(sum(run[side]["seconds"]) for run in runs)
        out[f"gain {side}"] = t_interval([100 * (run[side]["accuracy"] - results.start["accuracy"]) for run in runs])
    out["alike"] = abs(out["accuracy"][1]) <= MARGIN and abs(out["accuracy"][2]) <= MARGIN
    return out


def largest_difference(a: Sequence[float], b: Sequence[float]) -> float:
    return max(abs(x - y) for x, y in zip(a, b, strict=True))


def table(results: Results) -> str:
    return "\n".join([*sft_lines(results), "", *grpo_lines(results), *replay_lines(results)]) + "\n"


def sft_lines(results: Results) -> list[str]:
    ours = results.sft[OURS]
    lines = ["| SFT | loss of step 1 | of the last step | largest difference to posttrain | seconds a step |"]
    lines += ["| --- | --- | --- | --- | --- |"]
    for side, run in results.sft.items():
        apart = "" if side == OURS else f"{largest_difference(ours['loss'], run['loss']):.1e}"
        seconds = statistics.median(run["seconds"])
        lines.append(f"| {side} | {run['loss'][0]:.6f} | {run['loss'][-1]:.6f} | {apart} | {seconds:.2f} |")
    return lines


def grpo_lines(results: Results) -> list[str]:
    found = summary(results)
    if not found:
        return []
    lines = [
        "| GRPO, seed | posttrain | TRL | difference | posttrain, s | TRL, s |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for seed, run in results.seeds.items():
        ours, trl = run[OURS], run[TRL]
        lines.append(
            f"| {seed} | {100 * ours['accuracy']:.1f} | {100 * trl['accuracy']:.1f} "
            f"| {100 * (ours['accuracy'] - trl['accuracy']):+.1f} "
            f"| {sum(ours['seconds']):.0f} | {sum(trl['seconds']):.0f} |"
        )
    lines += [
        f"| median | {_median(results, OURS)} | {_median(results, TRL)} | "
        f"| {found[f'seconds {OURS}']:.0f} | {found[f'seconds {TRL}']:.0f} |",
        "",
        f"Start: accuracy {100 * results.start['accuracy']:.1f}%, greedy {100 * results.start['greedy']:.1f}%, pass@4 "
        f"{100 * results.start['pass@4']:.1f}%. In points, mean over seeds with a 90% t-interval:",
        "",
        *(f"- {side} − start, accuracy: {_interval(found[f'gain {side}'])}" for side in (OURS, TRL)),
        *(f"- posttrain − TRL, {m}: {_interval(found[m])}" for m in MEASURES),
        "",
        f"The interval of posttrain − TRL, accuracy, is {'' if found['alike'] else 'NOT '}within ±{MARGIN:.0f} points.",
        "TRL takes {:.2f} [{:.2f}, {:.2f}] times as many seconds as posttrain.".format(*found["seconds ratio"]),
        "The built-in reward gives another score to {} of {} completions of TRL.".format(*results.rewards_differ),
    ]
    return lines


def replay_lines(results: Results) -> list[str]:
    if results.replay is None:
        return []
    trl = next(iter(results.seeds.values()))[TRL]
    steps = len(results.replay["grad_norm"])
    pairs = list(zip(results.replay["grad_norm"], trl["grad_norm"][:steps], strict=True))
    first, worst = abs(pairs[0][0] / pairs[0][1] - 1), max(abs(a / b - 1) for a, b in pairs if b)
    return [
        "",
        f"posttrain trained on TRL's completions of seed {next(iter(results.seeds))} for {steps} steps: the relative "
        f"difference of the gradient norms is {first:.1e} in step 1, and at most {worst:.1e}.",
    ]


def _median(results: Results, side: str) -> str:
    return f"{statistics.median(100 * run[side]['accuracy'] for run in results.seeds.values()):.1f}"


def _interval(found: tuple[float, float, float]) -> str:
    return "{:+.1f} [{:+.1f}, {:+.1f}]".format(*found)


def drawn(results: Results) -> dict[str, str]:
    """The pictures by name, as SVG."""
    losses = [Line(run["loss"], COLOURS[side], side, dashed=side != OURS) for side, run in results.sft.items()]
    out = {"learning-sft": panel("SFT: loss of each step", losses)}
    if results.seeds:
        lines: list[Line] = []
        for side in (OURS, TRL):
            curves = [run[side]["reward"] for run in results.seeds.values()]
            lines += [Line(curve, COLOURS[side], thin=True) for curve in curves]
            mean = [statistics.fmean(values) for values in zip(*curves, strict=True)]
            lines.append(Line(mean, COLOURS[side], f"{side}, mean of {len(curves)} seeds"))
        out["learning-grpo"] = panel("GRPO: mean reward of each step", lines)
    return out
