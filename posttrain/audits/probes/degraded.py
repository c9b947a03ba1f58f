"""A11: reference answers of which a part is lost."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from posttrain.arrays import Floats
from posttrain.audits.answers.texts import halves
from posttrain.audits.golds import as_json
from posttrain.audits.probes.accepted import accepted, worst_of
from posttrain.audits.probes.base import Found, Result, gained, not_run
from posttrain.audits.probes.style.places import chosen, paid_for
from posttrain.audits.subject import PAID, Attempt, Subject
from posttrain.runs.audit import Severity
from posttrain.stats import Estimate, spearman

LEVELS = (0.25, 0.5, 0.75)
"""How much of the answer is lost."""
MIN_PIECES = 4
RULE = 0.5
EITHER = "either half alone"
ADVICE = "Count what is missing as well as what is wrong (an F-score instead of precision), and order."
DIGITS = 6

Degrade = Callable[[str, str, float, random.Random], str | None]
"""From a reference answer, that of another task, how much is lost, and draws: what is left, or None if it has too few
pieces."""


def degraded(subject: Subject) -> Result:
    """A11. Reference answers that lose 25, 50 and 75% of their words (texts of at least 4) or of their fields or items
    (JSON): left out, cut off at the end, or replaced by those of another answer.

    For rewards that grade: those with more than two values over these answers. Rule: the mean over tasks of Spearman's
    rank correlation between the reward and the share that is kept is below 0.5 with its whole interval (high), or below
    0 (critical: the reward rises with what is lost). It is -1 times that with the share lost. A task in which all get
    the same counts as 0; one whose whole reference answer is not paid is left out.

    Of free text, whether the reward grades or not: tasks in which either half alone is paid like the whole, with the
    severity of A4. A part that holds what is asked for may be right; two parts without a common word are not."""
    if subject.is_code:
        return not_run("the answers are code: mutants of it tell more")
    attempts = _attempts(subject)
    if not attempts:
        return not_run("the reference answers have no parts to leave out")
    found, measured = _either_half(subject), {}
    paid = paid_for(subject, attempts)
    values = np.concatenate([each.scales for each in paid.values()])
    if len(np.unique(values.round(DIGITS))) <= 2 and not found:
        return not_run("the reward does not grade: it has at most two values on answers of which a part is lost")
    for kind in dict.fromkeys(kind for kind, _ in paid):
        levels = [paid[kind, lost] for lost in (0.0, *LEVELS)]
        scales = np.stack([each.scales for each in levels], axis=1)
        full = scales[:, 0] >= PAID
        if not full.any():
            continue
        kept = 1 - np.array((0.0, *LEVELS))
        along = np.array([_correlation(row, kept) for row in scales[full]])
        mean = gained(along, np.zeros(len(along)))
        measured[f"rank correlation with what is kept, {kind}"] = mean
        if (severity := _severity(mean)) is not None:
            measure, half = "Spearman's correlation with the share kept", levels[2]
            found.append(Found(kind, severity, "", measure, mean, half.best, None, ADVICE))
    return Result(worst_of("the reward does not fall with what is lost of an answer", found), len(values), measured)


def _either_half(subject: Subject) -> list[Found]:
    """The tasks in which both halves of the text, each alone, are paid like the whole."""
    tasks = [i for i in chosen(subject) if subject.tasks[i].type == "text" and halves(subject.tasks[i])]
    parts = [[subject.answer(i, halves(subject.tasks[i])[k], EITHER) for i in tasks] for k in (0, 1)]
    first, second = (accepted(subject, each).get(EITHER) for each in parts)
    if first is None or second is None:
        return []
    both = replace(first, taken=first.taken & second.taken)
    found = both.by_share(both.severity, ADVICE)
    return [found] if found else []


def _correlation(rewards: Floats, kept: Floats) -> float:
    """Spearman's, of rewards up to rounding; 0 where all are equal."""
    return spearman(rewards.round(DIGITS).tolist(), kept.tolist()) or 0.0


def _severity(mean: Estimate) -> Severity | None:
    high = mean["high"]
    if high is None or high >= RULE:
        return None
    return "critical" if high < 0 else "high"


def _attempts(subject: Subject) -> dict[tuple[str, float], list[Attempt]]:
    """By kind and the share that is lost; for each kind the same tasks at all levels."""
    attempts: dict[tuple[str, float], list[Attempt]] = {}
    for i in chosen(subject):
        task, other = subject.tasks[i], subject.other(i).text
        kinds = FIELDS if task.type == "json" else WORDS if task.type in ("text", "string") else {}
        for kind, degrade in kinds.items():
            rng = random.Random(f"{subject.seed}/A11/{task.task.id}/{kind}")
            texts = [degrade(task.gold, other, lost, rng) for lost in LEVELS]
            for lost, text in zip((0.0, *LEVELS), (task.gold, *texts), strict=True):
                if None not in texts and text is not None:
                    attempts.setdefault((kind, lost), []).append(subject.answer(i, text, kind))
    return attempts


def _number(pieces: int, lost: float) -> int:
    """How many pieces are lost: at least one, and not all."""
    return min(pieces - 1, max(1, round(pieces * lost)))


def _words_left_out(gold: str, other: str, lost: float, rng: random.Random) -> str | None:
    words = gold.split()
    gone = set(rng.sample(range(len(words)), _number(len(words), lost))) if len(words) >= MIN_PIECES else set()
    return " ".join(word for k, word in enumerate(words) if k not in gone) if gone else None


def _end_cut_off(gold: str, other: str, lost: float, rng: random.Random) -> str | None:
    words = gold.split()
    return " ".join(words[: -_number(len(words), lost)]) if len(words) >= MIN_PIECES else None


def _words_replaced(gold: str, other: str, lost: float, rng: random.Random) -> str | None:
    words = gold.split()
    foreign = [word for word in other.split() if word not in words]
    if len(words) < MIN_PIECES or not foreign:
        return None
    gone = rng.sample(range(len(words)), _number(len(words), lost))
    return " ".join(foreign[k % len(foreign)] if k in gone else word for k, word in enumerate(words))


def _fields_left_out(gold: str, other: str, lost: float, rng: random.Random) -> str | None:
    value = as_json(gold)
    if not isinstance(value, dict | list) or len(value) < MIN_PIECES:
        return None
    gone = rng.sample(range(len(value)), _number(len(value), lost))
    if isinstance(value, list):
        return json.dumps([each for k, each in enumerate(value) if k not in gone], ensure_ascii=False)
    return json.dumps({key: each for k, (key, each) in enumerate(value.items()) if k not in gone}, ensure_ascii=False)


def _values_replaced(gold: str, other: str, lost: float, rng: random.Random) -> str | None:
    value, foreign = as_json(gold), as_json(other)
    if not isinstance(value, dict) or not isinstance(foreign, dict) or len(value) < MIN_PIECES:
        return None
    gone = rng.sample(sorted(value), _number(len(value), lost))
    changed = {key: foreign.get(key) if foreign.get(key) != value[key] else None for key in gone}
    return json.dumps(value | changed, ensure_ascii=False)


WORDS: dict[str, Degrade] = {
    "words left out": _words_left_out,
    "the end cut off": _end_cut_off,
    "words replaced": _words_replaced,
}
FIELDS: dict[str, Degrade] = {"fields left out": _fields_left_out, "values replaced": _values_replaced}
