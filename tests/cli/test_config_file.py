"""`--config FILE`: options from YAML, and a run repeated from its own `config.yaml`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from posttrain.cli.main import main
from posttrain.cli.options import parse_options
from posttrain.config import RlConfig, SftConfig
from posttrain.config.algorithms import ALGORITHMS
from posttrain.types import InputError


def parse(words: str) -> SftConfig:
    return parse_options(SftConfig, words.split(), "posttrain sft", others={"group_size": ["rl"]})


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    found = Path("mine.yaml")
    found.write_text("model: tiny-random\ndata: rows.jsonl\nbatch-size: 4\nmax_steps: 3\nout: o\nlearning_rate: 1e-4\n")
    return found


def test_options_go_over_the_file(file: Path) -> None:
    config = parse("--config mine.yaml --max-steps 7")
    assert (config.model, config.batch_size, config.max_steps) == ("tiny-random", 4, 7)
    assert config.learning_rate == 1e-4  # which YAML reads as text
    assert parse("--config=mine.yaml --epochs 2").max_steps is None  # one length stands for the other
    assert parse("--config mine.yaml").out == Path("o")


def test_what_repeats_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_text("model: m\ndata: d\nout: o\nreward: [math, format]\n")
    words = ["--config", str(file), "--reward", "code"]
    assert parse_options(RlConfig, words[:2], "posttrain rl").reward == ("math", "format")
    assert parse_options(RlConfig, words, "posttrain rl").reward == ("code",)


@pytest.mark.parametrize(
    ("text", "words", "message"),
    [
        ("batch_sise: 4", "", "mine.yaml: unknown key 'batch_sise'; did you mean batch_size?"),
        ("num_train_epochs: 4", "", "mine.yaml: unknown key 'num_train_epochs'; did you mean epochs?"),
        (
            "group_size: 4",
            "",
            "mine.yaml: unknown key 'group_size'; it is an option of posttrain rl, not of posttrain sft",
        ),
        ("batch_size: many", "", "mine.yaml: batch_size must be a valid integer, not 'many'"),
        ("batch_size: 2\nbatch_size: 4", "", "mine.yaml: is not YAML: 'batch_size' is given twice"),
        ("- model", "", "mine.yaml: holds no options"),
        ("a: [", "", "mine.yaml: is not YAML: while parsing"),
        ("method: rl", "", "mine.yaml: is for posttrain rl, not for posttrain sft"),
        ("model: m", "--config other.yaml", "--config was given 2 times"),
    ],
)
def test_what_is_wrong_is_said_with_the_file(file: Path, text: str, words: str, message: str) -> None:
    file.write_text(text + "\n")
    with pytest.raises(InputError) as error:
        parse(f"--config mine.yaml {words}")
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("words", "message"), [("--config", "needs a YAML file"), ("--config no.yaml", "cannot be read")]
)
def test_a_file_there_must_be(file: Path, words: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse(words)


def test_code_of_a_model_is_asked_for_anew(file: Path) -> None:
    file.write_text(file.read_text() + "trust_remote_code: true\nresume: true\n")
    config = parse("--config mine.yaml")
    assert not config.trust_remote_code and not config.resume


def test_a_run_again_from_its_own_settings(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With another `--out` the same numbers; without one a message, and nothing is touched."""
    Path("rows.jsonl").write_text("".join(json.dumps({"prompt": f"{i}", "completion": "b"}) + "\n" for i in range(6)))
    assert main(["sft", "--config", "mine.yaml"]) == 0
    assert main(["sft", "--config", "o/config.yaml"]) == 2
    assert "is of the run in o; add --out" in capsys.readouterr().err
    assert main(["sft", "--config", "o/config.yaml", "--out", "p"]) == 0
    o, p = (yaml.safe_load((Path(name) / "config.yaml").read_text()) for name in "op")
    assert o | {"out": "p"} == p
    weights = [(Path(name) / "model" / "model.safetensors").read_bytes() for name in "op"]
    assert weights[0] == weights[1]


@pytest.mark.parametrize("algorithm", [*ALGORITHMS])
def test_the_settings_of_every_algorithm_can_be_given_again(file: Path, algorithm: str) -> None:
    """A run writes what the algorithm filled in too, which nobody asked for; another algorithm fills in its own."""
    kl = {"beta": 0.1, "kl_in": "reward"} if algorithm == "grpo" else {}
    asked = RlConfig(model="m", data="d", reward=("math",), out=Path("r"), algorithm=algorithm, seed=5, **kl)  # type: ignore[arg-type]
    Path("r").mkdir()
    Path("r/metrics.jsonl").touch()
    Path("r/config.yaml").write_text(yaml.safe_dump(asked.model_dump(mode="json")))
    words = ["--config", "r/config.yaml", "--out", "r"]
    assert parse_options(RlConfig, words, "posttrain rl") == asked
    if not kl:
        other = parse_options(RlConfig, [*words, "--algorithm", "ppo"], "posttrain rl")
        assert other == RlConfig(model="m", data="d", reward=("math",), out=Path("r"), algorithm="ppo", seed=5)
