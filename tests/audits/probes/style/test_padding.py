"""A8: padding that is paid, and rewards that know of length and pay none."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest

from posttrain.audits.probes.base import Result, gained
from posttrain.audits.probes.style.padding import KINDS, RUNGS, UNIT, padding, slopes_of
from tests.audits import rewards
from tests.audits.probes.style.rewards import line
from tests.audits.subjects import TAG, subject, sums

FILE = f"{rewards.__file__}:"


def words(response: str) -> int:
    return len(response.split())


def bonus(response: str, answer: str) -> float:
    return (line(response) == answer) + words(response) / 100


def factor(response: str, answer: str) -> float:
    """Full with 30 words, which is the first rung."""
    return (line(response) == answer) * (0.5 + 0.5 * min(1.0, words(response) / 30))


def effort(response: str, answer: str) -> float:
    """Pays wrong answers for length, nearly like right ones."""
    return 1.0 if line(response) == answer else min(0.95, words(response) / 200)


def some_effort(response: str, answer: str) -> float:
    return 1.0 if line(response) == answer else min(0.4, words(response) / 200)


def in_tags(response: str, answer: str) -> float:
    """Counts the words of the thinking alone."""
    thought = response.partition("</think>")[0] if "<think>" in response else ""
    right = re.findall("<answer>(.*?)</answer>", response) == [answer]
    return right * (1 + min(1.0, words(thought) / 300))


def paragraphs(response: str, answer: str) -> float:
    return (line(response) == answer) * (1 + 0.1 * min(5, response.count("\n\n")))


def overlong(response: str, answer: str) -> float:
    return (line(response) == answer) * max(0.0, 1 - max(0, words(response) - 100) / 100)


def long_and_even(response: str, answer: str) -> float:
    """Pays only what has more than 60 words, as some prompts ask."""
    return (line(response) == answer) * (1.0 if words(response) > 60 else 0.5)


def at(reward: Callable[..., float], form: str | None = None) -> Result:
    return padding(subject(reward, sums(form) if form else sums()))


def test_slopes_are_those_of_least_squares():
    scales = np.array([[0.0, 0.1, 0.2, 0.3], [0.0, 0.0, 0.0, 0.4]])
    # the second: (1.5 * 0.4) / (1.5² + 0.5² + 0.5² + 1.5²) = 0.6 / 5
    np.testing.assert_allclose(slopes_of(scales, RUNGS), [0.1, 0.12])


def test_a_gain_of_few_tasks_spans_the_least_and_the_greatest_difference():
    after, before = np.array([0.5, 0.25, 1, 1, 1, 1]), np.zeros(6)
    assert gained(after, before) == {"value": 4.75 / 6, "low": 0.25, "high": 1.0, "n": 6}
    assert gained(after[:5], before[:5])["low"] is None
    many = gained(np.tile(after, 4), np.zeros(24))
    assert 0.25 < many["low"] < 4.75 / 6 < many["high"] < 1  # type: ignore[operator]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_padding_has_the_words_of_its_rung(kind):
    for rung in RUNGS:
        assert rung * UNIT <= words(kind.text("42", rung * UNIT)) < rung * UNIT + 20


@pytest.mark.parametrize(
    ("reward", "kind", "severity"),
    [
        (bonus, "right and padded", "critical"),
        (bonus, "wrong and padded", "critical"),
        (factor, "right and padded", "critical"),
        (paragraphs, "right and padded", "critical"),
        (effort, "wrong and padded", "critical"),
    ],
)
def test_paid_padding_is_found(reward, kind, severity):
    result = at(reward)
    found = {each.kind: each for each in result.findings}
    assert found[kind].severity == severity
    shown = found[kind].shown
    assert shown is not None and words(shown.text) >= UNIT and shown.right == (kind == "right and padded")


def test_padding_of_the_thinking_is_found():
    (found,) = at(in_tags, TAG + " Think first, inside <think> and </think>.").findings
    assert (found.kind, found.severity) == ("right and padded", "critical")
    assert found.shown is not None and "</think>" in found.shown.text


@pytest.mark.parametrize("reward", [rewards.strict, some_effort, overlong])
def test_who_does_not_pay_for_padding_is_not_accused(reward):
    result = at(reward)
    assert {each.severity for each in result.findings} <= {"note"} and result.reason is None
    assert bool(result.findings) == (reward is overlong)


def test_a_prompt_may_ask_for_length():
    rows = [{**row, "prompt": f"{row['prompt']} Explain it in at least 60 words."} for row in sums()]
    assert padding(subject(long_and_even, rows)).reason is not None
    assert at(long_and_even).findings


def test_the_wrappers_close_it():
    path = f"{__file__}:bonus"
    found = {each.kind: each.wrapper for each in padding(subject(path, sums())).findings}
    assert found["right and padded"] is not None and found["wrong and padded"] is not None
    clipped = padding(subject(found["right and padded"].replace("{}", path), sums()))
    assert "right and padded" not in {each.kind for each in clipped.findings}
    shared = padding(subject(found["wrong and padded"].replace("{}", path), sums()))
    assert "wrong and padded" not in {each.kind for each in shared.findings}


def test_a_sum_is_wrapped_as_a_whole():
    (found,) = padding(subject([f"{FILE}strict", f"{__file__}:factor as more=0.5"], sums())).findings
    assert found.wrapper == (
        f"clip(weighted_sum({FILE}strict, {__file__}:factor as more, weights=[1.0, 0.5]), low=0, high=1.34167)"
    )
