"""Tasks with their reference answers (golds), and what type of answer each is.

What decides here that an answer is right or wrong shares no code with any reward (`posttrain.rewards`)."""

from __future__ import annotations

import ast
import json
import re
import textwrap
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Literal

from posttrain.audits.forms import FORMS, shown_forms
from posttrain.data.builtin import is_builtin
from posttrain.data.columns import parse_prompt
from posttrain.data.formats import load_tasks
from posttrain.data.readers import iter_rows
from posttrain.data.shapes import renamed, standardised
from posttrain.types import InputError, Task, located

AnswerType = Literal["number", "expression", "choice", "string", "json", "code", "text"]
GOLD_COLUMNS = (
    *("answer", "solution", "ground_truth", "canonical_solution", "completion", "chosen", "response"),
    *("reference", "target", "label", "gold", "expected", "output"),
)
"""Columns that hold a reference answer, in the order in which they are looked for."""
TEST_COLUMNS = ("cases", "hidden_cases", "test", "tests")
"""Columns of tests, which say that a reference of Python is code."""
ASSERTION = re.compile(r"^\s*assert\b", re.MULTILINE)
LIKE_ANSWER = re.compile(
    "answer|gold|target|expect|solution|correct|reference|truth|label|result|accept|total|program|sql|pattern|"
    "regex|formula"
)
"""Names of columns that may hold reference answers, before others, whether or not a reward reads them."""
MIN_GOLDS = 3
NEARLY = 0.01
"""How far a number of a reference may be from that of another column and be the same, rounded otherwise."""
NUMBER = re.compile(r"[-+]?\$?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)?(?:\.[0-9]+)?(?:/[0-9]+|e[-+]?[0-9]+)?\s?%?")
CODED = re.compile("0[0-9]")
"""The begin of digits that are no number but a code, and so are the others of their column."""
LETTER = re.compile(r"\(?([A-Ja-j])[).]?")
OPTIONS = re.compile(r"(?:^|[\s(])([A-J])[).:]\s", re.MULTILINE)
MARK = re.compile(r"(?:[:>{#`]\s*|\n)\Z")
"""How what stands in front of an answer ends, so that it is surely a mark of the answer."""
FENCED = re.compile(r"```\w*\n(.*?)\n?```", re.DOTALL)
"""A program in a code block and nothing else."""
STRING_WORDS = 8
"""A text of at most so many words, on one line, is a string to be matched; a longer one is free text."""
LONGEST_NUMBER = 1000
"""Characters of a number; a longer one is matched as a string: Python reads no integer of more than 4300 digits."""
ITEM_WORDS = 4
"""A text with more than one comma is a string too where each item has at most so many words."""
SHORT = 40
"""Characters of a value that may stand beside the answer on its line."""
SENTENCE_WORDS = 4
"""A text of at least so many words that ends like a sentence is free text: other words may say the same."""
DATE = re.compile(r"[0-9]{1,4}([-/.])[0-9]{1,2}\1[0-9]{1,4}")
MEASURED = re.compile(
    r"[0-9]+(?:-[0-9]+)+|[-+]?[0-9.]+(?:\s+[-+]?[0-9.]+)+|[-+]?[0-9][0-9.,]*\s?(?:[a-zA-Z]{1,3}[/^][a-z]{1,3}[0-9²³^]*)"
)
"""Digits with hyphens, numbers with blanks between, and numbers with a compound unit."""
PATTERNS = re.compile(
    r"\bregular expression|\bregex|\bSQL|\bstack machine|\breverse polish|\bRPN\b|\bspreadsheet formula|"
    r"\b(?:Python|JavaScript|Excel|shell|bash|awk|sed|jq) (?:expression|command|formula|one-liner|script)",
    re.IGNORECASE,
)
"""Prompts that ask for a program which is no function: another text may do the same."""
INTERVALS = re.compile(r"\bintervals?\b", re.IGNORECASE)
FUNCTIONS = ("sin", "cos", "tan", "log", "exp", "sqrt", "abs", "mod", "inf", "infinity", "min", "max", "and")
FORMULA = re.compile(r"\\[a-z]+|[\^=]|[0-9)]\s*[-+*/]\s*[0-9(a-z]|[a-z]\s*[-+*/^]\s*[0-9(a-z]")


