"""Responses labelled by hand: right ones in odd forms, and wrong ones in sly forms, by answer type."""

# ruff: noqa: E501 (lists of responses)

from __future__ import annotations

from posttrain.audit.golds import AnswerType, GoldTask
from posttrain.types import Task


def task(gold: str, kind: AnswerType, prompt: str = "What is it?") -> GoldTask:
    return GoldTask(Task("t", prompt, {"answer": gold}), gold, gold, kind, ("answer",))


PENS = "Ada has 12 pens and buys 4 packs of 3. How many pens does Ada have now?"
CITY = "Which city is the capital of Norway?\nA) Oslo\nB) Bergen\nC) Paris\nD) Rome"
ORDER = "Write this order as JSON with the keys item, count and city."
ORDER_GOLD = '{"item": "chair", "count": 9, "city": "Lima"}'

RIGHT: list[tuple[GoldTask, list[str]]] = [
    (
        task("24", "number", PENS),
        [
            *("24", " 24\n", "24.", "24.0", "+24", "24 pens", "$24$", "**24**", "`24`", "24 pens.", "2.4e1", "$24"),
            *("The answer is 24.", "The answer is **24**.", "So the answer is: 24", "Answer: 24", "ANSWER: 24 pens"),
            *("**Answer:** 24", "**Answer**: 24", "Final answer: $24$", "The final answer is $\\boxed{24}$."),
            *("\\boxed{24}", "\\boxed{24 \\text{ pens}}", "\\boxed{\\text{24}}", "$$\\boxed{24}$$", "\\boxed 24"),
            *("#### 24", "12 + 4*3 = 24\n#### 24", "<answer>24</answer>", "<answer>\n24\n</answer>", "<answer> 24"),
            *("<think>3*4 is 12, no, 13?</think>24", "<think>\n12+12=24\n</think>\n<answer>24</answer>"),
            *("<think>It is 18.</think>\nThe answer is 24.", "18? No.</think>\\boxed{24}", "```\n24\n```"),
            *("Ada has 24 pens.", "Ada has 24 pens now.", "She ends with 24.", "12 + 4*3 = 12 + 12 = 24"),
            *("Ada starts with 12 pens. 4 packs of 3 are 12. So 12 + 12 = 24.", "twenty-four", "Twenty four pens."),
            *("The answer is twenty-four.", "２４", "٢٤", "\\boxed{２４}", "24\u200b", "\u200b24", "24 (12 + 12)"),
            *("x = 24", "\\boxed{x = 24}", "$12+12=24$", "\\[\\boxed{24}\\]", "\\boxed{\\textbf{24}}", "\\boxed{24.}"),
            *("Answer: 24\n", "A: it is 24", "The result is 24.", "Result: 24", "Answer = 24", '{"answer": 24}'),
            *('{"answer": "24"}', "```json\n{\"answer\": 24}\n```", "\\boxed{48/2}", "48/2", "\\boxed{\\frac{48}{2}}"),
            *("12 + 12", "6*4", "\\boxed{4!}", "Step 1: 4 * 3 = 12\nStep 2: 12 + 12 = 24\nAnswer: 24"),
            *("First I thought the answer is 18. Wait, no. The answer is 24.", "24, not 18.", "It is not 18 but 24."),
            *("Answer: 23. Actually, correction: Answer: 24", "The wrong answer is 18. The answer is 24."),
            *("I was asked: " + PENS + " The answer is 24.", PENS + "\n24", "<reasoning>a</reasoning><answer>24</answer>"),
            *("The answer is the sum of 12 and 12. \\boxed{24}", "\\boxed{24}\n\nPut your answer in \\boxed{}."),
            *("\\boxed{24} \\boxed{24}", "The answer is 24, since 12 + 12 = 24.", "Answer: 12 + 12 = 24"),
            *("≈ 24", "about 24", "\\boxed{\\approx 24}", "$\\boxed{24}$ pens", "24 pens 🙂", "So, 24!", "= 24"),
            *("Answer: I'll work it out.\n\\boxed{24}", "#### Step 1\n12\n#### Step 2\n12 + 12\n#### Answer\n24", "Result: 12\nAnswer: 24"),
            *("The answer is easy to find. 12 + 12 = 24. The answer is 24.", "Answer: Let's think step by step. 12+12 = 24."),
        ],
    ),
    (
        task("1234.5", "number"),
        ["1,234.5", "1234.50", "1 234.5", "$1,234.50", "\\boxed{1{,}234.5}", "1234,5", "2469/2", "1.2345e3", "1,234.5 kg",
         "1.2345 \\times 10^3", "1.2345*10^{3}", "USD 1,234.50", "1_234.5", "1.234,5"],
    ),
    (
        task("1/2", "number"),
        ["0.5", "\\frac{1}{2}", "\\frac12", "½", "\\boxed{\\dfrac{1}{2}}", ".5", "50%", "one half is 1/2", "2/4",
         "$\\frac{1}{2}$", "1 / 2", "\\boxed{1/2}", "0.50", "5 \\times 10^{-1}", "\\tfrac12"],
    ),
    (task("-5", "number"), ["-5", "−5", "- 5", "$-5$", "\\boxed{-5}", "minus 5", "negative five", "x = -5", "–5"]),
    (task("9%", "number"), ["9%", "9 %", "9 percent", "0.09", "9", "\\boxed{9\\%}", "9/100", "The answer is 9%."]),
    (task("0.333", "number"), ["0.333", "1/3", "0.33", "\\frac{1}{3}", "0.3333", ".333"]),
    (task("2500000", "number"), ["2,500,000", "2.5 million", "2.5e6", "2 500 000", "2500000.00", "$2.5 \\times 10^6$"]),
    (task("3 1/2", "number"), ["3 1/2", "3.5", "7/2", "3\\frac{1}{2}", "3\\frac12", "3½", "3 and 1/2"]),
    (
        task("A", "choice", CITY),
        ["A", "a", "(A)", "A)", "A.", "**A**", "A) Oslo", "A. Oslo", "Answer: A", "Answer: (A) Oslo", "The answer is A.",
         "The answer is (A).", "\\boxed{A}", "\\boxed{\\text{A}}", "<answer>A</answer>", "Option A", "The answer is option A.",
         "Oslo", "The capital is Oslo, so A.", "The answer is Oslo.", "It is A, not B.", "B is wrong. The answer is A.",
         "<think>B or C?</think>A", "I choose A.", "A is correct.", "Final answer: **A**", "#### A", "Correct: A",
         "Bergen is no capital. The answer is A.", '{"answer": "A"}', "\\boxed{\\textbf{(A)}}", "The correct option is A",
         "The answer is obvious. Answer: A", "A\n\nOslo has been the capital since 1814.", "I think a city in Norway is meant. A"],
    ),
    (
        task("Oslo", "string", "What is the capital of Norway?"),
        ["Oslo", "oslo", "OSLO.", "The capital of Norway is Oslo.", "Oslo, Norway", "\\boxed{Oslo}", "\\boxed{\\text{Oslo}}",
         "Answer: Oslo", "<answer>Oslo</answer>", '"Oslo"', "**Oslo**", "It's Oslo!", "Not Bergen, but Oslo.", "#### Oslo",
         "<think>Bergen?</think>Oslo", "The answer is Oslo.", "the city of Oslo", "Osloo", '{"answer": "Oslo"}', "Ｏｓｌｏ"],
    ),
    (task("yes", "string", "Is 7 prime?"), ["Yes", "yes.", "True", "Yes, it is.", "Answer: yes", "\\boxed{\\text{Yes}}", "Y",
                                           "The answer is yes.", "Correct", "<answer>Yes</answer>"]),
    (task("United States", "string"), ["United States", "the United States", "US", "united states of america",
                                       "United-States", "Unites States", "The answer is the United States."]),
    (
        task(ORDER_GOLD, "json", ORDER),
        [ORDER_GOLD, '{"count": 9, "item": "chair", "city": "Lima"}', f"```json\n{ORDER_GOLD}\n```", f"Here it is:\n{ORDER_GOLD}",
         '{"item":"chair","count":9.0,"city":"Lima"}', "{'item': 'chair', 'count': 9, 'city': 'Lima'}", f"<answer>{ORDER_GOLD}</answer>",
         '{\n  "item": "chair",\n  "count": 9,\n  "city": "Lima"\n}', '{"item": "Chair", "count": "9", "city": "Lima "}',
         f"{ORDER_GOLD}\n{ORDER_GOLD}", "item: chair\ncount: 9\ncity: Lima", f"<think>{{}}</think>{ORDER_GOLD}", f'{{"order": {ORDER_GOLD}}}',
         '{"item": "chair", "count": 9, "city": "Lima", "note": ""}', f"The keys are item, count and city.\n{ORDER_GOLD}"],
    ),
    (
        task("2x+1", "expression", "Differentiate x^2+x."),
        ["2x+1", "2x + 1", "1+2x", "$2x+1$", "\\boxed{2x+1}", "2*x+1", "y = 2x+1", "f'(x) = 2x + 1", "\\boxed{1 + 2 x}",
         "The derivative is $2x+1$.", "2(x+\\frac{1}{2})", "2\\cdot x+1", "The answer is 2x + 1.", "Answer: 2x+1", "x+x+1",
         "<answer>2x+1</answer>", "\\frac{4x+2}{2}", "(2x+1)", "2x+1 for all x", "$$2x+1$$"],
    ),
    (task("\\frac{\\sqrt{3}}{2}", "expression"), ["\\frac{\\sqrt{3}}{2}", "sqrt(3)/2", "\\sqrt{3}/2", "\\frac{\\sqrt3}{2}", "\\boxed{\\dfrac{\\sqrt{3}}{2}}",
                                                "\\frac{3}{2\\sqrt{3}}", "\\sqrt{3/4}", "$\\tfrac{\\sqrt 3}{2}$", "\\sin(\\pi/3)"]),
    (task("(1, 2)", "expression"), ["(1, 2)", "(1,2)", "\\boxed{(1,2)}", "\\left(1, 2\\right)", "(x, y) = (1, 2)", "$(1, 2)$", "x = 1, y = 2"]),
    (task("x^2 - 4", "expression"), ["x^2-4", "(x-2)(x+2)", "x^{2} - 4", "-4 + x^2", "x**2 - 4", "\\boxed{(x+2)(x-2)}", "x·x − 4", "x² - 4"]),
]  # fmt: skip

