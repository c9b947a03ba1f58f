"""Free text that answers a question in sentences: what surely says something else."""

from __future__ import annotations

import random
import re

from posttrain.audits.answers.variant import Variant, distinct, other_digit
from posttrain.audits.golds import GoldTask

MIN_WORDS, MIN_HALF = 3, 6
"""Words of a sentence, and of a text whose halves are not the whole."""
OPEN_ENDED = re.compile(
    r"\b(?:write|compose|create|invent|draft|poem|story|haiku|limerick|slogan|joke|example|use the|using|contain\w*|"
    r"includ\w+|mention\w*|rewrite|rephrase|paraphrase|colou?r|pattern|regular expression)\b",
    re.IGNORECASE,
)
"""Prompts that many texts fit, also one that says the contrary of the reference."""
WHOLE = re.compile(
    r"\b(?:translat\w+|whole|entire|complete(?:ly)?(?! sentence)|verbatim|word for word|recite|full text)\b",
    re.IGNORECASE,
)
"""Prompts to which a part of the answer is no answer."""
ONCE = re.compile(
    r"\b(?:once|no \w+ twice|never twice|without (?:repeat\w*|repetitions?|duplicates)|"
    r"no (?:repeat\w*|repetitions?|duplicates))\b",
    re.IGNORECASE,
)
"""Prompts in which no item may stand twice."""
QUANTITY = re.compile(
    r"\bhow (?:many|much|far|long|old|tall|high|deep|fast|often)\b|\b(?:when|what|which) (?:year|number|date|time)\b"
    r"|^when\b",
    re.IGNORECASE,
)
"""Prompts that ask for a number, so that another one in the answer is not an aside."""
ARTICLE = re.compile(r"(?:The|An?|It|This|That|These|They|He|She|There|In|On|At|By|To) ")
VERB = re.compile(r"\b(?:is|are|was|were|can|could|will|would|should|must|has|have|had|does|did)\b", re.IGNORECASE)
NEGATIVE = re.compile(r"\b(?:not|no|never|none|nobody|nothing|neither|cannot|without)\b|n['’]t\b", re.IGNORECASE)


def near_misses(task: GoldTask, rng: random.Random) -> list[Variant]:
    """Each sentence called wrong, `not` behind its first verb, another number where the prompt asks for one, and where
    it asks for a whole, that and a half. A sentence that is negative itself is left as it is."""
    said = sentences(task)
    if not said:
        return []
    found = [
        Variant("every sentence called wrong", " ".join(map(_called_wrong, said))),
        Variant("'not' behind the verb", " ".join(map(_negated, said))),
    ]
    whole = WHOLE.search(task.task.asked)
    if (whole or QUANTITY.search(task.task.asked)) and (changed := other_digit(task.gold, rng)) is not None:
        found.append(Variant("another number", changed))
    if whole and (parts := halves(task)):
        found += [Variant("the second half left out", parts[0]), Variant("the first half left out", parts[1])]
    return distinct(found)


def equivalents(task: GoldTask) -> list[Variant]:
    return []


def same(task: GoldTask, answer: str) -> bool:
    return answer.split() == task.gold.split()


def sentences(task: GoldTask) -> list[str]:
    """The sentences of a reference that is nothing else; none where the prompt leaves open what to say."""
    said = re.split(r"(?<=[.!?])\s+", task.gold.strip())
    prose = all(re.fullmatch(r"[\"'“]?[^\W_].*[.!?][\"'”]?", each, re.DOTALL) for each in said)
    long = all(len(each.split()) >= MIN_WORDS for each in said)
    return said if prose and long and "\n" not in task.gold and not OPEN_ENDED.search(task.task.asked) else []


def halves(task: GoldTask) -> list[str]:
    """The first and the second half of the words; none of a short text."""
    words = task.gold.split()
    middle = len(words) // 2
    return [" ".join(words[:middle]), " ".join(words[middle:])] if len(words) >= MIN_HALF and sentences(task) else []


def cut_lines(task: GoldTask) -> list[Variant]:
    """The first word of each line, of a text of lines such as a poem: no answer, also where many texts are right."""
    lines = [line.split() for line in task.gold.splitlines() if line.strip()]
    if task.type not in ("string", "text") or len(lines) < MIN_WORDS or min(map(len, lines)) < MIN_WORDS:
        return []
    return [Variant("the first word of each line alone", "\n".join(words[0] for words in lines))]


def repeated(task: GoldTask) -> list[Variant]:
    """Every item of a list twice, where the prompt forbids that: wrong, whichever items are right."""
    items = [item.strip() for item in task.gold.split(",")]
    if task.type != "string" or len(items) < 2 or not ONCE.search(task.task.asked):
        return []
    return [Variant("every item twice", ", ".join(items + items))]


def shared_words(one: str, other: str) -> float:
    """F1 of the words of two texts, each counted once."""
    mine, right = ({*re.findall(r"\w[\w.]*", text.casefold())} for text in (one, other))
    return 2 * len(mine & right) / max(1, len(mine) + len(right))


def _called_wrong(sentence: str) -> str:
    begun = sentence[0].lower() + sentence[1:] if ARTICLE.match(sentence) else sentence
    return f"It would be wrong to say that {begun}"


def _negated(sentence: str) -> str:
    return sentence if NEGATIVE.search(sentence) else VERB.sub(lambda verb: f"{verb[0]} not", sentence, count=1)
