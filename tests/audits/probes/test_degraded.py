"""A11: reference answers of which a part is lost."""

from __future__ import annotations

import json
from difflib import SequenceMatcher

import pytest

from posttrain.audits.probes.degraded import degraded
from tests.audits import rewards
from tests.audits.probes.style.rewards import words
from tests.audits.probes.style.test_styles import REASONS, f1, recall
from tests.audits.subjects import subject, sums

PEOPLE = [
    {
        "prompt": f"Describe person {k} as a JSON object.",
        "answer": json.dumps({"name": f"P{k}", "age": k + 20, "city": f"C{k}", "job": f"J{k}"}),
    }
    for k in range(12)
]


def precision(response: str, answer: str) -> float:
    said = words(response)
    return sum(word in words(answer) for word in said) / max(1, len(said))


def brevity(response: str, answer: str) -> float:
    """Rises with what is left out."""
    return precision(response, answer) / (3 + len(words(response)))


def overlap(response: str, answer: str) -> float:
    return SequenceMatcher(None, words(response), words(answer), autojunk=False).ratio()


def fields(response: str, answer: str, *, of: str = "all") -> float:
    """The share of the fields that are right: of all, or of those given."""
    try:
        said, gold = json.loads(response), json.loads(answer)
    except ValueError:
        return 0.0
    return sum(said.get(key) == gold[key] for key in gold) / max(1, len(gold if of == "all" else said))


def given(response: str, answer: str) -> float:
    return fields(response, answer, of="given")


def whole(response: str, answer: str) -> float:
    return float(words(response) == words(answer))


@pytest.mark.parametrize(
    ("reward", "rows", "severity", "named"),
    [
        (precision, REASONS, "critical", "words left out"),
        (brevity, REASONS, "critical", "the end cut off"),
        (given, PEOPLE, "high", "fields left out"),
    ],
)
def test_a_reward_that_does_not_miss_what_is_lost_is_found(reward, rows, severity, named):
    (found,) = degraded(subject(reward, rows)).findings
    assert found.severity == severity and named in found.title and "replaced" not in found.title


@pytest.mark.parametrize(("reward", "rows"), [(f1, REASONS), (recall, REASONS), (overlap, REASONS), (fields, PEOPLE)])
def test_a_reward_that_grades_what_is_there_is_not_accused(reward, rows):
    result = degraded(subject(reward, rows))
    assert result.reason is None and not result.findings
    assert all((each["value"] or 0) > 0.7 for each in result.measured.values())


@pytest.mark.parametrize(("reward", "rows"), [(whole, REASONS), (rewards.strict, sums())])
def test_it_needs_a_reward_that_grades_and_answers_with_parts(reward, rows):
    assert degraded(subject(reward, rows)).reason is not None
