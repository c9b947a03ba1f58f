"""Folders that somebody else has made: no Python of a model runs unasked, what cannot be meant gets a message, and a
report neither follows nor shows what it should not."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

from posttrain.chat import template as template_module
from posttrain.chat.limits import OutOfProcessorTime, processor_limit
from posttrain.config import AverageConfig, EvalConfig, SampleConfig, SftConfig
from posttrain.models.load import check_config, load_model, model_folder
from posttrain.report.html import write_report
from posttrain.report.terminal import format_tables
from posttrain.text import printable, printable_json
from posttrain.train.average import average_models
from posttrain.types import InputError, Message

OWN_CODE = """
from pathlib import Path
Path({ran!r}).touch()
from transformers import LlamaConfig, LlamaForCausalLM
class OwnConfig(LlamaConfig):
    model_type = "own"
class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig
"""


def copied(tmp_path: Path, **config: Any) -> Path:
    """The tiny model in a folder of its own, with these settings in its configuration."""
    folder = tmp_path / "model"
    shutil.copytree(model_folder("tiny-random"), folder)
    settings = json.loads((folder / "config.json").read_text()) | config
    (folder / "config.json").write_text(json.dumps(settings))
    return folder


def test_python_of_a_model_runs_only_where_it_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = tmp_path / "ran"
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # nobody is asked
    names = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    folder = copied(tmp_path, model_type="own", architectures=["OwnModel"], auto_map=names)
    (folder / "own.py").write_text(OWN_CODE.format(ran=str(ran)))
    with pytest.raises(InputError, match=r"needs Python that it brings along .*--trust-remote-code"):
        load_model(str(folder))
    with pytest.raises(InputError, match="cannot be read"):
        average_models(AverageConfig(models=(str(folder), str(folder)), out=tmp_path / "out"))
    assert not ran.exists()


def test_a_model_that_needs_none_of_its_python_loads_without(tmp_path: Path) -> None:
    folder = copied(tmp_path, auto_map={"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"})
    (folder / "own.py").write_text(OWN_CODE.format(ran=str(tmp_path / "ran")))
    load_model(str(folder))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("config", [SftConfig, EvalConfig, SampleConfig])
def test_trust_is_off_by_default(config: Any) -> None:
    assert config.model_fields["trust_remote_code"].default is False


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"num_hidden_layers": -1}, "num_hidden_layers is -1"),
        ({"num_hidden_layers": 10**9}, r"num_hidden_layers is 1000000000 in config.json; give one from 1 to 1000"),
        ({"num_attention_heads": 0}, "num_attention_heads is 0"),
        ({"hidden_size": 10**9}, "hidden_size is 1000000000"),
        ({"hidden_size": "wide"}, "cannot be loaded"),
        ({"num_labels": 10**7}, "num_labels is 10000000"),
        ({"text_config": {"num_hidden_layers": 10**9}}, "num_hidden_layers is 1000000000"),
        ({"architectures": 3}, "architectures is 3 in config.json; give a list"),
        ({"rope_parameters": {"rope_type": "no such"}}, "cannot be loaded"),
    ],
)
def test_an_odd_configuration_is_told(tmp_path: Path, config: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        load_model(str(copied(tmp_path, **config)))


@pytest.mark.parametrize(
    "config",
    [
        {"_attn_implementation_internal": "somebody/attention"},
        {"attn_implementation": {"": "somebody/attention:fast"}},
        {"text_config": {"_experts_implementation": "somebody/experts"}},
    ],
)
def test_code_of_a_hub_is_not_fetched(tmp_path: Path, config: dict[str, Any]) -> None:
    """transformers takes an attention of such a name from there, whatever is asked for."""
    folder = copied(tmp_path, **config)
    with pytest.raises(InputError, match=r"implementation.* code of a hub, which is run only with --trust-remote-code"):
        load_model(str(folder))
    check_config(str(folder), folder, trusted=True)


def test_an_adapter_is_not_put_on_another_model(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "somebody/base"}')
    with pytest.raises(InputError, match=r"an adapter for another model \(somebody/base\)"):
        load_model(str(folder))


def test_a_tokenizer_that_makes_no_sense_is_told(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    settings = json.loads((folder / "tokenizer_config.json").read_text()) | {"model_max_length": "long"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match="cannot be used as it is configured"):
        load_model(str(folder))


@pytest.mark.parametrize("text", ["[]", "{", "\xff", "[" * 100_000])
def test_a_configuration_that_is_none_is_told(tmp_path: Path, text: str) -> None:
    folder = copied(tmp_path)
    (folder / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match=r"config\.json"):
        load_model(str(folder))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(tmp_path: Path, value: float) -> None:
    folder = copied(tmp_path)
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if "norm" in name)
    tensors[name][3] = value
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=f"'{name}' hold NaN or infinity"):
        load_model(str(folder))


def test_large_weights_are_numbers(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if "norm" in name)
    tensors[name] = torch.full_like(tensors[name], 3e38)  # their sum is not finite
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    lm = load_model(str(folder))
    assert float(dict(lm.module.named_parameters())[name].detach().min()) == pytest.approx(3e38)


def test_a_cache_that_is_a_file_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").touch()
    monkeypatch.setenv("POSTTRAIN_CACHE", str(tmp_path / "cache"))
    with pytest.raises(InputError, match="set POSTTRAIN_CACHE to a folder"):
        load_model("tiny-random")


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "seems to loop"),
        ("{{ 'a' * 30000000 }}", "writes 30000000 characters for a conversation of"),
        ("{{ 1 // 0 }}", "refuses the conversation"),
        ("{{ 7 ** (10 ** 9) }}", r"computes powers \(\*\*\)"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "refuses the conversation"),
    ],
)
def test_a_template_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, template: str, said: str) -> None:
    if said == "seems to loop":  # the others end by themselves, however busy the machine is
        monkeypatch.setattr(template_module, "RENDER_SECONDS", 0.2)
    folder = copied(tmp_path)
    (folder / "chat_template.jinja").write_text(template)
    with pytest.raises(InputError, match=said):
        load_model(str(folder)).chat.prompt_ids((Message("user", "hello"),))


def test_a_template_that_loops_is_tried_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds: list[float] = []

    @contextmanager
    def limit(given: float) -> Iterator[None]:
        seconds.append(given)
        raise OutOfProcessorTime
        yield

    chat = load_model(str(copied(tmp_path))).chat
    monkeypatch.setattr(template_module, "processor_limit", limit)
    with pytest.raises(InputError, match="seems to loop"):
        chat.prompt_ids((Message("user", "hello"),))
    assert len(seconds) == 1


def test_a_template_is_bounded_in_a_thread_too() -> None:
    """Where a judge here is asked beside sampling."""

    def loop() -> str:
        with suppress(OutOfProcessorTime), processor_limit(0.05):
            while True:
                pass
        with processor_limit(60):
            return "stopped"

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(loop).result(timeout=60) == "stopped"


def test_keyword_arguments_of_a_template_are_no_powers() -> None:
    assert not template_module._has_powers("**bold** {{ namespace(**{}) }}{{ dict(a=1, **b) }}{{ 'a**b' }}")


# Reports


def comparison(**changes: Any) -> dict[str, Any]:
    stage = {"parent": None, "seconds": 1.0, "tokens": 1, "flops": 1.0, "evaluations": {}}
    other = {"parent": "start", "seconds": 1.0, "tokens": 1, "flops": 1.0, "charged_to": []}
    return {"stages": {"start": stage}, "contrasts": [], "others": {"rm": other}} | changes


def written(folder: Path, found: Any) -> Path:
    (folder / "compare.json").write_text(found if isinstance(found, str) else json.dumps(found))
    return folder


def test_a_page_loads_and_runs_nothing(tmp_path: Path) -> None:
    page = write_report(written(tmp_path, comparison())).read_text()
    assert "Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'" in page
    assert "<script" not in page


@pytest.mark.parametrize("name", ["javascript:alert(1)//", "../../etc", "/etc", "a/b", "", "x\x1b[2J"])
@pytest.mark.parametrize("where", ["stages", "others"])
def test_names_that_lead_elsewhere_are_refused(tmp_path: Path, name: str, where: str) -> None:
    found = comparison()
    found[where][name] = next(iter(found[where].values()))
    with pytest.raises(InputError, match=r"compare\.json: damaged, a stage has the name"):
        write_report(written(tmp_path, found))


SCORED = comparison()["stages"]["start"] | {"evaluations": {"greedy": {"value": 0.5, "low": 0.4, "high": 0.6, "n": 30}}}
AHEAD = {"of": "a", "against": "b", "evaluation": "greedy", "value": 1, "low": 0, "high": 2, "n": 30}


def led(**changes: Any) -> dict[str, Any]:
    lead = {"of": "a", "comparisons": 1, "others": [AHEAD]} | changes
    return comparison(stages={"a": SCORED, "b": SCORED}, others={}, leads={"held_out": lead})


@pytest.mark.parametrize(
    "found",
    [
        "{}",
        led(of="x"),
        led(of="b"),
        led(others=[AHEAD, AHEAD]),
        led(gain=AHEAD | {"against": "x"}),
        led(others=[AHEAD | {"low": "0"}]),
        "[]",
        "{",
        '{"stages": NaN}',
        comparison(stages={"a": {"parent": None}}),
        comparison(stages={"a": comparison()["stages"]["start"] | {"parent": "a"}}),
        comparison(stages={"a": comparison()["stages"]["start"] | {"parent": "b"}}),
        comparison(stages={"a": comparison()["stages"]["start"] | {"seconds": "1"}}),
        comparison(
            contrasts=[{"of": "x", "against": "start", "evaluation": "kl", "value": 1, "low": 0, "high": 2, "n": 1}]
        ),
    ],
)
def test_a_damaged_comparison_is_told(tmp_path: Path, found: Any) -> None:
    with pytest.raises(InputError, match=r"compare\.json: damaged"):
        write_report(written(tmp_path, found))
    assert not (tmp_path / "report.html").exists()


DAMAGED: dict[str, tuple[str, bytes, str]] = {
    "cost": ("cost.json", b'{"seconds": "1"}', "cost.json: damaged, "),
    "cost that is a list": ("cost.json", b"[]", "cost.json: damaged, "),
    "metrics": ("metrics.jsonl", b'{"step": 1}\n{"step": "2"}\n', "metrics.jsonl:2: damaged, step"),
    "metrics without a step": ("metrics.jsonl", b'{"step": 1}\n{}\n', "metrics.jsonl:2: damaged, step"),
    "endless digits": ("metrics.jsonl", b'{"step": 1' + b"0" * 5000 + b"}\n", "metrics.jsonl:1: damaged, "),
    "not UTF-8": ("config.yaml", b"a: \xff", "config.yaml: damaged, it is not UTF-8"),
    "events": ("events.jsonl", b'{"event": []}\n', "events.jsonl:1: damaged, event"),
    "rollouts": ("rollouts.jsonl", b'{"step": 1, "task": "a"}\n', "rollouts.jsonl:1: damaged, "),
    "rollouts cut": ("rollouts.jsonl", b'{"step": \n', "rollouts.jsonl:1: damaged, "),
    "evaluation": ("evaluations/a.jsonl", b'{"task": "a", "values": 3}\n', "a.jsonl:1: damaged, "),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_of_a_run_is_told(tmp_path: Path, name: str) -> None:
    file, content, said = DAMAGED[name]
    (tmp_path / "evaluations").mkdir()
    (tmp_path / "config.yaml").write_text("model: m\n")
    (tmp_path / file).write_bytes(content)
    with pytest.raises(InputError, match=said.replace(".", r"\.")):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
@pytest.mark.parametrize("name", ["compare.json", "config.yaml", "rollouts.jsonl", "evaluations/a.jsonl"])
def test_what_is_no_file_is_told(tmp_path: Path, name: str, make: Callable[[Path], None]) -> None:
    (tmp_path / "evaluations").mkdir()
    make(tmp_path / name)
    with pytest.raises(InputError, match="damaged, it is no file"):
        write_report(tmp_path)


def test_any_number_of_a_metric_is_read(tmp_path: Path) -> None:
    """What no float holds is not drawn."""
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 1' + "0" * 400 + ', "reward": true, "kl": [1]}\n')
    assert "after 1 step" in write_report(tmp_path).read_text()


def test_a_page_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("model: m\n")
    (tmp_path / "report.html").mkdir()
    with pytest.raises(InputError, match=r"report\.html: cannot be written"):
        write_report(tmp_path)


def test_names_of_others_do_not_reach_a_terminal_raw(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "a\x1b[31m\u202e[/x]"
    estimate = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 30}
    stage = comparison()["stages"]["start"] | {"evaluations": {f"{name}/greedy": estimate, f"{name}/{name}": estimate}}
    stages = {name: stage, "later": stage | {"parent": name}}
    console = Console(width=200)
    for table in format_tables(comparison(stages=stages, others={})):
        console.print(table)
    shown = capsys.readouterr().out
    assert r"a\x1b[31m\u202e[/x]" in shown
    assert not {"\x1b", "\u202e"} & set(shown)


@pytest.mark.parametrize("seen", ["a\tb\nc", "👨‍👩‍👧 1️⃣", "می‌خواهم", "क्‍ष", "日本語 é"])
def test_text_that_can_be_seen_is_shown_as_it_is(seen: str) -> None:
    assert printable(seen) == seen


@pytest.mark.parametrize("character", "\u202e\u2066\u200b\u2060\ufeff\xad\u3164\u2028\x9b\U000e0041\u200d")
def test_text_that_nobody_sees_is_shown_as_an_escape(character: str) -> None:
    escape = ascii(character)[1:-1]
    for text in (character, f"a{character}b", f"é{character}", f"{character}é", 2 * character):
        assert printable(text) == text.replace(character, escape)
        quoted = printable_json(json.dumps(text, ensure_ascii=False))
        assert character not in quoted and json.loads(quoted) == text


def test_a_recipe_that_is_no_yaml_is_told(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("a: [")
    with pytest.raises(InputError, match=r"recipe\.yaml: damaged, it is no YAML"):
        write_report(written(tmp_path, comparison()))
