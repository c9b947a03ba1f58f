"""Between conversations and token ids: chat templates, trained spans, end tokens.

Two rules hold everywhere. A trained span is what an engine would sample: the answer and its end token; template text
after it (ChatML's newline) is context. And rows are token-exact with generation: `prompt_ids(prompt)` is an exact
prefix of every row encoded from that prompt, because prompt and answer are tokenised separately and joined. In a longer
conversation, prompts included, each assistant turn is such a piece. Spans come from character offsets in the rendered
template, found by rendering the conversation up to each turn, so that no generation marker is needed; no token is ever
compared with the padding.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jinja2

from posttrain.rows import CompletionRow, MessagesRow, PreferenceRow, Response, SftRow, TextRow, Tools
from posttrain.types import InputError, Message, Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Ids = tuple[int, ...]
PROBE = "sentinel"


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


@dataclass(frozen=True)
class _Turn:
    """One assistant turn in a rendered conversation: `start` is all before it, `text` what is sampled, without the end
    token, whose text is `end_text`, or "" where the template has none and `end_id` has to be inserted."""

    start: str
    text: str
    end_text: str
    end_id: int


class ChatFormat:
    """A tokenizer's way of writing prompts and answers.

    `end_ids`: whatever ends an answer (the tokenizer's end token, `end_ids_extra` from the generation config, the chat
    template's turn end). `turn_end`: the one that closes a trained span: the template's, or without one (or with `raw`,
    which takes string prompts as raw text) the tokenizer's. Raises InputError if there is no end token at all."""

    end_ids: frozenset[int]
    turn_end: int

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, end_ids_extra: Iterable[int] = (), raw: bool = False
    ) -> None:
        self._tokenizer = tokenizer
        self._has_template = bool(tokenizer.chat_template)
        self._wraps_strings = self._has_template and not raw
        self._name = str(tokenizer.name_or_path or "this model")
        added = tokenizer.added_tokens_decoder
        self._special = {i: token.content for i, token in added.items()}
        # added tokens that are not special, such as <think>, are meant to stand in text
        controls = [re.escape(token.content) for token in added.values() if token.special and token.content]
        self._controls = re.compile("|".join(controls)) if controls else None
        self._anchor = "\n" if self._pads_with_space() else ""
        self._tail, template_end = self._probe_template() if self._has_template else ("", None)
        eos: int | None = tokenizer.eos_token_id
        known = [id_ for id_ in (eos, template_end, *end_ids_extra) if id_ is not None]
        if not known:
            raise InputError("the tokenizer has no end token (eos_token); set one, or answers would never end")
        self.end_ids = frozenset(known)
        self._text_end = eos if eos is not None else known[0]
        self._template_end = template_end if template_end is not None else self._text_end
        self._template_closes = template_end is not None
        self.turn_end = self._template_end if self._wraps_strings else self._text_end

    def prompt_ids(self, prompt: Prompt, tools: Tools = ()) -> Ids:
        """The tokens an answer to `prompt` is sampled after.

        A string becomes one user message if there is a template and `raw` is off, else raw text with the special tokens
        the tokenizer puts before text. A rendered template gets no special tokens beyond its own. There is at most one
        beginning-of-text token in front. Raises InputError for messages without a template, a conversation that the
        template refuses, and tools that it ignores."""
        if isinstance(prompt, str) and not self._wraps_strings:
            return self._raw_ids(prompt, tools)
        messages = _as_messages(prompt)
        self._check_tools(messages, tools)
        return self._history(messages, tools)[0]

    def encode_sft(self, row: SftRow) -> list[EncodedRow]:
        """Token rows of one training row; several only for a conversation of which the template rewrites earlier turns
        (as where it drops their reasoning): then one for each trained turn, rendered as when that turn is sampled.

        A row ends with its last trained token. Raises InputError naming the row."""
        try:
            if isinstance(row, TextRow):
                ids = self._closed(self._raw_ids(row.text, ()), self._text_end)
                return [EncodedRow(ids, (False, *[True] * (len(ids) - 1)), row.where)]
            if isinstance(row, MessagesRow):
                return self._conversation_rows(row.messages, 0, row.tools, row.where)
            return self._completion_rows(row)
        except InputError as error:
            raise InputError(f"{row.where}: {error}") from None

    def encode_pair(self, row: PreferenceRow) -> EncodedPair:
        """Prompt and responses as tokens; the mask of a response is all of it. Raises InputError naming the row."""
        try:
            prompt = row.prompt
            if not (isinstance(row.chosen, str) and isinstance(row.rejected, str)):
                prompt = _as_messages(prompt)
            chosen, rejected = (self._response_ids(prompt, r, row.tools) for r in (row.chosen, row.rejected))
            if chosen == rejected:
                raise InputError("'chosen' and 'rejected' are the same tokens in this model's chat template")
            return EncodedPair(self.prompt_ids(prompt, row.tools), chosen, rejected, row.where)
        except InputError as error:
            raise InputError(f"{row.where}: {error}") from None

    def special_token_in(self, texts: Iterable[str]) -> str | None:
        """The first special token that stands in a text, which would be read as that token and not as text."""
        matches = (self._controls.search(text) for text in texts) if self._controls else ()
        return next((match.group() for match in matches if match), None)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids without special tokens."""
        text = self._tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(text)

    def response_messages(self, ids: Sequence[int]) -> tuple[Message, ...]:
        """A sampled answer as one assistant message, without its end token."""
        return (Message("assistant", self.decode(ids[:-1] if ids and ids[-1] in self.end_ids else ids)),)

    # Rows

    def _completion_rows(self, row: CompletionRow) -> list[EncodedRow]:
        if not isinstance(row.completion, str):
            prompt = _as_messages(row.prompt)
            return self._conversation_rows(prompt + row.completion, len(prompt), row.tools, row.where)
        before = self.prompt_ids(row.prompt, row.tools)
        answer = self._response_ids(row.prompt, row.completion, row.tools)
        return [EncodedRow(*_answered(before, answer), row.where)]

    def _conversation_rows(
        self, messages: tuple[Message, ...], first: int, tools: Tools, where: str
    ) -> list[EncodedRow]:
        """Rows that train every assistant turn from index `first` on."""
        trained = [i for i, m in enumerate(messages) if i >= first and m.role == "assistant"]
        self._check_tools(messages, tools)
        answers = {i: self._turn_ids(self._trained_turn(messages, i, tools)) for i in trained}
        last = trained[-1]
        before, spans = self._history(messages[:last], tools)
        if not all(i in spans for i in trained[:-1]):
            rows = ((self._history(messages[:i], tools)[0], answers[i]) for i in trained)
            return [EncodedRow(*_answered(before, answer), where) for before, answer in rows]
        ids, mask = _answered(before, answers[last])
        in_history = {j for i in trained[:-1] for j in spans[i]}
        return [EncodedRow(ids, tuple(m or j in in_history for j, m in enumerate(mask)), where)]

    def _response_ids(self, prompt: Prompt, response: Response, tools: Tools) -> Ids:
        if isinstance(response, str):
            raw = isinstance(prompt, str) and not self._wraps_strings
            end = self._text_end if raw else self._template_end
            return self._closed(self._continuation(response), end)
        messages = _as_messages(prompt)
        return self._turn_ids(self._trained_turn(messages + response, len(messages), tools))

    # Templates

    def _render(self, messages: Sequence[Message], tools: Tools, generation: bool) -> str:
        if not self._has_template:
            raise InputError(
                f"the tokenizer of {self._name} has no chat template, so messages cannot be written; use string prompts"
            )
        try:
            text = self._tokenizer.apply_chat_template(
                [_template_message(m) for m in messages],
                tools=[dict(tool) for tool in tools] or None,
                tokenize=False,
                add_generation_prompt=generation,
            )
        except jinja2.TemplateError as error:
            raise InputError(f"the chat template of {self._name} refuses the conversation: {error}") from None
        return str(text)

    def _check_tools(self, messages: Sequence[Message], tools: Tools) -> None:
        if tools and self._render(messages, tools, False) == self._render(messages, (), False):
            raise InputError(
                f"the chat template of {self._name} ignores tools; use a model whose template writes them, or drop "
                "'tools'"
            )

    def _probe_template(self) -> tuple[str, int | None]:
        """What the template writes after an assistant turn, and the end token in it, if any."""
        rendered = self._render((Message("user", "u"), Message("assistant", PROBE)), (), False)
        tail = rendered[rendered.rfind(PROBE) + len(PROBE) :]
        ends = [id_ for id_ in self._plain_ids(tail) if self._special.get(id_, "").strip()]
        return tail, ends[0] if ends else None

    def _turn(self, messages: tuple[Message, ...], index: int, tools: Tools) -> _Turn | None:
        """Assistant turn `index`; None if the template does not write it as a continuation of its generation prompt."""
        start = self._render(messages[:index], tools, True)
        whole = self._render(messages[: index + 1], tools, False)
        if not whole.startswith(start):
            return None
        part = whole[len(start) :]
        # A turn that calls tools may close with another end token than an answer.
        for id_ in (self._template_end, *sorted(self.end_ids)) if self._template_closes else ():
            end_text = self._special.get(id_)
            if end_text and (at := part.rfind(end_text)) >= 0:
                return _Turn(start, part[:at], end_text, id_)
        return _Turn(start, part.removesuffix(self._tail), "", self._template_end)

    def _trained_turn(self, messages: tuple[Message, ...], index: int, tools: Tools) -> _Turn:
        """The turn, or InputError if the template cannot write it or loses what would be trained."""
        turn = self._turn(messages, index, tools)
        if turn is None:
            prompt = self._render(messages[:index], tools, True)
            raise InputError(
                f"message {index + 1}: the chat template does not write this turn after its own generation prompt, "
                f"which ends in {prompt[-30:]!r}; give 'completion' as a string, just as the model is to continue that"
            )
        message = messages[index]
        if message.reasoning and message.reasoning.strip() not in turn.text:
            raise InputError(f"message {index + 1}: the chat template drops 'reasoning'; put it into 'content'")
        for call in message.tool_calls:
            name = call.get("function", call).get("name")
            if str(name) not in turn.text:
                raise InputError(f"message {index + 1}: the chat template drops the call of tool {name!r}")
        return turn

    def _history(self, messages: tuple[Message, ...], tools: Tools) -> tuple[Ids, dict[int, range]]:
        """Tokens of a conversation with its generation prompt, and where in them its assistant turns lie, end tokens
        included. No turns if the template writes some differently from when they were sampled."""
        full = self._render(messages, tools, True)
        ids: Ids = ()
        spans: dict[int, range] = {}
        position, end_text = 0, ""
        for index in [i for i, m in enumerate(messages) if m.role == "assistant"]:
            turn = self._turn(messages, index, tools)
            if turn is None or not full.startswith(turn.start + turn.text + turn.end_text):
                return self._one_bos(self._plain_ids(full)), {}
            ids += self._context_ids(full[position : len(turn.start)], end_text, first=position == 0)
            answer = self._turn_ids(turn)
            spans[index] = range(len(ids), len(ids) + len(answer))
            ids += answer
            position, end_text = len(turn.start + turn.text + turn.end_text), turn.end_text
        return ids + self._context_ids(full[position:], end_text, first=position == 0), spans

    # Tokens

    def _plain_ids(self, text: str) -> Ids:
        return tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _raw_ids(self, text: str, tools: Tools) -> Ids:
        """Raw text after whatever the tokenizer puts before text; not with what it may put after, an end token."""
        if tools:
            raise InputError("raw text cannot offer tools; drop 'tools' or use a chat template")
        whole, bare = tuple(self._tokenizer(text)["input_ids"]), self._plain_ids(text)
        starts = (i for i in range(len(whole) - len(bare) + 1) if whole[i : i + len(bare)] == bare)
        at = next(starts, None)
        return self._one_bos(whole if at is None else whole[: at + len(bare)])

    def _context_ids(self, text: str, end_text: str, first: bool) -> Ids:
        """A piece of template text. Behind an end token it is tokenised together with that, because some end tokens
        swallow the whitespace that follows."""
        if first:
            return self._one_bos(self._plain_ids(text))
        return self._plain_ids(end_text + text)[1:] if end_text else self._continuation(text)

    def _turn_ids(self, turn: _Turn) -> Ids:
        return self._closed(self._continuation(turn.text), turn.end_id)

    def _closed(self, ids: Ids, end: int) -> Ids:
        return ids if ids and ids[-1] == end else (*ids, end)

    def _continuation(self, text: str) -> Ids:
        """Text that goes on from earlier tokens: without the space that some tokenizers put before any text."""
        before, ids = self._plain_ids(self._anchor), self._plain_ids(self._anchor + text)
        return ids[len(before) :] if ids[: len(before)] == before else self._plain_ids(text)

    def _pads_with_space(self) -> bool:
        first = self._tokenizer.convert_ids_to_tokens(list(self._plain_ids("a")))[:1]
        return bool(first) and first[0].startswith("\u2581")

    def _one_bos(self, ids: Ids) -> Ids:
        bos = self._tokenizer.bos_token_id
        while len(ids) > 1 and ids[0] == ids[1] == bos:
            ids = ids[1:]
        return ids


def _answered(prompt: Ids, answer: Ids) -> tuple[Ids, tuple[bool, ...]]:
    return prompt + answer, (False,) * len(prompt) + (True,) * len(answer)


def _as_messages(prompt: Prompt) -> tuple[Message, ...]:
    return (Message("user", prompt),) if isinstance(prompt, str) else prompt


def _template_message(message: Message) -> dict[str, Any]:
    """The message for a template; most read reasoning under the name `reasoning_content`."""
    out = message.to_dict()
    if message.reasoning is not None:
        out["reasoning_content"] = message.reasoning
    return out
