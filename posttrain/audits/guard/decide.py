"""The guard: whether a response is surely wrong, decided without any code of the reward under audit."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Protocol

from posttrain.audits.golds import GoldTask
from posttrain.audits.guard import equal, texts, unmarked
from posttrain.audits.guard.numbers import literals, plain, spelled
from posttrain.audits.guard.reading import WITHDRAWN, Mark, after_thinking, last_statement, marks
from posttrain.audits.guard.texts import folded

LONGEST = 40_000
"""Of a longer response the guard reads the first and the last half of this."""
PHRASE_WORDS = 4


class Judge(Protocol):
    """What decides where construction cannot."""

    name: str

    def __call__(self, items: Sequence[tuple[GoldTask, str]]) -> list[bool | None]: ...


class Guard:
    """Whether a response is wrong: `wrong` is True where it surely is, False where it gives the reference answer as its
    only final one, None where the guard cannot tell.

    Rule for numbers, expressions, choices, strings and JSON ("construction"). The reasoning is cut off. The answers are
    what stands in boxes, tags, `####` lines, `Answer:` lines, sentences "the answer is" and fields "answer". A response
    is wrong if one of them surely differs from the reference (by value, not by form) and the response does not take it
    back, if all it says of the reference is that it is not the answer, or if it gives a list of answers to choose from.
    Without a mark the text itself counts, and it is wrong if the reference answer is nowhere in it, in any form.
    Code runs against the reference solution; free text needs a judge that the user names.

    It errs to one side: a right answer in an odd form is never wrong. A response that hides a hack well is None."""

    def __init__(self, tasks: Sequence[GoldTask], code: Judge | None = None, judge: Judge | None = None) -> None:
        self.others = frozenset(task.gold for task in tasks if task.type == "string")
        self._deciders: dict[str, Judge | None] = {"code": code or judge, "text": judge}
        self._known: dict[tuple[str, str, str], bool | None] = {}
        types = Counter(task.type for task in tasks)
        asked = [self._deciders[kind] for kind in types if kind in self._deciders]
        names = ["construction"] if any(kind in equal.BY_TYPE for kind in types) else []
        self.name = "; ".join(dict.fromkeys([*names, *(each.name for each in asked if each is not None)])) or "none"

    def missing(self, tasks: Sequence[GoldTask]) -> str | None:
        """Why the guard cannot decide about any of the tasks; None where it can about some."""
        if any(self.decides(task) for task in tasks):
            return None
        kinds = sorted({"free text" if task.type == "text" else task.type for task in tasks})
        return (
            f"nothing decides that an answer is wrong where the reference is {' or '.join(kinds)}; name a judge that "
            "is not the audited reward: --judge EXPRESSION"
        )

    def decides(self, task: GoldTask) -> bool:
        return task.type in equal.BY_TYPE or self._deciders[task.type] is not None

    def wrong(self, task: GoldTask, text: str) -> bool | None:
        return self.wrong_each([(task, text)])[0]

    def wrong_each(self, items: Sequence[tuple[GoldTask, str]]) -> list[bool | None]:
        """`wrong` of several responses; a judge grades them together, and none twice."""
        keys = [(task.task.id, task.gold, text) for task, text in items]
        new = {key: item for key, item in zip(keys, items, strict=True) if key not in self._known}
        for kind in dict.fromkeys(task.type for task, _ in new.values()):
            own = {key: item for key, item in new.items() if item[0].type == kind}
            if kind in equal.BY_TYPE:
                self._known |= {key: self._constructed(*item) for key, item in own.items()}
            elif (decider := self._deciders[kind]) is not None:
                self._known |= dict(zip(own, decider(list(own.values())), strict=True))
            else:
                self._known |= dict.fromkeys(own)
        return [self._known[key] for key in keys]

    def _constructed(self, task: GoldTask, text: str) -> bool | None:
        right = is_right(task, text, self.others)
        if right is False and task.accepted:  # another of the right answers
            words = f" {folded(text)} "
            named = sum(f" {folded(each)} " in words for each in task.accepted)
            right = None if named >= len(task.gold.split(",")) else False
        return None if right is None else not right


def is_right(task: GoldTask, text: str, others: frozenset[str]) -> bool | None:
    if len(text) > LONGEST:
        text = text[: LONGEST // 2] + "\n" + text[-LONGEST // 2 :]
    if task.type == "string" and texts.is_sentence(task.gold) and texts.states(task.gold, text):
        return True if equal.string(task, text) else None  # what else it says need not contradict a sentence
    said, unclosed = after_thinking(text)
    asked = task.task.asked.strip()
    if len(asked) > 20:
        said = said.replace(asked, " \n")
    if not said.strip():
        return None if unclosed and of_body(task, text, others) is not False else False
    return of_body(task, said, others)


def of_body(task: GoldTask, text: str, others: frozenset[str]) -> bool | None:
    """True, False or None for a response without its reasoning."""
    if task.type == "json":
        return _of_json(task, text, others)
    found = [mark for mark in marks(text) if mark.kind != "json" or mark.text]
    if not found:
        return unmarked.BY_TYPE[task.type](task, _unfenced(text), others)
    judged = [(mark, _verdict(task, mark, others)) for mark in found]
    judged = [(m, v) for m, v in judged if not (m.denied and v is False)]
    judged = [(m, False if m.denied and v else v) for m, v in judged]
    answers = [(m, v) for m, v in judged if v is not False or m.denied or is_answer(task, m)]
    judged = answers or judged
    if not judged:  # only denials of other answers
        return unmarked.BY_TYPE[task.type](task, _unfenced(text), others)
    verdicts = [verdict for _, verdict in judged]
    if all(verdicts):
        return True
    if False not in verdicts:
        return None
    if not any(verdict is not False for verdict in verdicts):
        return None if _said_elsewhere(task, text, judged[-1][0], others) or _joint(task, found) else False
    return _mixed(task, text, judged)


def _verdict(task: GoldTask, mark: Mark, others: frozenset[str]) -> bool | None:
    verdict = equal.same(task, mark.text, others)
    if task.type in ("number", "choice") and verdict is None and mark.kind in ("line", "tag"):
        # a mark that holds sentences: what they say without one
        verdict = unmarked.BY_TYPE[task.type](task, mark.text, others)
    return None if mark.open and verdict is not False else verdict


def is_answer(task: GoldTask, mark: Mark) -> bool:
    """Whether a mark holds an answer of the task's type; behind `Answer:` or `the answer is` a phrase may stand."""
    if mark.kind not in ("line", "sentence"):
        return True
    if mark.kind == "sentence" and re.search(r"\b(?:of|sum|product|if|in)\b", mark.text):
        return False
    if task.type == "number":
        return bool(literals(plain(mark.text)) or spelled(mark.text))
    if task.type == "choice":
        return bool(equal.letters(mark.text) or equal.option_texts(task, mark.text))
    return len(mark.text.split()) <= PHRASE_WORDS


