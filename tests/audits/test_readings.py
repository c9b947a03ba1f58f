"""Which columns hold the reference answers, how they are written, and in which form they are given: a reward that pays
a right answer calibrates, by the answer that a prompt asks for."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from posttrain.audits.golds import with_golds
from posttrain.audits.readings import read_golds
from posttrain.audits.subject import Subject
from posttrain.rewards.scorer import Scorer
from posttrain.types import InputError, Task
from tests.audits.subjects import Rows

N = range(6)
TOWNS = ("Lima", "Oslo", "Cairo", "Madrid", "Quito", "Tunis")


def read(reward: Callable[..., float], rows: Rows, column: str | None = None) -> Subject:
    tasks = [Task(str(i), row["prompt"], {k: v for k, v in row.items() if k != "prompt"}) for i, row in enumerate(rows)]
    scorer = Scorer([reward], columns=set(tasks[0].columns), timeout_seconds=60, workers=0)
    return Subject(scorer, read_golds(scorer, tasks, column, [n for n in tasks[0].columns if scorer.reads(n)]), 0)


def rows(prompt: str, **columns: Callable[[int], Any]) -> Rows:
    return [{"prompt": f"Task {k}. {prompt}", **{name: of(k) for name, of in columns.items()}} for k in N]


def found(pattern: str, response: str) -> tuple[str, ...]:
    match = re.fullmatch(pattern, response, re.DOTALL)
    return match.groups() if match else ()


def rule(response: str, accept: list[str]) -> float:
    try:
        return float(all(re.fullmatch(response, each) for each in accept))
    except re.error:
        return 0.0


def route(response: str, start: str, goal: str) -> float:
    towns = response.split(" -> ")
    return float(towns[0] == start and towns[-1] == goal and len(towns) == 3)


def stack(response: str, tests: list[int]) -> float:
    return float(response == f"a {tests[0]} +")


def amount(response: str, value: float, unit: str) -> float:
    return float(response == f"{value} {unit}")


def any_unit(response: str, value: float, units: dict[str, float]) -> float:
    number, unit = found(r"Answer: (\S+) (\w+)", response) or ("nan", "")
    return float(unit in units and float(number) * units.get(unit, 0) == value)


def when(response: str, day: str, time: str, limit: int) -> float:
    return float(response == f"<answer>{day} {time}</answer>" and len(response) < limit)


def quote(response: str, eur: float, service: str) -> float:
    try:
        return float(json.loads(response) == {"service": service, "eur": eur})
    except ValueError:
        return 0.0


def parts(response: str, solution: dict[str, float]) -> float:
    return float(response == "\n".join(f"({key}) {value}" for key, value in solution.items()))


def roles(response: str, roles: dict[str, str]) -> float:
    return float(response == "\n".join(f"{key} is a {value}" for key, value in roles.items()))


def chance(response: str, chance: list[int]) -> float:
    return float(response == f"{chance[0]}/{chance[1]}")


def cost(response: str, cost: float) -> float:
    return float(found(r"(?:.*\n)?Cost: (\S+)", response) == (str(cost),))


def query(response: str, sql: str) -> float:
    return float(found(r"```sql\n(.*)\n```", response) == (sql,))


def evidence(response: str, town: str) -> float:
    return float(bool(re.fullmatch(rf"Town: {town}\nEvidence: \d+", response)))


def speed(response: str, speed: int) -> float:
    return float(response == f"{speed} m/s")


def loud(response: str, town: str) -> float:
    return float(response == f"**{town}**")


def price(response: str, price: float) -> float:
    return float(response == f"Answer: {price:.2f}")


def share(response: str, share: float) -> float:
    return float(response == f"{100 * share:g}%")


def letter(response: str, options: list[str], town: str) -> float:
    return float(response == "ABCDEF"[options.index(town)])


def point(response: str, point: list[int]) -> float:
    return float(response == f"({point[0]}, {point[1]})")


def grid(response: str, rows: list[list[int]]) -> float:
    return float(response == "\n".join(" ".join(map(str, row)) for row in rows))


def nested(response: str, reward_model: dict[str, str]) -> float:
    return float(response == reward_model["ground_truth"])


def tagged(response: str, fields: dict[str, str]) -> float:
    return float(response == "\n".join(f"<{key}>{value}</{key}>" for key, value in fields.items()))


def listed(response: str, towns: str) -> float:
    return float(response == "\n".join(json.loads(towns)))


def triple(response: str, a: int, b: int, c: int) -> float:
    return float(response == f"{a}, {b}, {c}")


def tool(response: str, tool: str, arguments: dict[str, object]) -> float:
    return float(response == json.dumps({"name": tool, "arguments": arguments}))


def call(response: str, name: str, arguments: dict[str, object]) -> float:
    try:
        said = json.loads((found(r"<tool_call>(.*)</tool_call>", response) or ("",))[0])
    except ValueError:
        return 0.0
    return float(said == {"name": name, "arguments": arguments})


def chances(response: str, town: str) -> float:
    name, sure = found(r"Town: (\w+)\nConfidence: ([01]\.\d+)", response) or ("", "0")
    return 1 - (float(sure) - (name == town)) ** 2 if name else 0.0


def unit_fractions(response: str, chance: str) -> float:
    return float(bool(found(r"1/(\d+) \+ 1/(\d+)", response)))


KINDS: dict[Callable[..., float], tuple[Rows, str]] = {
    rule: (rows("A pattern.", accept=lambda k: [f"x{k}", f"xx{k}"], pattern=lambda k: f"x+{k}"), "x+0"),
    route: (
        rows(
            "A route such as 'Rome -> Bonn'.",
            roads=lambda k: [["a", "b"]],
            start=lambda k: TOWNS[k],
            goal=lambda k: TOWNS[k - 1],
            path=lambda k: [TOWNS[k], TOWNS[k - 2], TOWNS[k - 1]],
        ),
        "Lima -> Quito -> Tunis",
    ),
    stack: (rows("A program.", tests=lambda k: [k, 3], program=lambda k: f"a {k} +"), "a 0 +"),
    amount: (rows("The amount, such as '2.5 g'.", value=lambda k: k + 0.5, unit=lambda k: "gml"[k % 3]), "0.5 g"),
    any_unit: (
        rows(
            "End with 'Answer: <number> <unit>'.", value=lambda k: k + 4, units=lambda k: {"m": 1, "km": 1e3}, tol=float
        ),
        "4 m",
    ),
    when: (
        rows(
            "When? E.g. <answer>Friday 08:15</answer>.",
            day=lambda k: ("Monday", "Sunday")[k % 2],
            time=lambda k: f"0{k}:15",
            limit=lambda k: 90 + k,
        ),
        "Monday 00:15",
    ),
    quote: (
        rows('An object {"service": "Night", "eur": number}.', eur=lambda k: k + 9.5, service=lambda k: TOWNS[k]),
        '{"service": "Lima", "eur": 9.5}',
    ),
    parts: (rows("Lines '(a) number', '(b) number'.", solution=lambda k: {"a": k, "b": 2.5}), "(a) 0\n(b) 2.5"),
    roles: (
        rows("Lines such as 'Eve is a knave'.", roles=lambda k: {TOWNS[k]: "knight", "Bo": "knave"}),
        "Lima is a knight\nBo is a knave",
    ),
    chance: (rows("A fraction.", chance=lambda k: [k + 1, 12]), "1/12"),
    cost: (rows("Work may be shown; the last line is `Cost: ` and a number.", cost=lambda k: k + 1.5), "1.5"),
    query: (rows("A query in a ```sql block.", sql=lambda k: f"SELECT a{k} FROM b"), "SELECT a0 FROM b"),
    evidence: (rows("Two lines, `Town: NAME` and `Evidence: ` with numbers.", town=lambda k: TOWNS[k]), "Lima"),
    speed: (rows("How fast? For example 12.5 m/s.", speed=lambda k: k + 7), "7"),
    loud: (rows("The town in bold.", town=lambda k: TOWNS[k]), "Lima"),
    price: (rows("The price.", price=lambda k: k + 0.5), "0.50"),
    share: (rows("The share.", share=lambda k: (k + 1) / 8), "12.5%"),
    letter: (rows("One letter.", options=lambda k: [*TOWNS], town=lambda k: TOWNS[k]), "A"),
    point: (rows("The point.", point=lambda k: [k, 2]), "(0, 2)"),
    grid: (rows("The grid.", rows=lambda k: [[k, 2], [3, 4]]), "0 2\n3 4"),
    nested: (rows("Town?", reward_model=lambda k: {"style": "rule", "ground_truth": TOWNS[k]}), "Lima"),
    tagged: (
        rows("As <town>...</town> and <n>...</n>.", fields=lambda k: {"town": TOWNS[k], "n": k}),
        "<town>Lima</town>\n<n>0</n>",
    ),
    listed: (rows("One a line.", towns=lambda k: json.dumps([TOWNS[k], "Bern"])), "Lima\nBern"),
    triple: (rows("Three.", a=lambda k: k, b=lambda k: k + 1, c=lambda k: 5), "0, 1, 5"),
    unit_fractions: (
        rows("A sum, e.g. 1/2 + 1/5.", chance=lambda k: f"{k}/6", solution=lambda k: [k + 2, 9]),
        "1/2 + 1/9",
    ),
    tool: (
        rows(
            'As {"name": tool, "arguments": {...}}.',
            tool=lambda k: ("hotel", "train", "boat")[k % 3],
            arguments=lambda k: {"days": k},
        ),
        '{"name": "hotel", "arguments": {"days": 0}}',
    ),
    call: (
        rows(
            'As <tool_call>{"name": ..., "arguments": {"town": ..., "days": ...}}</tool_call>.',
            name=lambda k: ("hotel", "train", "boat")[k % 3],
            arguments=lambda k: {"town": TOWNS[k], "days": k},
        ),
        '{"name": "hotel", "arguments": {"town": "Lima", "days": 0}}',
    ),
    chances: (rows("Lines `Town: NAME`, `Confidence: p`, from 0 to 1.", town=lambda k: TOWNS[k]), "Lima"),
}


@pytest.mark.parametrize("reward", KINDS, ids=lambda reward: reward.__name__)
def test_the_answer_that_a_prompt_asks_for_is_read(reward: Callable[..., float]):
    of, gold = KINDS[reward]
    under_audit = read(reward, of)
    assert (under_audit.calibration["best"], under_audit.tasks[0].gold) == (1.0, gold)


def test_few_answers_are_graded_to_choose_a_reading():
    """A plain reference takes one look at it in each form, and columns that are not read none."""
    graded = 0

    def counting(response: str, answer: str) -> float:
        nonlocal graded
        graded += 1
        return float(response == answer)

    of = [{"prompt": "q", "answer": TOWNS[k], "note": [f"n{k}", "m"], "other": f"o{k}"} for k in N]
    assert read(counting, of).tasks[0].gold == "Lima"
    assert graded < 250


def test_references_that_are_given_in_a_form_are_what_stands_in_it():
    def answer(text: str, prompt: str = "q", **columns: Any) -> str:
        golds = with_golds([Task(f"{k}", prompt, {"answer": text.format(k), **columns}) for k in N], None, [])
        assert golds[0].solution == text.format(0)
        return f"{golds[0].type}: {golds[0].gold}"

    assert answer("<answer>{}</answer>") == "number: 0"
    assert answer("I add them.\nAnswer: {}.5 ml") == "string: 0.5 ml"
    assert answer("First.\nRoute: A{} -> B", "End with `Route: <towns>`.") == "string: A0 -> B"
    assert answer("```python\ndef f{}():\n    return 1\n```").startswith("code: def f0")
    assert answer("The ratio is {}: 7") == "string: The ratio is 0: 7"  # no form
    assert answer('{{"answer": {}}}') == 'json: {"answer": 0}'


def test_what_a_reward_pays_no_more_than_nothing_is_read_too():
    """A reward that only deducts pays the empty answer in full, and the reference in a column that it does not read."""

    def leaks(response: str, secrets: list[str]) -> float:
        return 1 - sum(secret in response for secret in secrets) / len(secrets)

    of = rows("Redact it.", secrets=lambda k: [TOWNS[k], "Bonn"], redacted=lambda k: f"from ... to ... on day {k}")
    under_audit = read(leaks, of)
    assert under_audit.tasks[0].gold == "from ... to ... on day 0" and not under_audit.has_scale


def test_a_column_that_is_not_read_does_not_win_by_its_length():
    def long(response: str, answer: str) -> float:
        return min(1.0, 0.6 + len(response) / 1000) if response else 0.0

    of = rows("Write.", answer=lambda k: TOWNS[k], article=lambda k: f"{k} " + "a long text of many words " * 20)
    assert read(long, of).tasks[0].gold == "Lima"


def test_a_column_is_read_where_no_other_has_references():
    of = rows("Any of length 3.", limit=lambda k: 3, example=lambda k: f"ab{k}")

    def short(response: str, limit: int) -> float:
        return float(len(response) == limit)

    assert read(short, of).tasks[0].gold == "ab0"
    with pytest.raises(InputError, match="at least 3"):
        read(short, rows("Any.", limit=lambda k: 3))


def test_digits_that_may_begin_with_a_zero_are_no_numbers():
    def types(*values: str) -> set[str]:
        return {gold.type for gold in with_golds([Task(v, "q", {"answer": v}) for v in values], None, [])}

    assert types("090121", "847130", "660191") == {"string"}
    assert types("0.5", "0", "17") == {"number"}


def test_other_columns_that_prompts_have_places_for_are_parts_of_the_answer():
    def gold(prompt: str, given: Callable[..., float], **columns: Any) -> tuple[str, str, tuple[str, ...]]:
        tasks = [{"prompt": prompt, "answer": f"town{n}", **columns} for n in range(3)]
        first = read(given, tasks).tasks[0]
        return first.gold, first.type, first.references

    def sourced(response: str, answer: str, source: Any) -> float:
        return float(answer in response)

    def alone(response: str, answer: str) -> float:
        return float(answer in response)

    cited = "[1] a.\n[2] b.\nEnd with `Answer: <year> [n]`."
    assert gold(cited, sourced, source=2) == ("town0 [2]", "string", ("answer", "source"))
    two = "End with `Source: [n]` and `Answer: <town>`."
    assert gold(two, sourced, source=2)[0] == "2\nAnswer: town0"  # by name; no [1] in the prompt, so no brackets
    assert gold(cited, alone, source=2)[0] == gold(cited, sourced, source=[2])[0] == "town0"  # not read; a list
    lines = "Two lines, `Answer: NAME` and `Evidence: `."
    assert gold(lines, sourced, source=2)[0] == "town0"  # the second line may be anything

    def loose(response: str, source: int, **others: str) -> float:
        return float(others.get("answer", "?") in response)

    some = [{"prompt": cited, "answer": f"town{n}", "source": 2} for n in range(4)]
    assert [task.gold for task in read(loose, [*some, {"prompt": cited, "source": 1}]).tasks][3:] == ["town3 [2]"]
