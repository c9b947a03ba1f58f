"""A chat template: conversations as text and tokens, with the place of every assistant turn in them.

Turns are found by rendering the conversation up to each of them, so that no generation marker is needed; no token is
ever compared with the padding.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, time
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import jinja2

from posttrain.chat.calls import PROBE_CALL, PROBE_TOOL, PROBE_VALUE, CallStyle
from posttrain.chat.given import shipped_templates, template_hash
from posttrain.chat.limits import OutOfProcessorTime, processor_limit
from posttrain.chat.pieces import Ids, Pieces, closed
from posttrain.chat.template_date import CLOCK, template_date
from posttrain.rows import Tools
from posttrain.tool_calls import with_text_arguments
from posttrain.types import InputError, Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

RENDER_SECONDS = 20.0
"""Processor time in which a template must be done with one conversation; they take milliseconds."""
MOST_CHARACTERS, MOST_TIMES = 1_000_000, 20
"""A template may write so many characters, and so many times what it is given; whatever writes more is broken."""
ASKED, PROBE = "question", "sentinel"
THINK = "<think>"
RANDOM = re.compile(r"\|\s*random\b|\blipsum\b")
"""What draws at random in Jinja."""
PROBE_CONVERSATION = (Message("user", "u"), Message("assistant", "", tool_calls=(PROBE_CALL,)))
REFUSALS = (
    jinja2.TemplateError,
    TypeError,
    ValueError,
    AttributeError,
    LookupError,
    ArithmeticError,
    RecursionError,
    MemoryError,
)
"""What a template raises itself, and what goes wrong in one that does not expect a conversation."""


class Unbounded(InputError):
    """A template that seems to loop, or writes too much: it is not tried again with another form of messages."""


@dataclass(frozen=True)
class CallForm:
    """How messages with calls are handed to a template: arguments as an object or as its JSON text (DeepSeek joins them
    to strings), and an empty content as "" or none (which is how DeepSeek tells a call from an answer)."""

    text_arguments: bool
    no_content: bool


CALL_FORMS = (CallForm(False, False), CallForm(True, False), CallForm(False, True), CallForm(True, True))


@dataclass(frozen=True)
class Turn:
    """One assistant turn in a rendered conversation: `start` is all before it, `text` what is sampled, without the end
    token, whose text is `end_text`, or "" where the template has none and `end_id` has to be inserted."""

    start: str
    text: str
    end_text: str
    end_id: int


class Template:
    """A tokenizer's chat template, if it has one.

    `closing` is the end token that the template writes after an assistant turn, or None. `end` is that, or else the
    first of `other_ends`; `ends` are all. Raises InputError if there is no end token at all, and for a template that
    draws at random."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, pieces: Pieces, other_ends: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self.pieces = pieces
        self.name = str(tokenizer.name_or_path or "this model")
        self.exists = bool(tokenizer.chat_template)
        source = str(tokenizer.chat_template or "")
        if RANDOM.search(source):
            raise InputError(f"the chat template of {self.name} draws at random, so that no run could be repeated")
        if _has_powers(source):
            raise InputError(f"the chat template of {self.name} computes powers (**), whose size has no limit")
        self.hash = template_hash(source) if source else None
        # it may write today's date in some conversations only, so its text decides
        self.writes_date = CLOCK in source
        self._midnight = datetime.combine(template_date(), time()) if CLOCK in source else None
        self._tail, self.closing = self._probe() if self.exists else ("", None)
        known = [*([] if self.closing is None else [self.closing]), *other_ends]
        if not known:
            raise InputError("the tokenizer has no end token (eos_token); set one, or answers would never end")
        self.end = known[0]
        self.ends = frozenset(known)

    def check_given(self) -> None:
        """Raise InputError for a template that somebody gave to a model which it does not fit: it writes no answers, or
        ends them by what is no single token, so that what is sampled would never end there."""
        text = self.render((Message("user", ASKED), Message("assistant", PROBE)), (), False)
        if ASKED not in text or PROBE not in text:
            raise InputError("it does not write messages; give a Jinja template that goes over `messages`")
        if self.closing is None:
            written = f"{self._tail.strip()!r}, which is no token of {self.name}" if self._tail.strip() else "no token"
            known = ", ".join(repr(name) for name in dict.fromkeys(self.pieces.special.values()) if name.strip())
            raise InputError(
                f"it ends an answer by {written}; end it by eos_token, {self.pieces.special.get(self.end, '')!r}, or "
                f"another special token of the model ({known[:300]})"
            )

    def render(self, messages: Sequence[Message], tools: Tools, generation: bool) -> str:
        """The conversation as text, with the generation prompt at its end or without. Raises InputError without a
        template, and where that refuses the conversation."""
        if not self.exists:
            raise InputError(
                f"the tokenizer of {self.name} has no chat template, so messages cannot be written; give one "
                f"(--chat-template {' or '.join(shipped_templates())}, or a Jinja file), or use string prompts"
            )
        return self._render([_template_message(m, self._call_form) for m in messages], tools, generation)

    @cached_property
    def opens_thinking(self) -> bool:
        """Whether the generation prompt ends in <think>, so that an answer begins after it."""
        return self.render(PROBE_CONVERSATION[:1], (), True).rstrip().endswith(THINK)

    @cached_property
    def call_style(self) -> CallStyle:
        """How the template writes tool calls, found by having it write one."""
        try:
            start = self.render(PROBE_CONVERSATION[:1], (PROBE_TOOL,), False)
            whole = self.render(PROBE_CONVERSATION, (PROBE_TOOL,), False)
        except Unbounded:
            raise
        except InputError:
            return CallStyle.of("", written=False)
        written = whole.removeprefix(start)
        return CallStyle.of(written, written=PROBE_VALUE in written)

    @cached_property
    def _call_form(self) -> CallForm:
        """The form of messages with calls that the template can write: the first of these in which one appears, and
        neither as Python writes objects nor quoted twice."""
        for form in CALL_FORMS:
            dicts = [_template_message(m, form) for m in PROBE_CONVERSATION]
            try:
                text = self._render(dicts, (PROBE_TOOL,), False)
            except Unbounded:
                raise
            except InputError:
                continue
            if PROBE_VALUE in text and f"'{PROBE_VALUE}'" not in text and f'\\"{PROBE_VALUE}' not in text:
                return form
        return CALL_FORMS[0]

    def turn(self, messages: tuple[Message, ...], index: int, tools: Tools) -> Turn | None:
        """Assistant turn `index`; None if the template does not write it as a continuation of its generation prompt."""
        start = self.render(messages[:index], tools, True)
        whole = self.render(messages[: index + 1], tools, False)
        if not whole.startswith(start):
            return None
        part = whole[len(start) :]
        # A turn that calls tools may close with another end token than an answer.
        for id_ in (self.end, *sorted(self.ends)) if self.closing is not None else ():
            end_text = self.pieces.special.get(id_)
            if end_text and (at := part.rfind(end_text)) >= 0:
                return Turn(start, part[:at], end_text, id_)
        return Turn(start, part.removesuffix(self._tail), "", self.end)

    def history(
        self, messages: tuple[Message, ...], tools: Tools, turns: Mapping[int, Turn] | None = None
    ) -> tuple[Ids, dict[int, range]]:
        """Tokens of a conversation with its generation prompt, and where in them its assistant turns lie, end tokens
        included. No turns if the template writes some differently from when they were sampled. `turns` are those that
        are known."""
        full = self.render(messages, tools, True)
        ids: Ids = ()
        spans: dict[int, range] = {}
        position, end_text = 0, ""
        for index in [i for i, m in enumerate(messages) if m.role == "assistant"]:
            turn = (turns or {}).get(index) or self.turn(messages, index, tools)
            if turn is None or not full.startswith(turn.start + turn.text + turn.end_text):
                return self.pieces.opening(full), {}
            ids += self._context(full[position : len(turn.start)], end_text, first=position == 0)
            answer = self.turn_ids(turn)
            spans[index] = range(len(ids), len(ids) + len(answer))
            ids += answer
            position, end_text = len(turn.start + turn.text + turn.end_text), turn.end_text
        return ids + self._context(full[position:], end_text, first=position == 0), spans

    def between(
        self, messages: tuple[Message, ...], sampled: Ids, new: tuple[Message, ...], tools: Tools
    ) -> Ids | None:
        """See `ChatFormat.continuation_ids`."""
        turn = self.turn(messages, len(messages) - 1, tools)
        if turn is None:
            return None
        full = self.render(messages + new, tools, True)
        ended = sampled[-1] in self.ends
        said = self.pieces.text(sampled[:-1] if ended else sampled, special=True)
        end = () if ended else (turn.end_id,)  # a stop string ended the turn: its end token is context
        end_text = self.pieces.special.get((*sampled, *end)[-1], "") if turn.end_text else ""
        # The turn may stand in the history as the template writes it while it is the last one, or as it was sampled.
        for text in (turn.text, said):
            before = turn.start + text + turn.end_text
            if full.startswith(before):
                return end + self.pieces.context(full[len(before) :], end_text)
        return None

    def turn_ids(self, turn: Turn) -> Ids:
        """What is sampled in a turn, end token included."""
        return closed(self.pieces.continuation(turn.text), turn.end_id)

    def _render(self, messages: list[dict[str, Any]], tools: Tools, generation: bool) -> str:
        try:
            with processor_limit(RENDER_SECONDS):
                if self._midnight is not None:
                    _set_clock(str(self._tokenizer.chat_template), self._midnight)
                text = self._tokenizer.apply_chat_template(
                    messages,
                    tools=[dict(tool) for tool in tools] or None,
                    tokenize=False,
                    add_generation_prompt=generation,
                )
        except OutOfProcessorTime:
            raise Unbounded(
                f"the chat template of {self.name} is not done with a conversation after {RENDER_SECONDS:g} s of "
                "processor time; it seems to loop"
            ) from None
        except REFUSALS as error:
            line = f" (line {error.lineno})" if isinstance(error, jinja2.TemplateSyntaxError) else ""
            raise InputError(f"the chat template of {self.name} refuses the conversation: {error}{line}") from None
        if len(text) > MOST_CHARACTERS:
            asked = sum(len(str(value)) for message in messages for value in message.values()) + len(str(tools))
            if len(text) > MOST_CHARACTERS + MOST_TIMES * asked:
                raise Unbounded(
                    f"the chat template of {self.name} writes {len(text)} characters for a conversation of {asked}"
                )
        return str(text)

    def _context(self, text: str, end_text: str, first: bool) -> Ids:
        return self.pieces.opening(text) if first else self.pieces.context(text, end_text)

    def _probe(self) -> tuple[str, int | None]:
        """What the template writes after an assistant turn, and the end token in it, if any."""
        rendered = self.render((Message("user", "u"), Message("assistant", PROBE)), (), False)
        tail = rendered[rendered.rfind(PROBE) + len(PROBE) :]
        ends = [id_ for id_ in self.pieces.plain(tail) if self.pieces.special.get(id_, "").strip()]
        return tail, ends[0] if ends else None


