"""IFEval's 25 kinds of constraint: for each, responses on both sides of the line."""

from __future__ import annotations

from typing import Any

import pytest

from posttrain.rewards.rules.ifeval import KINDS, constraints, sentences
from posttrain.rewards.scorer import Scorer
from posttrain.types import Message, Sample
from tests.effort import effort

AT_LEAST, LESS = {"relation": "at least"}, {"relation": "less than"}
ENGLISH = "The dog runs through the garden and looks for the ball that the children have hidden."

CASES: list[tuple[str, dict[str, Any], str, str]] = [
    # kind, parameters, a response that meets it, one that does not
    ("keywords:existence", {"keywords": ["Cat", "c++"]}, "C++ for cattle", "a cat"),
    ("keywords:frequency", {"keyword": "cat", "frequency": 2, **AT_LEAST}, "Cat, cats", "cat"),
    ("keywords:frequency", {"keyword": "cat", "frequency": 2, **LESS}, "cat", "cat cat"),
    ("keywords:forbidden_words", {"forbidden_words": ["cat"]}, "cattle", "the Cat."),
    (
        "keywords:letter_frequency",
        {"letter": "a", "let_frequency": 3, "let_relation": "at least"},
        "Anna and",
        "Anna",
    ),
    (
        "keywords:letter_frequency",
        {"letter": "#", "let_frequency": 1, "let_relation": "less than"},
        "none",
        "#",
    ),
    ("language:response_language", {"language": "en"}, ENGLISH, "Der Hund läuft durch den Garten und sucht den Ball."),
    ("language:response_language", {"language": "en"}, ENGLISH, "1234"),
    ("length_constraints:number_sentences", {"num_sentences": 2, **AT_LEAST}, "One. Two!", "One, two."),
    ("length_constraints:number_sentences", {"num_sentences": 2, **LESS}, "Dr. No said so.", "Yes. No."),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "a\n***\nb\n***", "a\n***\n\n***\nb"),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 1}, "a", "a *** b"),
    ("length_constraints:number_words", {"num_words": 3, **AT_LEAST}, "it's me", "is me"),
    ("length_constraints:number_words", {"num_words": 3, **LESS}, "is me", "it's me"),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "weekend"},
        'One\n\n"Weekend, at last',
        "One\n\nThe weekend",
    ),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 1, "first_word": "a"},
        "A b\n\nc",
        "A b\n\n\u200b",
    ),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[name] at [place]", "[name, place]"),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Bye\np. s. more", "Bye"),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, "P.P.S. more", "P.S. more"),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* a\n  - b", "* a\n* b\n- c"),
    ("detectable_format:number_bullet_lists", {"num_bullets": 1}, "* a\n**b**", "**b**"),
    ("detectable_format:number_bullet_lists", {"num_bullets": 1}, "- a\n---\n* * *", "---"),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Bye.\n\nP.S. more", "It is in your grasp.s."),
    ("detectable_content:postscript", {"postscript_marker": "PS:"}, "Bye. PS: more", "The maps: more"),
    ("detectable_format:json_format", {}, '[{"a": 1.5}, {"a": 2}]', '{"a": 1, "a": 2}'),
    ("detectable_format:json_format", {}, '"NaN"', "NaN"),
    ("detectable_format:json_format", {}, "-1e308", "[1e999]"),
    ("detectable_format:title", {}, "<<joy>>", "<<\u200b\u200b>>"),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 1}, "*a*", "*\u200b*"),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "a\n***\nb", "a\n***\n\u200b"),
    ("combination:two_responses", {}, "Same.******Other.", "Same.******same"),
    ("combination:two_responses", {}, "?******!", "a******\u200b"),
    ("detectable_format:constrained_response", {}, "Well. My answer is no.", "No."),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "*a* and **b**", "*a* and ** **"),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "Section", "num_sections": 2},
        "Section 1 a Section 2 b",
        "SECTION 1 a Section 2 b",
    ),
    ("detectable_format:json_format", {}, '```json\n{"a": 1}\n```', "a: 1"),
    ("detectable_format:title", {}, "<<poem of joy>>\ntext", "<< >>\n<joy>"),
    ("combination:two_responses", {}, "a\n******\nb", "a\n******\na"),
    ("combination:two_responses", {}, "a******b******", "a******b******c"),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Write it. "}, "write it. Well", "I write it."),
    ("startend:end_checker", {"end_phrase": "The end."}, 'So. the end."', "The end. Bye"),
    ("startend:quotation", {}, ' "so" ', '"'),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 3, "capital_relation": "at least"},
        "THE TOP-TEN DON is",
        "THE TOP-TEN is",
    ),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": "less than"},
        "Only I do",
        "I AM",
    ),
    ("change_case:english_capital", {}, ENGLISH.upper(), ENGLISH),
    ("change_case:english_lowercase", {}, ENGLISH.lower(), ENGLISH),
    ("punctuation:no_comma", {}, "one two", "one, two"),
]


