"""The guard on labelled responses: a right answer in an odd form is never wrong, a wrong one in a sly form is."""

from __future__ import annotations

from posttrain.audit.golds import GoldTask
from posttrain.audit.guard import Guard
from tests.audit.guard_cases import RIGHT, WRONG


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
