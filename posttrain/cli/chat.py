"""`posttrain chat`: a conversation with a model, one line a turn."""

from __future__ import annotations

import difflib
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TextIO

from pydantic import ValidationError

from posttrain.config import ChatConfig
from posttrain.config.compute import on_its_device
from posttrain.engine.base import Engine, Request
from posttrain.engine.open import Slots, open_engine
from posttrain.models import LanguageModel, load_model
from posttrain.text import printable
from posttrain.types import InputError, Message, Sampling

SETTINGS = ("temperature", "top_p", "max_new_tokens", "seed")
"""Options of the command that can be changed in the conversation."""
COMMANDS = {
    "/help": "this list",
    "/reset": "forget the conversation",
    "/undo": "forget the last question and its answer",
    "/system TEXT": "begin anew with this system message; without TEXT with none",
    **{f"/{name.replace('_', '-')} NUMBER": "change the sampling" for name in SETTINGS},
    "/exit": "leave, as Ctrl-D does",
}


@on_its_device
def chat(config: ChatConfig, stdin: TextIO | None = None, stdout: TextIO | None = None) -> list[dict[str, str]]:
    """Read lines until the end of the input or `/exit`, and answer each one; `/help` lists the other commands. Returns
    every `question` with its `answer`.

    The answers go to `stdout`, what else there is to say to standard error; prompts and a banner are shown only where a
    person types. Raises InputError where the first message already cannot be answered; later, a turn that no longer
    fits is dropped with a message."""
    source, sink = stdin or sys.stdin, stdout or sys.stdout
    lm = load_model(config.model, trust_remote_code=config.trust_remote_code, chat_template=config.chat_template)
    talk = _Talk(lm, open_engine(Slots(1), lm), config)
    typed = source is sys.stdin and source.isatty()
    if typed:
        _say(talk.banner())
    turns = []
    for turn, line in enumerate(_lines(source, typed)):
        if line == "/exit":
            break
        if line.startswith("/") and (said := talk.command(line)) is not None:
            _say(said)
            continue
        try:
            turns.append({"question": line, "answer": talk.answer(line, turn)})
            print(printable(turns[-1]["answer"]), file=sink, flush=True)
        except InputError as error:
            if not talk.turns:
                raise
            _say(f"{error}; /reset starts over, /undo forgets the last turn")
    return turns


@dataclass
class _Talk:
    """A conversation and how it is sampled."""

    lm: LanguageModel
    engine: Engine
    config: ChatConfig
    turns: list[Message] = field(default_factory=list)
    """Questions and answers in turn, without the system message."""

    def banner(self) -> str:
        template = "its chat template" if self.lm.tokenizer.chat_template else "no chat template"
        return f"{self.config.model}, {template}; {self._settings()}\n/help lists the commands, /exit or Ctrl-D leaves"

    def answer(self, question: str, turn: int) -> str:
        """Ask and remember. Raises InputError where the conversation does not fit."""
        config = self.config
        opening = () if config.system is None else (Message("system", config.system),)
        asked = (*opening, *self.turns, Message("user", question))
        sampling = Sampling(config.max_new_tokens, temperature=config.temperature, top_p=config.top_p)
        ids = tuple(self.lm.chat.prompt_ids(asked))
        [(_, completion)] = self.engine.generate([Request(0, ids, sampling, config.seed + turn)])
        text = self.lm.chat.decode(completion.token_ids.tolist())
        self.turns += [Message("user", question), Message("assistant", text)]
        return text

    def command(self, line: str) -> str | None:
        """Do what a line with a slash says, and what to tell about it. None for a line that is no command, such as a
        path."""
        name, _, value = line.partition(" ")
        key, value = name[1:].replace("-", "_"), value.strip()
        if name == "/help":
            return "\n".join(f"{written:24}{about}" for written, about in COMMANDS.items())
        if name == "/reset":
            self.turns.clear()
            return "the conversation is forgotten"
        if name == "/undo":
            del self.turns[-2:]
            return f"{len(self.turns) // 2} turns are left"
        if name == "/system":
            self.turns.clear()
            return self._change("system", value or None)
        if key in SETTINGS:
            return self._change(key, value)
        if "/" in name[1:]:
            return None
        names = [written.split()[0] for written in COMMANDS]
        close = difflib.get_close_matches(name, names, n=1)
        return f"unknown command {name}; " + (f"did you mean {close[0]}?" if close else "/help lists them")

    def _change(self, key: str, value: str | None) -> str:
        try:
            self.config = ChatConfig(**self.config.model_dump() | {key: value})
        except ValidationError as error:
            [fault] = error.errors(include_url=False)
            rule = fault["msg"].replace("Input should be", "must be").split(", unable to parse")[0]
            return f"/{key.replace('_', '-')} {rule}, not {value!r}"
        return self._settings()

    def _settings(self) -> str:
        settings = [f"{name.replace('_', ' ')} {getattr(self.config, name)}" for name in SETTINGS]
        system = [] if self.config.system is None else [f"system {shlex.quote(self.config.system)}"]
        return ", ".join([*settings, *system])


def _say(text: str) -> None:
    print(printable(text), file=sys.stderr, flush=True)


def _lines(source: TextIO, typed: bool) -> Iterator[str]:
    """The lines that are not empty; typed ones with a prompt and line editing."""
    if not typed:
        yield from (line.strip() for line in source if line.strip())
        return
    import readline  # noqa: F401  (importing it gives `input` its line editing and history)

    while True:
        try:
            line = input("> ").strip()
        except EOFError:
            print()
            return
        if line:
            yield line
