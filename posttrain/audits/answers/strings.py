"""Short texts that are matched: names, words, measures, lists."""

from __future__ import annotations

import random
import re

from posttrain.audits.answers import numbers
from posttrain.audits.answers.variant import Variant, distinct, dressed, other_digit
from posttrain.audits.golds import INTERVALS, GoldTask

_PAIRS = """yes no true false left right more less increase decrease increases decreases increased decreased rise fall
before after above below over under with without all none north south northern southern east west eastern western up
down higher lower larger smaller greater fewer highest lowest largest smallest most least minimum maximum min max first
last early late earlier later open closed inside outside always never positive negative even odd hot cold buy sell win
lose won lost accept reject allow deny pass fail major minor clockwise anticlockwise import export enable disable
enabled disabled add remove union intersection sin cos asc desc ascending descending start end day night everybody
nobody everything nothing forwards backwards horizontal vertical black white""".split()  # noqa: SIM905
OPPOSITES = dict(zip(_PAIRS[::2], _PAIRS[1::2], strict=True))
OPPOSITES |= {b: a for a, b in OPPOSITES.items()}
"""Words, and what is surely not the same."""
ORDERED = re.compile(
    r"\b(?:(?<!any )(?<!which )(?<!what )order|sort(?:ed)?|rank|arrange|reverse[ds]?|(?:a|de)scending)\b", re.IGNORECASE
)
FREE_ORDER = re.compile(
    r"\b(?:any|whatever|whichever|no (?:particular|specific|special)) (?:order|sequence)|"
    r"\border(?:ing)? (?:does not|doesn't|doesn’t|is not|isn't|will not|won't) (?:matter|important|count|be )|"
    r"\border (?:is|being) (?:free|irrelevant|unimportant|ignored|up to you)|"
    r"\b(?:regardless|irrespective|independent) of (?:the |their )?order",
    re.IGNORECASE,
)
FREE_CASE = re.compile(
    r"\b(?:case|capitali[sz]ation|capitals?) (?:does not|doesn't|do not|don't|is not|isn't) (?:matter|important|count)|"
    r"\b(?:case[- ]insensitive|(?:in )?any case\b(?! of)|upper[- ]?(?:case)? or lower[- ]?case)",
    re.IGNORECASE,
)
UNORDERED = re.compile(
    rf"{FREE_ORDER.pattern}|in order to|(?:place|made|make|send)\w* (?:an|the|this) order", re.IGNORECASE
)
CASE_MATTERS = re.compile(
    r"\b(?:case|capital letters?|uppercase|lowercase|cipher|decode|password|code|regex|regular expression)\b",
    re.IGNORECASE,
)
ALONE = re.compile(r"\b(?:only|one|exactly|single|just|the (?:passage|source|document))\b", re.IGNORECASE)
SEVERAL = re.compile(r"\b(?:at least|or more|all|each|every|any|sources|citations)\b", re.IGNORECASE)
UNITS = ("kg", "km", "seconds", "litres")
SIGN = re.compile(
    r"(?<![\w)\]] )(?<![\w)\]^])[-−](?=[0-9.])|(?<=\^)[-+−]|(?<![a-z]{3})(?<=[\w)\]}^])[-+−](?=[\s}]|$)|[⁺⁻]"
)
OTHER = {"+": "-", "-": "+", "−": "+", "⁺": "⁻", "⁻": "⁺"}
PLAIN = str.maketrans("⁺⁻−", "+--")
STATEMENT = re.compile(r"([^\s:=][^:=]{0,30}?)( (?:is|are|was|has)(?: an?)? |: ?| ?= ?| ?(?:->|→) ?)([^:=]{1,30})")
MONTHS = HOURS = 12
MIN_WORDS = 4
"""Half of so many words is no longer the answer."""
MIN_LETTERS = 5
"""A shorter word may become another right word by one letter."""


