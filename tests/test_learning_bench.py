"""The pieces of `benchmarks/learning.py` on the tiny model: posttrain's side against the plain loop, runs that go on,
and the arithmetic of the comparison. TRL's side needs its own environment and is not run here."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from posttrain.data.formats import load_tasks
from posttrain.models.load import model_folder
from posttrain.train.data_order import step_rows
from tests.training_helpers import benchmark_module, sft_rows, write_rows

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The benchmark's modules by name; they import each other."""
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.syspath_prepend(str(FOLDER / "sides"))
    return benchmark_module


def test_sft_is_that_of_a_plain_loop(bench: Any, tmp_path: Path) -> None:
    settings = replace(bench("learning_settings").SFT, steps=5, batch=4, warmup=2, learning_rate=1e-3)
    rows = sft_rows(7)
    data = write_rows(tmp_path / "rows.jsonl", rows)
    order = [i for n in range(1, 6) for i in step_rows(7, 0, n, 4, None)]
    ordered = write_rows(tmp_path / "ordered.jsonl", [rows[i] for i in order])
    request = {
        "method": "sft",
        "settings": settings.to_dict(),
        "model": model_folder("tiny-random"),
        "data": str(data),
        "ordered": str(ordered),
        "out": str(tmp_path / "run"),
    }
    ours, plain = (bench(f"sides/{name}").run(request) for name in ("learning_ours", "learning_plain"))
    assert len(ours["loss"]) == 5 and ours["loss"][-1] < ours["loss"][0]
    assert ours["loss"] == pytest.approx(plain["loss"], abs=1e-4)
    assert ours["grad_norm"] == pytest.approx(plain["grad_norm"], rel=1e-3)


def test_a_finished_run_is_read_and_not_repeated(bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learning = bench("learning")
    (tmp_path / "result.json").write_text(json.dumps({"loss": [1.0]}))
    monkeypatch.setattr(learning.subprocess, "run", lambda *args, **kwargs: pytest.fail("it was run again"))
    assert learning.run_side("TRL", "sft", learning.SFT, tmp_path) == {"loss": [1.0]}


def test_advantages_for_trl_are_those_of_posttrain(bench: Any) -> None:
    given = bench("learning_settings").group_advantages([1, 0, 0, 0, 1, 1, 1, 1], 4)
    assert given == pytest.approx([3**0.5, -(3**-0.5), -(3**-0.5), -(3**-0.5), 0, 0, 0, 0])


def test_the_schedule_is_that_of_posttrain(bench: Any) -> None:
    from posttrain.train.policy import Optimization

    for settings in (bench("learning_settings").SFT, bench("learning_settings").GRPO):
        ours = Optimization(settings.learning_rate, settings.warmup, settings.schedule, settings.steps)
        for step in range(1, settings.steps + 1):
            assert settings.rate(step) == pytest.approx(ours.rate(step), rel=1e-12)


def test_the_interval_says_whether_both_are_alike(bench: Any) -> None:
    tables = bench("learning_tables")

    def results(*apart: float) -> Any:
        def run(accuracy: float, seconds: float) -> dict[str, Any]:
            values = dict.fromkeys(tables.MEASURES, accuracy)
            return values | {"seconds": [seconds], "reward": [0.1, 0.2], "grad_norm": [1.0, 2.0]}

        seeds = {i: {"posttrain": run(0.4 + d / 100, 10), "TRL": run(0.4, 20 + i)} for i, d in enumerate(apart)}
        sft = {side: {"loss": [2.0, 1.0], "seconds": [1.0]} for side in ("posttrain", "TRL")}
        return tables.Results({}, {}, sft, dict.fromkeys(tables.MEASURES, 0.2), seeds)

    alike = results(1.0, -1.0, 2.0, -2.0, 0.0)
    mean, low, high = tables.summary(alike)["accuracy"]
    # s² = (1 + 1 + 4 + 4)/4; 2.132 is t's 95% quantile with 4 degrees of freedom
    assert (mean, high, -low) == pytest.approx((0, 2.132 * 2.5**0.5 / 5**0.5, 2.132 * 2.5**0.5 / 5**0.5))
    assert tables.summary(alike)["alike"] and not tables.summary(results(4.0, 6.0, 5.0))["alike"]
    assert not tables.summary(results(0.0, 9.0, -9.0))["alike"]
    assert "NOT" not in tables.table(alike) and "NOT" in tables.table(results(4.0, 6.0, 5.0))
    pictures = tables.drawn(alike)
    assert set(pictures) == {"learning-sft", "learning-grpo"}
    assert pictures["learning-grpo"].count("<polyline") == 2 * 5 + 2 + 2  # seeds, means, legend


def test_tasks_of_the_benchmark_are_read_as_ours(bench: Any, tmp_path: Path) -> None:
    learning = bench("learning")
    learning.write_sums(tmp_path)
    tasks, held_out = (load_tasks(str(tmp_path / f"{name}.jsonl")) for name in ("tasks", "held-out"))
    assert not {t.prompt for t in tasks} & {t.prompt for t in held_out}
    assert all(learning.reasoning_gym(t.columns["answer"], t.columns["entry"]) == 1 for t in tasks[:50])
