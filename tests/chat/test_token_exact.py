"""Rows of conversations, token for token, in the styles of five chat templates."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from posttrain.chat import ChatFormat
from posttrain.rollout import Limits, RolloutRequest, converse
from posttrain.types import InputError, Message, Sampling, Task
from tests.chat_templates import (
    STYLES,
    TOOL,
    Reply,
    ScriptedEngine,
    ScriptedEnvironment,
    random_pieces,
    styled_tokenizer,
)

LIMITS = Limits(max_turns=9, max_tokens=1 << 20)
TEXT = st.text(alphabet='aab  \n"}:é漢🙂', max_size=12)


@cache
def made(style: str) -> tuple[PreTrainedTokenizerFast, ChatFormat]:
    tokenizer = styled_tokenizer(style)
    return tokenizer, ChatFormat(tokenizer)


@dataclass(frozen=True)
class Script:
    """A whole conversation: its opening, and what the model and then the environment say in turn."""

    opening: tuple[Message, ...]
    turns: tuple[tuple[Message, tuple[Message, ...]], ...]

    def until(self, turn: int) -> tuple[Message, ...]:
        """All messages before an answer."""
        return self.opening + tuple(m for said, replies in self.turns[:turn] for m in (said, *replies))


@st.composite
def scripts(draw: st.DrawFn, style: str) -> Script:
    opening = [Message("user", "q" + draw(TEXT))]
    if style not in ("gemma", "mistral") and draw(st.booleans()):
        opening.insert(0, Message("system", draw(TEXT)))
    turns = []
    number = 0
    for _ in range(draw(st.integers(1, 4))):
        count = 0 if style == "gemma" else draw(st.integers(0, 1 if style == "llama3" else 2))
        calls = tuple(
            {
                "id": f"call{number + k:05d}",
                "type": "function",
                "function": {"name": "add", "arguments": {"a": draw(st.integers(-9, 99)), "b": draw(TEXT)}},
            }
            for k in range(count)
        )
        content = draw(TEXT)
        if calls:
            content = "" if style in ("llama3", "mistral") else content.strip()
            replies = tuple(Message("tool", draw(TEXT), tool_call_id=call["id"]) for call in calls)
        else:
            replies = (Message("user", draw(TEXT)),)
        if style == "qwen3" and draw(st.booleans()):
            content = f"<think>\nr{draw(TEXT)}\n</think>\n\n{content}"
        turns.append((Message("assistant", content, tool_calls=calls), replies))
        number += count
    return Script(tuple(opening), tuple(turns))


def rendered(
    tokenizer: PreTrainedTokenizerFast, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]], open_: bool
) -> str:
    return tokenizer.apply_chat_template(
        [m.to_dict() for m in messages], tools=list(tools) or None, tokenize=False, add_generation_prompt=open_
    )


def written(tokenizer: PreTrainedTokenizerFast, script: Script, turn: int, tools: Sequence[Mapping[str, Any]]) -> str:
    """What the template writes for an answer, without its end token."""
    before = script.until(turn)
    start = rendered(tokenizer, before, tools, True)
    whole = rendered(tokenizer, (*before, script.turns[turn][0]), tools, False)
    assert whole.startswith(start)
    return whole[len(start) : whole.rindex(tokenizer.eos_token)]


def play(style: str, script: Script, seed: int) -> tuple[list[tuple[int, ...]], ScriptedEngine, Any]:
    """The conversation of a script, its answers in tokens cut at random."""
    tokenizer, chat = made(style)
    tools = () if style == "gemma" else (TOOL,)
    rng = random.Random(seed)
    texts = [written(tokenizer, script, turn, tools) for turn in range(len(script.turns))]
    sampled = [(*random_pieces(tokenizer, text, rng), chat.turn_end) for text in texts]
    engine = ScriptedEngine(lambda key, turn: sampled[turn])
    last = len(script.turns) - 1
    replies = [Reply(replies, turn == last) for turn, (_, replies) in enumerate(script.turns)]
    plan = RolloutRequest(Task("t", script.opening), 0, Sampling(1 << 16), 1)
    [(_, rollout)] = converse(engine, chat, [plan], ScriptedEnvironment({0: replies}, tools), LIMITS)
    return sampled, engine, rollout


@pytest.mark.parametrize("style", STYLES)
@given(data=st.data(), seed=st.integers(0, 999))
@settings(deadline=None, max_examples=60)
def test_rows_are_what_was_sampled(style: str, data: st.DataObject, seed: int) -> None:
    """For every turn the prompt that the engine got and what it sampled are a prefix of a row; rows are trained on what
    was sampled and on nothing else; as text, a row is what the template writes; and a new row begins exactly where the
    template writes the earlier part differently."""
    script = data.draw(scripts(style))
    tokenizer, _ = made(style)
    tools = () if style == "gemma" else (TOOL,)
    sampled, engine, rollout = play(style, script, seed)
    assert (rollout.status, rollout.error) == ("ok", None)
    rows = list(rollout.segments)
    expected: list[list[range]] = [[] for _ in rows]
    row, before = -1, None
    for turn, request in enumerate(engine.asked[0]):
        prompt = rendered(tokenizer, script.until(turn), tools, True)
        text = prompt + written(tokenizer, script, turn, tools) + tokenizer.eos_token
        row += before is None or not prompt.startswith(before)
        before = text
        ids = request.prompt_ids + sampled[turn]
        assert tuple(rows[row].token_ids[: len(ids)].tolist()) == ids
        assert tokenizer.decode(ids) == text
        expected[row].append(range(len(request.prompt_ids), len(ids)))
    assert row == len(rows) - 1
    assert [segment.sampled_spans for segment in rows] == expected
    for segment, spans in zip(rows, expected, strict=True):
        assert spans[-1].stop == len(segment.token_ids)
        trained = {i for span in spans for i in span}
        assert segment.sampled.tolist() == [i in trained for i in range(len(segment.token_ids))]
        assert all((p != 0.0) == s for p, s in zip(segment.sampler_logprobs, segment.sampled, strict=True))
        assert all((v == 3) == s for v, s in zip(segment.versions, segment.sampled, strict=True))


@pytest.mark.parametrize("style", STYLES)
@given(data=st.data())
@settings(deadline=None, max_examples=30)
def test_answers_in_the_tokenizers_own_pieces_give_the_prompt_of_the_whole(style: str, data: st.DataObject) -> None:
    """Where an answer was sampled as the template would have it tokenised, going on from it is tokenising all."""
    tokenizer, chat = made(style)
    script = data.draw(scripts(style))
    tools = () if style == "gemma" else (TOOL,)
    said, replies = script.turns[0]
    text = written(tokenizer, script, 0, tools)
    sampled = (*tokenizer(text, add_special_tokens=False)["input_ids"], chat.turn_end)
    before = (*script.opening, said)
    between = chat.continuation_ids(before, sampled, replies, tools)
    whole = chat.prompt_ids((*before, *replies), tools)
    if between is not None:
        assert chat.prompt_ids(script.opening, tools) + sampled + between == whole
    else:
        assert style == "qwen3" or (style == "mistral" and replies[0].role == "user")


def test_the_cut_pieces_are_seldom_the_tokenizers_own() -> None:
    """Or the tests above would not notice an answer that was encoded again."""
    tokenizer, _ = made("chatml")
    text = 'abab "}  a\n\nba": é'
    own = tuple(tokenizer(text)["input_ids"])
    cuts = {random_pieces(tokenizer, text, random.Random(seed)) for seed in range(50)}
    assert own not in cuts and len(cuts) > 40 and {tokenizer.decode(cut) for cut in cuts} == {text}


def user_turns(*answers: str) -> Script:
    turns = tuple((Message("assistant", answer), (Message("user", "more"),)) for answer in answers)
    return Script((Message("user", "q"),), turns)


def test_a_template_that_drops_reasoning_opens_a_row_for_each_question() -> None:
    """Qwen 3 forgets what was thought before the last question; each row trains the answer to one question."""
    script = user_turns("<think>\nr1\n</think>\n\na1", "<think>\nr2\n</think>\n\na2")
    tokenizer, _ = made("qwen3")
    _, _, rollout = play("qwen3", script, 0)
    first, second = (tokenizer.decode(list(s.token_ids)) for s in rollout.segments)
    assert first.endswith("assistant\n<think>\nr1\n</think>\n\na1<|im_end|>")
    assert second.endswith(
        "assistant\na1<|im_end|>\n<|im_start|>user\nmore<|im_end|>\n<|im_start|>assistant\n"
        "<think>\nr2\n</think>\n\na2<|im_end|>"
    )
    assert [len(s.sampled_spans) for s in rollout.segments] == [1, 1]


def test_tools_before_the_last_question_open_a_row_for_each() -> None:
    """Mistral moves the tools; results of tools do not."""
    assert len(play("mistral", user_turns("a", "b", "c"), 0)[2].segments) == 3
    call = {"id": "call00000", "type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
    script = Script(
        (Message("user", "q"),),
        (
            (Message("assistant", "", tool_calls=(call,)), (Message("tool", "2", tool_call_id="call00000"),)),
            (Message("assistant", "two"), (Message("user", "thanks"),)),
        ),
    )
    (row,) = play("mistral", script, 0)[2].segments
    assert (
        made("mistral")[0]
        .decode(list(row.token_ids))
        .endswith(
            '[INST] q[/INST][TOOL_CALLS] [{"name": "add", "arguments": {"a": 1}, "id": "call00000"}]</s>'
            '[TOOL_RESULTS] {"content": "2", "call_id": "call00000"}[/TOOL_RESULTS] two</s>'
        )
    )


def test_another_end_token_stands_for_the_templates_own_and_a_stop_string_is_followed_by_it() -> None:
    tokenizer = styled_tokenizer("chatml")
    (other,) = tokenizer("<|im_start|>")["input_ids"]
    chat = ChatFormat(tokenizer, end_ids_extra=[other])
    messages, new = (Message("user", "q"), Message("assistant", "a")), (Message("user", "r"),)
    (a,) = tokenizer("a")["input_ids"]
    rest = "\n<|im_start|>user\nr<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.decode(chat.continuation_ids(messages, (a, other), new)) == rest
    assert tokenizer.decode(chat.continuation_ids(messages, (a,), new)) == "<|im_end|>" + rest


def test_an_answer_without_the_empty_reasoning_that_the_template_would_write_is_gone_on_from() -> None:
    """Qwen 3 writes it for the last answer alone; what was sampled stands in the history just so."""
    tokenizer, chat = made("qwen3")
    messages = (Message("user", "q"), Message("assistant", "a"))
    sampled = (*tokenizer("a")["input_ids"], chat.turn_end)
    between = chat.continuation_ids(messages, sampled, (Message("user", "r"),))
    assert between is not None
    assert tokenizer.decode(between) == "\n<|im_start|>user\nr<|im_end|>\n<|im_start|>assistant\n"


def test_an_end_token_that_swallows_blanks_does_so_between_turns_too() -> None:
    """The template's line break after it is no token of its own, as when all is tokenised in one go."""
    tokenizer = styled_tokenizer("chatml", swallows=True)
    chat = ChatFormat(tokenizer)
    messages, new = (Message("user", "q"), Message("assistant", "a")), (Message("user", "r"),)
    sampled = (*tokenizer("a")["input_ids"], chat.turn_end)
    between = chat.continuation_ids(messages, sampled, new)
    assert between is not None
    assert chat.prompt_ids(messages[:1]) + sampled + between == chat.prompt_ids(messages + new)
    assert tokenizer.decode(between).startswith("<|im_start|>user")


def test_an_answer_that_the_template_writes_differently_stays_as_it_was_sampled() -> None:
    """Llama 3 trims contents: the row keeps the blanks that were sampled."""
    tokenizer, chat = made("llama3")
    sampled = (*tokenizer(" a\n", add_special_tokens=False)["input_ids"], chat.turn_end)
    said = chat.response_messages(sampled)
    between = chat.continuation_ids((Message("user", "q"), *said), sampled, (Message("user", "r"),))
    assert said == (Message("assistant", " a\n"),) and between is not None
    assert tokenizer.decode(between) == (
        "<|start_header_id|>user<|end_header_id|>\n\nr<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    )


def test_a_template_that_ignores_tools_is_refused() -> None:
    chat = made("gemma")[1]
    plan = RolloutRequest(Task("t", "q"), 0, Sampling(4), 0)
    environment = ScriptedEnvironment({0: []}, (TOOL,))
    with pytest.raises(InputError, match="template of gemma ignores tools"):
        next(converse(ScriptedEngine(lambda key, turn: ()), chat, [plan], environment, LIMITS))
