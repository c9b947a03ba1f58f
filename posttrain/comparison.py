"""What `compare.json` holds, and how it is said in words: names, units, sentences. Nothing here reads a file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NotRequired, TypedDict, cast

FEW_TASKS = 10
"""Below this many tasks a bootstrap interval is too narrow to be believed, and no verdict is given."""
RUNS_FILE = "runs.json"
"""Beside `compare.json`: where the runs are if they are not in its folder, name -> path relative to it."""
HEADLINES = ("accuracy", "greedy")
RETENTION = "retention/"
PERPLEXITY = "retention/perplexity"
SHARES = ("accuracy", "greedy", "truncated", "retention/knowledge", "retention/reading", "retention/instructions")


class Estimate(TypedDict):
    """A number with its 95% interval over `n` tasks; None where nothing was scored."""

    value: float | None
    low: float | None
    high: float | None
    n: int


class Contrast(TypedDict):
    """`of` minus `against` over the tasks both have scored, with its 95% interval."""

    of: str
    against: str
    evaluation: str
    value: float
    low: float
    high: float
    n: int


class Cost(TypedDict):
    """Time, tokens and floating-point operations."""

    seconds: float
    tokens: int
    flops: float


class StageResult(Cost):
    """What a stage cost by itself and for its data, and its evaluations by name."""

    parent: str | None
    evaluations: dict[str, Estimate]


class OtherStage(Cost):
    """What a stage that is not compared cost: a reward model, or data, which is in the cost of `charged_to` too."""

    parent: str | None
    charged_to: list[str]


class Comparison(TypedDict):
    """The content of `compare.json`."""

    stages: dict[str, StageResult]
    contrasts: list[Contrast]
    others: NotRequired[dict[str, OtherStage]]
    total: NotRequired[Cost]
    """Of every stage, compared or not, once."""


def root_of(stages: dict[str, StageResult], name: str) -> str:
    """The stage without a parent that `name` descends from."""
    for _ in stages:
        parent = stages[name]["parent"]
        if parent is None:
            return name
        name = parent
    raise ValueError(f"stage {name} descends from itself")


def evaluation_names(comparison: Comparison) -> list[str]:
    """Every evaluation that some stage has, the headline first, else in the order they appear."""
    names = dict.fromkeys(e for s in comparison["stages"].values() for e in s["evaluations"])
    return sorted(names, key=lambda n: HEADLINES.index(n) if n in HEADLINES else len(HEADLINES))


def share_names(comparison: Comparison) -> set[str]:
    """Evaluations to show in per cent: shares by name, unless some stage's value lies outside [0, 1] (a score can)."""
    names = {e for e in evaluation_names(comparison) if e in SHARES or e.startswith("pass@")}
    for stage in comparison["stages"].values():
        for name, estimate in stage["evaluations"].items():
            if estimate["value"] is not None and not 0 <= estimate["value"] <= 1:
                names.discard(name)
    return names


def headline(comparison: Comparison) -> str | None:
    """The evaluation that verdicts are about: accuracy, else the greedy answer's score."""
    names = evaluation_names(comparison)
    return next((h for h in HEADLINES if h in names), None)


def label(evaluation: str) -> str:
    """How an evaluation is called on a page: `retention/knowledge` is `knowledge`."""
    name = evaluation.removeprefix(RETENTION).replace("_", " ")
    return "KL" if name == "kl" else name


def format_number(value: float, share: bool) -> str:
    """45.1 for the share 0.451 (per cent), else about three significant digits."""
    if share:
        return f"{100 * value:.1f}"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def format_estimate(estimate: Estimate | None, share: bool) -> str:
    """`45.1 [41.0, 49.2]`, or a dash where nothing was scored."""
    if estimate is None or estimate["value"] is None or estimate["low"] is None or estimate["high"] is None:
        return "–"
    low, high = format_number(estimate["low"], share), format_number(estimate["high"], share)
    return f"{format_number(estimate['value'], share)} [{low}, {high}]"


def format_difference(contrast: Contrast, share: bool) -> str:
    """`+9.1 points [5.2, 13.0]`; without the unit where the evaluation is no share."""
    value, low, high = (format_number(contrast[k], share) for k in ("value", "low", "high"))
    sign = "" if value.startswith("-") else "+"
    return f"{sign}{value}{' points' if share else ''} [{low}, {high}]"


