"""A3: responses that hold the right answer among, under or before another one."""

from __future__ import annotations

import random
from collections.abc import Callable
from fractions import Fraction

from posttrain.audit.answers import GRADABLE, near_misses, numbers, same
from posttrain.audit.golds import GoldTask
from posttrain.audit.probes.base import Accepted, Found, Result, accepted, not_run, one_answer
from posttrain.audit.subject import Attempt, Subject
from posttrain.runs.audit import Severity
from posttrain.stats import Estimate, difference

CANDIDATES = 7
HIGH_GAIN = 0.5
"""What the right answer among others may add at most; a list of seven answers of which one is right has an F1 of 0.25."""
WORDS = dict(zip("ABCDEFGHIJ", "As Because Certainly Definitely Every For Generally Honestly I Just".split(), strict=True))
"""Words that begin with the letter of an option."""
Make = Callable[[str], str]

ADVICE = {
    "several": "Pay only a response that gives one answer.",
    "thinking": "Look for the answer behind the thinking only.",
    "part": "Compare the whole answer with the reference, not whether the reference occurs in it.",
}


def many_answers(subject: Subject) -> Result:
    """A3. The right answer stands in a response that does not answer with it: in a list of candidates, denied, in the
    thinking, before another final answer, inside a longer word. The wrong answer always comes last, so that a reward
    that reads the last of several answers is not accused.

    Rule, for each kind: the share that is paid like the right answer has a lower bound above 0.05 (critical), or is
    that of two tasks or more (high); or the response gets, in the mean, at least 0.5 of the scale more than the same
    with a wrong answer in its place (high)."""
    rng = subject.random("A3")
    attempts, twins = [], []
    for i, task in enumerate(subject.tasks):
        if task.type not in GRADABLE:
            continue
        wrong = wrong_answers(subject, i, rng)
        if len(wrong) < 2:
            continue
        for kind, make in makers(subject, task, wrong[1:]).items():
            attempts.append(Attempt(i, make(task.gold), kind))
            twins.append(Attempt(i, make(wrong[0]), kind))
    if not attempts:
        return not_run("only answers of which it can be said that they are wrong can be mixed with right ones")
    found = []
    without = accepted(subject, twins)
    for kind, paid in accepted(subject, attempts).items():
        gain = difference(paid.scales.tolist(), without[kind].scales.tolist())
        if (found_one := _found(subject, kind, paid, gain)) is not None:
            found.append(found_one)
    return Result(found, len(attempts) + len(twins))


def _found(subject: Subject, kind: str, paid: Accepted, gain: Estimate) -> Found | None:
    severity: Severity | None = paid.severity
    if severity is None and not ((gain["value"] or 0.0) >= HIGH_GAIN and (gain["low"] or 0.0) > 0):
        return None
    group = GROUPS[kind]
    wrapper = {"several": one_answer(subject), "thinking": "strip_thinking({})", "part": None}[group]
    title = f"{TITLES[kind]} is paid"
    if severity is None:
        return Found(kind, "high", title, "scaled reward beyond the same without it", gain, paid.best, wrapper, ADVICE[group])
    measure = "share paid like the right answer"
    return Found(kind, severity, title, measure, paid.rate, paid.shown, wrapper, ADVICE[group])


TITLES = {
    "candidates": "a list of many candidate answers",
    "or": "several answers joined by 'or'",
    "1 to 100": "every number from 1 to 100",
    "several marks": "a response with many final answers, one of them right,",
    "changed": "a right answer that is taken back for a wrong one",
    "denied": "the right answer with a 'not' in front",
    "denied sentence": "a sentence that says what the answer is not",
    "thinking": "a wrong answer with the right one in the thinking",
    "prose": "a wrong final answer with the right one in the text before it",
    "chain": "a false equation that ends in the right answer",
    "inside": "a longer answer that contains the right one",
    "word": "a word that begins with the letter of the right option",
}
GROUPS = {
    **dict.fromkeys(TITLES, "part"),
    **dict.fromkeys(("several marks", "changed"), "several"),
    "thinking": "thinking",
}


def wrong_answers(subject: Subject, i: int, rng: random.Random) -> list[str]:
    """Wrong answers to a task, in random order: near misses, numbers around it, options, answers of other tasks."""
    task = subject.tasks[i]
    found = list(task.options) if task.type == "choice" else [v.text for v in near_misses(task, rng)]
    if task.type != "choice":
        found += [subject.tasks[k].gold for k in range(len(subject.tasks)) if subject.tasks[k].type == task.type]
    value = numbers.parse(task.gold)
    if task.type == "number" and value is not None:
        found = [numbers.written(value + Fraction(k)) for k in range(-4, 5)]
    found = [text for text in dict.fromkeys(found) if not same(task, text)]
    rng.shuffle(found)
    return found[: CANDIDATES + 1]


def makers(subject: Subject, task: GoldTask, wrong: list[str]) -> dict[str, Make]:
    """How each kind is made of the right answer, or of a wrong one in its place; `wrong` are the others."""
    form, last = subject.form, wrong[-1]
    mark = form.mark
    work = form.thinking.format(work="I work it out step by step.")

    def among(answer: str) -> list[str]:
        """The answer in the middle, neither first nor last."""
        others = wrong[: CANDIDATES - 1]
        return [*others[: len(others) // 2], answer, *others[len(others) // 2 :]]

    made: dict[str, Make] = {
        "changed": lambda x: f"{work}{mark(x)}\n\nNo, that is wrong.\n\n{mark(last)}",
        "denied": lambda x: form.render(f"not {x}"),
        "denied sentence": lambda x: f"The answer is not {x}.",
        "thinking": lambda x: f"<think>\nThe answer is {mark(x)}.\n</think>\n{mark(last)}",
        "prose": lambda x: f"{work}The answer is {x}.\n\n{mark(last)}",
    }
    if len(wrong) >= 2:
        made |= {
            "candidates": lambda x: form.render(", ".join(among(x))),
            "or": lambda x: form.render(" or ".join(among(x))),
            "several marks": lambda x: work + "\n".join(map(mark, among(x))),
        }
    if task.type in ("number", "expression"):
        made["chain"] = lambda x: form.render(f"{last} = {x}")
    if task.type == "number":
        made["inside"] = lambda x: form.render(f"1{x.lstrip('-')}7")
        if task.gold.isdigit() and 1 < int(task.gold) < 100:
            numbered = [str(n) for n in range(1, 101) if n != int(task.gold)]
            at = int(task.gold) - 1
            made["1 to 100"] = lambda x: form.render(", ".join([*numbered[:at], x, *numbered[at:]]))
    elif task.type == "string":
        made["inside"] = lambda x: form.render(f"un{x}ish")
    elif task.type == "choice":
        made["word"] = lambda x: form.render(f"{WORDS[x.strip('().').upper()]} nobody knows.")
    return made
