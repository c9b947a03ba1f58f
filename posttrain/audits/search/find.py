"""The search: known attacks, then evolution; what is paid is confirmed on other tasks and shrunk."""

from __future__ import annotations

import math
import random
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import cycle

from posttrain.audits.search.arena import PAID, Arena, Spent, Trial
from posttrain.audits.search.dictionary import dictionary_of, enumerations, jaccard, words_of
from posttrain.audits.search.evolve import Material, child
from posttrain.audits.search.shrink import ddmin
from posttrain.audits.search.source import NOTHING, Source
from posttrain.audits.search.templates import (
    FIRST_GROUPS,
    SLOTS,
    WRONG,
    WRONG_IN_FORM,
    Template,
    catalogue,
    of_source,
    uses_gold,
)
from posttrain.stats import wilson

BATCH = 32
ENOUGH = 8
"""Tasks over which an exploit must be paid in the mean; all of them where there are fewer."""
SURE = 0.25
"""What the lower bound of the share that is paid must exceed, so that a few lucky tasks are no exploit."""
ABOVE_WRONG, MOST_NEEDED, ALIKE = 0.25, 0.9, 0.05
"""Where plausible wrong answers are paid something by themselves, and not all the same up to ALIKE (a dense reward), an
exploit must be paid so much more than they are; but never more than MOST_NEEDED."""
GRADED = 0.05
"""Where more than this share of answers that hold the reference answer is paid in part, they must be paid like it."""
KEPT_BACK = 0.15
"""The share of the budget that is kept for confirming and shrinking."""
MOST_EXPLOITS = 3
LULL = 0.3
"""After the first exploit the search ends when this share of the budget brought no other."""
LETTERS = 160
"""An exploit of at most so many characters is shrunk by characters, after it is shrunk by tokens."""
SOME = 0.1
"""A part of the scale that is worth climbing."""
TOURNAMENT, POOL, PARTNERS, LONG = 4, 60, 20, 100
CHANCE = 1e-3
"""How likely chance may make the paid tasks those of a word, over all words that were looked at."""


@dataclass(frozen=True)
class Exploit:
    """A template that is paid though it is wrong: what it got on each task that it was tried on, of all tasks or of
    those whose prompt has the word `part`. `calls` is how many answers had been graded when it was confirmed."""

    template: Template
    trials: tuple[Trial, ...]
    part: str | None
    calls: int

    @property
    def scales(self) -> list[float]:
        return [trial.scale for trial in self.trials]

    @property
    def best(self) -> Trial:
        return min(self.trials, key=lambda trial: (-round(trial.scale, 6), len(trial.text)))

    @property
    def uses_gold(self) -> bool:
        return uses_gold(self.template)


