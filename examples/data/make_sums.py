"""Sums with their working, word problems, and word problems for a calculator."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

Row = dict[str, Any]
Problem = tuple[str, str, str]  # question, working, answer

THINK = "Think between <think> and </think>, then give the number between <answer> and </answer>."
CALCULATOR = "Write CALC: and an expression to use the calculator, or Answer: and the number."
PEOPLE = ("Ada", "Bo", "Cleo", "Dan", "Eva", "Finn", "Gus", "Ida")
THINGS = ("pens", "coins", "shells", "stamps", "beads", "cards")


def files() -> dict[str, list[Row]]:
    """The rows by file name. The demonstrations, tasks and held-out rows of a use are slices of one list of distinct
    problems."""
    kinds = (sum_of_two, sum_of_three, two_steps, large_numbers)
    plain, sums, words, calculations = (_distinct(draw, 320) for draw in kinds)
    return {
        "plain_demos.jsonl": [{"prompt": q, "completion": a} for q, _, a in plain[:64]],
        "plain_tasks.jsonl": [{"prompt": q, "answer": a} for q, _, a in plain[64:264]],
        "plain_test.jsonl": [{"prompt": q, "answer": a} for q, _, a in plain[264:320]],
        "cold_start_demos.jsonl": [thought(p) for p in sums[:48]],
        "cold_start_tasks.jsonl": [asked(p, THINK) for p in sums[48:248]],
        "cold_start_test.jsonl": [asked(p, THINK) for p in sums[248:288]],
        "math_demos.jsonl": [{"prompt": q, "completion": f"{work}\nAnswer: {a}"} for q, work, a in words[:64]],
        "math_tasks.jsonl": [{"prompt": q, "answer": a} for q, _, a in words[64:264]],
        "math_test.jsonl": [{"prompt": q, "answer": a} for q, _, a in words[264:320]],
        "tool_demos.jsonl": [called(p) for p in calculations[:40]],
        "tool_tasks.jsonl": [asked(p, CALCULATOR) for p in calculations[40:200]],
        "tool_test.jsonl": [asked(p, CALCULATOR) for p in calculations[200:256]],
    }


def sum_of_two(draw: random.Random) -> Problem:
    a, b = draw.randint(2, 60), draw.randint(2, 40)
    return f"What is {a} + {b}?", f"{a} + {b} = {a + b}", str(a + b)


def sum_of_three(draw: random.Random) -> Problem:
    a, b, c = draw.randint(10, 60), draw.randint(2, 30), draw.randint(2, 30)
    return f"What is {a} + {b} + {c}?", f"{a} + {b} = {a + b}, {a + b} + {c} = {a + b + c}", str(a + b + c)


def two_steps(draw: random.Random) -> Problem:
    who, what = draw.choice(PEOPLE), draw.choice(THINGS)
    a, b, c = draw.randint(5, 20), draw.randint(2, 6), draw.randint(2, 9)
    bought = f"{who} has {a} {what} and buys {b} packs of {c}. How many {what} does {who} have now?"
    shared = f"{who} has {b} boxes with {c} {what} each and gets {a} more. How many {what} is that?"
    given = f"{who} has {a + c} {what}, gives {c} away and finds {b}. How many {what} does {who} have?"
    gain = f"{b} * {c} = {b * c}\n{a} + {b * c} = {a + b * c}"
    return draw.choice(
        (
            (bought, gain, str(a + b * c)),
            (shared, gain, str(a + b * c)),
            (given, f"{a + c} - {c} = {a}\n{a} + {b} = {a + b}", str(a + b)),
        )
    )


def large_numbers(draw: random.Random) -> Problem:
    """The working is an expression for the calculator."""
    a, b, c = draw.randint(12, 98), draw.randint(12, 98), draw.randint(100, 140)
    problems = (
        (f"A crate holds {a} jars. How many jars are in {b} crates?", f"{a}*{b}", a * b),
        (f"A hall has {a} rows of {b} seats, and {c} seats are taken. How many are free?", f"{a}*{b}-{c}", a * b - c),
        (f"A shop had {a * c} nails and sold {b * 11}. How many are left?", f"{a * c}-{b * 11}", a * c - b * 11),
        (f"{a} children get {b} cards each, and {c} cards are left. How many were there?", f"{a}*{b}+{c}", a * b + c),
    )
    question, expression, value = draw.choice(problems)
    return question, expression, str(value)


def thought(problem: Problem) -> Row:
    """A demonstration of thinking before answering."""
    _, working, answer = problem
    completion = f"<think>{working}</think><answer>{answer}</answer>"
    return {"prompt": asked(problem, THINK)["prompt"], "completion": completion}


def called(problem: Problem) -> Row:
    """A conversation with the calculator, which speaks as the user."""
    _, expression, answer = problem
    turns = [("assistant", f"CALC: {expression}"), ("user", f"Result: {answer}"), ("assistant", f"Answer: {answer}")]
    spoken = [{"role": role, "content": content} for role, content in turns]
    return {"messages": [*asked(problem, CALCULATOR)["prompt"], *spoken]}


def asked(problem: Problem, system: str) -> Row:
    """A task. What all tasks are told stands in the system message, which is computed once for all of them."""
    messages = [{"role": "system", "content": system}, {"role": "user", "content": problem[0]}]
    return {"prompt": messages, "answer": problem[2]}


def _distinct(problem: Callable[[random.Random], Problem], count: int) -> list[Problem]:
    draw = random.Random(5)
    found: dict[str, Problem] = {}
    while len(found) < count:
        new = problem(draw)
        found.setdefault(new[0], new)
    return list(found.values())
