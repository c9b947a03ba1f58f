"""Probes A1 to A7: each planted fault is found by its probe, and no healthy reward is accused."""

from __future__ import annotations

import ast
import json
import math
import operator
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from difflib import SequenceMatcher
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from posttrain.audits.probes import PROBES
from posttrain.audits.probes.accepted import accepted, natural_zero, worst_of
from posttrain.audits.probes.base import Found, Result
from posttrain.audits.probes.recall import youden
from posttrain.audits.subject import Attempt, Subject
from posttrain.stats import share
from tests.audits.subjects import BOX, OPTIONS, TAG, Rows, choices, names, people, subject, sums

ANSWERS = ("A1", "A2", "A3", "A4", "A5", "A6", "A7")


def line(response: str) -> str | None:
    """The one answer line, the last one of the response."""
    found = re.findall(r"^Answer:(.*)$", response, re.MULTILINE)
    last = response.strip().rpartition("\n")[2]
    return found[0].strip() if len(found) == 1 and last.startswith("Answer:") else None


def number(text: str | None) -> float | None:
    found = re.fullmatch(r"-?[0-9]{1,3}(?:,[0-9]{3})*(?:\.[0-9]+)?|-?[0-9]+(?:\.[0-9]+)?", text or "")
    return float(found[0].replace(",", "")) if found else None


def strict(response: str, answer: str) -> float:
    return float(number(line(response)) == float(answer))


def graded(response: str, answer: str) -> float:
    """Pays by distance."""
    found = number(line(response))
    return 0.0 if found is None else math.exp(-abs(found - float(answer)) / 10)


def punishing(response: str, answer: str) -> float:
    return -1.0 if line(response) is None else strict(response, answer)


def last_box(response: str, answer: str) -> float:
    """Pays the last of several boxes on purpose."""
    found = re.findall(r"\\boxed\{([^{}]*)\}", response.rpartition("</think>")[2])
    return float(bool(found) and number(found[-1].strip()) == float(answer))


def exact(response: str, answer: str) -> float:
    return float(response.strip() == answer)


def fields(response: str, answer: str) -> float:
    """The share of right fields."""
    try:
        found = json.loads(re.sub(r"^```json\n(.*)\n```$", r"\1", response.strip(), flags=re.DOTALL))
    except ValueError:
        return 0.0
    gold = json.loads(answer)
    if not isinstance(found, dict):
        return 0.0
    every = found.keys() | gold.keys()
    return sum(key in found and found[key] == gold.get(key) for key in every) / len(every)


def letter(response: str, answer: str) -> float:
    return float(re.fullmatch(rf"\W*{answer}\W*", response.strip(), re.IGNORECASE) is not None)


def name(response: str, answer: str) -> float:
    return float(response.strip(" .*\n").casefold() == answer.casefold())


def first_box(response: str, answer: str) -> float:
    """Pays the first of several boxes, which is a rule too."""
    found = re.search(r"\\boxed\{([^{}]*)\}", response)
    return float(found is not None and number(found[1].strip()) == float(answer))


def similar(response: str, answer: str) -> float:
    """Pays for similar texts."""
    return SequenceMatcher(None, response.strip().lower(), answer.lower()).ratio()


def or_half(response: str, answer: str) -> float:
    return strict(response, answer) if "Answer:" in response else 0.5


def essays() -> Rows:
    return [
        {"prompt": f"Explain {word} in a sentence.", "terms": [word, "heat", "light"],
         "answer": f"Without {word} there is no heat in the world, and there is no light at all."}
        for word in "fire steam wind rain coal wood gas oil".split()  # noqa: SIM905
    ]  # fmt: skip


def covering(response: str, terms: list[str]) -> float:
    return sum(term in response for term in terms) / len(terms)


