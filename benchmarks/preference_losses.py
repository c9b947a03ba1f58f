"""Our preference losses and their gradients beside TRL's, on the same log-probabilities.

    python benchmarks/preference_losses.py            # rewrites the table in docs/preferences.md
    python benchmarks/preference_losses.py --print    # prints it only

TRL's side runs the loss code of its trainers in an environment of its own (`make` target of the benchmarks).
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from posttrain.config import DpoConfig
from posttrain.losses.preference import Counts, Responses, kto_baseline, step_loss

ROOT = Path(__file__).resolve().parent.parent
DOC = ROOT / "docs" / "preferences.md"
START, END = "<!-- figures: python benchmarks/preference_losses.py -->\n", "<!-- end of figures -->\n"
SIDE = [str(ROOT / ".venv-trl/bin/python"), str(ROOT / "benchmarks/sides/preference_trl.py")]
DEADLINE_SECONDS = 300
BATCHES, PAIRS, LONGEST = 20, 8, 40


@dataclass(frozen=True)
class Case:
    """Options of `posttrain dpo`, and the trainer of TRL with its settings."""

    ours: dict[str, Any]
    trainer: str
    theirs: dict[str, Any] = field(default_factory=dict)
    note: str = ""


SMOOTH = {"beta": 0.3, "label_smoothing": 0.15}
CASES = [
    Case({"loss": "sigmoid"}, "dpo", {"loss_types": ["sigmoid"]}),
    Case({"loss": "sigmoid", "length": "mean"}, "dpo", {"loss_types": ["sigmoid_norm"], "beta": 5.0}),
    Case({"loss": "sigmoid", "ld_alpha": 0.4}, "dpo", {"loss_types": ["sigmoid"], "ld_alpha": 0.4}),
    Case({"loss": "sigmoid", "reference_free": True}, "cpo", {"loss_type": "sigmoid"}, "without a reference"),
    Case({"loss": "cdpo", "reference_free": True} | SMOOTH, "cpo", {"loss_type": "sigmoid"} | SMOOTH, "as CPO has it"),
    Case({"loss": "robust"} | SMOOTH, "dpo", {"loss_types": ["robust"]} | SMOOTH),
    Case({"loss": "ipo"}, "dpo", {"loss_types": ["ipo"]}),
    Case({"loss": "hinge"}, "dpo", {"loss_types": ["hinge"]}),
    Case({"loss": "simpo", "gamma": 0.7}, "cpo", {"loss_type": "simpo", "beta": 2.0, "simpo_gamma": 0.7}),
    Case({"loss": "orpo"}, "orpo", {}, "its odds term, in float32; TRL's SFT term takes in the prompt"),
    Case({"loss": "kto", "desirable_weight": 1.3}, "kto", {"loss_type": "kto", "desirable_weight": 1.3}),
    Case({"loss": "apo_zero"}, "dpo", {"loss_types": ["apo_zero"]}),
    Case({"loss": "apo_down"}, "dpo", {"loss_types": ["apo_down"]}),
    Case(
        {"loss": ("sigmoid", "sft=0.2")},
        "dpo",
        {"loss_types": ["sigmoid", "sft"], "loss_weights": [1.0, 0.2], "one_at_a_time": True},
        "pair by pair: TRL's `sft` is a mean over the tokens of a batch",
    ),
]


def draw(seed: int) -> dict[str, Any]:
    """Log-probabilities a token of PAIRS chosen and then PAIRS rejected responses, of the policy and the reference, and
    those of mismatched responses for KTO's baseline; 0 beyond a response's length."""
    rng = torch.Generator().manual_seed(seed)
    rows = 2 * PAIRS
    lengths = torch.randint(1, LONGEST + 1, (rows,), generator=rng)
    inside = torch.arange(LONGEST) < lengths[:, None]

    def logprobs() -> torch.Tensor:
        return -torch.randn(rows, LONGEST, generator=rng, dtype=torch.float64).exp() * inside

    policy = logprobs()
    shift = 0.3 * torch.randn(rows, LONGEST, generator=rng, dtype=torch.float64)
    reference = torch.where(inside, (policy + shift).clamp(max=-1e-3), 0.0)
    return {
        "policy": policy.tolist(),
        "reference": reference.tolist(),
        "other_policy": logprobs().tolist(),
        "other_reference": (1.1 * logprobs()).tolist(),
        "lengths": lengths.tolist(),
    }


def ours(case: Case, data: dict[str, Any]) -> tuple[float, torch.Tensor]:
    """Our loss of a step and its gradient by token [2·PAIRS, LONGEST]."""
    config = DpoConfig(model="tiny-random", data="-", out=Path("-"), **case.ours)
    policy = torch.tensor(data["policy"], dtype=torch.float64, requires_grad=True)
    reference = torch.tensor(data["reference"], dtype=torch.float64)
    lengths = torch.tensor(data["lengths"])
    weights = torch.ones_like(reference)
    if config.ld_alpha is not None:
        shared = torch.minimum(lengths[:PAIRS], lengths[PAIRS:]).repeat(2)
        weights = torch.where(torch.arange(LONGEST) < shared[:, None], weights, config.ld_alpha * weights)
    responses = Responses(
        logprobs=policy.sum(1),
        lengths=lengths,
        good=torch.arange(PAIRS),
        bad=torch.arange(PAIRS, 2 * PAIRS),
        policy=(weights * policy).sum(1),
        reference=(weights * reference).sum(1),
    )
    others, bare = (torch.tensor(data[f"other_{name}"], dtype=torch.float64) for name in ("policy", "reference"))
    loss = step_loss(responses, config.terms(), Counts(PAIRS, PAIRS), kto_baseline((others - bare).sum(1)))
    if case.trainer == "orpo":
        loss = loss + (policy.sum(1) / lengths)[:PAIRS].mean()
    return float(loss.detach()), torch.autograd.grad(loss, policy)[0]


def theirs(batches: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """TRL's loss and gradient of each case and batch."""
    request = {"cases": [{"trainer": c.trainer, "settings": c.theirs} for c in CASES], "batches": batches}
    done = subprocess.run(
        SIDE, input=json.dumps(request), stdout=subprocess.PIPE, text=True, timeout=DEADLINE_SECONDS, check=True
    )
    answer: list[list[dict[str, Any]]] = json.loads(done.stdout.splitlines()[-1])
    return answer


