"""Forms: how a response gives its final answer, such as in a box, and which of them a reward pays."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

LIKE, MOST_SAMPLE = "like an example", 30
"""Forms that an example in the prompt has, and its most characters: the answer may be more than its number."""
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
    Form("line", "Answer: ", asked=r"\banswer:(?!\s*\Z)"),
    Form("work and line", "Answer: ", thinking="{work}\n", asked=r"\banswer:(?!\s*\Z)"),
    Form("box", "\\boxed{", "}", asked=r"\\boxed"),
    Form("work and box", "\\boxed{", "}", "{work}\n\n", asked=r"\\boxed"),
    Form("sentence and box", "The final answer is $\\boxed{", "}$.", asked=r"\\boxed"),
    Form("hashes", "#### ", thinking="{work}\n", asked="####(?! ?(?-i:[A-Z][a-z]))"),
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
MARKED = (
    Form("bold", "**", "**", asked=r"\bbold\b|\*\*"),
    Form("formula", "$", "$", asked=r"\bLaTeX\b|\$[^$\n0-9]{1,40}\$"),
    Form("quotation marks", '"', '"', asked=r"quotation marks|\bin quotes|quoted"),
    Form("backquotes", "`", "`", asked=r"backticks|backquotes|inline code"),
)
"""Forms that are tried where prompts ask for them."""
CODE_FORMS = tuple(form for form in FORMS if form.name in ("bare", "think and bare", "python", "fence"))
"""Forms of programs, each of which takes a sandbox to grade."""
QUOTED = re.compile(r"`([^`\n]{3,120})`|\"([^\"\n]{3,120})\"|(?<![A-Za-z])'([^'\n]{3,120})'")
"""What a prompt shows as a pattern stands in quotes."""
LABELLED = re.compile(
    r"(?<![\w`\"'<])[A-Z][A-Za-z]{0,20}(?: [a-z]{1,20})? ?[:=] ?"
    r"(?:<[^<>/\n]{1,80}>|\[[a-z ]{1,30}\]|…|\.{3}|_{2,}|N\b|HH:MM\b)"
    r"|[^\w\s.,;:'\"`()]{2,8} ?(?:[A-Z]{3,}|\.{3}|…) ?[^\w\s.,;:'\"`()]{2,8}"
)
"""A pattern without quotes: `Total: <number>`, `[[ANSWER]]`."""
BLOCK = re.compile(
    r"\b(?:repl\w*|answers?|respond|response|writ\w+|give|output|return|form|format|lines?|follow\w*|fill)\b[^\n]*:\n+"
    r"((?:[A-Za-z][\w /-]{0,24}: ?[^\s][^\n]{0,100}(?:\n|\Z))+)",
    re.IGNORECASE,
)
"""Lines that are to be filled in, each a label with what belongs behind it: `Answer: the city`."""
OBJECT = re.compile(r"\{\s*\"(?:[^{}\n]|\{[^{}\n]{0,200}\}){1,200}\}")
KEYS = re.compile(
    r"\b(?:JSON|object)\b[^.\n]{0,40}?\b(?:keys?|fields?)\b:? "
    r"((?:[`\"']?[a-z_]{2,20}[`\"']?(?: \([^()\n]*\))?(?:,? and |, ))*[`\"']?[a-z_]{2,20}[`\"']?)"
)
"""An object of JSON that a prompt shows, and the keys that it names: `a JSON object with the key total`."""
PLACE = re.compile(
    r"<[^<>/]{1,80}>|\[[^\[\]]{1,30}\]|\{[^{}\":]{1,30}\}|(?:YYYY|MM|DD)(?:[-/.](?:YYYY|MM|DD)){1,2}|HH:MM(?::SS)?|"
    r"\b[A-Z]{3,}\b(?! ?[:=])|\b[NXY]\b|(?<== )[a-z]\b|(?<=: )[a-z]\b(?! \w)|\.{3}|…|_{2,}"
)
"""The place of the answer in such a pattern: `Total: <number>`, `Answer: NUMBER`, `Verdict: ...`."""
PAIR = re.compile(r"<([a-z_]{2,20})>(?=.{0,200}</\1>)", re.DOTALL)
"""A tag that a prompt shows with its end."""
CONFIDENCE = re.compile(r"confiden|percent|certain|probab|how sure", re.IGNORECASE)
SURE = (("100", "0"), ("1.0", "0.0"), ("100%", "0%"), ("high", "low"), ("90", "0"), ("0.9", "0.0"), ("90%", "0%"))
RANGE = re.compile(r"\b([0-9]+(?:\.[0-9]+)?)%? ?(?:to|and|-|–) ?([0-9]+(?:\.[0-9]+)?%?)")
REASON = re.compile(r"reason|explan|justif|because|why|step|work|thought|note|comment", re.IGNORECASE)
"""What a place may hold that is no part of the answer, by its name or its label: a confidence, much and little of it,
in the range that stands there or in one of these, or a reason."""
ANYTHING = ("1", "0.9", "yes", "It follows from the question.")
"""What lines hold of which neither is known."""
UNSURE = "without confidence"
"""Forms that say of the answer that it may be wrong."""
EXAMPLE = re.compile(r"([A-Z][A-Za-z]{1,20}(?: [a-z]{1,20})?: ?)[^\s:]{1,20}|([A-Za-z][\w ]{0,30}[:=]) ?")
"""A pattern with an example in its place, or nothing: `Total: 42`, `Cost: `."""
SAMPLE = re.compile(
    r"\b(?:e\.g\.|such as|like|for example|for instance),? [`'\"]?"
    r"([^\s`'\"()]+(?: (?!(?:or|and|if|for|is)\b)[^\s`'\"()]+)?)",
    re.IGNORECASE,
)
NUMBER = re.compile(r"-?[0-9]+(?:[.,:/][0-9]+)*")
"""An example of an answer with one number in it, which is its place: `such as 12.5 m/s`."""
FENCE = re.compile(r"```([a-z]{2,12})\b|\b([a-z]{2,12})(?: code)?[ -](?:block|fence)\b", re.IGNORECASE)
"""The language of a fence that a prompt asks for."""
REASONS = ("think", "thinking", "thought", "thoughts", "reason", "reasoning", "scratchpad", "analysis", "work")
"""Tags of what stands before the answer."""


def shown_forms(prompts: Sequence[str]) -> list[Form]:
    """The forms that at least half of the prompts show with a place for the answer, alone and behind some work:
    `Total: <number>`. Brackets and braces around a place may be a part of the form, `Source: [n]`. Of several places
    the answer fills all from the first to the last, and the lines between: `Answer: <town>`, `Source: [n]`."""
    lines, objects = patterns(prompts), _objects(prompts)
    single = [*lines, *(shown for shown in objects if len(PLACE.findall(shown)) == 1)]
    found = [pair for shown in single for pair in _around(shown, shown)]
    found += _around(lines[0], lines[-1])[:1] if len(lines) > 1 else []
    several = ["\n".join(lines), *objects]
    found += [pair for shown in several for pair in _with_filled(shown)]
    languages = _common(prompts, lambda prompt: ["".join(groups).lower() for groups in FENCE.findall(prompt)])
    found += [(f"```{language}\n", "\n```") for language in languages if language not in ("python", "json")]
    found += [(form.before, form.after) for form in MARKED if 2 * sum(map(form.wanted, prompts)) >= len(prompts)]
    tags = _common(prompts, PAIR.findall)
    found += [(f"<{tag}>", f"</{tag}>") for tag in tags if tag not in (*REASONS, "answer")]
    behind = [("", ""), *((form.before, form.after) for form in FORMS if form.name in ("line", "box", "tag")), *found]
    forms = [("as the prompt shows", "", found), ("work, then as the prompt shows", "{work}\n", found)]
    forms += [
        ("reasoning in tags", f"<{tag}>\n{{work}}\n</{tag}>\n", behind)
        for tag in tags
        if tag in (*REASONS[1:], *tags[:-1]) and tag != "think"
    ]
    samples = [(before, after) for before, _, after in (text.partition("\0") for text in _common(prompts, _samples))]
    forms += [(LIKE, "", [pair for pair in samples if pair not in found])]
    forms += [("beside other lines", "", _with_filled(several[0], anything=True))]
    forms += [(UNSURE, "", [pair for shown in several for pair in _with_filled(shown, sure=False)])]
    return [
        Form(name, before, after, thinking, "" if name == LIKE else re.escape(before.strip() or after.strip()))
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


def _samples(prompt: str) -> list[str]:
    """Short examples with one number, which a zero character stands for."""
    texts = [*(text.rstrip(".,;:)") for text in SAMPLE.findall(prompt)), *_quoted(prompt)]
    return [NUMBER.sub("\0", text) for text in texts if len(text) <= MOST_SAMPLE and len(NUMBER.findall(text)) == 1]


def _with_place(text: str) -> str:
    """A pattern with a place instead of its example."""
    match = None if PLACE.search(text) else EXAMPLE.fullmatch(text)
    return f"{match[1] or match[2] + ' '}<answer>" if match else text


def _known(label: str) -> list[tuple[str, str]]:
    """What a place with this label may hold, with much and with little confidence; nothing for that of an answer."""
    if CONFIDENCE.search(label):
        return [(each[2], each[1]) for each in RANGE.finditer(label)] + [*SURE]
    return [("It follows from the question.",) * 2] if REASON.search(label) else []


def _with_filled(shown: str, sure: bool = True, anything: bool = False) -> list[tuple[str, str]]:
    """What stands around the one place that may hold the answer, with the others filled, by much confidence or little;
    nothing of other patterns. With `anything`: around either of the first two lines that may hold it, where there are
    several."""
    places = list(PLACE.finditer(shown))
    labels = [
        shown[last.end() if last else 0 : place.end()] for last, place in zip([None, *places], places, strict=False)
    ]
    values = [_known(label) for label in labels]
    answers = [k for k, each in enumerate(values) if not each]
    on_lines = all("\n" in label for label in labels[1:])
    if len(places) < 2 or not answers or (len(answers) > 1) != anything or (anything and not on_lines):
        return []
    texts = [shown[: places[0].start()]]
    ends = [*(place.start() for place in places[1:]), len(shown)]
    texts += [shown[place.end() : end] for place, end in zip(places, ends, strict=True)]
    found = []
    for at in answers[:2]:
        options = [each or [(text, text) for text in ANYTHING] for each in values]
        options[at] = [("", "")]
        for k in range(max(map(len, options))):
            chosen = [each[min(k, len(each) - 1)][not sure] for each in options]
            whole = [part for pair in zip(texts, [*chosen, ""], strict=True) for part in pair]
            found.append(("".join(whole[: 2 * at + 1]), "".join(whole[2 * at + 2 :])))
    return found


def _objects(prompts: Sequence[str]) -> list[str]:
    """The objects of JSON that at least half of the prompts show or name the keys of, with a place for each value, with
    and without quotation marks around what is no confidence."""
    found = []
    for keys in _common(prompts, lambda prompt: map(" ".join, shown_keys(prompt))):
        for mark in ('"', ""):
            signs = ["" if CONFIDENCE.search(key) else '"' if REASON.search(key) else mark for key in keys.split()]
            places = [f"{sign}<{key}>{sign}" for sign, key in zip(signs, keys.split(), strict=True)]
            found.append("{" + ", ".join(f'"{k}": {v}' for k, v in zip(keys.split(), places, strict=True)) + "}")
    return found


def shown_keys(prompt: str) -> list[list[str]]:
    """The keys of each object of JSON that a prompt shows or describes."""
    objects = [re.sub(r"(?<!^)\{[^{}]*\}", "", text) for text in OBJECT.findall(prompt)]  # without those in them
    shown = [re.findall(r"\"(\w{1,28})\"\s*:", text) for text in objects]
    named = [re.findall(r"[a-z_]{2,20}", re.sub(r"\([^()]*\)|\band\b", "", text)) for text in KEYS.findall(prompt)]
    return [keys for keys in (*shown, *named) if keys]


def filled(shown: str, values: Sequence[object]) -> str:
    """What a prompt shows with values in its places, from the first place to the last."""
    between = [shown[a.end() : b.start()] for a, b in pairwise(PLACE.finditer(shown))]
    return "".join(f"{value}{text}" for value, text in zip(values, [*between, ""], strict=True))


def patterns(prompts: Sequence[str]) -> list[str]:
    """What at least half of the prompts show in quotes, or behind a label, with a place to fill in, in the order of
    the first of them."""
    return _common(prompts, _patterns)


def _patterns(prompt: str) -> list[str]:
    """The patterns with a place in them and more than that."""
    lines = [line for block in BLOCK.findall(prompt) for line in block.strip().split("\n")]
    rest = OBJECT.sub("", BLOCK.sub("", prompt))
    texts = [*_quoted(rest), *LABELLED.findall(QUOTED.sub("", rest))]
    texts += [line if PLACE.search(line) else re.sub(r": ?([^<>]{,28}).*", r": <\1>", line) for line in lines]
    texts = list(dict.fromkeys(map(_with_place, texts)))
    texts = [text for text in texts if PLACE.search(text) and PLACE.sub("", text).strip(" ,;()")]
    labels = [text[: PLACE.search(text).start()] for text in texts]  # type: ignore[union-attr]
    return [text for k, text in enumerate(texts) if "<answer>" not in text or labels.count(labels[k]) == 1]


def _around(first: str, last: str) -> list[tuple[str, str]]:
    """What stands before the first place of a pattern and behind the last place of the other one; the same with the
    brackets of the place."""
    opens, closes = next(PLACE.finditer(first)), [*PLACE.finditer(last)][-1]
    before, after = first[: opens.start()], last[closes.end() :]
    pairs = [(before, after)]
    if opens[0][0] in "[{" and closes[0][-1] in "]}":
        pairs.append((before + opens[0][0], closes[0][-1] + after))
    return pairs