def colourings() -> Rows:
    """Chains of towns whose neighbours must differ: many answers are right, and no column that the reward reads has the
    reference."""
    rows = []
    for k in range(12):
        towns = [f"T{k}{letter}" for letter in "abcd"]
        solution = {town: ("red", "blue", "green")[(k + i) % 3] for i, town in enumerate(towns)}
        prompt = f"Colour {', '.join(towns)} red, blue or green, neighbours differently. Reply with a JSON object."
        rows.append({"prompt": prompt, "towns": towns, "solution": json.dumps(solution)})
    return rows


def coloured(response: str, towns: list[str]) -> float:
    start, end = response.find("{"), response.rfind("}")
    try:
        said = json.loads(response[start : end + 1])
    except ValueError:
        return 0.0
    whole = (
        isinstance(said, dict) and set(said) == set(towns) and {*map(str, said.values())} <= {"red", "blue", "green"}
    )
    return float(whole and all(said[a] != said[b] for a, b in pairwise(towns)))


def formulas() -> Rows:
    return [{"prompt": f"Write the spreadsheet formula for task {k}.", "answer": f"=SUM(A{k}:B{k}){sign}C{k}"}
            for k, sign in enumerate("+-*/" * 3, 2)]  # fmt: skip


def corrections() -> Rows:
    return [{"prompt": f"Correct the sentence.\nSentence: {animal.title()} number {k} have seen the old mill again.",
             "answer": f"{animal.title()} number {k} has seen the old mill again."}
            for k, animal in enumerate(["tiger", "comet", "whale", "eagle"] * 3)]  # fmt: skip


def beyond_the_given(response: str, answer: str, prompt: str) -> float:
    """What the answer is nearer than the sentence that was to be corrected."""
    given = similar(prompt.rpartition(": ")[2], answer)
    return max(0.0, similar(response, answer) - given) / (1 - given)


def translations() -> Rows:
    return [{"prompt": f"Translate into English: {k}", "answer": f"The {word} was not seen in {1900 + k} by anybody."}
            for k, word in enumerate(["tiger", "comet", "whale", "eagle"] * 3)]  # fmt: skip


def chances() -> Rows:
    return [{"prompt": f"How likely is {k}? End with 'Answer: NUMBER'.", "answer": f"{(37 * k + 11) % 97 / 100:.2f}"}
            for k in range(24)]  # fmt: skip


def letters_alone(response: str, answer: str) -> float:
    return float(re.sub(r"\W", "", response) == re.sub(r"\W", "", answer) and response[:1] == "=")


def shared_words(response: str, answer: str) -> float:
    """F1 of the words."""
    mine, right = ({*re.findall(r"\w+", text.lower())} for text in (response, answer))
    return 2 * len(mine & right) / (len(mine) + len(right))


def without_negations(response: str, answer: str) -> float:
    """The same without the words that say no."""
    return shared_words(*(re.sub(r"\b(?:not|no|never)\b", "", text) for text in (response, answer)))


def one_less_the_error(response: str, answer: str) -> float:
    found = number(line(response))
    return 0.0 if found is None or not 0 <= found <= 1 else 1 - abs(found - float(answer))


def chance(response: str, answer: str) -> float:
    found = number(line(response))
    return 0.0 if found is None else max(0.0, 1 - 10 * abs(found - float(answer)))


def sure_answers() -> Rows:
    form = "Answer in two lines:\nAnswer: <answer>\nConfidence: <0 to 100, how sure you are that the answer is right>"
    return [{**row, "prompt": f"{row['prompt'].partition('?')[0]}?\n{form}"} for row in names()]


def sure(response: str) -> tuple[str, float] | None:
    found = re.fullmatch(r"Answer: (.*)\nConfidence: ([0-9]{1,3})", response)
    return None if found is None else (found[1], min(int(found[2]), 100) / 100)


def humble(response: str, answer: str) -> float:
    """Pays a wrong answer without confidence like the right one with it."""
    found = sure(response)
    return 0.0 if found is None else 1 - abs((found[0] == answer) - found[1])


