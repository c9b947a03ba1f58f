"""A15: sums of parts, and form against content."""

from __future__ import annotations

import re

import pytest

from posttrain.audits.probes.composite import composite, parts_of, variance_shares
from posttrain.audits.run import run_audit
from posttrain.audits.subject import Attempt
from posttrain.config import AuditConfig
from tests.audits import rewards
from tests.audits.probes.style.rewards import line
from tests.audits.subjects import TAG, subject, sums
from tests.training_helpers import write_rows

HERE = f"{__file__}:"
FORM = f"{TAG} Think first, inside <think> and </think>."


def tagged(response: str) -> float:
    """Looks at the form alone."""
    return float(re.fullmatch(r"<think>.*</think>\s*<answer>.*</answer>", response, re.DOTALL) is not None)


def number(response: str, answer: str) -> float:
    """Looks at the last number alone, in any form."""
    found = re.findall("[0-9]+", response)
    return float(found[-1:] == [answer])


def in_tags(response: str, answer: str) -> float:
    """A part that finds the answer in its tags only."""
    return float(re.findall("<answer>(.*?)</answer>", response) == [answer])


def flattering(response: str) -> float:
    return 2.0 * ("verified" in response)


def kinds(reward, form: str = FORM) -> dict[str, str]:
    return {each.kind: each.severity for each in composite(subject(reward, sums(form))).findings}


@pytest.mark.parametrize(
    "reward",
    [
        [f"{HERE}number=0.2", f"{HERE}tagged=0.8"],
        f"weighted_sum({HERE}number, {HERE}tagged, weights=[0.2, 0.8])",
    ],
    ids=["several rewards", "a weighted sum"],
)
def test_form_over_content_is_found_and_gated(reward):
    (found,) = [each for each in composite(subject(reward, sums(FORM))).findings if each.severity != "note"]
    assert (found.kind, found.severity) == ("form over content", "critical")
    assert found.effect["value"] == pytest.approx(0.6)  # 0.8 against 0.2
    assert found.wrapper == f"gate({HERE}tagged, {HERE}number)"
    assert "form over content" not in kinds(found.wrapper)


def test_fix_puts_the_gate_in_place_of_the_sum(tmp_path):
    data = write_rows(tmp_path / "tasks.jsonl", [dict(row) for row in sums(FORM, n=18)])
    config = AuditConfig(
        reward=(f"{HERE}number=0.2", f"{HERE}tagged=0.8"),
        data=str(data),
        out=tmp_path / "audit",
        only=("A15",),
        fix=True,
        reward_workers=0,
    )
    fix = run_audit(config)["fix"]
    assert fix["reward"] == fix["wrappers"] == [f"gate({HERE}tagged, {HERE}number)"] and fix["left"] == []


def test_a_part_that_no_form_moves_is_no_condition():
    found = composite(subject([f"{HERE}number", f"{HERE}flattering"], sums(FORM))).findings[0]
    assert (found.severity, found.wrapper) == ("critical", None) and "praise" in found.title


@pytest.mark.parametrize(
    ("reward", "form"),
    [
        ([f"{HERE}number", f"{HERE}tagged=0.2"], FORM),
        ([f"{HERE}in_tags", f"{HERE}tagged=0.2"], FORM),  # a right answer without tags is not found: no flip
        (f"gate({HERE}tagged, {HERE}number)", FORM),
        ([f"{HERE}tagged", f"{HERE}flattering=0"], FORM),  # no right answer from a wrong one: nothing to flip
        (rewards.strict, "End with the line 'Answer: NUMBER'."),
        (lambda response, answer: 2.0 * (line(response) == answer) - 1, "End with the line 'Answer: NUMBER'."),
    ],
)
def test_content_over_form_is_not_accused(reward, form):
    assert set(kinds(reward, form).values()) <= {"note"}


def test_the_shares_of_the_variance_add_up():
    several = subject([f"{HERE}number=3", f"{HERE}tagged"], sums(FORM))
    texts = ("36", "7", "<think>a</think><answer>36</answer>", "<think>a</think><answer>7</answer>")
    several.grade([Attempt(0, text, "") for text in texts])
    # number: 3, 0, 3, 0 with variance 2.25; tagged: 0, 0, 1, 1 with variance 0.25; independent
    assert variance_shares(several, parts_of(several)) == pytest.approx({"number": 0.9, "tagged": 0.1})
    inside = subject(f"weighted_sum({HERE}number, {HERE}tagged, weights=[3, 1]) as both", sums(FORM))
    inside.grade([Attempt(0, text, "") for text in texts])
    shares = {"both/number": 0.9, "both/tagged": 0.1}
    assert variance_shares(inside, parts_of(inside)) == pytest.approx(shares)
    assert parts_of(subject(f"gate({HERE}tagged, {HERE}number)", sums(FORM))) == []


def test_a_part_that_hardly_counts_is_noted():
    found = composite(subject([f"{HERE}number", f"{HERE}tagged=0.02"], sums(FORM))).findings
    assert {each.severity for each in found} == {"note"} and "hardly counts: tagged" in found[-1].title
