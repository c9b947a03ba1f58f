"""What a run adapts beside the weights: the KL coefficient, and the multipliers of constraints."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from posttrain.types import Group, InputError, Score

KL_GAIN = 0.1
"""K of `AdaptiveKl` (Ziegler et al., arXiv:1909.08593, section 2.2)."""
CONSTRAINT = re.compile(r"(?P<name>.+?)\s*>=\s*(?P<level>[-+]?[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?)")


class AdaptiveKl:
    """The coefficient β of the KL penalty, perhaps led to a target (Ziegler et al., arXiv:1909.08593, section 2.2):

    e = clip(KL/target − 1, −0.2, 0.2);  β ← β (1 + 0.1 e), KL being summed over a rollout's tokens, in nats."""

    def __init__(self, beta: float, target: float | None) -> None:
        self.beta = beta
        self.target = target

    def update(self, kl_sequence: float | None) -> None:
        if self.target is None or kl_sequence is None:
            return
        error = min(0.2, max(-0.2, kl_sequence / self.target - 1))
        self.beta *= 1 + KL_GAIN * error


class Constraints:
    """Levels that parts of the score are to reach in the mean, each with a multiplier λ ≥ 0 (dual ascent on the
    Lagrangian; Safe RLHF, arXiv:2310.12773, section 3.3):

    the score becomes total + Σ λ (part − level), and after a step λ ← max(0, λ + rate (level − mean part)). A part that
    did not apply adds nothing and is not in the mean. λ begins at 0, so that a constraint which holds costs nothing."""

    def __init__(self, texts: Sequence[str], rate: float) -> None:
        self.rate = rate
        parsed = [_parsed(text) for text in texts]
        self.levels = dict(parsed)
        if len(self.levels) < len(parsed):
            raise InputError("--constraint: one reward is given two levels; give each once")
        self.multipliers = dict.fromkeys(self.levels, 0.0)

    def check(self, parts: Collection[str]) -> None:
        """Raise InputError for a constraint on what is no reward of the run."""
        for name in self.levels:
            if name not in parts:
                raise InputError(f"--constraint {name}: no reward has this name; there are {', '.join(sorted(parts))}")

    def adjusted(self, score: Score) -> float:
        """The total with the constraints' share. Scores without a total have none."""
        if score.total is None:
            raise ValueError("an unscored rollout cannot be adjusted")
        out = score.total
        for name, level in self.levels.items():
            part = score.parts.get(name)
            if part is not None:
                out += self.multipliers[name] * (part - level)
        return out

    def update(self, groups: Sequence[Group]) -> None:
        for name, level in self.levels.items():
            parts = [p for g in groups for s in g.scores if (p := s.parts.get(name)) is not None]
            if parts:
                missed = level - sum(parts) / len(parts)
                self.multipliers[name] = max(0.0, self.multipliers[name] + self.rate * missed)


def _parsed(text: str) -> tuple[str, float]:
    match = CONSTRAINT.fullmatch(text.strip())
    if match is None:
        raise InputError(f"--constraint {text}: write it as NAME>=LEVEL, such as safe>=0.9")
    return match["name"], float(match["level"])


def state(kl: AdaptiveKl, constraints: Constraints) -> dict[str, Any]:
    """What a checkpoint keeps of both."""
    return {"beta": kl.beta, "multipliers": constraints.multipliers}


def restore(kl: AdaptiveKl, constraints: Constraints, saved: Mapping[str, Any]) -> None:
    """The inverse of `state`. Raises ValueError for what is none."""
    beta, multipliers = saved["beta"], dict(saved["multipliers"])
    if multipliers.keys() != constraints.levels.keys():
        raise ValueError(f"its multipliers are {multipliers}")
    if bad := [value for value in (beta, *multipliers.values()) if not 0 <= value < float("inf")]:
        raise ValueError(f"a coefficient is {bad[0]}")
    kl.beta, constraints.multipliers = beta, multipliers
