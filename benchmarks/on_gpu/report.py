"""The numbers as a table: rates, memory, targets, and ratios to the peers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from on_gpu.parts import Part

Results = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""By part and side: `status`, `seconds`, `figures` and `error`."""
RATES = ("tokens/s", "pairs/s", "row tokens/s")
HEAD = ("part", "side", "rate", "s a step", "MFU", "GB", "target", "stretch", "posttrain ÷ it", "target", "memory ÷ it")
NOT_LISTED = ("losses", "each", "last", "seconds")


@dataclass(frozen=True)
class Target:
    """What an H100 should give: a first target and one to stretch for, and the least ratio to each peer."""

    first: str
    stretch: str = ""
    ratios: Mapping[str, str] = field(default_factory=dict)


TARGETS = {
    "correct": Target(
        "float32: log-probabilities 1e-4, losses 1e-5, gradients 1e-4. bfloat16: RMS ÷ transformers' own ≤ 1, "
        "|mean d| ≤ 5e-3, p95 ≤ 0.1, loss 3e-3, gradient cosine ≥ 0.998, norms within 0.02. Sampler: k3 ≤ 1e-3, "
        "sd ≤ 0.045"
    ),
    "sft-0.5b": Target("95k, MFU 0.27, ≤ 30 GB", "130k", {"TRL, padded": "≥ 1.5", "TRL, packed": "≥ 1.5"}),
    "sft-1.5b": Target("38k, MFU 0.35, ≤ 60 GB", "46k", {"TRL, padded": "≥ 1.5"}),
    "sft-packed": Target("", "", {"TRL, packed": "≥ 1.5"}),
    "sft-equal": Target("", "", {"TRL, padded": "≥ 1.25"}),
    "dpo-1.5b": Target("27 pairs/s", "33", {"TRL": "≥ 2.0"}),
    "lora-7b": Target("11.5k, MFU 0.32, ≤ 60 GB", "14.5k", {"TRL, padded": "≥ 1.3"}),
    "grpo-1.5b": Target(
        "≤ 9.5 s without graphs, ≤ 7 s with", "5.5 s", {"TRL, continuous batching": "≥ 1.8"}
    ),
    "grpo-generate": Target("", "", {"TRL, generate": "≥ 3"}),
    "decode-0.5b": Target("110k", "160k"),
    "decode-1.5b": Target("65k", "90k"),
    "decode-7b": Target("24k", "31k"),
    "forest-0.5b": Target("", "2.2 × padded", {"padded": "≥ 1.9"}),
}  # fmt: skip


def report(parts: Sequence[Part], results: Results, about: Mapping[str, Any]) -> str:
    """The whole text: what it ran on, the table of rates, then what has no rate, as lists."""
    rates = [part for part in parts if part.name in results and _has_rate(results[part.name])]
    rest = [part for part in parts if part.name in results and part not in rates]
    lines = [", ".join(f"{name} {value}" for name, value in about.items()), ""]
    for part in rest:
        lines.append(f"{part.name}: {part.what}")
        if part.name in TARGETS and TARGETS[part.name].first:
            lines.append(f"  targets: {TARGETS[part.name].first}")
        lines += [*_listed(results[part.name]), ""]
    if rates:
        lines += [_row(HEAD), _row(["---"] * len(HEAD))]
        lines += [line for part in rates for line in _rows(part, results)]
        lines += ["", *(f"- `{part.name}`: {part.what}" for part in rates)]
        lines += ["", "Memory beside TRL's, at as many tokens a pass: target ≤ 0.7.", *_first_losses(rates, results)]
    return "\n".join(lines)


def _has_rate(sides: Mapping[str, Mapping[str, Any]]) -> bool:
    return any(name in side["figures"] for side in sides.values() for name in RATES)


def _rate(side: Mapping[str, Any]) -> tuple[str, float] | None:
    return next(((name, side["figures"][name]) for name in RATES if name in side["figures"]), None)


def _rows(part: Part, results: Results) -> list[str]:
    target = TARGETS.get(part.name, Target(""))
    first = next(iter(results.get(part.beside or part.name, {}).values()), None)
    rows = []
    for name, side in results[part.name].items():
        ours = side is first
        figures, rate = side["figures"], _rate(side)
        ended = "" if side["status"] == "ok" else f" ({_why(side)})"
        cells = [part.name, name + ended, f"{rate[1]:,.4g} {rate[0]}" if rate else ""]
        base = None if ours or first is None else _rate(first)
        faster = base[1] / rate[1] if base and rate else None
        share = figures.get("MFU")
        if share is None and faster and first is not None and "MFU" in first["figures"]:
            share = first["figures"]["MFU"] / faster  # of the operations that the work needs, whatever a side computes
        cells += [_number(figures.get("seconds")), _number(share), _number(figures.get("GB"))]
        cells += [target.first, target.stretch] if ours else ["", ""]
        cells += [f"{faster:.2f}" if faster else "", "" if ours else target.ratios.get(name, "")]
        cells.append(_memory(first["figures"].get("GB"), figures.get("GB")) if faster and first is not None else "")
        rows.append(_row(cells))
    return rows


def _memory(ours: float | None, theirs: float | None) -> str:
    return f"{ours / theirs:.2f}" if ours and theirs else ""


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _why(side: Mapping[str, Any]) -> str:
    last = side["error"].strip().splitlines()[-1:] or [""]
    return f"{side['status']}: {last[0][:160]}" if last[0] else side["status"]


def _listed(sides: Mapping[str, Mapping[str, Any]]) -> list[str]:
    lines = []
    for name, side in sides.items():
        lines.append(f"  {name}: {_why(side) if side['status'] != 'ok' else 'ok'}, {side['seconds']} s")
        lines += [f"    {key}: {value}" for key, value in side["figures"].items() if key not in NOT_LISTED]
    return lines


def _first_losses(parts: Sequence[Part], results: Results) -> list[str]:
    lines = []
    for part in parts:
        losses = {name: side["figures"]["losses"][0] for name, side in results[part.name].items()
                  if side["figures"].get("losses")}  # fmt: skip
        if len(losses) > 1:
            lines.append(f"First loss of {part.name}: " + ", ".join(f"{n} {v:.5g}" for n, v in losses.items()))
    return lines


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |"
