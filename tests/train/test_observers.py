"""Observers: what a run does with their alerts, and what they see. Most runs here are of a policy without a model."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from posttrain.alerts import Alert, Observer, StepRecord
from posttrain.cli import main as cli
from posttrain.config import RlConfig, SftConfig
from posttrain.models.compute import FLOAT32_CPU
from posttrain.runs.files import read_metrics
from posttrain.runs.log import LINEAGE, RunLog
from posttrain.train.checkpoints import load_weights, save_weights
from posttrain.train.loop import ROLLBACKS, Stage, StepResult, run_stage
from posttrain.train.observers import NoLearningSignal, UnscoredWatch
from posttrain.train.rl.setup import train_rl
from posttrain.train.sft import train_sft
from posttrain.types import Group, Rollout, RunFailed, RunPaused, Sampling, Score, Task
from tests.training_helpers import events, metrics, read_rows, sft_rows, write_rows

STEPS, SAVE_EVERY = 8, 2


class Counter:
    """A policy whose one weight is the sum of the steps it was trained on."""

    has_adapter = False
    updates = optimizer_steps = 0
    compute = FLOAT32_CPU
    rounding: ClassVar[dict[str, Any]] = {}

    def __init__(self, source: Path) -> None:
        self.flops = 0.0
        self.source = source
        self.weight = torch.zeros(1)

    def weights(self) -> dict[str, torch.Tensor]:
        return {"weight": self.weight}

    def save(self, folder: Path) -> None:
        save_weights(self.weights() | {"flops": torch.tensor([self.flops])}, folder / "weights.safetensors")

    def load(self, folder: Path) -> None:
        load_weights(self.weights() | {"flops": (flops := torch.zeros(1))}, folder / "weights.safetensors")
        self.flops = float(flops)

    def save_model(self, folder: Path, dtype: torch.dtype) -> None:
        self.save(folder)


class Sum(Stage):
    """Adds the number of each step to the weight. `held_out` gives the losses of evaluations by step."""

    kind = "sft"

    def __init__(self, source: Path, held_out: Sequence[float] = ()) -> None:
        self.policy: Any = Counter(source)
        self.total_steps: int | None = STEPS
        self.held_out = held_out
        self.done = 0

    def step(self, n: int) -> StepResult:
        self.done = n
        self.policy.weight += n
        self.policy.flops += 1.0
        return StepResult({"loss": 1.0 / n, "grad_norm": 1.0, "tokens": 1})

    def evaluate(self) -> dict[str, Any] | None:
        return {"loss": self.held_out[self.done - 1]} if self.held_out else None


def train(
    out: Path, *observers: Observer, held_out: Sequence[float] = (), resume: bool = False, **changes: Any
) -> float:
    """Run to the end; the weight of the model that was written."""
    source = out.parent / "start"
    source.mkdir(exist_ok=True)
    save_weights({"weight": torch.zeros(1)}, source / "model.safetensors")
    if held_out:
        changes |= {"eval_data": "y", "eval_every": 1}
    config = SftConfig(model="m", data="x", out=out, save_every=SAVE_EVERY, **changes)
    stage = Sum(source, held_out)
    with RunLog(out, config.model_dump(mode="json"), resume) as log:
        run_stage(log, config, stage, observers)
    written = Counter(source)
    written.load(out / "model")
    return float(written.weight)


def at(*steps: int, action: Any, kind: str = "look") -> Observer:
    """Says something about these steps."""

    def observer(record: StepRecord) -> Iterable[Alert]:
        if record.step in steps:
            yield Alert(kind, f"step {record.step} is odd", action)

    return observer


def steps_of(run: Path) -> list[int]:
    return [row["step"] for row in read_metrics(run)]


@pytest.mark.parametrize("action", ["note", "warn"])
def test_an_alert_is_an_event_and_a_warning_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], action: str
) -> None:
    assert train(tmp_path / "run", at(3, action=action)) == 36
    reason = "step 3 is odd"
    assert events(tmp_path / "run", "look") == [{"event": "look", "step": 3, "action": action, "reason": reason}]
    assert (reason in capsys.readouterr().err) == (action == "warn")


def test_the_fields_of_an_alert_are_its_event(tmp_path: Path) -> None:
    def observer(record: StepRecord) -> list[Alert]:
        return [Alert("odd", "x", "note", {"share": 0.5, "kind": 1, "self": 2})] if record.step == 2 else []

    train(tmp_path / "run", observer)
    assert events(tmp_path / "run", "odd") == [{"event": "odd", "share": 0.5, "kind": 1, "self": 2}]


def test_a_stop_ends_the_run_with_its_model(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert train(run, at(3, action="stop", kind="saturated")) == 1 + 2 + 3
    (end,) = events(run, "finished")
    assert (end["steps"], end["ended_by"]) == (3, "saturated")
    assert (run / LINEAGE).exists() and steps_of(run) == [1, 2, 3]


def test_a_pause_can_be_resumed_and_changes_nothing(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(RunPaused, match=r"run after step 3: step 3 is odd; go on with --resume"):
        train(run, at(3, action="pause"))
    assert [folder.name for folder in (run / "checkpoints").iterdir()] == ["step-00000003"]
    assert not (run / LINEAGE).exists()
    seen: list[tuple[int, bool]] = []
    weight = train(run, at(3, action="pause"), lambda r: seen.append((r.step, r.replayed)), resume=True)
    assert weight == 36
    assert seen == [(n, n <= 3) for n in range(1, STEPS + 1)]
    assert len(events(run, "look")) == 1
    train(tmp_path / "whole")
    assert metrics(run, timeless=True) == metrics(tmp_path / "whole", timeless=True)


def test_a_paused_run_exits_with_4(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def dispatch(_: list[str]) -> int:
        raise RunPaused("runs/x after step 3: odd; go on with --resume")

    monkeypatch.setattr(cli, "_dispatch", dispatch)
    assert cli.main(["sft"]) == 4
    assert capsys.readouterr().err == "paused: runs/x after step 3: odd; go on with --resume\n"


def test_a_rollback_gives_up_steps_and_goes_on_with_the_next(tmp_path: Path) -> None:
    """Step 5 is given up: the weights are those after 4, and step 6 follows. What was spent stays spent."""
    run = tmp_path / "run"
    assert train(run, at(5, action="rollback")) == 36 - 5
    assert events(run, "rolled_back") == [{"event": "rolled_back", "step": 5, "to": 4}]
    assert steps_of(run) == list(range(1, STEPS + 1))
    assert metrics(run)[-1]["flops"] == STEPS


def test_a_rollback_survives_a_kill(tmp_path: Path) -> None:
    run = tmp_path / "run"

    def killed(record: StepRecord) -> None:
        if record.step == 6 and not record.replayed:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(run, at(5, action="rollback"), killed)
    assert train(run, at(5, action="rollback"), resume=True) == 36 - 5
    assert len(events(run, "rolled_back")) == 1


def test_a_run_goes_back_only_so_often(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert train(run, at(*range(3, STEPS), action="rollback")) == 1 + 2
    (end,) = events(run, "finished")
    assert (end["steps"], end["ended_by"]) == (3 + ROLLBACKS, "look")


def test_without_a_checkpoint_there_is_nothing_to_go_back_to(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match=r"step 1: .* no checkpoint yet; lower --save-every"):
        train(tmp_path / "run", at(1, action="rollback"))


def test_a_stop_beside_a_rollback_writes_the_older_weights(tmp_path: Path) -> None:
    assert train(tmp_path / "run", at(5, action="stop"), at(5, action="rollback")) == 1 + 2 + 3 + 4


class Broken:
    closed = False

    def __call__(self, record: StepRecord) -> list[Alert]:
        return [Alert("x", "x", action="halt")] if record.step == 2 else []  # type: ignore[arg-type]

    def close(self) -> None:
        self.closed = True


def takes_a_name(record: StepRecord) -> list[Alert]:
    return [Alert("finished", "it is good")]


def gives_no_json(record: StepRecord) -> list[Alert]:
    return [Alert("odd", fields={"where": Path("x")})]


def returns_text(record: StepRecord) -> Any:
    return ["all is well"]


@pytest.mark.parametrize(
    ("observer", "said"),
    [
        (
            Broken(),
            r"step 2: the observer Broken failed: ValueError: the action of an alert is one of note, warn, .*'halt'",
        ),
        (takes_a_name, r"step 1: the observer takes_a_name failed: ValueError: 'finished' is an event"),
        (gives_no_json, r"step 1: the observer gives_no_json failed: TypeError: .*not JSON serializable"),
        (lambda record: Alert(5), "failed: TypeError: the kind and text of an alert are texts, and not 5 and ''"),  # type: ignore[arg-type]
        (lambda record: [Alert("a", fields={"event": "finished"})], "ValueError: 'event' in an event is the kind"),
        (lambda record: Alert("alone"), r"TypeError: it returned Alert\(kind='alone'.*; return a list of alerts"),
        (returns_text, r"step 1: the observer returns_text failed: TypeError: it returned 'all is well'"),
    ],
)
def test_an_observer_that_fails_ends_the_run_by_name(tmp_path: Path, observer: Any, said: str) -> None:
    run = tmp_path / "run"
    with pytest.raises(RunFailed, match=said) as failed:
        train(run, observer)
    (stopped,) = events(run, "stopped")
    assert stopped["reason"] == str(failed.value)
    assert steps_of(run) == list(range(1, stopped["step"]))
    assert getattr(observer, "closed", True)


def test_a_stop_after_the_last_step_before_a_kill_holds(tmp_path: Path) -> None:
    """The run was killed after its last step and before its model was written."""
    run = tmp_path / "run"
    train(run, at(4, action="stop"), keep=1)
    (run / LINEAGE).unlink()
    assert train(run, at(4, action="stop"), keep=1, resume=True) == 1 + 2 + 3 + 4
    assert steps_of(run) == [1, 2, 3, 4]


@pytest.mark.parametrize("killed", [None, 3, 4, 5])
def test_early_stopping_is_rebuilt_from_the_metrics(tmp_path: Path, killed: int | None) -> None:
    """The best of 4, 3, 5, 2.5, 6, 7, 8 is that of step 4, and three after it are no better."""
    run, losses = tmp_path / "run", (4, 3, 5, 2.5, 6, 7, 8, 1)
    if killed is not None:
        with pytest.raises(RunPaused):
            train(run, at(killed, action="pause"), held_out=losses, patience=3)
    assert train(run, held_out=losses, patience=3, resume=killed is not None) == 1 + 2 + 3 + 4
    assert steps_of(run) == list(range(1, 8))
    assert events(run, "best_step") == [{"event": "best_step", "step": 4, "objective": 2.5}]
    assert events(run, "finished")[0]["ended_by"] == "patience"


def test_observers_of_a_real_run(tmp_path: Path) -> None:
    """A paused and resumed run has the weights of one that was not."""
    data = write_rows(tmp_path / "rows.jsonl", sft_rows(4))

    def config(out: str, resume: bool = False) -> SftConfig:
        return SftConfig(
            model="tiny-random", data=str(data), out=tmp_path / out, max_steps=2, batch_size=2, resume=resume
        )

    with pytest.raises(RunPaused):
        train_sft(config("paused"), observers=[at(1, action="pause")])
    train_sft(config("paused", resume=True), observers=[at(1, action="pause")])
    train_sft(config("whole"))
    weights = "model/model.safetensors"
    assert (tmp_path / "paused" / weights).read_bytes() == (tmp_path / "whole" / weights).read_bytes()


def test_observers_see_the_groups_of_a_step(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "tasks.jsonl", [{"prompt": "a"}, {"prompt": "b"}])
    (tmp_path / "reward.py").write_text("def length(response):\n    return len(response) % 7\n")
    seen: list[StepRecord] = []
    config = RlConfig(
        model="tiny-random",
        data=str(data),
        out=tmp_path / "run",
        reward=(f"{tmp_path / 'reward.py'}:length",),
        max_steps=1,
        batch_size=4,
        group_size=2,
        max_new_tokens=3,
    )
    train_rl(config, observers=[seen.append])
    (record,) = seen
    scores = [score.total for group in record.groups for score in group.scores if score.total is not None]
    assert len(scores) == 4 and sum(scores) / 4 == pytest.approx(record.metrics["reward"])
    assert [row["task"] for row in read_rows(tmp_path / "run/rollouts.jsonl")] == [
        rollout.task_id for group in record.groups for rollout in group.rollouts
    ]
    assert json.loads(json.dumps(dict(record.metrics))) == metrics(tmp_path / "run")[0] and len(record.rows) == 4


def test_a_run_that_learnt_nothing_says_how_many_answers_had_no_score() -> None:
    signal = NoLearningSignal()
    for n, unscored in ((1, 0.5), (2, 0.25)):
        signal(StepRecord(n, 2, {"loss": None, "reward": 1.0, "unscored": unscored}))
    (alert,) = signal.finish()
    assert "(the mean score was 1, and 38% of the answers had none)" in alert.text


def test_answers_without_a_score_are_warned_of_once_and_noted_each_time() -> None:
    sampled = Rollout("0", 0, Sampling(1), 0, (), ())
    group = Group(Task("0", "?"), (sampled, sampled), (Score(1.0), Score(None, reason="it raised")))
    watch = UnscoredWatch(1.0, None)
    alerts = [alert for n in (1, 2) for alert in watch(StepRecord(n, 2, {}, [group]))]
    assert [alert.action for alert in alerts] == ["warn", "note"]
    assert alerts[0].text == "step 1: 1 of 2 answers have no score (it raised)"
