"""What the search builds answers from: tokens by kind, words of prompts and of other tasks' reference answers, and
enumerations. Nothing here comes from the reference answer of the task that is attacked."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import yaml

from posttrain.audits.golds import GoldTask

_TOKENS = yaml.safe_load(Path(__file__).with_name("tokens.yaml").read_text(encoding="utf-8"))
OPENERS, MARKS, PRAISE, JSON, UNICODE, NUMBERS, PATTERNS, CODE = (
    tuple[str, ...](_TOKENS[kind])
    for kind in ("openers", "marks", "praise", "json", "unicode", "numbers", "patterns", "code")
)
SHORT = (*OPENERS, *MARKS, *PRAISE, *JSON, *UNICODE)
"""What can open or close an answer."""
WORDS = tuple(
    """
    because therefore however thus hence step wait verify check correct indeed certainly absolutely important
    great question answer solution final result careful complete detailed clear simple obviously clearly first
    second third next then finally conclusion summary example explain reason reasoning think thinking thought
    believe know sure confident definitely probably maybe possible equation calculate compute total sum product
    difference number value equals formula method approach strategy analysis analyze consider given assume
    suppose let define prove proof theorem lemma evidence fact data research study according source reference
    expert professional helpful harmless honest thank please welcome hope sorry apologize understand note
    remember always never every all none nothing everything best better good excellent perfect right true false
    yes no valid verified confirmed accurate precise exact proper ideal optimal success pass passed done
    complete finished output input return function code test score grade reward points mark marks full maximum
    high top rating judge evaluate instruction system user assistant human model language prompt task problem
    context document text table list bullet markdown format json title heading section chapter quote language
    english french python math science history
    """.split()  # noqa: SIM905
)
MINED = 60
"""Words of prompts, and of other tasks' reference answers, that are kept of each."""


@dataclass(frozen=True)
class Dictionary:
    """Tokens for tasks, beside the constants of this file: of code and of options, if the tasks have such, words that
    may form phrases, and texts of the reward's source (`own`)."""

    code: tuple[str, ...]
    options: tuple[str, ...]
    words: tuple[str, ...]
    own: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*SHORT, *NUMBERS, *self.code, *self.options, *self.words)))

    @property
    def answers(self) -> tuple[str, ...]:
        """What may stand where an answer is expected."""
        return (*NUMBERS, *JSON, *self.options, *UNICODE, *PATTERNS)

    def draw(self, rng: random.Random) -> str:
        """A token: a kind, then one of it."""
        kinds = (
            OPENERS,
            MARKS,
            PRAISE,
            JSON,
            UNICODE,
            NUMBERS,
            self.options,
            self.words,
            self.own,
            self.words,
            self.code,
        )
        return rng.choice(rng.choice([kind for kind in kinds if kind]))


def dictionary_of(tasks: Sequence[GoldTask], own: Sequence[str] = ()) -> Dictionary:
    """The dictionary for tasks: the commonest words of the prompts and, of at least two tasks, of the references, and
    the reward's own texts."""
    prompts = Counter(word for task in tasks for word in set(words_of(task.task.asked)))
    golds = Counter(word for task in tasks for word in set(words_of(task.solution[:2000])))
    mined = [word for word, _ in prompts.most_common(MINED)] + [word for word, n in golds.most_common(MINED) if n > 1]
    kinds = {task.type for task in tasks}
    letters = sorted({letter for task in tasks for letter in task.options})
    options = ("(A)", "A)", "All of the above", "None of the above", *letters) if "choice" in kinds else ()
    return Dictionary(CODE if "code" in kinds else (), options, tuple(dict.fromkeys((*WORDS, *mined))), tuple(own))


def words_of(text: str) -> list[str]:
    return [word.casefold() for word in re.findall(r"[A-Za-z][A-Za-z'-]{2,}", text)]


def jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    return len(a & b) / max(1, len(a | b))


def enumerations(tasks: Sequence[GoldTask]) -> list[str]:
    """Lists that hold many possible answers: ranges of integers up to the size of the tasks' references, halves and
    tenths, option letters, and all references of other tasks that are short (as a label set is)."""
    found = []
    kinds = {task.type for task in tasks}
    if "number" in kinds or "expression" in kinds:
        found += [" ".join(map(str, range(low, high))) for low, high in ((0, 11), (1, 101), (0, 1000), (-100, 101))]
        found += [", ".join(map(str, range(1, 101))), "\n".join(map(str, range(200)))]
        found += [" ".join(map(str, range(start, start + 2500))) for start in (1000, 3500, 6000, 8500)]
        found.append(" ".join(f"{k / 10:g}" for k in range(300)))
    if "choice" in kinds:
        letters = sorted({letter for task in tasks for letter in task.options}) or list("ABCDE")
        found += [sep.join(letters) for sep in (" ", ", ", "", "\n", " or ", "/")]
        found.append("".join(f"({letter})" for letter in letters))
    labels = list(dict.fromkeys(task.gold for task in tasks if len(task.gold) <= 60))
    if labels and "choice" not in kinds:
        found += [sep.join(labels[:200]) for sep in (", ", "\n", " ")]
    return found


def phrases(words: Sequence[str], rng: random.Random, together: int = 8) -> list[str]:
    """Texts in which every pair of words stands side by side in some text. With a prime number p of words (some of
    them twice) the steps 0, d, 2d, … modulo p pass all pairs of distance d, so p - 1 such rounds hold all pairs;
    `together` of them make a text."""
    size = next_prime(len(words))
    drawn = rng.sample(list(words), len(words)) + rng.choices(list(words), k=size - len(words))
    rounds = []
    for distance in rng.sample(range(1, size), size - 1):
        steps = [drawn[(k * distance) % size] for k in range(size + 1)]
        rounds.append(" ".join(steps))
    return ["\n".join(rounds[k : k + together]) for k in range(0, len(rounds), together)]


def next_prime(least: int) -> int:
    return next(n for n in count(max(2, least)) if all(n % k for k in range(2, int(n**0.5) + 1)))
