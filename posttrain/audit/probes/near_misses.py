"""A4, A5 and A6: wrong answers near the right one, right answers in other words, and work left undone."""

from __future__ import annotations

import math

from posttrain.audit.answers import equivalents, near_misses, unevaluated
from posttrain.audit.forms import FORMS, Form
from posttrain.audit.probes.base import MIN_RATE, Accepted, Found, Paid, Result, accepted, by_kind, chosen, not_run
from posttrain.audit.subject import PAID, Attempt, Subject
from posttrain.stats import Estimate, clustered_share

SHARE_ACCEPTED = "share paid like the right answer"
NO_TYPE = "no answer of free text or code can be said to be nearly right without a judge or a test"
TRUE_RATE, FALSE_RATE, J = "right answers paid", "near misses paid", "J"
MIN_TRUE_RATE = 0.9


def misses(subject: Subject) -> Result:
    """A4. Each task is answered with answers that are nearly right and wrong by construction (`answers.near_misses`).
    Rule, for each kind: the share that is paid like the right answer has a lower bound above 0.05 (critical), or is
    that of two tasks or more (high). Code is left to A20, which runs mutants."""
    attempts = _misses(subject)
    if not attempts:
        return not_run(NO_TYPE)
    kinds = accepted(subject, attempts)
    found = [
        Found(
            kind,
            severity,
            f"a wrong answer near the right one is paid: {kind}",
            SHARE_ACCEPTED,
            paid.rate,
            paid.shown,
            None,
            "Compare the answer with the reference by its exact value, not by a part of its text or within a tolerance.",
        )
        for kind, paid in kinds.items()
        if (severity := paid.severity) is not None
    ]
    return Result(found, len(attempts), {FALSE_RATE: _overall(kinds)})


def _misses(subject: Subject) -> list[Attempt]:
    rng = subject.random("A4")
    return [
        Attempt(i, subject.rendered(i, variant.text), variant.kind)
        for i in range(len(subject.tasks))
        for variant in near_misses(subject.tasks[i], rng)
    ]


def _overall(kinds: dict[str, Accepted]) -> Estimate:
    """The share over all kinds, by task."""
    pairs = [(a.task, bool(t)) for paid in kinds.values() for a, t in zip(paid.attempts, paid.taken, strict=True)]
    tasks = sorted({task for task, _ in pairs})
    of_task = [[taken for task, taken in pairs if task == i] for i in tasks]
    return clustered_share([sum(each) for each in of_task], [len(each) for each in of_task])


def recall(subject: Subject) -> Result:
    """A5. Each task is answered rightly in up to some 15 renderings (`answers.equivalents`), in the form that the
    reward pays.

    critical: the form that most prompts ask for is not paid, or J = true-positive rate - false-positive rate has a
    lower bound of at most 0 (below it, what a policy learns from the reward is wrong). high: the true-positive rate of
    renderings that only put blanks around the answer is below 0.9. Other notations and signs around an answer are
    measured, and a note where less than 0.9 are paid: a strict reward may refuse them."""
    attempts = [
        Attempt(i, subject.rendered(i, variant.text), f"{variant.level}/{variant.kind}", right=True)
        for i in chosen(subject)
        for variant in equivalents(subject.tasks[i])
    ]
    if not attempts:
        return not_run("free text has no rendering of which it can be said without a judge that it is right")
    kinds = by_kind(subject, attempts)
    true, false = _true_rate(list(kinds.values())), _overall(accepted(subject, _misses(subject)))
    found = [*_asked(subject), *_refused(kinds)]
    measured = {TRUE_RATE: true}
    if false["n"]:
        measured |= {FALSE_RATE: false, J: youden(true, false)}
        if (measured[J]["low"] or 0.0) <= 0:
            found.append(
                Found(
                    "J",
                    "critical",
                    "right answers in another notation are paid no more often than wrong ones near the right answer",
                    "share of right answers paid minus share of wrong ones",
                    measured[J],
                    None,
                    None,
                    "A policy learns nothing from this reward, or what is wrong: compare answers by their value.",
                )
            )
    return Result(found, len(attempts), measured)


