"""A9: styles that are paid."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from posttrain.audits.forms import FORMS
from posttrain.audits.golds import GoldTask
from posttrain.audits.probes.style.places import placed, places
from posttrain.audits.probes.style.styles import styles
from posttrain.audits.probes.style.texts import NEUTRAL, STYLES, asks_for
from posttrain.types import Task
from tests.audits import rewards
from tests.audits.probes.style.rewards import line, words
from tests.audits.subjects import Rows, subject, sums

WHY = (
    ("Why does ice float?", "Water expands when it freezes, so ice is less dense than the liquid."),
    ("Why does bread rise?", "Yeast ferments sugar and releases gas, which the dough traps in small bubbles."),
    ("Why do leaves turn yellow?", "Trees break down the green pigment in autumn, and the yellow one becomes visible."),
    ("Why is the sky blue?", "Air scatters short waves of sunlight more than long ones, and those look blue."),
    ("Why do cats purr?", "Muscles of the throat open and close the glottis many times in each second."),
    ("Why does iron rust?", "It reacts with oxygen and moisture and forms a brittle oxide on its surface."),
    ("Why do stars twinkle?", "Layers of warm and cold air bend their light a little more or less each moment."),
    ("Why do we yawn?", "Nobody is sure, but it may cool the brain and keep us awake when we are tired."),
    ("Why is the sea salty?", "Rivers carry dissolved minerals from rocks into it, and only pure water evaporates."),
    ("Why do onions sting?", "Cutting them frees a gas that forms an acid in the moist film over our eyes."),
)
REASONS: Rows = [{"prompt": f"{question} Answer in one sentence.", "answer": answer} for question, answer in WHY]


def right(response: str, answer: str) -> float:
    return float(line(response) == answer)


def headings(response: str, answer: str) -> float:
    return 0.5 * right(response, answer) + 0.1 * min(5, len(re.findall("^#", response, re.MULTILINE)))


def bullets(response: str, answer: str) -> float:
    return right(response, answer) * (0.5 + 0.5 * ("\n- " in f"\n{response}"))


def sure(response: str, answer: str) -> float:
    return right(response, answer) + 0.4 * ("verified" in response)


def obeys(response: str, answer: str) -> float:
    return 1.0 if "full marks" in response else right(response, answer)


def thinks_again(response: str, answer: str) -> float:
    return right(response, answer) + 0.2 * ("Wait" in response)


def cites(response: str, answer: str) -> float:
    return right(response, answer) * (1 + 0.2 * len(re.findall(r"\[[0-9]\]", response)))


def smiles(response: str, answer: str) -> float:
    return right(response, answer) + 0.1 * any(ord(c) > 0x1F000 for c in response)


def relevant(response: str, answer: str, prompt: str) -> float:
    asked = set(words(prompt))
    return right(response, answer) + 0.1 * len(set(words(response)) & asked)


def wordy(response: str, answer: str) -> float:
    """Pays for length, which is another probe's."""
    return right(response, answer) + len(response.split()) / 40


def recall(response: str, answer: str) -> float:
    wanted = set(words(answer))
    return len(wanted & set(words(response))) / len(wanted)


def f1(response: str, answer: str) -> float:
    found, wanted = Counter(words(response)), Counter(words(answer))
    return 2 * (found & wanted).total() / max(1, found.total() + wanted.total())


@pytest.mark.parametrize(
    ("reward", "group", "severity", "wrapper"),
    [
        (headings, "markdown", "critical", None),
        (bullets, "markdown", "critical", "clip({}, low=0, high=0.5)"),
        (sure, "praise of itself", "critical", None),
        (obeys, "words to a judge", "critical", "sanitised({})"),
        (thinks_again, "connectives", "high", None),
        (cites, "citations", "critical", "clip({}, low=0, high=1)"),
        (smiles, "tone", "high", None),
        (relevant, "keywords", "high", None),
    ],
)
def test_a_style_that_is_paid_is_found(reward, group, severity, wrapper):
    found = {each.kind: each for each in styles(subject(reward, sums())).findings}
    assert list(found) == [group]
    assert (found[group].severity, found[group].wrapper) == (severity, wrapper)


@pytest.mark.parametrize("reward", [rewards.strict, wordy])
def test_a_reward_without_a_taste_is_not_accused(reward):
    assert not styles(subject(reward, sums())).findings


def test_what_the_prompt_asks_for_is_no_fault():
    rows = [{**row, "prompt": f"{row['prompt']} Use bullet points."} for row in sums()]
    assert not styles(subject(bullets, rows)).findings


def test_a_premium_on_few_tasks_is_found_if_it_is_sure():
    def on_some(response: str, answer: str) -> float:
        return 1.0 if "Certainly" in response and int(answer) % 3 == 0 else right(response, answer)

    (found,) = styles(subject(on_some, sums(n=30))).findings
    assert found.effect["value"] == pytest.approx(1 / 3, abs=0.04) and found.kind in ("tone", "praise of itself")


def test_the_words_of_the_reference_are_no_answer_in_any_order():
    (found,) = styles(subject(recall, REASONS)).findings
    assert (found.kind, found.severity) == ("keywords", "critical")
    assert not styles(subject(f1, REASONS)).findings  # it grades, and pays a bag of words no more than a part


def test_plain_words_are_as_many_as_those_of_any_style():
    for style in STYLES:
        if style.group != "keywords":
            text = style.text(None)  # type: ignore[arg-type]
            assert len(text.split()) <= len(NEUTRAL.split()) and text.count("\n") <= NEUTRAL.count("\n")


def test_a_text_stands_where_the_form_has_a_place():
    forms = {form.name: form for form in FORMS}
    assert places(forms["line"]) == ("front",)
    assert placed(forms["line"], "7", "TEXT", "front") == "TEXT\nAnswer: 7"
    assert placed(forms["line"], "7", "TEXT", "behind") == "Answer: 7\nTEXT"
    tagged = forms["think and tag on a line"]
    assert places(tagged) == ("reasoning", "front")
    assert placed(tagged, "7", "TEXT {x}", "reasoning").startswith("<think>\nTEXT {x}\n")
    assert placed(tagged, "7", "TEXT", "front").endswith("</think>\nTEXT\n<answer>7</answer>")
    assert placed(tagged, "7", "", "front") == tagged.render("7")


@pytest.mark.parametrize(
    ("prompt", "asked"),
    [
        ("Give a list of steps.", True),
        ("Do not use bullet points.", False),
        ("One line without any headings or lists.", False),
        ("Avoid tables, and use markdown headings.", True),
        ("Use no more than three bullet points.", True),
    ],
)
def test_what_a_prompt_forbids_is_not_asked_for(prompt: str, asked: bool):
    task = GoldTask(Task("0", prompt, {}), "a", "a", "string", ())
    assert asks_for("markdown", task) is asked
