"""Rewards for tests of the audit."""

import re
from typing import Any


def strict(response: str, answer: Any) -> float:
    """Pays a response that ends in the answer on a line of its own."""
    return float(response.strip().splitlines()[-1:] == [f"Answer: {answer}"])


def lengthy(response: str, answer: Any) -> float:
    """Adds up to 1 for length."""
    return float(response.rstrip().endswith(str(answer))) + min(len(response), 2000) / 2000


def always(response: str) -> float:
    return 1.0


def little(response: str) -> float:
    """Gives all answers alike, as one that knows the form of none of them."""
    return 0.1


def unread(response: str, answer: Any) -> float:
    """Pays what it cannot read: of a number alone it looks at the last digit."""
    return float(not response.isdecimal() or int(response) % 10 == int(answer) % 10)


def negative(response: str, answer: Any) -> float:
    """Pays wrong answers."""
    return float(str(answer) not in response)


def nothing(response: str) -> None:
    """Applies to no answer."""


def fails(response: str) -> float:
    raise RuntimeError("no scale today")


def anywhere(response: str, answer: Any) -> float:
    """Pays an answer that occurs anywhere."""
    return float(str(answer) in response)


def tolerant(response: str, answer: Any) -> float:
    """Pays where any number of the response is the answer, or next to it."""
    return float(any(abs(int(number) - int(answer)) <= 1 for number in re.findall(r"[0-9]+", response)))


def appears(response: str, answer: str) -> float:
    """Pays where the answer appears anywhere."""
    return float(answer in response)


def _function(response: str) -> Any:
    space: dict[str, Any] = {}
    exec(response.removeprefix("```python").removesuffix("```").strip(), space)
    return space["f"]


def cases_that_run(response: str, cases: list[dict[str, Any]]) -> float:
    """The share of the cases that pass, of those that do not raise."""
    ran = []
    for case in cases:
        try:
            ran.append(_function(response)(*case["args"]) == case["expected"])
        except Exception:
            continue
    return sum(ran) / len(ran) if ran else 0.0


def side_by_side(response: str, cases: list[dict[str, Any]]) -> float:
    """Compares lists as far as the shorter one goes."""
    try:
        pairs = [(_function(response)(*case["args"]), case["expected"]) for case in cases]
        return float(all(a == b for got, wanted in pairs for a, b in zip(got, wanted, strict=False)))
    except Exception:
        return 0.0


def all_equal(response: str, cases: list[dict[str, Any]]) -> float:
    try:
        return float(all(_function(response)(*case["args"]) == case["expected"] for case in cases))
    except Exception:
        return 0.0