def figures() -> str:
    """A Markdown table of the largest differences over all batches."""
    batches = [draw(seed) for seed in range(BATCHES)]
    lines = [
        f"Largest difference over {BATCHES} batches of {PAIRS} pairs with responses of 1 to {LONGEST} tokens,",
        "in float64, of the loss and of its gradient by any token's log-probability.",
        "",
        "| `posttrain dpo` | TRL 1.16 | loss | gradient | |",
        "| --- | --- | --- | --- | --- |",
    ]
    for case, found in zip(CASES, theirs(batches), strict=True):
        gaps = []
        for data, their in zip(batches, found, strict=True):
            loss, gradient = ours(case, data)
            inside = torch.arange(LONGEST) < torch.tensor(data["lengths"])[:, None]
            of_gradient = float((gradient - torch.tensor(their["gradient"], dtype=torch.float64))[inside].abs().max())
            gaps.append((abs(loss - their["loss"]), of_gradient))
        options = " ".join(f"`{option(key, value)}`" for key, value in case.ours.items())
        settings = ", ".join(f"{key} {value}" for key, value in case.theirs.items() if key != "one_at_a_time")
        worst = [f"{max(gap[i] for gap in gaps):.1e}" for i in (0, 1)]
        lines.append(f"| {options} | {case.trainer.upper()}Trainer {settings} | {' | '.join(worst)} | {case.note} |")
    return "\n".join(lines) + "\n"


def option(key: str, value: Any) -> str:
    """An option as it is typed."""
    name = "--" + key.replace("_", "-")
    if value is True:
        return name
    return " ".join(f"{name} {v}" for v in (value if isinstance(value, tuple) else (value,)))


def main() -> None:
    """Print the figures, or write them to the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--print", action="store_true", help="print the table and leave the page alone")
    only_print = parser.parse_args().print
    if not Path(SIDE[0]).exists():
        sys.exit(f"{SIDE[0]} is missing: `make bench` installs TRL there")
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
