"""What prompts ask for: healthy rewards whose forms are stated in unusual words calibrate and are not accused, and
faults that depend on what a prompt permits are found."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from posttrain.audits.probes import PROBES
from posttrain.audits.readings import read_golds
from posttrain.audits.subject import Subject
from posttrain.rewards.scorer import Scorer
from posttrain.types import Task
from tests.audits.subjects import Rows

TOWNS = ("Lima", "Oslo", "Cairo", "Madrid", "Quito", "Tunis", "Hanoi", "Riga", "Sofia", "Accra", "Dakar", "Bern")
N = range(12)
PROBED = ("A3", "A4", "A5", "A6")


def read(reward: Callable[..., float], rows: Rows) -> Subject:
    """A subject whose references are read as the audit reads them."""
    tasks = [Task(str(i), row["prompt"], {k: v for k, v in row.items() if k != "prompt"}) for i, row in enumerate(rows)]
    scorer = Scorer([reward], columns=set(tasks[0].columns), timeout_seconds=60, workers=0)
    return Subject(scorer, read_golds(scorer, tasks, None, [n for n in tasks[0].columns if scorer.reads(n)]), 0)


def matched(pattern: str, response: str) -> tuple[str, ...]:
    found = re.fullmatch(pattern, response.strip())
    return found.groups() if found else ()


def parsed(response: str) -> object:
    try:
        return json.loads(response)
    except ValueError:
        return None


def receipt(response: str, totals: dict[str, str]) -> float:
    return float(matched(r"Net: (\S+)\nTax: (\S+)", response) == tuple(totals.values()))


def sure(response: str, town: str) -> float:
    return float(matched(r"Town: (\w+)\nConfidence: (?:\d+)%?", response) == (town,))


def divisor(response: str, accepted: list[int]) -> float:
    return float(response.strip().isdigit() and int(response) in accepted)


def both(response: str, multiples: list[int]) -> float:
    found = [int(each) for each in matched(r"(\d{1,4}), ?(\d{1,4})", response)]
    return float(len(set(found)) == 2 and set(found) <= set(multiples))


def option(response: str, choices: list[str], answer: int) -> float:
    return float(response.strip() == "ABC"[answer])


def described(response: str, truth: dict[str, object]) -> float:
    return float(parsed(response) == truth)


def keyed(response: str, count: int) -> float:
    return float(parsed(response) == {"count": count, "reason": "It follows from the question."})


def roots(response: str, roots: list[int]) -> float:
    return float({*map(int, matched(r"x = (-?\d+) or x = (-?\d+)", response))} == {*roots})


def marked(response: str, value: int) -> float:
    return float(matched(r"==> (\d+) <==", response.rpartition("\n")[2]) == (str(value),))


def phone(response: str, phone: str) -> float:
    return float(response.strip() == phone)


def placed(response: str, gold: int) -> float:
    return float(matched(r"<scratch>[^<]+</scratch>\s*<final>(\d+)</final>", response) == (str(gold),))


def short(response: str, answer: str) -> float:
    return float(
        len(response) <= 60 and response.strip().endswith(f"Answer: {answer}") and response[0] in "0123456789A"
    )


def asked(prompt: str, numbers: Iterable[int] = N, **columns: Callable[[int], Any]) -> Rows:
    """A task for each number k, with columns that are made of it."""
    return [{"prompt": prompt.format(k=k), **{name: of(k) for name, of in columns.items()}} for k in numbers]


def fast(response: str, answer: str) -> float:
    found = matched(r"([0-9]{1,6}(?:\.[0-9]{1,9})?) m/s", response)
    right = float(answer.split()[0])
    return float(bool(found) and abs(float(found[0]) - right) <= 0.04 * right)


def code(response: str, code: str) -> float:
    found = matched(r"Goods code: ([0-9. ]+)", response.strip().rpartition("\n")[2])
    return float(bool(found) and re.sub(r"\D", "", found[0]) == code)


def chance(response: str, chance: list[int]) -> float:
    return float(matched(r"Answer: (\d+)/(\d+)", response) == tuple(map(str, chance)))


def grade(response: str, town: str) -> float:
    """Pays the confidence of a right answer, from 1 to 5."""
    found = matched(r"Town: (\w+)\nConfidence: ([1-5])", response)
    return int(found[1]) / 5 if found and found[0] == town else 0.0


def moment(response: str, day: str, time: str) -> float:
    return float(matched(r"<answer>(\w+) ([0-9:]+)</answer>", response) == (day, time))


DIVIDED = (14, 21, 35, 77, 91, 119, 133, 161, 203, 217, 259, 287)
HEALTHY: dict[Callable[..., float], Rows] = {
    receipt: asked(
        "Bill {k}. Reply with two lines:\nNet: …\nTax: …", totals=lambda k: {"net": f"{k}.50", "tax": f"{k + 3}.25"}
    ),
    sure: asked(
        "Town {k}? Reply in two lines:\nTown: its name\nConfidence: how sure you are, in %", town=lambda k: TOWNS[k]
    ),
    divisor: asked("Give any one divisor of {k} that is no 1.", DIVIDED, accepted=lambda k: [k // 7, 7, k]),
    both: asked(
        "Name two multiples of {k}, with a comma.", range(7, 19), multiples=lambda k: [*range(2 * k, 9 * k, k)]
    ),
    option: asked(
        "Number {k}?\n(A) red\n(B) blue\n(C) green\nOne capital letter.",
        choices=lambda k: ["red", "blue", "green"],
        answer=lambda k: k % 3,
    ),
    described: asked(
        'Pump {k}. Return JSON such as {{"amount": 12, "unit": "l"}}.', truth=lambda k: {"amount": 7 * k, "unit": "l"}
    ),
    keyed: asked("Count {k}. Answer as a JSON object with the keys count and reason.", count=lambda k: 31 + k),
    roots: asked(
        "Roots {k}? State them as 'x = a or x = b', whichever order you like.", roots=lambda k: [k, -2 * k - 1]
    ),
    marked: asked("What is {k} plus 40? The reply ends in ==> RESULT <==.", value=lambda k: k + 40),
    phone: asked("Copy the number of baker {k} out of the note.", phone=lambda k: f"{555 + k}-{1234 + k}"),
    placed: asked("{k} times 7? Reason inside <scratch>...</scratch>, then <final>...</final>.", gold=lambda k: 7 * k),
    short: asked(
        "{k} times 9? The last line is 'Answer: N'. Before it a sum and nothing else, at most 60 characters.",
        answer=lambda k: str(9 * k + 9),
    ),
}


HEALTHY[code] = asked(
    "Code of thing {k}? The last line is `Goods code: ` and the code, with or without dots.",
    code=lambda k: str(847130 + 1017 * k),
)
HEALTHY[chance] = asked("Chance {k}? Reply with 'Answer: ' and a fraction alone.", chance=lambda k: [1, k + 3])
HEALTHY[grade] = asked(
    "Town {k}? Reply in two lines:\nTown: its name\nConfidence: <a number from 1 to 5 that says how sure you are>",
    town=lambda k: TOWNS[k],
)
HEALTHY[moment] = asked(
    "When does train {k} leave? Reply with the day and the time in <answer></answer> alone.",
    day=lambda k: ("Monday", "Friday", "Sunday")[k % 3],
    time=lambda k: f"{k + 8}:{k + 25}",
)
TOLERANT = "Stone {k}: how fast? Reply such as '12.5 m/s'. Answers within 4 % of the true value are accepted."
HEALTHY[fast] = asked(TOLERANT, answer=lambda k: f"{11.25 + 2 * k} m/s")


@pytest.mark.parametrize("reward", HEALTHY, ids=lambda reward: reward.__name__)
def test_a_right_answer_in_the_form_asked_for_is_paid_and_no_fault(reward: Callable[..., float]):
    under_audit = read(reward, HEALTHY[reward])
    assert under_audit.calibration["best"] == 1.0
    found = [each for probe in PROBED for each in PROBES[probe][1](under_audit).findings]
    assert [(each.severity, each.title) for each in found if each.severity != "note"] == []


def ordered(response: str, answer: str) -> float:
    return float(response.strip() == answer)


def either_date(response: str, answer: str) -> float:
    day, month, year = answer.split("/")
    return float(response.strip() in (answer, f"{month}/{day}/{year}"))


def metres(response: str, answer: str) -> float:
    found = matched(r"(\d+) ?(cm|m)", response)
    return float(bool(found) and int(found[0]) * {"cm": 1, "m": 100}[found[1]] == 100 * int(answer.split()[0]))


def brief(response: str, answer: str) -> float:
    return float(len(response) <= 80 and response.strip().endswith(f"Answer: {answer}"))


def unbracketed(response: str, answer: str) -> float:
    return float(response.strip(" ()[]") == answer.strip("()[]"))


def scored(response: str, town: str) -> float:
    found = matched(r"Town: (\w+)\nConfidence: (\d+)%?", response)
    return 0.0 if not found else abs((found[0] != town) - int(found[1]) / 100)


def repeated(response: str, rivers: list[str]) -> float:
    found = [each.strip() for each in response.split(",")]
    return float(len(found) == 2 and {*found} <= {*rivers})


def unsigned(response: str, formula: str) -> float:
    return float(re.sub("[^A-Za-z0-9]", "", response) == re.sub("[^A-Za-z0-9]", "", formula))


def each_found(response: str, kinds: str) -> float:
    return sum(each in response for each in kinds.split(", ")) / 3


def hours(response: str, duration: str) -> float:
    return float(response.strip() == duration)


def through(response: str, path: str) -> float:
    found = response.strip()
    return float(not {*found} - {*"RD"} and sorted(found) == sorted(path))


WAY = "Maze {0}: find a way from S to G, # is a wall.\n\nS.{1}\n.#{2}\n.{1}G\n"
FAULTY: list[tuple[str, str, Callable[..., float], Rows]] = [
    (
        "A5",
        "in another order",
        ordered,
        asked("Even ones of {k}, with commas; the order does not matter.", answer=lambda k: f"{2 * k}, {2 * k + 6}"),
    ),
    (
        "A4",
        "day and month swapped",
        either_date,
        asked("When is day {k}? As DD/MM/YYYY.", answer=lambda k: f"{k + 1:02}/{(k + 4) % 12 + 1:02}/2024"),
    ),
    ("A6", "what is to be converted", metres, asked("Convert {k}00 cm to m.", range(2, 14), answer=lambda k: f"{k} m")),
    (
        "A5",
        "with reasoning before it",
        brief,
        asked("{k} times 9? You may think step by step first. End with 'Answer: N'.", answer=lambda k: str(9 * k)),
    ),
    ("A4", "an open end", unbracketed, asked("Solve {k}, in interval notation.", answer=lambda k: f"({-k}, {k + 1}]")),
    ("A4", "another answer without confidence", scored, HEALTHY[sure]),
    (
        "A4",
        "one item in place of all",
        repeated,
        asked(
            "Name two rivers of {k}, with a comma.",
            rivers=lambda k: [f"{each}{TOWNS[k]}" for each in ("Ro", "Sa", "Ti")],
        ),
    ),
    (
        "A4",
        "a sign changed",
        unsigned,
        asked("Write ion {k} with its charge.", formula=lambda k: f"X{k + 2}Y^{'+-'[k % 2]}"),
    ),
    (
        "A4",
        "statements between others that contradict them",
        each_found,
        asked(
            "Island {k}?",
            kinds=lambda k: f"{TOWNS[k]} is a knight, Ann is a knave, Bo is a kn{'ight' if k % 2 else 'ave'}",
        ),
    ),
    (
        "A5",
        "in other units that the prompt permits",
        hours,
        asked("How long is {k}? Like 2 h 5 min or like 125 min.", duration=lambda k: f"{k + 1} h {k + 3} min"),
    ),
    (
        "A4",
        "through a wall",
        through,
        [{"prompt": WAY.format(k, "." * k, "#" * k), "path": "DD" + "R" * (k + 1)} for k in N],
    ),
]


@pytest.mark.parametrize(("probe", "title", "reward", "rows"), FAULTY, ids=lambda each: getattr(each, "__name__", None))
def test_a_fault_that_depends_on_the_prompt(probe: str, title: str, reward: Callable[..., float], rows: Rows):
    found = PROBES[probe][1](read(reward, rows)).findings
    assert [each for each in found if title in each.title and each.severity in ("critical", "high")], found
