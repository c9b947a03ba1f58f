"""The math reward on two tables: answers that are the reference in another form, and answers that are wrong or gaming.

Every row names the public issue or test suite that its pair of reference and answer was taken from, or `own`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posttrain.rewards.math.reward import math
from tests.effort import effort

DATA = Path(__file__).parents[1] / "data"
RATIONALS = st.fractions(min_value=-(10**6), max_value=10**6, max_denominator=10**4)


def table(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / f"math_{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def accepted(rows: Sequence[dict[str, Any]], lenient: bool = False) -> list[dict[str, Any]]:
    return [row for row in rows if math(row["response"], row["gold"], prompt=row.get("prompt"), lenient=lenient)]


@pytest.mark.parametrize("name", ["equivalent", "wrong"])
def test_a_table_is_large_has_sources_and_repeats_nothing(name: str) -> None:
    rows = table(name)
    distinct = {(row["gold"], row["response"], row.get("prompt")) for row in rows}
    assert len(rows) >= 400 and len(distinct) == len(rows)
    public = [row for row in rows if row["source"] != "own"]
    assert len(public) >= 100
    assert all("/" in row["source"] and ("#" in row["source"] or " " in row["source"]) for row in public)


def test_the_strict_rates() -> None:
    equivalent, wrong = table("equivalent"), table("wrong")
    right, paid = accepted(equivalent), accepted(wrong)
    print(f"true positives {len(right)}/{len(equivalent)}, false positives {len(paid)}/{len(wrong)}")
    assert paid == []
    assert len(right) >= 0.99 * len(equivalent)


def test_lenient_pays_in_addition_for_the_last_of_several_answers_only() -> None:
    assert {row["kind"] for row in accepted(table("wrong"), lenient=True)} == {"several boxes"}
    assert len(accepted(table("equivalent"), lenient=True)) >= len(accepted(table("equivalent")))


def test_lenient_takes_the_last_in_the_order_of_the_text() -> None:
    assert math("#### 41\nNo: \\boxed{42}", "42", lenient=True) == 1.0
    assert math("\\boxed{42}\n#### 41", "42", lenient=True) == 0.0
    assert math("Answer: 41\n<answer>42</answer>", "42", lenient=True) == 1.0
    assert math("The answer is 42", "42", lenient=True) == 0.0


def renderings(value: Fraction) -> list[str]:
    """Ways to write a rational number that is no integer, or an integer."""
    n, d, sign = abs(value.numerator), value.denominator, "-" if value < 0 else ""
    if d == 1:
        return [f"{sign}{n}", f"{sign}{n:,}", f"{sign}{n}.0", f"x = {sign}{n}", f"$ {sign}{n} $"]
    forms = [f"{sign}{n}/{d}", rf"{sign}\frac{{{n}}}{{{d}}}", rf"\dfrac{{{sign}{n}}}{{{d}}}", f"{sign}{3 * n}/{3 * d}"]
    forms += [rf"{sign}{n // d}\frac{{{n % d}}}{{{d}}}"] if n > d else []
    if 10**6 % d == 0:
        forms += [f"{sign}{n * (10**6 // d) // 10**6}.{n * (10**6 // d) % 10**6:06d}"]
    return forms


@settings(max_examples=150, deadline=None)
@given(value=RATIONALS, other=RATIONALS, data=st.data())
def test_a_rational_is_accepted_in_every_form_and_no_other_one_is(
    value: Fraction, other: Fraction, data: st.DataObject
) -> None:
    gold = data.draw(st.sampled_from(renderings(value)))
    for form in renderings(value):
        assert math(rf"\boxed{{{form}}}", gold) == 1.0, form
    if value != other:
        near = abs(value - other) * 10**9 <= max(abs(value), abs(other))  # what the rule takes for a decimal's rounding
        for form in renderings(other):
            assert near or math(rf"\boxed{{{form}}}", gold) == 0.0, form


SYMBOLS = st.recursive(
    st.sampled_from(["x", "y", r"\pi"]) | st.integers(2, 9).map(str),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda pair: rf"\frac{{{pair[0]}}}{{x+{pair[1]}}}"),
        inner.map(lambda term: rf"\sqrt{{y^2+x\left({term}\right)}}"),
        st.tuples(inner, inner).map(lambda pair: rf"x\left({pair[0]}\right)+y\left({pair[1]}\right)"),
    ),
    max_leaves=5,
)


@settings(max_examples=100, deadline=None)
@given(expression=SYMBOLS)
def test_a_symbolic_answer_equals_itself_rearranged_and_not_itself_changed(expression: str) -> None:
    gold = f"z+{expression}"
    assert math(rf"\boxed{{{expression}+z}}", gold) == 1.0
    assert math(rf"\boxed{{\frac{{2z+2\left({expression}\right)}}{{z}}\cdot\frac{{z}}{{w}}}}", gold) == 0.0
    for change in (f"{expression}-z", f"{expression}+2z", rf"{expression}+z+\pi", f"z({expression})"):
        assert math(rf"\boxed{{{change}}}", gold) == 0.0, change


@settings(max_examples=300, deadline=None)
@given(text=st.text(alphabet="x12.,()[]{}\\$^_/+-=! <>|%:;fracsqtboxedpim&\n", max_size=80))
def test_garbage_is_scored_and_quickly(text: str) -> None:
    assert math(rf"\boxed{{{text}}}", "17/31") == 0.0
    assert math(text, r"x^2+\sqrt{17}") == 0.0


@pytest.mark.parametrize(
    "response",
    [
        "9" * 10**6,
        r"\boxed{1}" * 10**5,
        "".join(rf"\boxed{{{i}}}" for i in range(50_000)),
        r"\boxed{" * 10**5,
        "<answer>" * 10**5,
        "<answer>" * 50_000 + "</answer>" * 50_000,
        "not" + " " * 10**6,
        "answer:\n" * 10**5,
        "the" + " " * 10**6,
        "#" * 10**6,
        "\\" * 10**6,
        r"\boxed{" + "(" * 240 + "1,2" + "),1" * 60 + "}",
        r"\boxed{e^{e^{x^{9000}}}}",
        r"\boxed{x!!!!!!!!}",
        r"\boxed{\sin (x^{9999})}",
        r"\boxed{" + "x^{9999}" * 60 + "}",
        r"\boxed{" + r"x\pm " * 90 + "x}",
        r"\boxed{5\text{" + "a " * 240 + "}",
    ],
    ids=lambda response: response[:20].encode("unicode_escape").decode(),
)
@pytest.mark.parametrize("reference", ["42", r"x^2+\sqrt{17}"])
def test_a_hostile_response_is_refused_in_bounded_time(response: str, reference: str) -> None:
    math("y", reference)  # imports

    def refuse() -> None:
        assert math(response, reference) == 0.0

    assert effort(refuse) < 1000
