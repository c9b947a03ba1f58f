"""A4, A5 and A6: wrong answers near the right one, right answers in other words, and work left undone."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

from posttrain.audit.answers import equivalents, near_misses, unevaluated
from posttrain.audit.forms import FORMS, Form
from posttrain.audit.probes.accepted import MIN_RATE, SHARE_ACCEPTED, accepted, chosen, overall, rate_of, worst_of
from posttrain.audit.probes.base import Found, Paid, Result, by_kind, not_run
from posttrain.audit.subject import PAID, Attempt, Subject
from posttrain.runs.audit import Severity
from posttrain.stats import Estimate

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
            "",
            SHARE_ACCEPTED,
            paid.rate,
            paid.shown,
            None,
            "Compare the answer with the reference by its exact value, not by a part of its text or within a tolerance.",
        )
        for kind, paid in kinds.items()
        if (severity := paid.severity) is not None
    ]
    return Result(
        worst_of("a wrong answer near the right one is paid", found), len(attempts), {FALSE_RATE: overall(kinds)}
    )


def _misses(subject: Subject) -> list[Attempt]:
    rng = subject.random("A4")
    return [
        Attempt(i, subject.rendered(i, variant.text), variant.kind)
        for i in range(len(subject.tasks))
        for variant in near_misses(subject.tasks[i], rng)
    ]


def recall(subject: Subject) -> Result:
    """A5. Each task is answered rightly in up to some ten renderings (`answers.equivalents`), in the form that the
    reward pays, and in the forms that the prompts ask for.

    critical: the form that most prompts ask for is not paid, or J = true-positive rate - false-positive rate has a
    lower bound of at most 0 (below it, what a policy learns from the reward is wrong). high: a response that reasons
    before its answer is not paid, though the prompts leave room for it; or less than 0.9 of the renderings that differ
    in layout only (blanks and the order of keys in JSON, comments in code). Other notations are measured, and a note
    where less than 0.9 are paid: a strict reward may refuse them."""
    attempts = [
        Attempt(i, subject.rendered(i, variant.text), f"{variant.level}/{variant.kind}", right=True)
        for i in chosen(subject)
        for variant in equivalents(subject.tasks[i])
    ]
    found = _asked(subject)
    if not attempts and not found:
        return not_run("free text has no rendering of which it can be said without a judge that it is right")
    kinds = by_kind(subject, attempts)
    honest = by_kind(subject, [subject.honest(i) for i in chosen(subject)])
    true, false = _true_rate([*kinds.values(), *honest.values()]), overall(accepted(subject, _misses(subject)))
    found += _refused(kinds)
    measured = {TRUE_RATE: true}
    if false["n"]:
        measured |= {FALSE_RATE: false, J: youden(true, false)}
        if (measured[J]["low"] or 0.0) <= 0:
            found.append(
                Found(
                    "J",
                    "critical",
                    "right answers are paid no more often than wrong ones near the right answer",
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
    pairs = [pair for paid in kinds for pair in zip(paid.attempts, paid.scales, strict=True)]
    return rate_of([attempt for attempt, _ in pairs], [scale >= PAID for _, scale in pairs])


def _refused(kinds: dict[str, Paid]) -> list[Found]:
    """A finding for other layouts, and a note for other notations."""
    found: dict[str, list[Found]] = {"layout": [], "notation": []}
    for kind, paid in kinds.items():
        level, _, name = kind.partition("/")
        if (paid.rate["high"] or 1.0) < MIN_TRUE_RATE:
            shown = min(zip(paid.scales, paid.attempts, strict=True), key=lambda each: each[0])[1]
            severity: Severity = "high" if level == "layout" else "note"
            advice = "Strictness costs recall: say in the prompt which form is wanted, or accept this one."
            found[level].append(Found(name, severity, "", "share paid", paid.rate, shown, None, advice))
    return [
        *worst_of("a right answer in another layout is refused", found["layout"]),
        *worst_of("a right answer in another notation is refused", found["notation"]),
    ]


def _asked(subject: Subject) -> list[Found]:
    """The form that most prompts ask for, where the reward does not pay it, or not with reasoning in front."""
    prompts = [task.task.asked for task in subject.tasks]
    scales = subject.calibration["forms"]
    for bare, worked in ASKED:
        forms = [form for form in FORMS if form.before.strip() == bare.before.strip() and bare.before]
        best = max(forms, key=lambda form: scales[form.name])
        if not _most(prompts, bare.wanted):
            continue
        if scales[best.name] < PAID:
            if any(_most(prompts, other.wanted) and scales[other.name] >= PAID for other, _ in ASKED):
                continue
            title = f"the form that the prompts ask for is not paid: {best.mark('...')!r}"
            return [_form_found(subject, best, "critical", "the form of the prompt", title)]
        with_room = _most(prompts, lambda prompt: bool(ROOM.search(prompt)) and "<think>" not in prompt)
        if worked is not None and with_room and scales[worked.name] < PAID:
            title = f"a right answer in the form asked for is not paid with reasoning before it: {best.mark('...')!r}"
            return [_form_found(subject, worked, "high", "reasoning before the answer", title)]
    return []


FORM = {form.name: form for form in FORMS}
ASKED = (
    (FORM["line"], FORM["work and line"]),
    (FORM["box"], FORM["work and box"]),
    (FORM["hashes"], None),
    (FORM["tag"], None),
    (FORM["json object"], None),
)
"""Forms that a prompt may ask for, and the same with reasoning in front."""
ROOM = re.compile(
    r"\b(?:end|finish|conclude)\b.{0,20}\b(?:with|by)\b|\bfinal\b|\blast line\b|\bstep by step\b|\bat the end\b"
    r"|\b(?:explain|reason|think|show)\b",
    re.IGNORECASE,
)
"""Prompts that leave room for reasoning before the answer."""


def _most(prompts: Sequence[str], wanted: Callable[[str], bool]) -> bool:
    return sum(map(wanted, prompts)) > len(prompts) / 2


def _form_found(subject: Subject, form: Form, severity: Severity, kind: str, title: str) -> Found:
    (paid,) = by_kind(subject, [subject.honest(i, form) for i in range(len(subject.tasks))]).values()
    advice = f"The reward pays this form: {subject.form.render('...')!r}. Change the prompts or the reward."
    return Found(kind, severity, title, "mean scaled reward", paid.mean, paid.attempts[0], None, advice)


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
            "",
            SHARE_ACCEPTED,
            paid.rate,
            paid.shown,
            "literal_only({})",
            "Accept only a number that is written out.",
        )
        for kind, paid in accepted(subject, attempts).items()
        if (paid.rate["low"] or 0.0) > MIN_RATE
    ]
    return Result(worst_of("work that is left undone is paid", found), len(attempts))


def _types(subject: Subject) -> set[str]:
    return {task.type for task in subject.tasks}
