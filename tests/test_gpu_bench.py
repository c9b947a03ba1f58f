"""`benchmarks/gpu.py` on a CPU with tiny models: every part of ours runs, a side that fails leaves the rest, the table
compares what it should. What needs a card says so; TRL's sides run where TRL is installed."""

from __future__ import annotations

import importlib.util
import json
import os
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.attention import varlen

from tests.training_helpers import benchmark_module

FOLDER = Path(__file__).parents[1] / "benchmarks"
OURS = "probes,correct,sft-0.5b,dpo,lora,grpo-1.5b,decode-0.5b,forest,memory,profile"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(FOLDER))
    module = benchmark_module("gpu")
    monkeypatch.setattr(module, "prepare", lambda: None)  # it sets the process's environment
    return module


@pytest.fixture
def on_gpu(gpu: Any) -> Any:
    return lambda name: importlib.import_module(f"on_gpu.{name}")


def test_every_part_runs_on_a_cpu(gpu: Any, on_gpu: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # transformers' continuous batching waits for seconds when it ends
    kept = [p for p in on_gpu("plan").PARTS if p.name.startswith(tuple(OURS.split(",")))]
    sides = [tuple(s for s in p.sides if not s.function.startswith("with_transformers")) for p in kept]
    monkeypatch.setattr(
        gpu, "PARTS", [p.__class__(**{**vars(p), "sides": s}) for p, s in zip(kept, sides, strict=True)]
    )
    for torch_setting in ("float32", "bfloat16"):
        out = tmp_path / torch_setting
        only = [] if torch_setting == "float32" else ["--only", "correct"]
        tiny = ["--device", "cpu", "--shape", "tiny", "--here"]
        assert gpu.main([*tiny, "--dtype", torch_setting, "--out", str(out), *only]) == 0
        parts = json.loads((out / "gpu.json").read_text())["parts"]
        ended = {(part, side): end for part, found in parts.items() for side, end in found.items()}
        trl = importlib.util.find_spec("trl") is not None
        for (part, side), end in ended.items():
            expected = "not installed" if side.startswith("TRL") and not trl else "ok"
            if part == "probes":
                expected = "needs CUDA"
                assert "the step itself ran" in end["error"]
            assert end["status"] == expected, (part, side, end["error"])
            assert not any("failed" in name for name in end["figures"]), end["figures"]
        check_correct(ended["correct", "posttrain"]["figures"], torch_setting)
    whole = json.loads((tmp_path / "float32" / "gpu.json").read_text())["parts"]
    check_figures(whole)
    assert "Optimizer.step" in (tmp_path / "float32" / "profile.txt").read_text()


def check_correct(found: dict[str, float], dtype: str) -> None:
    assert found["float32, 0.5B: largest difference of a log-probability"] == 0  # a CPU beside itself
    assert found["float32, 0.5B: worst gradient, relative"] == 0
    assert found["sampler: tokens"] == 6 * 10
    if dtype == "float32":
        assert found["rounding: RMS ÷ its"] == 0
        assert found["sampler: max |d|"] < 1e-4
    else:
        assert 0 < found["rounding: RMS ÷ its"] < 1
        assert 0 < found["rounding: p95 |d|"] < 0.1
        assert 0.998 < found["rounding: gradient cosine"] < 1 + 1e-6


def check_figures(parts: dict[str, Any]) -> None:
    probes = parts["probes"]["posttrain"]["figures"]
    assert probes["varlen: fewer key heads: right"] is True
    assert probes["varlen: as many key heads: right"] is True
    assert probes["deterministic: deterministic: same bits"] is True
    assert probes["graph: same tokens"] is True
    forest, packed, padded = (side["figures"]["TFLOP a step"] for side in parts["forest-0.5b"].values())
    assert forest < packed == padded  # the prompts are computed once
    grpo = parts["grpo-1.5b"]["posttrain"]["figures"]
    assert grpo["last"]["response_length"] <= 6
    assert len(grpo["sampling and scoring"]) == 1
    assert parts["dpo-1.5b"]["posttrain"]["figures"]["losses"][0] == pytest.approx(0.6931, abs=1e-4)


def test_the_probe_calls_the_kernel_by_its_signature(on_gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the plain form behind the signature of torch 2.11, which has no `enable_gqa`; in the place of a card's."""
    probes, setting = on_gpu("probes"), on_gpu("setting")

    def varlen_attn(
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        cu_seq_q: torch.Tensor,
        cu_seq_k: torch.Tensor,
        max_q: int,
        max_k: int,
        *,
        return_aux: Any = None,
        scale: float | None = None,
        window_size: tuple[int, int] = (-1, -1),
    ) -> torch.Tensor:
        queries, keys = (starts.diff().tolist() for starts in (cu_seq_q, cu_seq_k))
        assert (cu_seq_q.dtype, cu_seq_k.dtype) == (torch.int32, torch.int32)
        assert (max_q, max_k, window_size) == (max(queries), max(keys), (-1, 0))
        assert scale == query.shape[-1] ** -0.5
        assert cu_seq_q[-1] == len(query) and cu_seq_k[-1] == len(key) == len(value)
        return probes.plain_attention(query, key, value, queries, keys)

    monkeypatch.setattr(varlen, "varlen_attn", varlen_attn)
    monkeypatch.setattr(setting.Setting, "cuda", True)
    found: dict[str, Any] = {}
    here = setting.Setting(torch.device("cpu"), torch.float32, True, Path(), Path())
    probes.varlen(here, found.update)
    assert found["fewer key heads: right"] is True and found["as many key heads: right"] is True


def test_a_side_that_fails_leaves_the_rest(on_gpu: Any, tmp_path: Path) -> None:
    parts = on_gpu("parts")

    def raises(record: Any) -> None:
        record({"before": 1})
        raise RuntimeError("CUDA out of memory: no room")

    def hangs(record: Any) -> None:
        time.sleep(600)

    def ends(record: Any) -> None:
        os._exit(3)

    def speaks(record: Any) -> None:
        os.write(1, b"heard")

    failed = parts.run_apart(raises, 60, tmp_path / "log")
    assert (failed.status, failed.figures) == ("out of memory", {"before": 1})
    assert "no room" in failed.error
    slow = parts.run_apart(hangs, 0.5, tmp_path / "log")
    assert (slow.status, slow.error) == ("too slow", "stopped after 0 s")
    gone = parts.run_apart(ends, 60, tmp_path / "log")
    assert (gone.status, gone.error) == ("failed", "the process ended with exit code 3")
    assert parts.run_apart(speaks, 60, tmp_path / "log").status == "ok"
    assert (tmp_path / "log").read_text() == "heard"


def test_several_runs_keep_what_they_found(on_gpu: Any) -> None:
    parts = on_gpu("parts")
    found: dict[str, Any] = {}

    def breaks(record: Any) -> None:
        raise ValueError("odd")

    def wants_a_card(record: Any) -> None:
        raise parts.NeedsCuda("flash")

    with pytest.raises(parts.NeedsCuda, match="b: flash"):
        parts.several(found.update, ("a", breaks), ("b", wants_a_card), ("c", lambda record: record({"x": 2})))
    assert found["c: x"] == 2
    assert "odd" in found["a: failed"]


def test_the_table_compares_with_the_first_side(on_gpu: Any) -> None:
    def side(rate: float, gb: float, **more: Any) -> dict[str, Any]:
        return {"status": "ok", "seconds": 1.0, "error": "", "figures": {"tokens/s": rate, "GB": gb, **more}}

    results = {
        "sft-0.5b": {
            "posttrain": side(100_000, 20, MFU=0.3),
            "TRL, padded": side(50_000, 40),
            "TRL, packed": {"status": "too slow", "seconds": 35.0, "error": "stopped after 35 s", "figures": {}},
        },
        "sft-float32": {"TRL, padded, float32": side(25_000, 50)},
    }
    text = on_gpu("report").report(on_gpu("plan").PARTS, results, {"device": "card"})
    rows = {(cells[1], cells[2]): cells for cells in ([c.strip() for c in row.split("|")] for row in text.splitlines()
                                                      if row.startswith("|"))}  # fmt: skip
    assert rows["sft-0.5b", "TRL, padded"][9:12] == ["2.00", "≥ 1.5", "0.50"]
    assert rows["sft-0.5b", "TRL, padded"][5] == "0.15"  # the same work counts, at half the speed
    assert rows["sft-float32", "TRL, padded, float32"][9] == "4.00"
    assert ("sft-0.5b", "TRL, packed (too slow: stopped after 35 s)") in rows


def test_parts_are_chosen_by_how_their_names_begin(gpu: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert [part.name for part in gpu.chosen("b", "decode,forest")] == [
        "decode-0.5b",
        "forest-0.5b",
        "decode-1.5b",
        "decode-7b",
    ]
    with pytest.raises(SystemExit, match="no part begins so"):
        gpu.chosen("a", "sftt")
    assert gpu.main(["--list"]) == 0
    assert "lora-7b" in capsys.readouterr().out


def test_wheels_come_first(gpu: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(gpu.sys, "path", list(gpu.sys.path))
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    with zipfile.ZipFile(tmp_path / "thing-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("thing_of_a_wheel.py", "VALUE = 7\n")
    gpu.unpack(tmp_path, tmp_path / "site")
    assert importlib.import_module("thing_of_a_wheel").VALUE == 7
    assert os.environ["PYTHONPATH"] == f"{tmp_path / 'site'}{os.pathsep}/elsewhere"
    with pytest.raises(SystemExit, match="make gpu-wheels"):
        gpu.unpack(tmp_path / "site", tmp_path / "other")
