"""Verifiable instruction constraints: the 25 kinds of IFEval.

Each kind is a function of the response and its parameters, which have the names of the benchmark's data.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any

from posttrain.data.columns import parsed_list
from posttrain.rewards.rules.format import detect_language, strict_json, visible

Check = Callable[..., bool]

OPTIONS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
ABBREVIATIONS = {"mr", "mrs", "ms", "dr", "prof", "st", "jr", "sr", "vs", "e.g", "i.e", "u.s", "u.k", "ph.d"}
OPENING, CLOSING = "\"'“‘([*_", "\"'”’)]*_"
POSTSCRIPTS = {"P.S.": r"\bp\.\s?s\.", "P.P.S": r"\bp\.\s?p\.\s?s"}
RULE = re.compile(r"([-*])[ \t]*(?:\1[ \t]*){2,}")
"""A line that markdown draws across the page."""


def constraints(
    response: str,
    constraints: Sequence[Mapping[str, Any]] | None = None,
    instruction_id_list: Sequence[str] | None = None,
    kwargs: Sequence[Mapping[str, Any]] | None = None,
    *,
    loose: bool = False,
    all_or_nothing: bool = False,
) -> float | None:
    """The share of the constraints that the response meets; with `all_or_nothing` 1.0 if it meets all, else 0.0.

    The column `constraints` is a list of `{"kind": "number_words", "relation": "at least", "num_words": 100}`, or
    IFEval's own columns `instruction_id_list` and `kwargs` say the same; a kind may be written with or without its
    group (`length_constraints:number_words`). `loose` accepts a constraint that any of eight forms of the response
    meets: with or without its asterisks, its first line, its last line. An empty response meets none.
    Range [0, 1], a share of constraints; null where there is none. Fails on an unknown kind, and on a parameter that is
    missing or unknown. The kinds are those of IFEval, its definitions kept but for these: keywords are texts and no
    regular expressions, sentences and words are told by rules of this module in place of NLTK's, languages by py3langid
    in place of langdetect, and a text without a letter is in no language; and where its code pays for nothing: a
    postscript begins a word, `---` is no bullet, two responses differ in more than case, blanks and punctuation, JSON
    is that of the reward `json`, and what shows nothing is no paragraph, response, highlight or title.
    Source: IFEval (arXiv:2311.07911) and its code in google-research/instruction_following_eval."""
    asked = _asked(constraints, instruction_id_list, kwargs)
    if not asked:
        return None
    forms = [form for form in (_loose_forms(response) if loose else [response]) if visible(form)]
    met = [any(check(form, **parameters) for form in forms) for check, parameters in asked]
    return float(all(met)) if all_or_nothing else sum(met) / len(met)


def _asked(
    constraints: Sequence[Mapping[str, Any]] | None,
    ids: Sequence[str] | None,
    kwargs: Sequence[Mapping[str, Any]] | None,
) -> list[tuple[Check, dict[str, Any]]]:
    """The check and the parameters of each constraint. Raises ValueError for an unknown kind."""
    constraints = parsed_list(constraints, "constraints", Mapping)
    ids, kwargs = parsed_list(ids, "instruction_id_list"), parsed_list(kwargs, "kwargs", Mapping)
    listed = list(constraints or [])
    if constraints is None and ids:
        given = kwargs or [{}] * len(ids)
        listed = [{"kind": kind, **parameters} for kind, parameters in zip(ids, given, strict=True)]
    asked = []
    for constraint in listed:
        parameters = {name: value for name, value in constraint.items() if value is not None and name != "kind"}
        kind = str(constraint.get("kind")).rpartition(":")[2]
        if kind not in KINDS:
            raise ValueError(f"there is no constraint of kind {kind!r}; there are {', '.join(KINDS)}")
        asked.append((KINDS[kind], parameters))
    return asked


def _loose_forms(response: str) -> list[str]:
    lines = response.split("\n")
    cuts = ["\n".join(lines[first : len(lines) - last]).strip() for first, last in product((0, 1), repeat=2)]
    cuts[0] = response
    return [*cuts, *(cut.replace("*", "") for cut in cuts)]


def sentences(text: str) -> list[str]:
    """The sentences of a text: they hold a letter or digit, and end with `.`, `!` or `?`, and closing quotes or
    brackets, before a word that does not begin in lower case; not with an abbreviation, an initial, or a number that
    begins them as in a list."""
    found, start, spoken = [], 0, False
    words = list(re.finditer(r"\S+", text))
    for word, following in zip(words, [*words[1:], None], strict=True):
        spoken = spoken or any(map(str.isalnum, word[0]))
        bare = word[0].rstrip(CLOSING)
        if not spoken or not bare.endswith((".", "!", "?")) or (following and following[0][0].islower()):
            continue
        stem = bare[:-1].lstrip(OPENING).lower()
        numbered = stem.isdigit() and not text[start : word.start()].strip()
        if bare.endswith(".") and (stem in ABBREVIATIONS or (len(stem) == 1 and stem != "i") or numbered):
            continue
        found.append(text[start : word.end()].strip())
        start, spoken = word.end(), False
    return [*found, text[start:].strip()] if spoken else found


def _holds(count: int, relation: str, threshold: int) -> bool:
    if relation not in ("less than", "at least"):
        raise ValueError(f"the relation must be 'less than' or 'at least', not {relation!r}")
    return count < threshold if relation == "less than" else count >= threshold


def existence(text: str, keywords: Sequence[str]) -> bool:
    """Every keyword occurs, also inside a word, in any case."""
    return all(keyword.lower() in text.lower() for keyword in _list(keywords))


def frequency(text: str, keyword: str, frequency: int, relation: str) -> bool:
    """The keyword occurs so often, also inside words, in any case."""
    return _holds(text.lower().count(keyword.strip().lower()), relation, frequency)


def forbidden_words(text: str, forbidden_words: Sequence[str]) -> bool:
    """None of the words occurs as a whole word, in any case."""
    return not any(re.search(rf"\b{re.escape(w)}\b", text, re.IGNORECASE) for w in _list(forbidden_words))


def letter_frequency(text: str, letter: str, let_frequency: int, let_relation: str) -> bool:
    """The letter occurs so often, in any case."""
    return _holds(Counter(text.lower())[letter.strip().lower()], let_relation, let_frequency)


def response_language(text: str, language: str) -> bool:
    """The whole text is in the language (ISO 639-1)."""
    return any(map(str.isalpha, text)) and detect_language(text) == language


def number_sentences(text: str, num_sentences: int, relation: str) -> bool:
    return _holds(len(sentences(text)), relation, num_sentences)


def number_paragraphs(text: str, num_paragraphs: int) -> bool:
    """It has exactly so many paragraphs, with `***` between them and only the first and the last of them empty."""
    parts = [visible(part) for part in text.split("***")]
    return all(parts[1:-1]) and sum(parts) == num_paragraphs


def number_words(text: str, num_words: int, relation: str) -> bool:
    """It has so many words, each a run of letters, digits and underscores."""
    return _holds(len(re.findall(r"\w+", text)), relation, num_words)


def nth_paragraph_first_word(text: str, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    """It has exactly so many paragraphs, with an empty line between them, and the n-th begins with the word."""
    parts = [part.strip() for part in text.split("\n\n")]
    count = sum(map(visible, parts))
    if count != num_paragraphs or not 1 <= nth_paragraph <= count or not parts[nth_paragraph - 1]:
        return False
    word = parts[nth_paragraph - 1].split()[0].lstrip("'").lstrip('"')
    return re.split(r"""[.,?!'"]""", word)[0].lower() == first_word.lower()


def number_placeholders(text: str, num_placeholders: int) -> bool:
    """It has at least so many placeholders in square brackets."""
    found = 0
    for line in text.split("\n"):
        closing = -1  # a search, and no pattern: it would start anew at every bracket of a line that closes none
        while (opening := line.find("[", closing + 1)) >= 0 and (closing := line.find("]", opening)) >= 0:
            found += 1
    return found >= num_placeholders


def postscript(text: str, postscript_marker: str) -> bool:
    """It has the marker of a postscript, in any case, at the start of a word."""
    marker = postscript_marker.strip()
    return re.search(POSTSCRIPTS.get(marker, rf"(?<!\w){re.escape(marker.lower())}"), text.lower()) is not None


def number_bullet_lists(text: str, num_bullets: int) -> bool:
    """Exactly so many lines begin with `-` or a single `*`; a line of nothing else, such as `---`, does not count."""
    lines = [line.lstrip() for line in text.split("\n") if not RULE.fullmatch(line.strip())]
    return sum(line[:1] == "-" or (line[:1] == "*" and line[1:2] not in ("", "*")) for line in lines) == num_bullets


def constrained_response(text: str) -> bool:
    return any(option in text for option in OPTIONS)


def number_highlighted_sections(text: str, num_highlights: int) -> bool:
    """At least so many parts of a line stand in `*one*` or `**two**` asterisks."""
    marked = re.findall(r"\*[^\n*]*\*", text) + re.findall(r"\*\*[^\n*]*\*\*", text)
    return sum(visible(part.strip("*")) for part in marked) >= num_highlights


def multiple_sections(text: str, section_spliter: str, num_sections: int) -> bool:
    """The word that begins a section stands before a number at least so often."""
    return len(re.findall(re.escape(section_spliter.strip()) + r"\s?\d+", text)) >= num_sections


def json_format(text: str) -> bool:
    """The whole text is JSON, in a code fence or not, without NaN, Infinity, 1e999 and keys that occur twice."""
    bare = re.sub(r"^```(?:json|Json|JSON)?|```$", "", text.strip()).strip()
    try:
        strict_json(bare)
    except (ValueError, RecursionError):
        return False
    return True


def title(text: str) -> bool:
    """A line holds a title in double angular brackets."""
    spans = [line[line.find("<<") : line.rfind(">>") + 2] for line in text.split("\n") if "<<" in line]
    return any(len(span) > 4 and visible(span.lstrip("<").rstrip(">")) for span in spans)


def two_responses(text: str) -> bool:
    """Two responses, with `******` between them, that differ in more than case, blanks and punctuation."""
    parts = text.split("******")
    given = ["".join(filter(str.isalnum, part.casefold())) or part.strip() for part in parts if visible(part)]
    return all(map(visible, parts[1:-1])) and len(given) == 2 and given[0] != given[1]


def repeat_prompt(text: str, prompt_to_repeat: str) -> bool:
    return text.strip().lower().startswith(prompt_to_repeat.strip().lower())


def end_checker(text: str, end_phrase: str) -> bool:
    """It ends with the phrase, in any case; a closing quotation mark may follow."""
    return text.strip().strip('"').lower().endswith(end_phrase.strip().lower())


def quotation(text: str) -> bool:
    bare = text.strip()
    return len(bare) > 1 and bare[0] == bare[-1] == '"'


def capital_word_frequency(text: str, capital_frequency: int, capital_relation: str) -> bool:
    """So many words are in capital letters; words joined by hyphens are one, and `I'M` is two."""
    words = re.findall(r"\w+(?:[-./&]\w+)*", text)
    return _holds(sum(map(str.isupper, words)), capital_relation, capital_frequency)


def english_capital(text: str) -> bool:
    return text.isupper() and detect_language(text) == "en"


def english_lowercase(text: str) -> bool:
    return text.islower() and detect_language(text) == "en"


def no_comma(text: str) -> bool:
    return "," not in text


def _list(words: Any) -> Sequence[str]:
    if isinstance(words, str):
        raise ValueError(f"a list of words is needed, not the text {words!r}")
    return words


KINDS: Mapping[str, Check] = {
    check.__name__: check
    for check in (
        existence, frequency, forbidden_words, letter_frequency, response_language, number_sentences, number_paragraphs,
        number_words, nth_paragraph_first_word, number_placeholders, postscript, number_bullet_lists,
        constrained_response, number_highlighted_sections, multiple_sections, json_format, title, two_responses,
        repeat_prompt, end_checker, quotation, capital_word_frequency, english_capital, english_lowercase, no_comma,
    )
}  # fmt: skip
