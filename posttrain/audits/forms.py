"""Forms: how a response gives its final answer, such as in a box, and which of them a reward pays."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
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
QUOTED = re.compile(r"`([^`\n]{3,80})`|\"([^\"\n]{3,80})\"|(?<![A-Za-z])'([^'\n]{3,80})'")
"""What a prompt shows as a pattern stands in quotes."""
PLACE = re.compile(r"<[^<>/]{1,30}>|\[[^\[\]]{1,30}\]|\{[^{}]{1,30}\}|\b[A-Z]{3,}\b|\b[NXY]\b|\.{3}|…")
"""The place of the answer in such a pattern: `Total: <number>`, `Answer: NUMBER`, `Verdict: ...`."""


def shown_forms(prompts: Sequence[str]) -> list[Form]:
    """The forms that at least half of the prompts show in quotes with a place for the answer, alone and behind some
    work: `Total: <number>`."""
    found = Counter(pair for prompt in prompts for pair in set(_patterns(prompt)))
    common = [pair for pair, count in found.items() if 2 * count >= len(prompts)]
    return [
        Form(name, before, after, thinking, re.escape(before.strip() or after.strip()))
        for before, after in common
        for name, thinking in (("as the prompt shows", ""), ("work, then as the prompt shows", "{work}\n"))
    ]


def _patterns(prompt: str) -> list[tuple[str, str]]:
    """(what stands before the answer, what stands behind it) of each pattern that has one place and more than that."""
    texts = ["".join(groups) for groups in QUOTED.findall(prompt)]
    places = [(text, list(PLACE.finditer(text))) for text in texts]
    pairs = [(text[: found[0].start()], text[found[0].end() :]) for text, found in places if len(found) == 1]
    return [pair for pair in pairs if "".join(pair).strip()]
