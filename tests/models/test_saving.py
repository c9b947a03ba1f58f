"""What a finished run leaves on disk: no optimizer, weights in the type that was asked for, modes by the umask."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from posttrain.cli.main import main
from posttrain.models import load_model, load_reward_model
from posttrain.models.load import cache_folder, model_folder
from posttrain.models.weights import finest, rounded, save_dtype
from posttrain.runs import log as runlog
from posttrain.types import RunFailed
from tests.training_helpers import events, pair_rows, sft_rows, write_rows


def command(folder: Path, out: str, *more: str, method: str = "sft", model: str = "tiny-random") -> list[str]:
    rows = pair_rows(4) if method in ("dpo", "reward-model") else sft_rows(4)
    data = write_rows(folder / f"{method}.jsonl", rows)
    common = ["--model", model, "--data", str(data), "--out", str(folder / out), "--batch-size", "4"]
    return [method, *common, "--learning-rate", "1e-3", *more]


def train(folder: Path, out: str, *more: str, method: str = "sft", model: str = "tiny-random") -> Path:
    assert main(command(folder, out, *more, method=method, model=model)) == 0
    return folder / out


def dtypes(folder: Path) -> set[torch.dtype]:
    return {w.dtype for file in folder.glob("*.safetensors") for w in load_file(file).values()}


# -- checkpoints ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [0, 2])
def test_a_finished_run_keeps_what_it_was_told(tmp_path: Path, keep: int) -> None:
    more = ("--max-steps", "3", "--save-every", "2", "--keep", str(keep))
    run = train(tmp_path, "run", *more, method="dpo")
    left = [p.name for p in sorted((run / "checkpoints").iterdir())] if (run / "checkpoints").exists() else []
    assert left == ["step-00000002", "step-00000003"][:keep]
    assert (run / "reference").exists() == (keep > 0)
    assert not [p for p in run.rglob("*.pt") if not keep]


def test_one_checkpoint_stays_while_a_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until its model is written and it says that it has finished. Then a kill leaves a checkpoint, which goes when the
    run is asked for again."""
    evaluated = ["--eval-data", str(write_rows(tmp_path / "held-out.jsonl", sft_rows(2))), "--eval-every", "1"]
    args = command(tmp_path, "run", "--max-steps", "4", "--save-every", "2", *evaluated, "--patience", "9")
    run, write_json = tmp_path / "run", runlog.RunLog.write_json

    def killed_before(log: Any, name: str, value: Any) -> None:
        if name == "lineage.json":
            raise KeyboardInterrupt
        write_json(log, name, value)

    with monkeypatch.context() as patched:
        patched.setattr(runlog.RunLog, "write_json", killed_before)
        assert main(args) == 130
    assert [p.name for p in (run / "checkpoints").iterdir()] == ["step-00000004"] and (run / "best").exists()
    made = (run / "model" / "model.safetensors").read_bytes()

    def killed_after(*_: Any, **__: Any) -> None:
        assert (run / "lineage.json").exists()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("posttrain.train.loop.tidy", killed_after)
        assert main([*args, "--resume"]) == 130
    assert (run / "checkpoints").exists() and (run / "best").exists()
    assert main(["sft", "--resume", str(run)]) == 0
    assert not (run / "checkpoints").exists() and not (run / "best").exists()
    assert (run / "model" / "model.safetensors").read_bytes() == made
    assert events(run, "finished")[-1]["optimizer_steps_of_this_process"] == 0


# -- modes ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def umask() -> Iterator[int]:
    mask = 0o027
    before = os.umask(mask)
    yield mask
    os.umask(before)


