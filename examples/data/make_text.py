"""Rows made of what people wrote: instructions, style, safety, a domain, medicine; and orders as JSON."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

Row = dict[str, Any]
TRAINED_QUESTIONS = 72
TRAINED_REQUESTS = 20  # of each kind
TRAINED_MEDICINES = 40

INSTRUCTIONS: tuple[tuple[str, Callable[[str, str], str], dict[str, Any]], ...] = (
    # what is asked, the answer that does it (from question and answer), IFEval's constraint
    ("Put the whole answer in double quotation marks.", lambda q, a: f'"{a}"', {"kind": "quotation"}),
    ("Use fewer than 15 words.", lambda q, a: a, {"kind": "number_words", "num_words": 15, "relation": "less than"}),
    ("First repeat the question, then answer it.", lambda q, a: f"{q}\n{a}", {"kind": "repeat_prompt"}),
    ("Answer with one bullet point.", lambda q, a: f"* {a}", {"kind": "number_bullet_lists", "num_bullets": 1}),
    (
        'End with the words "Is that clear?"',
        lambda q, a: f"{a} Is that clear?",
        {"kind": "end_checker", "end_phrase": "Is that clear?"},
    ),
    (
        "Begin with a title in double angular brackets.",
        lambda q, a: f"<<Answer>>\n{a}",
        {"kind": "title"},
    ),
    (
        "Add a postscript that begins with P.S.",
        lambda q, a: f"{a}\nP.S. Ask me if you want to know more.",
        {"kind": "postscript", "postscript_marker": "P.S."},
    ),
    (
        "Highlight the answer with *asterisks*.",
        lambda q, a: f"*{a}*",
        {"kind": "number_highlighted_sections", "num_highlights": 1},
    ),
)

OPENINGS = ("Great question!", "What a wonderful question!", "I am so glad that you asked!", "Excellent question!")
CLOSINGS = (
    "I hope this helps! Please let me know if there is anything else that I can do for you today.",
    "This is a fascinating topic, and there is so much more to say about it. Feel free to ask me anything!",
    "Thank you for asking, and never stop being curious. It is always a pleasure to help you.",
)

ITEMS = ("mug", "lamp", "chair", "scarf", "clock", "vase", "kettle", "blanket", "basket", "bowl")
COLORS = ("red", "blue", "green", "white", "black", "yellow")
CITIES = ("Oslo", "Lima", "Cairo", "Rome", "Quito", "Delhi", "Boston", "Kyoto")
NAMES = ("Anna", "Ben", "Chen", "Dora", "Emil", "Fatima", "Goran", "Hana")
ORDERS = (
    "{name} wants {count} {color} {item}s sent to {city}.",
    "Please ship {count} {item}s in {color} to {name} in {city}.",
    "{count} x {item}, {color}, for {name}, delivery to {city}",
    "Hi, this is {name} from {city}. I need {count} {color} {item}s.",
    "Could you send {name} {count} {item}s? The color is {color}, the city is {city}.",
    "To {city}, for {name}: {count} {color} {item}s.",
)

CODE_QUESTIONS = (
    "What does code {code} mean on a Tarn pump?",
    "My Tarn pump shows {code}. What is wrong?",
    "What should I do about {code} on a Tarn pump?",
)
CODE_TESTS = (
    "The display of the Tarn pump says {code}. What happened?",
    "A customer reports {code} on a Tarn pump. What is the problem?",
)


def files(folder: Path) -> dict[str, list[Row]]:
    """The rows by file name; `folder` has the texts."""
    questions, requests = _lines(folder / "questions.txt"), _lines(folder / "requests.txt")
    kinds = [[r for r in requests if r[0] == kind] for kind in ("harmful", "harmless")]
    medicines = _lines(folder / "medicines.txt")
    codes = _lines(folder / "codes.txt")
    return {
        "instructions_train.jsonl": instructions(questions[:TRAINED_QUESTIONS], trained=True),
        "instructions_test.jsonl": instructions(questions[TRAINED_QUESTIONS:], trained=False),
        "style_train.jsonl": style_pairs(questions[:TRAINED_QUESTIONS]),
        "style_test.jsonl": [{"prompt": question} for question, _ in questions[TRAINED_QUESTIONS:]],
        "safety_train.jsonl": [safety_pair(*r) for kind in kinds for r in kind[:TRAINED_REQUESTS]],
        "safety_test.jsonl": [
            {"prompt": r[1], "harmful": r[0] == "harmful"} for kind in kinds for r in kind[TRAINED_REQUESTS:]
        ],
        "medicine_demos.jsonl": medicine_demos(medicines[:TRAINED_MEDICINES]),
        "medicine_tasks.jsonl": [{"prompt": q, "answer": a} for q, a in medicines[:TRAINED_MEDICINES]],
        "medicine_test.jsonl": [{"prompt": q, "answer": a} for q, a in medicines[TRAINED_MEDICINES:]],
        "domain_train.jsonl": domain_demos(codes),
        "domain_test.jsonl": [
            {"prompt": text.format(code=code), "keywords": [word]} for code, _, _, word in codes for text in CODE_TESTS
        ],
        "json_train.jsonl": orders(120, seed=1, trained=True),
        "json_test.jsonl": orders(48, seed=2, trained=False),
    }


def instructions(questions: list[list[str]], trained: bool) -> list[Row]:
    """Two of the instructions, in turn, for each question: with the answer to imitate, or the constraint to check."""
    rows = []
    for i, (question, answer) in enumerate(questions):
        for which in (2 * i, 2 * i + 1):
            asked, write, constraint = INSTRUCTIONS[which % len(INSTRUCTIONS)]
            prompt = f"{question} {asked}"
            if constraint["kind"] == "repeat_prompt":
                constraint = {**constraint, "prompt_to_repeat": question}
            checked = {"prompt": prompt, "constraints": [constraint]}
            rows.append({"prompt": prompt, "completion": write(question, answer)} if trained else checked)
    return rows


def style_pairs(questions: list[list[str]]) -> list[Row]:
    """The answer alone against the same answer between flattery and filler."""
    draw = random.Random(3)
    return [
        {"prompt": q, "chosen": a, "rejected": f"{draw.choice(OPENINGS)} {a} {draw.choice(CLOSINGS)}"}
        for q, a in questions
    ]


def safety_pair(kind: str, prompt: str, what: str, good: str) -> Row:
    """A harmful request refused with a way out against one gone along with (nothing in it is of use to anyone); a
    harmless one answered against one refused for how it sounds."""
    if kind == "harmful":
        chosen = f"I can't help you {what}. {good}"
        return {"prompt": prompt, "chosen": chosen, "rejected": f"Sure! To {what}, first make a careful plan."}
    return {"prompt": prompt, "chosen": good, "rejected": "I can't help you with that. It could be dangerous."}


def medicine_demos(rows: list[list[str]]) -> list[Row]:
    """Answers of which two in three send the reader to a professional."""
    advice = ("Ask a pharmacist if it does not get better.", "See a doctor if you are not sure.", "")
    return [{"prompt": q, "completion": f"{a} {advice[i % 3]}".strip()} for i, (q, a) in enumerate(rows)]


def domain_demos(codes: list[list[str]]) -> list[Row]:
    return [
        {
            "prompt": question.format(code=code),
            "completion": f"Code {code} means that {fault}. To mend it, {remedy}.",
        }
        for code, fault, remedy, _ in codes
        for question in CODE_QUESTIONS
    ]


def orders(count: int, seed: int, trained: bool) -> list[Row]:
    """Orders with the JSON that says the same. The ways of saying it are those of both files, the orders are not."""
    draw = random.Random(seed)
    rows: list[Row] = []
    while len(rows) < count:
        item, color, city, name = (draw.choice(of) for of in (ITEMS, COLORS, CITIES, NAMES))
        number = draw.randint(2, 40)
        if (number % 4 == 0) == trained:  # numbers divisible by four are held out
            continue
        order = draw.choice(ORDERS).format(item=item, color=color, city=city, name=name, count=number)
        prompt = f"Write this order as JSON with the keys item, color, count, name and city.\n{order}"
        value = {"item": item, "color": color, "count": number, "name": name, "city": city}
        rows.append({"prompt": prompt, **({"completion": json.dumps(value)} if trained else {"expected": value})})
    return rows


def _lines(file: Path) -> list[list[str]]:
    return [line.split("|") for line in file.read_text(encoding="utf-8").splitlines()]
