"""Trained spans are written by hand: in `marked`, «…» is what is trained."""

from __future__ import annotations

from itertools import groupby

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from posttrain.chat import ChatFormat, EncodedRow
from posttrain.models.tiny import tiny_tokenizer
from posttrain.rows import CompletionRow, MessagesRow, PreferenceRow, TextRow
from posttrain.types import InputError, Message

SPECIAL = ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|header|>", "<|/header|>", "<|eot|>", "<|call_end|>"]
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CHATML_MARKED = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}{% if m['role'] == 'assistant' %}{% generation %}"
    "{{ m['content'] + '<|im_end|>' }}{% endgeneration %}{% else %}{{ m['content'] + '<|im_end|>' }}{% endif %}"
    "{{ '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = (
    "{{ '<s>' }}{% for m in messages %}{{ '<|header|>' + m['role'] + '<|/header|>\n\n' + m['content'] | trim }}"
    "{{ '<|eot|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|header|>assistant<|/header|>\n\n' }}{% endif %}"
)
MISTRAL = (
    "{{ '<s>' }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% elif m['role'] == 'assistant' %}{{ ' ' + m['content'] + '</s>' }}"
    "{% else %}{{ raise_exception('only user and assistant') }}{% endif %}{% endfor %}"
)
# Reasoning is kept only after the last message from the user, where an empty one is put in if there is none.
QWEN3 = (
    "{% if tools %}{{ '<|im_start|>system\n' + tools | tojson + '<|im_end|>\n' }}{% endif %}"
    "{% set ns = namespace(last=0) %}{% for m in messages %}{% if m['role'] == 'user' %}{% set ns.last = loop.index0 %}"
    "{% endif %}{% endfor %}{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{% if m['role'] == 'assistant' and loop.index0 > ns.last %}"
    "{{ '<think>' + (m['reasoning_content'] or '') + '</think>' }}{% endif %}{{ m['content'] }}"
    "{% for call in m['tool_calls'] or [] %}{{ '<call>' + call['function']['name'] + '<|call_end|>' }}{% else %}"
    "{{ '<|im_end|>' }}{% endfor %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# Opens the reasoning in its generation prompt, but never writes it back.
R1 = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + ':' + m['content'] + '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant:<think>' }}{% endif %}"
)
PLAIN = (
    "{% for m in messages %}{{ '### ' + m['role'] + '\n' + m['content'] + '\n\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '### assistant\n' }}{% endif %}"
)


