"""What a chat template leaves out of a conversation is told, for every kind of row; what it may leave out is not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from posttrain.chat import ChatFormat
from posttrain.config import EvalConfig, RewardModelConfig, RlConfig, SftConfig
from posttrain.evals.run import run_eval
from posttrain.models import load_model, load_reward_model
from posttrain.models.load import model_folder
from posttrain.models.tiny import tiny_tokenizer
from posttrain.rollout import fit_tasks
from posttrain.rows import CompletionRow, MessagesRow, PreferenceRow, Tools, UnpairedRow
from posttrain.train.dpo.data import encode_examples
from posttrain.train.reward_model.pairs import train_reward_model
from posttrain.train.rl.setup import train_rl
from posttrain.train.sft import train_sft
from posttrain.types import InputError, Message, Prompt, Task
from tests.chat.test_chat import CHATML, QWEN3, marked, tokenizer
from tests.chat_templates import TOOL, styled_tokenizer

CALL = {"id": "call00000", "type": "function", "function": {"name": "add", "arguments": {"a": 17}}}
OTHER = {"id": "call00001", "type": "function", "function": {"name": "now", "arguments": {}}}
# In the manner of the distilled models of DeepSeek R1: whatever precedes </think> is cut from every answer.
CUT = CHATML.replace("m['content'] +", "m['content'].split('</think>')[-1] +")
# As GPT-OSS does: the first call alone, and no content beside it.
FIRST_CALL = CHATML.replace(
    "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}",
    "{{ '<|im_start|>' + m['role'] + '\n' }}{% if m.tool_calls %}{{ m.tool_calls[0].function | tojson }}"
    "{% else %}{{ m['content'] }}{% endif %}{{ '<|im_end|>\n' }}",
)
USERS = CHATML.replace("{% for m in messages %}", "{% for m in messages if m.role in ('user', 'assistant') %}")


def user(text: str) -> Message:
    return Message("user", text)


def said(text: str, *calls: Any, reasoning: str | None = None) -> Message:
    return Message("assistant", text, reasoning, calls)


CONTEXTS: dict[str, tuple[str, tuple[Message, ...], Tools, str]] = {
    "a call": (
        CHATML,
        (user("q"), said("", CALL), Message("tool", "42")),
        (),
        "message 2: .*drops the call of tool 'add'",
    ),
    "a second call": (
        FIRST_CALL,
        (user("q"), said("", CALL, OTHER), Message("tool", "42"), Message("tool", "noon")),
        (),
        "message 2: .*drops the call of tool 'now'",
    ),
    "content beside a call": (
        FIRST_CALL,
        (user("q"), said("I add.", CALL), Message("tool", "42")),
        (),
        "message 2: .*drops the content beside its calls of this message from the assistant; remove it, or use",
    ),
    "a system message": (USERS, (Message("system", "q"), user("q")), (), "message 1: .*from the system; put its text"),
    "a developer message": (
        USERS,
        (Message("developer", "q"), user("q")),
        (),
        "message 1: .*give it the role 'system'",
    ),
    "a result": (USERS, (user("4"), said("4"), Message("tool", "4"), user("4")), (), "message 3: .*from the tool; use"),
    "tools": (CHATML, (user("q"),), (TOOL,), "template of the-model ignores tools"),
}
"""What is lost, the template that loses it, a prompt, its tools, and what the error says. The words that are lost
stand elsewhere in the prompt too, so that to look for them would not do."""


def pair(chat: ChatFormat, prompt: Prompt, tools: Tools) -> object:
    return chat.encode_pair(PreferenceRow("f:7", prompt, "a", "b", tools))


def message_pair(chat: ChatFormat, prompt: Prompt, tools: Tools) -> object:
    return chat.encode_pair(PreferenceRow("f:7", prompt, (said("a"),), (said("b"),), tools))


def completion(chat: ChatFormat, prompt: Prompt, tools: Tools) -> object:
    return chat.encode_sft(CompletionRow("f:7", prompt, "a", tools))


def completed(chat: ChatFormat, prompt: Prompt, tools: Tools) -> object:
    return chat.encode_sft(CompletionRow("f:7", prompt, (said("a"),), tools))


def conversation(chat: ChatFormat, prompt: Prompt, tools: Tools) -> object:
    return chat.encode_sft(MessagesRow("f:7", (*prompt, said("a")), tools))  # type: ignore[arg-type]


def steps(chat: ChatFormat, prompt: Prompt, tools: Tools) -> object:
    return chat.encode_steps("f:7", prompt, ("a", "b"), "\n", tools)


def task(chat: ChatFormat, prompt: Prompt, tools: Tools) -> object:
    return fit_tasks(chat, [Task("7", prompt, {}, tools)], 1 << 20, 1, "f")


@pytest.mark.parametrize("lost", CONTEXTS)
@pytest.mark.parametrize("encode", [pair, message_pair, completion, completed, conversation, steps, task])
def test_no_kind_of_row_loses_a_part_of_its_prompt(lost: str, encode: Callable[..., object]) -> None:
    template, prompt, tools, fault = CONTEXTS[lost]
    with pytest.raises(InputError, match=f"^f: ?(7|task 7): .*{fault}"):
        encode(ChatFormat(tokenizer(template)), prompt, tools)


def test_labelled_responses_are_held_to_the_same() -> None:
    lm = load_model("tiny-random")
    lm.chat = ChatFormat(tokenizer(CHATML))
    row = UnpairedRow("f:7", CONTEXTS["a call"][1], "a", True)
    with pytest.raises(InputError, match=r"^f:7: message 2: .*drops the call"):
        encode_examples(lm, [row], 64, single=True)


def test_what_is_found_of_one_conversation_holds_for_others_of_its_kind_alone() -> None:
    """The answer is kept by kind: roles, which parts are there, and how many tools."""
    chat = ChatFormat(tokenizer(FIRST_CALL))
    for calls in ((CALL,), (CALL, OTHER), (CALL,), (OTHER,)):
        prompt = (user("q"), said("", *calls), Message("tool", "42"))
        if len(calls) == 1:
            assert chat.prompt_ids(prompt)
        else:
            with pytest.raises(InputError, match="'now'"):
                chat.prompt_ids(prompt)
    assert chat.prompt_ids((user("q"), said(" \n", CALL), Message("tool", "42")))  # nothing to lose


def test_a_call_may_be_written_by_an_id_that_holds_its_name() -> None:
    """As in Kimi K2's template, which writes no names."""
    template = CHATML.replace("m['content'] +", "m['content'] + (m.tool_calls[0].id if m.tool_calls else '') +")
    chat = ChatFormat(tokenizer(template))
    for id_, fine in (("functions.now:0", True), ("call_0", False), ("functions.now:1", True)):
        prompt = (user("q"), said("", {**OTHER, "id": id_}), Message("tool", "noon"))
        if fine:
            assert chat.prompt_ids(prompt)
        else:
            with pytest.raises(InputError, match="drops the call of tool 'now'"):
                chat.prompt_ids(prompt)
    named = (user("q"), said("", {**OTHER, "id": "functions.now:0"}), Message("tool", "noon"))
    assert ChatFormat(tiny_tokenizer()).prompt_ids(named)  # whose template writes names and no ids


