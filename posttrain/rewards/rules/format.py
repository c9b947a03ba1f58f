"""Rewards that look at the form of a response alone."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import pairwise
from json import dumps, loads
from typing import Any

from posttrain.expressions import finite
from posttrain.rewards.extract import strip_thinking
from posttrain.tool_calls import distinct_keys

FENCE = re.compile(r" {0,3}(`{3,}|~{3,})(.*)")
HEADING = re.compile(r"(#+)(.*)")
LIST_ITEM = re.compile(r"[ \t]*(?:([-*+])|([0-9]{1,9})[.)])(?:[ \t]+(.*))?")
RULE_OR_BOLD = re.compile(r"[ \t]*(?:([-*_])[ \t]*(?:\1[ \t]*){2,}|\*\*.*)")
FILLERS = frozenset("\u115f\u1160\u2800\u3164\uffa0\U0001d159")
"""Letters and signs of Unicode that are drawn as blanks."""
PASSAGE_LETTERS = 50
"""A language is told from no fewer letters than these, where the text has them."""


def format(response: str, *, think_tag: str = "think", answer_tag: str = "answer") -> float:
    """1.0 if the response is exactly `<think>…</think><answer>…</answer>`, else 0.0.

    The first tag may be missing, since some chat templates open it at the end of the prompt. Both parts must hold
    something visible; whitespace may stand before, between and after them; each tag occurs once and in this order, so
    nothing is nested and nothing is said outside. `think_tag` and `answer_tag` name the two tags. Range {0, 1}, no
    unit; never fails. Source: the format reward of DeepSeek-R1 (arXiv:2501.12948, section 2.2.2), made exact."""
    in_order = [f"<{think_tag}>", f"</{think_tag}>", f"<{answer_tag}>", f"</{answer_tag}>"]
    tag = re.compile("|".join(map(re.escape, in_order)))
    found = tag.findall(response)
    if found == in_order[1:]:
        response = in_order[0] + response
    elif found != in_order:
        return 0.0
    before, thought, between, answer, after = tag.split(response)
    outside = before + between + after
    return float(not outside.strip() and visible(thought) and visible(answer))


def json(response: str, *, schema: Mapping[str, Any] | bool | str | None = None) -> float:
    """1.0 if the response is JSON, and fits `schema` where there is one, else 0.0.

    After the thinking, the JSON is the whole response or its only fenced code block. As in RFC 8259 there is no NaN or
    Infinity, no number too large for a double (1e999), and no object may name a key twice. `schema` is a JSON schema,
    as a mapping or as text; it may point to its own parts only, `format` is an annotation. Range {0, 1}, no unit. Fails
    on a schema that is none.
    Source: RFC 8259; JSON Schema (draft 2020-12 unless `$schema` says otherwise), checked by `jsonschema`."""
    text = strip_thinking(response).strip()
    blocks = fenced_blocks(text)
    for candidate in [text, *blocks] if len(blocks) == 1 else [text]:
        try:
            value = strict_json(candidate)
        except (ValueError, RecursionError):
            continue
        if schema is None:
            return 1.0
        return float(_validator(schema if isinstance(schema, str) else dumps(schema)).is_valid(value))
    return 0.0


def regex(response: str, *, pattern: str, anywhere: bool = False) -> float:
    """1.0 if the response without surrounding whitespace matches `pattern`, else 0.0.

    The pattern must match all of it, or with `anywhere` some part; `.` does not match a line break unless the pattern
    begins with `(?s)`. Range {0, 1}, no unit. Fails on a pattern that is none, and on one that backtracks without end
    (`(a+)+b`): the worker is killed at the deadline, so that such a response is unscored and costs nobody else.
    Source: Python's `re`."""
    compiled = re.compile(pattern)
    return float((compiled.search if anywhere else compiled.fullmatch)(response.strip()) is not None)


def markdown(response: str, *, min_headings: int = 0, min_items: int = 0, min_blocks: int = 0) -> float:
    """1.0 if the response is well-formed markdown with at least so many headings, list items and code blocks, else 0.0.

    Well-formed: something is visible; every code fence is closed; a heading is one to six `#`, a blank and text, and is
    at most one level below the heading before it; no list item is empty; each number of a numbered list is 1 or one
    more than the number before it. Empty code blocks do not count. A line that begins with a number sign
    is taken for a heading, so a hashtag there is malformed. Range {0, 1}, no unit; never fails. Source: the block
    structure of CommonMark 0.31, stricter where it lets malformed markers pass as text."""
    outside, blocks, closed = _split_fences(response)
    headings = [match for line in outside if (match := HEADING.fullmatch(line))]
    items = [match for line in outside if not RULE_OR_BOLD.fullmatch(line) and (match := LIST_ITEM.fullmatch(line))]
    filled = [block for block in blocks if visible("".join(block))]
    enough = len(headings) >= min_headings and len(items) >= min_items and len(filled) >= min_blocks
    whole = visible(response) and all(visible(item.group(3) or "") for item in items)
    return float(enough and closed and whole and _headings_fit(headings) and _numbers_rise(outside))


def keywords(response: str, *, keywords: Sequence[str] = (), forbidden_words: Sequence[str] = ()) -> float:
    """The share of `keywords` that occur in the response; 0.0 if any of `forbidden_words` does.

    Whole words (or phrases) without regard to case or invisible characters: `art` is not in `party`. Letters of other
    scripts that look alike are not told apart. Range [0, 1], a share of keywords; 1.0 where none is asked for and none
    forbidden occurs, and 0.0 for an empty response. Fails where a list is no list of texts, or both are empty.
    Source: the keyword constraints of IFEval (arXiv:2311.07911), on whole words."""
    if not keywords and not forbidden_words:
        raise ValueError("keywords needs a list of keywords or of forbidden_words, and has neither")
    wanted_words, forbidden = _words("keywords", keywords or ()), _words("forbidden_words", forbidden_words or ())
    text = without_invisible(response)
    wanted = [_occurs(word, text) for word in wanted_words]
    if not visible(text) or any(_occurs(word, text) for word in forbidden):
        return 0.0
    return sum(wanted) / len(wanted) if wanted else 1.0