def _has_powers(source: str) -> bool:
    """Whether it raises numbers to a power, which may take for ever in one step that nothing can stop. `f(**names)` is
    none."""
    try:
        tokens = [value for _, kind, value in jinja2.Environment().lex(source) if kind != "whitespace"]
    except jinja2.TemplateError:
        return False  # it will be refused
    return any(value == "**" and before not in ("(", ",") for before, value in pairwise(tokens))


def _template_message(message: Message, form: CallForm) -> dict[str, Any]:
    """The message for a template; most read reasoning under the name `reasoning_content`, some as `thinking`."""
    out = message.to_dict()
    if message.reasoning is not None:
        out["reasoning_content"] = out["thinking"] = message.reasoning
    if message.tool_calls and form.text_arguments:
        out["tool_calls"] = [with_text_arguments(call) for call in message.tool_calls]
    if message.tool_calls and form.no_content and not message.content:
        out["content"] = None
    return out


def _set_clock(source: str, midnight: datetime) -> None:
    """Let the template, as transformers keeps it compiled, read the time from `midnight`. A clock among its variables
    would do with transformers 5.19, but 5.24 lets no function through there."""
    from transformers.utils.chat_template_utils import _compile_jinja_template

    _compile_jinja_template(source).environment.globals[CLOCK] = midnight.strftime
