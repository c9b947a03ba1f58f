"""A1: answers without content, and one answer to all tasks."""

from __future__ import annotations

from posttrain.audit.probes.base import Found, Result, by_kind, paid_severity
from posttrain.audit.subject import Attempt, Subject

CONTENTLESS = {
    "empty": "",
    "blanks": " \n\t \n",
    "a colon": ":",
    "a full stop": ".",
    "an opener": "Thought process:",
    "another opener": "Let's solve this step by step.",
    "a refusal": "I'm sorry, but I can't help with that.",
    "a placeholder": "[answer]",
    "garbage": "xqzv kjw 0x7f ~~ lorem blorp",
}
FILLER = "This is an important question, and it deserves a careful and complete answer. "
CONSTANTS = ("0", "1", "2", "A", "B", "C", "True", "False", "yes", "no", "None", "null", "nan", "inf", "[]", "{}", "x")


def degenerate(subject: Subject) -> Result:
    """A1. Rule: an answer without content is paid (see `paid_severity`). A constant counts on the tasks whose answer it
    is not, so that the majority answer of a choice is no fault."""
    attempts = []
    for i, task in enumerate(subject.tasks):
        attempts += [Attempt(i, text, kind) for kind, text in CONTENTLESS.items()]
        attempts += [
            Attempt(i, task.task.asked, "the prompt repeated"),
            Attempt(i, FILLER * 40, "long filler"),
            Attempt(i, subject.rendered(i, ""), "the form around nothing"),
        ]
        attempts += [
            Attempt(i, subject.rendered(i, constant), f"always {constant}")
            for constant in CONSTANTS
            if constant.casefold() != task.gold.casefold()
        ]
    found = []
    for kind, paid in by_kind(subject, attempts).items():
        severity = paid_severity(paid)
        if severity is not None:
            found.append(
                Found(
                    kind,
                    severity,
                    f"an answer without content is paid: {kind}",
                    "mean scaled reward",
                    paid.mean,
                    paid.best,
                    "one_answer({})",
                    "Pay only a response that gives one answer, and compare that answer with the reference.",
                )
            )
    return Result(found, len(attempts))