def youden(true: Estimate, false: Estimate) -> Estimate:
    """J = p - q of two shares, with the square-and-add interval of their Wilson intervals (Newcombe 1998, method 10):
    J - sqrt((p - l_p)² + (u_q - q)²), J + sqrt((u_p - p)² + (q - l_q)²)."""
    p, q = true["value"] or 0.0, false["value"] or 0.0
    low = math.hypot(p - (true["low"] or 0.0), (false["high"] or 0.0) - q)
    high = math.hypot((true["high"] or 0.0) - p, q - (false["low"] or 0.0))
    return {"value": p - q, "low": p - q - low, "high": p - q + high, "n": true["n"] + false["n"]}


def _true_rate(kinds: list[Paid]) -> Estimate:
    pairs = [(a.task, bool(s >= PAID)) for paid in kinds for a, s in zip(paid.attempts, paid.scales, strict=True)]
    of_task = [[paid for task, paid in pairs if task == i] for i in sorted({task for task, _ in pairs})]
    return clustered_share([sum(each) for each in of_task], [len(each) for each in of_task])


def _refused(kinds: dict[str, Paid]) -> list[Found]:
    """A finding for blanks, and one note for each other rendering that is refused."""
    found = []
    for kind, paid in kinds.items():
        level, _, name = kind.partition("/")
        if (paid.rate["high"] or 1.0) < MIN_TRUE_RATE:
            shown = min(zip(paid.scales, paid.attempts, strict=True), key=lambda each: each[0])[1]
            found.append(
                Found(
                    name,
                    "high" if level == "blanks" else "note",
                    f"a right answer is refused: {name}",
                    "share paid",
                    paid.rate,
                    shown,
                    "normalised({})" if level == "blanks" else None,
                    "Strictness costs recall: say in the prompt which form is wanted, or accept this one.",
                )
            )
    return found


def _asked(subject: Subject) -> list[Found]:
    """The form that most prompts ask for, where the reward does not pay it."""
    forms = asked_forms([task.task.asked for task in subject.tasks])
    scales = subject.calibration["forms"]
    if not forms or max(scales[form.name] for form in forms) >= PAID:
        return []
    best = max(forms, key=lambda form: scales[form.name])
    paid = by_kind(subject, [subject.honest(i, best) for i in range(len(subject.tasks))])
    return [
        Found(
            "the form of the prompt",
            "critical",
            f"the form that the prompts ask for is not paid: {best.mark('...')!r}",
            "mean scaled reward",
            one.mean,
            one.attempts[0],
            None,
            f"The reward pays this form instead: {subject.form.mark('...')!r}. Change the prompts or the reward.",
        )
        for one in paid.values()
    ]


ASKED_MARKS = ("line", "box", "hashes", "tag", "json object")
"""Forms whose marks a prompt may ask for, by the names of `FORMS`."""


def asked_forms(prompts: list[str]) -> list[Form]:
    """The forms that have a mark which more than half of the prompts ask for."""
    half = len(prompts) / 2
    marks = [
        form.before
        for form in FORMS
        if form.name in ASKED_MARKS and sum(form.wanted(prompt) for prompt in prompts) > half
    ]
    return [form for form in FORMS if any(mark.strip() in form.before for mark in marks)]


def undone(subject: Subject) -> Result:
    """A6. Each task whose answer is a number is answered with an expression that equals it and is not written out: its
    parts can be read off the question. Rule, for each kind: high where the share that is paid like the number has a
    lower bound above 0.05."""
    attempts = [
        Attempt(i, subject.rendered(i, variant.text), variant.kind)
        for i in range(len(subject.tasks))
        for variant in unevaluated(subject.tasks[i])
    ]
    if not attempts:
        return not_run(f"no reference answer is a number; the types are {', '.join(sorted(_types(subject)))}")
    found = [
        Found(
            kind,
            "high",
            f"work that is left undone is paid: {kind}",
            SHARE_ACCEPTED,
            paid.rate,
            paid.shown,
            "literal_only({})",
            "Accept only a number that is written out.",
        )
        for kind, paid in accepted(subject, attempts).items()
        if (paid.rate["low"] or 0.0) > MIN_RATE
    ]
    return Result(found, len(attempts))


def _types(subject: Subject) -> set[str]:
    return {task.type for task in subject.tasks}