@dataclass(frozen=True)
class GoldTask:
    """A task and its reference answer as text: `gold` is the final answer and `solution` the whole text, which may
    derive it. `references` are the columns that say what is right."""

    task: Task
    gold: str
    solution: str
    type: AnswerType
    references: tuple[str, ...]
    accepted: tuple[str, ...] = ()
    """Where the prompt asks for some of several right answers: all of them."""
    compared: bool = True
    """Whether a column that the reward reads holds the reference answer; else it checks what other columns demand."""

    @property
    def prompt(self) -> str:
        """All of the prompt: a system message may say how to answer."""
        return prompt_of(self.task)

    @property
    def columns(self) -> Mapping[str, Any]:
        return self.task.columns

    @property
    def entry_point(self) -> str | None:
        """The function that a program is to define: by its column, else the one of the reference that the prompt or a
        test names, or the only one in it."""
        if named := self.columns.get("entry_point"):
            return str(named)
        said = " ".join([self.prompt, self.suite])
        defined = re.findall(r"^def (\w+)\(", self.gold, re.MULTILINE) if self.type == "code" else []
        script = re.search(r"^(?!def |import |from |[@#)\s])", self.gold, re.MULTILINE)
        alone = defined[0] if len(defined) == 1 and not script else None
        return next((name for name in reversed(defined) if re.search(rf"\b{name}\b", said)), alone)

    @property
    def suite(self) -> str:
        """The tests of a program that are code: those of the columns of tests, and assertions in any column."""
        texts = {name: _lines(value) for name, value in self.columns.items()}
        found = [text for name, text in texts.items() if name in ("test", "tests") or ASSERTION.search(text)]
        return "\n".join(text for text in found if text not in (self.gold, self.solution))

    @property
    def options(self) -> tuple[str, ...]:
        """The letters that the prompt offers, of a choice."""
        return tuple(dict.fromkeys(OPTIONS.findall(self.task.asked)))


def prompt_of(task: Task) -> str:
    prompt = task.prompt
    return prompt if isinstance(prompt, str) else "\n".join(message.content for message in prompt)


def read_tasks(source: str, names: Mapping[str, str] | None = None) -> list[Task]:
    """The tasks of a source, as `posttrain rl` reads them; rows with a `completion` too, which stays a column. Raises
    InputError with file:line for a row that cannot be read."""
    if is_builtin(source):
        return load_tasks(source, names)
    tasks = []
    for number, row in enumerate(standardised(renamed(iter_rows(source), names), tasks=True)):
        columns = dict(row.checked())
        with located(row.where):
            if "prompt" not in columns:
                raise InputError(
                    f"no 'prompt'; the row has {', '.join(columns) or 'nothing'}. If it has another name, give "
                    "--columns prompt=COLUMN"
                )
            prompt = parse_prompt(columns.pop("prompt"))
            name = columns.pop("id", None)
            tasks.append(Task(str(number if name is None else name), prompt, columns, where=row.where))
    return tasks


