"""Write the task files of this folder: `python benchmarks/public/make.py`.

Every prompt says in which form the answer is to be given, and every task has its reference in the column `answer`.
Texts are in `texts.yaml`; numbers are drawn by a seed.
"""

from __future__ import annotations

import json
import random
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import yaml

Row = dict[str, Any]
HERE = Path(__file__).parent
TEXTS = yaml.safe_load((HERE / "texts.yaml").read_text("utf-8"))
LABELS = "ABCD"
COUNTS = (
    ("A bakery bakes {a} trays of {b} rolls. How many rolls is that?", lambda a, b: a * b),
    ("A train has {a} coaches with {b} seats each. How many seats does it have?", lambda a, b: a * b),
    ("Mina had {a} stamps and bought {b} more. How many stamps does she have?", lambda a, b: a + b),
    ("A tank holds {a} litres and {b} litres are drawn off. How many litres are left?", lambda a, b: a - b),
    ("Omar walks {a} steps there and as many back, and {b} at home. How many is that?", lambda a, b: 2 * a + b),
)
PRICES = (
    ("A lamp costs ${a} and its bulb ${b}. What do both cost in dollars?", lambda a, b: a + b),
    ("A ticket is ${a}. What do {b} tickets cost in dollars?", lambda a, b: a * b),
    ("Lena pays a bill of ${b} with a note of ${a}. How many dollars does she get back?", lambda a, b: a - b),
)
TAGS = "Think within <think> and </think>, then give the number within <answer> and </answer>."
CLOSING = "Think first, close your thinking with </think>, then say: The answer is N."
BOX = "Give the final answer in \\boxed{}."