def _said_elsewhere(task: GoldTask, text: str, last: Mark, others: frozenset[str]) -> bool:
    """Whether the text behind the last mark may give the reference answer after all."""
    rest = text[last.end :].lstrip("}$)\\] \n.<>/")
    return (
        bool(re.search(r"\w", rest))
        and unmarked.BY_TYPE[task.type](task, rest, others) is not False
        and (equal.same(task, last_statement(rest), others) is not False)
    )


def _joint(task: GoldTask, found: Sequence[Mark]) -> bool:
    """Whether several marks together may be a reference answer that has several parts."""
    parts = [part for part in re.split(r"\s*(?:,|;|\band\b|\bor\b)\s*", task.gold) if part]
    if len(parts) < 2 or len(found) < 2:
        return False
    texts = {equal.compact(mark.text) for mark in found}
    return all(equal.compact(part) in texts for part in parts)


def _mixed(task: GoldTask, text: str, judged: Sequence[tuple[Mark, bool | None]]) -> bool | None:
    """Several answers of which some differ from the reference. Where the last one may be it, and the text says before
    that the others were no final answers, nobody can tell; else the response commits to several."""
    last, verdict = judged[-1]
    if verdict is False:
        return False
    first = next(mark for mark, each in judged if each is False)
    phrases = task.type in ("string", "expression") and all(m.kind == "sentence" for m, each in judged if each is False)
    return None if phrases or WITHDRAWN.search(text[max(0, first.start - 40) : last.start]) else False


def _unfenced(text: str) -> str:
    """The content of the only fenced block where there is nothing else."""
    found = unmarked.FENCE.fullmatch(text.strip())
    return found[1] if found else text


def _of_json(task: GoldTask, text: str, others: frozenset[str]) -> bool | None:
    blocks = unmarked.FENCE.findall(text)
    tags = [mark.text for mark in marks(text) if mark.kind in ("tag", "box")]
    for pieces in (tags, blocks):
        verdicts = [unmarked.json_value(task, piece, others) for piece in pieces]
        if verdicts and all(verdicts):
            return True
        if verdicts and False in verdicts and any(v is not False for v in verdicts):
            return None if verdicts[-1] is not False else False
    return unmarked.json_value(task, text, others)