def with_golds(
    tasks: Sequence[Task], column: str | None, read: Collection[str], way: Callable[[Task, Any], str] | None = None
) -> list[GoldTask]:
    """The tasks that have a reference answer, in the column of that name, the first of GOLD_COLUMNS that some row
    fills, or else the first that the reward reads, one that is named like an answer before others; `read` are those
    columns. `way` writes a reference that is no text or decimal number.

    Raises InputError where no task has one, and for fewer than MIN_GOLDS distinct ones: then a constant answer could
    not be told from a right one."""
    columns = check_column(tasks, column)
    filled, programs, tested = _filled(tasks, columns, read)
    gold = column or next(iter(filled), None)
    if gold is None:
        raise InputError(
            f"an audit needs a reference answer for each task, and none of the columns {', '.join(GOLD_COLUMNS)} is "
            f"there, nor one that the reward reads; the tasks have {', '.join(columns) or 'none'}. Name the column "
            "that has it: --answer-column COLUMN"
        )
    written = [(task, text_of(v) if way is None else way(task, v)) for task in tasks for v in [task.columns.get(gold)]]
    written = [(task, whole) for task, whole in written if whole]
    inner = [whole for _, whole in written]
    inner = without_form(inner, list(map(prompt_of, tasks))) if way is None else inner
    code = gold in programs or (tested and all(_is_script(text_of(task.columns.get(gold))) for task in tasks))
    found = []
    for (task, whole), text in zip(written, inner, strict=True):
        references = tuple(n for n in task.columns if n == gold or n in (*GOLD_COLUMNS, *TEST_COLUMNS))
        kind = _type(task, task.columns.get(gold) if way is None else text, text, code)
        kind = "string" if way is not None and kind == "text" else kind
        final = text if kind in ("code", "text") else final_of(text)
        compared = not read or gold in read or _is_held(final, [task.columns.get(name) for name in read])
        found.append(GoldTask(task, final, whole, kind, references, compared=compared))
    distinct = Counter(task.gold for task in found)
    if len(distinct) < MIN_GOLDS:
        raise InputError(
            f"the {len(found)} tasks have {len(distinct)} distinct reference answers in the column {gold!r}; an audit "
            f"needs at least {MIN_GOLDS}, or a constant answer could not be told from a right one"
        )
    if any(gold.type == "number" and CODED.match(gold.gold) for gold in found):
        found = [replace(gold, type="string") if gold.type == "number" else gold for gold in found]
    return found


def _filled(tasks: Sequence[Task], columns: Sequence[str], read: Collection[str]) -> tuple[list[str], list[str], bool]:
    """The columns that may hold the references, the likeliest first; those of them that hold programs; and whether the
    reward reads tests."""
    filled = [name for name in GOLD_COLUMNS if any(text_of(task.columns.get(name)) for task in tasks)]
    tested = any(name in columns and (name in read or not read) for name in TEST_COLUMNS)
    suites = [name for name in columns if all(ASSERTION.search(_lines(task.columns.get(name))) for task in tasks)]
    programs = [
        name
        for name in columns
        if (tested or suites or name in read or name in filled[:1] or not filled)
        and (name in GOLD_COLUMNS or name not in (*suites, *TEST_COLUMNS))
        and all(
            _defines(value := task.columns.get(name)) and str(value).strip() not in prompt_of(task) for task in tasks
        )
    ]
    if tested:  # `answer` of a code task may be anything
        filled.sort(key=lambda name: name not in ("canonical_solution", "solution", "completion"))
    others = [name for name in columns if name in read and any(text_of(task.columns.get(name)) for task in tasks)]
    filled += sorted(others, key=lambda name: not LIKE_ANSWER.search(name))
    programs.sort(key=lambda name: filled.index(name) if name in filled else len(filled))
    return programs or filled, programs, tested


def _is_held(text: str, values: Sequence[Any]) -> bool:
    """Whether a text is a part of one of some values, or all of its numbers are nearly some of them."""
    numbers = [abs(each) for each in values if isinstance(each, int | float) and not isinstance(each, bool)]
    own = [float(each) for each in re.findall(r"[0-9]+(?:\.[0-9]+)?", text)]
    near = [any(abs(each - other) <= NEARLY * other for other in numbers) for each in own]
    return any(text in text_of(value) for value in values) or (bool(own) and all(near))


def is_short(value: Any) -> bool:
    """Whether a value may fill a place on a line."""
    if isinstance(value, str):
        return 0 < len(value) <= SHORT and "\n" not in value
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_column(tasks: Sequence[Task], column: str | None) -> list[str]:
    """The columns that some task has. Raises InputError where the one with the reference answers is named and is none
    of them."""
    columns = list(dict.fromkeys(name for task in tasks for name in task.columns))
    if column is not None and column not in columns:
        raise InputError(
            f"--answer-column {column}: no such column; the tasks have {', '.join(columns) or 'no columns'}"
        )
    return columns


def text_of(value: Any) -> str:
    """A gold as the text that a response would hold; empty where there is none."""
    if value is None or isinstance(value, bool):
        return "" if value is None else str(value)
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, int | float):
        return f"{value:g}" if isinstance(value, float) and abs(value) < 1e6 else str(value)
    if isinstance(value, list | tuple) and value and all(isinstance(m, Mapping) and "content" in m for m in value):
        return str(value[-1]["content"]).strip()  # a conversation: its last message
    if isinstance(value, list | tuple) and value and all(isinstance(part, str) for part in value):
        return ", ".join(value)
    return json.dumps(value, ensure_ascii=False)


