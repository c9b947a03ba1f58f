"""A tokenizer's way of writing conversations: prompts, training rows, and what comes between sampled turns.

Three rules hold everywhere. A trained span is what an engine would sample: the answer and its end token; template text
after it (ChatML's newline) is context. Rows are token-exact with generation: `prompt_ids(prompt)` is an exact prefix of
every row encoded from that prompt, because prompt and answer are tokenised separately and joined; in a longer
conversation, prompts included, each assistant turn is such a piece. And what was sampled is never encoded again: a
conversation goes on from its own tokens (`continuation_ids`), or begins a new row.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from posttrain.chat.calls import ParsedTurn, read_answer, read_declared
from posttrain.chat.lost import Completeness
from posttrain.chat.pieces import Ids, Pieces, closed
from posttrain.chat.template import THINK, Template
from posttrain.rows import MessagesRow, PreferenceRow, Response, SftRow, TextRow, Tools
from posttrain.types import InputError, Message, Prompt, located

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class EncodedRow:
    """Token ids of one training row and which of them are trained (True)."""

    token_ids: Ids
    mask: tuple[bool, ...]
    where: str

    def __post_init__(self) -> None:
        if len(self.token_ids) != len(self.mask):
            raise ValueError(f"{len(self.token_ids)} tokens but a mask of {len(self.mask)}")
        if not any(self.mask):
            raise InputError("no token of the row is trained; it needs text to predict after its first token")
        if self.mask[0]:
            raise ValueError("the first token has nothing to be predicted from and cannot be trained")


@dataclass(frozen=True)
class EncodedPair:
    """A prompt and two responses to it, each closed by its end token."""

    prompt_ids: Ids
    chosen_ids: Ids
    rejected_ids: Ids
    where: str


class ChatFormat:
    """A tokenizer's way of writing prompts and answers, for a model with `embeddings` rows (None: as many as it takes).

    `end_ids`: whatever ends an answer (the tokenizer's end token, `end_ids_extra` from the generation config, the chat
    template's turn end). `turn_end`: the one that closes a trained span: the template's, or without one (or with `raw`,
    which takes string prompts as raw text) the tokenizer's. `longest`: the most tokens of a row that are wanted; one
    that has more may lack its end, so that a text of millions of characters is not tokenised in vain. Raises InputError
    if there is no end token at all."""

    end_ids: frozenset[int]
    turn_end: int

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        end_ids_extra: Iterable[int] = (),
        raw: bool = False,
        longest: int | None = None,
        embeddings: int | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self.raw = raw
        added = tokenizer.added_tokens_decoder
        tokens = max([len(tokenizer), *(i + 1 for i in added)])
        self._embeddings = embeddings if embeddings is not None and embeddings < tokens else None
        # added tokens that are not special, such as <think>, are meant to stand in text
        controls = [re.escape(token.content) for token in added.values() if token.special and token.content]
        self._controls = re.compile("|".join(controls)) if controls else None
        self._pieces = Pieces(tokenizer, longest)
        eos: int | None = tokenizer.eos_token_id
        self.template = Template(tokenizer, self._pieces, [*([] if eos is None else [eos]), *end_ids_extra])
        self._complete = Completeness(self.template)
        self._wraps_strings = self.template.exists and not raw
        self.writes_date = self.template.writes_date
        self.end_ids = self.template.ends
        self._text_end = self.template.end if eos is None else eos
        self.turn_end = self.template.end if self._wraps_strings else self._text_end

    # Length

    @property
    def longest(self) -> int | None:
        """Rows of more tokens than this may lack their end; None: all are whole."""
        return self._pieces.longest

    def within(self, longest: int) -> ChatFormat:
        """The same way of writing with another `longest`."""
        out = copy.copy(self)
        out._pieces, out.template = copy.copy(self._pieces), copy.copy(self.template)
        out._pieces.longest = longest
        out.template.pieces = out._pieces
        return out

    def counted(self, tokens: int) -> str:
        """`12 tokens`, or of a row that may lack its end `more than 8192 tokens`."""
        if self.longest is not None and tokens > self.longest:
            return f"more than {self.longest} tokens"
        return f"{tokens} token" + "s" * (tokens != 1)

    # Generation

    def prompt_ids(self, prompt: Prompt, tools: Tools = ()) -> Ids:
        """The tokens an answer to `prompt` is sampled after.

        A string becomes one user message if there is a template and `raw` is off, else raw text with the special tokens
        the tokenizer puts before text. A rendered template gets no special tokens beyond its own. There is at most one
        beginning-of-text token in front. Raises InputError for messages without a template, a conversation that the
        template refuses or does not write whole (see `lost`), tools that it ignores, and tokens that the model does
        not have."""
        if isinstance(prompt, str) and not self._wraps_strings:
            return self.known(self._raw_ids(prompt, tools))
        messages = _as_messages(prompt)
        self._complete.check(messages, tools)
        return self.history_ids(messages, tools)

    def history_ids(self, messages: tuple[Message, ...], tools: Tools = ()) -> Ids:
        """The same for a conversation as it has become in sampling, of which the template may leave out what the model
        itself said. Raises InputError as `prompt_ids` does, but for that."""
        return self.known(self.template.history(messages, tools)[0])

    def embeds(self, token: int) -> bool:
        """Whether the model's embedding has a row for the token."""
        return self._embeddings is None or token < self._embeddings

    def known(self, ids: Ids) -> Ids:
        """The tokens, all of which have a row in the model's embedding. Raises InputError naming one that has none."""
        if ids and not self.embeds(worst := max(ids)):
            raise InputError(
                f"the token {self._tokenizer.convert_ids_to_tokens(worst)!r} has the id {worst}, and the embedding of "
                f"{self.template.name} has {self._embeddings} rows: its tokenizer got new tokens without it. Resize "
                f"the model (resize_token_embeddings({len(self._tokenizer)}) in transformers) and save it, or use the "
                "tokenizer it was trained with"
            )
        return ids

    def conversation(self, prompt: Prompt) -> tuple[Message, ...]:
        """The prompt as messages that turns can follow. Raises InputError for raw text, in which there are no turns."""
        if isinstance(prompt, str) and not self._wraps_strings:
            raise InputError("raw text has no turns; use a chat template (--chat-template gives one), and no --raw")
        return _as_messages(prompt)

    def continuation_ids(
        self, messages: tuple[Message, ...], sampled: Ids, new: tuple[Message, ...], tools: Tools = ()
    ) -> Ids | None:
        """The template's tokens between a sampled turn and the next one: what it writes after the turn, the `new`
        messages, and the generation prompt.

        `messages` is the conversation up to and including that turn, whose tokens are `sampled`; they stay as they are,
        and their end token stands for the template's own (where a stop string ended the turn, the template's comes
        first). None if the template writes what came before differently now that `new` follows (as where it drops
        reasoning, or moves the tools): then the conversation goes on in a new row, from
        `prompt_ids(messages + new)`."""
        between = self.template.between(messages, sampled, new, tools)
        return None if between is None else self.known(between)

    def continued(self, text: str) -> Ids:
        """The tokens of a text that goes on from tokens before it."""
        return self.known(self._pieces.continuation(text))

    def answer(self, ids: Sequence[int], tools: Tools = (), first_call: int = 0) -> ParsedTurn:
        """A sampled turn as an assistant message, without its end token.

        Where `tools` were offered, calls are read out of it as the model's template writes them (or as its tokenizer's
        `response_template` says, reasoning too) and numbered from `first_call`; else it is all content."""
        body = ids[:-1] if len(ids) and ids[-1] in self.end_ids else ids
        plain = self.decode(body)
        if not tools:
            return ParsedTurn(Message("assistant", plain))
        text = self._pieces.text(body, special=True)  # the marks of a call may be special tokens
        if getattr(self._tokenizer, "response_template", None):
            prefix = self.template.render((Message("user", "u"),), (), True)
            return read_declared(self._tokenizer, text, plain, prefix, tools, first_call)
        return read_answer(text, plain, self.template.call_style, first_call)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids without special tokens."""
        return self._pieces.text(ids, special=False)

    def special_token_in(self, texts: Iterable[str]) -> str | None:
        """The first special token that stands in a text, which would be read as that token and not as text."""
        matches = (self._controls.search(text) for text in texts) if self._controls else ()
        return next((match.group() for match in matches if match), None)

    # Training rows

    def encode_sft(self, row: SftRow) -> list[EncodedRow]:
        """Token rows of one training row; several only for a conversation of which the template rewrites earlier turns
        (as where it drops their reasoning): then one for each trained turn, rendered as when that turn is sampled.

        A row ends with its last trained token. Raises InputError naming the row, as where the template leaves out a
        part of it."""
        with located(row.where):
            if isinstance(row, TextRow):
                ids = closed(self._raw_ids(row.text, ()), self._text_end)
                return [EncodedRow(self.known(ids), (False, *[True] * (len(ids) - 1)), row.where)]
            if isinstance(row, MessagesRow):
                return self._conversation_rows(row.messages, 0, row.tools, row.where)
            if not isinstance(row.completion, str):
                prompt = _as_messages(row.prompt)
                return self._conversation_rows(prompt + row.completion, len(prompt), row.tools, row.where)
            before = self.prompt_ids(row.prompt, row.tools)
            answer = self._response_ids(row.prompt, row.completion, row.tools)
            return [EncodedRow(*_answered(before, answer), row.where)]

    def encode_steps(
        self, where: str, prompt: Prompt, steps: Sequence[str], separator: str, tools: Tools = ()
    ) -> EncodedRow:
        """One row of an answer in steps, True where a step is scored: at its last token. To a step belongs the
        separator that follows it, and to the last one the end token; each is a piece of its own, so that its tokens do
        not depend on what follows. Raises InputError beginning with `where`."""
        with located(where):
            ids = self.prompt_ids(prompt, tools)
            mask = (False,) * len(ids)
            pieces = [self.known(self._pieces.continuation(step + separator)) for step in steps[:-1]]
            for piece in (*pieces, self._response_ids(prompt, steps[-1], tools)):
                ids += piece
                mask += (False,) * (len(piece) - 1) + (True,)
            return EncodedRow(ids, mask, where)

    def encode_pair(self, row: PreferenceRow) -> EncodedPair:
        """Prompt and responses as tokens; the mask of a response is all of it. Raises InputError naming the row."""
        with located(row.where):
            prompt = row.prompt
            if not (isinstance(row.chosen, str) and isinstance(row.rejected, str)):
                prompt = _as_messages(prompt)
            chosen, rejected = (self._response_ids(prompt, r, row.tools) for r in (row.chosen, row.rejected))
            if chosen == rejected and not (self.longest and len(chosen) > self.longest):
                raise InputError("'chosen' and 'rejected' are the same tokens in this model's chat template")
            return EncodedPair(self.prompt_ids(prompt, row.tools), chosen, rejected, row.where)

    def _conversation_rows(
        self, messages: tuple[Message, ...], first: int, tools: Tools, where: str
    ) -> list[EncodedRow]:
        """Rows that train every assistant turn from index `first` on."""
        template = self.template
        trained = [i for i, m in enumerate(messages) if i >= first and m.role == "assistant"]
        self._complete.check(messages, tools)
        turns = {i: self._complete.trained_turn(messages, i, tools) for i in trained}
        answers = {i: self.known(template.turn_ids(turn)) for i, turn in turns.items()}
        last = trained[-1]
        before, spans = template.history(messages[:last], tools, turns)
        if not all(i in spans for i in trained[:-1]):
            rows = ((self.history_ids(messages[:i], tools), answers[i]) for i in trained)
            return [EncodedRow(*_answered(before, answer), where) for before, answer in rows]
        ids, mask = _answered(self.known(before), answers[last])
        in_history = {j for i in trained[:-1] for j in spans[i]}
        return [EncodedRow(ids, tuple(m or j in in_history for j, m in enumerate(mask)), where)]

    def _response_ids(self, prompt: Prompt, response: Response, tools: Tools) -> Ids:
        if isinstance(response, str):
            raw = isinstance(prompt, str) and not self._wraps_strings
            if not raw and response.lstrip().startswith(THINK) and self.template.opens_thinking:
                raise InputError(
                    f"the answer begins with {THINK}, and so does the chat template of {self.template.name} in every "
                    "answer; begin it after that"
                )
            end = self._text_end if raw else self.template.end
            return self.known(closed(self._pieces.continuation(response), end))
        messages = _as_messages(prompt)
        whole = messages + response
        self._complete.check(whole, tools)
        return self.known(self.template.turn_ids(self._complete.trained_turn(whole, len(messages), tools)))

    def _raw_ids(self, text: str, tools: Tools) -> Ids:
        if tools:
            raise InputError("raw text cannot offer tools; drop 'tools', or give a chat template (--chat-template)")
        return self._pieces.raw(text)


def _answered(prompt: Ids, answer: Ids) -> tuple[Ids, tuple[bool, ...]]:
    return prompt + answer, (False,) * len(prompt) + (True,) * len(answer)


def _as_messages(prompt: Prompt) -> tuple[Message, ...]:
    return (Message("user", prompt),) if isinstance(prompt, str) else prompt
