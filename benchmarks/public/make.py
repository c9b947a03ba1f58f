"""Write the task files of this folder: `python benchmarks/public/make.py`.

Every prompt says in which form the answer is to be given, and every task has its reference in the column `answer`.
"""

from __future__ import annotations

import json
import random
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

Row = dict[str, Any]
TASKS = Path(__file__).parent / "tasks"

COUNTS = (
    ("A bakery bakes {a} trays of {b} rolls. How many rolls is that?", lambda a, b: a * b),
    ("A train has {a} coaches with {b} seats each. How many seats does it have?", lambda a, b: a * b),
    ("Mina had {a} stamps and bought {b} more. How many stamps does she have?", lambda a, b: a + b),
    ("A tank holds {a} litres and {b} litres are drawn off. How many litres are left?", lambda a, b: a - b),
    ("Omar walks {a} steps there and the same way back, and {b} steps at home. How many is that?", lambda a, b: 2 * a + b),
)
PRICES = (
    ("A lamp costs ${a} and its bulb ${b}. What do both cost in dollars?", lambda a, b: a + b),
    ("A ticket is ${a}. What do {b} tickets cost in dollars?", lambda a, b: a * b),
    ("Lena pays a bill of ${b} with a note of ${a}. How many dollars does she get back?", lambda a, b: a - b),
)
FUNCTIONS = (
    # name, parameters, what it returns, as an expression, arguments of the tests
    ("clamp", "x, low, high", "x, but at least low and at most high", "max(low, min(high, x))", ((5, 1, 3), (0, 1, 3), (2, 1, 3))),
    ("mean", "values", "the mean of a list of numbers", "sum(values) / len(values)", (([1, 2, 6],), ([4],), ([-1, 1],))),
    ("span", "values", "the largest number of a list minus the smallest", "max(values) - min(values)", (([3, 9, 4],), ([7],))),
    ("initials", "name", "the first letters of the words of a name, in capitals", '"".join(w[0].upper() for w in name.split())', (("ada lovelace",), ("grace brewster hopper",))),
    ("is_leap", "year", "whether a year of the Gregorian calendar is a leap year", "year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)", ((2000,), (1900,), (2024,), (2023,))),
    ("digit_sum", "n", "the sum of the decimal digits of a whole number n >= 0", "sum(map(int, str(n)))", ((0,), (905,), (77,))),
    ("evens", "values", "the even numbers of a list, in their order", "[v for v in values if v % 2 == 0]", (([1, 2, 4, 5],), ([3],), ([],))),
    ("flatten", "rows", "the elements of a list of lists, in one list", "[v for row in rows for v in row]", (([[1], [2, 3]],), ([],))),
    ("word_count", "text", "the number of words of a text, which blanks separate", "len(text.split())", (("one two  three",), ("",))),
    ("rotate", "values, k", "a list whose first k elements were moved to its end", "values[k:] + values[:k]", (([1, 2, 3, 4], 1), ([1, 2], 0))),
    ("gcd_all", "values", "the greatest common divisor of a list of positive numbers", '__import__("math").gcd(*values)', (([12, 18],), ([7],), ([8, 12, 20],))),
    ("is_sorted", "values", "whether the numbers of a list never fall", "all(a <= b for a, b in zip(values, values[1:]))", (([1, 1, 2],), ([2, 1],), ([],))),
    ("vowels", "text", "how many of the letters of a text are among aeiou, large or small", 'sum(c in "aeiou" for c in text.lower())', (("Orange",), ("rhythm",))),
    ("squares", "n", "the squares of 1 to n in a list", "[i * i for i in range(1, n + 1)]", ((4,), (0,), (1,))),
    ("swap_pairs", "pairs", "a list of two-element lists, each turned round", "[[b, a] for a, b in pairs]", (([[1, 2], [3, 4]],), ([],))),
    ("celsius", "f", "a temperature of f degrees Fahrenheit in degrees Celsius", "(f - 32) * 5 / 9", ((32,), (212,), (-40,))),
)
KEYWORDS = (
    # what to write of, two words that must occur, a sentence that has them
    ("the sea", "tide", "harbour", "At low tide the boats lie dry in the harbour."),
    ("bread", "flour", "oven", "Good bread needs little more than flour, water and a hot oven."),
    ("a bicycle", "chain", "brake", "Oil the chain and check each brake before you ride."),
    ("winter", "frost", "scarf", "The frost came early, so she took her scarf."),
    ("a garden", "spade", "roses", "He left the spade beside the roses."),
    ("music", "violin", "applause", "After the violin fell silent there was applause."),
    ("a library", "shelf", "silence", "Every shelf of the library seemed to ask for silence."),
    ("mountains", "summit", "rope", "They reached the summit on a single rope."),
    ("coffee", "cup", "steam", "Steam rose from the cup for a long while."),
    ("a market", "apples", "scales", "The apples were weighed on old scales."),
    ("a railway", "signal", "platform", "The signal changed and the platform emptied."),
    ("chess", "bishop", "clock", "She moved her bishop and pressed the clock."),
    ("a theatre", "curtain", "stage", "The curtain rose on an empty stage."),
    ("rain", "umbrella", "puddle", "He shut his umbrella and stepped over the puddle."),
    ("a school", "chalk", "bell", "The bell rang before the chalk was put away."),
    ("stars", "telescope", "comet", "Through the telescope the comet was a faint smear."),
)
SUMMARIES = (
    ("Мост через реку закрыт на ремонт до весны, автобусы идут в объезд.", "Мост закрыт до весны, автобусы идут в объезд."),
    ("Библиотека теперь работает и по воскресеньям, с десяти до четырёх часов.", "Библиотека открыта и в воскресенье."),
    ("Из-за сильного снега в понедельник школы города не работают.", "Школы закрыты из-за снега."),
    ("Музей получил в дар сорок писем поэта и покажет их осенью.", "Музей покажет письма поэта осенью."),
    ("Врачи советуют больше ходить пешком и раньше ложиться спать.", "Врачи советуют ходить и спать больше."),
    ("Урожай яблок в этом году вдвое больше прошлогоднего.", "Урожай яблок вырос вдвое."),
    ("Поезд из столицы опоздал на два часа из-за поломки стрелки.", "Поезд опоздал на два часа."),
    ("Новый парк у озера откроют в мае, в нём посадили триста лип.", "Парк у озера откроют в мае."),
    ("Команда выиграла третий матч подряд и вышла в финал.", "Команда вышла в финал."),
    ("The old mill was bought by the town and will become a youth hostel.", "The town turns the old mill into a hostel."),
    ("A storm cut the power in the north of the island for six hours.", "A storm cut the power for six hours."),
    ("The bakery on the square stops selling plastic bags in March.", "The bakery stops selling plastic bags."),
    ("Two hikers lost in fog were found unharmed by a rescue dog.", "A rescue dog found two lost hikers."),
    ("The ferry will run every hour in summer instead of every two.", "The ferry runs hourly in summer."),
    ("Researchers counted fewer bees in the valley than ten years ago.", "The valley has fewer bees than before."),
    ("The choir sings in the station hall to collect money for the roof.", "The choir sings to pay for the roof."),
)
WORDS = (
    ("oui", "yes"), ("non", "no"), ("chien", "dog"), ("chat", "cat"), ("pain", "bread"), ("eau", "water"),
    ("rouge", "red"), ("livre", "book"), ("arbre", "tree"), ("maison", "house"), ("fleur", "flower"), ("lundi", "Monday"),
    ("neige", "snow"), ("pont", "bridge"), ("roi", "king"), ("lait", "milk"), ("sel", "salt"), ("vent", "wind"),
)  # fmt: skip
COUNTDOWN = (
    # a right expression; the numbers are those in it. Some numbers occur twice
    "9 * 9 + 4", "6 * 6 + 3", "8 + 8 * 5", "7 * 7 - 2 - 2", "5 * 5 * 4", "12 * 3 + 3", "10 * 10 - 1", "4 * 4 * 6",
    "25 * 4 + 7", "50 - 6 * 8", "3 * 17 + 9", "(13 - 5) * 11", "75 / 5 + 30", "2 * 2 * 19", "64 / 8 + 15", "(20 + 1) * 6",
)  # fmt: skip
LABELS = ("A", "B", "C", "D")
FACTS = (
    # a question, and four answers of which the first is right
    ("Which of these is a prime number?", "53", "51", "57", "87"),
    ("Which of these planets is nearest to the sun?", "Mercury", "Venus", "Mars", "Saturn"),
    ("Which of these metals is liquid at room temperature?", "mercury", "iron", "copper", "lead"),
    ("Which of these animals is a mammal?", "whale", "shark", "penguin", "frog"),
    ("Which of these oceans is the largest?", "Pacific", "Atlantic", "Indian", "Arctic"),
    ("Which of these gases do plants take up?", "carbon dioxide", "helium", "argon", "neon"),
    ("Which of these is the square of 13?", "169", "156", "196", "144"),
    ("Which of these countries lies in South America?", "Peru", "Kenya", "Nepal", "Norway"),
    ("Which of these instruments has strings?", "cello", "flute", "drum", "trumpet"),
    ("Which of these units measures force?", "newton", "joule", "watt", "volt"),
    ("Which of these is a leap year?", "2024", "2023", "2022", "2100"),
    ("Which of these rivers flows through Egypt?", "Nile", "Danube", "Amazon", "Volga"),
    ("Which of these shapes has six sides?", "hexagon", "pentagon", "octagon", "triangle"),
    ("Which of these elements has the symbol Na?", "sodium", "nitrogen", "nickel", "neon"),
    ("Which of these months has 30 days?", "June", "July", "May", "March"),
    ("Which of these is a root vegetable?", "carrot", "tomato", "pea", "lettuce"),
)