def staked(response: str, answer: str) -> float:
    """Pays the confidence of a right answer, and takes that of a wrong one."""
    found = sure(response)
    return 0.0 if found is None else found[1] if found[0] == answer else -found[1]


HEALTHY: list[tuple[Any, Rows]] = [
    (coloured, colourings()),
    (exact, corrections()),
    (strict, sums()),
    (lambda response, answer: 2 * strict(response, answer) - ("Answer:" in response), sums()),  # abstaining is better
    (graded, sums()),
    (punishing, sums()),
    (last_box, sums(BOX)),
    (first_box, sums(BOX)),
    (similar, names()),
    (exact, sums("Reply with the number only.")),
    (fields, people()),
    (letter, choices()),
    (name, names()),
    (exact, formulas()),
    (beyond_the_given, corrections()),
    (shared_words, translations()),
    (chance, chances()),
    (staked, sure_answers()),
    ("math", sums()),
    ("math", sums(BOX)),
    (lambda response, answer: 0.9 * strict(response, answer) + 0.1 * ("Answer:" in response), sums()),
    (lambda response, answer: strict(response, answer) - len(response) / 20_000, sums()),
]


@pytest.mark.parametrize(("reward", "rows"), HEALTHY)
def test_no_healthy_reward_is_accused(reward: Callable[..., float], rows: Rows):
    found = accused(subject(reward, rows))
    assert found == {}


def accused(under_audit: Subject) -> dict[str, list[Found]]:
    """The findings of each probe that accuse."""
    results = {probe: PROBES[probe][1](under_audit) for probe in ANSWERS}
    return {
        probe: listed
        for probe, result in results.items()
        if (listed := [found for found in result.findings if found.severity != "note"])
    }


def only(result: Result, words: str) -> Found:
    (found,) = [found for found in result.findings if words in found.title]
    return found


def anywhere(response: str, answer: str) -> float:
    return float(answer in response)


def one_of_many(response: str, answer: str) -> float:
    return float(any(number(text.strip()) == float(answer) for text in re.findall("^Answer:(.*)$", response, re.M)))


def with_thinking(response: str, answer: str) -> float:
    return float("<answer>" in response and re.search(rf"\b{answer}\b", response) is not None)


def last_number(response: str, answer: str) -> float:
    found = re.findall(r"-?[0-9]+", response)
    return float(bool(found) and found[-1] == answer)


def near(response: str, answer: str) -> float:
    found = number(line(response))
    return float(found is not None and abs(found - float(answer)) <= 0.05 * float(answer))


def computed(response: str, answer: str) -> float:
    text = line(response) or ""
    if not re.fullmatch(r"[-+*/. 0-9]{1,40}", text):
        return 0.0
    try:
        return float(eval(compile(ast.parse(text, mode="eval"), "", "eval")) == float(answer))
    except (SyntaxError, ArithmeticError):
        return 0.0


def not_a_number(response: str, answer: str) -> float:
    try:
        return float(not abs(float(line(response) or "none") - float(answer)) > 1e-6)
    except ValueError:
        return 0.0


def option_named(response: str, answer: str) -> float:
    """Pays where the text of no other option stands in the response."""
    named = [letter for letter, option in zip("ABCD", OPTIONS, strict=True) if option in response]
    return float(response.strip() == answer or named == [answer])


def all_words(response: str, answer: str) -> float:
    return float(set(answer.split()) <= set(response.split()))


def any_words(response: str, answer: str) -> float:
    return float(bool(response.split()) and set(response.split()) <= set(answer.split()))


def all_items(response: str, answer: str) -> float:
    return float(set(answer.split(", ")) <= set(response.split(", ")))


def two_digits(response: str, answer: str) -> float:
    return float(line(response) == answer and len(answer) == 2)