def tokenizer(template: str | None, eos: str = "</s>", bos: bool = False) -> PreTrainedTokenizerFast:
    """One token a byte, but two newlines are one token; the end token is also the padding. <|eot|> swallows whitespace
    after it. With `bos`, plain text gets <s> before it and, as some tokenizers do, </s> behind it."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate((*SPECIAL, *alphabet, "ĊĊ"))}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[("Ċ", "Ċ")]))
    backend.add_special_tokens([AddedToken(token, special=True, rstrip=token == "<|eot|>") for token in SPECIAL])
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    if bos:
        backend.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
        )
    out = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token=eos, pad_token=eos)
    out.name_or_path = "the-model"
    out.chat_template = template
    return out


def marked(tok: PreTrainedTokenizerFast, row: EncodedRow) -> str:
    spans = groupby(zip(row.token_ids, row.mask, strict=True), key=lambda pair: pair[1])
    texts = ((trained, tok.decode([id_ for id_, _ in span])) for trained, span in spans)
    return "".join(f"«{text}»" if trained else text for trained, text in texts)


def talk(*contents: str) -> tuple[Message, ...]:
    return tuple(Message("user" if i % 2 == 0 else "assistant", text) for i, text in enumerate(contents))


def sft(template: str | None, row: MessagesRow | CompletionRow | TextRow, **options: bool) -> list[str]:
    tok = tokenizer(template, bos=options.pop("bos", False))
    return [marked(tok, encoded) for encoded in ChatFormat(tok, **options).encode_sft(row)]


FOUR = talk("q1", "a1", "q2", "a2")


@pytest.mark.parametrize("template", [CHATML, CHATML_MARKED])
def test_chatml_trains_answers_with_their_end_but_not_the_newline(template: str) -> None:
    assert sft(template, MessagesRow("f:1", FOUR)) == [
        "<|im_start|>user\nq1<|im_end|>\n<|im_start|>assistant\n«a1<|im_end|>»\n"
        "<|im_start|>user\nq2<|im_end|>\n<|im_start|>assistant\n«a2<|im_end|>»"
    ]


def test_spans_are_those_of_a_generation_marker() -> None:
    tok = tokenizer(CHATML_MARKED)
    (row,) = ChatFormat(tok).encode_sft(MessagesRow("f:1", FOUR))
    theirs = tok.apply_chat_template(
        [m.to_dict() for m in FOUR], return_dict=True, return_assistant_tokens_mask=True, return_tensors=None
    )
    newline_after_the_last_end = 1
    assert row.token_ids == tuple(theirs["input_ids"][:-newline_after_the_last_end])
    assert row.mask == tuple(bool(m) for m in theirs["assistant_masks"][:-newline_after_the_last_end])


def test_llama3_like() -> None:
    assert sft(LLAMA3, MessagesRow("f:1", FOUR)) == [
        "<s><|header|>user<|/header|>\n\nq1<|eot|><|header|>assistant<|/header|>\n\n«a1<|eot|>»"
        "<|header|>user<|/header|>\n\nq2<|eot|><|header|>assistant<|/header|>\n\n«a2<|eot|>»"
    ]


def test_mistral_like_has_one_bos_though_the_tokenizer_adds_one_too() -> None:
    assert sft(MISTRAL, MessagesRow("f:1", FOUR), bos=True) == [
        "<s>[INST] q1 [/INST]« a1</s>»[INST] q2 [/INST]« a2</s>»"
    ]


def test_a_template_that_repeats_the_bos_gets_one() -> None:
    tok = tokenizer("{{ '<s>' }}" + MISTRAL)
    assert tok.decode(list(ChatFormat(tok).prompt_ids("q"))) == "<s>[INST] q [/INST]"


def test_a_template_that_strips_reasoning_gives_a_row_for_each_turn() -> None:
    messages = (
        Message("user", "q1"),
        Message("assistant", "a1", reasoning="r1"),
        Message("user", "q2"),
        Message("assistant", "a2", reasoning="r2"),
    )
    assert sft(QWEN3, MessagesRow("f:1", messages)) == [
        "<|im_start|>user\nq1<|im_end|>\n<|im_start|>assistant\n«<think>r1</think>a1<|im_end|>»",
        "<|im_start|>user\nq1<|im_end|>\n<|im_start|>assistant\na1<|im_end|>\n"
        "<|im_start|>user\nq2<|im_end|>\n<|im_start|>assistant\n«<think>r2</think>a2<|im_end|>»",
    ]


def test_tool_turns_after_the_last_user_message_are_one_row_each_with_its_own_end_token() -> None:
    messages = (
        Message("user", "q"),
        Message("assistant", "", tool_calls=({"name": "add"},)),
        Message("tool", "3"),
        Message("assistant", "three"),
    )
    row = MessagesRow("f:1", messages, ({"name": "add"},))
    tok = tokenizer(QWEN3)
    chat = ChatFormat(tok, end_ids_extra=[SPECIAL.index("<|call_end|>")])
    assert [marked(tok, r) for r in chat.encode_sft(row)] == [
        '<|im_start|>system\n[{"name": "add"}]<|im_end|>\n<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n'
        "«<think></think><call>add<|call_end|>»\n<|im_start|>tool\n3<|im_end|>\n<|im_start|>assistant\n"
        "«<think></think>three<|im_end|>»"
    ]


def test_only_the_completion_is_trained_not_the_answers_in_the_prompt() -> None:
    row = CompletionRow("f:1", talk("q1", "a1", "q2"), talk("", "a2", "q3", "a3")[1:])
    assert sft(CHATML, row) == [
        "<|im_start|>user\nq1<|im_end|>\n<|im_start|>assistant\na1<|im_end|>\n"
        "<|im_start|>user\nq2<|im_end|>\n<|im_start|>assistant\n«a2<|im_end|>»\n"
        "<|im_start|>user\nq3<|im_end|>\n<|im_start|>assistant\n«a3<|im_end|>»"
    ]


@pytest.mark.parametrize("template", [CHATML, LLAMA3, MISTRAL, QWEN3, R1, PLAIN, None])
@pytest.mark.parametrize("completion", ["\nan answer", " x ", ""])
def test_a_prompt_is_an_exact_prefix_of_its_rows(template: str | None, completion: str) -> None:
    """ "\\n" before an answer would merge with the newline of the generation prompt if tokenised in one go."""
    chat = ChatFormat(tokenizer(template, bos=True))
    prompt = chat.prompt_ids("a question\n")
    (row,) = chat.encode_sft(CompletionRow("f:1", "a question\n", completion))
    assert row.token_ids[: len(prompt)] == prompt
    assert row.mask == (False,) * len(prompt) + (True,) * (len(row.token_ids) - len(prompt))
    assert chat.decode(row.token_ids[len(prompt) :]) == completion
    assert row.token_ids[-1] == chat.turn_end


@pytest.mark.parametrize("template", [CHATML, LLAMA3, MISTRAL, PLAIN])
def test_every_prompt_of_a_conversation_is_a_prefix_of_its_row(template: str) -> None:
    chat = ChatFormat(tokenizer(template))
    messages = talk("q1", "\na1", "q2\n", "a2", "\nq3", "\n\na3")
    (row,) = chat.encode_sft(MessagesRow("f:1", messages))
    for turns in (1, 3, 5):
        prompt = chat.prompt_ids(messages[:turns])
        assert row.token_ids[: len(prompt)] == prompt
        assert row.mask[len(prompt)] and not row.mask[len(prompt) - 1]


def test_context_after_an_end_token_is_tokenised_as_in_one_go() -> None:
    """<|eot|> swallows the newline that this template writes after it; a piece of its own would keep it."""
    tok = tokenizer(LLAMA3.replace("'<|eot|>'", "'<|eot|>\n'"))
    messages = talk("q1", "a1", "q2")
    whole = tok.apply_chat_template([m.to_dict() for m in messages], add_generation_prompt=True, return_dict=False)
    assert ChatFormat(tok).prompt_ids(messages) == tuple(whole)
    assert "\n<|header|>" not in tok.decode(whole)


def test_raw_text_trains_all_but_the_first_token() -> None:
    assert sft(CHATML, TextRow("f:1", "abc")) == ["a«bc</s>»"]
    assert sft(None, TextRow("f:1", "abc"), bos=True) == ["<s>«abc</s>»"]
    assert sft(None, TextRow("f:1", "<s>abc</s>"), bos=True) == ["<s>«abc</s>»"]


def test_raw_prompt_and_completion() -> None:
    row = CompletionRow("f:1", "Q: 1\nA:", " one")
    assert sft(None, row) == ["Q: 1\nA:« one</s>»"]
    assert sft(CHATML, row, raw=True) == ["Q: 1\nA:« one</s>»"]
    assert sft(CHATML, row) == ["<|im_start|>user\nQ: 1\nA:<|im_end|>\n<|im_start|>assistant\n« one<|im_end|>»"]
    assert sft(CHATML, CompletionRow("f:1", talk("q"), "a"), raw=True) == [
        "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n«a<|im_end|>»"
    ]


def test_an_end_token_in_the_data_is_not_doubled_and_an_empty_completion_trains_it() -> None:
    start = "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n"
    assert sft(CHATML, CompletionRow("f:1", "q", "a<|im_end|>")) == [start + "«a<|im_end|>»"]
    assert sft(CHATML, CompletionRow("f:1", "q", "")) == [start + "«<|im_end|>»"]


def test_a_template_without_an_end_token_gets_the_tokenizers() -> None:
    assert sft(PLAIN, MessagesRow("f:1", FOUR)) == [
        "### user\nq1\n\n### assistant\n«a1</s>»\n\n### user\nq2\n\n### assistant\n«a2</s>»"
    ]


def test_end_ids() -> None:
    end, im_end, eot = (SPECIAL.index(token) for token in ("</s>", "<|im_end|>", "<|eot|>"))
    assert ChatFormat(tokenizer(CHATML)).end_ids == {end, im_end}
    assert ChatFormat(tokenizer(CHATML)).turn_end == im_end
    assert ChatFormat(tokenizer(CHATML), raw=True).turn_end == end
    assert ChatFormat(tokenizer(LLAMA3), end_ids_extra=[im_end]).end_ids == {end, im_end, eot}
    assert ChatFormat(tokenizer(None)).end_ids == {end}
    assert ChatFormat(tokenizer(CHATML, eos="<|im_end|>")).end_ids == {im_end}


def test_pairs() -> None:
    tok = tokenizer(CHATML)
    chat = ChatFormat(tok)
    texts = chat.encode_pair(PreferenceRow("f:1", "q", "yes", "no"))
    assert tok.decode(list(texts.prompt_ids)) == "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n"
    assert tok.decode(list(texts.chosen_ids)) == "yes<|im_end|>"
    assert tok.decode(list(texts.rejected_ids)) == "no<|im_end|>"
    messages = PreferenceRow("f:1", talk("q"), (Message("assistant", "yes"),), (Message("assistant", "no"),))
    assert chat.encode_pair(messages) == texts
    raw = ChatFormat(tok, raw=True).encode_pair(PreferenceRow("f:1", "q:", " yes", " no"))
    assert [tok.decode(list(ids)) for ids in (raw.prompt_ids, raw.chosen_ids)] == ["q:", " yes</s>"]


def test_a_pair_that_the_template_makes_equal_is_refused() -> None:
    row = PreferenceRow("f:9", talk("q"), (Message("assistant", "yes "),), (Message("assistant", "yes"),))
    with pytest.raises(InputError, match=r"^f:9: .*same tokens"):
        ChatFormat(tokenizer(LLAMA3)).encode_pair(row)


def test_responses_decode_without_their_end() -> None:
    tok = tokenizer(CHATML)
    chat = ChatFormat(tok)
    ids = tok("4 <b>\n<|im_end|>", add_special_tokens=False)["input_ids"]
    assert (chat.answer(ids).message,) == (Message("assistant", "4 <b>\n"),)
    assert (chat.answer(ids[:-1]).message,) == (Message("assistant", "4 <b>\n"),)
    assert (chat.answer(()).message,) == (Message("assistant", ""),)
    newline = tok("\n", add_special_tokens=False)["input_ids"][0]
    ends_lines = ChatFormat(tok, end_ids_extra=[newline])
    assert (ends_lines.answer(ids[:-1]).message,) == (Message("assistant", "4 <b>"),)


def test_a_tokenizer_that_puts_a_space_before_text_does_not_put_it_before_answers() -> None:
    words = {"<unk>": 0, "</s>": 1, "▁": 2, "▁A:": 3, "▁b": 4, "b": 5, "▁a": 6, "a": 7, "\n": 8, "A:": 9}
    backend = Tokenizer(models.BPE(vocab={**words, "A": 10, ":": 11}, merges=[("A", ":"), ("▁", "A:"), ("▁", "b")]))
    backend.add_special_tokens([AddedToken("</s>", special=True)])
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    backend.decoder = decoders.Metaspace(prepend_scheme="first")
    tok = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", unk_token="<unk>")
    (joined,) = ChatFormat(tok).encode_sft(CompletionRow("f:1", "A:", "b"))
    assert tok.convert_ids_to_tokens(list(joined.token_ids)) == ["▁A:", "b", "</s>"]
    (spaced,) = ChatFormat(tok).encode_sft(CompletionRow("f:1", "A:", " b"))
    assert tok.convert_ids_to_tokens(list(spaced.token_ids)) == ["▁A:", "▁b", "</s>"]


@pytest.mark.parametrize(
    ("template", "row", "message"),
    [
        (CHATML, CompletionRow("f:3", "q", "a", ({"name": "add"},)), "template of the-model ignores tools"),
        (None, MessagesRow("f:3", FOUR), "no chat template"),
        (None, CompletionRow("f:3", talk("q"), "a"), "no chat template"),
        (None, CompletionRow("f:3", "q", "a", ({"name": "add"},)), "raw text cannot offer tools"),
        (
            MISTRAL,
            MessagesRow("f:3", (Message("system", "s"), *FOUR)),
            "template of the-model refuses .*only user and assistant",
        ),
        (R1, MessagesRow("f:3", FOUR), "message 2: .*assistant:<think>.*'completion' as a string"),
        (CHATML, MessagesRow("f:3", (FOUR[0], Message("assistant", "a", reasoning="why"))), "drops 'reasoning'"),
        (
            CHATML,
            MessagesRow("f:3", (FOUR[0], Message("assistant", "", tool_calls=({"name": "add"},)))),
            "drops .*'add'",
        ),
    ],
)
def test_what_cannot_be_written_names_its_row(
    template: str | None, row: MessagesRow | CompletionRow, message: str
) -> None:
    with pytest.raises(InputError, match=f"^f:3: .*{message}"):
        sft(template, row)


def test_special_tokens_in_text_are_found_and_added_words_are_not() -> None:
    made = tokenizer(CHATML)
    made.add_tokens(["<think>"])
    chat = ChatFormat(made)
    assert chat.special_token_in(["a <think> b", "", "a < |im_end|>"]) is None
    assert chat.special_token_in(["a", "b <|im_end|> <s>"]) == "<|im_end|>"


def test_text_that_leaves_nothing_to_train_is_refused() -> None:
    """The tokenizer's end token alone: one token, and nothing predicts it."""
    with pytest.raises(InputError, match=r"^f:4: no token of the row is trained"):
        sft(None, TextRow("f:4", "</s>"))


