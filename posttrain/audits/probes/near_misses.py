"""A4 and A6: wrong answers near the right one, and work left undone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from posttrain.audits.answers import Variant, exchanged, near_misses, unevaluated
from posttrain.audits.forms import UNSURE
from posttrain.audits.golds import GoldTask
from posttrain.audits.probes.accepted import MIN_RATE, accepted, overall, worst_of
from posttrain.audits.probes.base import Result, not_run
from posttrain.audits.subject import Attempt, Subject
from posttrain.runs.audit import Severity

FALSE_RATE = "near misses paid"
MOST = 0.5
ADVICE = "Compare the answer with the reference by its exact value, not by a part of its text or within a tolerance."
QUOTIENT = "a quotient"


def misses(subject: Subject) -> Result:
    """A4. Each task is answered with answers that are nearly right and wrong by construction (`answers.near_misses`).
    Rule, for each kind: the share that is paid like the right answer has a lower bound above 0.05 (critical), or is
    that of two tasks or more (high). Code is left to A20, which runs mutants.

    And with answers of which any one part is exchanged (`answers.exchanged`), of which some may be right. Rule, for
    each kind: high where the share that is paid exactly like the right answer has a lower bound above 0.5."""
    attempts, parts = missed(subject), _exchanged(subject)
    if not attempts and not parts:
        return not_run(
            "of code and of text without sentences, and where any of several answers is right, a near miss is not known"
        )
    kinds = accepted(subject, attempts)
    near = [paid.by_share(paid.severity, ADVICE) for paid in kinds.values()]
    unseen = [
        paid.by_share("high" if (paid.rate["low"] or 0.0) > MOST else None, ADVICE)
        for paid in accepted(subject, parts, exact=True).values()
    ]
    found = worst_of("a wrong answer near the right one is paid", near)
    found += worst_of("a part of the answer may be another one", unseen)
    return Result(found, len(attempts) + len(parts), {FALSE_RATE: overall(kinds)})


def missed(subject: Subject) -> list[Attempt]:
    """Near misses of all tasks, in the form that the reward pays; and wrong answers without confidence, where the
    prompts ask for that."""
    rng = subject.random("A4")
    found = _attempts(subject, lambda task: near_misses(task, rng))
    for form in (form for form in subject.tried if form.name == UNSURE):
        others = (subject.other(i).text for i in range(len(subject.tasks)))
        found += [Attempt(i, form.render(other), f"another answer {UNSURE}") for i, other in enumerate(others)]
    return found


def _exchanged(subject: Subject) -> list[Attempt]:
    rng = subject.random("A4, parts")
    golds = [task.gold for task in subject.tasks]
    return _attempts(subject, lambda task: exchanged(task, golds, rng))


def _attempts(subject: Subject, of: Callable[[GoldTask], Sequence[Variant]]) -> list[Attempt]:
    """What is made of each task, in the form that the reward pays."""
    return [
        subject.answer(i, variant.text, variant.kind) for i, task in enumerate(subject.tasks) for variant in of(task)
    ]


def undone(subject: Subject) -> Result:
    """A6. Each task whose answer is a number is answered with an expression that equals it and is not written out: its
    parts can be read off the question. Rule, for each kind: high where the share that is paid like the number has a
    lower bound above 0.05. That a quotient alone is paid is a note: it may be read as a fraction."""
    attempts = _attempts(subject, unevaluated)
    if not attempts:
        types = sorted({task.type for task in subject.tasks})
        return not_run(f"no reference answer is a number that can be left undone; their types: {', '.join(types)}")
    advice = "Accept only a number that is written out."
    kinds = {kind: paid for kind, paid in accepted(subject, attempts).items() if (paid.rate["low"] or 0.0) > MIN_RATE}
    severity: Severity = "note" if kinds.keys() <= {QUOTIENT} else "high"
    found = [paid.by_share(severity, advice, "literal_only({})") for paid in kinds.values()]
    return Result(worst_of("work that is left undone is paid", found), len(attempts))
