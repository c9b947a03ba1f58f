"""`--chat-template`: a template in place of the tokenizer's own, saved with what is trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from transformers import AutoTokenizer, GenerationConfig

from posttrain.chat import ChatFormat
from posttrain.chat.given import shipped_templates, template_text
from posttrain.cli.main import main
from posttrain.config import EvalConfig, Recipe, SampleConfig
from posttrain.evals.settings import settings_differences
from posttrain.models import load_model
from posttrain.models.tiny import tiny_tokenizer
from posttrain.rows import MessagesRow
from posttrain.types import InputError, Message
from tests.recipe_helpers import check_stages

OWN = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + ': ' + m.content + '<|endoftext|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant: ' }}{% endif %}"
)
"""Ends a turn by a token that is not the end token of `tiny-random`."""
TOOL = {
    "type": "function",
    "function": {"name": "buy", "description": "Buy it.", "parameters": {"type": "object", "properties": {}}},
}


def call(item: str) -> dict[str, object]:
    return {"id": "call00000", "type": "function", "function": {"name": "buy", "arguments": {"item": item}}}


def train(method: str, data: str) -> list[str]:
    return [method, "--model", "tiny-random", "--data", data, "--out", "run", "--max-steps", "1"]


def hermes() -> ChatFormat:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template_text("hermes")
    return ChatFormat(tokenizer)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a template, rows and tasks, in which the test runs."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.jinja").write_text(OWN)
    (tmp_path / "rows.jsonl").write_text(
        '{"prompt": "2+2?", "completion": "4"}\n{"prompt": "2+3?", "completion": "5"}\n'
    )
    (tmp_path / "tasks.jsonl").write_text('{"prompt": "2+2?", "answer": "4"}\n{"prompt": "2+3?", "answer": "5"}\n')
    return tmp_path


# -- the shipped template -----------------------------------------------------------------------------------------


def test_hermes_writes_system_tools_calls_and_results() -> None:
    messages = (
        Message("system", "Be brief."),
        Message("user", "Two fruits?"),
        Message("assistant", "Yes.", tool_calls=(call("apple"), call("pear"))),
        Message("tool", "1 left"),
        Message("tool", "0 left"),
        Message("assistant", "Done."),
    )
    text = hermes().template.render(messages, (TOOL,), False)
    tools, *turns = text.split("<|im_start|>")[1:]
    assert tools.startswith("system\nBe brief.\n\n") and f"<tools>\n{json.dumps(TOOL)}\n</tools>" in tools
    assert turns == [
        "user\nTwo fruits?<|im_end|>\n",
        'assistant\nYes.\n<tool_call>\n{"name": "buy", "arguments": {"item": "apple"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "buy", "arguments": {"item": "pear"}}\n</tool_call><|im_end|>\n',
        "user\n<tool_response>\n1 left\n</tool_response>\n<tool_response>\n0 left\n</tool_response><|im_end|>\n",
        "assistant\nDone.<|im_end|>\n",
    ]


def test_hermes_is_plain_chatml_without_tools() -> None:
    messages = (Message("user", "Hi"), Message("assistant", "Ho"), Message("developer", "Stop"), Message("user", "!"))
    assert hermes().template.render(messages, (), True) == (
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHo<|im_end|>\n<|im_start|>system\nStop<|im_end|>\n"
        "<|im_start|>user\n!<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize("first", ["system", "developer", "user"])
def test_hermes_drops_nothing_and_never_rewrites_a_turn(first: str) -> None:
    opening = (Message(first, "Be brief."), Message("user", "Fruit?"))
    turns = (
        Message("assistant", "", "They want fruit.", tool_calls=(call("apple"),)),
        Message("tool", "1 left"),
        Message("assistant", "An apple.", "It is bought."),
    )
    row = MessagesRow("here", (*opening, *turns), (TOOL,))
    [encoded] = hermes().encode_sft(row)  # one row: no trained turn is written otherwise once others follow
    trained = [token for token, is_trained in zip(encoded.token_ids, encoded.mask, strict=True) if is_trained]
    assert hermes()._pieces.text(trained, special=True) == (
        '<think>\nThey want fruit.\n</think>\n\n<tool_call>\n{"name": "buy", "arguments": {"item": "apple"}}\n'
        "</tool_call><|im_end|><think>\nIt is bought.\n</think>\n\nAn apple.<|im_end|>"
    )


def test_a_call_in_hermes_is_read_back() -> None:
    chat = hermes()
    turn = chat.template.turn((Message("user", "u"), Message("assistant", "", tool_calls=(call("fig"),))), 1, (TOOL,))
    assert turn is not None
    answer = chat.answer(chat.template.turn_ids(turn), (TOOL,))
    assert answer.fault is None and [dict(c) for c in answer.message.tool_calls] == [call("fig")]


# -- loading, saving ----------------------------------------------------------------------------------------------


def test_what_is_trained_keeps_the_template_and_ends_where_it_does(own: Path) -> None:
    assert main([*train("sft", "rows.jsonl"), "--chat-template", "own.jinja"]) == 0
    tokenizer = AutoTokenizer.from_pretrained("run/model")
    assert tokenizer.chat_template == OWN
    # transformers and vLLM end an answer at the tokens that are named here
    assert GenerationConfig.from_pretrained("run/model").eos_token_id == [0, 2]
    lm = load_model("run")
    assert lm.chat.turn_end == tokenizer.convert_tokens_to_ids("<|endoftext|>") == 0
    assert lm.chat.end_ids == {0, 2}


def test_a_reward_model_keeps_the_template(own: Path) -> None:
    (own / "pairs.jsonl").write_text('{"prompt": "2+2?", "chosen": "4", "rejected": "5"}\n')
    assert main([*train("reward-model", "pairs.jsonl"), "--chat-template", "own.jinja"]) == 0
    assert AutoTokenizer.from_pretrained("run/model").chat_template == OWN


def test_a_resume_with_another_template_is_refused(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = train("sft", "rows.jsonl")
    assert main([*command, "--chat-template", "own.jinja"]) == 0
    assert main([*command, "--chat-template", "hermes", "--resume"]) == 2
    assert "chat-template was 'own.jinja'" in capsys.readouterr().err
    (own / "own.jinja").write_text(OWN.replace(": ", "; "))
    assert main([*command, "--chat-template", "own.jinja", "--resume"]) == 2
    assert "own.jinja has other content than when the run in run began" in capsys.readouterr().err


# -- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{% for m in messages %}{{ m.content }}</s>{% endfor %}", "it ends an answer by '</s>', which is no token of"),
        ("{% for m in messages %}{{ m.content }}{% endfor %}", "it ends an answer by no token"),
        ("Hello", "it does not write messages"),
        ("{% for m in messages %}\n{{ m.content }", "(line 2)"),
        ("{{ messages[0].content | random }}", "draws at random"),
        (" ", "is empty"),
    ],
)
def test_a_template_that_cannot_be_used_is_told(own: Path, text: str, message: str) -> None:
    (own / "bad.jinja").write_text(text)
    with pytest.raises(InputError, match=r"^--chat-template bad.jinja: ") as found:
        load_model("tiny-random", chat_template="bad.jinja")
    assert message in str(found.value)


def test_what_ends_a_turn_is_named_in_the_refusal(own: Path) -> None:
    (own / "bad.jinja").write_text("{% for m in messages %}{{ m.content }}</s>{% endfor %}")
    with pytest.raises(InputError, match=r"end it by eos_token, '<\|im_end\|>'"):
        load_model("tiny-random", chat_template="bad.jinja")


def test_a_name_that_is_no_template_is_told_with_those_there_are() -> None:
    assert shipped_templates() == ["hermes"]
    with pytest.raises(InputError, match="no such file; give a Jinja file, or the name of a shipped: hermes"):
        template_text("hermez")
    with pytest.raises(InputError, match="no such file"):
        template_text("/")


def test_a_model_without_a_template_is_told_of_the_option() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = None
    row = MessagesRow("here", (Message("user", "2+2?"), Message("assistant", "4")), ())
    with pytest.raises(InputError, match=r"has no chat template.*--chat-template hermes"):
        ChatFormat(tokenizer).encode_sft(row)


def test_an_endpoint_takes_no_template() -> None:
    options = {"endpoint": "http://localhost/v1", "endpoint_model": "m", "data": "d", "out": "o", "write": "all"}
    with pytest.raises(ValueError, match="an endpoint takes no chat_template"):
        SampleConfig(**options, chat_template="hermes")


# -- evaluations --------------------------------------------------------------------------------------------------


def test_evaluations_with_different_templates_are_not_compared(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    measure = ["--data", "tasks.jsonl", "--reward", "math", "--samples", "0", "--max-new-tokens", "2"]
    for out, given in (("a", "own.jinja"), ("b", "hermes")):
        assert main(["eval", "tiny-random", *measure, "--chat-template", given, "--out", out]) == 0
    assert main(["compare", "a", "b", "--out", "comparison"]) == 2
    assert "chat_template (own.jinja, " in capsys.readouterr().err


def test_templates_that_came_with_their_models_are_no_setting() -> None:
    assert settings_differences({"template_hash": "1"}, {"template_hash": "2"}) == []
    assert settings_differences({"template_hash": "1", "chat_template": "x"}, {"template_hash": "1"}) == []
    assert settings_differences({"chat_template": "x"}, {"template_hash": "2"}) == []  # of an older run
    assert settings_differences({"template_hash": "1", "chat_template": "x"}, {"template_hash": "2"}) == [
        "chat_template (x, 1 and of the model, 2)"
    ]


def test_retention_takes_a_template() -> None:
    assert EvalConfig(model="m", suite="retention", chat_template="hermes").chat_template == "hermes"


# -- recipes ------------------------------------------------------------------------------------------------------


def test_a_recipe_is_refused_for_a_template_that_is_none(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (own / "recipe.yaml").write_text(
        "{model: tiny-random, chat_template: hermez, evaluate: {data: tasks.jsonl, reward: math},"
        " stages: {sft: {method: sft, parent: start, data: rows.jsonl}}}"
    )
    assert main(["run", "recipe.yaml", "--plan"]) == 2
    assert "stage sft: --chat-template hermez: no such file" in capsys.readouterr().err


def test_a_recipe_gives_its_template_to_what_begins_from_the_start(tmp_path: Path) -> None:
    recipe = Recipe(
        **yaml.safe_load("""
        model: tiny-random
        chat_template: hermes
        evaluate: {data: tasks.jsonl, reward: math}
        stages:
          sft: {method: sft, parent: start, data: rows.jsonl}
          more: {method: sft, parent: sft, data: rows.jsonl}
          other: {method: sft, parent: start, data: rows.jsonl, chat_template: own.jinja}
        """)
    )
    given = {stage.name: stage.options.get("chat_template") for stage in check_stages(recipe, tmp_path)}
    assert given == {"sft": "hermes", "more": None, "other": "own.jinja"}
