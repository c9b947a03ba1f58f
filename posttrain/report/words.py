"""What a comparison says in words: verdicts, findings, and which stage is best, in a sentence that claims no more than
its intervals show."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from posttrain.config.evaluation import RETENTION_SUITE
from posttrain.runs.comparison import Comparison, Contrast, Lead, Section, Spent, Worth, root_of, sections
from posttrain.runs.records import PERPLEXITY
from posttrain.stats import FEW_TASKS
from posttrain.wording import TOO_FEW, format_interval, format_number, format_quantity

MAY_BE_CHANCE = "may be chance"
WORTH = "what the reward was worth"
PAID_FOR = {
    "coin": "by chance",
    "majority": "for the most frequent answer of its group",
    "format": "for the form of an answer alone",
}
"""What a control was paid for, see the option `control` of `rl`."""


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
    """What the comparison shows, in sentences: `findings`, `worth`, `caveats`, what it cost, what was not evaluated."""
    stages = comparison["stages"]
    sentences = [*findings(comparison), *worth(comparison), *caveats(comparison)]
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


def worth(comparison: Comparison) -> list[str]:
    """What the reward itself was worth: each run against its controls."""
    return [
        f"{WORTH}: {_worth(c, part)}"
        for part in sections(comparison)
        for c in comparison.get("worth", ())
        if part.holds(c) and c["evaluation"] == part.headline
    ]


def _worth(c: Worth, part: Section) -> str:
    same = f"{c['against']}, the same run paid {PAID_FOR[c['control']]}"
    name, share = part.label_of_suite(c["evaluation"]), c["evaluation"] in part.shares
    difference = format_difference(c, share)
    match verdict(c):
        case "few":
            return f"{TOO_FEW} ({c['n']}) to tell {c['of']} from {same}"
        case "none":
            return f"no difference in {name} shown between {c['of']} and {same} ({difference})"
        case "up":
            return f"{name} {difference}, {c['of']} over {same}"
        case _:
            return f"{name} {difference}, {c['of']} below {same}"


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


# -- which stage is best -----------------------------------------------------------------------------------------------


def winner(part: Section) -> str | None:
    """The stage that is better than every other of this section by intervals that hold together; None where there is
    none."""
    lead = part.lead
    if lead is None or part.apart or part.headline is None:
        return None
    rivals = len(part.ranked) - 1
    separated = rivals > 0 and len(lead["others"]) == rivals and all(verdict(c) == "up" for c in lead["others"])
    return lead["of"] if separated else None


@dataclass(frozen=True)
class Sentence:
    """What the highest stage of a section can be said to be."""

    part: Section
    lead: Lead

    def text(self) -> str:
        top, trained = self.lead["of"], highest_trained(self.part)
        if trained is None:
            return self._untrained()
        if top == trained:
            return self._trained_on_top(top)
        gain = self.lead.get("gain")
        if top == root_of(self.part.comparison["stages"], trained):
            if gain is None:
                return f"Training raised nothing that is shown: {self._scored(top)}, the start, is the highest."
            return (
                f"Training did not raise {self._label()}: the highest trained stage, {self._scored(trained)}, is at "
                f"{self._difference(gain, 'against')}{self._chance(gain)}."
            )
        over = f", {self._difference(gain)}{self._chance(gain)}" if gain else ""
        return f"{self._untrained()[:-1]}; the highest that was trained here is {self._scored(trained)}{over}."

    def _untrained(self) -> str:
        """Of stages none of which is another's start, or where the highest was not trained here."""
        top, others = self.lead["of"], self.lead["others"]
        if len(self.part.ranked) == 1 and (e := self.part.estimate(top)):
            interval = format_interval(e["low"], e["high"], self._share())
            return f"{self._scored(top)} {interval}; there is nothing to compare it with."
        if winner(self.part):
            return f"{top} is best: {self._value(top)}, ahead of {self._next(others)}."
        return f"{top} scored highest, {self._value(top)}; {self._unsure()}."

    def _trained_on_top(self, top: str) -> str:
        start, gain = root_of(self.part.comparison["stages"], top), self.lead.get("gain")
        if gain is None:
            why = "was not evaluated" if self.part.estimate(start) is None else "cannot be compared with it"
            return f"{self._untrained()[:-1]}. Its start, {start}, {why}."
        if verdict(gain) == "few":
            return (
                f"{top} scored highest, {self._value(top)}, {self._difference(gain)}, but {gain['n']} "
                f"{'task is' if gain['n'] == 1 else 'tasks are'} too few to tell."
            )
        if verdict(gain) != "up":
            return (
                f"No gain over {start} is shown: {top} scored highest, {self._value(top)}, but its "
                f"{self._difference(gain)}{self._chance(gain)}."
            )
        alone = [c for c in self.lead["others"] if c["against"] != start]
        if not alone:
            return f"{top} is better than {start}: {self._value(top)}, {self._difference(gain)}."
        if winner(self.part):
            return f"{top} is best: {self._value(top)}, {self._difference(gain)}, and ahead of {self._next(alone)}."
        return f"{top} scored highest, {self._value(top)}, {self._difference(gain)}; {self._unsure()}."

    def _unsure(self) -> str:
        """Of which stages the highest is not separated: the next in full, how many more."""
        top, others = self.lead["of"], self.lead["others"]
        compared = {c["against"]: c for c in others}
        open_ones = [name for name in self.part.ranked[1:] if name not in compared or verdict(compared[name]) != "up"]
        first, more = open_ones[0], len(open_ones) - 1
        beyond = f" and over {open_ones[1] if more == 1 else f'{more} other stages'}" if more else ""
        c = compared.get(first)
        if c is None:
            return f"{top} and {first} cannot be compared"
        shown = format_difference(c, self._share()).removeprefix("+")
        if verdict(c) == "few":
            return f"its lead over {first}, {shown.partition(' [')[0]},{beyond} rests on too few tasks to tell"
        return f"its lead over {first}, {shown},{beyond} {MAY_BE_CHANCE}"

    def _next(self, others: list[Contrast]) -> str:
        first = others[0]
        by = format_difference(first, self._share()).removeprefix("+")
        if len(others) == 1:
            return f"{first['against']} by {by}"
        return f"every other stage (next: {first['against']}, by {by})"

    def _difference(self, c: Contrast, word: str = "over") -> str:
        shown = format_difference(c, self._share()).removesuffix(f" [{TOO_FEW}]")
        head, bracket, rest = shown.partition(" [")
        return f"{head} {'against' if shown.startswith('-') else word} {c['against']}{bracket}{rest}"

    def _chance(self, c: Contrast) -> str:
        return {"none": f" {MAY_BE_CHANCE}", "few": f" ({c['n']} tasks: too few to tell)"}.get(verdict(c), "")

    def _scored(self, stage: str) -> str:
        return f"{stage} with {self._value(stage)}"

    def _value(self, stage: str) -> str:
        return f"{self._label()} {value_of(self.part, stage)}"

    def _label(self) -> str:
        return self.part.label_of_suite(self.part.headline or "")

    def _share(self) -> bool:
        return self.part.headline in self.part.shares


def highest_trained(part: Section) -> str | None:
    return next((stage for stage in part.ranked if part.comparison["stages"][stage]["parent"] is not None), None)


def value_of(part: Section, stage: str) -> str:
    """The headline value of a stage, `–` where it has none."""
    e, share = part.estimate(stage), part.headline in part.shares
    return "–" if e is None or e["value"] is None else format_number(e["value"], share) + ("%" if share else "")