def _type(task: Task, value: Any, text: str, code: bool) -> AnswerType:
    final = final_of(text)
    if code:
        return "code"
    if isinstance(value, dict) or (text[:1] in "{[" and as_json(text) != text and not INTERVALS.search(task.asked)):
        return "json"
    if LETTER.fullmatch(text) and len(set(OPTIONS.findall(task.asked))) > 1:
        return "choice"
    if 0 < len(final) <= LONGEST_NUMBER and NUMBER.fullmatch(final) and any(c.isdigit() for c in final):
        return "number"
    if len(final.split()) <= STRING_WORDS and FORMULA.search(final) and not _is_name(task, final):
        return "expression"
    words = len(text.split())
    sentence = words >= SENTENCE_WORDS and text.endswith((".", "!", "?"))
    items = text.count(",") > 1 and all(len(item.split()) <= ITEM_WORDS for item in text.split(","))
    return "string" if (words <= STRING_WORDS or items) and "\n" not in text and not sentence else "text"


def final_of(gold: str) -> str:
    r"""The final answer of a gold that is a worked solution: what stands in its last `\boxed{}` or behind its last
    `####`; else the gold."""
    if match := re.search(r"\\boxed\{((?:[^{}]|\{[^{}]*\})*)\}(?!.*\\boxed)", gold, re.DOTALL):
        return match[1].strip()
    if "####" in gold:
        return gold.rpartition("####")[2].strip()
    return gold


def without_form(texts: Sequence[str], prompts: Sequence[str]) -> list[str]:
    """The answers inside references that all have one form, such as `Answer: 42`, with or without work before it; the
    references unchanged where they have no form in common. An object of JSON is no form."""
    for form in (*FORMS, *shown_forms(prompts)):
        before, after = form.before.strip(), form.after.strip()
        if not MARK.search(form.before) or before.startswith("{"):
            continue
        gap = r"[^\S\n]*\n" if form.before.endswith("\n") else ""
        pattern = re.compile(rf"(?:.*\s)?{re.escape(before)}{gap}\s*(\S.*?)\s*{re.escape(after)}", re.DOTALL)
        found = [pattern.fullmatch(text.strip()) for text in texts]
        if found and all(found):
            return [match[1] for match in found if match]
    return list(texts)


def _is_name(task: Task, text: str) -> bool:
    """Whether signs in a text are no operations: a date, 555-1234, SKU-12, self-made, 9 m/s, a pattern."""
    if DATE.fullmatch(text) or PATTERNS.search(task.asked):
        return True
    words = [word for word in re.findall(r"(?<![\\A-Za-z])[A-Za-z]{3,}", text) if word.casefold() not in FUNCTIONS]
    return (bool(words) and "\\" not in text) or MEASURED.fullmatch(text) is not None


def _lines(value: Any) -> str:
    """A text, or a list of texts as lines; empty for anything else."""
    if isinstance(value, list | tuple) and all(isinstance(part, str) for part in value):
        return "\n".join(value)
    return value if isinstance(value, str) else ""


def _is_script(text: str) -> bool:
    """Whether a text is one or more statements of Python, maybe the body of a function; not a lone value."""
    tree = parsed(textwrap.dedent(text))
    alone = tree is not None and len(tree.body) == 1 and isinstance(tree.body[0], ast.Expr)
    return tree is not None and (not alone or "print(" in text)


def _defines(value: Any) -> bool:
    """Whether a value is a Python program that defines a function."""
    if not isinstance(value, str) or "def " not in value:
        return False
    fenced = FENCED.fullmatch(value.strip())
    tree = parsed(fenced[1] if fenced else value)
    return tree is not None and any(isinstance(node, ast.FunctionDef) for node in tree.body)


def parsed(text: str) -> ast.Module | None:
    """The syntax of a program of Python; None of another text."""
    with suppress(SyntaxError, ValueError, RecursionError, MemoryError):
        return ast.parse(text)
    return None


def as_json(text: str) -> Any:
    """The value of a text of JSON; of another one the text itself."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
