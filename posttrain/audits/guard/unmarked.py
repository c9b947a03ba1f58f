"""Responses without a marked answer: what they say, by answer type. True: the gold and nothing else; False: surely not
the gold, several answers, or a denial of it; None: cannot tell."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping

from posttrain.audits.golds import GoldTask
from posttrain.audits.guard import equal, formulas, texts
from posttrain.audits.guard.numbers import Literal, literals, plain, same_number, spelled
from posttrain.audits.guard.reading import last_statement

LIST = 10
"""Of a list of so many numbers in a row none is the answer."""
FENCE = re.compile(r"```[a-zA-Z]*\n(.*?)(?:```|\Z)", re.DOTALL)
LONGEST = 60_000


def number(task: GoldTask, text: str, _: Collection[str]) -> bool | None:
    gold = equal.gold_number(task.gold)
    text = plain(text)
    if gold is None:
        return string(task, text, _)
    found = equal.asserted(text, literals(text) + spelled(text))
    verdicts = [same_number(gold, each) for each in found]
    if not any(verdict is not False for verdict in verdicts):
        last = last_statement(text)
        return None if len(last) <= formulas.LONGEST and equal.number(task, last) is None else False
    if len({(each.value, each.percent) for each in found}) == 1:
        return verdicts[0]
    if equal.hedged(text, found, verdicts) or _in_list(text, gold):
        return False
    last = last_statement(text)
    said = [same_number(gold, each) for each in literals(last)]
    if len(said) == 1 and re.fullmatch(r"[\s$*_]*[-+]?[\d.,/]+%?[\s$*_.]*", last):
        return False if said[0] is False else None if any(v is False for v in verdicts) and said[0] is None else said[0]
    if not any(verdict is not False for verdict in said) or len(said) > LIST:
        return None
    return equal.number(task, last)


def _in_list(text: str, gold: Literal) -> bool:
    """Whether the gold stands in the text only within runs of LIST numbers with nothing but separators between."""
    found = literals(text)
    runs, start = [], 0
    for k in range(1, len(found) + 1):
        if k == len(found) or not equal.SEPARATED.fullmatch(text[found[k - 1].end : found[k].start]):
            runs.append(found[start:k])
            start = k
    held = [len(run) for run in runs if any(same_number(gold, each) is not False for each in run)]
    return bool(held) and min(held) >= LIST


def choice(task: GoldTask, text: str, others: Collection[str]) -> bool | None:
    body = text.strip()
    gold = task.gold.strip(" ().").upper()
    said = last_statement(body)
    lines = [line for line in body.splitlines() if line.strip()]
    if (len(lines) == 1 and len(body) <= 40) or equal.only_letters(body):
        return equal.choice(task, " ".join(body.split()), others)
    found = set(equal.letters(plain(body)))
    named = equal.option_texts(task, body)
    if gold not in found and gold not in named:
        denies = equal.LETTER.search(plain(body)) and not found
        return False if not denies or task.options else None
    verdict = equal.choice(task, said, others)
    if verdict and found - {gold}:
        return None
    if _all_options(task, lines, found, named):
        return False
    return True if verdict else None


def _all_options(task: GoldTask, lines: list[str], found: set[str], named: set[str]) -> bool:
    """Whether a text is nothing but a list of several options."""
    starts = [match[1].upper() for line in lines if (match := re.match(r"\W*\(?([A-Ja-j])[).:]?(?:\s|$)", line))]
    return len(set(starts)) > 1 and len(starts) == len(lines)


def string(task: GoldTask, text: str, others: Collection[str]) -> bool | None:
    verdict = equal.string(task, text, others)
    if verdict is not None:
        return verdict
    last = last_statement(text)
    return True if equal.string(task, last, others) is True and len(last) < len(text) else None


def json_value(task: GoldTask, text: str, _: Collection[str]) -> bool | None:
    gold = texts.as_json(task.gold)
    try:
        found = [texts.as_json(text)]
    except ValueError:
        found = texts.documents(text)
    found = [each for each in found if isinstance(each, dict | list)]
    if not found:
        # YAML, a table, broken JSON: it may say the same
        return None if all(str(leaf).casefold() in text.casefold() for leaf in leaves(gold)) else False
    verdicts = [texts.same_value(gold, each) for each in found]
    if False not in verdicts:
        return True if all(verdicts) else None
    if all(verdict is False for verdict in verdicts):
        return None if any(_within(gold, each) for each in found) else False
    return None if verdicts[-1] is not False and len(verdicts) == 2 else False


def leaves(value: object) -> list[object]:
    if isinstance(value, Mapping):
        return [leaf for each in value.values() for leaf in leaves(each)]
    if isinstance(value, list | tuple):
        return [leaf for each in value for leaf in leaves(each)]
    return [value]


def _within(gold: object, value: object) -> bool:
    """Whether the gold is a part of a larger document, `{"order": gold}`."""
    inside = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return any(texts.same_value(gold, each) is not False or _within(gold, each) for each in inside)


def expression(task: GoldTask, text: str, others: Collection[str]) -> bool | None:
    if texts.only_denied(plain(text), plain(task.gold)):
        return False
    last = last_statement(text)
    pieces = re.findall(r"\$([^$]+)\$|\\[(\[](.+?)\\[)\]]", text)
    formulas_in = [a or b for a, b in pieces][-20:]
    whole = text.strip() if len(text) <= formulas.LONGEST else last
    verdicts = [equal.expression(task, each, others) for each in dict.fromkeys((whole, last, *formulas_in))]
    if any(verdict is True for verdict in verdicts):
        return True if len({equal.compact(each) for each in formulas_in}) <= 1 else None
    if equal.compact(task.gold) in equal.compact(text) or None in verdicts:
        return None
    return False


BY_TYPE: Mapping[str, Callable[[GoldTask, str, Collection[str]], bool | None]] = {
    "number": number,
    "choice": choice,
    "string": string,
    "json": json_value,
    "expression": expression,
}