def test_what_others_say_of_reasoning_is_not_cut() -> None:
    quoted = (user("q"), said("a"), Message("tool", "<think>why</think>so"), user("<think>no</think>"))
    assert ChatFormat(tokenizer(CHATML)).prompt_ids(quoted)
    with pytest.raises(InputError, match="message 3: .*cuts the content of this message from the tool at </think>"):
        ChatFormat(tokenizer(CUT)).prompt_ids(quoted)


def test_a_conversation_goes_on_though_the_template_drops_what_the_model_said_beside_a_call() -> None:
    """What was sampled is the model's own: a new row begins, and the rollout does not fail."""
    chat = ChatFormat(tokenizer(FIRST_CALL))
    talk = (user("q"), said("I add.", CALL), Message("tool", "42"))
    assert chat.history_ids(talk) == chat.prompt_ids((user("q"), said("", CALL), Message("tool", "42")))


TRACE = "<think>\nSix sevens are it.\n</think>\n\nIt is 42."


def test_a_template_that_cuts_reasoning_out_of_an_answer_does_not_train_the_rest() -> None:
    chat = ChatFormat(tokenizer(CUT))
    turns = (user("q"), said(TRACE))
    for encode in (
        lambda: chat.encode_sft(MessagesRow("f:1", turns)),
        lambda: chat.encode_sft(CompletionRow("f:1", turns[:1], turns[1:])),
        lambda: chat.encode_pair(PreferenceRow("f:1", turns[:1], turns[1:], (said("no"),))),
    ):
        with pytest.raises(InputError, match=r"^f:1: message 2: .*the-model cuts a part .*, and writes .*as a string"):
            encode()


def test_a_cut_is_seen_where_its_words_stand_in_the_rest_too() -> None:
    with pytest.raises(InputError, match="cuts a part"):
        ChatFormat(tokenizer(CUT)).encode_sft(MessagesRow("f:1", (user("q"), said("<think>42</think>It is 42."))))


