"""A5: right answers in other words, and in the form that the prompts ask for."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from posttrain.audits.answers import equivalents
from posttrain.audits.forms import FORMS, Form
from posttrain.audits.probes.accepted import CODE_TASKS, MIN_RATE, accepted, overall, rate_of, worst_of
from posttrain.audits.probes.base import Found, Paid, Result, by_kind, not_run
from posttrain.audits.probes.near_misses import FALSE_RATE, missed
from posttrain.audits.subject import PAID, Attempt, Subject
from posttrain.runs.audit import Severity
from posttrain.stats import Estimate

TRUE_RATE, J = "right answers paid", "J"
MIN_TRUE_RATE, NOTHING = 0.9, 0.01
FORM = {form.name: form for form in FORMS}
ASKED = tuple(FORM[name] for name in ("line", "box", "hashes", "tag", "json object"))
"""Forms that a prompt may ask for."""
INVITED = re.compile(
    r"\bstep[- ]by[- ]step\b|\bthink\b.{0,20}\b(?:first|before|aloud|through)|\b(?:explain|reason(?:ing)?|working)\b"
    r"|\bshow (?:your|all|the|how)\b|\bwork (?:it|this) out\b",
    re.IGNORECASE,
)
"""Prompts that invite to reason before the answer."""
ROOM = re.compile(
    r"\b(?:end|finish|conclude|close)\b.{0,20}\b(?:with|by)\b|\bfinal line\b|\blast line\b|\bat the end\b",
    re.IGNORECASE,
)
"""Prompts that leave room for it."""
NARROW = re.compile(
    r"\b(?:nothing|no) (?:else|more|other|explanations?|reasoning|working|words?)\b|\bno more than\b|\bmay have\b"
    r"|\b(?:at most|up to|within|under|fewer than|less than|maximum|limit\w*)\s+\w+\s+(?:words|characters|lines|"
    r"sentences|tokens|steps)|\b(?:single|one|same|two|three) (?:\w+ )?lines?\b"
    r"|\bwithout (?:any )?(?:explanation|working|reasoning|comment)"
    r"|\b(?:alone|brief\w*|short\w*|concise\w*|terse\w*|keep it|numbered)\b"
    r"|\b(?:reply|respond|answer|output|write|give|return)\b[^.\n]{0,60}\bonly\b",
    re.IGNORECASE,
)
"""Prompts that limit what may stand before the answer, or say which form it must have."""
LONG_WORK = (
    "I read the question again and note what is given. Then I ask what is wanted, and in which form. One way is to go "
    "on directly, another is to split it into parts; I take the first way and keep the other one for a check. The next "
    "part follows from the part before it, so I go on in the same way until the end."
)
"""Reasoning of some sentences."""


def recall(subject: Subject) -> Result:
    """A5. Each task is answered rightly in up to some ten renderings (`answers.equivalents`), in the form that the
    reward pays, and with the reference as it is in the form that the prompts ask for.

    critical: the form that most prompts ask for is not paid, or wrong answers are paid (a lower bound of q above 0) and
    J = p - q, of the shares of right and of wrong answers that are paid, has a lower bound of at most 0: what a policy
    learns from the reward is wrong. high: the reference answers of some tasks get in every form what the empty answer
    gets (`unpaid`); a response that reasons before its answer is not paid, though the prompts leave room for it, or
    invite to it and the reasoning is of some sentences; or less than 0.9 of the renderings that differ in layout only
    (blanks and the order of keys in JSON, comments in code), or that the prompts permit in words, by the upper bound.
    Other notations are measured, and a note where less than 0.9 are paid: a strict reward may refuse them.
    J: arXiv:2601.04411."""
    tasks = subject.some(CODE_TASKS)
    attempts = [
        subject.answer(i, variant.text, f"{variant.level}/{variant.kind}", right=True)
        for i in tasks
        for variant in equivalents(subject.tasks[i])
    ]
    found = [*unpaid(subject), *asked_form(subject)]
    if not attempts and not found:
        return not_run("without a judge no other wording of free text is known to be right")
    kinds = by_kind(subject, attempts)
    found += refused(kinds)
    true = _paid_rate([*kinds.values(), *by_kind(subject, [subject.honest(i) for i in tasks]).values()])
    false = overall(accepted(subject, missed(subject)))
    measured = {TRUE_RATE: true}
    if false["n"]:
        j = youden(true, false)
        measured |= {FALSE_RATE: false, J: j}
        if j["low"] is not None and j["low"] <= 0 and (false["low"] or 0.0) > 0:
            title = "right answers are paid no more often than wrong ones near the right answer"
            advice = "A policy learns nothing from this reward, or what is wrong: compare answers by their value."
            found.append(Found(J, "critical", title, f"{TRUE_RATE} minus {FALSE_RATE}", j, None, None, advice))
    return Result(found, len(attempts), measured)


def unpaid(subject: Subject) -> list[Found]:
    """high: the share of tasks whose reference answer is worth nothing in any form has a lower bound above 0.05. A
    reward of which a model is a part is left out: its scale differs by task."""
    if subject.by_model:
        return []
    tasks = subject.some(CODE_TASKS)
    best = np.max([subject.scales([subject.honest(i, form) for i in tasks]) for form in subject.tried], axis=0)
    for i in [i for i in tasks if best[i] < PAID and not subject.is_code]:  # it may have to be written otherwise
        others = [subject.answer(i, each.text, "", right=True) for each in equivalents(subject.tasks[i])]
        best[i] = max([best[i], *(subject.scales(others) if others else ())])
    empty = subject.scales([Attempt(i, "", "empty") for i in tasks])
    refused = Paid(tuple(subject.honest(i) for i in tasks), np.where(best <= empty + NOTHING, 1.0, 0.0))
    if (refused.rate["low"] or 0.0) <= MIN_RATE:
        return []
    title = f"the reference answers of {int(refused.scales.sum())} of {len(tasks)} tasks are not paid in any form"
    advice = (
        "See why (posttrain score): a form, a size or a sign of the answer that the reward cannot read, or a fault "
    )
    advice += "of these references."
    return [Found("unpaid", "high", title, "share of tasks", refused.rate, refused.best, None, advice)]


def youden(true: Estimate, false: Estimate) -> Estimate:
    """J = p - q of two shares, with the square-and-add interval of their Wilson intervals (Newcombe 1998, method 10):
    J - sqrt((p - l_p)² + (u_q - q)²), J + sqrt((u_p - p)² + (q - l_q)²)."""
    p, q = true["value"] or 0.0, false["value"] or 0.0
    low = math.hypot(p - (true["low"] or 0.0), (false["high"] or 0.0) - q)
    high = math.hypot((true["high"] or 0.0) - p, q - (false["low"] or 0.0))
    return {"value": p - q, "low": p - q - low, "high": p - q + high, "n": true["n"] + false["n"]}


def _paid_rate(kinds: Sequence[Paid]) -> Estimate:
    pairs = [pair for paid in kinds for pair in zip(paid.attempts, paid.scales, strict=True)]
    return rate_of([attempt for attempt, _ in pairs], [scale >= PAID for _, scale in pairs])


def refused(kinds: Mapping[str, Paid]) -> list[Found]:
    """A finding for other layouts, and a note for other notations."""
    found: dict[str, list[Found]] = {"layout": [], "notation": []}
    advice = "Strictness costs recall: say in the prompt which form is wanted, or accept this one."
    for kind, paid in kinds.items():
        level, _, name = kind.partition("/")
        if (paid.rate["high"] or 0.0) < MIN_TRUE_RATE:
            shown = paid.attempts[int(paid.scales.argmin())]
            severity: Severity = "high" if level == "layout" else "note"
            found[level].append(Found(name, severity, "", "share paid", paid.rate, shown, None, advice))
    return [each for level in found for each in worst_of(f"a right answer in another {level} is refused", found[level])]


def asked_form(subject: Subject) -> list[Found]:
    """The form that most prompts ask for, where the reward pays no form that they ask for; else reasoning in front of
    the answer, where it is not paid."""
    prompts = [task.prompt for task in subject.tasks]
    scales = subject.calibration["forms"]
    wanted = [plain for plain in ASKED if plain.name in scales and _most(prompts, plain.wanted)]
    wanted = wanted if subject.form in FORMS else []  # else it is one that the prompts show
    best = {plain.name: max(scales[form.name] for form in _marked_as(plain)) for plain in wanted}
    if best and max(best.values()) < PAID:
        plain = wanted[0]
        title = f"the form that the prompts ask for is not paid: {plain.mark('...')!r}"
        return [_form_found(subject, plain, "critical", "the form of the prompt", title)]
    return _without_room(subject, prompts)


def _without_room(subject: Subject, prompts: Sequence[str]) -> list[Found]:
    """Reasoning before the answer that is not paid, of one sentence or of five; code and JSON have no place for it."""
    bare = replace(subject.form, thinking="")
    if subject.is_code or "<" in subject.form.thinking or not (bare.before or bare.after) or bare.before[:1] in "{`":
        return []
    invited = _most(prompts, lambda prompt: bool(INVITED.search(prompt)) and not NARROW.search(prompt))
    room = invited or _most(prompts, lambda prompt: bool(ROOM.search(prompt)) and not NARROW.search(prompt))
    for work, said in (("{work}\n", room), (f"{LONG_WORK}\n", invited)):
        worked = replace(bare, name="work", thinking=work)
        plain, reasoned = (_form_paid(subject, each).mean["value"] or 0.0 for each in (bare, worked))
        if said and plain >= PAID > reasoned:
            title = f"a right answer in the form asked for is not paid with reasoning before it: {bare.mark('...')!r}"
            return [_form_found(subject, worked, "high", "reasoning before the answer", title)]
    return []


def _marked_as(plain: Form) -> list[Form]:
    """All forms with the same mark around the answer."""
    return [form for form in FORMS if form.before.strip().endswith(plain.before.strip())]


def _most(prompts: Sequence[str], wanted: Callable[[str], bool]) -> bool:
    return sum(map(wanted, prompts)) > len(prompts) / 2


def _form_paid(subject: Subject, form: Form) -> Paid:
    (paid,) = by_kind(subject, [subject.honest(i, form) for i in range(len(subject.tasks))]).values()
    return paid


def _form_found(subject: Subject, form: Form, severity: Severity, kind: str, title: str) -> Found:
    paid = _form_paid(subject, form)
    advice = f"The reward pays this form: {subject.form.render('...')!r}. Change the prompts or the reward."
    return Found(kind, severity, title, "mean scaled reward", paid.mean, paid.attempts[0], None, advice)