def language(response: str, *, language: str = "en") -> float:
    """The share of the response's letters that stand in passages of the language.

    A passage is as many lines as hold 50 letters; code blocks do not count. A response without a letter has 0.0.
    `language` is an ISO 639-1 code such as en, de, zh. Range [0, 1], a share of letters. Fails on an unknown code.
    Limits: a line in two languages counts as one, and texts below some 20 letters, names and formulas are often taken
    for another language; kin such as Croatian and Bosnian are mixed up.
    Source: the language consistency reward of DeepSeek-R1 (arXiv:2501.12948, section 2.3.2); py3langid tells them."""
    known = languages()
    if language not in known:
        raise ValueError(f"no language {language!r} is known; known are {', '.join(known)}")
    counted = [(detect_language(passage), _letters(passage)) for passage in _passages(response)]
    total = sum(letters for _, letters in counted)
    return sum(letters for found, letters in counted if found == language) / total if total else 0.0


def visible(text: str) -> bool:
    """Whether a text shows anything: a letter, digit, sign or symbol that is no blank."""
    return any(unicodedata.category(c)[0] in "LNPS" and c not in FILLERS for c in text)


def without_invisible(text: str) -> str:
    """The text without characters of format, such as zero-width blanks, and without fillers."""
    if text.isascii():
        return text
    return "".join(c for c in text if unicodedata.category(c) != "Cf" and c not in FILLERS)


def strict_json(text: str) -> Any:
    """The value of a JSON text. Raises ValueError for none, NaN, Infinity, a number that a double cannot hold and a key
    that occurs twice; RecursionError for what is nested too deeply."""
    return loads(text, parse_constant=finite, parse_float=finite, object_pairs_hook=distinct_keys)


def fenced_blocks(text: str) -> list[str]:
    return ["\n".join(block) for block in _split_fences(text)[1]]


def detect_language(text: str) -> str:
    """The ISO 639-1 code of the likeliest language."""
    import py3langid  # it reads a model of 4 MB

    return str(py3langid.classify(text)[0])


@cache
def languages() -> tuple[str, ...]:
    import py3langid

    return tuple(sorted(code for code, _ in py3langid.rank("")))


@cache
def _validator(schema: str) -> Any:
    """Raises ValueError for text that is no JSON, jsonschema's SchemaError for JSON that is no schema."""
    from jsonschema.validators import Draft202012Validator, validator_for
    from referencing import Registry

    parsed = loads(schema)
    kind = validator_for(parsed, default=Draft202012Validator)
    kind.check_schema(parsed)
    return kind(parsed, registry=Registry())  # without it a reference to another document would be fetched


def _split_fences(text: str) -> tuple[list[str], list[list[str]], bool]:
    """The lines outside code blocks, the lines of each block, and whether the last block was closed."""
    outside: list[str] = []
    blocks: list[list[str]] = []
    fence = ""
    for line in text.splitlines():
        match = FENCE.fullmatch(line)
        if fence:
            if match and match[1].startswith(fence) and not match[2].strip():
                fence = ""
            else:
                blocks[-1].append(line)
        elif match and not (match[1][0] == "`" and "`" in match[2]):
            fence = match[1]
            blocks.append([])
        else:
            outside.append(line)
    return outside, blocks[: len(blocks) - bool(fence)], not fence


def _headings_fit(headings: Sequence[re.Match[str]]) -> bool:
    levels = [len(heading[1]) for heading in headings]
    formed = all(len(h[1]) <= 6 and h[2].startswith((" ", "\t")) and visible(h[2].strip(" \t#")) for h in headings)
    return formed and all(after <= before + 1 for before, after in pairwise(levels))


def _numbers_rise(lines: Sequence[str]) -> bool:
    """Within each indentation; a line of text at the margin that is no item ends the lists."""
    last: dict[int, int] = {}
    for line in lines:
        match, indent = LIST_ITEM.fullmatch(line), len(line) - len(line.lstrip())
        if match and match[2]:
            number, before = int(match[2]), last.get(indent)
            if before is not None and number not in (before + 1, 1):
                return False
            last = {deep: n for deep, n in last.items() if deep < indent} | {indent: number}
        elif line.strip() and indent == 0:
            last = {}
    return True


def _words(name: str, words: Any) -> Sequence[str]:
    if isinstance(words, str) or not all(isinstance(word, str) and word.strip() for word in words):
        raise ValueError(f"{name} must be a list of words, not {words!r}")
    return words


def _occurs(word: str, text: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(word.strip())}(?!\w)", text, re.IGNORECASE) is not None


def _letters(text: str) -> int:
    return sum(map(str.isalpha, text))


def _passages(text: str) -> list[str]:
    passages: list[list[str]] = [[]]
    letters = 0
    for line in filter(_letters, _split_fences(text)[0]):
        if letters >= PASSAGE_LETTERS:
            passages.append([])
            letters = 0
        passages[-1].append(line)
        letters += _letters(line)
    if len(passages) > 1 and letters < PASSAGE_LETTERS:
        rest = passages.pop()
        passages[-1] += rest
    return ["\n".join(passage) for passage in passages]