def test_files_have_the_modes_that_the_umask_says(tmp_path: Path, umask: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTTRAIN_CACHE", str(tmp_path / "cache"))
    assert Path(model_folder("tiny-random")).is_relative_to(cache_folder())
    train(tmp_path, "run", "--max-steps", "1", "--save-every", "1", "--keep", "1", "--lora-rank", "2", method="dpo")
    assert main(["average", str(tmp_path / "run"), "tiny-random", "--out", str(tmp_path / "mean")]) == 0
    written = [p for top in ("cache", "run", "mean") for p in (tmp_path / top, *(tmp_path / top).rglob("*"))]
    written = [p for p in written if p.suffix != ".lock"]  # an empty file of filelock, whose older releases choose 0644
    assert {p.suffix for p in written} >= {".safetensors", ".pt", ".json", ".jsonl", ".yaml", ".html", ".jinja"}
    for path in written:
        assert path.stat().st_mode & 0o777 == (0o777 if path.is_dir() else 0o666) & ~umask, path


# -- types ------------------------------------------------------------------------------------------------------------


def test_weights_are_rounded_to_the_type_asked_for(tmp_path: Path) -> None:
    exact = train(tmp_path, "exact", "--max-steps", "2", "--lora-rank", "2")
    assert dtypes(exact / "model") == dtypes(exact / "adapter") == {torch.float32}
    run = train(tmp_path, "run", "--max-steps", "2", "--lora-rank", "2", "--save-dtype", "bfloat16")
    assert dtypes(run / "model") == dtypes(run / "adapter") == {torch.bfloat16}
    for folder in ("model", "adapter"):
        files = {p.name for p in (run / folder).iterdir()}
        assert files == {p.name for p in (exact / folder).iterdir()}
        (file,) = (run / folder).glob("*.safetensors")
        for name, weight in load_file(exact / folder / file.name).items():
            assert torch.equal(load_file(file)[name], weight.bfloat16()), name
    size = [(r / "model" / "model.safetensors").stat().st_size for r in (run, exact)]
    assert size[0] < 0.51 * size[1]
    assert json.loads((run / "model" / "config.json").read_text())["dtype"] == "bfloat16"
    theirs: Any = AutoModelForCausalLM.from_pretrained(run / "model", dtype="auto")
    assert theirs.dtype == torch.bfloat16 and theirs.get_input_embeddings().weight is theirs.lm_head.weight
    assert load_model(str(run)).module.dtype == torch.float32

    then = train(tmp_path, "then", "--max-steps", "1", "--save-dtype", "auto", model=str(run))
    assert dtypes(then / "model") == {torch.bfloat16}
    assert main(["average", str(exact), str(run), "--out", str(tmp_path / "mean")]) == 0
    assert dtypes(tmp_path / "mean" / "model") == {torch.float32}
    assert json.loads((tmp_path / "mean" / "model" / "config.json").read_text())["dtype"] == "float32"
    half = ["average", str(exact), str(run), "--save-dtype", "float16", "--out", str(tmp_path / "half")]
    assert main(half) == 0
    assert dtypes(tmp_path / "half" / "model") == {torch.float16}
    assert json.loads((tmp_path / "half" / "model" / "config.json").read_text())["dtype"] == "float16"


def test_reward_models_are_rounded_too(tmp_path: Path) -> None:
    run = train(tmp_path, "rm", "--max-steps", "1", "--save-dtype", "bfloat16", "--members", "2", method="reward-model")
    assert dtypes(run / "model") == {torch.bfloat16}
    theirs: Any = AutoModelForSequenceClassification.from_pretrained(run / "model", dtype="auto")
    assert theirs.dtype == torch.bfloat16 and theirs.score.weight.shape[0] == 2
    assert load_reward_model(str(run)).module.dtype == torch.float32


def test_auto_is_the_finest_type_of_the_source(tmp_path: Path) -> None:
    assert save_dtype("auto", Path(model_folder("tiny-random"))) == torch.float32
    assert save_dtype("float16", tmp_path) == torch.float16
    assert finest([torch.bfloat16, torch.float16]) == torch.float32
    assert finest([]) == torch.float32


def test_what_float16_cannot_hold_is_told(tmp_path: Path) -> None:
    weight = torch.tensor([1.0, -70000.0])
    with pytest.raises(RunFailed, match=r"7e\+04 is beyond the range of torch.float16; continue with --resume"):
        rounded(weight, torch.float16)
    assert rounded(weight, torch.bfloat16).dtype == torch.bfloat16
    assert rounded(torch.zeros(0), torch.float16).dtype == torch.float16