def near_misses(task: GoldTask, rng: random.Random) -> list[Variant]:
    gold = task.gold
    if (opposite := contrary(gold)) != gold and len(gold.split()) == 1:
        found = [Variant("the opposite", opposite)]
    else:
        found = [Variant("a word more that denies it", f"not {gold}"), *_measure(gold, rng)]
    found += _misspelt(gold, rng)
    found += [*other_sign(gold), *contradicted(gold)]
    if (changed := other_digit(gold, rng)) is not None:
        found.append(Variant("another digit", changed))
    if len(words := gold.split()) >= MIN_WORDS:
        found.append(Variant("the second half left out", " ".join(words[: len(words) // 2])))
    if ", " in gold:
        found.append(Variant("two items joined", gold.replace(", ", "", 1)))
        found.append(Variant("an item left out", gold.partition(", ")[2]))
        found.append(Variant("one item in place of all", ", ".join(gold.split(", ")[:1] * len(gold.split(", ")))))
        found += _more_items(task, rng)
    found += _cited(task, rng)
    found += _dates(gold)
    if _is_interval(task):
        left = re.match(r".\s*[-+−]?[0-9]", gold) is not None  # where the end is finite
        other = gold[0 if left else -1].translate(str.maketrans("[(])", "([)]"))
        found.append(Variant("an open end closed, or the contrary", other + gold[1:] if left else gold[:-1] + other))
    if is_ordered(task) and (mixed := _mixed(gold, rng)) != gold:
        found.append(Variant("another order", mixed))
    return distinct(found)


def equivalents(task: GoldTask) -> list[Variant]:
    gold = task.gold
    found = [*dressed(gold), Variant("in quotation marks", f'"{gold}"')]
    if any(c.isalpha() for c in gold) and not CASE_MATTERS.search(task.task.asked):
        found += [Variant("small letters", gold.lower()), Variant("capital letters", gold.upper())]
    if ", " in gold:
        found.append(Variant("no blanks behind commas", gold.replace(", ", ",")))
        if FREE_ORDER.search(task.task.asked):
            found.append(Variant("the items in another order", ", ".join(reversed(gold.split(", ")))))
    return distinct(found)


def same(task: GoldTask, answer: str) -> bool:
    gold, other = numbers.parse(task.gold), numbers.parse(answer)
    if _is_interval(task):
        return answer.replace(" ", "") == task.gold.replace(" ", "")
    if "," in task.gold and not is_ordered(task):
        return sorted(map(_bare, answer.split(","))) == sorted(map(_bare, task.gold.split(",")))
    if {answer.translate(PLAIN)} <= {each.text.translate(PLAIN) for each in other_sign(task.gold)}:
        return False
    return _bare(answer) == _bare(task.gold) or (gold is not None and gold == other)


def is_ordered(task: GoldTask) -> bool:
    """Whether the prompt asks for an order, and so a list in another one is wrong."""
    return ORDERED.search(UNORDERED.sub("", task.task.asked)) is not None


def _misspelt(gold: str, rng: random.Random) -> list[Variant]:
    """One letter of a long word replaced, left out, or swapped with the next one."""
    words = list(re.finditer(rf"[^\W\d_]{{{MIN_LETTERS},}}", gold))
    if not words:
        return []
    word = rng.choice(words)
    at = rng.randrange(word.start() + 1, word.end())
    letter = rng.choice([c for c in "aeiklmnorstu" if c != gold[at].lower()])
    found = [
        Variant("another letter", gold[:at] + letter + gold[at + 1 :]),
        Variant("a letter left out", gold[:at] + gold[at + 1 :]),
        Variant("the last letters left out", gold[: word.end() - 2] + gold[word.end() :]),
        Variant("a single letter", gold[word.end() - 2]),
    ]
    if places := [i for i in range(word.start(), word.end() - 1) if gold[i].lower() != gold[i + 1].lower()]:
        i = rng.choice(places)
        found.append(Variant("two letters swapped", f"{gold[:i]}{gold[i + 1]}{gold[i]}{gold[i + 2 :]}"))
    return found


def contrary(text: str, but: str = "") -> str:
    """The text with its first word that has a well-known opposite, and is none of `but`, replaced by that; itself
    where there is none."""
    kept = {*re.findall(r"\w+", but.casefold())} | ({"yes", "no"} if " " in text else set())
    for word in re.finditer(r"[^\W\d_]+", text):
        if (other := OPPOSITES.get(word[0].casefold())) and word[0].casefold() not in kept:
            other = other.upper() if word[0].isupper() else other.capitalize() if word[0][0].isupper() else other
            return text[: word.start()] + other + text[word.end() :]
    return text


def other_sign(gold: str) -> list[Variant]:
    """The sign of a number (-5 °C), behind a formula or a grade (Ca2+, SO4^2-, B+), or raised, changed."""
    match = SIGN.search(gold)
    return [Variant("a sign changed", gold[: match.start()] + OTHER[match[0]] + gold[match.end() :])] if match else []


def contradicted(gold: str) -> list[Variant]:
    """Statements such as `Ann is a knight, Bo is a knave`, with the value of the first one said of all, before and
    behind them: whether the first or the last counts, some are wrong."""
    parts = [match.groups() for each in re.split("[,;\n]", gold) if (match := STATEMENT.fullmatch(each.strip()))]
    between = re.search(r"[,;\n]\s*", gold)
    several = len(parts) == len({label for label, *_ in parts}) > 1 and len({value for *_, value in parts}) > 1
    if between is None or not several or len(parts) <= len(re.findall("[,;\n]", gold)):
        return []
    alike = between[0].join(f"{label}{verb}{parts[0][2]}" for label, verb, _ in parts)
    return [Variant("statements between others that contradict them", between[0].join((alike, gold, alike)))]


def _measure(gold: str, rng: random.Random) -> list[Variant]:
    """A number with a unit: the number near it, and another unit of the same kind of letters."""
    match = numbers.MEASURE.fullmatch(gold)
    value = numbers.parse(match[1]) if match else None
    if match is None or value is None:
        return []
    number, unit = match.groups()
    other = rng.choice([each for each in UNITS if each != unit.casefold()])
    return [
        Variant("one more", f"{numbers.written(value + 1)} {unit}"),
        Variant("a factor of ten", f"{numbers.written(value * 10)} {unit}"),
        Variant("another unit", f"{number} {other}"),
    ]


def _more_items(task: GoldTask, rng: random.Random) -> list[Variant]:
    """A list with an item that is none of it: an offered one, another number, else a word of no language; and with all
    that is offered."""
    items = [item.strip() for item in task.gold.split(",")]
    offers = [value for value in task.columns.values() if isinstance(value, list) and {*items} < {*map(str, value)}]
    if offers:
        others = [str(item) for item in offers[0] if str(item) not in items]
        every = ", ".join(map(str, offers[0]))
        return [Variant("an item more", f"{task.gold}, {rng.choice(others)}"), Variant("all that is offered", every)]
    whole = [int(item) for item in items if re.fullmatch("[0-9]{1,9}", item)]
    return [Variant("an item more", f"{task.gold}, {max(whole) + 1 if len(whole) == len(items) else 'zzqx'}")]


def _cited(task: GoldTask, rng: random.Random) -> list[Variant]:
    """A source that the prompt has, `[3]`, beside the right one or in its place, where the prompt asks for that
    alone."""
    sources = re.findall(r"\[[0-9]+\]", task.gold)
    others = sorted({*re.findall(r"\[[0-9]+\]", task.task.asked)} - {*sources})
    if len(sources) != 1 or not others:
        return []
    other, more = rng.choice(others), " ".join(sorted([*sources, *others[:2]]))
    found = [Variant("another source", task.gold.replace(sources[0], other)),
             Variant("no source", task.gold.replace(sources[0], ""))]  # fmt: skip
    if ALONE.search(task.task.asked) and not SEVERAL.search(task.task.asked):
        found.append(Variant("a source more", task.gold.replace(sources[0], f"{sources[0]} {other}")))
        found.append(Variant("several sources", task.gold.replace(sources[0], more)))
    return found


def _dates(gold: str) -> list[Variant]:
    """Of a date such as 2024-03-05 or 05/03/2024 day and month swapped; of a time such as 9:30 am or 09:30 the other
    half of the day."""
    found = []
    if match := re.fullmatch(r"([0-9]{4}[-/.])?([0-9]{1,2})([-/.])([0-9]{1,2})([-/.][0-9]{4})?", gold):
        before, first, sign, second, after = (each or "" for each in match.groups())
        if (before or after) and first != second and max(int(first), int(second)) <= MONTHS:
            found.append(Variant("day and month swapped", f"{before}{second}{sign}{first}{after}"))
    if match := re.fullmatch(r"([0-9: .]+)([ap])(\.?m\.?)", gold, re.IGNORECASE):
        found.append(Variant("the other half of the day", match[1] + {"a": "p", "p": "a"}[match[2].lower()] + match[3]))
    if match := re.fullmatch(r"(0[0-9]|1[3-9]|2[0-3])((?::[0-5][0-9]){1,2})", gold):
        found.append(Variant("the other half of the day", f"{(int(match[1]) + HOURS) % 24:02}{match[2]}"))
    return found


def _is_interval(task: GoldTask) -> bool:
    return INTERVALS.search(task.task.asked) is not None and re.fullmatch(r"[\[(].*,.*[\])]", task.gold) is not None


def _bare(text: str) -> list[str]:
    """The words, without case and punctuation, and without an article in front."""
    words = re.findall(r"[^\W_]+", text.casefold())
    return words[1:] if len(words) > 1 and words[0] in ("the", "a", "an") else words


def _mixed(gold: str, rng: random.Random) -> str:
    """The items of a list with commas, two neighbours in the other order."""
    items = gold.strip("()[]{}").split(",")
    if len(items) < 2:
        return gold
    at = rng.randrange(len(items) - 1)
    items[at], items[at + 1] = items[at + 1].strip(), items[at].strip()
    inside = ", ".join(item.strip() for item in items)
    return inside if gold[0] not in "([{" else f"{gold[0]}{inside}{gold[-1]}"
