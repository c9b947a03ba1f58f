"""Whether a marked answer is the gold: True, False, or None where that depends on how one reads it. By answer type."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from fractions import Fraction
from functools import cache, lru_cache
from itertools import pairwise

from posttrain.audits.golds import GoldTask
from posttrain.audits.guard import formulas
from posttrain.audits.guard.numbers import Literal, literals, plain, same_number, spelled
from posttrain.audits.guard.reading import denied
from posttrain.audits.guard.texts import as_json, documents, folded, only_denied, same_text, same_value

LETTER = re.compile(r"(?<![A-Za-z0-9'])\(?([A-Ja-j])(?:[).:\]]|(?![A-Za-z0-9'-]))")
ARTICLE_AFTER = re.compile(r"['’]|\s+(?!(?:and|or|is|was|because|since|not|as)\b)[a-z]")
SEPARATED = re.compile(r"(?:[\s,;/|&()\[\]{}$*.:\-]|\band\b|\bor\b|\\boxed|\\text)*", re.IGNORECASE)
HEDGE = re.compile(r"\b(?:or|either|perhaps|maybe|possibly|alternatively)\b|(?<!\w)[/|](?!\w)", re.IGNORECASE)
MANY = 60
"""More numbers are a list, in which nothing is denied."""


def same(task: GoldTask, text: str, others: Collection[str] = ()) -> bool | None:
    """Whether the content of a mark is the gold of the task. `others` are the golds of all tasks, which show that a
    text holds several."""
    return BY_TYPE[task.type](task, text, others)


@lru_cache(4096)
def gold_number(gold: str) -> Literal | None:
    found = literals(plain(gold))
    return found[0] if found else None


def asserted(text: str, found: Sequence[Literal]) -> Sequence[Literal]:
    """Those numbers of a plain text that it does not deny; of a long list all."""
    return found if len(found) > MANY else [each for each in found if not denied(text, each.start, each.end)]


def number(task: GoldTask, text: str, _: Collection[str] = ()) -> bool | None:
    gold = gold_number(task.gold)
    text = plain(text)
    if gold is None:
        return string(task, text)
    found = asserted(text, literals(text) or spelled(text))
    verdicts = [same_number(gold, each) for each in found]
    if not any(verdict is not False for verdict in verdicts):
        denies = any(same_number(gold, each) is not False for each in literals(text))
        return False if denies else _rescued(gold, text)
    if len(_distinct(found)) == 1:
        return verdicts[0]
    if (chain := _chain(gold, text)) is not None:
        return chain
    return False if hedged(text, found, verdicts) else None


def _rescued(gold: Literal, text: str) -> bool | None:
    """An answer that does not hold the gold as a number: None where it has its value, as 6*7 has."""
    words = [same_number(gold, each) for each in spelled(text)]
    if any(verdict is not False for verdict in words):
        return words[0] if len(words) == 1 else None
    for part in {text, text.rpartition("=")[2], re.sub(r"[A-Za-z]{2,}[A-Za-z ]*", "", text)}:
        found = formulas.value(part)
        if found is not None and abs(found - float(gold.value)) <= 1e-6 * max(1.0, abs(found)):
            return None
    return None if re.search(r"\\(?:sum|prod|int|binom|lfloor|lceil|frac|sqrt)|[0-9)]!|_[0-9]", text) else False


def _distinct(found: Sequence[Literal]) -> set[tuple[Fraction, bool]]:
    return {(each.value, each.percent) for each in found}


def _chain(gold: Literal, text: str) -> bool | None:
    """An equation: its last side is the answer, and all sides that are numbers must be equal, else it says nothing:
    41 = 42 is no answer."""
    sides = [side.strip(" $.") for side in text.split("=")]
    last = literals(sides[-1])
    if len(sides) < 2 or len(_distinct(last)) != 1:
        return None
    values = [value for side in sides if (value := formulas.value(side)) is not None]
    if any(abs(value - values[0]) > 1e-2 * max(1.0, abs(value)) for value in values):
        return False
    return True if same_number(gold, last[0]) is True else None


def hedged(text: str, found: Sequence[Literal], verdicts: Sequence[bool | None]) -> bool:
    """Whether a text gives several numbers to choose from: nothing but a list of them, or the gold beside another
    number with an `or` between."""
    gaps = [text[a.end : b.start] for a, b in pairwise(found)]
    edges = text[: found[0].start], text[found[-1].end :]
    signs = [text[b.start] in "+-" and bool(re.search(r"\w[ \t]*\Z", text[: b.start][-9:])) for b in found[1:]]
    if all(SEPARATED.fullmatch(gap) for gap in (*gaps, *edges)) and not any(signs):
        return len(found) > 2 or None not in verdicts
    for k, gap in enumerate(gaps):
        if SEPARATED.fullmatch(gap) and HEDGE.search(gap) and any(verdicts[k : k + 2]) and not all(verdicts[k : k + 2]):
            return True
    return False


def letters(text: str) -> list[str]:
    """The option letters that a text gives and does not deny."""
    found = [m for m in LETTER.finditer(text) if not _word(text, m)]
    return [m[1].upper() for m in found if len(found) > MANY or not denied(text, m.start(), m.end())]


def _word(text: str, match: re.Match[str]) -> bool:
    """Whether a letter may be a word: in lower case, unless it stands in brackets or alone, and `A` or `I` before
    another word."""
    if match[0][0] == "(" or len(text.strip()) <= 3:
        return False
    return match[1].islower() or (match[1] in "AI" and ARTICLE_AFTER.match(text, match.end(1)) is not None)


def only_letters(text: str) -> bool:
    """Whether a text is nothing but option letters, in a list or together."""
    words = [word for word in re.findall(r"\w+", text) if word.casefold() not in ("and", "or")]
    return bool(words) and (
        all(re.fullmatch("[A-Ja-j]", w) for w in words) or re.fullmatch("[A-J]{2,10}", text) is not None
    )


@lru_cache(1024)
def _options(prompt: str) -> Mapping[str, str]:
    """The text of each option of a prompt, folded."""
    parts = re.split(r"(?:^|[\s(])([A-J])[).:]\s", prompt)
    return {letter: folded(text.split("\n")[0]) for letter, text in zip(parts[1::2], parts[2::2], strict=True)}


def option_texts(task: GoldTask, text: str) -> set[str]:
    """The letters of the options whose text stands in a text."""
    words = f" {folded(text)} "
    return {letter for letter, option in _options(task.task.asked).items() if option and f" {option} " in words}


def choice(task: GoldTask, text: str, _: Collection[str] = ()) -> bool | None:
    gold = (LETTER.search(task.gold) or [task.gold, task.gold])[1].upper()
    text = plain(text).strip(" $*.")
    named = option_texts(task, text)
    options = set(_options(task.task.asked)) or set("ABCDEFGHIJ")
    if only_letters(text):
        return set(re.findall(r"\b[A-J]\b", text.upper()) or text.upper()) == {gold}
    found = set(letters(text)) & options
    if found == {gold}:
        return True if not named or gold in named else None
    if gold in found:
        rest = re.sub(r"\([A-J]\)|\b[A-J]\b|\band\b|\bor\b|\bboth\b|option|[^\w]", "", text)
        return None if rest and not HEDGE.search(text) else False
    if gold in named:
        return True if named == {gold} and not found and folded(text) == _options(task.task.asked)[gold] else None
    return False


def string(task: GoldTask, text: str, others: Collection[str] = ()) -> bool | None:
    return same_text(task.gold, text, others)


def json_value(task: GoldTask, text: str, _: Collection[str] = ()) -> bool | None:
    gold = as_json(task.gold)
    try:
        return same_value(gold, as_json(text))
    except ValueError:
        pass
    verdicts = [same_value(gold, each) for each in documents(text)]
    return None if any(verdict is not False for verdict in verdicts) else False


def compact(text: str) -> str:
    return re.sub(r"[\s$\\!,;:.]|left|right|displaystyle|dfrac|tfrac|cdot|\*|\{|\}", "", plain(text)).casefold()


def expression(task: GoldTask, text: str, _: Collection[str] = ()) -> bool | None:
    gold, said = plain(task.gold), plain(text).strip(" $.*")
    if only_denied(said, gold):
        return False
    if compact(gold) == compact(said):
        return True
    if "=" not in gold and _unequal_sides(said):
        return False
    for part in dict.fromkeys((said, said.rpartition("=")[2], said.rpartition(" is ")[2])):
        if formulas.same_formula(gold, part):
            return True
    verdicts = _parts(gold, said)
    if verdicts is not None:
        return verdicts
    if formulas.same_formula(gold, said) is False:
        return False
    return None if compact(gold) in compact(said) or re.search(r"[\\^=*/+]|\d", said) else False


def _unequal_sides(said: str) -> bool:
    """Whether an equation cannot hold; on its left a name as `y` or `f(x)` may stand, which it defines."""
    left, sign, right = said.partition("=")
    named = re.fullmatch(r"\W*[A-Za-z]'*(?:\([A-Za-z]\))?\W*", left) is not None
    return bool(sign) and not named and formulas.same_formula(left, right) is False


@cache
def _commas(text: str) -> tuple[str, ...]:
    """The parts between commas that stand in no bracket; of a text in brackets those of its inside."""
    text = text.strip().removeprefix("\\").strip()
    if len(text) > 2 and text[0] in "([{" and text[-1] in ")]}":
        text = text[1:-1].removesuffix("\\")
    parts, depth, start = [], 0, 0
    for k, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            parts.append(text[start:k])
            start = k + 1
    return (*parts, text[start:])


def _parts(gold: str, said: str) -> bool | None:
    mine, theirs = _commas(gold), _commas(said.rpartition("=")[2] if "=" not in gold else said)
    if len(mine) < 2 or len(mine) != len(theirs):
        return None
    verdicts = [formulas.same_formula(a, b) for a, b in zip(mine, theirs, strict=True)]
    if all(verdicts):
        return True if gold.strip()[0] == said.strip()[0] and gold.strip()[-1] == said.strip()[-1] else None
    unordered = all(any(formulas.same_formula(a, b) is not False for b in theirs) for a in mine)
    return None if None in verdicts or (unordered and gold.strip()[0] not in "([") else False


BY_TYPE: Mapping[str, Callable[[GoldTask, str, Collection[str]], bool | None]] = {
    "number": number,
    "choice": choice,
    "string": string,
    "json": json_value,
    "expression": expression,
}
