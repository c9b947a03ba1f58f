"""The rule rewards: hand-computed values, what each refuses, and what each costs on hostile input."""

from __future__ import annotations

import math
from typing import Any

import pytest

from posttrain.rewards.rules.format import fenced_blocks, format, json, keywords, language, markdown, regex
from posttrain.rewards.rules.ifeval import constraints
from posttrain.rewards.rules.length import length, overlong, repetition
from posttrain.rewards.scorer import Scorer
from posttrain.types import InputError, Message, Sample
from tests.effort import effort

SCHEMA = {"type": "object", "properties": {"age": {"type": "integer", "minimum": 0}}, "required": ["age"]}


def test_format_with_other_tags() -> None:
    assert format("<think>a</think>\n<answer>b</answer>\n") == 1
    assert format("<thought>a</thought><final>b</final>", think_tag="thought", answer_tag="final") == 1
    assert format("<think>a</think><answer>b</answer>", think_tag="thought") == 0
    assert format("<think>a</think><answer>b</answer> done") == 0
    assert format("<think>a</think><answer> </answer>") == 0


def test_format_where_the_prompt_opens_the_thinking() -> None:
    assert format("a\n</think>\n<answer>b</answer>") == 1
    assert format("</think><answer>b</answer>") == 0
    assert format("a<answer>b</answer>") == format("a</think>b<answer>c</answer>") == 0
    assert format("<think>a</think><think>b</think><answer>c</answer>") == 0


@pytest.mark.parametrize(
    "blank", ["\u200b", "\u2060\ufeff", "\u00ad", "\u3164", "\u2800", "\U0001d159", "\u0301", "\u2003"]
)
def test_what_shows_nothing_is_nothing(blank: str) -> None:
    assert (
        format(f"<think>{blank}</think><answer>4</answer>") == format(f"<think>a</think><answer>{blank}</answer>") == 0
    )
    assert markdown(blank) == markdown(f"# {blank}") == markdown(f"- one\n- {blank}") == 0
    assert markdown(f"text\n```\n{blank}\n```", min_blocks=1) == 0
    assert keywords(blank, forbidden_words=["war"]) == language(blank) == 0
    assert constraints(blank, [{"kind": "no_comma"}]) == 0


@pytest.mark.parametrize(
    ("response", "wanted"),
    [
        ('{"age": 3}', 1),
        ('<think>{"age": "no"}</think> {"age": 3}', 1),
        ('Here it is:\n```json\n{"age": 3}\n```\nDone.', 1),
        ('```\n{"age": 3}\n```\n```\n{"age": 3}\n```', 0),  # two blocks: which is it?
        ('The answer is {"age": 3}', 0),
        ('{"age": -1}', 0),
        ('{"age": 3.5}', 0),
        ('{"age": true}', 0),
        ('{"age": 1, "age": 2}', 0),
        ('{"age": 3, "x": NaN}', 0),
        ('{"age": 3', 0),
        ('{"age": 3, "x": 1e999}', 0),
        ('{"age": 3, "x": -1e999}', 0),
        ('{"age": 3, "x": 1e300}', 1),
        ('{"age": 3, "x": {"y": 1, "\\u0079": 2}}', 0),
        ("", 0),
        ("[" * 100_000, 0),
        ('{"age": ' + "9" * 5000 + "}", 0),
    ],
)
def test_json_with_a_schema(response: str, wanted: float) -> None:
    assert json(response, schema=SCHEMA) == wanted


def test_json_without_a_schema_and_with_one_as_text() -> None:
    assert json("[1, null]") == json("3") == 1
    assert json("{'a': 1}") == json("nothing") == 0
    assert json("3", schema='{"type": "string"}') == 0
    assert json('"a"', schema='{"type": "string"}') == 1
    assert json("3", schema=False) == 0


def test_a_schema_that_is_none_fails_and_nothing_is_fetched() -> None:
    with pytest.raises(Exception, match="is not valid under any of the given schemas"):
        json("3", schema={"type": "whole"})
    with pytest.raises(Exception, match="http://localhost:9/x"):
        json("3", schema={"$ref": "http://localhost:9/x"})