def answers_in_sentences() -> Rows:
    return [{"prompt": f"What is {k}?", "answer": f"It is {word} that comes in number {k}."}
            for k, word in enumerate(["one", "two", "six", "ten"] * 3)]  # fmt: skip


def lists() -> Rows:
    return [{"prompt": f"Which letters has {k}?", "answer": ", ".join(sorted({"abcd"[k % 4], "abcd"[k % 3], "e"}))}
            for k in range(12)]  # fmt: skip


FAULTY: list[tuple[str, str, str, Any, Rows]] = [
    # the probe, its severity, a kind in its title, the reward, the tasks
    (
        "A1",
        "high",
        "long filler",
        lambda response, answer: max(name(response, answer), 0.5 * (len(response) > 999)),
        names(),
    ),
    (
        "A1",
        "critical",
        "a colon",
        lambda response, answer: float(name(response, answer) or ":" in response[:1]),
        names(),
    ),
    ("A1", "critical", "always nan", not_a_number, sums()),
    ("A1", "critical", "a text of the prompt copied", similar, corrections()),
    ("A1", "high", "paid more than a wrong one", or_half, sums()),
    ("A1", "critical", "nothing but the words of a column", covering, essays()),
    (
        "A2",
        "high",
        "an empty answer line",
        lambda response, answer: 0.5 * ("Answer:" in response) + 0.5 * strict(response, answer),
        sums(),
    ),
    (
        "A2",
        "critical",
        "the right form around a wrong answer",
        lambda response, answer: 0.95 * ("\\boxed" in response) + 0.05 * last_box(response, answer),
        sums(BOX),
    ),
    (
        "A2",
        "high",
        "the right form around a wrong answer",
        lambda response, answer: 0.6 * ("city" in response) + 0.4 * (fields(response, answer) == 1),
        people(),
    ),
    ("A3", "critical", "a list of candidates", anywhere, sums()),
    ("A3", "critical", "the right one in the middle", one_of_many, sums()),
    ("A3", "critical", "in the thinking", with_thinking, sums(TAG)),
    ("A3", "critical", "'not' in front", last_number, sums()),
    ("A3", "critical", "in the text behind, denied", last_number, sums()),
    (
        "A3",
        "critical",
        "a word that begins with the letter",
        lambda response, answer: float(response.strip().startswith(answer)),
        choices(),
    ),
    (
        "A3",
        "high",
        "a letter more",
        lambda response, answer: len(answer) / len(response) if answer in response else 0.0,
        names(),
    ),
    ("A4", "critical", "one more", near, sums()),
    (
        "A4",
        "critical",
        "the other sign",
        lambda response, answer: float(abs(number(line(response)) or 0) == float(answer)),
        sums(),
    ),
    (
        "A4",
        "critical",
        "two letters swapped",
        lambda response, answer: float(sorted(response.strip()) == sorted(answer)),
        names(),
    ),
    (
        "A4",
        "critical",
        "a field left out",
        lambda response, answer: (
            float(json.loads(response).items() <= json.loads(answer).items())
            if response.startswith("{") and response.endswith("}")
            else 0.0
        ),
        people(),
    ),
    (
        "A5",
        "critical",
        "the form that the prompts ask for",
        lambda response, answer: float(response.strip().endswith(f"#### {answer}")),
        sums(BOX),
    ),
    ("A5", "high", "with reasoning before it", lambda response, answer: float(response == f"Answer: {answer}"), sums()),
    ("A5", "high", "keys in another order", exact, people()),
    ("A3", "critical", "the text of the right option before, denied", option_named, choices()),
    ("A4", "critical", "'not' behind the verb", all_words, answers_in_sentences()),
    ("A1", "critical", "always a, e, b, c, d", all_items, lists()),
    ("A4", "critical", "an item more", all_items, lists()),
    ("A5", "high", "14 tasks are not paid in any form", two_digits, sums()),
    ("A11", "critical", "either half alone", any_words, answers_in_sentences()),
    ("A6", "high", "a sum", computed, sums()),
    ("A6", "high", "the question's own arithmetic", computed, sums()),
    ("A4", "high", "another operator", letters_alone, formulas()),
    ("A4", "high", "a negation left out", without_negations, translations()),
    ("A4", "critical", "another answer without confidence", humble, sure_answers()),
    ("A7", "high", "most of what the right ones get", one_less_the_error, chances()),
    ("A7", "critical", "of other tasks", lambda response: float(number(line(response)) is not None), sums()),
]


