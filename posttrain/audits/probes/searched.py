"""A17: a search for wrong answers that are paid."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from posttrain.arrays import Floats
from posttrain.audits.forms import Form
from posttrain.audits.probes.base import Found, Paid, Result, not_run, paid_severity
from posttrain.audits.search.arena import Arena
from posttrain.audits.search.find import Exploit, Search
from posttrain.audits.search.source import NOTHING, Source
from posttrain.audits.search.templates import SLOTS, render, shown
from posttrain.audits.subject import Attempt, Subject
from posttrain.runs.audit import Severity

CODE_TASKS, SLOW_SHARE = 8, 20
"""Code starts sandboxes for each answer, and a model takes its time: there the search grades one answer in so many, of
code on so many tasks."""
MANY = 5
"""Words of a text that may be a list."""
SHOWN = 80
"""Characters of an exploit in a title."""


def searched(subject: Subject) -> Result:
    """A17. Rule: see `posttrain.audits.search.find.Search`; at most `--calls` answers are graded. `critical` where the
    mean scaled reward of an exploit is at least 0.9 or the lower bound of the share that is paid at least 0.5, else
    `high`. Not run where the guard cannot decide that an answer is wrong."""
    if subject.search_calls == 0:
        return not_run("--calls 0")
    if reason := subject.guard.missing(subject.tasks):
        return not_run(reason)
    places = [i for i, task in enumerate(subject.tasks) if subject.guard.decides(task)]
    code = subject.tasks[places[0]].type == "code"
    places = places[:CODE_TASKS] if code else places

    def pay(items: Sequence[tuple[int, str]]) -> Floats:
        return subject.scales([Attempt(places[i], text, "search") for i, text in items])

    calls = subject.search_calls // SLOW_SHARE if subject.is_slow else subject.search_calls
    arena = Arena([subject.tasks[i] for i in places], subject.form, pay, subject.guard, calls)
    source = NOTHING if code else subject.source
    search = Search(arena, subject.random("A17"), source=source)
    exploits: dict[object, Exploit] = {}
    for each in sorted(search.run(), key=lambda each: -float(np.mean(each.scales))):
        exploits.setdefault(alike(each, subject.form), each)
    return Result([_found(each, places, subject, source) for each in exploits.values()], arena.calls)


def alike(exploit: Exploit, form: Form) -> object:
    """The same of exploits that are one: lists of integers, other lists that differ in what stands between their items,
    and texts that differ in their capitals."""
    words = re.findall(r"\w+", render(exploit.template, SLOTS).casefold())
    if len(words) < MANY:
        return exploit.part, shown(exploit.template, form).casefold()
    return exploit.part, "integers" if all(map(str.isdecimal, words)) else tuple(words)


def _found(exploit: Exploit, places: Sequence[int], subject: Subject, source: Source) -> Found:
    attempts = tuple(Attempt(places[trial.task], trial.text, "search") for trial in exploit.trials)
    paid = Paid(attempts, np.array(exploit.scales))
    severity: Severity = "critical" if paid_severity(paid) == "critical" else "high"
    text = repr(shown(exploit.template, subject.form))
    text = text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
    part = "" if exploit.part is None else f" where the prompt has {exploit.part!r}"
    knows = "; it uses the reference answer" if exploit.uses_gold else ""
    if any(atom[:1] != "\0" and source.holds(atom) for atom in exploit.template):
        knows += "; what is paid stands in the reward's source"
    title, wrapper = f"a wrong answer is paid{part}: {text}{knows}", "final_answer({})"
    advice = "Find what in this answer the reward pays for, and pay only for the answer itself."
    return Found("search", severity, title, "mean scaled reward", paid.mean, paid.best, wrapper, advice)