def test_regex() -> None:
    assert regex(" 42\n", pattern=r"[0-9]+") == 1
    assert regex("it is 42", pattern=r"[0-9]+") == 0
    assert regex("it is 42", pattern=r"[0-9]+", anywhere=True) == 1
    assert regex("a\nb", pattern="a.b") == 0 and regex("a\nb", pattern="(?s)a.b") == 1
    with pytest.raises(Exception, match="unterminated"):
        regex("a", pattern="(a")


def test_a_pattern_without_end_costs_its_own_score_only() -> None:
    samples = [Sample("q", (Message("assistant", text),), (), {}) for text in ("aaab", "a" * 40, "aab")]
    with Scorer(['regex(pattern="(a+)+b")'], columns=[], timeout_seconds=2, workers=1) as scorer:
        scores = scorer.score(samples)
    assert [score.total for score in scores] == [1, None, 1]
    assert scores[1].reason == "regex: timed out after 2 s"


GOOD = (
    "# Title\n\nText with 2. numbers\n\n## Part\n1. one\n2. two\n   - inner\n3. three\n\n---\n"
    "```py\n#x\n- \n```\n**bold** text\n"
)


@pytest.mark.parametrize(
    ("response", "wanted"),
    [
        (GOOD, 1),
        ("plain text", 1),
        ("```\nopen", 0),
        ("~~~\n```\n~~~", 1),
        ("````\n```\n````", 1),
        ("#Title", 0),
        ("####### seven", 0),
        ("# \n", 0),
        ("# a\n### c", 0),
        ("## a\n### b\n# c", 1),
        ("- one\n- ", 0),
        ("1. a\n3. c", 0),
        ("1. a\n1. b", 1),
        ("1. a\ntext\n7. b", 1),
        ("* * *", 1),
    ],
)
def test_markdown_is_well_formed(response: str, wanted: float) -> None:
    assert markdown(response) == wanted


def test_markdown_counts() -> None:
    assert markdown(GOOD, min_headings=2, min_items=4, min_blocks=1) == 1
    assert markdown(GOOD, min_headings=3) == markdown(GOOD, min_items=5) == markdown(GOOD, min_blocks=2) == 0
    assert fenced_blocks(GOOD) == ["#x\n- "]


def test_keywords_are_whole_words() -> None:
    assert keywords("The art of War", keywords=["art", "war"]) == 1
    assert keywords("A party in a warm place", keywords=["art", "war"]) == 0
    assert keywords("art alone", keywords=["art", "war"]) == 0.5
    assert keywords("C++ and more", keywords=["c++", "and"]) == 1
    assert keywords("art of war", keywords=["art"], forbidden_words=["of war"]) == 0
    assert keywords("art", forbidden_words=["war"]) == 1
    assert keywords("art of w\u200bar", forbidden_words=["war"]) == 0


@pytest.mark.parametrize("lists", [{}, {"keywords": "art"}, {"keywords": [3]}, {"forbidden_words": [" "]}])
def test_keywords_that_are_none(lists: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="list of"):
        keywords("art", **lists)


GERMAN = "Der Hund läuft durch den Garten und sucht seinen Ball, den die Kinder versteckt haben."
ENGLISH = "The dog runs through the garden and looks for the ball that the children have hidden."


def test_language_is_a_share_of_letters() -> None:
    assert language(ENGLISH) == language(GERMAN, language="de") == 1
    assert language(GERMAN) == language(ENGLISH, language="de") == 0
    letters = [sum(map(str.isalpha, text)) for text in (ENGLISH, GERMAN)]
    assert language(f"{ENGLISH}\n{GERMAN}") == pytest.approx(letters[0] / sum(letters))
    assert language(ENGLISH.upper()) == 1
    assert language(f"{ENGLISH}\n```\n{GERMAN}\n```") == 1
    assert language("42 = 6 * 7") == language("") == 0


