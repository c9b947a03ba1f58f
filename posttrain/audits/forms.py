"""Forms: how a response gives its final answer, such as in a box, and which of them a reward pays."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

THINKING = "I work it out step by step."


@dataclass(frozen=True)
class Form:
    """A way to give an answer. `before` and `after` stand around it, `thinking` in front of both. `asked` finds in a
    prompt that it asks for this form."""

    name: str
    before: str = ""
    after: str = ""
    thinking: str = ""
    asked: str = ""

    def render(self, answer: str, work: str = THINKING) -> str:
        return f"{self.thinking.format(work=work)}{self.mark(answer)}"

    def mark(self, answer: str) -> str:
        """The answer in its form, without reasoning."""
        return f"{self.before}{answer}{self.after}"

    def wanted(self, prompt: str) -> bool:
        return bool(self.asked) and re.search(self.asked, prompt, re.IGNORECASE) is not None


THINK = "<think>\n{work}\n</think>\n"
FORMS: tuple[Form, ...] = (
    Form("bare"),
    Form("sentence", "The answer is ", "."),
    Form("line", "Answer: ", asked=r"\banswer:"),
    Form("work and line", "Answer: ", thinking="{work}\n", asked=r"\banswer:"),
    Form("box", "\\boxed{", "}", asked=r"\\boxed"),
    Form("work and box", "\\boxed{", "}", "{work}\n\n", asked=r"\\boxed"),
    Form("sentence and box", "The final answer is $\\boxed{", "}$.", asked=r"\\boxed"),
    Form("hashes", "#### ", thinking="{work}\n", asked="####"),
    Form("tag", "<answer>", "</answer>", asked="<answer>"),
    Form("think and bare", "", "", THINK, asked="<think>"),
    Form("think and tag", "<answer>\n", "\n</answer>", THINK, asked="<think>"),
    Form("think and tag on a line", "<answer>", "</answer>", THINK, asked="<think>"),
    Form("think and box", "\\boxed{", "}", THINK, asked="<think>"),
    Form("think and line", "Answer: ", thinking=THINK, asked="<think>"),
    Form("python", "```python\n", "\n```", asked="python|function|program|code"),
    Form("fence", "```\n", "\n```"),
    Form("json", "```json\n", "\n```", asked="json"),
    Form("json object", '{"answer": "', '"}', asked=r'"answer"'),
)
CODE_FORMS = tuple(form for form in FORMS if form.name in ("bare", "think and bare", "python", "fence"))
"""Forms of programs, each of which takes a sandbox to grade."""
QUOTED = re.compile(r"`([^`\n]{3,120})`|\"([^\"\n]{3,120})\"|(?<![A-Za-z])'([^'\n]{3,120})'")
"""What a prompt shows as a pattern stands in quotes."""
LABELLED = re.compile(r"(?<![\w`\"'])[A-Z][A-Za-z]{1,20}(?: [a-z]{1,20})?: ?<[^<>/\n]{1,30}>")
"""A pattern without quotes: `Total: <number>`."""
PLACE = re.compile(
    r"<[^<>/]{1,30}>|\[[^\[\]]{1,30}\]|\{[^{}\":]{1,30}\}|(?:YYYY|MM|DD)(?:[-/.](?:YYYY|MM|DD)){1,2}|\b[A-Z]{3,}\b|"
    r"\b[NXY]\b|\.{3}|…"
)
"""The place of the answer in such a pattern: `Total: <number>`, `Answer: NUMBER`, `Verdict: ...`."""
PAIR = re.compile(r"<([a-z_]{2,20})>(?=.{0,60}</\1>)", re.DOTALL)
"""A tag that a prompt shows with its end."""
FILLED = (
    (re.compile(r"confiden|percent|certain|probab", re.IGNORECASE), "90"),
    (re.compile(r"reason|explan|justif|because|why|step|work|thought", re.IGNORECASE), "It follows from the question."),
)
"""What a place may hold that is no part of the answer, by its name or its label."""
EXAMPLE = re.compile(r"([A-Z][A-Za-z]{1,20}(?: [a-z]{1,20})?: ?)[^\s:]{1,20}")
"""A pattern with an example in its place: `Total: 42`."""
REASONS = ("think", "thinking", "thought", "thoughts", "reason", "reasoning", "scratchpad", "analysis", "work")
"""Tags of what stands before the answer."""


def shown_forms(prompts: Sequence[str]) -> list[Form]:
    """The forms that at least half of the prompts show with a place for the answer, alone and behind some work:
    `Total: <number>`. Brackets and braces around a place may be a part of the form, `Source: [n]`. Of several places
    the answer fills all from the first to the last, and the lines between: `Answer: <town>`, `Source: [n]`."""
    found = [pair for pattern in patterns(prompts) for pair in _around(pattern, pattern)]
    if len(lines := patterns(prompts)) > 1:
        found += _around(lines[0], lines[-1])[:1]
    found += _with_filled("\n".join(lines))
    found += [(label, "") for label in _common(prompts, lambda prompt: map(_example, _quoted(prompt))) if label]
    tags = _common(prompts, PAIR.findall)
    found += [(f"<{tag}>", f"</{tag}>") for tag in tags if tag not in (*REASONS, "answer")]
    behind = [("", ""), *((form.before, form.after) for form in FORMS if form.name in ("line", "box", "tag")), *found]
    forms = [("as the prompt shows", "", found), ("work, then as the prompt shows", "{work}\n", found)]
    forms += [("reasoning in tags", f"<{tag}>\n{{work}}\n</{tag}>\n", behind) for tag in tags if tag in REASONS[1:]]
    return [
        Form(name, before, after, thinking, re.escape(before.strip() or after.strip()))
        for name, thinking, pairs in forms
        for before, after in dict.fromkeys(pairs)
        if (thinking + before + after).strip("{work}\n")
    ]


def _common(prompts: Sequence[str], of: Callable[[str], Iterable[str]]) -> list[str]:
    """What is found in at least half of the prompts, in the order of the first of them."""
    found = Counter(text for prompt in prompts for text in dict.fromkeys(of(prompt)))
    return [text for text, count in found.items() if 2 * count >= len(prompts)]


def _quoted(prompt: str) -> list[str]:
    return ["".join(groups) for groups in QUOTED.findall(prompt)]


def _example(text: str) -> str:
    match = EXAMPLE.fullmatch(text)
    return match[1] if match and not PLACE.search(text) else ""


def _with_filled(shown: str) -> list[tuple[str, str]]:
    """What stands around the one place that FILLED knows nothing for, with the others filled; nothing of other
    patterns."""
    places = list(PLACE.finditer(shown))
    labels = [
        shown[last.end() if last else 0 : place.end()] for last, place in zip([None, *places], places, strict=False)
    ]
    values = [next((value for name, value in FILLED if name.search(label)), None) for label in labels]
    if len(places) < 2 or values.count(None) != 1:
        return []
    at, texts = values.index(None), [shown[: places[0].start()]]
    ends = [*(place.start() for place in places[1:]), len(shown)]
    texts += [shown[place.end() : end] for place, end in zip(places, ends, strict=True)]
    before = "".join(text + (value or "") for text, value in zip(texts[: at + 1], values[: at + 1], strict=True))
    after = texts[at + 1] + "".join(
        value + text for value, text in zip(values[at + 1 :], texts[at + 2 :], strict=True) if value
    )
    return [(before, after)]


def patterns(prompts: Sequence[str]) -> list[str]:
    """What at least half of the prompts show in quotes, or behind a label, with a place to fill in, in the order of
    the first of them."""
    return _common(prompts, _patterns)


def _patterns(prompt: str) -> list[str]:
    """The patterns with a place in them and more than that."""
    texts = [*_quoted(prompt), *LABELLED.findall(QUOTED.sub("", prompt))]
    return [text for text in texts if PLACE.search(text) and PLACE.sub("", text).strip(" ,;()")]


def _around(first: str, last: str) -> list[tuple[str, str]]:
    """What stands before the first place of a pattern and behind the last place of the other one; the same with the
    brackets of the place."""
    opens, closes = next(PLACE.finditer(first)), [*PLACE.finditer(last)][-1]
    before, after = first[: opens.start()], last[closes.end() :]
    pairs = [(before, after)]
    if opens[0][0] in "[{" and closes[0][-1] in "]}":
        pairs.append((before + opens[0][0], closes[0][-1] + after))
    return pairs
