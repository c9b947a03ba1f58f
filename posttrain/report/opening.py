"""How the page of a comparison opens: one sentence on which stage is best, three numbers, and what was forgotten."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from posttrain.config.evaluation import RETENTION_SUITE
from posttrain.report.words import (
    MAY_BE_CHANCE,
    Sentence,
    format_difference,
    highest_trained,
    is_loss,
    value_of,
    verdict,
    winner,
)
from posttrain.runs.comparison import Comparison, Contrast, Lead, Section, Spent, root_of, sections
from posttrain.runs.records import Cost
from posttrain.wording import format_estimate, format_interval, format_quantity


@dataclass(frozen=True)
class Number:
    """A number in large type: what it is, the number, and what belongs to it."""

    label: str
    value: str
    note: str


@dataclass(frozen=True)
class Opening:
    """The first lines of a page. `warnings` are what a reader must know beside the sentence; `note` says how the
    intervals here were made."""

    sentence: str
    numbers: tuple[Number, ...]
    warnings: tuple[str, ...] = ()
    reassurance: str = ""
    note: str = ""


def comparison_opening(comparison: Comparison) -> Opening:
    """The opening of a comparison, by its first suite that has a headline."""
    parts = [p for p in sections(comparison) if p.headline and p.suite != RETENTION_SUITE]
    total = _total(comparison)
    if not parts:
        return Opening(_nothing_evaluated(comparison), (total,))
    part, *others = parts
    if part.apart:
        sentence = "No run can be called best: their evaluations were not made alike, so a difference says nothing."
        return Opening(sentence, (total,))
    lead = part.lead
    if lead is None:
        sentence = "Which stage is best was not worked out: compare.json holds no lead. Run the comparison again."
        return Opening(sentence, (total,))
    warnings, reassurance = _forgetting(comparison, highest_trained(part))
    return Opening(
        Sentence(part, lead).text(),
        _numbers(part, lead),
        (*warnings, *_other_suites(part, others)),
        reassurance,
        _note(lead),
    )


# -- numbers ----------------------------------------------------------------------------------------------------------


def _numbers(part: Section, lead: Lead) -> tuple[Number, ...]:
    shown = highest_trained(part) or lead["of"]
    e = part.estimate(shown)
    assert part.headline is not None and e is not None
    interval = format_interval(e["low"], e["high"], part.headline in part.shares)
    best = winner(part) == shown
    kind = "Best" if best else "Highest" if shown == lead["of"] else "Highest trained"
    if len(part.ranked) == 1:
        kind = "Score"
    note = f"{part.label_of_suite(part.headline)} {interval}" + ("" if best or kind == "Score" else ", no winner")
    score = Number(f"{kind}: {shown}", value_of(part, shown), note)
    return score, _gain(part, lead, shown), _cost(part.comparison, shown)


def _gain(part: Section, lead: Lead, shown: str) -> Number:
    gain = lead.get("gain")
    if gain is None:
        start = root_of(part.comparison["stages"], shown)
        return Number(
            "Gain over its start", "–", "its start is not here" if start == shown else f"{start} not measured"
        )
    value, _, interval = format_difference(gain, part.headline in part.shares).partition(" [")
    said = f", {MAY_BE_CHANCE}" if verdict(gain) == "none" else ""
    start = f"from {value_of(part, gain['against'])}"
    return Number(f"Gain over {gain['against']}", value, f"[{interval}{said}, {start}")


def _cost(comparison: Comparison, stage: str) -> Number:
    """What the stage and everything it was trained from cost, the start's own past left out."""
    stages, line = comparison["stages"], [stage]
    while (parent := stages[line[-1]]["parent"]) is not None:
        line.append(parent)
    trained = [name for name in line[::-1] if stages[name]["parent"] is not None] or [stage]
    label = " + ".join(trained) if len(trained) < 3 else f"{trained[0]} to {trained[-1]}"
    return cost_number(f"Cost of {label}", _sum(stages[name] for name in trained))