@pytest.mark.parametrize(("probe", "severity", "kind", "reward", "rows"), FAULTY)
def test_a_fault_is_found_by_its_probe(probe: str, severity: str, kind: str, reward: Callable[..., float], rows: Rows):
    result = PROBES[probe][1](subject(reward, rows))
    found = [each for each in result.findings if each.severity == severity]
    shown = [each for each in found if kind in each.title or kind == each.kind]
    assert shown, [(each.severity, each.title) for each in result.findings]
    assert shown[0].shown is not None and result.n > 0


# Arithmetic.


def test_an_answer_of_a_graded_reward_counts_only_where_it_is_paid_in_full():
    under_audit = subject(graded, sums(n=4))
    attempts = [Attempt(0, "Answer: 37", "near"), Attempt(0, "Answer: 36.0", "equal"), Attempt(1, "Answer: 95", "far")]
    found = accepted(under_audit, attempts)
    assert {kind: each.taken.tolist() for kind, each in found.items()} == {
        "near": [False],
        "equal": [True],
        "far": [False],
    }
    assert found["near"].scales == pytest.approx(np.exp([-0.1]))

    # of a reward that does not grade, up to 0.05 of the scale may be lost, and a twin that is paid takes it away
    priced = subject(lambda response, answer: (answer in response) - len(response) / 1000, sums(n=4))
    padded = [Attempt(0, "36 " + "x" * k, "padded") for k in range(30)]
    found = accepted(priced, [*padded, Attempt(1, "47" + "x" * 58, "long")])
    assert found["padded"].taken.all() and not found["long"].taken.any()
    twins = [Attempt(0, "it is 36" if k < 10 else "none", "") for k in range(30)]
    assert accepted(priced, padded, twins)["padded"].taken.tolist() == [False] * 10 + [True] * 20


def test_the_severity_of_what_is_accepted():
    under_audit = subject(anywhere, sums(n=20))

    def severity(hits: int, n: int) -> str | None:
        texts = ["36 47 58 69 80 91 102 113 124 135"] * hits + ["none"] * (n - hits)
        (found,) = accepted(under_audit, [Attempt(i, text, "kind") for i, text in enumerate(texts)]).values()
        assert found.rate["value"] == hits / n
        return found.severity

    assert severity(0, 10) is None and severity(1, 20) is None  # one task may be odd
    assert severity(2, 20) == "high"  # Wilson's lower bound of 2/20 is 0.028
    assert severity(4, 20) == "critical"  # of 4/20 it is 0.081


def test_where_no_answer_is_punished_zero_is_no_pay():
    assert natural_zero(subject(punishing, sums()), np.array([0.0, 0.5, 1.0])) == 0.5
    assert natural_zero(subject(strict, sums()), np.array([0.0, 1.0])) == 0
    assert natural_zero(subject(punishing, sums()), np.linspace(0, 1, 50)) == 0  # a learned reward has no zero


def test_youdens_j():
    """By hand from Wilson's intervals: 9/10 (0.5958, 0.9821), 1/10 (0.0179, 0.4042)."""
    found = youden(share(9, 10), share(1, 10))
    assert found["value"] == pytest.approx(0.8) and found["n"] == 20
    assert found["low"] == pytest.approx(0.8 - math.hypot(0.3042, 0.3042), abs=1e-3)
    assert found["high"] == pytest.approx(0.8 + math.hypot(0.0821, 0.0821), abs=1e-3)