def test_as_a_string_the_whole_trace_is_trained_whatever_the_template_does() -> None:
    made = tokenizer(CUT)
    (row,) = ChatFormat(made).encode_sft(CompletionRow("f:1", (user("q"),), TRACE))
    assert marked(made, row).endswith(f"assistant\n«{TRACE}<|im_end|>»")


@pytest.mark.parametrize(
    ("template", "advice"),
    [
        (CHATML, "put it into 'content', between <think> and </think>"),
        (CUT, "and out of 'content' too: give .* string"),
    ],
)
def test_the_advice_on_reasoning_that_is_dropped_works(template: str, advice: str) -> None:
    chat = ChatFormat(tokenizer(template))
    with pytest.raises(InputError, match=f"drops 'reasoning'; {advice}"):
        chat.encode_sft(MessagesRow("f:1", (user("q"), said("It is 42.", reasoning="Six sevens are it."))))
    if template == CHATML:
        assert chat.encode_sft(MessagesRow("f:1", (user("q"), said(TRACE))))


# Parts the reasoning from the answer and writes it as some models want it, and quotes the answer as JSON.
MOVED = CHATML.replace(
    "m['content'] +",
    "('[R]' + m['content'].split('</think>')[0].replace('<think>', '') | trim + '[/R]' if '</think>' in m['content'] "
    "else '') + (m['content'].split('</think>')[-1] | trim | tojson) +",
)


@pytest.mark.parametrize("content", [TRACE, '  a "b"\n\n  c\t', "<think></think>a", ""])
@pytest.mark.parametrize("template", [CHATML, CHATML.replace("m['content'] +", "m['content'] | trim +"), MOVED])
def test_another_form_of_the_same_words_is_no_loss(template: str, content: str) -> None:
    made = tokenizer(template)
    (row,) = ChatFormat(made).encode_sft(MessagesRow("f:1", (user("q"), said(content))))
    assert marked(made, row).count("«") == 1


def test_reasoning_of_earlier_answers_may_go() -> None:
    """It is what such templates are for: a row for each answer, each with its own reasoning."""
    made = styled_tokenizer("qwen3")
    turns = (user("q"), said("<think>\nr1\n</think>\n\na1"), user("q"), said("a2", reasoning="r2"))
    rows = [marked(made, row) for row in ChatFormat(made).encode_sft(MessagesRow("f:1", turns))]
    assert len(rows) == 2 and "«<think>\nr1\n</think>\n\na1" in rows[0] and "r1" not in rows[1] and "r2" in rows[1]
    prompt = (user("q"), said("a1", reasoning="r1"), user("q"))
    assert "r1" not in made.decode(ChatFormat(made).prompt_ids(prompt))
    assert "r1" not in tokenizer(QWEN3).decode(ChatFormat(tokenizer(QWEN3)).prompt_ids(prompt))


def test_a_template_that_fails_on_a_conversation_refuses_it() -> None:
    """A template is a program: what goes wrong in it is no fault of ours."""
    chat = ChatFormat(
        tokenizer(CHATML.replace("m['content'] +", "m['content'] + (1 if m['role'] == 'tool' else '') +"))
    )
    assert chat.prompt_ids((user("q"),))
    with pytest.raises(InputError, match="the-model refuses the conversation: can only concatenate str"):
        chat.prompt_ids((user("q"), said("a"), Message("tool", "7")))


@pytest.mark.parametrize("drawn", ["{{ ['a', 'b'] | random }}", "{{ lipsum(1) }}"])
def test_a_template_that_draws_at_random_is_refused(drawn: str) -> None:
    with pytest.raises(InputError, match="the-model draws at random"):
        ChatFormat(tokenizer(drawn + CHATML))


def grown(embeddings: int | None = 259) -> ChatFormat:
    """The tiny model's format, whose tokenizer got a token that its embedding has no row for."""
    made = tiny_tokenizer()
    made.name_or_path = "grown"
    made.add_special_tokens({"additional_special_tokens": ["<|tool|>"]})
    return ChatFormat(made, embeddings=embeddings)


WITH_TOKEN: dict[str, Callable[[ChatFormat, str], object]] = {
    "prompt": lambda chat, text: chat.prompt_ids(text),
    "completion": lambda chat, text: chat.encode_sft(CompletionRow("f:1", "q", text)),
    "conversation": lambda chat, text: chat.encode_sft(
        MessagesRow("f:1", (user("q"), said("a"), user(text), said("b")))
    ),
    "answer": lambda chat, text: chat.encode_sft(MessagesRow("f:1", (user("q"), said(text)))),
    "chosen": lambda chat, text: chat.encode_pair(PreferenceRow("f:1", "q", text, "b")),
    "rejected": lambda chat, text: chat.encode_pair(PreferenceRow("f:1", (user("q"),), (said("a"),), (said(text),))),
    "step": lambda chat, text: chat.encode_steps("f:1", "q", (text, "b"), "\n"),
    "task": lambda chat, text: fit_tasks(chat, [Task("1", text)], 99, 1, "f"),
    "reply": lambda chat, text: chat.continuation_ids((user("q"), said("a")), (99, chat.turn_end), (user(text),)),
}