def test_a_short_last_passage_belongs_to_the_one_before() -> None:
    assert language(f"{ENGLISH}\nI hope this helps.") == 1
    german, english = (sum(map(str.isalpha, text)) for text in (GERMAN, f"{ENGLISH}Thanks."))
    for text, passages in ((f"{GERMAN}\n{ENGLISH}\nThanks.", 1), (f"{GERMAN}\n{GERMAN}\n{ENGLISH}\nThanks.", 2)):
        assert language(text) == pytest.approx(english / (passages * german + english))
    assert language(f"{ENGLISH}\n{GERMAN}\nDanke.") == pytest.approx(
        sum(map(str.isalpha, ENGLISH)) / sum(map(str.isalpha, ENGLISH + GERMAN + "Danke."))
    )


def test_language_of_other_texts() -> None:
    assert language("今天天气很好，我们一起去公园散步，然后去吃饭。", language="zh") == 1
    with pytest.raises(ValueError, match="no language 'english' is known; known are .*, en, "):
        language(ENGLISH, language="english")


def test_length_between_bounds_and_near_a_target() -> None:
    assert length("one two three", [], max_length=3) == length("one two three", [], min_length=3) == 1
    assert length("one two three", [], max_length=2) == length("one two three", [], min_length=4) == 0
    assert length("abcd", [], unit="characters", target_length=5) == pytest.approx(0.8)
    assert length("x", [1] * 15, unit="tokens", target_length=10) == pytest.approx(0.5)
    assert length("x", [1] * 30, unit="tokens", target_length=10) == 0
    assert length("x", [1] * 12, unit="tokens", target_length=10, max_length=11) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "needs min_length, max_length or target_length"),
        ({"target_length": 0}, "must be at least 1"),
        ({"max_length": 3, "unit": "lines"}, "the unit 'lines' is unknown"),
        ({"max_length": 3, "unit": "tokens"}, "tokens of this response are not known"),
    ],
)
def test_a_length_that_cannot_be_told(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        length("some words", [], **options)


@pytest.mark.parametrize(("tokens", "wanted"), [(0, 0), (80, 0), (81, -0.05), (90, -0.5), (100, -1), (101, -1)])
def test_soft_overlong_punishment(tokens: int, wanted: float) -> None:
    assert overlong("", [7] * tokens, max_tokens=100, cache_tokens=20) == pytest.approx(wanted)


def test_overlong_without_a_cache_is_a_step() -> None:
    assert [overlong("", [7] * n, max_tokens=10, cache_tokens=0) for n in (10, 11)] == [0, -1]
    with pytest.raises(ValueError, match="between 0 and max_tokens"):
        overlong("", [], max_tokens=10, cache_tokens=11)


def test_repetition() -> None:
    assert repetition("a b c d", []) == 0
    assert repetition("a b", []) == 0
    # a b a | b a b | a b a | b a b: 2 distinct of 4
    assert repetition("A b a B a b", []) == pytest.approx(-0.5)
    assert repetition("x", [5] * 5, unit="tokens", ngram_size=2, max_penalty=-2) == pytest.approx(-1.5)
    with pytest.raises(ValueError, match="max_penalty must be at most 0"):
        repetition("a", [], max_penalty=1)


HOSTILE = ["\0", "`" * 300_000, "#" * 300_000, "- \n" * 100_000, "1. a\n" * 100_000, " " * 300_000, "((((" * 50_000]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_is_scored_in_bounded_time(text: str) -> None:
    def score() -> None:
        for value in (
            format(text), json(text), markdown(text), keywords(text, keywords=["a"]), language(text),
            length(text, [], max_length=5), repetition(text, []),
        ):  # fmt: skip
            assert math.isfinite(value)

    assert effort(score) < 2500


def test_options_on_the_command_line() -> None:
    samples = [Sample("q", (Message("assistant", text),), (1, 2), {"answer": "4"}) for text in ("4", "four 4")]
    rewards = ["length(max_length=1)", "overlong(max_tokens=2, cache_tokens=2)=2", "format"]
    with Scorer(rewards, columns=["answer"], timeout_seconds=20, workers=1) as scorer:
        scores = scorer.score(samples)
    assert [dict(score.parts) for score in scores] == [
        {"length": 1, "overlong": -1, "format": 0},
        {"length": 0, "overlong": -1, "format": 0},
    ]
    assert [score.total for score in scores] == [-1, -2]
    with pytest.raises(InputError, match="'max_tokens'"):
        Scorer(["overlong"], columns=["answer"], timeout_seconds=60)
