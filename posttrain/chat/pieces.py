"""Text to tokens, a piece of a row at a time.

Prompt, answers and the template text between them are tokenised separately and joined, so that the tokens of one never
depend on what comes after. A text of far more characters than the tokens that are wanted is not tokenised to its end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Ids = tuple[int, ...]
CHARACTERS = 16
"""Characters of a long text that are tried first for each token that is wanted; prose and code have 3 to 6 a token."""
FURTHER = 257
"""The second cut of a long text lies so many characters beyond the first. A prime, so that digits or spaces that a
tokenizer groups from their end are grouped otherwise in the two."""


class Pieces:
    """A tokenizer's way with a piece of a row. `special`: the text of each token that was added to its vocabulary.

    With `longest` a piece of more tokens than that may lack its end: it has the first `longest` tokens of the whole,
    and at least one more."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, longest: int | None = None) -> None:
        self._tokenizer = tokenizer
        self.longest = longest
        self.special = {i: token.content for i, token in tokenizer.added_tokens_decoder.items()}
        self._anchor = "\n" if self._pads_with_space() else ""

    def plain(self, text: str) -> Ids:
        """Text with the special tokens that stand in it and no others."""
        return self._first(self._plain, text)

    def opening(self, text: str) -> Ids:
        """The first piece of a rendered conversation, with at most one beginning-of-text token."""
        return self._first(lambda part: self._one_bos(self._plain(part)), text)

    def raw(self, text: str) -> Ids:
        """Raw text after whatever the tokenizer puts before text; not with what it may put after, an end token."""
        return self._first(self._raw, text)

    def context(self, text: str, end_text: str) -> Ids:
        """Template text after a turn. Behind an end token it is tokenised together with that, because some end tokens
        swallow the whitespace that follows; `end_text` is "" where there is none."""
        if not end_text:
            return self.continuation(text)
        return self._first(lambda part: self._plain(end_text + part)[1:], text)

    def continuation(self, text: str) -> Ids:
        """Text that goes on from earlier tokens: without the space that some tokenizers put before any text."""
        return self._first(self._continuation, text)

    def text(self, ids: Sequence[int], special: bool) -> str:
        """The text of token ids with or without special tokens."""
        decoded = self._tokenizer.decode(list(ids), skip_special_tokens=not special, clean_up_tokenization_spaces=False)
        return str(decoded)

    def _first(self, tokens: Callable[[str], Ids], text: str) -> Ids:
        """The tokens of a text, or of one that has more than `longest` at least so many and one more.

        What two cuts of a text agree on is what a token near the cut has no part in. Where a tokenizer makes few tokens
        of many characters, as of a long line of spaces, more of the text is taken, in the end all of it."""
        stop = len(text) if self.longest is None else CHARACTERS * (self.longest + 1)
        while stop + FURTHER < len(text):
            agreed = _common(tokens(text[:stop]), tokens(text[: stop + FURTHER]))
            if self.longest is not None and len(agreed) > self.longest:
                return agreed
            stop *= 4
        return tokens(text)

    def _plain(self, text: str) -> Ids:
        return tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _raw(self, text: str) -> Ids:
        whole, bare = tuple(self._tokenizer(text)["input_ids"]), self._plain(text)
        starts = (i for i in range(len(whole) - len(bare) + 1) if whole[i : i + len(bare)] == bare)
        at = next(starts, None)
        return self._one_bos(whole if at is None else whole[: at + len(bare)])

    def _continuation(self, text: str) -> Ids:
        before, ids = self._plain(self._anchor), self._plain(self._anchor + text)
        return ids[len(before) :] if ids[: len(before)] == before else self._plain(text)

    def _pads_with_space(self) -> bool:
        first = self._tokenizer.convert_ids_to_tokens(list(self.plain("a")))[:1]
        return bool(first) and first[0].startswith("\u2581")

    def _one_bos(self, ids: Ids) -> Ids:
        bos = self._tokenizer.bos_token_id
        while len(ids) > 1 and ids[0] == ids[1] == bos:
            ids = ids[1:]
        return ids


def _common(one: Ids, other: Ids) -> Ids:
    """The tokens that two rows begin with."""
    parts = (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return one[: next(parts, min(len(one), len(other)))]


def closed(ids: Ids, end: int) -> Ids:
    """The tokens of an answer with its end token, once."""
    return ids if ids and ids[-1] == end else (*ids, end)
