"""Search over a local collection of texts as tools."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from posttrain.data.raw import read_bytes
from posttrain.data.readers import parse_jsonl
from posttrain.types import InputError

K1, B = 1.2, 0.75
"""How fast a repeated word counts less, and how much long texts are marked down: the usual values."""
SNIPPET_CHARACTERS = 200
WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Document:
    id: str
    title: str
    text: str


class Search:
    """Two tools, `search` and `read`, over a JSONL file whose rows have `text` and perhaps `title` and `id` (else the
    number of the row, from 1). A search lists the `k` best.

    It has no reward of its own. Raises InputError for a file that cannot be read, naming file and line."""

    def __init__(self, corpus: str, *, k: int = 3) -> None:
        self._corpus = corpus
        self._k = k
        collection(corpus)

    def reset(self) -> None: ...

    def search(self, query: str) -> list[dict[str, str]]:
        """Find the documents that fit a query best.

        Args:
            query: A few words to look for.

        Returns:
            The best documents with their ids, titles and beginnings; read one to see all of it.
        """
        found = collection(self._corpus).best(query, self._k)
        return [{"id": one.id, "title": one.title, "text": one.text[:SNIPPET_CHARACTERS]} for one in found]

    def read(self, id: str) -> str:
        """Read a whole document.

        Args:
            id: The id of the document, as a search gives it.

        Returns:
            The text of the document.
        """
        documents = collection(self._corpus).documents
        if id not in documents:
            raise LookupError(f"there is no document {id!r}; search for one first")
        return documents[id].text


class Collection:
    """Documents by id, and which are best for a query by BM25:

    score(d) = Σ_w ln(1 + (n − n_w + ½) / (n_w + ½)) · f (K1 + 1) / (f + K1 (1 − B + B |d| / mean |d|)) over the words w
    of the query, with f occurrences in d, n_w of n documents that have w, and lengths in words. A title counts as text.
    Source: Robertson and Zaragoza, The Probabilistic Relevance Framework: BM25 and Beyond (2009), with the logarithm
    that is never negative."""

    def __init__(self, documents: list[Document]) -> None:
        self.documents = {document.id: document for document in documents}
        self._occurrences: dict[str, dict[str, int]] = defaultdict(dict)  # word -> id -> how often
        self._lengths: dict[str, int] = {}
        for document in documents:
            words = Counter(words_of(f"{document.title} {document.text}"))
            self._lengths[document.id] = words.total()
            for word, count in words.items():
                self._occurrences[word][document.id] = count
        self._mean = sum(self._lengths.values()) / len(documents)

    def scores(self, query: str) -> dict[str, float]:
        """The scores of the documents that have a word of the query, by id."""
        scores: dict[str, float] = defaultdict(float)
        for word in sorted(set(words_of(query))):
            having = self._occurrences.get(word, {})
            rarity = math.log(1 + (len(self.documents) - len(having) + 0.5) / (len(having) + 0.5))
            for id, count in having.items():
                share = K1 * (1 - B + B * self._lengths[id] / self._mean)
                scores[id] += rarity * count * (K1 + 1) / (count + share)
        return scores

    def best(self, query: str, k: int) -> list[Document]:
        """The `k` best documents with a word of the query, best first; equals in the order of the file."""
        scores = self.scores(query)
        order = {id: place for place, id in enumerate(self.documents)}
        ranked = sorted(scores, key=lambda id: (-scores[id], order[id]))
        return [self.documents[id] for id in ranked[:k]]


@cache
def collection(corpus: str) -> Collection:
    """The collection of a file, read once a process."""
    path = Path(corpus)
    if not path.is_file():
        raise InputError(f"there is no file {corpus}; search(FILE) wants JSONL whose rows have 'text'")
    documents: dict[str, Document] = {}
    for number, row in enumerate(parse_jsonl(read_bytes(path), corpus), 1):
        columns = row.checked()
        text, title = columns.get("text"), columns.get("title", "")
        if not isinstance(text, str) or not isinstance(title, str):
            raise InputError(f"{row.where}: 'text' (and 'title', if there is one) must be a string")
        document = Document(str(columns.get("id", number)), title, text)
        if document.id in documents:
            raise InputError(f"{row.where}: the id {document.id!r} was there before")
        documents[document.id] = document
    if not any(words_of(f"{one.title} {one.text}") for one in documents.values()):
        raise InputError(f"{corpus} has no texts; each line is a JSON object with 'text'")
    return Collection(list(documents.values()))


def words_of(text: str) -> list[str]:
    return WORD.findall(text.lower())
