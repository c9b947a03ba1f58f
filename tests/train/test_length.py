"""How long a run is: passes over the data, runs that are made longer, and `--resume RUN` with a run's own settings."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from posttrain.cli.main import main
from posttrain.config import ReviseConfig, RlConfig, SampleConfig, SftConfig
from posttrain.data.fitting import Fitted
from posttrain.runs.config import Progress, compare, own_settings, read_settings
from posttrain.train.data_order import planned_steps, step_rows
from posttrain.types import InputError, RunFailed
from tests.training_helpers import events, metrics, pair_rows, read_rows, sft_rows, write_rows

ROWS = 11


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "data.jsonl", sft_rows(ROWS))


def train(data: Path, out: str, *more: str, method: str = "sft") -> Path:
    run = data.parent / out
    common = ["--model", "tiny-random", "--data", str(data), "--out", str(run), "--batch-size", "4"]
    assert main([method, *common, "--learning-rate", "1e-3", *more]) == 0
    return run


def refused(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    capsys.readouterr()
    assert main(list(args)) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ") and message.count("\n") == 1, message
    return message


def weights(run: Path) -> bytes:
    return (run / "model" / "model.safetensors").read_bytes()


def files(run: Path) -> dict[str, bytes]:
    return {str(p.relative_to(run)): p.read_bytes() for p in sorted(run.rglob("*")) if p.is_file()}


# -- epochs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("epochs", "steps", "last"),
    [(None, 3, 3), (1, 3, 3), (2, 6, 2), (0.5, 2, 2), (0.01, 1, 1), (8, 22, 4)],  # of 11 rows in batches of 4
)
def test_epochs_are_passes_over_the_rows(epochs: float | None, steps: int, last: int) -> None:
    config = SftConfig(model="m", data="d", out=Path("o"), batch_size=4, epochs=epochs)
    assert planned_steps(config, ROWS, lambda rows: 1.0) == steps
    drawn = max(1, round((epochs or 1) * ROWS))
    batches = [step_rows(ROWS, 0, n, 4, drawn) for n in range(1, steps + 1)]
    assert [len(rows) for rows in batches] == [4] * (steps - 1) + [last]
    seen = [row for rows in batches for row in rows]
    for start in range(0, len(seen) - ROWS + 1, ROWS):
        assert sorted(seen[start : start + ROWS]) == list(range(ROWS))


def test_operations_may_end_a_run_before_its_epochs() -> None:
    config = SftConfig(model="m", data="d", out=Path("o"), batch_size=4, epochs=2, max_flops=21)
    asked: list[list[int]] = []
    assert planned_steps(config, ROWS, lambda rows: asked.append(rows) or 2.0 * len(rows)) == 3
    assert (
        planned_steps(config.model_copy(update={"max_flops": 1e9}), ROWS, lambda rows: asked.append(rows) or 1.0) == 6
    )
    assert asked[-1] == step_rows(ROWS, 0, 6, 4, 22)


def test_a_schedule_knows_the_steps_of_epochs(data: Path) -> None:
    run = train(data, "run", "--epochs", "2", "--schedule", "linear")
    rates = [row["learning_rate"] for row in metrics(run)]
    assert len(rates) == 6
    assert rates == pytest.approx([1e-3 * (1 - 0.9 * n / 6) for n in range(1, 7)])
    same = train(data, "same", "--max-steps", "6", "--schedule", "linear")
    assert metrics(same, timeless=True)[:5] == metrics(run, timeless=True)[:5]  # the last batch is filled there


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("--epochs 2 --max-steps 3", "--max-steps both say how long to train"),
        ("--epochs 0", "--epochs must be greater than 0"),
        ("--max-flops 1e9 --schedule cosine", "'cosine' needs --max-steps or epochs"),
        ("--num-train-epochs 2", "did you mean --epochs?"),
    ],
)
def test_lengths_that_make_no_sense(capsys: pytest.CaptureFixture[str], more: str, message: str) -> None:
    assert message in refused(capsys, *f"sft --model m --data d --out o {more}".split())


def test_epochs_of_rl_are_passes_over_the_tasks(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reward = data.parent / "reward.py"
    reward.write_text("def length(response):\n    return len(response) % 3\n")
    more = ("--reward", f"{reward}:length", "--group-size", "2", "--max-new-tokens", "3")
    tasks = write_rows(data.parent / "tasks.jsonl", [{"prompt": row["prompt"]} for row in sft_rows(5)])
    run = train(tasks, "rl", *more, "--epochs", "2", "--schedule", "linear", method="rl")
    assert "note: epochs counts passes over the tasks" in capsys.readouterr().err
    assert len(metrics(run)) == 5  # 10 tasks, two a step
    seen = [row["task"] for row in read_rows(run / "rollouts.jsonl")][::2]
    assert sorted(seen[:5]) == sorted(seen[5:]) and len(set(seen[:5])) == 5
    assert metrics(run)[-1]["learning_rate"] == pytest.approx(1e-4)
    shown = ["rl", "--model", "tiny-random", "--data", str(tasks), "--out", "none", "--batch-size", "4", *more]
    assert main([*shown, "--epochs", "3", "--dry-run"]) == 0
    assert "The run would take 8 steps of 4 rollouts, from 5 tasks." in capsys.readouterr().out


def test_replay_has_a_length_of_its_own() -> None:
    with pytest.raises(ValueError, match="leave epochs out"):
        RlConfig(model="m", data="d", out=Path("o"), replay="r.jsonl", epochs=2)


# -- longer -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "more"),
    [
        ("sft", ("--save-every", "2", "--eval-every", "2", "--patience", "9")),
        pytest.param("sft", ("--save-every", "4", "--lora-rank", "2", "--warmup-steps", "2"), marks=pytest.mark.stress),
        pytest.param("dpo", (), marks=pytest.mark.stress),
    ],
)
def test_a_longer_run_equals_one_long_run(data: Path, method: str, more: tuple[str, ...]) -> None:
    if method == "dpo":
        write_rows(data, pair_rows(4))  # one batch: the reference of a longer run is that of the same rows
    if "--patience" in more:
        more = (*more, "--eval-data", str(write_rows(data.parent / "held-out.jsonl", sft_rows(2))))
    whole = train(data, "whole", *more, "--max-steps", "7", "--keep", "1", method=method)
    run = train(data, "run", *more, "--max-steps", "3", "--keep", "1", method=method)
    (run / "evaluations").mkdir()
    (run / "evaluations" / "held_out.json").write_text("{}")
    assert main([method, "--resume", str(run), "--max-steps", "7"]) == 0
    assert metrics(run, timeless=True) == metrics(whole, timeless=True)
    assert weights(run) == weights(whole)
    assert [row["steps"] for row in events(run, "finished")] == [3, 7]
    assert yaml.safe_load((run / "config.yaml").read_text())["max_steps"] == 7
    assert not (run / "evaluations").exists()  # of the model that was replaced
    assert (
        "step 7" in (run / "report.html").read_text()
        or '"max_steps": 7' in (run / "report.html").read_text()
        or ("max_steps: 7" in (run / "report.html").read_text())
    )
    assert [p.name for p in (run / "checkpoints").iterdir()] == ["step-00000007"]


def test_a_run_that_was_killed_at_its_end_may_become_longer(data: Path) -> None:
    """The evaluation after its third step, which was the last one, is none of the longer run."""
    held_out = write_rows(data.parent / "held-out.jsonl", sft_rows(2))
    more = ("--eval-every", "2", "--patience", "9", "--eval-data", str(held_out), "--keep", "1")
    whole = train(data, "whole", *more, "--max-steps", "5")
    run = train(data, "run", *more, "--max-steps", "3")
    assert "eval/loss" in metrics(run)[-1]
    (run / "lineage.json").unlink()  # as before the last file was written
    assert main(["sft", "--resume", str(run), "--max-steps", "5"]) == 0
    assert metrics(run, timeless=True) == metrics(whole, timeless=True)
    assert weights(run) == weights(whole)


def test_what_a_longer_run_is_told(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = train(data, "run", "--epochs", "1", "--keep", "1", "--schedule", "cosine")
    before = files(run)
    said = refused(capsys, "sft", "--resume", str(run), "--max-steps", "2")
    assert "has trained 3 steps, and max-steps is 2" in said
    assert "is one of 1 epoch, and 0.5 epochs would" in refused(capsys, "sft", "--resume", str(run), "--epochs", "0.5")
    assert files(run) == before
    assert main(["sft", "--resume", str(run), "--epochs", "2"]) == 0
    said = capsys.readouterr().err
    assert "not the same as one run of 2 epochs: the cosine schedule had lowered the learning rate" in said
    assert "may have had a smaller batch" in said
    assert len(metrics(run)) == 6
    assert metrics(run)[-1]["learning_rate"] == pytest.approx(1e-4)
    assert main(["sft", "--resume", str(run), "--max-steps", "7"]) == 0
    assert len(metrics(run)) == 7


def test_a_longer_run_counts_the_whole_reference(data: Path) -> None:
    """The reference of more rows takes more operations; `max_flops` and arms of equal compute go by the total."""
    write_rows(data, pair_rows(8))
    whole = train(data, "whole", "--max-steps", "2", method="dpo")
    run = train(data, "run", "--max-steps", "1", "--keep", "1", method="dpo")
    assert main(["dpo", "--resume", str(run), "--max-steps", "2"]) == 0
    assert metrics(run)[-1]["flops"] == metrics(whole)[-1]["flops"] > 0
    assert weights(run) == weights(whole)


def test_a_run_of_an_earlier_version_that_stopped_early_does_not_become_longer(tmp_path: Path) -> None:
    """Its events do not say what ended it."""
    file = tmp_path / "config.yaml"
    stage = {"model": "m", "data": "d", "out": str(tmp_path), "patience": 2, "eval_data": "e", "eval_every": 1}
    now = SftConfig.model_validate(stage | {"max_steps": 20}).model_dump(mode="json")
    file.write_text(yaml.safe_dump({k: v for k, v in (now | {"max_steps": 9}).items() if k != "save_dtype"}))
    progress = Progress(steps=4, finished=True, checkpoints=True)
    with pytest.raises(InputError, match="ended after step 4 since --patience stopped it"):
        compare(file, now, True, lambda: progress)
    assert compare(file, now, True, lambda: replace(progress, steps=9)).longer
    with pytest.raises(InputError, match="save-dtype was 'float32'"):  # which is not in its file
        compare(file, now | {"save_dtype": "bfloat16"}, True, lambda: progress)


def test_evaluations_from_before_a_run_are_not_removed_by_it(data: Path) -> None:
    file = data.parent / "run" / "evaluations" / "held_out.json"
    file.parent.mkdir(parents=True)
    file.write_text("{}")
    train(data, "run", "--max-steps", "1")
    assert file.exists()


def test_without_a_checkpoint_there_is_nothing_to_go_on_from(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = train(data, "run", "--max-steps", "2")
    before = files(run)
    said = refused(capsys, "sft", "--resume", str(run), "--max-steps", "5")
    assert (
        f"kept no checkpoint to go on from; begin a new run from its model (--model {run}" in said
        and "--keep 1" in said
    )
    assert main(["sft", "--resume", str(run)]) == 0
    assert "finished" in capsys.readouterr().err
    assert files(run) == before


def test_a_run_that_stopped_early_does_not_become_longer(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    held_out = write_rows(data.parent / "held-out.jsonl", [{"prompt": "x", "completion": "qqq"}])
    evaluated = ("--eval-data", str(held_out), "--eval-every", "1", "--patience", "1", "--learning-rate", "1e-2")
    more = [arg for arg in evaluated if arg not in ("--learning-rate", "1e-2")]
    run = train(data, "run", "--max-steps", "60", "--keep", "1", *more)
    steps = len(metrics(run))
    assert steps < 60
    said = refused(capsys, "sft", "--resume", str(run), "--max-steps", "90")
    assert f"ended after step {steps} since --patience stopped it" in said


def test_a_kill_while_a_run_is_made_longer_loses_nothing(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train(data, "whole", "--max-steps", "5")
    run = train(data, "run", "--max-steps", "3", "--keep", "1")

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    for place in (
        "posttrain.runs.log.yaml.safe_dump",
        "posttrain.train.loop._step",
        "posttrain.train.loop.weights_hash",
    ):
        with monkeypatch.context() as patched:
            patched.setattr(place, killed)
            assert main(["sft", "--resume", str(run), "--max-steps", "5"]) == 130
    assert main(["sft", "--resume", str(run), "--max-steps", "5"]) == 0
    assert weights(run) == weights(whole)
    assert metrics(run, timeless=True) == metrics(whole, timeless=True)


# -- a run's own settings ---------------------------------------------------------------------------------------------


def test_a_run_is_resumed_by_its_folder_alone(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = ("--max-steps", "4", "--save-every", "2", "--weight-decay", "0.1", "--schedule", "cosine", "--raw")
    whole = train(data, "whole", *more)
    run = train(data, "run", *more, "--keep", "1")
    for name in ("lineage.json", "checkpoints/step-00000004"):  # killed after the checkpoint at step 2
        shutil.rmtree(run / name) if (run / name).is_dir() else (run / name).unlink()
    moved = run.rename(data.parent / "moved")
    assert main(["sft", "--resume", str(moved), "--keep", "0", "--seed", "0"]) == 0
    assert weights(moved) == weights(whole)
    assert not (moved / "checkpoints").exists()
    said = refused(capsys, "sft", "--resume", str(moved), "--seed", "7")
    assert "seed was 0" in said and "7 now" in said
    assert f"continue it with: posttrain sft --resume {moved}" in refused(capsys, "dpo", f"--resume={moved}")
    assert "leave out --out" in refused(capsys, "sft", "--resume", str(moved), "--out", str(whole))
    assert "holds no run" in refused(capsys, "sft", "--resume", str(data.parent / "nowhere"))
    for text in ("model: m\nlearning_speed: 1\n", "{}", "model: m\n"):
        (moved / "config.yaml").write_text(text)
        assert "of another version, or of no run" in refused(capsys, "sft", "--resume", str(moved))


def test_paths_of_a_run_that_is_resumed_from_elsewhere(
    data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data.parent)
    (data.parent / "run").mkdir()
    settings = SftConfig(model="tiny-random", data="data.jsonl", out=Path("run")).model_dump(mode="json")
    (data.parent / "run" / "config.yaml").write_text(yaml.safe_dump(settings))
    monkeypatch.chdir(data.parent / "run")
    capsys.readouterr()
    assert main(["sft", "--resume", "../run"]) == 2
    said = capsys.readouterr().err
    assert "began as --out run; relative paths in its settings are read from the current folder" in said
    assert "no such file: data.jsonl" in said


@pytest.mark.parametrize(
    ("method", "kind", "given"),
    [
        ("sample", SampleConfig, {"reward": ("math",), "keep": 2, "endpoint": "http://x/v1", "endpoint_model": "m"}),
        ("sample", SampleConfig, {"write": "all", "model": "m"}),
        ("revise", ReviseConfig, {"principles": "honest", "model": "m"}),
        ("revise", ReviseConfig, {"endpoint": "http://x/v1", "endpoint_model": "m", "endpoint_max_requests": 9}),
    ],
)
def test_settings_of_data_come_back_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, kind: Any, given: dict[str, Any]
) -> None:
    """Budgets, and the name of the principles, among them."""
    from posttrain import methods

    tasks = write_rows(tmp_path / "tasks.jsonl", [{"prompt": "x", "answer": "1"}])
    config = kind(data=str(tasks), out=tmp_path / "run", **given)

    def stopped(*_: Any) -> None:
        raise RunFailed("here")

    for name in ("sample", "revise"):
        monkeypatch.setattr(f"posttrain.train.generate.{name}.source_of", lambda *_: FakeSource())
    monkeypatch.setattr("posttrain.train.generate.loop.warn_fitted", stopped)
    with pytest.raises(RunFailed, match="here"):
        methods.METHODS[method].function(config)
    found = own_settings(tmp_path / "run", {}, method)
    assert kind(**found) == config.model_copy(update={"resume": True})


class FakeSource:
    """As much of a source as is asked before a run folder is there."""

    writes_date = False

    def fitting(self, tasks: Any) -> Any:
        return Fitted(len(tasks), list(tasks), 0, ())


def test_how_many_answers_are_written_is_no_matter_of_checkpoints(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    settings = SampleConfig(model="m", data="d", out=tmp_path, reward=("math",)).model_dump(mode="json")
    file.write_text(yaml.safe_dump(settings))
    with pytest.raises(InputError, match="keep was 1"):
        compare(file, settings | {"keep": 2}, True, Progress)
    assert compare(file, settings | {"endpoint_retries": 2}, False, Progress).settings
    assert compare(file, settings | {"reward_workers": 2}, False, Progress).settings
    del settings["reward_workers"]  # of an earlier version
    file.write_text(yaml.safe_dump(settings))
    assert not compare(file, settings | {"reward_workers": None}, False, Progress).settings


@pytest.mark.parametrize("config", [SftConfig, RlConfig])
def test_an_option_that_an_earlier_version_did_not_have_is_its_default(
    tmp_path: Path, config: type[SftConfig | RlConfig]
) -> None:
    reward = {"reward": ("math",)} if config is RlConfig else {}
    settings = config(model="m", data="d", out=tmp_path, max_steps=2, **reward).model_dump(mode="json")
    earlier = {
        key: value for key, value in settings.items() if key not in ("use_dora", "use_rslora", "dtype", "strict")
    }
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(earlier))
    assert not compare(file, settings, True, Progress).longer
    assert config.model_validate(settings | {"lora_alpha": 16, "resume": True}).lora_alpha == 16  # was no error then
    with pytest.raises(InputError, match="use-dora was False in .* and is True now"):
        compare(file, settings | {"use_dora": True}, True, Progress)


def test_an_average_is_resumed_with_its_models(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mean = data.parent / "mean"
    assert main(["average", "tiny-random", "tiny-random", "--out", str(mean)]) == 0
    said = refused(capsys, "sft", "--resume", str(mean))
    command = f"average tiny-random tiny-random --out {mean} --resume"
    assert f"posttrain {command}" in said
    assert main(command.split()) == 0


@pytest.mark.parametrize("algorithm", ["grpo", "ppo", "dapo", "reinforce"])
def test_settings_of_rl_come_back_as_they_were(tmp_path: Path, algorithm: str) -> None:
    """A run's file holds every option, those too that have no effect beside others."""
    from posttrain.cli.options import parse_options

    config = RlConfig(
        model="m", data="d", out=tmp_path, reward=("math",), algorithm=algorithm, normalisation="constant"
    )
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json") | {"data_hash": "x"}))
    again = parse_options(
        RlConfig,
        ["--resume", str(tmp_path)],
        "posttrain rl",
        completed=lambda run, given: own_settings(run, given, "rl"),
    )
    assert again == config.model_copy(update={"resume": True})


def test_epochs_of_an_earlier_rl_run_are_updates_per_batch(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("algorithm: grpo\nepochs: 2\nminibatches: 1\n")
    settings, (note,) = read_settings(file)
    assert settings == {"algorithm": "grpo", "minibatches": 1, "updates_per_batch": 2}
    assert "its epochs, 2, are read as updates_per_batch" in note
    file.write_text("algorithm: grpo\nepochs: 2.0\nminibatches: 1\nupdates_per_batch: 3\n")
    assert read_settings(file) == ({"algorithm": "grpo", "epochs": 2.0, "minibatches": 1, "updates_per_batch": 3}, ())
