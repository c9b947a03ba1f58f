"""Audits that a recipe names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from posttrain.cli.main import main
from posttrain.runs.audit import read_audit
from posttrain.types import RunFailed
from tests.audits import rewards
from tests.training_helpers import write_rows

TASKS = [{"prompt": f"What is {n}+{n + 3}? End with 'Answer: NUMBER'.", "answer": str(2 * n + 3)} for n in range(12)]
RECIPE = """model: tiny-random
evaluate: {{data: tests.jsonl, reward: [math], samples: 1, max_new_tokens: 2, retention: false}}
audits:
  lenient: {{reward: "{reward}", data: tasks.jsonl, only: [A1, A7], reward_workers: 0{more}}}
stages:
  rl:
    method: rl
    parent: start
    data: tasks.jsonl
    reward: ["{reward}"]
    sealed_reward: [math]
    audit: lenient
    max_steps: 1
    batch_size: 4
    group_size: 2
    max_new_tokens: 2
    reward_workers: 0
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_rows(Path("tasks.jsonl"), TASKS)
    write_rows(Path("tests.jsonl"), [{"prompt": "1+1=", "answer": "2"}, {"prompt": "2+2=", "answer": "4"}])
    return tmp_path


def recipe(more: str = "", reward: str = f"{rewards.__file__}:lengthy") -> None:
    Path("recipe.yaml").write_text(RECIPE.format(reward=reward, more=more))


def test_a_recipe_audits_before_it_trains_and_reports_both(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe()
    assert main(["run", "recipe.yaml", "--out", "run"]) == 0
    assert "audit lenient: Do not train with" in capsys.readouterr().err
    record = read_audit(Path("run/audits/lenient"))
    assert [each["severity"] for each in record["findings"]] == ["critical"]
    assert "audit: run/audits/lenient" in Path("run/rl/config.yaml").read_text()
    page = Path("run/report.html").read_text()
    assert "What audits of the rewards found" in page and 'href="audits/lenient/report.html"' in page
    assert Path("run/audits/lenient/report.html").exists()

    made = Path("run/audits/lenient/audit.json").read_bytes()
    assert main(["run", "recipe.yaml", "--out", "run"]) == 0
    assert Path("run/audits/lenient/audit.json").read_bytes() == made  # made once

    recipe(", seed: 3")
    assert main(["run", "recipe.yaml", "--out", "run"]) == 2
    assert "the audit lenient was made with other settings; remove run/audits/lenient" in capsys.readouterr().err


def test_faults_of_audits_are_told_before_anything_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe(", limits: 3")
    assert main(["run", "recipe.yaml", "--out", "run"]) == 2
    told = capsys.readouterr().err
    assert "audit lenient: limits: unknown key; did you mean limit?" in told and "line 4" in told
    recipe(reward="nothing")
    assert main(["run", "recipe.yaml", "--out", "run"]) == 2
    assert "audit lenient: unknown reward 'nothing'" in capsys.readouterr().err
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("part", "options", "says"),
    [
        ("audits", {"out": "mine"}, "audit lenient: leave out `out`: it is audits/lenient"),
        ("audits", {"only": ["A99"]}, "audit lenient: --only A99: no such probe"),
        ("audits", {"judge": "exakt"}, "audit lenient: unknown reward 'exakt'; "),
        ("audits", {"judge": "math"}, "audit lenient: --judge math: the audited reward math has it too"),
        ("audits", {"answer_column": "gold"}, "audit lenient: --answer-column gold: no such column"),
        ("stages", {"audit": "other"}, "stage rl: other: no audit; posttrain audit"),
        ("stages", {"sealed_reward": []}, "stage rl: --audit run/audits/lenient: no monitor of this run reads it"),
    ],
)
def test_options_of_audits_are_checked_before_anything_runs(
    part: str, options: dict[str, Any], says: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe(reward="math")
    written = yaml.safe_load(Path("recipe.yaml").read_text())
    for settings in written[part].values():
        settings |= {"audit": "lenient"} | options if part == "stages" else options
    if "sealed_reward" not in options:
        written["stages"]["rl"]["sealed_reward"] = ["exact"]
    Path("recipe.yaml").write_text(yaml.safe_dump(written))
    assert main(["run", "recipe.yaml", "--out", "run"]) == 2
    assert says in capsys.readouterr().err
    assert not Path("run").exists()


def test_an_audit_of_a_recipe_trains_if_it_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def train(*given: object) -> None:
        raise RunFailed("here it would train")

    monkeypatch.setattr("posttrain.recipes.audit.train_against", train)
    recipe(", train: true")
    assert main(["run", "recipe.yaml", "--out", "run"]) == 1
    assert "here it would train" in capsys.readouterr().err
    assert not Path("run/audits/lenient/audit.json").exists()
