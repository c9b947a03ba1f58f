"""`posttrain chat`: a conversation with a model, one line a turn."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TextIO

from posttrain.config import ChatConfig
from posttrain.engine.base import Engine, Request
from posttrain.engine.local import LocalEngine
from posttrain.models import LanguageModel, load_model
from posttrain.text import printable
from posttrain.types import InputError, Message, Sampling


def chat(config: ChatConfig, stdin: TextIO | None = None, stdout: TextIO | None = None) -> None:
    """Read lines until the end of the input or `/exit`, and answer each one; `/reset` forgets the conversation.

    The answers go to `stdout`; the prompts go there too, but only where a person types. Raises InputError where the
    first message already cannot be answered; later, a turn that no longer fits is dropped with a message.
    """
    source, sink = stdin or sys.stdin, stdout or sys.stdout
    lm = load_model(config.model, trust_remote_code=config.trust_remote_code, chat_template=config.chat_template)
    engine = LocalEngine(lm, slots=1)
    opening = () if config.system is None else (Message("system", config.system),)
    messages = opening
    for turn, line in enumerate(_lines(source)):
        if line == "/exit":
            return
        if line == "/reset":
            messages = opening
            continue
        asked = (*messages, Message("user", line))
        try:
            answer = _answer(lm, engine, asked, config, seed=config.seed + turn)
        except InputError as error:
            if messages == opening:
                raise
            print(f"{printable(error)}; /reset starts over", file=sys.stderr)
            continue
        messages = (*asked, Message("assistant", answer))
        print(printable(answer), file=sink, flush=True)


def _answer(lm: LanguageModel, engine: Engine, messages: tuple[Message, ...], config: ChatConfig, seed: int) -> str:
    sampling = Sampling(config.max_new_tokens, temperature=config.temperature, top_p=config.top_p)
    request = Request(id=0, prompt_ids=tuple(lm.chat.prompt_ids(messages)), sampling=sampling, seed=seed)
    [(_, completion)] = engine.generate([request])
    return lm.chat.decode(completion.token_ids)


def _lines(source: TextIO) -> Iterator[str]:
    """The lines that are not empty; typed ones with a prompt and line editing."""
    if source is not sys.stdin or not source.isatty():
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