def main() -> None:
    """Write every file."""
    for name, rows in files().items():
        lines = [json.dumps({"id": f"{name}-{i}", **row}, ensure_ascii=False) for i, row in enumerate(rows)]
        (HERE / f"tasks/{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def files() -> dict[str, list[Row]]:
    """The rows by the name of the file."""
    prefilled = drawn(COUNTS, 6, CLOSING)
    return {
        "counts_hash": drawn(COUNTS, 2, "End with a line of four hash signs and the number: #### N"),
        "counts_line": drawn(COUNTS, 3, "Your last line is ANSWER: N, where N is the number."),
        "counts_math": drawn(COUNTS, 8, "Write the final answer, and only it, in LaTeX math mode."),
        "prices": drawn(PRICES, 4, "Your last sentence is: The answer is N. N is the number of dollars."),
        "tags": drawn(COUNTS, 5, TAGS),
        "prefilled": [{**row, "prompt": f"User: {row['prompt']}\nAssistant: <think>\n"} for row in prefilled],
        "fractions": fractions(f"Use lowest terms, written with \\frac. {BOX}"),
        "coins": coins(f"Write it with \\frac and a power of two. {BOX}"),
        "points": midpoints(f"Write it as (x, y). {BOX}"),
        "circles": circles(f"Write it with \\pi. {BOX}"),
        "sectors": sectors(f"Give the exact value, with \\pi. {BOX}"),
        "lines": lines("Answer with the equation alone, in the form ax + by + c = 0 with whole numbers."),
        "functions": functions(),
        "keywords": keywords(),
        "briefly": briefly(),
        "summaries": summaries("Summarise this in one short sentence of the same language, and write nothing else."),
        "words": words("Answer with one word and nothing else."),
        "countdown": countdown("Answer with the expression alone."),
        "choices": choices("Reason briefly; your last sentence is: The answer is (X). X is the letter."),
    }


def drawn(templates: Any, seed: int, form: str, count: int = 18) -> list[Row]:
    """Word problems with numbers drawn by a seed; all answers differ."""
    draw, rows, taken = random.Random(seed), [], set[int]()
    while len(rows) < count:
        text, value = templates[len(rows) % len(templates)]
        a, b = draw.randint(13, 60), draw.randint(3, 12)
        if value(a, b) not in taken:
            taken.add(value(a, b))
            rows.append({"prompt": f"{text.format(a=a, b=b)} {form}", "answer": str(value(a, b))})
    return rows


def fractions(form: str) -> list[Row]:
    """Chances of drawing a red ball."""
    text = "A bag has {} red and {} blue balls. What is the chance that a ball drawn blindly is red?"
    rows = {}
    for red, blue in ((red, blue) for blue in range(1, 6) for red in range(1, 6)):
        chance = Fraction(red, red + blue)
        answer = rf"\frac{{{chance.numerator}}}{{{chance.denominator}}}"
        rows[answer] = {"prompt": f"{text.format(3 * red, 3 * blue)} {form}", "answer": answer}
    return list(rows.values())


def coins(form: str) -> list[Row]:
    """Chances too small for twelve decimal places."""
    text = "A fair coin is tossed {} times. What is the chance that it shows heads every time?"
    return [{"prompt": f"{text.format(n)} {form}", "answer": rf"\frac{{1}}{{2^{{{n}}}}}"} for n in range(62, 134, 4)]


def midpoints(form: str) -> list[Row]:
    """Midpoints of two points."""
    draw, rows = random.Random(9), []
    for x in range(-6, 12):
        y, dx, dy = draw.randint(-9, 20), draw.randint(1, 8), draw.randint(1, 8)
        text = f"What is the midpoint of ({x - dx}, {y - dy}) and ({x + dx}, {y + dy})?"
        rows.append({"prompt": f"{text} {form}", "answer": f"({x}, {y})"})
    return rows


def circles(form: str) -> list[Row]:
    """Areas of circles."""
    text = "What is the area of a circle of radius {}?"
    return [{"prompt": f"{text.format(r)} {form}", "answer": rf"{r * r}\pi"} for r in range(2, 20)]


def sectors(form: str) -> list[Row]:
    """A part of a disc and a square, whose areas add."""
    text = "A window is a square of side {} with a sector of radius {} on top that is 1/{} of a disc. What is its area?"
    rows = []
    for i, side in enumerate(range(2, 20)):
        radius, part = (2, 4)[i % 2], (3, 5, 7)[i % 3]
        answer = rf"\frac{{{radius**2}\pi}}{{{part}}}+{side * side}"
        rows.append({"prompt": f"{text.format(side, radius, part)} {form}", "answer": answer})
    return rows


def lines(form: str) -> list[Row]:
    """Lines of a given slope through a point."""
    rows = []
    for i in range(18):
        slope, x, y = i % 5 + 2, i + 1, 3 * i + 25
        c = y - slope * x
        text = f"Which line has the slope {slope} and goes through the point ({x}, {y})?"
        rows.append({"prompt": f"{text} {form}", "answer": f"{slope}x - y {'+' if c > 0 else '-'} {abs(c)} = 0"})
    return rows


def functions() -> list[Row]:
    """Functions with a stub, a suite as HumanEval has it, and inputs with expected results as EvalPlus has them."""
    rows = []
    for one in TEXTS["functions"]:
        head = f"def {one['name']}({one['parameters']}):"
        stub = f'{head}\n    """Return {one["returns"]}."""\n'
        function = eval(f"lambda {one['parameters']}: {one['expression']}")
        expected = [function(*arguments) for arguments in one["tests"]]
        checks = [f"    assert candidate(*{a!r}) == {e!r}" for a, e in zip(one["tests"], expected, strict=True)]
        rows.append(
            {
                "prompt": f"Complete this function. Answer with the whole function in one ```python block.\n\n{stub}",
                "answer": f"```python\n{head}\n    return {one['expression']}\n```",
                "entry_point": one["name"],
                "stub": stub,
                "test": "\n".join(["def check(candidate):", *checks]),
                "inputs": one["tests"],
                "expected": expected,
            }
        )
    return rows


def keywords() -> list[Row]:
    """Sentences that must have two words, in IFEval's columns."""
    return [
        {
            "prompt": f"Write one sentence about {one['about']}. It has the words “{'” and “'.join(one['words'])}”.",
            "answer": one["sentence"],
            "instruction_id_list": ["keywords:existence"],
            "kwargs": [{"keywords": one["words"]}],
        }
        for one in TEXTS["sentences"]
    ]


def briefly() -> list[Row]:
    """Sentences with less words than a number, in IFEval's columns."""
    return [
        {
            "prompt": f"Write one sentence about {one['about']} with less than {most} words in it.",
            "answer": one["sentence"],
            "instruction_id_list": ["length_constraints:number_words"],
            "kwargs": [{"relation": "less than", "num_words": most}],
        }
        for i, one in enumerate(TEXTS["sentences"])
        for most in [len(one["sentence"].split()) + 1 + i % 3]
    ]


def summaries(form: str) -> list[Row]:
    """Texts to summarise."""
    return [{"prompt": f"{one['text']}\n\n{form}", "answer": one["short"]} for one in TEXTS["summaries"]]


def words(form: str) -> list[Row]:
    """Words to translate."""
    text = "What is the French word «{}» in English?"
    return [{"prompt": f"{text.format(french)} {form}", "answer": english} for french, english in TEXTS["words"]]


def countdown(form: str) -> list[Row]:
    """Numbers to reach a target with, in the form of reasoning-gym's entries."""
    rows = []
    for expression in TEXTS["countdown"]:
        numbers, target = [int(n) for n in re.findall(r"\d+", expression)], round(eval(expression))
        shown = ", ".join(map(str, sorted(numbers)))
        text = f"Use all of the numbers {shown}, each exactly once, with + - * / and brackets, to make {target}."
        entry = {"question": text, "answer": expression, "metadata": {"numbers": numbers, "target": target}}
        rows.append({"prompt": f"{text} {form}", "answer": expression, "entry": entry})
    return rows


def choices(form: str) -> list[Row]:
    """Questions with four answers, in an order that a seed draws."""
    draw, rows = random.Random(7), []
    for one in TEXTS["choices"]:
        order = draw.sample([one["right"], *one["wrong"]], len(LABELS))
        shown = "\n".join(f"{label}. {answer}" for label, answer in zip(LABELS, order, strict=True))
        right = LABELS[order.index(one["right"])]
        rows.append({"prompt": f"{one['question']}\n{shown}\n{form}", "answer": right, "choices": order})
    return rows


if __name__ == "__main__":
    main()