def test_a_tokenizer_without_any_end_is_refused() -> None:
    tok = tokenizer(None)
    tok.eos_token = None
    with pytest.raises(InputError, match="no end token"):
        ChatFormat(tok)
    assert ChatFormat(tok, end_ids_extra=[3]).turn_end == 3


def test_the_tiny_models_template_writes_tools_and_calls_and_else_what_it_always_did() -> None:
    """Without tools it is plain ChatML, whatever the roles."""
    tiny = tiny_tokenizer()
    talked = [{"role": role, "content": f"c {role}\n"} for role in ("system", "user", "assistant", "tool", "developer")]
    for messages in (talked[:2], talked):
        for generation in (False, True):
            plain = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages)
            plain += "<|im_start|>assistant\n" if generation else ""
            assert tiny.apply_chat_template(messages, tokenize=False, add_generation_prompt=generation) == plain
    tool = {"type": "function", "function": {"name": "add"}}
    call = {"id": "call00000", "type": "function", "function": {"name": "add", "arguments": {"a": "é"}}}
    messages = (Message("user", "q"), Message("assistant", "so", tool_calls=(call,)), Message("tool", "3"))
    assert tiny.decode(ChatFormat(tiny).prompt_ids(messages, (tool,))) == (
        '<|im_start|>system\nTools:\n{"type": "function", "function": {"name": "add"}}\n'
        '<tool_call>{"name": NAME, "arguments": {...}}</tool_call> calls one.<|im_end|>\n'
        "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n"
        'so<tool_call>{"name": "add", "arguments": {"a": "é"}}</tool_call><|im_end|>\n'
        "<|im_start|>tool\n3<|im_end|>\n<|im_start|>assistant\n"
    )
    said = tiny('so<tool_call>{"name": "add", "arguments": {"a": "é"}}</tool_call>')["input_ids"]
    answer = ChatFormat(tiny).answer(said, (tool,))
    assert answer.message == messages[1]