def _total(comparison: Comparison) -> Number:
    stages = list(comparison["stages"].values())
    return cost_number("Cost of all stages", _sum([comparison["total"]] if "total" in comparison else stages))


def cost_number(label: str, cost: Cost) -> Number:
    """Seconds in large type, floating-point operations and tokens beside it."""
    return Number(label, f"{cost.seconds:,.0f} s", f"{format_flop(cost.flops)}, {format_quantity(cost.tokens)} tokens")


def _sum(costs: Iterable[Spent]) -> Cost:
    return Cost.total(Cost(seconds=c["seconds"], tokens=c["tokens"], flops=c["flops"]) for c in costs)


def format_flop(flops: float) -> str:
    """`170 TFLOP`: counted operations, no rate."""
    number = format_quantity(flops)
    return f"{number[:-1]} {number[-1]}FLOP" if number[-1].isalpha() else f"{number} FLOP"


# -- beside the sentence ----------------------------------------------------------------------------------------------


def _nothing_evaluated(comparison: Comparison) -> str:
    trained = [name for name, s in comparison["stages"].items() if s["parent"] is not None]
    names = ", ".join(trained or comparison["stages"])
    return f"Nothing was evaluated, so no stage can be called better than another; below is how {names} trained."


def _forgetting(comparison: Comparison, shown: str | None) -> tuple[list[str], str]:
    """Warnings of what was forgotten beyond the noise, that of the stage in the sentence first; without any, what the
    retention suite says of it."""
    losses: dict[str, list[str]] = {}
    measured: dict[str, list[Contrast]] = {}
    for part in sections(comparison):
        for c in comparison["contrasts"]:
            start = root_of(comparison["stages"], c["of"])
            if part.suite == RETENTION_SUITE and part.holds(c) and c["against"] == start:
                measured.setdefault(c["of"], []).append(c)
                if is_loss(c):
                    losses.setdefault(c["of"], []).append(_lost(part, c))
    if shown in losses:
        also = [f"{name} lost {'; '.join(lost)}" for name, lost in losses.items() if name != shown]
        of_shown = f"{shown} lost some of what it was not trained on: {'; '.join(losses[shown])}"
        return [f"Forgetting: {'. '.join([of_shown, *also])}."], ""
    if losses:
        return [f"Forgetting: {name} lost {'; '.join(lost)}." for name, lost in losses.items()], ""
    if shown not in measured:
        return [], ""
    if all(verdict(c) == "few" for c in measured[shown]):
        return [], f"Too few retention tasks to tell whether {shown} forgot anything."
    return [], f"No forgetting of {shown} is shown by the retention suite."


def _lost(part: Section, c: Contrast) -> str:
    share = c["evaluation"] in part.shares
    unit = "%" if share else ""
    values = [part.comparison["stages"][s]["evaluations"].get(c["evaluation"]) for s in (c["against"], c["of"])]
    before, after = (format_estimate(e, share).partition(" ")[0] for e in values)
    return f"{part.label(c['evaluation'])} {before}{unit} → {after}{unit} ({format_difference(c, share)})"


def _other_suites(first: Section, others: list[Section]) -> Iterator[str]:
    """A word on further suites: who is best there, where the first one shows nobody to be or another one."""
    ahead = winner(first)
    for part in others:
        best = winner(part)
        if best is not None and ahead is None:
            yield f"On {part.suite} {best} is best."
        elif best is not None and best != ahead:
            yield f"On {part.suite} another stage is best: {best}."


def _note(lead: Lead) -> str:
    if lead["comparisons"] == 1:
        return "Brackets hold 95% intervals over tasks."
    return (
        f"The highest of several is partly the luckiest, so the intervals of differences in these lines are wider than "
        f"those below: all {lead['comparisons']} differences to the highest hold together with 95% (Bonferroni)."
    )
