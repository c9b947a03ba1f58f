"""Healthy rewards: strict, dense, with several right answers, and with a price for length."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping
from typing import Any

from zoo_forms import NEGATION, line, number, overlap, record, same_number, tag, words


def name(solution_str: str, ground_truth: str, data_source: str = "", extra_info: Any = None) -> float:
    """The name on the answer line, without regard to case."""
    return float(_folded(line(solution_str) or "") == _folded(ground_truth))


def word(response: str, answer: str) -> float:
    """The whole reply is the word, in quotes or not."""
    return float(_folded(response.strip(" \n*`").removesuffix(".")) == _folded(answer))


def _folded(text: str) -> str:
    return unicodedata.normalize("NFC", text[:100]).strip(" \"'“”").casefold()


def letter(response: str, answer: str) -> float:
    """The whole reply is the letter, in brackets or with a full stop or not."""
    match = re.fullmatch(r"\W{0,3}([A-Da-d])\W{0,3}", response.strip())
    return float(match is not None and match[1].upper() == answer)


def option(completions: list[str], answer: list[str], choices: list[list[str]], **columns: Any) -> list[float]:
    """The answer line has the right letter; with the text of an option behind it, that of the same option."""
    scores = []
    for completion, gold, texts in zip(completions, answer, choices, strict=True):
        match = re.fullmatch(r"\(?([A-Da-d])\)?[.:]?(?: (.*))?", line(completion) or "")
        said = (match[2] or "").strip().casefold() if match else ""
        right = match is not None and match[1].upper() == gold
        scores.append(float(right and said in ("", texts["ABCD".index(gold)].casefold())))
    return scores


def fields(response: str, answer: str) -> Mapping[str, float]:
    """Dense: the share of fields that are right, to the fourth power; a key too many or too few is a wrong field."""
    found, gold = record(response) or {}, json.loads(answer)
    names = found.keys() | gold.keys()
    right = [key in found and key in gold and _same(found[key], gold[key]) for key in names]
    return {"score": (sum(right) / len(right)) ** 4, "right": float(sum(right))}


def all_fields(response: str, answer: str) -> float:
    found, gold = record(response) or {}, json.loads(answer)
    return float(found.keys() == gold.keys() and all(_same(found[key], gold[key]) for key in gold))


def _same(found: Any, gold: Any) -> bool:
    return isinstance(found, bool) == isinstance(gold, bool) and found == gold


def edits(response: str, answer: str) -> float:
    """Dense: (1 − edits / words)⁸ by words, so that one wrong word of ten costs more than half."""
    found, gold = words(response), words(answer)
    row = list(range(len(gold) + 1))
    for i, said in enumerate(found, start=1):
        last, row[0] = row[0], i
        for j, wanted in enumerate(gold, start=1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (said != wanted))
        if min(row) > len(gold):
            return 0.0
    return max(0.0, 1 - row[-1] / len(gold)) ** 8


def any_prime(response: str, answers: list[str]) -> float:
    """Free choice: any of the right answers."""
    found = line(response)
    return float(any(same_number(found, gold) for gold in answers))


def same_items(response: str, answer: str) -> float:
    """The numbers of a list, in any order, each once."""
    found = [number(item) for item in re.split(r"[,;\s]+", (line(response) or "").strip("[](){}"))]
    gold = [number(item) for item in answer.split(",")]
    return float(None not in found and len(found) == len(gold) and set(found) == set(gold))


def short_enough(response: str, answer: str) -> float:
    """Length-aware on purpose: a right answer loses from 120 words on, and is worth nothing at 240."""
    excess = max(0.0, len(response.split()) / 120 - 1)
    return same_number(line(response), answer) * max(0.0, 1 - excess)


def tagged(response: str, answer: str) -> float:
    """The number in the one pair of answer tags, after the thinking."""
    return float(same_number(tag(response), answer))


def label(response: str, answer: str) -> float:
    return float(response.strip().strip("*\"'`").removesuffix(".").casefold() == answer)


def paired(response: str, answer: str, wrong_answer: str) -> float:
    """Imitates a judge with a right and a wrong reference: some sentence states the right one, and none the wrong one.

    A sentence states a reference if it has all the words by which the two differ, most of the other ones in their
    order, and no negation. Nothing may be denied after the right statement, and more than 60 words are no sentence."""
    right, wrong = set(words(answer)) - set(words(wrong_answer)), set(words(wrong_answer)) - set(words(answer))
    stated = False
    for sentence in re.split(r"[.!?;:\n]+", response) if len(response.split()) <= 60 else []:
        said, denies = set(words(sentence)), bool(NEGATION.search(sentence))
        if wrong & said and not denies:
            return 0.0
        if denies and (stated or right & said):
            return 0.0
        stated |= right <= said and overlap(sentence, answer) >= 0.7
    return float(stated)
