"""Texts that match a regular expression, made from its syntax. Python's own parser of patterns has no public name."""

from __future__ import annotations

import re
import string
import warnings

LONGEST = 2000
CHARACTERS = "aA1 -_" + string.printable + "é日"
"""The first of these that a set of characters holds stands for it."""
SIZE = re.compile(r"(?:([*?])|\+|\{(?=[\d,])(\d*)(?:,\d*)?\})[?+]?")
EMPTY = re.compile(r"\(\?#[^)]*\)|\(\?[aiLmsux]+\)|[\^$]|\\[AbBZ]")
BLANKS = re.compile(r"(\\.|\[\^?\]?(?:\\.|[^\]\\])*\])|\s+|#[^\n]*", re.DOTALL)
BACK = re.compile(r"\(\?P=(\w+)\)|\\([1-9]\d?)")
GROUP = re.compile(r"\((?!\?)|\(\?(?:P<(?P<name>\w+)>|[aiLmsux-]*:|>|(?P<look><?[=!]))")
SINGLE = re.compile(r"\[\^?\]?(?:\\.|[^\]\\])*\]|\\x..|\\u.{4}|\\.|.", re.DOTALL)
Texts = tuple[str, str]


def matching(pattern: str, verbose: bool = False, place: str | None = None) -> Texts:
    """(the shortest text, the text with every repetition at least once and the first of all alternatives) that match a
    pattern, but for what it says of their surroundings: boundaries and negative assertions count as met. `verbose`: it
    is written for `re.VERBOSE`; `place` stands for what groups capture. Raises ValueError for syntax that is not known,
    such as a choice by a group."""
    if verbose or re.match(r"\(\?[aiLmsu]*x", pattern):
        pattern = BLANKS.sub(lambda found: found[1] or "", pattern)
    reader = _Reader(pattern, place)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = reader.branches()
    except (re.error, RecursionError) as why:
        raise ValueError(f"no pattern: {pattern!r}") from why
    if reader.at < len(pattern):
        raise ValueError(f"no pattern: {pattern!r}")
    return found


class _Reader:
    def __init__(self, pattern: str, place: str | None) -> None:
        self.pattern, self.place, self.at, self.groups = pattern, place, 0, 0
        self.known: dict[str, Texts] = {}

    def take(self, syntax: re.Pattern[str]) -> re.Match[str] | None:
        found = syntax.match(self.pattern, self.at)
        self.at = found.end() if found else self.at
        return found

    def branches(self) -> Texts:
        found = [self.sequence()]
        while self.pattern[self.at : self.at + 1] == "|":
            self.at += 1
            found.append(self.sequence())
        return min((short for short, _ in found), key=len), found[0][1]

    def sequence(self) -> Texts:
        short = once = ""
        while self.at < len(self.pattern) and self.pattern[self.at] not in "|)":
            least, most = self.atom()
            if size := self.take(SIZE):
                times = 0 if size[1] else 1 if size[2] is None else int(size[2] or 0)
                least, most = least * min(times, LONGEST), most * min(max(times, 1), LONGEST)
            short, once = short + least, once + most
            if len(once) > LONGEST:
                raise ValueError("the text is too long")
        return short, once

    def atom(self) -> Texts:
        if self.take(EMPTY):
            return "", ""
        if back := self.take(BACK):
            return self.known.get(back[1] or back[2], ("", ""))
        if group := self.take(GROUP):
            return self.group(group)
        single = self.take(SINGLE)
        if single is None or single[0] in ("(", "["):
            raise ValueError(f"unknown syntax at {self.at} of {self.pattern!r}")
        text = single[0]
        if len(text) > 1 or text == ".":
            text = next((each for each in (*CHARACTERS, *text) if re.fullmatch(text, each)), "")
        return text, text

    def group(self, group: re.Match[str]) -> Texts:
        names = [group["name"]] if group["name"] else []
        if group[0] == "(" or names:
            self.groups += 1
            names.append(str(self.groups))
        found = self.branches()
        if self.pattern[self.at : self.at + 1] != ")":
            raise ValueError(f"a bracket is open in {self.pattern!r}")
        self.at += 1
        found = (self.place, self.place) if names and self.place else found
        self.known |= dict.fromkeys(names, found)
        return ("", "") if (group["look"] or "").endswith("!") else found
