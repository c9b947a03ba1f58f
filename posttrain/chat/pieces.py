"""Text to tokens, a piece of a row at a time.

Prompt, answers and the template text between them are tokenised separately and joined, so that the tokens of one never
depend on what comes after.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Ids = tuple[int, ...]


class Pieces:
    """A tokenizer's way with a piece of a row. `special`: the text of each token that was added to its vocabulary."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self.special = {i: token.content for i, token in tokenizer.added_tokens_decoder.items()}
        self._anchor = "\n" if self._pads_with_space() else ""

    def plain(self, text: str) -> Ids:
        """Text with the special tokens that stand in it and no others."""
        return tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def opening(self, text: str) -> Ids:
        """The first piece of a rendered conversation, with at most one beginning-of-text token."""
        return self._one_bos(self.plain(text))

    def raw(self, text: str) -> Ids:
        """Raw text after whatever the tokenizer puts before text; not with what it may put after, an end token."""
        whole, bare = tuple(self._tokenizer(text)["input_ids"]), self.plain(text)
        starts = (i for i in range(len(whole) - len(bare) + 1) if whole[i : i + len(bare)] == bare)
        at = next(starts, None)
        return self._one_bos(whole if at is None else whole[: at + len(bare)])

    def context(self, text: str, end_text: str) -> Ids:
        """Template text after a turn. Behind an end token it is tokenised together with that, because some end tokens
        swallow the whitespace that follows; `end_text` is "" where there is none."""
        return self.plain(end_text + text)[1:] if end_text else self.continuation(text)

    def continuation(self, text: str) -> Ids:
        """Text that goes on from earlier tokens: without the space that some tokenizers put before any text."""
        before, ids = self.plain(self._anchor), self.plain(self._anchor + text)
        return ids[len(before) :] if ids[: len(before)] == before else self.plain(text)

    def text(self, ids: Sequence[int], special: bool) -> str:
        """The text of token ids with or without special tokens."""
        decoded = self._tokenizer.decode(list(ids), skip_special_tokens=not special, clean_up_tokenization_spaces=False)
        return str(decoded)

    def _pads_with_space(self) -> bool:
        first = self._tokenizer.convert_ids_to_tokens(list(self.plain("a")))[:1]
        return bool(first) and first[0].startswith("\u2581")

    def _one_bos(self, ids: Ids) -> Ids:
        bos = self._tokenizer.bos_token_id
        while len(ids) > 1 and ids[0] == ids[1] == bos:
            ids = ids[1:]
        return ids


def closed(ids: Ids, end: int) -> Ids:
    """The tokens of an answer with its end token, once."""
    return ids if ids and ids[-1] == end else (*ids, end)
