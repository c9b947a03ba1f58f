"""The retention suite: its size, its scorer, its text."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from posttrain.evals.retention.retention import (
    KINDS,
    RetentionItem,
    as_tasks,
    retention_tasks,
    retention_text,
    score_retention,
)


def knowledge(*accept: str) -> RetentionItem:
    return RetentionItem("k", "knowledge", "?", accept)


def instruction(**check: Any) -> RetentionItem:
    return RetentionItem("i", "instructions", "?", check=check)


def test_the_suite_is_large_enough_and_has_no_repeats() -> None:
    items = retention_tasks()
    assert len(items) >= 120
    assert all(count >= 40 for count in Counter(i.kind for i in items).values())
    assert {i.kind for i in items} == set(KINDS)
    assert len({i.id for i in items}) == len({i.prompt for i in items}) == len(items)


def test_reading_answers_are_in_the_passage_and_not_in_the_question() -> None:
    for item in retention_tasks():
        if item.kind == "reading":
            passage, question = item.prompt.split("\n\n")
            assert score_retention(passage_words_around(passage, item), item) == 1, item.id
            assert score_retention(question, item) == 0, item.id


def passage_words_around(passage: str, item: RetentionItem) -> str:
    """The sentence of the passage that holds an accepted answer."""
    sentences = passage.replace(": ", ". ").split(". ")
    return next((s for s in sentences if score_retention(s, item)), "")


def test_no_question_gives_its_answer_away() -> None:
    for item in retention_tasks():
        if item.kind == "knowledge":
            assert score_retention(item.prompt, item) == 0, item.id


def test_every_accepted_answer_is_right_by_itself() -> None:
    for item in retention_tasks():
        for answer in item.accept:
            assert score_retention(answer, item) == 1, (item.id, answer)


def test_no_constant_answer_scores_on_a_fifth_of_a_kind() -> None:
    """A model that says the same to everything must look as if it had forgotten."""
    for answer in ("", " \n", "I am a helpful assistant.", "yes", "42", "The"):
        for kind in KINDS:
            items = [i for i in retention_tasks() if i.kind == kind]
            assert sum(score_retention(answer, i) for i in items) / len(items) < 0.2, (answer, kind)


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("Paris", 1),
        ("The capital is PARIS!", 1),
        ("**Páris**", 1),
        ("comparison", 0),
        ("Parisian food", 0),
        ("London", 0),
        ("", 0),
        ("word " * 24 + "Paris", 1),
        ("word " * 25 + "Paris", 0),  # only the first 25 words are read
    ],
)
def test_knowledge_is_whole_words(text: str, score: float) -> None:
    assert score_retention(text, knowledge("Paris")) == score


def test_answers_of_several_words() -> None:
    item = knowledge("carbon dioxide", "CO2")
    assert score_retention("They take in the carbon-dioxide.", item) == 1
    assert score_retention("CO2.", item) == 1
    assert score_retention("carbon and dioxide", item) == 0


@pytest.mark.parametrize(
    ("check", "right", "wrong"),
    [
        ({"upper": True}, "THE SEA, 3 TIMES.", "THE sEA"),
        ({"upper": True}, "A", "123"),
        ({"upper": False}, "the sea.", "The sea."),
        ({"words": [1, 1]}, "Yes.", "Yes sir"),
        ({"words": [2, 3]}, "one - two", "one -"),
        ({"lines": [3, 3]}, "a\n\nb\nc\n", "a\nb"),
        ({"sentences": [2, 2]}, "One... Two!", "It is 1.5 m."),
        ({"sentences": [1, 1]}, "1. A cat sleeps.", "A cat. A dog."),
        ({"commas": [2, 2]}, "a, b, c", "a, b"),
        ({"starts": "Last night"}, '"Last night, it rained."', "At last night fell"),
        ({"ends": "home"}, "We went home.", "Home we went"),
        ({"ends_mark": "?"}, "Is it? ", "It is."),
        ({"includes": ["king", "snow"]}, "The king's, er, king: snow!", "snowking"),
        ({"any_of": ["yes", "no"]}, "No.", "nothing"),
        ({"excludes": ["cold"]}, "chilly, colder", "so cold"),
        ({"no_letter": "e"}, "fig", "pEar"),
        ({"line_starts": ["1.", "2."]}, "1. a\n\n 2. b", "1. a\n3. b"),
        ({"line_starts": ["-", "-"]}, "- a\n- b", "- a"),
        ({"words": [1, 1], "upper": True}, "FIG", "fig"),
    ],
)
def test_checks(check: dict[str, Any], right: str, wrong: str) -> None:
    assert score_retention(right, instruction(**check)) == 1
    assert score_retention(wrong, instruction(**check)) == 0


def test_an_empty_answer_meets_no_instruction() -> None:
    assert score_retention(" ", instruction(excludes=["cold"])) == 0


def test_wrong_items_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown check 'rhymes'"):
        instruction(rhymes=True)
    with pytest.raises(ValueError, match="accepted answers"):
        knowledge()
    with pytest.raises(ValueError, match="unknown kind"):
        RetentionItem("x", "sums", "?", ("1",))  # type: ignore[arg-type]


def test_tasks_keep_the_answer_out_of_the_prompt() -> None:
    tasks = as_tasks()
    assert [t.id for t in tasks] == [i.id for i in retention_tasks()]
    assert tasks[0].columns == {"kind": "knowledge", "accept": ["Paris"], "check": {}}
    assert tasks[0].prompt == "What is the capital of France?"


def test_the_text_is_long_prose_of_two_sources() -> None:
    """About 22,000 tokens; a token of English is four to five characters."""
    text = retention_text()
    assert 90_000 < len(text) < 110_000
    assert "Catherine Morland" in text and "garbage-collected" in text


@pytest.mark.real_model
def test_the_text_has_at_least_20000_tokens() -> None:
    from posttrain.models import load_model

    assert 20_000 <= len(load_model("smollm2-135m").tokenizer(retention_text())["input_ids"]) <= 22_000
