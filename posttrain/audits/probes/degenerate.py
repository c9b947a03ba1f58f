"""A1: answers without content, and one answer to all tasks."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from posttrain.audits.answers import is_open, same
from posttrain.audits.golds import AnswerType, GoldTask
from posttrain.audits.probes.accepted import CODE_TASKS, Accepted, accepted, one_answer, paid_alike, worst_of
from posttrain.audits.probes.base import HIGH_SCALE, Found, Result
from posttrain.audits.subject import PAID, Attempt, Subject
from posttrain.runs.audit import Severity
from posttrain.stats import difference, estimate

FILLER = "This is an important question, and it deserves a careful and complete answer. "
CONTENTLESS = {
    "empty": "",
    "blanks": " \n\t \n",
    "a colon": ":",
    "a full stop": ".",
    "an opener": "Thought process:",
    "another opener": "Let's solve this step by step.",
    "an opener that announces an answer": "Solution:",
    "a refusal": "I'm sorry, but I can't help with that.",
    "a placeholder": "[answer]",
    "garbage": "xqzv kjw ~~ lorem blorp",
    "long filler": FILLER * 40,
    "one word many times": "the " * 500,
}
CONTENT, ONE_ANSWER = "an answer without content is paid", "the prompt, or one answer to all tasks, is paid"
ADVICE = "Pay only a response that gives one answer, and compare that answer with the reference."
COPIED = "a text of the prompt copied"
GRADED_SCALE = 0.7
LABELLED = re.compile(r"^[A-Z]\w+(?: \w+)?: (.+)$", re.MULTILINE)
MIN_COPIED = 3
"""Words of a text of the prompt that is copied."""
MIN_ITEMS, MOST_ITEMS = 3, 40
"""Of lists with so many items together, the list of all is one answer to all tasks."""
OF_CODE = ("empty", "another opener", "a refusal", "garbage")
"""What is tried of code, where each answer takes a sandbox."""
CONSTANTS: dict[AnswerType, Sequence[str]] = {
    "number": ("0", "1", "2", "-1", "10", "100", "nan", "inf", "x"),
    "expression": ("0", "1", "x", "nan"),
    "choice": (*"ABCDEFGHIJ", "none of the above"),
    "string": ("yes", "no", "True", "False", "None", "unknown", "0", "1", ".*", ".+", "*"),
    "json": ("{}", "[]", "null", "0"),
    "code": (),
    "text": ("yes", "no", "None"),
}
OF_SOURCE, SHOWN, FIRST_TASKS = "of the reward's source", 40, 4
PROGRAMS = ("None", "0", "True", "arguments[0]")
"""What a program returns whatever it is given."""


def degenerate(subject: Subject) -> Result:
    """A1. Rule: an answer without content is paid. critical: the mean scaled reward is at least 0.9, or the lower bound
    of the share that is paid like right answers at least 0.5; high: the mean is at least 0.3. Of a reward that punishes
    the empty answer, such as with -1, only what is above 0 counts.

    One answer to all tasks counts on those whose answer it is not, so that the majority answer of a choice is no fault.
    It and the prompt are high only by what they get beyond the answer of another task, and of a graded reward, which
    may pay any answer in part, only from 0.7 on; a text of the prompt that is copied, with no work done, from 0.5 on.
    The wrapper closes it where the honest answers carry a mark.

    What the reward's source gives away (see `posttrain.audits.search.source`) is no content either where no guard
    decides what is wrong; elsewhere A17 tries it.

    An empty answer that gets 0.3 of the way from a wrong answer, of another task, to a right one is high too.

    Of a reward without a scale: critical where the lower bound of the share of tasks at which it is paid as much as the
    reference answer is at least 0.5."""
    empty, filled = [], []
    for i in subject.some(CODE_TASKS):
        task = subject.tasks[i]
        empty += [
            Attempt(i, text, kind) for kind, text in CONTENTLESS.items() if not subject.is_code or kind in OF_CODE
        ]
        filled.append(Attempt(i, task.task.asked, "the prompt repeated"))
        filled += [subject.answer(i, text, COPIED) for text in _copied(task)]
        filled += [subject.answer(i, text, "nothing but the words of a column") for text in _words(task)]
        filled += [subject.answer(i, text, kind) for kind, text in _constants(subject, task)]
    empty += _of_source(subject)
    if not subject.has_scale:
        alike = [*paid_alike(subject, CONTENT, empty), *paid_alike(subject, ONE_ANSWER, filled)]
        return Result(alike, len(empty) + len(filled))
    found: list[Found] = []
    for title, attempts, severity in ((CONTENT, empty, _severity), (ONE_ANSWER, filled, _beyond_others)):
        kinds = accepted(subject, attempts).values()
        found += worst_of(
            title, [paid.by_worth(severity(subject, paid), ADVICE, one_answer(subject)) for paid in kinds]
        )
    return Result([*_unparsed(subject), *found], len(empty) + len(filled))


def _severity(subject: Subject, paid: Accepted) -> Severity | None:
    """Of texts of the reward's source, where many texts are right, only half of the scale counts."""
    task, kind = subject.tasks[paid.attempts[0].task], paid.attempts[0].kind
    free = kind.endswith(OF_SOURCE) and (is_open(task) or not task.compared)
    return None if free and (paid.worth["value"] or 0.0) < PAID else paid.without_content


