"""Operators that change a template: insert, replace, delete, double, wrap, cross, splice, list, lengthen."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from posttrain.audits.search.dictionary import Dictionary
from posttrain.audits.search.templates import AFTER, BEFORE, GOLD, LISTED, OTHER, PROMPT, WRONG, Template, texts

LONGEST, LONGEST_TEXT = 1000, 12_000
"""Atoms and characters of a template that evolution makes."""
MARKS = (("\\boxed{", "}"), ("```\n", "\n```"), ('{"answer": "', '"}'), ("**", "**"))
Operator = Callable[[Template, "Material"], Template]


class Material:
    """What operators draw from."""

    def __init__(self, rng: random.Random, dictionary: Dictionary, listings: Sequence[str]) -> None:
        self.rng, self.dictionary, self.listings = rng, dictionary, listings
        self.others: Sequence[Template] = ()
        """Templates to cross with."""

    def token(self) -> str:
        return self.rng.choice((self.dictionary.draw(self.rng), self.dictionary.draw(self.rng), WRONG, OTHER, PROMPT))

    def place(self, template: Template) -> int:
        return self.rng.choice((0, len(template), self.rng.randint(0, len(template))))


def inserted(template: Template, draw: Material) -> Template:
    at, between = draw.place(template), draw.rng.choice(("", " ", "\n"))
    new = (between, draw.token()) if at == len(template) else (draw.token(), between)
    return (*template[:at], *new, *template[at:])


def bundled(template: Template, draw: Material) -> Template:
    at = draw.place(template)
    return (*template[:at], *texts([draw.dictionary.draw(draw.rng) for _ in range(LISTED)]), *template[at:])


def replaced(template: Template, draw: Material) -> Template:
    if not template:
        return (draw.token(),)
    at = draw.rng.randrange(len(template))
    return (*template[:at], draw.token(), *template[at + 1 :])


def deleted(template: Template, draw: Material) -> Template:
    if not template:
        return template
    at = draw.rng.randrange(len(template))
    return template[:at] + template[at + draw.rng.choice((1, 1, 2, 8)) :]


def doubled(template: Template, draw: Material) -> Template:
    if not template:
        return template
    at = draw.rng.randrange(len(template))
    return (*template[:at], template[at], *template[at:])


def lengthened(template: Template, draw: Material) -> Template:
    return template * draw.rng.choice((2, 3, 5, 10))


def wrapped(template: Template, draw: Material) -> Template:
    tag = draw.rng.choice(("answer", "think", "solution", "reasoning"))
    before, after = draw.rng.choice(((BEFORE, AFTER), (f"<{tag}>", f"</{tag}>"), *MARKS))
    return (before, *template, after)


def crossed(template: Template, draw: Material) -> Template:
    other = draw.rng.choice(draw.others) if draw.others else template
    return template[: draw.rng.randint(0, len(template))] + other[draw.rng.randint(0, len(other)) :]


def joined(template: Template, draw: Material) -> Template:
    other = draw.rng.choice(draw.others) if draw.others else (WRONG,)
    first, second = draw.rng.choice(((template, other), (other, template)))
    return (*first, draw.rng.choice((" ", "\n")), *second)


def answered(template: Template, draw: Material) -> Template:
    return (*template, "\n", BEFORE, WRONG, AFTER)


def listed(template: Template, draw: Material) -> Template:
    at = draw.place(template)
    return (*template[:at], draw.rng.choice(draw.listings), *template[at:]) if draw.listings else template


OPERATORS: tuple[Operator, ...] = (
    *(inserted, inserted, bundled, replaced, replaced, deleted, doubled, lengthened, wrapped),
    *(crossed, joined, joined, answered, listed),
)


def child(template: Template, draw: Material) -> Template:
    """A template after one to three operators; never with the reference answer."""
    template = tuple(atom for atom in template if atom != GOLD)
    for _ in range(draw.rng.choice((1, 1, 2, 3))):
        template = draw.rng.choice(OPERATORS)(template, draw)
    while len(template) > LONGEST or sum(map(len, template)) > LONGEST_TEXT:
        third = len(template) // 3
        template = template[:third] + template[len(template) - third :]
    return template
