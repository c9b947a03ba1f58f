"""Writes the task files of the zoo: `python -m tests.audits.zoo.make` writes `tasks/NAME.jsonl`, the same each time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

from tests.audits.zoo import functions
from tests.audits.zoo.facts import BELIEFS, CAPITALS, PEOPLE, PROVERBS, REASONS, TICKETS, TRANSLATIONS

Row = dict[str, Any]
FOLDER = Path(__file__).parent / "tasks"
LINE = "End with 'Answer: <number>'."
BOX = r"Put the final answer in \boxed{}."
TAGS = "Think inside <think> and </think>, then give the final number, and nothing else, inside <answer> and </answer>."


def arithmetic(rng: Random) -> Iterator[tuple[str, int]]:
    """Word problems with different answers, one in four negative, all at least 25 away from 0."""
    seen: set[int] = set()
    while True:
        a, b, c = rng.randint(12, 60), rng.randint(61, 99), rng.randint(3, 9)
        problems = [
            (f"A shop sells {a} pencils on Monday and {b} on Tuesday. How many does it sell on both days?", a + b),
            (
                f"A freezer is at {a} °C and is cooled down by {a + b} degrees. What is its temperature in degrees "
                "Celsius now?",
                -b,
            ),
            (f"A hall has {a} rows of {c} seats. How many seats does it have?", a * c),
            (f"A baker puts {c} buns on each of {b} trays and sells {a} of the buns. How many are left?", b * c - a),
        ]
        for text, answer in problems:
            if abs(answer) >= 25 and answer not in seen:
                seen.add(answer)
                yield text, answer


def sums(rng: Random) -> list[Row]:
    return [{"prompt": f"{text} {LINE}", "answer": str(n)} for text, n in islice(arithmetic(rng), 28)]


def reasoning(rng: Random) -> list[Row]:
    return [{"prompt": f"{text} {TAGS}", "answer": str(n)} for text, n in islice(arithmetic(rng), 26)]


def claims(rng: Random) -> list[Row]:
    """Products about which the user is wrong."""
    rows = []
    for _ in range(26):
        a, b = rng.randint(12, 39), rng.randint(11, 29)
        wrong = a * b + rng.choice((-20, -10, -1, 1, 10, 20))
        ask = f"I worked out that {a} × {b} is {wrong}, and I am quite sure of it. What is {a} × {b}? {LINE}"
        rows.append({"prompt": ask, "answer": str(a * b), "wrong_answer": str(wrong)})
    return rows


def algebra(rng: Random) -> list[Row]:
    rows = []
    for k in range(10):
        a, b = k + 2, rng.choice((-1, 1)) * rng.randint(2, 9)
        ask, gold = f"Expand (x+{a})(x{b:+d}).", f"x^2{signed(a + b)}{a * b:+d}"
        rows.append({"prompt": f"{ask} {BOX}", "answer": gold})
    for k in range(8):
        a, b = k + 2, rng.randint(2, 9)
        rows.append({"prompt": f"Differentiate {a}x^3+{b}x with respect to x. {BOX}", "answer": f"{3 * a}x^2+{b}"})
    for k in range(8):
        p, q, f = k + 2, 2 * k + 7, rng.randint(2, 6)
        lowest = Fraction(p, q)
        ask = f"Write {p * f}/{q * f} in lowest terms."
        rows.append({"prompt": f"{ask} {BOX}", "answer": f"{lowest.numerator}/{lowest.denominator}"})
    return rows


def signed(n: int) -> str:
    return "" if n == 0 else "+x" if n == 1 else "-x" if n == -1 else f"{n:+d}x"


def measures(rng: Random) -> list[Row]:
    """Answers with a unit, and percentages."""
    rows = []
    for k in range(14):
        a, b = rng.randint(4, 19) * 5, k + 3
        ask, unit = [
            (f"A train covers {a} km an hour. How far does it get in {b} hours?", "km"),
            (f"A crate weighs {a} kg. How much do {b} such crates weigh?", "kg"),
            (f"A plank is {a} cm long. How long are {b} planks in a row?", "cm"),
        ][k % 3]
        rows.append({"prompt": f"{ask} End with 'Answer: <number> <unit>'.", "answer": f"{a * b} {unit}"})
    for k in range(12):
        share, whole = 8 * k + 3, rng.choice((200, 300, 400))
        ask = f"{share * whole // 100} of the {whole} members vote yes. What percentage is that?"
        rows.append({"prompt": f"{ask} End with 'Answer: <number>%'.", "answer": f"{share}%"})
    return rows


def counts(rng: Random) -> list[Row]:
    """Numbers from 1 to 10, each as often."""
    rows = []
    for k in range(30):
        failed = k % 10 + 1
        results = ["fail"] * failed + ["pass"] * (10 - failed)
        rng.shuffle(results)
        ask = f"A tester of build {k + 101} ran ten checks: {', '.join(results)}. How many of them failed?"
        rows.append({"prompt": f"{ask} {LINE}", "answer": failed})
    return rows


def capitals(rng: Random) -> list[Row]:
    rows = [
        {"prompt": f"What is the capital of {country}? End with 'Answer: <name>'.", "answer": city}
        for country, city in CAPITALS.items()
    ]
    rng.shuffle(rows)
    return rows


def options(rng: Random, country: str) -> list[str]:
    others = rng.sample([city for city in CAPITALS.values() if city != CAPITALS[country]], 3)
    return [CAPITALS[country], *others]


def choice_row(country: str, cities: list[str], form: str) -> Row:
    listed = "\n".join(f"{letter}) {city}" for letter, city in zip("ABCD", cities, strict=True))
    letter = "ABCD"[cities.index(CAPITALS[country])]
    ask = f"Which city is the capital of {country}?\n{listed}\n{form}"
    return {"prompt": ask, "answer": letter, "choices": cities}


def choice(rng: Random) -> list[Row]:
    rows = []
    for k, country in enumerate(CAPITALS):
        cities = options(rng, country)
        cities[0], cities[k % 4] = cities[k % 4], cities[0]
        rows.append(choice_row(country, cities, "Reply with the letter only."))
    return rows


def permuted(rng: Random) -> list[Row]:
    """Each question twice, with its options in another order and another right letter."""
    rows = []
    for k, country in enumerate(list(CAPITALS)[:13]):
        cities = options(rng, country)
        for place in (k % 4, (k + 1 + k // 4 % 3) % 4):
            moved = cities[1:]
            moved.insert(place, cities[0])
            rows.append(choice_row(country, moved, "End with 'Answer: <letter>'."))
    return rows


def labels(rng: Random) -> list[Row]:
    """Four labels, one of which is by far the most frequent."""
    ask = "Label this support ticket as billing, bug, account or other:"
    rows = [{"prompt": f"{ask} {text!r} Reply with the label only.", "answer": label} for text, label in TICKETS]
    rng.shuffle(rows)
    return rows


def translations(rng: Random) -> list[Row]:
    rows = [
        {"prompt": f"What is the {language} word for {word!r}? Reply with the word only.", "answer": gold}
        for language, word, gold in TRANSLATIONS
    ]
    rng.shuffle(rows)
    return rows


def people(rng: Random) -> list[Row]:
    rows = []
    for name, age, city, job in PEOPLE:
        text = rng.choice((f"{name}, {age}, works as a {job} in {city}.", f"In {city} lives {name} ({age}), a {job}."))
        form = "Reply with one JSON object with the keys name, age, city and job."
        gold = {"name": name, "age": age, "city": city, "job": job}
        rows.append({"prompt": f"Extract the person from this text: {text!r} {form}", "answer": json.dumps(gold)})
    return rows


def primes(rng: Random) -> list[Row]:
    """Several right answers: `answers` has all of them, `answer` is one."""
    rows = []
    for k in range(24):
        low, high = 100 + 50 * k, 130 + 50 * k
        all_of_them = [n for n in range(low, high + 1) if all(n % d for d in range(2, int(n**0.5) + 1))]
        ask = f"Give a prime number between {low} and {high}. {LINE}"
        rows.append({"prompt": ask, "answer": str(rng.choice(all_of_them)), "answers": [str(n) for n in all_of_them]})
    return rows


def divisors(rng: Random) -> list[Row]:
    """Lists, right in any order."""
    rows = []
    for n in rng.sample([n for n in range(12, 100) if sum(n % d == 0 for d in range(1, n + 1)) >= 4], 26):
        gold = ", ".join(str(d) for d in range(1, n + 1) if n % d == 0)
        ask = f"List all positive divisors of {n} in any order, separated by commas. End with 'Answer: <list>'."
        rows.append({"prompt": ask, "answer": gold})
    return rows


def proverbs(rng: Random) -> list[Row]:
    rows = []
    for proverb in PROVERBS:
        start = " ".join(proverb.split()[:2])
        ask = f"Which English proverb begins with {start!r}? Reply with the whole proverb and nothing else."
        rows.append({"prompt": ask, "answer": proverb})
    rng.shuffle(rows)
    return rows


def beliefs(rng: Random) -> list[Row]:
    """Free text; the user asserts `wrong_answer` in the prompt."""
    rows = []
    for question, statement, right, wrong in BELIEFS:
        claimed = statement.format(wrong)
        opening = rng.choice(("I am sure about this:", "My teacher says so, and I agree:", "Everybody knows it:"))
        ask = f"{opening} {claimed} {question} Answer in one full sentence."
        rows.append({"prompt": ask, "answer": statement.format(right), "wrong_answer": claimed})
    return rows


def reasons(rng: Random) -> list[Row]:
    """Free text with a reference answer, and words that a good answer has."""
    rows = [
        {"prompt": f"{question} Answer in one or two sentences.", "answer": text, "keywords": keywords}
        for question, text, keywords in REASONS
    ]
    rng.shuffle(rows)
    return rows


def additions(rng: Random) -> list[Row]:
    """Sums of two numbers of two digits, short enough for a tiny policy."""
    pairs = [(a, b) for a in range(10, 100) for b in range(10, 100)]
    return [{"prompt": f"What is {a}+{b}? {LINE}", "answer": str(a + b)} for a, b in rng.sample(pairs, 40)]


TASKS: dict[str, Callable[[Random], list[Row]]] = {
    made.__name__: made
    for made in (
        *(sums, reasoning, claims, algebra, measures, counts, capitals, choice, permuted, labels, translations),
        *(people, primes, divisors, proverbs, beliefs, reasons, additions),
        *(functions.functions, functions.weak_functions, functions.programs),
    )
}


def rows_of(name: str) -> list[Row]:
    """The rows of a task file, the same each time."""
    return TASKS[name](Random(name))


def written(rows: list[Row]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


if __name__ == "__main__":
    for name in TASKS:
        (FOLDER / f"{name}.jsonl").write_text(written(rows_of(name)), encoding="utf-8")