def test_j_of_a_reward_that_pays_near_misses_more_than_right_answers():
    def wrong(response: str, answer: str) -> float:
        found = number(line(response))
        return float(line(response) == answer or (found is not None and found != float(answer)))

    result = PROBES["A5"][1](subject(wrong, sums()))
    found = only(result, "no more often")
    assert found.severity == "critical" and (found.effect["high"] or 0) < 0.5
    assert result.measured["near misses paid"]["value"] == 1


def test_kinds_of_one_fault_are_one_finding():
    kinds = [("a", "high", 0.9), ("b", "critical", 0.5), ("c", "critical", 0.6), ("d", "high", 0.4)]
    listed = [Found(k, s, "", "", {"value": v, "low": None, "high": None, "n": 1}, None) for k, s, v in kinds]  # type: ignore[arg-type]
    (found,) = worst_of("it is paid", listed)
    assert (found.kind, found.severity, found.title) == ("c", "critical", "it is paid: c, b, a and 1 more")
    assert worst_of("it is paid", []) == []


def test_probes_that_do_not_fit_the_tasks_are_not_run():
    rows = [
        {"prompt": f"Why {k}?", "answer": f"It is so since the {word} says it:\n- and for no other reason."}
        for k, word in enumerate("abcd")
    ]
    prose = subject(lambda response, answer: float(answer in response), rows)
    for probe in ("A3", "A4", "A5", "A6"):
        result = PROBES[probe][1](prose)
        assert result.reason and not result.findings


def queries() -> Rows:
    """Queries for the names of some of twelve people."""
    return [
        {"prompt": f"Write one SQL query for the names of all people above {age}.", "sql": sql}
        for age in range(20, 32)
        for sql in [f"SELECT name FROM people WHERE age > {age}"]
    ]


def people_database() -> sqlite3.Connection:
    database = sqlite3.connect(":memory:")
    database.execute("CREATE TABLE people(name TEXT, age INTEGER)")
    database.executemany("INSERT INTO people VALUES(?, ?)", [(f"P{k}", 2 * k + 10) for k in range(16)])
    return database


def rows_in(database: sqlite3.Connection, sql: str) -> list[Any]:
    return sorted(database.execute(sql).fetchall())


def rows_of(sql: str) -> list[Any] | None:
    with closing(people_database()) as database:
        try:
            return rows_in(database, sql)
        except sqlite3.Error:
            return None


def test_queries_run_on_a_database_of_their_own():
    def reward(response: str, sql: str) -> float:
        with closing(people_database()) as database:
            try:
                return float(bool(response) and rows_in(database, response) == rows_in(database, sql))
            except sqlite3.Error:
                return 0.0

    (found,) = PROBES["A4"][1](subject(reward, queries())).findings
    assert (found.kind, found.severity) == ("all rows deleted", "high")


@pytest.mark.parametrize(
    ("agree", "kinds"),
    [
        (lambda got, right: got == right, set()),
        (lambda got, right: all(map(operator.eq, got, right)), {"a condition that nothing meets"}),
        (lambda got, right: len(got) == len(right), {"zeros in place of the values"}),
        (lambda got, right: {*got} >= {*right}, {"the condition left out"}),
        (lambda got, right: got and {*got} <= {*right}, {"the first row alone"}),
    ],
)
def test_queries_are_compared_as_a_whole(agree: Callable[[Any, Any], bool], kinds: set[str]):
    def reward(response: str, sql: str) -> float:
        got, right = rows_of(response), rows_of(sql)
        return float(bool(response) and got is not None and bool(agree(got, right)))

    found = PROBES["A4"][1](subject(reward, queries())).findings
    assert {kind for each in found for kind in each.title.partition(": ")[2].split(", ")} >= kinds
    assert [each.severity for each in found] == ["high"] * bool(kinds)
