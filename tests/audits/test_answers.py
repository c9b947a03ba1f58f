"""Near misses are wrong, equivalents are right, by arithmetic of the test's own."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from posttrain.audits.answers import Variant, equivalents, exchanged, far, near_misses, numbers, same, unevaluated
from posttrain.audits.answers.expressions import values
from posttrain.audits.golds import AnswerType, GoldTask
from posttrain.audits.guard import formulas
from posttrain.types import Task

OPTIONS = "Which colour is the sky?\nA) red\nB) green\nC) blue\nD) white"


def task(gold: str, kind: AnswerType, prompt: str = "What is it?", **columns: object) -> GoldTask:
    return GoldTask(Task("0", prompt, {"answer": gold, **columns}), gold, gold, kind, ("answer",))


def made(variants: list[Variant]) -> dict[str, str]:
    return {variant.kind: variant.text for variant in variants}


def missed(each: GoldTask, seed: int = 0) -> dict[str, str]:
    return made(near_misses(each, random.Random(seed)))


def test_a_long_run_of_digits_in_a_prompt_is_read_once():
    assert unevaluated(task("42", "number", "Which of these? " + "1." * 100_000))


def test_numbers_that_are_very_long_or_large_primes():
    long = task("7" * 6000, "number")
    assert same(long, "7" * 6000) and not same(long, "7")
    assert (missed(long), unevaluated(long)) == ({}, [])
    prime = 2**89 - 1
    assert set(made(unevaluated(task(str(prime), "number")))) == {"a sum", "a difference", "a quotient", "a root"}
    assert len(missed(task("123" * 300, "number"))) == 9 and unevaluated(task("9" * 994 + "e999", "number"))


def test_numbers():
    each = task("42", "number", "How many stamps are 40 + 2 stamps?")
    found = missed(each)
    assert (found["one more"], found["one less"], found["5% more"], found["a factor of ten"]) == (
        "43",
        "41",
        "44.1",
        "420",
    )
    assert (found["the other sign"], found["two digits swapped"], found["half a per cent more"]) == (
        "-42",
        "24",
        "42.21",
    )
    assert made(equivalents(each)) == {
        "a blank in front": " 42",
        "a blank behind": "42 ",
        "a final full stop": "42.",
        "bold": "**42**",
        "in a formula": "$42$",
        "a decimal point": "42.0",
        "with the unit of the question": "42 stamps",
    }
    undone = made(unevaluated(each))
    assert undone["the question's own arithmetic"] == "40 + 2"
    assert (undone["a product"], undone["a quotient"], undone["a root"]) == ("6*7", "84/2", r"\sqrt{1764}")
    assert {eval(undone[kind]) for kind in ("a sum", "a difference", "a product", "a quotient")} == {42}


@pytest.mark.parametrize("gold", ["1", "7", "-3", "1234", "0.5", "3/4", "2.75", "$5", "12%", "1,250", "100000"])
def test_no_near_miss_of_a_number_is_within_rounding(gold: str):
    plain = Fraction(gold.strip("$%").replace(",", ""))
    for seed in range(20):
        for prompt, share in (("What is it?", 10_000 if plain.denominator == 1 else 50), ("About how many?", 50)):
            found = missed(task(gold, "number", prompt), seed)
            assert found
            for text in found.values():
                other = Fraction(text.strip("$%").replace("$", "").replace("%", ""))
                assert abs(other - plain) > abs(plain) / share
    for variant in equivalents(task(gold, "number")):
        if "{" not in variant.text and not variant.text.endswith("."):
            assert Fraction(variant.text.strip(" $%*").replace(",", "")) == plain


def test_unevaluated_work_does_not_show_the_number():
    assert made(unevaluated(task("2", "number"))) == {"a difference": "10 - 8", "a root": r"\sqrt{4}"}
    assert unevaluated(task("x+1", "expression")) == []


def test_renderings_of_a_fraction_are_exact():
    found = made(equivalents(task("0.5", "number")))
    assert (found["as a fraction"], found["as a LaTeX fraction"], found["a zero at the end"]) == (
        "1/2",
        r"\frac{1}{2}",
        "0.50",
    )
    assert "as a decimal" not in made(equivalents(task("1/3", "number")))
    assert made(equivalents(task("1234", "number")))["thousands separators"] == "1,234"
    assert numbers.parse(r"-\frac{1}{4}") == Fraction(-1, 4) and numbers.parse("1/0") is None
    assert same(task("1/2", "number"), "0.50") and not same(task("1/2", "number"), "0.51")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2^2 + 3*2", 10),
        (r"\frac{1}{2}2 - 2(3)", -5),
        (r"\left(2+1\right)^{2} \cdot 2", 18),
        ("-2**2", -4),
        ("2^-1", 0.5),
        (r"2\sqrt{9}", 6),
        (r"2\sqrt[3]{8}", 4),
    ],
)
def test_values_of_expressions(text: str, expected: float):
    assert formulas.value(text) == pytest.approx(expected)


@pytest.mark.parametrize("text", [")x(", "x +", "9^9^9", "1/0", "(" * 5000, "(" * 100 + "1" + ")" * 100, "words", ""])
def test_what_is_no_expression_or_too_large_has_no_value(text: str):
    assert values(text) is None


@pytest.mark.parametrize("gold", ["x^2+3x-4", r"\frac{x+1}{2}", "(x+1)*(x-2)", "y = 7x + 1", r"2\sqrt{3}", r"\pi + 1"])
def test_expressions(gold: str):
    each = task(gold, "expression")
    for seed in range(10):
        found = missed(each, seed)
        assert found["one more"] == f"{gold} + 1"
        for text in found.values():
            right, wrong = values(gold), values(text)
            assert right is not None and wrong is not None
            assert any(abs(complex(a) - complex(b)) > 1e-6 for a, b in zip(right, wrong, strict=True))
    for variant in equivalents(each):
        assert same(each, variant.text) or variant.text.strip(" *$.") == gold


def test_expressions_are_compared_by_value():
    each = task("x^2+2x+1", "expression")
    assert same(each, "(x + 1)^{2}") and same(each, "f(x) = (1+x)^2")
    assert not same(each, "(x+1)^2+1") and not same(each, "y^2+2y+1") and not same(each, "nothing")


def test_choices():
    each = task("C", "choice", OPTIONS)
    assert missed(each)["the next option with its text"] in ("B) green", "D) white")
    assert set(missed(each).values()) <= {"A", "B", "D", "B) green", "D) white"}
    found = made(equivalents(each))
    assert found["with the option's text"] == "C) blue" and found["the letter in brackets"] == "(C)"
    assert same(each, "(c)") and not same(each, "B")


def test_strings():
    assert missed(task("yes", "string")) == {"the opposite": "no"}
    for seed in range(20):
        found = missed(task("Copenhagen", "string"), seed)
        assert sorted(found["two letters swapped"]) == sorted("Copenhagen") != list(found["two letters swapped"])
        assert len(found["a letter left out"]) == 9 and len(set(found.values())) == len(found)
        assert "Copenhagen" not in found.values()
    assert missed(task("15 km", "string"))["one more"] == "16 km"
    assert missed(task("15 km", "string"))["another unit"].startswith("15 ")
    listed = task("1, 2, 3", "string", "List them in any order.")
    assert "another order" not in missed(listed) and missed(listed)["two items joined"] == "12, 3"
    assert missed(task("1, 2, 3", "string", "List them in ascending order."))["another order"] in ("2, 1, 3", "1, 3, 2")
    assert same(task("the Pacific", "string"), "pacific.") and not same(task("Pacific", "string"), "Atlantic")


def test_json():
    gold = {"name": "Ada", "age": 36, "city": "London", "admin": True}
    each = task(json.dumps(gold), "json", "Describe her as JSON.")
    for seed in range(20):
        assert all(json.loads(text) != gold for text in missed(each, seed).values())
    found = equivalents(each)
    assert found and all(json.loads(variant.text) == gold and variant.level == "layout" for variant in found)
    assert list(json.loads(made(found)["keys in another order"])) == ["admin", "city", "age", "name"]
    assert json.loads(far(each)) == {"name": "zzqx", "age": -987654321, "city": "zzqx", "admin": "zzqx"}
    assert not same(task('{"a": 1}', "json"), '{"a": true}') and same(task('{"a": 1, "b": 2}', "json"), '{"b":2,"a":1}')


def test_another_value_of_json_is_beyond_rounding():
    for prompt, changed in [("Scale it, as JSON; one per cent of rounding is fine.", 456.0), ("As JSON.", 416.0)]:
        assert json.loads(missed(task('{"milk": 415.0}', "json", prompt))["a value changed"]) == {"milk": changed}


def test_programs_do_the_same_in_other_layouts():
    code = "def f(a):\n    b = a + 1\n    return [b for b in range(b)]\n\n\ndef g(a):\n    return f(a) * 2"
    found = made(equivalents(task(code, "code")))
    assert "other names of variables" in found and "b_value" in found["other names of variables"]
    for text in (code, *found.values()):
        scope: dict[str, Any] = {}
        exec(text, scope)
        assert scope["g"](2) == [0, 1, 2, 0, 1, 2]
    assert (
        equivalents(task("    return a + 1", "code")) == [] and near_misses(task(code, "code"), random.Random(0)) == []
    )


def test_where_several_answers_are_right_none_of_them_is_wrong():
    listed = task("101", "number", "Which prime is it?", answers=["101", "103", "107"])
    assert same(listed, "103") and "103" not in {t for seed in range(50) for t in missed(listed, seed).values()}
    assert not same(task("red", "string", choices=["red", "blue"]), "blue")
    assert missed(task("101", "number", "Give a prime number above 100.")) == {}
    assert missed(task("101", "number", "Give a short answer: what is 100 + 1?"))
    booking = task("Dora 11:15", "string", "Book a visit. Any such booking is right.")
    assert missed(booking) == {} and missed(replace(booking, task=task("a", "string").task))
    assert missed(replace(task("Dora 11:15", "string"), compared=False)) == {}
    assert missed(replace(task("7", "number"), compared=False))  # computed from other columns


def test_numbers_that_are_far_too_near():
    found = missed(task("4295", "number", "What is left, exactly?"))
    assert (found["one more"], found["0.2 per cent more"], found["a comma read as a point"]) == (
        "4296",
        "4304",
        "4.295",
    )
    assert (found["the last digit left out"], found["the digits turned round"]) == ("429", "5924")
    assert (
        not {"one more", "0.2 per cent more"} & missed(task("4295", "number", "What is the energy in joules?")).keys()
    )
    assert missed(task("13.5", "number"))["the decimals left out"] == "13"


def test_a_number_that_may_be_used_once():
    once = task("9 * 4 - 8", "expression", "Make 28 from 9, 4 and 8. Use each number exactly once.")
    found = missed(once)
    assert found["the value alone"] == "28" and same(once, "4*9 - 8") and not same(once, "9*4 - 8 + 4 - 4")
    again = found["a number used again"]
    assert eval(again) == 28 and not same(once, again)
    assert "a number used again" not in missed(task("9 * 4 - 8", "expression"))


def test_the_text_of_the_right_option_under_another_letter():
    kind = "the right text under another letter"
    assert missed(task("C", "choice", f"{OPTIONS}\nReply with the letter."))[kind] in ("B) blue", "D) blue")
    assert kind not in missed(task("C", "choice", OPTIONS))


def test_lists_citations_and_dates():
    labels = task("billing, refund", "string", "Which labels fit?", allowed=["billing", "refund", "praise"])
    found = missed(labels)
    assert "billing, refund, praise" in found.values()
    assert missed(task("3, 7", "string"))["an item more"] == "3, 7, 8"
    cited = task("1863 [2]", "string", "[1] a\n[2] b\n[3] c\nCite only the passage that says so.")
    found = missed(cited)
    assert found["a source more"] in ("1863 [2] [1]", "1863 [2] [3]") and found["several sources"] == "1863 [1] [2] [3]"
    assert found["another source"] in ("1863 [1]", "1863 [3]")
    assert "a source more" not in missed(task("1863 [2]", "string", "[1] a\n[2] b\nCite sources."))
    assert missed(task("2024-03-05", "string"))["day and month swapped"] == "2024-05-03"
    assert "day and month swapped" not in missed(task("2024-03-25", "string"))
    assert missed(task("9:30 am", "string"))["the other half of the day"] == "9:30 pm"
    assert missed(task("09:30", "string"))["the other half of the day"] == "21:30"
    assert missed(task("15:11:20", "string"))["the other half of the day"] == "03:11:20"
    assert "the other half of the day" not in missed(task("9:30", "string"))


WORDS = [f"the {which} word that of another answer" for which in ("first", "last")]


@pytest.mark.parametrize(
    ("gold", "kind", "prompt", "expected"),
    [
        ("=A2*B2", "expression", "", {"another operator": "=A2+B2"}),
        ("(x+1)*(x-2)", "expression", "", {"brackets left out": "x+1*x-2", "another operator": "(x+1)+(x-2)"}),
        ("x > 3", "string", "", {"another operator": "x < 3", "the sides of an operator exchanged": "3 > x"}),
        ("A -> B -> C", "string", "", {"the sides of an operator exchanged": "B -> A -> C"}),
        ("p ∧ q", "string", "", {"another operator": "p ∨ q"}),
        ("Cats do not swim.", "text", "What of cats?", {"a negation left out": "Cats do swim."}),
        ("The oldest is left of it.", "text", "What of the oldest left?", {}),  # the prompt has the word
        ("before noon", "string", "", {"the opposite of a word": "after noon"}),
        ("Ann Lee", "string", "", dict(zip(WORDS, ("Bob Lee", "Ann Hill"), strict=True))),
        ("Aa", "string", "Which genotype?", {"other capitals": "aa"}),
        ("The Cat", "string", "In title case: the cat", {"other capitals": "the cat"}),
        ("1, 3, 5", "string", "Sort them.", {"the last item twice": "1, 3, 5, 5"}),
        ('{"when": "above it", "n": 3}', "json", "", {"the opposite of a word": '{"when": "below it", "n": 3}'}),
        *((gold, "string", "", {}) for gold in ("2024-03-05", "10:05-10:35", "R&D", "9 m/s", "and/or", "5")),
    ],
)  # fmt: skip
def test_one_part_exchanged(gold: str, kind: AnswerType, prompt: str, expected: dict[str, str]):
    found = made(exchanged(task(gold, kind, prompt or "What is it?"), ["Bob Hill"], random.Random(0)))
    assert expected.items() <= found.items() and (expected or not found)


def test_empty_values_of_json():
    gold = {"name": "book", "arguments": {"town": "Lima", "seats": 2, "tags": ["a"]}}
    found = {kind: json.loads(text) for kind, text in missed(task(json.dumps(gold), "json")).items()}
    empty = {"name": "", "arguments": {"town": "", "seats": 0, "tags": [""]}}
    assert found["all values empty"] == empty and found["an empty list"]["arguments"]["tags"] == []
    assert json.dumps(found["an empty text"]).count('""') == 1
    assert found["all values null"]["arguments"] == {"town": None, "seats": None, "tags": [None]}


def test_free_text_that_says_something_else():
    fact = task("The flash is seen first. Light is not slow.", "text", "Why is that?")
    assert missed(fact) == {
        "every sentence called wrong": "It would be wrong to say that the flash is seen first. "
        "It would be wrong to say that Light is not slow.",
        "'not' behind the verb": "The flash is not seen first. Light is not slow.",
    }
    whole = task("My neighbour's dog barks all night.", "text", "Translate this.")
    assert missed(whole)["the second half left out"] == "My neighbour's dog"
    assert (
        missed(task("A dog was born in 1890.", "text", "When was it?"))["another number"] != "A dog was born in 1890."
    )
    assert missed(task("The river is cold.", "text", "Write a sentence that contains river.")) == {}
    assert missed(task("A: red\nB: green", "text")) == {}


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ("Answers within 2 % of the true value are accepted.", 4.0),
        ("An error of up to 3 per cent is allowed.", 6.0),
        ("The result may differ by up to 0.5 from it.", 0.5),
        ("Answer ± 0.5 m/s.", 0.5),
        ("Give it correct to 3 significant figures.", 1.0),
        ("Reply with one decimal place.", 0.05),
        ("Take g = 10 or 9.8 m/s².", 200 * (10 / 9.8 - 1)),
        ("Within a year prices rose by 20%. She lives within 5 km of the sea.", 0.0),
        ("Answer within 60 characters.", 0.0),
        ("A profit margin of 30% is wanted; x = ±5.", 0.0),
    ],
)
def test_a_tolerance_that_a_prompt_states(said: str, wanted: float):
    assert float(numbers.tolerance(task("200", "number", said), Fraction(200))) == pytest.approx(wanted)
    assert numbers.tolerated(task("18.26 m/s", "string"), "18.16 m/s")
    assert not numbers.tolerated(task("18.26 m/s", "string"), "17.26 m/s")


@pytest.mark.parametrize(
    ("gold", "wanted"),
    [("SO4^2-", "SO4^2+"), ("Ca2+", "Ca2-"), ("SO₄²⁻", "SO₄²⁺"), ("-5 °C", "+5 °C"), ("B+", "B-"),
     ("555-1234", None), ("self-made", None), ("pre-", None), ("+44 20 7946", None),
     ("10-20 km", None), ("2024-03-05", None)],
)  # fmt: skip
def test_signs_that_count(gold: str, wanted: str | None):
    assert missed(task(gold, "string")).get("a sign changed") == wanted


def test_ways_that_break_a_rule():
    edges = {"edges": [["A", "B", 7], ["B", "C", 1], ["C", "D", 2]]}
    assert missed(task("A -> B -> D", "string", **edges)).get("the ends alone, which no edge joins") is None
    assert missed(task("A -> B -> C", "string", **edges))["the ends alone, which no edge joins"] == "A -> C"
    edges = {"roads": [["A", "B", 3], ["B", "C", 1]]}
    assert missed(task("A -> B -> C", "string", **edges))["the ends alone, which no edge joins"] == "A -> C"
    edges = {"links": [["Elm Road", "Castle"], ["Castle", "Docks"], ["Docks", "Mill"]]}
    assert missed(task("Elm Road -> Castle -> Docks -> Mill", "string", **edges)) == {
        "the ends alone, which no edge joins": "Elm Road -> Mill",
        "from the second node to the end, which no edge joins": "Elm Road -> Castle -> Mill",
    }
    poem = task(
        "Rain taps the glass\nIce sings at night\nVines climb the wall", "text", "Write an acrostic poem on RIV."
    )
    assert missed(poem) == {"the first word of each line alone": "Rain\nIce\nVines"}
    maze = "Find a way; walls are #.\n\nS#.\n..#\n#.G\n"
    assert missed(task("down, right, down, right", "string", maze)) == {"through a wall": "right, right, down, down"}


def test_queries_and_other_programs_that_do_something_else():
    def other(gold: str, prompt: str, **columns: object) -> dict[str, str]:
        each = task(gold, "string", prompt, **columns)
        assert near_misses(each, random.Random(0)) == [] == equivalents(each)  # none is surely wrong, or surely right
        return made(exchanged(each, ["9"], random.Random(0)))

    rows = "SELECT a FROM t WHERE b > 3"
    assert other(f"{rows} ORDER BY a;", "Write one SQL query for all a, sorted.") == {
        "a condition that nothing meets": f"SELECT * FROM ({rows} ORDER BY a) WHERE 1 = 0",
        "the condition left out": "SELECT a FROM t ORDER BY a",
        "zeros in place of the values": f"SELECT 0 FROM ({rows} ORDER BY a)",
        "all rows deleted": "DELETE FROM t",
        "all rows deleted before the query": f"DELETE FROM t; {rows} ORDER BY a",
        "the first row alone": f"SELECT * FROM ({rows} ORDER BY a) LIMIT 1",
        "the other order": f"{rows} ORDER BY a DESC",
        "another operator": f"{rows.replace('>', '<')} ORDER BY a;",
        "the sides of an operator exchanged": f"{rows.replace('b > 3', '3 > b')} ORDER BY a;",
    }
    assert "the first row alone" not in other("select count(*) from t", "How many are all, in SQL?")
    shown = other(r"[a-c]\d{2}", "Write a regular expression. Matches: a12, 'b07'. Not: a1.", accept=["a12", "c99"])
    assert shown["the examples that the prompt shows"] == "a12|b07"
    assert shown["any character in place of a class"] == "..{2}"
    assert "the examples that the prompt shows" not in other("yes|no", "Write a regex for yes or no.")
    stack = other("DUP MUL 12 ADD", "A stack machine has DUP, MUL and ADD. Leave only x*x + 12.")
    assert stack["the last word left out"] == "DUP MUL 12" and stack["a value more on the stack"] == "7 DUP MUL 12 ADD"
    assert stack["another word"] in ("DROP MUL 12 ADD", "DUP ADD 12 ADD", "DUP MUL 12 SUB")
    two = other("SELECT a, count(*) FROM t GROUP BY a", "In SQL, how many are there of each?")
    assert two["zeros in place of the values"].startswith("SELECT 0, 0 FROM (SELECT a")
    assert other("ls -A | wc -l", "Give a shell command.")["a command that does nothing"] == "true"
    sheet = other("=SUM(D7:D51)-L51", "Give the spreadsheet formula.")
    assert sheet["a list in place of a range"] == "=SUM(D7,D51)-L51" and sheet["another operator"] == "=SUM(D7:D51)+L51"


def test_what_is_said_of_queries_is_no_query():
    said = "It joins the rows of two tables, and keeps those that are in both."
    assert "every sentence called wrong" in missed(task(said, "text", "What does JOIN do in SQL?"))


def test_ways_out_of_the_grid():
    grid = "Find a way; '#' is a wall.\nS..\n.#.\n..G\n"
    found = missed(task("RRDD", "string", grid))
    assert found["out of the grid and back"] == "UDRRDD"
    assert "out of the grid and back" not in missed(task("RD", "string", "'#' is a wall.\n...\n.S.\n#.G\n"))
    assert "a comma read as a point" not in missed(task("847130", "number", "The code, with or without dots."))
