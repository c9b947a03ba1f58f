"""The golden set's comparison: it finds a changed number, and no changed clock or place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.training_helpers import benchmark_module, write_rows

golden = benchmark_module("golden")


def made(folder: Path, seconds: float, **changed: Any) -> Path:
    """A folder as `make` leaves it, of one run."""
    (folder / "grpo").mkdir(parents=True)
    (folder / "printed").mkdir()
    paths = {"FOLDER": str(folder)}
    (folder / "made.json").write_text(json.dumps({"paths": paths, "failed": [], "seconds": {"grpo": seconds}}))
    (folder / "printed" / "grpo.txt").write_text(f"wrote {folder}/grpo in {seconds} s\n")
    rows: list[dict[str, Any]] = [{"step": n, "kl": 0.5, "step_seconds": seconds * n} for n in (1, 2)]
    write_rows(folder / "grpo" / "metrics.jsonl", [rows[0], rows[1] | changed])
    (folder / "grpo" / "report.html").write_text(
        "<figure>\n<figcaption><b>step_seconds</b></figcaption>\n"
        f"<svg points='{seconds}'/></figure>\n<figure><b>kl</b></figure>"
    )
    (folder / "grpo" / "weights").write_bytes(b"\xff\x00")
    return folder


def test_clock_and_places_are_no_difference(tmp_path: Path) -> None:
    assert list(golden.differing(made(tmp_path / "a", 1.5), made(tmp_path / "b", 2.25))) == []


def test_what_differs_is_named(tmp_path: Path) -> None:
    before, after = made(tmp_path / "a", 1.5), made(tmp_path / "b", 1.5, kl=0.25, loss=1.0)
    (after / "grpo" / "weights").write_bytes(b"\xff\x01")
    (after / "grpo" / "new.txt").touch()
    (before / "printed" / "grpo.txt").write_text("wrote nothing\n")
    differences = list(golden.differing(before, after))
    assert [line.split(":")[0] for line in differences] == [
        "grpo/metrics.jsonl",
        "grpo/new.txt",
        "grpo/weights",
        "printed/grpo.txt",
    ]
    assert "/2/kl: 0.5 → 0.25" in differences[0] and "/2/loss: nothing → 1.0" in differences[0]
    assert "only in" in differences[1]
    assert differences[3].splitlines()[1:] == ["    -wrote nothing", "    +wrote FOLDER/grpo in …"]


def test_entries_of_one_folder_alone_are_left_out(tmp_path: Path) -> None:
    before, after = made(tmp_path / "a", 1.5), made(tmp_path / "b", 1.5, kl=0.25)
    file = after / "made.json"
    file.write_text(file.read_text().replace('"seconds": {"grpo"', '"seconds": {"ppo"'))
    assert list(golden.differing(before, after)) == ["no entry was made in both folders"]


def test_a_run_brings_what_it_starts_from() -> None:
    entries = golden.entries_of(Path())
    assert golden.with_needs(entries, ["compare", "composed"]) == ["grpo", "sft", "compare", "reward-model", "composed"]