@pytest.mark.parametrize("place", WITH_TOKEN)
def test_a_token_beyond_the_embedding_is_named_wherever_it_stands(place: str) -> None:
    fault = r"'<\|tool\|>' has the id 259, and the embedding of grown has 259 rows: .*resize_token_embeddings\(260\)"
    with pytest.raises(InputError, match=fault):
        WITH_TOKEN[place](grown(), "x<|tool|>y")
    WITH_TOKEN[place](grown(), "x<|no|>y")
    WITH_TOKEN[place](grown(260), "x<|tool|>y")


def test_an_end_token_beyond_the_embedding_is_told_only_where_it_is_used() -> None:
    made = tiny_tokenizer()
    made.chat_template = CHATML.replace("<|im_end|>", "<|done|>")
    made.add_special_tokens({"additional_special_tokens": ["<|done|>"]})
    row = CompletionRow("f:1", "q", "a")
    assert ChatFormat(made, raw=True, embeddings=259).encode_sft(row)
    with pytest.raises(InputError, match=r"^f:1: the token '<\|done\|>' has the id 259"):
        ChatFormat(made, embeddings=259).encode_sft(row)


def test_a_model_that_lacks_a_token_is_refused_before_anything_runs_and_trains_without_it(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model_folder("tiny-random"), folder)
    made = AutoTokenizer.from_pretrained(folder)
    made.add_special_tokens({"additional_special_tokens": ["<|tool|>"], "pad_token": "<|pad|>"})
    made.save_pretrained(folder)

    def data(**row: str) -> str:
        (tmp_path / "d.jsonl").write_text(json.dumps(row))
        return str(tmp_path / "d.jsonl")

    common = {"model": str(folder), "out": tmp_path / "out", "max_steps": 1}
    with pytest.raises(InputError, match=r"d\.jsonl:1: the token '<\|tool\|>' has the id"):
        train_sft(SftConfig(**common, data=data(prompt="q", completion="<|tool|>a")))
    tasks = data(prompt="<|tool|>q", answer="1")
    with pytest.raises(InputError, match=r"d\.jsonl:1: the token '<\|tool\|>' has the id"):
        train_rl(RlConfig(**common, data=tasks, reward=("math",), batch_size=2, group_size=2))
    with pytest.raises(InputError, match=r"d\.jsonl:1: the token '<\|tool\|>' has the id"):
        run_eval(EvalConfig(model=str(folder), data=tasks, reward=("math",)))
    assert not (tmp_path / "out").exists()
    train_sft(SftConfig(**common, data=data(prompt="q", completion="a")))
    train_reward_model(
        RewardModelConfig(**common | {"out": tmp_path / "rm"}, data=data(prompt="q", chosen="a", rejected="b"))
    )
    assert load_reward_model(str(tmp_path / "rm")).chat.prompt_ids("q")  # whose padding is a token that the model has


def test_padding_beyond_the_embedding_is_the_models_fault(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model_folder("tiny-random"), folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"pad_token_id": 9999}))
    with pytest.raises(InputError, match="cannot be loaded as a causal language model: [Pp]ad"):
        load_model(str(folder))


def test_an_answer_does_not_think_twice() -> None:
    """Where the generation prompt opens the reasoning, a trace that opens it again would be trained so."""
    opening = CHATML.replace("assistant\n' }}", "assistant\n<think>\n' }}")
    assert opening != CHATML
    made = ChatFormat(tokenizer(opening))
    for answer in ("<think>t</think>a", "\n <think>t"):
        with pytest.raises(InputError, match="f:1: the answer begins with <think>, and so does the chat template"):
            made.encode_sft(CompletionRow("f:1", "q", answer))
        with pytest.raises(InputError, match="the answer begins with <think>"):
            made.encode_pair(PreferenceRow("f:1", "q", "t</think>a", answer))
    assert made.encode_sft(CompletionRow("f:1", "q", "t</think>a, no <think>"))
    assert ChatFormat(tokenizer(CHATML)).encode_sft(CompletionRow("f:1", "q", "<think>t</think>a"))
    assert ChatFormat(tokenizer(opening), raw=True).encode_sft(CompletionRow("f:1", "q", "<think>t</think>a"))
