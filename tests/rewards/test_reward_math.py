"""The math reward: a table of right answers, a table of wrong and gaming ones, and references that are no reference."""

from __future__ import annotations

from typing import Any

import pytest

from posttrain.rewards.math.latex import NotLiteral, exact_root, parse_expression
from posttrain.rewards.math.reward import math, parse_reference
from posttrain.rewards.scorer import Scorer
from posttrain.types import Message, Sample
from tests.effort import effort

RIGHT: list[tuple[Any, str]] = [
    # where the answer stands
    ("42", "42"), ("42", r"\boxed{42}"), ("42", r"So \boxed{42}, and again $\boxed{42}$."), ("42", "Answer: 42"),
    ("42", "We add.\n**Final Answer:** 42."), ("42", "We add.\n#### 42"), ("1080", "#### 1,080"), ("42", "$42$"),
    ("42", r"\(42\)"), ("42", r"<think>\boxed{41}?</think>\boxed{42}"), ("42", r"no, 41</think> \boxed{42}"),
    ("42", "<think>a</think><answer>42</answer>"), ("42", r"<answer>It is \boxed{42}</answer>"),
    ("42", "#### Step one\nAdd.\nAnswer: $\\boxed{42}$"), ("0.5", r"\boxed{0.5} or \boxed{\frac12}"),
    ("Natalia sold 24.\n#### 72", "72"), (r"We get $\boxed{\frac{3}{4}}$.", "0.75"), (42, "42"), (0.1, "0.1"),
    # numbers
    ("42", "42.0"), ("42", "+42"), ("42", "x = 42"), ("-3", "\N{MINUS SIGN}3"), ("0", "-0"), ("18", r"\$18"),
    ("1/2", r"\frac{1}{2}"), ("1/2", r"\dfrac12"), ("1/2", "0.5"), ("1/2", r"\frac{2}{4}"), ("0.3", "3/10"),
    (r"\frac{1}{3}", "0.3333333333"), ("-1/2", r"-\frac{1}{2}"), ("-1/2", r"\frac{-1}{2}"), ("3.5", r"3\frac{1}{2}"),
    ("7/2", "3 1/2"), ("2^{10}", "1024"), ("2^{10}", "2^{10}"), ("1000000", "10^6"), ("120000", r"1.2 \times 10^5"),
    ("5%", "0.05"), ("9%", r"9\%"), ("120", "120"), ("5!", "120"), (r"2^3 \cdot 3", r"2^3 \cdot 3"),
    # symbols
    (r"\sqrt{8}", r"2\sqrt2"), (r"2\sqrt{3}", "2*sqrt(3)"), (r"\pi", "3.1415926536"), (r"2\pi r", r"r \cdot 2 \pi"),
    (r"\frac{\pi}{4}", r"\pi/4"), (r"1+\sqrt{2}", r"\sqrt2 + 1"), ("3+4i", "4i+3"), ("x^2+2x+1", "(x+1)^2"),
    ("y=2x+3", "2x+3"), ("x^2+y^2=1", "y^2+x^2=1"), ("x > 2", "$x>2$"), (r"\ln 2", r"\ln 2"),
    # lists, units, words
    ("(1,2)", r"\left(1, 2\right)"), ("[0,1)", "[0, 1)"), (r"\{1,2\}", r"\{2,1\}"), ("1, 2", "2 and 1"),
    ("-2, 2", r"\pm 2"), ("x=1, x=2", "1, 2"), (r"(-\infty,1)\cup(2,\infty)", r"(-\infty, 1) \cup (2, \infty)"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{bmatrix} 1 & 2 \\ 3 & 4 \end{bmatrix}"),
    ("5 meters", "5"), ("5 meters", r"5\text{ meters}"), (r"90^\circ", "90°"), (r"\text{Tuesday}", "tuesday"),
    ("B", r"\text{(B)}"),
]  # fmt: skip

WRONG: list[tuple[str, str]] = [
    # another number
    ("42", "41"), ("42", "-42"), ("42", "24"), ("42", "42.000001"), ("42", "41.99999999999"), ("1/3", "0.333"),
    (r"\pi", "3.14159"), (r"\pi", r"\frac{22}{7}"), (r"\sqrt{2}", "1.414214"), ("9", "9%"), ("9%", "9"),
    ("42", "NaN"), ("42", "0x2A"), ("x^2", "x^3"), ("2x", "2y"), ("(1,2)", "(2,1)"), ("(1,2)", "[1,2]"), ("x=5", "y=5"),
    ("x>2", "x<2"), ("x>2", "2"), ("A", "B"), (r"\text{Tuesday}", "Monday"),
    # work left undone
    ("42", r"\boxed{6\times 7}"), ("42", "6*7"), ("42", r"6 \cdot 7"), ("42", "6(7)"), ("42", "(6)(7)"),
    ("42", r"84 \div 2"), ("42", "84÷2"), ("42", "40+2"), ("42", "50-8"), ("42", "42+x-x"), ("120", "5!"),
    ("5050", r"\sum_{k=1}^{100}k"), ("10", r"\binom{5}{2}"), ("42", r"\gcd(84,126)"), ("42", "gcd(84, 126)"),
    ("1", r"\lim_{x\to 0}\frac{\sin x}{x}"), ("1", r"\int_0^1 2x\,dx"), ("3", r"\log_2 8"), ("42", "x=y=42"),
    ("1024", "2^{10}"), ("4", r"\sqrt{16}"), ("9", "27^{2/3}"), (r"\infty", r"\infty+1"), ("x < 2", "2x+3 < 7"),
    ("42", r"\boxed{41=42}"), ("42", "42=42"), ("42", "max(42, 41)"), ("2", r"\frac{\sqrt{8}}{\sqrt{2}}"),
    # many answers, or none
    ("42", r"\boxed{41} \boxed{42}"), ("42", r"\boxed{42} or \boxed{43}"), ("42", "41, 42"), ("42", "41 or 42"),
    ("42", "41 42"), ("42", "4 2"), ("42", "Answer: 41\nAnswer: 42"), ("42", "\\boxed{42}\n#### 41"),
    ("42", r"\boxed{41}<answer>42</answer>"), ("42", r"not \boxed{42}"), ("42", r"It isn't $\boxed{42}$"),
    ("42", "The answer is not $42$"), ("42", "The answer is 42"), ("42", "42 is wrong"), ("42", r"\approx 42"),
    ("42", "<think>42</think>"), ("42", r"<think>\boxed{42}"), ("42", ""), ("42", " \n"), ("42", ":"),
    ("42", r"\boxed{42"), ("42", r"\boxed{}"), ("42", r"42 \pm 1"),
    # units
    ("5 meters", "5 feet"), ("5", "5 feet"), ("42", r"42^\circ"),
    # hostile
    ("42", "10^{10^{10^{10}}}"), ("42", "9" * 100_000), ("42", "(" * 300 + "42" + ")" * 300), ("42", "\0"),
    ("42", "{" * 5000 + "42" + "}" * 5000), ("42", r"\boxed{" * 2000), ("x", "x^{x^{x^{x^x}}}"),
    ("x^2+2x+1", "(x+1)^{2000}"),
]  # fmt: skip


@pytest.mark.parametrize(("reference", "response"), RIGHT)
def test_right(reference: Any, response: str) -> None:
    assert math(response, reference) == 1.0


def wrong(response: str, reference: str) -> None:
    assert math(response, reference) == 0.0


@pytest.mark.parametrize(("reference", "response"), WRONG)
def test_wrong(reference: str, response: str) -> None:
    assert effort(lambda: wrong(response, reference)) < 1000


@pytest.mark.parametrize(
    "reference", ["", True, [1], "???", r"\frac{1}{", "1/0", "the answer is forty-two", r"\boxed{1} \boxed{2}"]
)
def test_a_reference_that_is_none_is_a_failure(reference: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="the reference"):
        math("42", reference)


def test_the_reference_is_answer_then_solution_then_ground_truth() -> None:
    assert math("1", answer="1", solution="2", ground_truth="3") == 1.0
    assert math("2", answer=None, solution="2", ground_truth="3") == 1.0
    assert math("3", ground_truth="3") == 1.0


def test_without_a_reference_it_does_not_apply() -> None:
    assert math("42", answer=None) is None
    sample = Sample("q", (Message("assistant", "42"),), (), {"answer": None})
    with Scorer(["math"], columns=["answer"], timeout_seconds=20, workers=1) as scorer:
        (score,) = scorer.score([sample])
    assert score.total is None and not score.failed and score.parts == {"math": None}


def test_an_expression_of_the_task_is_no_result() -> None:
    prompt = "Expand $(x+1)^{2}$, and then simplify 6/8."
    for repeated, gold in ((r"\boxed{(1+x)(x+1)}", "x^2+2x+1"), (r"\boxed{\frac{6}{8}}", "3/4")):
        assert math(repeated, gold) == 1.0
        assert math(repeated, gold, prompt=prompt) == 0.0
        assert math(gold, gold, prompt=prompt) == math(repeated, repeated[7:-1], prompt=prompt) == 1.0
    samples = [
        Sample(prompt, (Message("assistant", text),), (), {"answer": "x^2+2x+1"}) for text in ("(x+1)^2", "2x+x^2+1")
    ]
    with Scorer(["math"], columns=["answer"], timeout_seconds=20, workers=1) as scorer:
        assert [score.total for score in scorer.score(samples)] == [0.0, 1.0]


def test_a_reference_may_give_its_answer_in_several_forms() -> None:
    solution = r"So it is $\boxed 7\text{ cm}$, or $\boxed{}$ is $\boxed{7\,\mathrm{cm}}$.\n#### 7"
    assert math("7", solution) == math("7cm", solution) == 1.0
    assert math("7 m", solution) == 0.0
    for unreadable in (r"put it into \boxed", r"\boxed{\phantom{0}}"):
        with pytest.raises(ValueError, match="cannot be parsed"):
            math("7", unreadable)


def test_lenient_looks_at_the_last_answer_alone() -> None:
    assert math(r"\boxed{41} is wrong. It is \boxed{42}.", "42", lenient=True) == 1.0
    assert math(r"It is \boxed{41}. \boxed{42} is wrong.", "42", lenient=True) == 0.0


def test_functions_count_only_where_the_reference_has_them() -> None:
    assert math(r"\sin 1", r"\sin 1") == 1.0
    assert math(r"\sin 0", "0") == 0.0


def test_exact_values() -> None:
    assert parse_expression(r"3\frac{1}{2}")[0].value == parse_reference("7/2").value
    assert parse_expression(r"\sqrt[3]{-27}", ["root"])[0].value == -3
    assert parse_expression(r"\sqrt{2}")[0].value is None
    assert exact_root(parse_reference(str(10**40)).value or parse_reference("1").value, 4) == 10**10  # type: ignore[arg-type]
    with pytest.raises(NotLiteral, match="exponent is too large"):
        parse_expression("2^{1000000}")


def test_in_workers_a_pathological_answer_costs_its_own_score_only() -> None:
    towers = "x^{" * 12 + "9" + "}" * 12
    samples = [
        Sample("q", (Message("assistant", text),), (), {"answer": r"x^2+2x+1"}) for text in ("(x+1)^2", towers, "x^2")
    ]
    with Scorer(["math"], columns=["answer"], timeout_seconds=20, workers=1) as scorer:
        scores = scorer.score(samples)
    assert scores[0].total == 1.0
    assert scores[1].total in (0.0, None)
    assert scores[2].total == 0.0
