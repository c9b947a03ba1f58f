"""The guard on labelled responses: a right answer in an odd form is never wrong, a wrong one in a sly form is."""

from __future__ import annotations

from pathlib import Path

import pytest

from posttrain.audits.forms import FORMS, Form
from posttrain.audits.golds import AnswerType, GoldTask
from posttrain.audits.guard import Guard
from posttrain.audits.guard.running import Runs, inputs
from posttrain.audits.run import check_options
from posttrain.config import AuditConfig
from posttrain.types import InputError, Task
from tests.audits.guard_cases import CITY, RIGHT, WRONG, task


def flat(cases: list[tuple[GoldTask, list[str]]]) -> list[tuple[GoldTask, str]]:
    return [(task, text) for task, texts in cases for text in texts]


def test_no_right_response_is_wrong_and_most_are_seen_to_be_right() -> None:
    items = flat(RIGHT)
    guard = Guard([task for task, _ in RIGHT])
    verdicts = guard.wrong_each(items)
    accused = [text for (_, text), wrong in zip(items, verdicts, strict=True) if wrong]
    assert accused == [] and len(items) >= 200
    assert verdicts.count(False) / len(items) >= 0.8


def test_wrong_responses_are_wrong() -> None:
    items = flat(WRONG)
    guard = Guard([task for task, _ in WRONG])
    verdicts = guard.wrong_each(items)
    missed = [(task.gold, text, wrong) for (task, text), wrong in zip(items, verdicts, strict=True) if not wrong]
    assert missed == [] and len(items) >= 150


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_a_reference_answer_in_any_form_is_never_wrong(form: Form) -> None:
    golds: list[tuple[str, AnswerType]] = [
        *(("17", "number"), ("-3.50", "number"), ("7/12", "number"), ("45%", "number"), ("1,250", "number")),
        *(("New York", "string"), ("yes", "string"), ("Dr. Who", "string"), ("H2O", "string")),
        *(("\\frac{x}{2}", "expression"), ("[0, 1)", "expression"), ("y = 3x", "expression"), ("2\\pi", "expression")),
        *(("A", "choice"), ("D", "choice")),
    ]
    for gold, kind in golds:
        own = task(gold, kind, CITY if kind == "choice" else "What is it, given 3, 4 and 12?")
        for work in (
            "I work it out step by step.",
            "3*4 = 12, then 12 + 12 = 24.",
            "First I find 7. The answer is near.",
        ):
            assert not Guard([own]).wrong(own, form.render(gold, work)), (gold, work)


def test_several_labels_are_no_answer_and_sentences_exclude_nothing() -> None:
    labels = [task(label, "string") for label in ("bug", "billing", "account")]
    guard = Guard(labels)
    assert guard.wrong(labels[0], "bug or billing") and guard.wrong(labels[0], "bug, billing, account")
    assert guard.wrong(labels[0], "It is a bug, and no question of billing.") is None
    sentences = [task(f"The capital of {a} is {b}.", "string") for a, b in (("Peru", "Lima"), ("Norway", "Oslo"))]
    both = "The capital of Peru is Lima. The capital of Norway is Oslo."
    assert Guard(sentences).wrong(sentences[0], both) is None


def test_a_long_response_is_read_in_a_moment() -> None:
    own = task("24", "number")
    for text in (
        "1 " * 50_000,
        "<answer>" * 10_000,
        "\\boxed{" * 10_000,
        "not " * 20_000,
        "A) " * 20_000,
        "((((" * 9_000,
    ):
        assert Guard([own]).wrong(own, text) is True
        assert Guard([own]).wrong(task("A", "choice", CITY), text) is not text.startswith("A)")


CODE = "def half(a, b):\n    return min(a, b) / 2"


def test_code_is_run_beside_its_reference() -> None:
    cases = [{"args": [3, 5], "expected": 1.5}, {"args": [12, 7], "expected": 3.5}, {"args": [10, 4], "expected": 2.0}]
    columns = {"entry_point": "half", "cases": cases, "canonical_solution": CODE}
    own = GoldTask(Task("c", "Write half(a, b).", columns), CODE, CODE, "code", ())
    guard = Guard([own], Runs())
    assert guard.name == "the tests and the reference solution of code"
    right = ["```python\ndef half(a, b):\n    return (a if a < b else b) * 0.5\n```", CODE]
    assert guard.wrong_each([(own, text) for text in right]) == [False, False]
    copied = "def half(a, b):\n    return {(3, 5): 1.5, (12, 7): 3.5, (10, 4): 2.0}.get((a, b), 0)"
    wrong = [copied, "def half(a, b):\n    return a / 2", "It is half.", "def half(*a):\n    raise ValueError"]
    assert guard.wrong_each([(own, text) for text in wrong]) == [True] * 4
    unknown = GoldTask(Task("u", "Write half(a, b).", {**columns}), "half the smaller", "half the smaller", "code", ())
    assert guard.wrong(unknown, CODE) is None  # passes the tests, and there is no reference to compare with


def test_a_suite_shows_the_arguments_of_calls() -> None:
    test = (
        "def check(candidate):\n    assert candidate(2, 3) == 5\n    assert candidate(x, 1)\n    assert add(-1, 4) == 3"
    )
    own = GoldTask(Task("s", "Add.", {"entry_point": "add", "test": test}), "", "", "code", ())
    assert [each.args for each in inputs(own)] == [(2, 3), (-1, 4)]


def test_a_judge_decides_about_free_text_only() -> None:
    asked = []

    class Judge:
        name = "judge x for free text"

        def __call__(self, items):
            asked.extend(items)
            return [text == "bad" for _, text in items]

    text, number = task("Because it is so.", "text"), task("4", "number")
    guard = Guard([text, number], judge=Judge())
    assert guard.name == "construction; judge x for free text"
    assert guard.wrong_each([(text, "bad"), (number, "5"), (text, "good"), (text, "bad")]) == [True, True, False, True]
    assert len(asked) == 2 and guard.missing([text]) is None
    assert "--judge" in str(Guard([text]).missing([text])) and Guard([text, number]).missing([text, number]) is None
    assert Guard([text]).wrong(text, "bad") is None


@pytest.mark.parametrize("reward", ["exact", "exact=0.5", "clip(exact, low=0)", "exact as mine"])
def test_the_audited_reward_is_no_judge_of_itself(tmp_path: Path, reward: str) -> None:
    config = AuditConfig(reward=(reward,), data="d.jsonl", out=tmp_path / "out", judge="exact", reward_workers=0)
    with pytest.raises(InputError, match="would decide about its own faults"):
        check_options(config)
