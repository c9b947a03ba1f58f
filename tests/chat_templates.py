"""Tokenizers with chat templates in the styles of well-known models, and an environment and engine that follow a
script, for tests of conversations."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from posttrain.engine.base import Request
from posttrain.envs.pool import Lost, Outcome, Reply
from posttrain.types import Completion, Message

STYLES: Mapping[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    # the end token, other special tokens, and added tokens that are text
    "chatml": ("<|im_end|>", ("<|im_start|>",), ()),
    "llama3": ("<|eot_id|>", ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>"), ()),
    "qwen3": ("<|im_end|>", ("<|im_start|>",), ("<think>", "</think>", "<tool_call>", "</tool_call>")),
    "gemma": ("<end_of_turn>", ("<bos>", "<start_of_turn>"), ()),
    "mistral": (
        "</s>",
        (
            *("<s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"),
            *("[TOOL_CALLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]"),
        ),
        (),
    ),
}
MERGES = [("a", "b"), ("ab", "a"), ("b", "a"), ("Ġ", "a"), ("Ġ", "Ġ"), ("Ċ", "Ċ"), ('"', "}"), ('"', ":"), ("Ġ", '"')]
"""Pieces of more than a byte, so that there are many ways to tokenise a text and only one that is canonical."""

TOOL = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Add.",
        "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
    },
}


def styled_tokenizer(style: str, swallows: bool = False) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer with a few merges, the template of that style and the tokens it needs. The end token may
    swallow whitespace after it, as some do."""
    end, special, words = STYLES[style]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [end, *special, *words, *alphabet, *(a + b for a, b in MERGES)]
    backend = Tokenizer(models.BPE(vocab={piece: i for i, piece in enumerate(pieces)}, merges=MERGES))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(t, special=True, rstrip=swallows and t == end) for t in (end, *special)])
    backend.add_tokens([AddedToken(word, special=False, normalized=False) for word in words])
    bos = next((token for token in special if token in ("<|begin_of_text|>", "<bos>", "<s>")), None)
    out = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=end, pad_token=end, bos_token=bos)
    out.name_or_path = style
    out.chat_template = (Path(__file__).parent / "templates" / f"{style}.jinja").read_text()
    return out


def random_pieces(tokenizer: PreTrainedTokenizerFast, text: str, rng: random.Random) -> tuple[int, ...]:
    """Tokens of `text` cut at random: seldom those that the tokenizer would choose. Added tokens stay whole."""
    vocabulary = tokenizer.get_vocab()
    ids: list[int] = []
    for whole in tokenizer(text, add_special_tokens=False)["input_ids"]:
        if whole in tokenizer.added_tokens_decoder:
            ids.append(whole)
            continue
        ids += [vocabulary[c] for c in tokenizer.convert_ids_to_tokens(whole)]
    joined: list[int] = []
    for id_ in ids:
        pair = "".join(tokenizer.convert_ids_to_tokens([*joined[-1:], id_]))
        if joined and pair in vocabulary and rng.random() < 0.5:
            joined[-1] = vocabulary[pair]
        else:
            joined.append(id_)
    return tuple(joined)


@dataclass
class ScriptedEngine:
    """Answers request `id` for the n-th time with `tokens(id, n)`; every answer has a log-probability of its own. Ends
    with the reason `length` where the answer does not fit, cut."""

    tokens: Callable[[int, int], tuple[int, ...]]
    backwards: bool = False
    asked: dict[int, list[Request]] = field(default_factory=dict)
    rounds: list[list[int]] = field(default_factory=list)
    version: int = 3

    def generate(
        self, requests: Sequence[Request], deadline_seconds: float | None = None
    ) -> Iterator[tuple[int, Completion]]:
        self.rounds.append([r.id for r in requests])
        for r in reversed(requests) if self.backwards else requests:
            if deadline_seconds is not None and deadline_seconds <= 0:
                yield r.id, Completion((), (), (), "cancelled")
                continue
            turn = len(self.asked.setdefault(r.id, []))
            self.asked[r.id].append(r)
            whole = self.tokens(r.id, turn)
            ids = whole[: r.sampling.max_new_tokens]
            logprobs = tuple(-(1 + turn) / (2 + i) for i in range(len(ids)))
            yield r.id, Completion(ids, logprobs, (3,) * len(ids), "stop" if ids == whole else "length")

    def cancel(self, request_id: int) -> None:
        raise AssertionError("nothing here cancels")

    def pause(self) -> None:
        raise AssertionError("nothing here pauses")

    def update(self, weights: object, version: int) -> None:
        self.version = version


@dataclass
class ScriptedEnvironment:
    """Replies to conversation `key` for the n-th time with `replies[key][n]`; the reward is the number of answers."""

    replies: Mapping[int, Sequence[Reply | Lost]]
    tools: tuple[Mapping[str, Any], ...] = ()
    first: Mapping[int, str | Lost] = field(default_factory=dict)
    has_reward: bool = True
    episodes: Mapping[int, tuple[Mapping[str, Any], int]] = field(default_factory=dict)
    heard: dict[int, list[Message]] = field(default_factory=dict)
    finished: list[int] = field(default_factory=list)

    def reset(self, episodes: Mapping[int, tuple[Mapping[str, Any], int]]) -> dict[int, str | Lost | None]:
        self.episodes = dict(episodes)
        return {key: self.first.get(key) for key in episodes}

    def act(self, answers: Mapping[int, Message]) -> dict[int, Reply | Lost]:
        out = {}
        for key, answer in answers.items():
            heard = self.heard.setdefault(key, [])
            out[key] = self.replies[key][len(heard)]
            heard.append(answer)
        return out

    def finish(self, keys: Sequence[int]) -> dict[int, Outcome | Lost]:
        self.finished += keys
        return {key: Outcome(float(len(self.heard.get(key, ()))), b"state %d" % key) for key in keys}