@pytest.mark.parametrize(("kind", "parameters", "good", "bad"), CASES)
def test_both_sides_of_the_line(kind: str, parameters: dict[str, Any], good: str, bad: str) -> None:
    for name in (kind, kind.partition(":")[2]):
        assert constraints(good, [{"kind": name, **parameters}]) == 1
        assert constraints(bad, [{"kind": name, **parameters}]) == 0
    assert constraints(" ", [{"kind": kind, **parameters}]) == 0


def test_all_25_kinds_are_there_and_have_a_case() -> None:
    assert len(KINDS) == 25 and {kind.partition(":")[2] for kind, *_ in CASES} == set(KINDS)


TWO = [{"kind": "no_comma"}, {"kind": "number_words", "num_words": 2, "relation": "less than"}]


def test_a_share_or_all() -> None:
    assert [constraints(text, TWO) for text in ("one", "one two", "one, two")] == [1, 0.5, 0]
    assert [constraints(text, TWO, all_or_nothing=True) for text in ("one", "one two", "one, two")] == [1, 0, 0]


def test_the_columns_of_the_benchmark() -> None:
    ids = ["punctuation:no_comma", "length_constraints:number_words"]
    parameters = [{"num_words": None}, {"num_words": 2, "relation": "less than", "keywords": None}]
    assert constraints("one two", None, ids, parameters) == 0.5
    assert constraints("one", None, ["punctuation:no_comma"]) == 1
    assert constraints("one") is constraints("one", []) is None
    with pytest.raises(ValueError, match="shorter"):
        constraints("one", None, ids, parameters[:1])


@pytest.mark.parametrize("response", ["Sure!\none two", "one two\nBye,", "Sure,\none two\nBye,", "*one two", "one two"])
def test_loose_forgives_a_first_line_a_last_line_and_asterisks(response: str) -> None:
    asked = [{"kind": "repeat_prompt", "prompt_to_repeat": "one two"}, {"kind": "no_comma"}]
    assert constraints(response, asked, loose=True, all_or_nothing=True) == 1


def test_strict_forgives_nothing() -> None:
    asked = [{"kind": "repeat_prompt", "prompt_to_repeat": "one two"}]
    assert constraints("Sure!\none two", asked) == constraints("*one two", asked) == 0
    assert constraints("\n", asked, loose=True) == 0


@pytest.mark.parametrize(
    ("constraint", "message"),
    [
        ({"kind": "number_of_words"}, "no constraint of kind 'number_of_words'; there are existence, "),
        ({"num_words": 3}, "no constraint of kind 'None'"),
        ({"kind": "number_words", "num_words": 3}, "missing 1 required positional argument: 'relation'"),
        ({"kind": "number_words", "num_words": 3, "relation": "more"}, "'less than' or 'at least', not 'more'"),
        ({"kind": "no_comma", "n": 3}, "unexpected keyword argument 'n'"),
        ({"kind": "existence", "keywords": "cat"}, "a list of words is needed, not the text 'cat'"),
    ],
)
def test_a_constraint_that_cannot_be_checked_fails(constraint: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        constraints("text", [constraint])


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("One. Two? Three!", 3),
        ('He said "No." Then he left.', 2),
        ("Mr. Smith met Dr. Jones, e.g. at 5.30 in the U.S. capital.", 1),
        ("J. Smith paid 3.5 dollars... and left.", 1),
        ("1. First do this. 2. Then that.", 2),
        ("no end", 1),
        ("! ! ! One? ... Two. \u200b.", 2),
        ("It is I. So be it.", 2),
        ("It was in 1984. Then it ended.", 2),
    ],
)
def test_sentences(text: str, wanted: int) -> None:
    assert len(sentences(text)) == wanted, sentences(text)


def test_as_a_reward_with_options() -> None:
    columns = {"constraints": TWO}
    samples = [Sample("q", (Message("assistant", text),), (), columns) for text in ("one two", "one")]
    rewards = ["constraints", "constraints(all_or_nothing=true) as all"]
    with Scorer(rewards, columns=columns, timeout_seconds=20, workers=1) as scorer:
        assert [dict(score.parts) for score in scorer.score(samples)] == [
            {"constraints": 0.5, "all": 0},
            {"constraints": 1, "all": 1},
        ]


@pytest.mark.parametrize("text", ["a. " * 100_000, "\n" * 300_000 + "a", "<<" * 150_000, "*" * 300_001, "[" * 300_000])
def test_hostile_text_is_checked_in_bounded_time(text: str) -> None:
    def check() -> None:
        for kind, parameters, *_ in CASES:
            assert constraints(text, [{"kind": kind, **parameters}], loose=True) in (0, 1)

    assert effort(check) < 10_000