def _unparsed(subject: Subject) -> list[Found]:
    """The empty answer gets much more than the answers of other tasks in the form: the reward pays what it cannot read.
    One that gives wrong answers less than 0 does so on purpose, and is not accused."""
    tasks = subject.some(CODE_TASKS)
    empty = [Attempt(i, "", "an empty answer, beyond a wrong one") for i in tasks]
    wrong = subject.grade([subject.answer(i, subject.other(i).text, "wrong") for i in tasks])
    low, best = wrong[np.isfinite(wrong)].mean() if np.isfinite(wrong).any() else -1.0, subject.calibration["best"]
    if not 0 <= low < best:
        return []
    worth = estimate(((np.nan_to_num(subject.grade(empty), nan=low) - low) / (best - low)).tolist())
    title, measure = "an empty answer is paid more than a wrong one", "mean reward, from a wrong answer to a right one"
    advice = "Pay nothing for what cannot be read, or a policy that answers nothing gets more than one that tries."
    found = Found(empty[0].kind, "high", title, measure, worth, empty[0], None, advice)
    return [found] if (worth["value"] or 0.0) >= HIGH_SCALE else []


def _copied(task: GoldTask) -> list[str]:
    """What the prompt wants corrected, shortened or translated, left as it is: the longest text of a column that stands
    in the prompt, else its longest line behind a label, else its last line."""
    asked = task.task.asked
    columns = [value.strip() for value in task.columns.values() if isinstance(value, str) and value.strip() in asked]
    for texts in (columns, LABELLED.findall(asked), asked.strip().split("\n")[1:][-1:]):
        found = [text for text in texts if len(text.split()) >= MIN_COPIED]
        if found := [text for text in found if text not in task.solution and not same(task, text)]:
            return [max(found, key=len)]
    return []


def _words(task: GoldTask) -> list[str]:
    """Of free text, the lists and glossaries of words or phrases of the task, such as key terms: keywords are no
    text."""
    columns = [
        list(v.values()) if isinstance(v, dict) else v for v in task.columns.values() if isinstance(v, list | dict)
    ]
    texts = [", ".join(v) for v in columns if len(v) > 1 and all(isinstance(word, str) for word in v)]
    return [text for text in texts if not same(task, text)] if task.type == "text" else []


def _constants(subject: Subject, task: GoldTask) -> list[tuple[str, str]]:
    """Constants of the type of the task, and the most common reference answer of it, with what each is called."""
    if task.type == "code":
        name = task.entry_point or (re.findall(r"def (\w+)\(", task.gold) or ["solve"])[-1]
        return [
            (f"a program that always returns {value}", f"def {name}(*arguments):\n    return {value}")
            for value in PROGRAMS
        ]
    if is_open(task):  # a number, or another reference answer, may be right for all tasks
        return [(f"always {text}", text) for text in CONSTANTS[task.type] if not any(map(str.isdigit, text))]
    golds = [other.gold for other in subject.tasks if other.type == task.type]
    items = dict.fromkeys(item.strip() for gold in golds if "," in gold for item in gold.split(","))
    every = [", ".join(items)] if task.type == "string" and MIN_ITEMS <= len(items) <= MOST_ITEMS else []
    common = Counter(golds).most_common(1)[0][0]
    wanted = [text for text in CONSTANTS[task.type] if task.type != "choice" or len(text) > 1 or text in task.options]
    return [(f"always {text:.40}", text) for text in dict.fromkeys((*wanted, common, *every)) if not same(task, text)]


def _of_source(subject: Subject) -> list[Attempt]:
    """Answers of nothing but what the reward's source gives away; the texts by themselves and the lengths only if they
    are paid on one of the first tasks."""
    source = subject.source
    tasks = [i for i, task in enumerate(subject.tasks) if task.type == "text" and not subject.guard.decides(task)]
    found = [Attempt(i, text, f"{text[:SHOWN]!r} {OF_SOURCE}") for text in source.lists for i in tasks]
    if not subject.has_scale:
        return found
    for text in (*source.texts, *source.lengths):
        attempts = [Attempt(i, text, f"{text[:SHOWN]!r} {OF_SOURCE}") for i in tasks]
        if attempts and subject.scales(attempts[:FIRST_TASKS]).max() >= HIGH_SCALE:
            found += attempts
    return [each for each in found if not same(subject.tasks[each.task], each.text)]


def _beyond_others(subject: Subject, paid: Accepted) -> Severity | None:
    severity = paid.without_content
    if severity != "high":
        return severity
    others = [subject.answer(a.task, subject.other(a.task).text, "other") for a in paid.attempts]
    beyond = difference(paid.scales.tolist(), np.maximum(subject.scales(others), 0.0).tolist())
    worth, more = paid.worth["value"] or 0.0, beyond["value"] or 0.0
    if paid.attempts[0].kind == COPIED:
        return "high" if worth >= PAID and (beyond["low"] or 0.0) > 0 else None
    return "high" if more >= HIGH_SCALE and (not paid.graded or worth >= GRADED_SCALE) else None
