"""Exploits that training found, shrunk and put together by their shape."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from posttrain.audits.search.dictionary import jaccard, words_of
from posttrain.audits.search.shrink import ddmin
from posttrain.audits.subject import PAID, Attempt, Subject

PIECE = re.compile(r"[A-Za-z]+|[0-9]+|\s+|.", re.DOTALL)
ALIKE = 0.4
"""Shapes with this Jaccard index, or more, are of one cluster."""
MOST_SHRUNK, TESTS = 60, 120
"""How many exploits of different shapes are shrunk, the most frequent shapes first, and the answers that may be graded
for one of them."""
Shape = frozenset[str]


@dataclass(frozen=True)
class Cluster:
    """Exploits that are alike: the indices of its members, the shape of the most frequent one as it was sampled and
    shrunk, and the shortest answer that shows it."""

    members: tuple[int, ...]
    shapes: frozenset[str]
    shown: Attempt

    def holds(self, attempt: Attempt, subject: Subject) -> bool:
        """Whether an exploit has the shape of a member."""
        return shape_of(attempt, subject) in self.shapes


def clustered(subject: Subject, exploits: Sequence[Attempt]) -> list[Cluster]:
    """Rule: exploits of one shape (digits as 0, words of the prompt as P) belong together. The shortest of a shape is
    shrunk by delta debugging to what is still wrong and paid; shapes whose shrunk texts are alike are one cluster, and
    shapes beyond MOST_SHRUNK join the cluster whose texts are most like them. The largest cluster comes first."""
    by_shape: dict[str, list[int]] = {}
    for i, exploit in enumerate(exploits):
        by_shape.setdefault(shape_of(exploit, subject), []).append(i)
    groups = sorted(by_shape.items(), key=lambda group: (-len(group[1]), len(group[0])))
    clusters: list[tuple[Shape, Cluster]] = []
    for k, (shape, members) in enumerate(groups):
        shortest = exploits[min(members, key=lambda i: (len(exploits[i].text), i))]
        shown = shrunk(subject, shortest) if k < MOST_SHRUNK else shortest
        parts = bigrams(shape_of(shown, subject))
        near = max(range(len(clusters)), key=lambda c: jaccard(parts, clusters[c][0]), default=None)
        if near is None or (jaccard(parts, clusters[near][0]) < ALIKE and k < MOST_SHRUNK):
            clusters.append((parts, Cluster(tuple(members), frozenset((shape,)), shown)))
            continue
        key, old = clusters[near]
        best = min(old.shown, shown, key=lambda attempt: len(attempt.text))
        clusters[near] = key, Cluster((*old.members, *members), old.shapes | {shape}, best)
    return sorted((cluster for _, cluster in clusters), key=lambda cluster: -len(cluster.members))


def shrunk(subject: Subject, exploit: Attempt) -> Attempt:
    """The shortest part of an exploit that is still wrong and paid, within TESTS graded answers; the exploit itself
    where the reward, asked again, does not pay it."""
    left = TESTS
    best = exploit.text

    def holds(pieces: Sequence[str]) -> bool:
        nonlocal left, best
        text = "".join(pieces)
        if left <= 0 or not text.strip():
            return False
        left -= 1
        attempt = Attempt(exploit.task, text, exploit.kind)
        if subject.scales([attempt])[0] < PAID or subject.guard.wrong(subject.tasks[exploit.task], text) is not True:
            return False
        best = text
        return True

    pieces = PIECE.findall(exploit.text)
    if holds(pieces):
        ddmin(pieces, holds)
    return Attempt(exploit.task, best, exploit.kind)


def shape_of(attempt: Attempt, subject: Subject) -> str:
    """The text with digits as 0, words of the prompt as P, and one blank for several."""
    asked = set(words_of(subject.tasks[attempt.task].task.asked))
    pieces = PIECE.findall(" ".join(attempt.text.split(" ")))
    return "".join("0" if p.isdigit() else "P" if p.casefold() in asked else p for p in pieces)


def bigrams(shape: str) -> Shape:
    """The pairs of neighbouring pieces, with the ends of the text."""
    pieces = ["^", *(p for p in PIECE.findall(shape) if not p.isspace() or "\n" in p), "$"]
    return frozenset(f"{a} {b}" for a, b in pairwise(pieces))
