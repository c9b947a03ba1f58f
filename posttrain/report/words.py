"""What a comparison says in words: verdicts and sentences."""

from __future__ import annotations

from collections.abc import Iterator

from posttrain.config.evaluation import RETENTION_SUITE
from posttrain.runs.comparison import Comparison, Contrast, Section, Spent, root_of, sections
from posttrain.runs.records import PERPLEXITY
from posttrain.stats import FEW_TASKS
from posttrain.wording import TOO_FEW, format_interval, format_number, format_quantity


def format_difference(contrast: Contrast, share: bool) -> str:
    """`+9.1 points [5.2, 13.0]`; without the unit where the evaluation is no share."""
    value = format_number(contrast["value"], share)
    sign = "" if value.startswith("-") else "+"
    few = verdict(contrast) == "few"
    interval = f"[{TOO_FEW}]" if few else format_interval(contrast["low"], contrast["high"], share)
    return f"{sign}{value}{' points' if share else ''} {interval}"


def verdict(contrast: Contrast) -> str:
    """`up` or `down` where the interval leaves out 0, `none` where it does not, `few` where tasks are too few."""
    low, high = contrast["low"], contrast["high"]
    if contrast["n"] < FEW_TASKS or low is None or high is None:
        return "few"
    return "up" if low > 0 else "down" if high < 0 else "none"


def is_loss(contrast: Contrast) -> bool:
    """Whether a retention contrast shows forgetting: fewer right answers, or a larger perplexity."""
    return verdict(contrast) == ("up" if contrast["evaluation"] == PERPLEXITY else "down")


def summary(comparison: Comparison) -> list[str]:
    """What the comparison shows, in sentences: `findings`, `caveats`, what it cost, and what was not evaluated."""
    stages = comparison["stages"]
    sentences = [*findings(comparison), *caveats(comparison)]
    costs = [f"{name} {_cost(stage)}" for name, stage in stages.items() if stage["flops"] or stage["seconds"]]
    if costs:
        sentences.append("cost: " + "; ".join(costs))
    if "total" in comparison:
        sentences.append(f"cost of all stages, evaluations apart: {_cost(comparison['total'])}")
    return sentences + not_evaluated(comparison)


def findings(comparison: Comparison) -> list[str]:
    """The headline of every suite, of every stage against its parent, the start and its siblings; what was
    forgotten."""
    parts = sections(comparison)
    contrasts = comparison["contrasts"]
    sentences = [_sentence(c, p) for p in parts for c in contrasts if p.holds(c) and c["evaluation"] == p.headline]
    for name in comparison["stages"]:
        for part in parts:
            if part.suite == RETENTION_SUITE and name in part.stages:
                sentences += _forgotten(comparison, name, part)
    return sentences


def caveats(comparison: Comparison) -> list[str]:
    """What could not be compared, and why."""
    return [
        f"evaluation {entry['suite']}, no difference is shown: {words}"
        for entry in comparison.get("apart", ())
        for words in entry["differences"]
    ] + list(comparison.get("notes", ()))


def not_evaluated(comparison: Comparison) -> list[str]:
    """Which stages have no evaluation, and how they get one."""
    return [
        f"{name}: not evaluated; `posttrain eval RUN --data DATA --reward REWARD --out RUN` does it"
        for name, stage in comparison["stages"].items()
        if not stage["evaluations"]
    ]


def _sentence(contrast: Contrast, part: Section) -> str:
    name, of, against = part.label_of_suite(contrast["evaluation"]), contrast["of"], contrast["against"]
    difference = format_difference(contrast, contrast["evaluation"] in part.shares)
    match verdict(contrast):
        case "few":
            shown = difference.partition(" [")[0]
            return f"{of}: {name} {shown} against {against}, {TOO_FEW} ({contrast['n']}) to tell"
        case "none":
            return f"{of}: no difference in {name} shown against {against} ({difference})"
        case "up":
            return f"{of}: {name} {difference.replace(' [', f' over {against} [')}"
        case _:
            return f"{of}: {name} {difference.replace(' [', f' against {against} [')}"


def _forgotten(comparison: Comparison, name: str, part: Section) -> Iterator[str]:
    """One sentence on the retention suite for a stage that was compared with its start."""
    start = root_of(comparison["stages"], name)
    contrasts = [c for c in comparison["contrasts"] if part.holds(c) and (c["of"], c["against"]) == (name, start)]
    if name == start or not contrasts:
        return
    if all(verdict(c) == "few" for c in contrasts):
        yield f"{name}: too few retention tasks to tell what was forgotten"
        return
    lost = [
        f"{part.label(c['evaluation'])} {format_difference(c, c['evaluation'] in part.shares)}"
        for c in contrasts
        if is_loss(c)
    ]
    if lost:
        yield f"{name}: retention is worse than that of {start}: {'; '.join(lost)}"
    else:
        yield f"{name}: no forgetting shown against {start}"


def _cost(stage: Spent) -> str:
    tokens, flops = format_quantity(stage["tokens"]), format_quantity(stage["flops"])
    return f"{stage['seconds']:.0f} s, {tokens} tokens, {flops} FLOPs"
