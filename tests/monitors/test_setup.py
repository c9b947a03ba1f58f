"""Which monitors a run has, and what a run does with their alarms."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from posttrain.alerts import Observer
from posttrain.api.commands import train
from posttrain.config import OnlineDpoConfig, RlConfig
from posttrain.methods import METHODS
from posttrain.monitors.setup import monitors_for
from posttrain.monitors.stopping import StoppingMonitor
from posttrain.monitors.warning import WarningMonitor
from posttrain.types import InputError, RunPaused
from tests.train.test_observers import at
from tests.training_helpers import events, metrics, write_rows

REWARDS = """
def spread(response, answer):
    return (len(response) * 7 % 11) / 10

def nothing(response):
    return 0.0
"""
TASKS = [{"prompt": p, "answer": a} for p, a in (("Say a word", "a"), ("Name a colour", "b"), ("Count", "c"))]
AUDIT = {
    "version": "1",
    "reward": ["math"],
    "data": "x",
    "tasks": 3,
    "answer_types": {},
    "seed": 0,
    "guard": "",
    "calibration": {
        "best": 1.0,
        "empty": 0.0,
        "form": "",
        "forms": {},
        "paid": {"value": 1.0, "low": 0.9, "high": 1.0, "n": 30},
    },
    "outcomes": [],
    "findings": [],
    "thresholds": {
        "best": 1.0,
        "empty": 0.0,
        "canary": {"value": 0.0, "low": 0.0, "high": 0.02, "n": 200},
        "distance": None,
    },
    "seconds": 1.0,
}


@pytest.fixture
def rl(tmp_path: Path) -> Callable[..., RlConfig]:
    """The configuration of a run in `tmp_path` whose sealed reward pays nothing: an alarm is due."""
    (tmp_path / "own.py").write_text(REWARDS)
    data = write_rows(tmp_path / "tasks.jsonl", TASKS)

    def config(name: str, **options: Any) -> RlConfig:
        given = {"model": "tiny-random", "data": str(data), "out": tmp_path / name, "max_new_tokens": 6}
        given |= {"reward": (f"{tmp_path}/own.py:spread",), "sealed_reward": (f"{tmp_path}/own.py:nothing",)}
        given |= {"group_size": 2, "batch_size": 6, "max_steps": 9, "learning_rate": 1e-3, "reward_workers": 0}
        return RlConfig(**{**given, "save_every": 4, **options})

    return config


def alarms(run: Path) -> list[dict[str, Any]]:
    return events(run, "alarm")


def write_audit(folder: Path, **thresholds: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "audit.json").write_text(json.dumps(AUDIT | {"thresholds": {**AUDIT["thresholds"], **thresholds}}))  # type: ignore[dict-item]
    return folder


def watched(observers: list[Observer]) -> list[str]:
    return [o._watched.monitor for o in observers if isinstance(o, StoppingMonitor)]


def test_an_alarm_is_the_same_after_interruptions_and_changes_nothing(
    rl: Callable[..., RlConfig], tmp_path: Path
) -> None:
    """A run that is only warned; the same without monitors; one that its user pauses before the alarm, and that the
    alarm pauses then."""
    METHODS["rl"].run(rl("whole"))
    (alarm,) = alarms(tmp_path / "whole")
    assert alarm["monitor"] == "M1" and alarm["value"] == 1.0 and alarm["threshold"] == 0.5
    assert 3 < alarm["step"] < 9 and len(alarm["worst"]) == 5
    assert {"step", "task", "index", "excerpt"} == set(alarm["worst"][0])

    METHODS["rl"].run(rl("unwatched", no_monitors=True))
    assert not alarms(tmp_path / "unwatched")
    with pytest.raises(RunPaused, match="after step 3"):
        METHODS["rl"].run(rl("paused", on_alarm="pause"), [at(3, action="pause")])
    report = tmp_path / "paused" / "report.html"
    message = f"after step {alarm['step']}: .*the sealed grader rejects 100%.*; the report is {report}"
    with pytest.raises(RunPaused, match=message):
        train("rl", rl("paused", on_alarm="pause", resume=True))
    paused = report.read_text()
    assert "the sealed grader rejects 100%" in paused
    train("rl", rl("paused", on_alarm="pause", resume=True))
    assert alarms(tmp_path / "paused") == [{**alarm, "action": "pause"}] and report.read_text() != paused
    for run in ("unwatched", "paused"):
        assert metrics(tmp_path / run, timeless=True) == metrics(tmp_path / "whole", timeless=True)
        weights = [(tmp_path / r / "model" / "model.safetensors").read_bytes() for r in (run, "whole")]
        assert weights[0] == weights[1]


def test_an_alarm_stops_a_run(rl: Callable[..., RlConfig], tmp_path: Path) -> None:
    METHODS["rl"].run(rl("run", on_alarm="stop"))
    (alarm,) = alarms(tmp_path / "run")
    (end,) = events(tmp_path / "run", "finished")
    assert end["ended_by"] == "alarm" and end["steps"] == alarm["step"] < 9
    assert (tmp_path / "run" / "model").exists()


def test_an_alarm_rolls_a_run_back(rl: Callable[..., RlConfig], tmp_path: Path) -> None:
    METHODS["rl"].run(rl("run", on_alarm="rollback"))
    first, *_ = alarms(tmp_path / "run")
    assert events(tmp_path / "run", "rolled_back")[0]["step"] == first["step"]


def test_which_monitors_a_run_has(rl: Callable[..., RlConfig], tmp_path: Path) -> None:
    assert watched(monitors_for(rl("run"))) == ["M1", "M9"]
    assert watched(monitors_for(rl("run", canaries=2))) == ["M1", "M2", "M9"]
    assert watched(monitors_for(rl("run", sealed_reward=(), canaries=2))) == ["M2", "M9"]
    assert watched(monitors_for(rl("run", control="coin", audit=write_audit(tmp_path / "audit")))) == ["M9"]
    assert monitors_for(rl("run", no_monitors=True)) == []
    online = OnlineDpoConfig(model="m", data="d", out=tmp_path / "o", reward=("math",), canaries=2)
    assert watched(monitors_for(online)) == ["M2", "M9"]
    _, canaries, *_ = monitors_for(rl("run", canaries=2, audit=write_audit(tmp_path / "audit"), on_alarm="stop"))
    assert isinstance(canaries, StoppingMonitor)
    assert canaries._watched.lowest == 0.02 and canaries._action == "stop"


def test_which_monitors_that_only_warn_a_run_has(rl: Callable[..., RlConfig], tmp_path: Path) -> None:
    def only_warn(config: RlConfig | OnlineDpoConfig) -> list[str]:
        return sorted(o.monitor for o in monitors_for(config) if isinstance(o, WarningMonitor))

    always, data = ["M10", "M3", "M4", "M7", "M7", "M8"], str(tmp_path / "tasks.jsonl")
    assert only_warn(rl("run")) == always
    assert only_warn(rl("run", control="coin", effort_every=5)) == ["M10", "M3", "M7", "M7"]
    assert only_warn(rl("run", eval_data=data, eval_every=5)) == sorted([*always, "M10"])
    assert only_warn(rl("run", effort_every=5)) == sorted([*always, "M11"])
    for reward in ("ensemble_min(math, exact)", "gate(format, ensemble_zscored(math, exact) as both)"):
        assert only_warn(rl("run", reward=(reward,))) == sorted([*always, "M6"])
    assert only_warn(rl("run", no_monitors=True)) == []
    audit = write_audit(tmp_path / "audit", distance=4.0)
    online = OnlineDpoConfig(model="m", data="d", out=tmp_path / "o", reward=("math",), audit=audit)
    for config in (rl("run", sealed_reward=(), beta=0.1, audit=audit), online):
        assert only_warn(config) == sorted([*always, "M5"])
    for options in ({}, {"beta": 0.1, "reference_every": 2}):
        assert only_warn(rl("run", audit=audit, **options)) == always


def test_options_without_effect_are_refused(rl: Callable[..., RlConfig], tmp_path: Path) -> None:
    for options in ({"on_alarm": "stop"}, {"audit": tmp_path / "audit"}):
        with pytest.raises(ValidationError, match=f"{next(iter(options))} has no effect with no_monitors"):
            rl("run", no_monitors=True, **options)
    with pytest.raises(InputError, match="no monitor of this run reads it; add --sealed-reward or --canaries"):
        monitors_for(rl("run", sealed_reward=(), audit=write_audit(tmp_path / "audit")))
    with pytest.raises(InputError, match="no audit; posttrain audit"):
        METHODS["rl"].run(rl("run", audit=tmp_path / "nowhere"))
    assert not (tmp_path / "run").exists()


def test_an_audit_without_a_scale_has_no_limits(
    rl: Callable[..., RlConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_audit(tmp_path / "audit")
    (folder / "audit.json").write_text(json.dumps(AUDIT | {"calibration": None, "thresholds": None}))
    without, given = (monitors_for(rl("run", canaries=2, reward=("math",), **more)) for more in ({}, {"audit": folder}))
    assert "has no limits for monitors" in capsys.readouterr().err
    assert [type(o) for o in without] == [type(o) for o in given]
    canaries = [o._watched for observers in (without, given) for o in observers if isinstance(o, StoppingMonitor)][1::3]
    assert canaries[0].monitor == "M2" and canaries[0].lowest == canaries[1].lowest


def test_training_on_a_reward_with_critical_findings_says_so_once(
    rl: Callable[..., RlConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the console and as an event, also where the run is resumed; a control is not paid by the reward."""
    reward, folder = f"{tmp_path}/own.py:spread", write_audit(tmp_path / "audit")
    finding = {"probe": "A3", "kind": "", "title": "lists are paid", "measure": "", "advice": "", "wrapper": None}
    finding |= {"effect": AUDIT["calibration"]["paid"], "reproducer": None}  # type: ignore[index]
    found = [{**finding, "severity": severity} for severity in ("critical", "critical", "high")]
    (folder / "audit.json").write_text(json.dumps(AUDIT | {"reward": [reward], "findings": found}))
    text = f"--audit {folder} has 2 critical findings, first: A3 lists are paid"
    with pytest.raises(RunPaused):
        METHODS["rl"].run(rl("run", audit=folder, max_steps=2), [at(1, action="pause")])
    assert capsys.readouterr().err.count(text) == 1
    METHODS["rl"].run(rl("run", audit=folder, max_steps=2, resume=True))
    assert [event["reason"] for event in events(tmp_path / "run", "audit")] == [text]
    capsys.readouterr()
    monitors_for(rl("run", audit=folder, control="coin"))
    assert "critical" not in capsys.readouterr().err


def test_a_resume_notices_another_audit(rl: Callable[..., RlConfig], tmp_path: Path) -> None:
    audit = write_audit(tmp_path / "audit")
    with pytest.raises(RunPaused):
        METHODS["rl"].run(rl("run", audit=audit, max_steps=2), [at(1, action="pause")])
    write_audit(audit, best=2.0)
    with pytest.raises(InputError, match="has other content than when the run"):
        METHODS["rl"].run(rl("run", audit=audit, max_steps=2, resume=True))
    write_audit(audit)
    METHODS["rl"].run(rl("run", audit=audit, max_steps=2, resume=True))
