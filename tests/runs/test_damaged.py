"""Run folders that a power cut, a full disk or somebody else has changed: what is damaged is named, and nothing is
written through links."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from posttrain.chat.template_date import kept_date
from posttrain.cli.main import main
from posttrain.cli.options import parse_options
from posttrain.config import SampleConfig, SftConfig
from posttrain.models import load_model
from posttrain.runs.files import read_jsonl, read_metrics, write_atomic
from posttrain.runs.log import RunLog, is_finished_run
from posttrain.train.checkpoints import DamagedFile, fill_checkpoint, load_checkpoint
from posttrain.train.dpo.data import Example
from posttrain.train.dpo.reference import StoredReference
from posttrain.train.generate.sample import sample_answers
from posttrain.train.loop import make_policy
from posttrain.train.policy import LocalPolicy
from posttrain.train.rl.advantages import trainable
from posttrain.train.rl.controllers import AdaptiveKl, Constraints, restore, state
from posttrain.types import InputError, Rollout, RunFailed, Sampling, Segment
from tests.training_helpers import events, metrics, sft_rows, write_rows

NAME = "step-00000002"
WEIGHTS, OPTIMIZER, STATE = "weights.safetensors", "optimizer.pt", "state.json"


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> LocalPolicy:
    """A small policy: LoRA keeps its checkpoints small."""
    config = SftConfig(model="tiny-random", data="x", out=Path("x"), lora_rank=1)
    return make_policy(load_model("tiny-random"), config, 1e-3, None)


@pytest.fixture
def checkpoint(policy: LocalPolicy, tmp_path: Path) -> Path:
    folder = tmp_path / NAME
    folder.mkdir()
    policy.save(folder)
    (folder / STATE).write_text(json.dumps({"step": 2}))
    return folder


def cut(name: str, to: int) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: to if to >= 0 else len(data) // 2])

    return damage


def written(name: str, text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(text) and None


def missing(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def weights(change: Callable[[dict[str, torch.Tensor], str], None]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        change(tensors, next(iter(tensors)))
        save_file(tensors, folder / WEIGHTS)

    return damage


def optimizer(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        state = torch.load(folder / OPTIMIZER, weights_only=True)
        change(state)
        torch.save(state, folder / OPTIMIZER)

    return damage


DAMAGES: dict[str, Callable[[Path], None]] = {
    "weights of no length": cut(WEIGHTS, 0),
    "weights cut": cut(WEIGHTS, -1),
    "weights missing": missing(WEIGHTS),
    "a matrix that would be broadcast": weights(lambda t, name: t.update({name: torch.ones(1)})),
    "weights of another type": weights(lambda t, name: t.update({name: t[name].to(torch.int8)})),
    "a name more": weights(lambda t, name: t.update({"other": torch.ones(1)})),
    "a name less": weights(lambda t, name: t.pop(name) is None),  # type: ignore[arg-type, return-value]
    "optimizer of no length": cut(OPTIMIZER, 0),
    "optimizer cut": cut(OPTIMIZER, -1),
    "optimizer missing": missing(OPTIMIZER),
    "no optimizer": optimizer(lambda s: s.pop("optimizer") and None),
    "a moment of another shape": optimizer(lambda s: s["optimizer"]["state"][0].update(exp_avg=torch.ones(1))),
    "other parameters": optimizer(lambda s: s["optimizer"]["state"].pop(0) and None),
    "random state": optimizer(lambda s: s.update(torch_rng=torch.zeros(3, dtype=torch.uint8))),
    "operations below 0": optimizer(lambda s: s.update(flops=-1.0)),
    "state missing": missing(STATE),
    "state of no length": cut(STATE, 0),
    "state no object": written(STATE, "[1]"),
    "a step far away": written(STATE, '{"step": 1000000000}'),
    "a step that is no number": written(STATE, '{"step": null}'),
}


def test_a_checkpoint_without_one_of_its_files_is_refused(policy: LocalPolicy, tmp_path: Path) -> None:
    """Such as the copy of a reference that has moved: without it the start would be taken for it."""
    folder = tmp_path / NAME
    folder.mkdir()
    stage: Any = SimpleNamespace(
        policy=policy, total_steps=4, load=lambda _: None, save=lambda to: (to / "reference.safetensors").touch()
    )
    fill_checkpoint(stage, 2, folder)
    assert load_checkpoint(folder, stage) == 2
    (folder / "reference.safetensors").unlink()
    with pytest.raises(DamagedFile, match=r"reference\.safetensors is missing"):
        load_checkpoint(folder, stage)


@pytest.mark.parametrize("saved", [{"beta": -1.0}, {"beta": float("nan")}, {"multipliers": {}}, {"beta": "0.1"}])
def test_damaged_coefficients_are_refused(saved: dict[str, Any]) -> None:
    kl, constraints = AdaptiveKl(0.1, None), Constraints(("safe>=0.9",), 0.1)
    with pytest.raises((TypeError, ValueError)):
        restore(kl, constraints, state(kl, constraints) | saved)
    assert kl.beta == 0.1


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_refused(policy: LocalPolicy, checkpoint: Path, damage: str) -> None:
    before = [p.detach().clone() for p in policy.parameters.values()]
    DAMAGES[damage](checkpoint)
    stage: Any = SimpleNamespace(policy=policy, total_steps=4, load=lambda folder: None)
    with pytest.raises(DamagedFile, match=str(checkpoint)):
        load_checkpoint(checkpoint, stage)
    assert all(torch.equal(p, b) for p, b in zip(policy.parameters.values(), before, strict=True))


def test_a_whole_checkpoint_is_taken(policy: LocalPolicy, checkpoint: Path) -> None:
    stage: Any = SimpleNamespace(policy=policy, total_steps=4, load=lambda folder: None)
    assert load_checkpoint(checkpoint, stage) == 2


def interrupted(tmp_path: Path) -> tuple[list[str], Path]:
    """A run of 4 steps with checkpoints after 2 and 4, as a kill before its end leaves it; its weights after 4."""
    data = write_rows(tmp_path / "rows.jsonl", sft_rows(6))
    run = tmp_path / "run"
    command = ["sft", "--model", "tiny-random", "--data", str(data), "--out", str(run), "--max-steps", "4"]
    command += ["--batch-size", "2", "--save-every", "2", "--keep", "2", "--learning-rate", "1e-3"]
    assert main(command) == 0
    shutil.copytree(run, tmp_path / "whole")
    shutil.rmtree(run / "model")
    (run / "lineage.json").unlink()
    return [*command, "--resume"], run


def test_a_run_goes_back_to_the_checkpoint_before_a_damaged_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command, run = interrupted(tmp_path)
    (run / "checkpoints/step-00000004" / WEIGHTS).write_bytes(b"")
    (run / "checkpoints/step-mine").mkdir()
    capsys.readouterr()
    assert main(command) == 0
    said = capsys.readouterr().err
    assert "warning: the checkpoint step-00000004 cannot be used" in said and WEIGHTS in said
    assert [e["checkpoint"] for e in events(run, "damaged_checkpoint")] == ["step-00000004"]
    assert [e["resumed_from"] for e in events(run, "resumed_from")] == [2]
    assert metrics(run, timeless=True) == metrics(tmp_path / "whole", timeless=True)
    assert (run / "model/model.safetensors").read_bytes() == (tmp_path / "whole/model/model.safetensors").read_bytes()

    shutil.rmtree(run / "model")
    (run / "lineage.json").unlink()
    for folder in (run / "checkpoints").glob("step-0*"):
        (folder / OPTIMIZER).write_bytes(b"")
    assert main(command) == 1
    assert "none of its checkpoints can be used" in capsys.readouterr().err
    assert len(list((run / "checkpoints").glob("step-0*"))) == 2

    (run / "metrics.jsonl").write_text('{"step": 1}\nnot a line\n{"step": 2}\n')
    shutil.rmtree(run / "checkpoints")
    assert main(command) == 2
    assert f"{run / 'metrics.jsonl'}:2: damaged, it is no JSON" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name", [".lock", "config.yaml", ".cost.json.partial", "events.jsonl", "checkpoints", "evaluations/held_out.json"]
)
def test_a_run_writes_nothing_through_a_link(tmp_path: Path, name: str) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    run = tmp_path / "run"
    (run / name).parent.mkdir(parents=True)
    (run / name).symlink_to(victim)
    for resume in (False, True):
        with pytest.raises(InputError, match=r"symbolic link|already holds a run|not empty|configuration"):
            RunLog(run, {"model": "m", "out": "x"}, resume)
    assert victim.read_text() == "precious"


def test_a_file_takes_the_place_of_a_link(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    for name in ("report.html", ".report.html.partial"):
        (tmp_path / name).symlink_to(victim)
    write_atomic(tmp_path / "report.html", "page")
    assert victim.read_text() == "precious"
    assert (tmp_path / "report.html").read_text() == "page" and not (tmp_path / "report.html").is_symlink()
    assert not (tmp_path / ".report.html.partial").is_symlink()


@pytest.mark.parametrize("name", ["metrics.jsonl", "config.yaml", "checkpoints/step-00000002/state.json"])
def test_nobody_waits_for_a_pipe_in_a_run_folder(tmp_path: Path, name: str) -> None:
    run = tmp_path / "run"
    RunLog(run, {"model": "m"}, resume=False).close()
    (run / name).parent.mkdir(parents=True, exist_ok=True)
    (run / name).unlink(missing_ok=True)
    os.mkfifo(run / name)
    with pytest.raises(InputError, match="neither a file nor a folder"):
        is_finished_run(run, {"model": "m"}, resume=True)
    assert kept_date(run / "config.yaml") is None


def test_an_evaluation_is_not_written_into_a_linked_folder(tmp_path: Path) -> None:
    (tmp_path / "victim").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run/evaluations").symlink_to(tmp_path / "victim")
    data = write_rows(tmp_path / "tasks.jsonl", [{"prompt": "a", "answer": "1"}])
    command = ["eval", "tiny-random", "--data", str(data), "--reward", "math", "--out", str(tmp_path / "run")]
    assert main([*command, "--name", "x", "--samples", "0", "--max-new-tokens", "1"]) == 2
    assert not list((tmp_path / "victim").iterdir())


def test_a_torn_line_of_any_bytes_is_cut(tmp_path: Path) -> None:
    with RunLog(tmp_path / "run", {"model": "m"}, resume=False) as log:
        log.event("a")
    file = tmp_path / "run/events.jsonl"
    file.write_bytes(file.read_bytes() + b'{"b": "\xff')
    with RunLog(tmp_path / "run", {"model": "m"}, resume=True) as log:
        log.event("c")
    assert [row["event"] for row in read_jsonl(file)] == ["a", "c"]


@pytest.mark.parametrize("line", ['{"step": 1}', '{"step": "1", "tokens": 1, "flops": 1, "step_seconds": 1}', "{}"])
def test_metrics_that_lack_what_a_step_cost_are_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "metrics.jsonl").write_text(
        '{"step": 1, "tokens": 2, "flops": 3.0, "step_seconds": 0.1}\n' + line + "\n"
    )
    with pytest.raises(InputError, match=r"metrics\.jsonl:2: damaged, it is no line of this run"):
        read_metrics(tmp_path)


def test_answers_that_a_resume_cannot_read_are_named(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "tasks.jsonl", [{"prompt": "a", "answer": "1"}])
    run = tmp_path / "run"
    command = ["sample", "--model", "tiny-random", "--data", str(data), "--out", str(run), "--write", "all"]
    command += ["--samples", "2", "--max-new-tokens", "2"]
    assert main(command) == 1  # all answers are cut
    lines = (run / "rollouts.jsonl").read_text().splitlines(keepends=True)
    for text, said in (("".join(lines[:1]), "it holds 1 of the 2 answers"), ('{"step": 1}\n', "no line of this run")):
        (run / "rollouts.jsonl").write_text(text)
        with pytest.raises(InputError, match=said):
            sample_answers(parse_options(SampleConfig, [*command[1:], "--resume"], "sample", {}, ""))


def test_a_stored_reference_of_other_data_is_told(tmp_path: Path) -> None:
    example = Example("a", (1, 2), ((3, 4), (5,)), (True, False), "a")
    stored = {"a/0": torch.zeros(2), "a/1": torch.zeros(1)}
    policy: Any = None  # none is asked
    found = StoredReference(policy, stored, tmp_path, 0.0).logprobs([example])
    assert [values.tolist() for values in found] == [[0.0, 0.0], [0.0]]
    for other in ({"a/0": torch.zeros(2)}, stored | {"a/1": torch.zeros(2)}):
        with pytest.raises(RunFailed, match="remove it, and --resume computes it again"):
            StoredReference(policy, other, tmp_path, 0.0).logprobs([example])


@pytest.mark.parametrize(
    "segment",
    [
        {"token_ids": (1, 10**9)},
        {"token_ids": (1, -1)},
        {"sampler_logprobs": (0.0, float("nan"))},
        {"sampler_logprobs": (0.0, 0.5)},
        {"sampled": (False, False)},
    ],
)
def test_tokens_that_are_no_rollout_are_not_trained_on(segment: dict[str, Any]) -> None:
    whole = Segment(token_ids=(1, 2), sampled=(False, True), sampler_logprobs=(0.0, -0.5), versions=(0, 0))
    rollout = Rollout("a", 0, Sampling(2), 0, (), (whole,), "ok", None)
    assert trainable(rollout, 259)
    assert not trainable(replace(rollout, segments=(replace(whole, **segment),)), 259)
    assert not trainable(replace(rollout, segments=()), 259)
    for wrong in ({"token_ids": (1, "a")}, {"token_ids": (1, 2.5)}, {"sampler_logprobs": (0.0, None)}):
        with pytest.raises(TypeError, match="cannot be"):
            replace(whole, **wrong)
