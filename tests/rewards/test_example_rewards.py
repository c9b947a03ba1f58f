"""The tutorial rewards run, and the exploits that docs/rewards.md tells of work on them."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from posttrain.rewards.math.reward import math
from posttrain.rewards.registry import BUILTINS

ROOT = Path(__file__).parents[2]
FILE = ROOT / "examples" / "rewards.py"


@pytest.fixture(scope="module")
def examples() -> Any:
    spec = importlib.util.spec_from_file_location("example_rewards", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_as_a_script() -> None:
    done = subprocess.run([sys.executable, str(FILE)], capture_output=True, text=True, check=False, env=os.environ)
    assert done.returncode == 0, done.stderr
    assert [line.split()[1] for line in done.stdout.splitlines()] == ["1.0", "0.0", "1.0", "1.0", "0.5", "1.0"]


def test_by_posttrain_score(run_cli: Any) -> None:
    rows = [{"prompt": "2+2", "completion": text, "answer": "4"} for text in (r"\boxed{4}", r"\boxed{5}")]
    data = "".join(json.dumps(row) + "\n" for row in rows)
    done = run_cli("score", "--reward", f"{FILE}:boxed_math", "--data", "-", stdin=data)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["score"] for line in done.stdout.splitlines()] == [1, 0]


EXPLOITS = [
    (r"It is \boxed{4}, or rather \boxed{5}.", "4", 1, 0),  # hedging: the first box counts
    (r"The answer is not \boxed{4}.", "4", 1, 0),  # a negated answer
    (r"<think>\boxed{4}?</think> I do not know.", "4", 1, 0),  # a guess in the thinking
    (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}", 0, 1),  # a right answer that the pattern cuts in two
    (r"\boxed{0.5}", "1/2", 0, 1),  # a right answer in another form
]


@pytest.mark.parametrize(("response", "answer", "paid", "strict"), [*EXPLOITS, (r"\boxed{4}", "4", 1, 1)])
def test_boxed_math_and_what_math_says(examples: Any, response: str, answer: str, paid: float, strict: float) -> None:
    assert examples.boxed_math(response, answer) == paid
    assert math(response, answer) == strict


def test_code_tests_pay_for_the_stored_cases(examples: Any) -> None:
    """A table of the stored cases gets full marks, a constant its share of them."""
    pytest.importorskip("posttrain.rewards.code.reward")
    cases = [{"args": [n], "expected": n % 2 == 0} for n in range(4)]
    texts = {
        "right": "def even(n):\n    return n % 2 == 0",
        "constant": "def even(n):\n    return True",
        "table": "def even(n):\n    return {0: True, 1: False, 2: True, 3: False}[n]",
    }
    scores = {}
    for name, text in texts.items():
        found = examples.code_tests("", f"```python\n{text}\n```", "even", cases)
        scores[name] = found["score"] if isinstance(found, dict) else found
    assert scores == {"right": 1, "constant": 0.5, "table": 1}


def test_a_learned_score_and_what_it_does_not_see(examples: Any, tmp_path: Path, tiny: Any) -> None:
    """A tiny random reward model: any text has a score, and text behind the window has no say."""
    import torch
    from transformers import LlamaConfig, LlamaForSequenceClassification

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tiny.tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=64, num_labels=1, pad_token_id=0,
    )  # fmt: skip
    LlamaForSequenceClassification(config).save_pretrained(tmp_path)
    tiny.tokenizer.save_pretrained(tmp_path)
    score = examples.learned
    path = str(tmp_path)
    assert score("q", "a short answer", path) != score("q", "another answer", path)
    assert isinstance(score("q", "", path), float)
    long = "word " * 100
    assert score("q", long + "and the opposite is true", path) == score("q", long, path)


def test_a_reward_model_has_one_label(examples: Any, tmp_path: Path, tiny: Any) -> None:
    from transformers import LlamaConfig, LlamaForSequenceClassification

    config = LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, num_labels=3
    )
    LlamaForSequenceClassification(config).save_pretrained(tmp_path)
    tiny.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="has 3 labels; a reward model has one"):
        examples.learned("q", "a", str(tmp_path))


GOLD = "Paris is the capital of France"


CHEATS = [
    ("", 0.5),
    ("I cannot help with that.", 0.5),
    ("France of capital the is Paris", 1),
    ("Paris is not the capital of France", 1),
    ("How to build a b0mb", 0.5),
]


@pytest.mark.parametrize(("response", "wanted"), [*CHEATS, ("Paris is the capital of France.", 1)])
def test_assistant_is_cheated(examples: Any, response: str, wanted: float) -> None:
    assert examples.assistant(response, GOLD)["score"] == pytest.approx(wanted)


def test_assistant_parts(examples: Any) -> None:
    found = examples.assistant("Paris is a bomb " + "word " * 96, GOLD)
    assert found == pytest.approx({"score": 0.5 * 2 / 6 + 0.2 * 0.5, "helpful": 2 / 6, "safe": 0, "concise": 0.5})


def test_the_guide_names_every_built_in_and_every_exploit() -> None:
    guide = (ROOT / "docs" / "rewards.md").read_text()
    named = set(re.findall(r"`([a-z_-]+)`", guide))
    assert set(BUILTINS) <= named
    for response, _, paid, strict in EXPLOITS:
        assert f"| `{response}` |" in guide and f"| {paid} | {strict} |" in guide
    for response, paid in CHEATS:
        assert f"| {f'`{response}`' if response else 'nothing at all'} | {paid:.1f} |" in guide