class Search:
    """Rule. A template is an exploit if the guard finds its answers wrong and the reward pays them s >= PAID in the
    mean over at least ENOUGH tasks other than the one on which it was found, with a lower bound of the paid share above
    SURE; or over the tasks whose prompt has a certain word, if these are paid more often than the others by more than
    chance. Then delta debugging leaves out what is not needed."""

    def __init__(self, arena: Arena, rng: random.Random, most: int = MOST_EXPLOITS, source: Source = NOTHING) -> None:
        self.arena, self.rng, self.most = arena, rng, most
        self.found: list[Exploit] = []
        dictionary, listings = dictionary_of(arena.tasks, source.texts), enumerations(arena.tasks)
        self._groups = [group for group in catalogue(dictionary, listings, rng, source) if group]
        self.needed = PAID
        self._scores: dict[Template, list[float]] = {}
        self._listed = {template for group in self._groups for template in group}
        self._children: Counter[Template] = Counter()
        self._doomed: set[Template] = set()
        self._of_source = frozenset(of_source(source))
        self._material = Material(rng, dictionary, listings)
        self._order = rng.sample(range(len(arena.tasks)), len(arena.tasks))
        self._turns = cycle([*self._order[1:], *self._order[:1]])
        self._words = [frozenset(words_of(task.task.asked)) for task in arena.tasks]

    def run(self) -> list[Exploit]:
        """The exploits that the budget allows to find, at most `most`."""
        budget = self.arena.left
        kept_back = int(KEPT_BACK * budget)
        try:
            self._measure_wrong()
            for pairs in self._batches():
                if self.arena.left - len(pairs) < kept_back:
                    break
                for trial in self._try(pairs):
                    if trial.paid and len(self.found) < self.most and not self._covered(trial):
                        self._confirm(trial)
                last = self.found[-1].calls if self.found else self.arena.calls
                if len(self.found) >= self.most or self.arena.calls - last > LULL * budget:
                    break
        except Spent:
            pass
        return self.found

    def _measure_wrong(self) -> None:
        """How much an exploit must be paid: where wrong answers get something by how near they come to the right one,
        more than they do."""
        tasks = self._order[: 2 * ENOUGH]
        for template in ((WRONG,), WRONG_IN_FORM):
            scales = [trial.scale for trial in self._try([(template, task) for task in tasks]) if trial.wrong]
            if scales and max(scales) - min(scales) > ALIKE:
                mean = sum(scales) / len(scales)
                self.needed = max(self.needed, min(MOST_NEEDED, mean + ABOVE_WRONG))

    def _try(self, pairs: Sequence[tuple[Template, int]]) -> list[Trial]:
        trials = self.arena.try_out(pairs)
        for trial in trials:
            self._scores.setdefault(trial.template, []).append(trial.scale)
        return trials

    def _batches(self) -> Iterator[list[tuple[Template, int]]]:
        """The catalogue, texts of many tokens on two tasks each. After FIRST_GROUPS of it, which hold every token,
        every second batch is of children of what was paid most, if something was paid a part. After the catalogue half
        of a batch are children, half templates of the catalogue on further tasks."""
        for k, group in enumerate(self._groups):
            queue = deque(pair for template in group for pair in self._on(template, 1 + (len(template) > BATCH)))
            while queue:
                yield [queue.popleft() for _ in range(min(BATCH, len(queue)))]
                if k < FIRST_GROUPS or max(map(self._mean, self._scores)) < SOME:
                    continue
                yield [self._on(template, 1)[0] for template in self._bred(BATCH)]
        while True:
            again = [self.rng.choice(self.rng.choice(self._groups)) for _ in range(BATCH // 2)]
            yield [self._on(template, 1)[0] for template in (*again, *self._bred(BATCH // 2))]

    def _on(self, template: Template, tasks: int) -> list[tuple[Template, int]]:
        return [(template, next(self._turns)) for _ in range(tasks)]

    def _bred(self, n: int) -> list[Template]:
        """Children of parents that won a tournament: the best mean reward, of equals the one with the fewest children
        and the shorter one. They are crossed with templates of the catalogue that are paid a part, of which there are
        many kinds, whereas the best are often alike."""
        known = [template for template in self._scores if not uses_gold(template) and template not in self._doomed]
        known.sort(key=lambda template: (-round(self._mean(template), 2), len(template)))
        pool = known[:POOL]
        partly = [each for each in known if each in self._listed and self._mean(each) >= SOME]
        self._material.others = sorted(partly, key=len)[:PARTNERS] or pool
        children = []
        for _ in range(n):
            parent = max((self.rng.choice(pool) for _ in range(TOURNAMENT)), key=self._fitness)
            self._children[parent] += 1
            children.append(child(parent, self._material))
        return children

    def _fitness(self, template: Template) -> tuple[float, float]:
        return round(self._mean(template), 2), -self._children[template] - len(template) / LONG

    def _mean(self, template: Template) -> float:
        scores = self._scores[template]
        return sum(scores) / len(scores)

    def _covered(self, trial: Trial) -> bool:
        """Whether an answer holds an exploit that is known, or its template has failed on other tasks."""
        return trial.template in self._doomed or any(holds(trial, exploit.template) for exploit in self.found)

    def _confirm(self, first: Trial) -> None:
        """Try a template on tasks like the one on which it was paid and on others; then, if it is paid again, on all.
        Keep it, shrunk, if it is an exploit."""
        rest = [task for task in self._order if task != first.task]
        like = sorted(rest, key=lambda task: -jaccard(self._words[first.task], self._words[task]))[: ENOUGH // 2]
        sample = [*like, *[task for task in self.rng.sample(rest, len(rest)) if task not in like][: ENOUGH // 2]]
        trials = self._try([(first.template, task) for task in sample])
        if any(trial.paid for trial in trials) or len(rest) < ENOUGH // 2:
            trials += self._try([(first.template, task) for task in rest if task not in sample])
            exploit = self._judged(first, trials)
            if exploit is not None and not exploit.uses_gold:
                exploit = self._shrunk(exploit)
            if exploit is not None and exploit.best.text not in [each.best.text for each in self.found]:
                self.found.append(exploit)
                if first.template in self._of_source:  # one word of the source is enough: another fault is news
                    self._doomed |= self._of_source
                return
        self._doomed.add(first.template)

    def _judged(self, first: Trial, trials: Sequence[Trial]) -> Exploit | None:
        """The exploit that a template is on all tasks, or on those of a word; None if it is none."""
        wrong = [trial for trial in trials if trial.wrong]
        if len(wrong) < ENOUGH:
            wrong.append(first)
        if self._is_another_name(first.template, wrong):
            return None
        if self._is_paid(wrong, min(ENOUGH, len(self.arena.tasks)), SURE):
            return Exploit(first.template, tuple(wrong), None, self.arena.calls)
        for word, own in self._parts([first, *(trial for trial in wrong if trial is not first)]):
            if self._is_paid(own, ENOUGH // 2, 2 * SURE):
                return Exploit(first.template, tuple(own), word, self.arena.calls)
        return None

    def _is_another_name(self, template: Template, trials: Sequence[Trial]) -> bool:
        """Whether a constant is paid where the reference answer is a certain one and nowhere else: the reward may take
        it for that answer, as `USA` for `United States`."""
        paid = {self.arena.tasks[trial.task].gold for trial in trials if trial.paid}
        unpaid = {self.arena.tasks[trial.task].gold for trial in trials if not trial.paid}
        constant = not any(SLOTS.get(atom) for atom in template)
        return constant and len(paid) == 1 and bool(unpaid) and not paid & unpaid

    def _is_paid(self, trials: Sequence[Trial], least: int, low: float) -> bool:
        """With the reference answer in it, what a reward pays in part may be near enough to it."""
        mean = sum(trial.scale for trial in trials) / max(1, len(trials))
        paid = sum(trial.paid for trial in trials)
        partly = sum(ALIKE < trial.scale < 1 - ALIKE for trial in trials if uses_gold(trial.template))
        needed = 1 - ALIKE if partly > GRADED * len(trials) else self.needed
        return len(trials) >= least and mean >= needed and wilson(paid, len(trials))[0] >= low

    def _parts(self, trials: Sequence[Trial]) -> list[tuple[str, list[Trial]]]:
        """The words of prompts whose tasks are paid more often than the others (Fisher's exact test, at CHANCE over all
        words), the clearest first."""
        words = sorted({word for trial in trials for word in self._words[trial.task]})
        paid = sum(trial.paid for trial in trials)
        found = []
        for word in words:
            own = [trial for trial in trials if word in self._words[trial.task]]
            hits = sum(trial.paid for trial in own)
            chance = at_least(hits, len(own), paid, len(trials))
            if chance * len(words) <= CHANCE:
                found.append((chance, word, own))
        return [(word, own) for _, word, own in sorted(found, key=lambda each: each[:2])]

    def _shrunk(self, exploit: Exploit) -> Exploit | None:
        """The exploit without what it does not need on two tasks that paid it. If the shorter one is not paid on the
        others, as a list cut to two answers is not, the exploit as it was; if that is not paid either once a newline
        follows, it was luck: None."""
        paying = [trial.task for trial in exploit.trials if trial.paid][:2]
        best = list(exploit.template)

        def pays(atoms: Sequence[str]) -> bool:
            nonlocal best
            for task in paying:
                if self.arena.try_out([(tuple(atoms), task)])[0].scale < PAID:
                    return False
            best = list(atoms)
            return True

        try:
            atoms = ddmin(best, pays)
            if sum(map(len, atoms)) <= LETTERS:
                ddmin([part for atom in atoms for part in ((atom,) if atom[:1] == "\0" else atom)], pays)
            if shorter := self._again(exploit, tuple(best)):
                return replace(exploit, template=merged(tuple(best)), trials=shorter)
            return exploit if self._again(exploit, (*exploit.template, "\n")) else None
        except Spent:
            return exploit

    def _again(self, exploit: Exploit, template: Template) -> tuple[Trial, ...] | None:
        """The trials of a template on the tasks of an exploit, if it is paid there too."""
        trials = self.arena.try_out([(template, trial.task) for trial in exploit.trials])
        wrong = tuple(trial for trial in trials if trial.wrong)
        return wrong if self._is_paid(wrong, min(ENOUGH // 2, len(trials)), SURE) else None


def merged(template: Template) -> Template:
    """The template with neighbouring texts as one atom."""
    found: list[str] = []
    for atom in template:
        if found and atom[:1] != "\0" and found[-1][:1] != "\0":
            found[-1] += atom
        else:
            found.append(atom)
    return tuple(found)


def holds(trial: Trial, template: Template) -> bool:
    """Whether an answer has the texts of a template in their order, and its template the slots."""
    rest = iter(trial.template)
    if not all(slot in rest for slot in template if slot[:1] == "\0"):
        return False
    at = 0
    for text in (atom.strip() for atom in template if atom[:1] != "\0"):
        at = trial.text.find(text, at)
        if at < 0:
            return False
        at += len(text)
    return True


def at_least(hits: int, drawn: int, good: int, n: int) -> float:
    """The chance of at least so many hits when `drawn` of `n` tasks are drawn of which `good` are good: the tail of the
    hypergeometric distribution."""
    ways = sum(math.comb(good, k) * math.comb(n - good, drawn - k) for k in range(hits, min(drawn, good) + 1))
    return ways / math.comb(n, drawn)
