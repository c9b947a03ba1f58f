"""The retention suite: what a model knew before training, asked again after it.

Short questions of three kinds, scored by code alone, and about 22,000 tokens of licensed prose, half of which is read
for a perplexity. The suite has nothing to do with the arithmetic that pipelines train on, so a fall shows forgetting.
NOTICE beside this file names the licences. Greedy answers of up to `MAX_NEW_TOKENS` tokens are meant.

SmolLM2-135M-Instruct (the converted Q4_1 weights, float32) scores 58% on knowledge (35 of 60), 59% on reading
(29 of 49) and 45% on instructions (27 of 60): far enough from 0 and 1 that both a loss and a gain show.
"""

from __future__ import annotations

import json
import re
import string
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, Literal, get_args

from posttrain.types import Task

Kind = Literal["knowledge", "reading", "instructions"]
KINDS: tuple[Kind, ...] = get_args(Kind)

MAX_NEW_TOKENS = 48
MAX_ANSWER_WORDS = 25
"""An answer to a question of knowledge or reading is read up to here, so that listing everything does not help."""


@dataclass(frozen=True)
class RetentionItem:
    """One question. `accept` lists right answers (knowledge, reading); `check` names the constraints that the answer
    must all meet (instructions), see `CHECKS`. Exactly one of the two is given."""

    id: str
    kind: Kind
    prompt: str
    accept: tuple[str, ...] = ()
    check: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"{self.id}: unknown kind {self.kind!r}")
        if bool(self.check) != (self.kind == "instructions") or bool(self.accept) == bool(self.check):
            raise ValueError(f"{self.id}: instructions have a check, the other kinds accepted answers")
        if unknown := sorted(set(self.check) - set(CHECKS)):
            raise ValueError(f"{self.id}: unknown check {unknown[0]!r}")


def normalise(text: str) -> str:
    """Lower case without accents, articles and punctuation, words separated by single spaces."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", text.lower()) if not unicodedata.combining(c))
    words = re.sub(r"[^\w\s]|_", " ", plain.replace("'", "").replace("’", "")).split()
    return " ".join(w for w in words if w not in ("a", "an", "the"))


def _words(text: str) -> list[str]:
    """Words as a reader counts them: whatever white space separates, without bare punctuation."""
    return [w for w in text.split() if any(c.isalnum() for c in w)]


def _lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


def _sentences(text: str) -> int:
    """Ends of sentences; the number that opens a line of a list is none."""
    return len(re.findall(r"[.!?]+(?=\s|$)", re.sub(r"^\s*\d+[.)]", "", text, flags=re.MULTILINE)))


def _contains(text: str, phrase: str) -> bool:
    return f" {normalise(phrase)} " in f" {normalise(text)} "


def _upper(text: str, wanted: bool) -> bool:
    letters = [c for c in text if c.isalpha()]
    return bool(letters) and all(c.isupper() == wanted for c in letters)


def _bare(word: str) -> str:
    return word.strip(string.punctuation + "“”‘’").lower()


def _first_words(text: str, start: str) -> bool:
    words = [_bare(w) for w in start.split()]
    return [_bare(w) for w in _words(text)[: len(words)]] == words


def _last_words(text: str, end: str) -> bool:
    words = [_bare(w) for w in end.split()]
    return [_bare(w) for w in _words(text)[-len(words) :]] == words


def _in_range(count: int, limits: list[int]) -> bool:
    return limits[0] <= count <= limits[1]


CHECKS: Mapping[str, Callable[[str, Any], bool]] = {
    "upper": _upper,  # every letter is a capital (true) or none is (false)
    "words": lambda text, limits: _in_range(len(_words(text)), limits),
    "lines": lambda text, limits: _in_range(len(_lines(text)), limits),
    "sentences": lambda text, limits: _in_range(_sentences(text), limits),
    "commas": lambda text, limits: _in_range(text.count(","), limits),
    "starts": _first_words,
    "ends": _last_words,
    "ends_mark": lambda text, mark: text.rstrip().endswith(mark),
    "includes": lambda text, phrases: all(_contains(text, p) for p in phrases),
    "any_of": lambda text, phrases: any(_contains(text, p) for p in phrases),
    "excludes": lambda text, phrases: not any(_contains(text, p) for p in phrases),
    "no_letter": lambda text, letter: letter not in text.lower(),
    "line_starts": lambda text, prefixes: (
        len(_lines(text)) >= len(prefixes)
        and all(line.strip().startswith(p) for line, p in zip(_lines(text), prefixes, strict=False))
    ),
}
"""Constraints by name: (answer, argument of the check) -> met. Ranges are [least, most], ends included."""


def score_retention(text: str, item: RetentionItem) -> float:
    """1 for a right answer, else 0.

    Knowledge and reading: one of the accepted answers occurs as whole words, after `normalise`, in the first
    MAX_ANSWER_WORDS words. Instructions: the answer is not empty and meets every check of the item."""
    words = _words(text)
    if not words:
        return 0.0
    if item.kind == "instructions":
        return float(all(CHECKS[name](text, argument) for name, argument in item.check.items()))
    read = " ".join(words[:MAX_ANSWER_WORDS])
    return float(any(_contains(read, answer) for answer in item.accept))


def retention_tasks() -> list[RetentionItem]:
    """Every item of the suite, in a fixed order: knowledge, reading, instructions."""
    folder = resources.files(__package__)
    items = []
    for kind in KINDS:
        for line in (folder / f"{kind}.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            items.append(RetentionItem(**{**row, "accept": tuple(row.get("accept", ()))}))
    return items


def as_tasks() -> list[Task]:
    """The items as tasks: columns `kind`, `accept` (a list) and `check` (a dict)."""
    return [
        Task(i.id, i.prompt, {"kind": i.kind, "accept": list(i.accept), "check": dict(i.check)})
        for i in retention_tasks()
    ]


def retention_text() -> str:
    """The prose whose perplexity is measured: public-domain fiction, then technical documentation."""
    folder = resources.files(__package__)
    return "\n".join((folder / name).read_text(encoding="utf-8") for name in ("fiction.txt", "technical.txt"))