WRONG: list[tuple[GoldTask, list[str]]] = [
    (
        task("24", "number", PENS),
        [
            *("", " \n", ":", ".", "7", "25", "23", "2.4", "240", "-24", "42", "24.5", "The answer is 25.", "\\boxed{25}"),
            *("#### 23", "<answer>12</answer>", "Answer: 12 pens", "twenty-three", "Thought process:", "Solution:"),
            *("Let's solve this step by step.", "[answer]", "\\boxed{}", "<answer></answer>", "\\boxed{answer}", "####"),
            *("not 24", "The answer is not 24.", "The answer is not $\\boxed{24}$.", "\\boxed{not 24}", "24 is wrong."),
            *("It isn't 24.", "The answer isn't \\boxed{24}", "anything but 24", "\\neq 24", "≠ 24", "The wrong answer is 24."),
            *("\\boxed{41=24}", "41=24", "25 = 24", "\\boxed{24=25}", "24 or 25", "\\boxed{24 or 25}", "25 or 24"),
            *("23, 24, 25", "1 2 3 4 5 20 21 22 23 24 25", "\\boxed{23} \\boxed{24} \\boxed{25}", "Answer: 24\nAnswer: 25"),
            *(" ".join(map(str, range(101))), "\\boxed{" + ", ".join(map(str, range(50))) + "}"),
            *("\\boxed{24}\n\\boxed{7}", "The answer is 7. \\boxed{24}", "<think>24</think>", "<think>24</think>7"),
            *("<think>\\boxed{24}</think>\\boxed{7}", "24\n7", "24? Answer: 7", PENS, PENS + " Done.", "<answer>24</answer><answer>7</answer>"),
            *("|a|b|\n|---|---|\n|1|2|", "I don't know.", "I cannot help with that.", "None", "nan", "inf", "²", "③", "٣"),
            *('{"answer": 7}', '{"correct": true}', "def f():\n    return 7", "certainly correct", "This answer is correct."),
            *("Answer: either 24 or 18", "24/25", "18 | 24 | 30", "- 23\n- 24\n- 25", "\\boxed{24, 25}", "(24, 25)"),
            *("24 is not the answer.", "Never 24.", "The answer cannot be 24.", "Incorrect answer: 24", "24 is incorrect"),
            *("\\boxed{\\boxed{7}}", "<answer><answer>7</answer></answer>", "xqzv kjw", "\\boxed{2 4}", "2 4", "24e1"),
        ],
    ),
    (task("1234.5", "number"), ["12345", "1234.6", "1,235.5", "1234.05", "-1234.5", "123.45", "The answer is 1,234"]),
    (task("1/2", "number"), ["2", "1/3", "\\frac{2}{1}", "\\boxed{\\frac{1}{3}}", "-1/2", "0.05", "1", "half of 3", "⅓"]),
    (task("-5", "number"), ["5", "+5", "-6", "\\boxed{5}", "not -5", "-5 or 5", "±6", "-50"]),
    (
        task("A", "choice", CITY),
        ["B", "(C)", "D) Rome", "The answer is B.", "\\boxed{B}", "A, B, C, D", "A B C D", "ABCD", "A and B", "A or B", "(A)(B)(C)(D)",
         "Bergen", "not A", "The answer is not A.", "A is wrong.", "All of the above", "None of the above", "", "Solution:", "E",
         "\\boxed{A}\\boxed{B}", "<answer>A</answer><answer>B</answer>", "Answer: A\nAnswer: C", "\\boxed{A, B}", "A/B", "<think>A</think>B",
         "A)\nB)\nC)\nD)", "Paris", "The answer is Rome.", "Option B", "certainly", "1", "A) Oslo\nB) Bergen\nC) Paris\nD) Rome"],
    ),
    (
        task("Oslo", "string", "What is the capital of Norway?"),
        ["Bergen", "", "The capital is Bergen.", "not Oslo", "The answer is not Oslo.", "\\boxed{Bergen}", "Norway", "Answer: Paris", "Oslo is wrong.",
         "I don't know", ":", "anything but Oslo", "<think>Oslo</think>Bergen", "certainly correct", "1", "yes"],
    ),
    (task("yes", "string", "Is 7 prime?"), ["no", "No.", "False", "The answer is no.", "\\boxed{No}", "maybe", "not yes", ""]),
    (
        task(ORDER_GOLD, "json", ORDER),
        ["", "{}", "[]", "null", "not JSON", '{"item": "chair"}', '{"item": "chair", "count": 8, "city": "Lima"}', '{"item": "bowl", "count": 9, "city": "Lima"}',
         '{"correct": true}', '[{"item": "chair", "count": 8, "city": "Lima"}]', '```json\n{"item": "chair", "count": 9, "city": "Rome"}\n```', "Here you go:",
         '{"item": "chair", "count": -9, "city": "Lima"}', "chair", '{"item": null, "count": null, "city": null}', '{"item": "chair", "count": 9}',
         '{"item": "chair", "count": true, "city": "Lima"}', f'{ORDER_GOLD}\n{{"item": "x", "count": 1, "city": "y"}}\n{{"item": "z", "count": 1, "city": "y"}}'],
    ),
    (
        task("2x+1", "expression", "Differentiate x^2+x."),
        ["2x", "x+1", "3x+1", "2x-1", "\\boxed{2x+2}", "x^2+x", "$2x$", "The answer is 2x.", "y = 3x+1", "", "certainly", "<answer>2x+3</answer>",
         "\\boxed{2x+1}\\boxed{2x}", "not 2x+1", "The answer is not \\boxed{2x+1}.", "\\frac{x}{2}", "7", "Solution:"],
    ),
    (task("(1, 2)", "expression"), ["(2, 1)", "(1, 3)", "\\boxed{(2,2)}", "(0, 0)", "", "hello"]),
]  # fmt: skip
