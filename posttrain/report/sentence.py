"""Which stage of a comparison is best, in one sentence that claims no more than its intervals show."""

from __future__ import annotations

from dataclasses import dataclass

from posttrain.report.words import format_difference, verdict
from posttrain.runs.comparison import Contrast, Lead, Section, root_of
from posttrain.wording import TOO_FEW, format_interval, format_number

MAY_BE_CHANCE = "may be chance"


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
