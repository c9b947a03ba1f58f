"""Which stage of a comparison is best, in one sentence that claims no more than its intervals show."""

from __future__ import annotations

from dataclasses import dataclass

from posttrain.report.words import format_difference, verdict
from posttrain.runs.comparison import Comparison, Contrast, Lead, Section, ranked, root_of
from posttrain.wording import TOO_FEW, format_interval, format_number

MAY_BE_CHANCE = "may be chance"


def winner(comparison: Comparison, part: Section) -> str | None:
    """The stage that is better than every other of this section by intervals that hold together; None where there is
    none."""
    lead = comparison.get("leads", {}).get(part.suite)
    if lead is None or part.apart or part.headline is None:
        return None
    rivals = len(ranked(comparison["stages"], part.headline)) - 1
    separated = rivals > 0 and len(lead["others"]) == rivals and all(verdict(c) == "up" for c in lead["others"])
    return lead["of"] if separated else None


@dataclass(frozen=True)
class Sentence:
    """What the highest stage of a section can be said to be."""

    comparison: Comparison
    part: Section
    lead: Lead

    def text(self) -> str:
        top, trained = self.lead["of"], highest_trained(self.comparison, self.part)
        if trained is None:
            return self._untrained()
        if top == trained:
            return self._trained_on_top(top)
        gain = self.lead.get("gain")
        if top == root_of(self.comparison["stages"], trained):
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
        if len(ranked(self.comparison["stages"], self._headline())) == 1:
            return f"{self._scored(top)} {self._interval(top)}; there is nothing to compare it with."
        if winner(self.comparison, self.part):
            return f"{top} is best: {self._value(top)}, ahead of {self._next(others)}."
        return f"{top} scored highest, {self._value(top)}; {self._unsure()}."

    def _trained_on_top(self, top: str) -> str:
        stages, others = self.comparison["stages"], self.lead["others"]
        start, gain = root_of(stages, top), self.lead.get("gain")
        if gain is None:
            known = stages[start]["evaluations"].get(self._headline())
            why = "was not evaluated" if known is None else "cannot be compared with it"
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
        alone = [c for c in others if c["against"] != start]
        if not alone:
            return f"{top} is better than {start}: {self._value(top)}, {self._difference(gain)}."
        if winner(self.comparison, self.part):
            return f"{top} is best: {self._value(top)}, {self._difference(gain)}, and ahead of {self._next(alone)}."
        return f"{top} scored highest, {self._value(top)}, {self._difference(gain)}; {self._unsure()}."

    def _unsure(self) -> str:
        """Of which stages the highest is not separated: the next in full, how many more."""
        top, others = self.lead["of"], self.lead["others"]
        compared = {c["against"]: c for c in others}
        rivals = ranked(self.comparison["stages"], self._headline())[1:]
        open_ones = [name for name in rivals if name not in compared or verdict(compared[name]) != "up"]
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
        return f"{self._label()} {value_of(self.comparison, self.part, stage)}"

    def _interval(self, stage: str) -> str:
        e = self.comparison["stages"][stage]["evaluations"][self._headline()]
        return format_interval(e["low"], e["high"], self._share())

    def _label(self) -> str:
        return self.part.label_of_suite(self._headline())

    def _headline(self) -> str:
        assert self.part.headline is not None
        return self.part.headline

    def _share(self) -> bool:
        return self.part.headline in self.part.shares


def highest_trained(comparison: Comparison, part: Section) -> str | None:
    order = ranked(comparison["stages"], part.headline or "")
    return next((name for name in order if comparison["stages"][name]["parent"] is not None), None)


def value_of(comparison: Comparison, part: Section, stage: str) -> str:
    value = comparison["stages"][stage]["evaluations"][part.headline or ""]["value"]
    share = part.headline in part.shares
    return "–" if value is None else format_number(value, share) + ("%" if share else "")