def main() -> None:
    """Write every file."""
    TASKS.mkdir(exist_ok=True)
    for name, rows in files().items():
        lines = [json.dumps({"id": f"{name}-{i}", **row}, ensure_ascii=False) for i, row in enumerate(rows)]
        (TASKS / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        print(f"{name}: {len(rows)} tasks, {len({str(row['answer']) for row in rows})} different answers")


def files() -> dict[str, list[Row]]:
    """The rows by the name of the file."""
    boxed = "Give the final answer in \\boxed{}."
    return {
        "counts_boxed": drawn(COUNTS, 20, 1, boxed),
        "counts_hash": drawn(COUNTS, 20, 2, "End with a line of four hash signs and the number: #### N"),
        "counts_line": drawn(COUNTS, 20, 3, "Your last line is ANSWER: N, where N is the number."),
        "prices": drawn(PRICES, 18, 4, "Your last sentence is: The answer is N. N is the number of dollars."),
        "tags": drawn(COUNTS, 18, 5, "Think within <think> and </think>, then give the number within <answer> and </answer>."),
        "prefilled": [{**row, "prompt": f"User: {row['prompt']}\nAssistant: <think>\n"} for row in thought()],
        "counts_math": drawn(COUNTS, 20, 8, "Write the final answer, and only it, in LaTeX math mode."),
        "fractions": fractions(f"Use lowest terms, written with \\frac. {boxed}"),
        "coins": coins(f"Write it with \\frac and a power of two. {boxed}"),
        "points": midpoints(f"Write it as (x, y). {boxed}"),
        "circles": circles(f"Write it with \\pi. {boxed}"),
        "sectors": sectors(f"Give the exact value, with \\pi. {boxed}"),
        "lines": lines_through("Answer with the equation alone, in the form ax + by + c = 0 with whole numbers."),
        "functions": functions(),
        "keywords": keywords(),
        "briefly": briefly(),
        "summaries": [
            {"prompt": f"{text}\n\nSummarise this in one short sentence of the same language, and write nothing else.", "answer": short}
            for text, short in SUMMARIES
        ],
        "words": [
            {"prompt": f"What is the French word «{french}» in English? Answer with one word and nothing else.", "answer": english}
            for french, english in WORDS
        ],
        "countdown": countdown(),
        "choices": choices(),
    }


def drawn(templates: Any, count: int, seed: int, form: str) -> list[Row]:
    """Word problems with numbers drawn by a seed; all answers differ."""
    draw, rows, taken = random.Random(seed), [], set[int]()
    while len(rows) < count:
        text, value = templates[len(rows) % len(templates)]
        a, b = draw.randint(13, 60), draw.randint(3, 12)
        if value(a, b) not in taken:
            taken.add(value(a, b))
            rows.append({"prompt": f"{text.format(a=a, b=b)} {form}", "answer": str(value(a, b))})
    return rows


def thought() -> list[Row]:
    """Word problems for a model whose chat template has opened the thinking already."""
    return drawn(COUNTS, 18, 6, "Think first, close your thinking with </think>, then say: The answer is N.")


def fractions(form: str) -> list[Row]:
    """Chances of drawing a red ball."""
    pairs = [(1, 1), (1, 2), (2, 1), (1, 3), (3, 1), (2, 3), (3, 2), (1, 4), (4, 1), (3, 4), (4, 3), (1, 5), (5, 1), (2, 5), (5, 2), (3, 5), (5, 3), (1, 6)]  # fmt: skip
    rows = []
    for red, blue in pairs:
        chance = Fraction(red, red + blue)
        text = f"A bag has {3 * red} red and {3 * blue} blue balls. What is the chance that a ball drawn blindly is red?"
        rows.append({"prompt": f"{text} {form}", "answer": rf"\frac{{{chance.numerator}}}{{{chance.denominator}}}"})
    return rows


def coins(form: str) -> list[Row]:
    """Chances too small for twelve decimal places."""
    text = "A fair coin is tossed {} times. What is the chance that it shows heads every time?"
    return [{"prompt": f"{text.format(n)} {form}", "answer": rf"\frac{{1}}{{2^{{{n}}}}}"} for n in range(62, 134, 4)]


def midpoints(form: str) -> list[Row]:
    """Midpoints of two points."""
    draw, rows = random.Random(9), []
    for _ in range(18):
        x, y, dx, dy = (draw.randint(*bounds) for bounds in ((-9, 20), (-9, 20), (1, 8), (1, 8)))
        text = f"What is the midpoint of ({x - dx}, {y - dy}) and ({x + dx}, {y + dy})?"
        rows.append({"prompt": f"{text} {form}", "answer": f"({x}, {y})"})
    return rows


def circles(form: str) -> list[Row]:
    """Areas of circles."""
    return [{"prompt": f"What is the area of a circle of radius {r}? {form}", "answer": rf"{r * r}\pi"} for r in range(2, 20)]


def sectors(form: str) -> list[Row]:
    """A sector and a square, whose areas add."""
    rows = []
    for i, side in enumerate(range(2, 20)):
        part, radius = (3, 5, 7)[i % 3], (2, 4)[i % 2]
        text = f"A window is a square of side {side} with a sector of radius {radius} on top that is 1/{part} of a disc. What is its area?"
        rows.append({"prompt": f"{text} {form}", "answer": rf"\frac{{{radius**2}\pi}}{{{part}}}+{side * side}"})
    return rows


def lines_through(form: str) -> list[Row]:
    """Lines through two points."""
    rows = []
    for i, (x, y) in enumerate(pairwise(range(1, 19))):
        slope, at = i % 5 + 2, y + 2 * i % 7 + 20
        c = at - slope * x
        sign = "+" if c >= 0 else "-"
        text = f"Which line has the slope {slope} and goes through the point ({x}, {at})?"
        rows.append({"prompt": f"{text} {form}", "answer": f"{slope}x - y {sign} {abs(c)} = 0"})
    return rows


def functions() -> list[Row]:
    """Functions with a stub, a suite as HumanEval has it, and inputs with expected results as EvalPlus has them."""
    rows = []
    for name, parameters, words, expression, tests in FUNCTIONS:
        stub = f'def {name}({parameters}):\n    """Return {words}."""\n'
        function = eval(f"lambda {parameters}: {expression}")  # noqa: S307
        expected = [function(*arguments) for arguments in tests]
        checks = [f"    assert candidate(*{a!r}) == {e!r}" for a, e in zip(tests, expected, strict=True)]
        rows.append(
            {
                "prompt": f"Complete this function. Answer with the whole function in one ```python block.\n\n{stub}",
                "answer": f"```python\ndef {name}({parameters}):\n    return {expression}\n```",
                "entry_point": name,
                "stub": stub,
                "test": "\n".join(["def check(candidate):", *checks]),
                "inputs": [list(arguments) for arguments in tests],
                "expected": expected,
            }
        )
    return rows


def keywords() -> list[Row]:
    """Sentences that must have two words, in IFEval's columns."""
    return [
        {
            "prompt": f"Write one sentence about {about}. It has the words “{first}” and “{second}”.",
            "answer": sentence,
            "instruction_id_list": ["keywords:existence"],
            "kwargs": [{"keywords": [first, second]}],
        }
        for about, first, second, sentence in KEYWORDS
    ]


def briefly() -> list[Row]:
    """Sentences with fewer words than a number, in IFEval's columns."""
    return [
        {
            "prompt": f"Write one sentence about {about} with less than {words} words in it.",
            "answer": sentence,
            "instruction_id_list": ["length_constraints:number_words"],
            "kwargs": [{"relation": "less than", "num_words": words}],
        }
        for i, (about, _, _, sentence) in enumerate(KEYWORDS)
        for words in [len(sentence.split()) + 1 + i % 3]
    ]


def countdown() -> list[Row]:
    """Numbers to reach a target with, in the form of reasoning-gym's entries."""
    rows = []
    for expression in COUNTDOWN:
        numbers = [int(n) for n in "".join(c if c.isdigit() else " " for c in expression).split()]
        target = round(eval(expression))  # noqa: S307
        shown = ", ".join(map(str, sorted(numbers)))
        rows.append(
            {
                "prompt": f"Use all of the numbers {shown}, each exactly once, with + - * / and brackets, to make {target}. Answer with the expression alone.",
                "answer": expression,
                "entry": {"question": "", "answer": expression, "metadata": {"numbers": numbers, "target": target}},
            }
        )
    return rows


def choices() -> list[Row]:
    """Questions with four answers, in an order that a seed draws."""
    draw, rows = random.Random(7), []
    for question, *answers in FACTS:
        order = draw.sample(answers, 4)
        shown = "\n".join(f"{label}. {answer}" for label, answer in zip(LABELS, order, strict=True))
        rows.append(
            {
                "prompt": f"{question}\n{shown}\nReason briefly; your last sentence is: The answer is (X). X is the letter.",
                "answer": LABELS[order.index(answers[0])],
                "choices": order,
            }
        )
    return rows


if __name__ == "__main__":
    main()