def format_quantity(value: float) -> str:
    """A count with a suffix: 950, 12.3k, 4.5M, 6.7G, 8.9T, 1.2P, 3.4E."""
    for suffix in ("", "k", "M", "G", "T", "P"):
        if abs(value) < 999.5:
            return f"{value:.3g}{suffix}"
        value /= 1000
    return f"{value:.3g}E"


def verdict(contrast: Contrast) -> str:
    """`up` or `down` where the interval leaves out 0, `none` where it does not, `few` where tasks are too few."""
    if contrast["n"] < FEW_TASKS:
        return "few"
    if contrast["low"] > 0:
        return "up"
    return "down" if contrast["high"] < 0 else "none"


def is_loss(contrast: Contrast) -> bool:
    """Whether a retention contrast shows forgetting: fewer right answers, or a larger perplexity."""
    return verdict(contrast) == ("up" if contrast["evaluation"] == PERPLEXITY else "down")


def summary(comparison: Comparison) -> list[str]:
    """What the comparison shows, in sentences: the headline evaluation of every stage against its parent, the start and
    its siblings; what was forgotten; what it cost."""
    stages = comparison["stages"]
    shares = share_names(comparison)
    main = headline(comparison)
    sentences = [_sentence(c, shares) for c in comparison["contrasts"] if c["evaluation"] == main]
    for name in stages:
        sentences += _forgotten(comparison, name, shares)
    costs = [f"{name} {_cost(stage)}" for name, stage in stages.items() if stage["flops"] or stage["seconds"]]
    if costs:
        sentences.append("cost: " + "; ".join(costs))
    if "total" in comparison:
        sentences.append(f"cost of all stages, evaluations apart: {_cost(comparison['total'])}")
    for name, stage in stages.items():
        if not stage["evaluations"]:
            sentences.append(
                f"{name}: not evaluated; `posttrain eval RUN --data DATA --reward REWARD --out RUN` does it"
            )
    return sentences


def _sentence(contrast: Contrast, shares: set[str]) -> str:
    name, of, against = label(contrast["evaluation"]), contrast["of"], contrast["against"]
    difference = format_difference(contrast, contrast["evaluation"] in shares)
    match verdict(contrast):
        case "few":
            return f"{of}: {name} {difference} against {against}, too few tasks ({contrast['n']}) to tell"
        case "none":
            return f"{of}: no difference in {name} shown against {against} ({difference})"
        case "up":
            return f"{of}: {name} {difference.replace(' [', f' over {against} [')}"
        case _:
            return f"{of}: {name} {difference.replace(' [', f' against {against} [')}"


def _forgotten(comparison: Comparison, name: str, shares: set[str]) -> Iterator[str]:
    """One sentence on the retention suite for a stage that was compared with its start."""
    start = root_of(comparison["stages"], name)
    contrasts = [
        c
        for c in comparison["contrasts"]
        if c["of"] == name and c["against"] == start and c["evaluation"].startswith(RETENTION)
    ]
    if name == start or not contrasts:
        return
    if all(verdict(c) == "few" for c in contrasts):
        yield f"{name}: too few retention tasks to tell what was forgotten"
        return
    lost = [
        f"{label(c['evaluation'])} {format_difference(c, c['evaluation'] in shares)}" for c in contrasts if is_loss(c)
    ]
    if lost:
        yield f"{name}: retention is worse than that of {start}: {'; '.join(lost)}"
    else:
        yield f"{name}: no forgetting shown against {start}"


def described(numbers: Any, name: str = "", *, lists: bool = True) -> Iterator[tuple[str, str]]:
    """(name, words) of everything in nested mappings, and in lists if wanted: `length.score`, `curve.0.own`. An
    estimate is one number with its interval."""
    if isinstance(numbers, Mapping) and numbers.keys() == Estimate.__annotations__.keys():
        yield name, f"{format_estimate(cast(Estimate, numbers), share=False)}, n={numbers['n']}"
    elif isinstance(numbers, Mapping):
        for key, value in numbers.items():
            yield from described(value, f"{name}.{key}" if name else str(key), lists=lists)
    elif isinstance(numbers, Sequence) and not isinstance(numbers, str):
        for i, value in enumerate(numbers if lists else ()):
            yield from described(value, f"{name}.{i}", lists=lists)
    else:
        yield name, "–" if numbers is None else str(numbers) if isinstance(numbers, str | int) else f"{numbers:.3g}"


def _cost(stage: Cost) -> str:
    tokens, flops = format_quantity(stage["tokens"]), format_quantity(stage["flops"])
    return f"{stage['seconds']:.0f} s, {tokens} tokens, {flops} FLOPs"
