"""Comparison of run folders: numbers by hand, every refusal, the words around them."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from posttrain.cli.main import _compare as compare_runs
from posttrain.config import CompareConfig
from posttrain.evals.compare import compare
from posttrain.evals.runs import name_runs
from posttrain.report.terminal import format_tables
from posttrain.report.words import format_difference, summary, verdict
from posttrain.runs.comparison import Comparison, Contrast, read_comparison, root_of, sections
from posttrain.runs.reader import Run
from posttrain.types import InputError
from posttrain.wording import format_quantity


def write_run(
    folder: Path,
    held_out: Mapping[str, Sequence[float | None]] | None = None,
    retention: Mapping[str, Sequence[float]] | None = None,
    cost: tuple[float, int, float] | None = None,
    lineage: dict[str, Any] | None = None,
    weights_hash: str = "",
) -> Path:
    """A run folder; each evaluation is a list of values, one a task."""
    suites = folder / "evaluations"
    suites.mkdir(parents=True)
    for suite, evaluations in (("held_out", held_out), ("retention", retention)):
        if evaluations:
            n = max(map(len, evaluations.values()))
            rows = [
                {"task": f"t{i}", "values": {k: v[i] for k, v in evaluations.items()}, "samples": []} for i in range(n)
            ]
            (suites / f"{suite}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            (suites / f"{suite}.json").write_text(json.dumps({"suite": suite, "weights_hash": weights_hash}))
    if cost:
        (folder / "cost.json").write_text(json.dumps(dict(zip(("seconds", "tokens", "flops"), cost, strict=True))))
    if lineage:
        (folder / "lineage.json").write_text(json.dumps(lineage))
    return folder


def find(comparison: Comparison, of: str, against: str, evaluation: str) -> Contrast:
    (found,) = [
        c for c in comparison["contrasts"] if (c["of"], c["against"], c["evaluation"]) == (of, against, evaluation)
    ]
    return found


@pytest.fixture
def pipeline(tmp_path: Path) -> tuple[Path, Comparison]:
    """start -> sft -> (dpo, rl): sft gains half a point a task, rl nothing, dpo loses; sft forgets."""
    zeros, halves, ones = [0.0] * 20, [0.5] * 20, [1.0] * 20
    mixed = [0.25, 0.75] * 10
    runs = {
        "start": write_run(
            tmp_path / "start", {"accuracy": zeros, "greedy": zeros}, {"knowledge": ones, "text_nll": [2.0] * 20}
        ),
        "sft": write_run(
            tmp_path / "sft",
            {"accuracy": halves, "greedy": ones},
            {"knowledge": zeros, "text_nll": [3.0] * 20},
            (60.0, 1000, 1e12),
        ),
        "dpo": write_run(tmp_path / "dpo", {"accuracy": zeros, "greedy": [1.0, 0.0] * 10}, None, (5.0, 10, 1e9)),
        "rl": write_run(tmp_path / "rl", {"accuracy": mixed, "greedy": [None] * 20}, None, (7.0, 30, 2e9)),
    }
    pairs = write_run(tmp_path / "pairs", cost=(2.0, 5, 1e9))
    parents = {"start": None, "sft": "start", "dpo": "sft", "rl": "sft"}
    return tmp_path, compare(runs, parents, tmp_path, costs={"dpo": [pairs]})


def test_the_file_is_what_compare_returned(pipeline: tuple[Path, Comparison]) -> None:
    folder, comparison = pipeline
    assert json.loads((folder / "compare.json").read_text()) == comparison
    assert set(comparison) == {"stages", "contrasts", "leads"}
    assert set(comparison["stages"]["sft"]) == {"parent", "seconds", "tokens", "flops", "evaluations"}
    assert sorted(p.name for p in folder.iterdir() if p.is_file()) == ["compare.json"]  # and no scratch file


def test_values_and_intervals(pipeline: tuple[Path, Comparison]) -> None:
    """Greedy of dpo is 10 of 20: Wilson's interval 0.2993…0.7007. Accuracy ½ everywhere has no spread."""
    stages = pipeline[1]["stages"]
    greedy = stages["dpo"]["evaluations"]["greedy"]
    assert (greedy["value"], greedy["n"]) == (0.5, 20)
    assert greedy["low"] == pytest.approx(0.2993, abs=1e-4) and greedy["high"] == pytest.approx(0.7007, abs=1e-4)
    assert stages["sft"]["evaluations"]["accuracy"] == {"value": 0.5, "low": 0.5, "high": 0.5, "n": 20}
    low = stages["start"]["evaluations"]["accuracy"]["high"]
    assert low == pytest.approx(0.1611, abs=1e-4)  # Wilson for 0 of 20: z²/(n + z²) = 3.8415/23.8415
    mixed = stages["rl"]["evaluations"]["accuracy"]
    assert mixed["value"] == 0.5 and mixed["low"] is not None and 0.36 < mixed["low"] < 0.44


def test_nothing_scored_is_null(pipeline: tuple[Path, Comparison]) -> None:
    _, comparison = pipeline
    assert comparison["stages"]["rl"]["evaluations"]["greedy"] == {"value": None, "low": None, "high": None, "n": 0}
    assert not [c for c in comparison["contrasts"] if c["of"] == "rl" and c["evaluation"] == "greedy"]


def test_perplexity_is_exp_of_the_mean_nll(pipeline: tuple[Path, Comparison]) -> None:
    _, comparison = pipeline
    evaluations = comparison["stages"]["sft"]["evaluations"]
    assert "retention/text_nll" not in evaluations
    assert evaluations["retention/perplexity"]["value"] == pytest.approx(math.e**3)
    assert find(comparison, "sft", "start", "retention/perplexity")["value"] == pytest.approx(math.e**3 - math.e**2)


def test_costs_include_the_stage_that_made_the_data(pipeline: tuple[Path, Comparison]) -> None:
    stages = pipeline[1]["stages"]
    assert [stages["start"][k] for k in ("seconds", "tokens", "flops")] == [0, 0, 0]
    assert [stages["dpo"][k] for k in ("seconds", "tokens", "flops")] == [7.0, 15, 2e9]


def test_contrasts_are_of_parents_starts_and_siblings(pipeline: tuple[Path, Comparison]) -> None:
    _, comparison = pipeline
    pairs = [(c["of"], c["against"]) for c in comparison["contrasts"] if c["evaluation"] == "accuracy"]
    assert pairs == [("sft", "start"), ("dpo", "sft"), ("rl", "sft"), ("dpo", "start"), ("rl", "start"), ("rl", "dpo")]
    assert find(comparison, "dpo", "sft", "accuracy")["value"] == -0.5


def test_only_tasks_that_both_scored_count(tmp_path: Path) -> None:
    """a and b share the tasks 1 and 2: differences 1 and 0. Task 0 and 3, which one of them lacks, are left out."""
    runs = {
        "b": write_run(tmp_path / "b", {"accuracy": [None, 0.0, 1.0, 0.5]}),
        "a": write_run(tmp_path / "a", {"accuracy": [1.0, 1.0, 1.0, None]}),
    }
    contrast = find(compare(runs, {"a": None, "b": None}, tmp_path), "a", "b", "accuracy")
    assert (contrast["value"], contrast["n"]) == (0.5, 2)


def test_one_shared_task_is_too_few(tmp_path: Path) -> None:
    runs = {n: write_run(tmp_path / n, {"accuracy": [0.5]}) for n in "ab"}
    found = compare(runs, {"a": None, "b": "a"}, tmp_path)
    (contrast,) = found["contrasts"]
    assert (contrast["value"], contrast["low"], contrast["high"], contrast["n"]) == (0.0, None, None, 1)
    assert "b: accuracy +0.0 points against a, too few tasks (1) to tell" in summary(found)


def test_suites_but_the_main_one_are_prefixes(pipeline: tuple[Path, Comparison]) -> None:
    names = list(pipeline[1]["stages"]["start"]["evaluations"])
    assert names == ["accuracy", "greedy", "retention/knowledge", "retention/perplexity"]


def test_a_broken_evaluation_names_the_file(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {"accuracy": [1.0]})
    (run / "evaluations" / "held_out.jsonl").write_text('{"tsk": 1}\n')
    with pytest.raises(InputError, match=r"held_out\.jsonl.*task"):
        _ = Run(run).evaluations


# -- words ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("evaluations/held_out.jsonl", '{"task": "a", "values": {"greedy": "1"}, "samples": []}\n'),
        ("evaluations/held_out.jsonl", '{"task": "a", "values": {"greedy": 1e400}, "samples": []}\n'),
        ("evaluations/held_out.jsonl", '{"task": "a", "values": {"greedy": 1}, "samples": 3}\n'),
        ("evaluations/held_out.json", '{"settings": [1]}'),
        ("evaluations/held_out.json", '{"weights_hash": 3}'),
        ("lineage.json", '{"parents": 3}'),
        ("cost.json", '{"seconds": 1}'),
    ],
)
def test_a_damaged_file_of_a_run_is_named(tmp_path: Path, name: str, content: str) -> None:
    for run in ("a", "b"):
        (tmp_path / run / "evaluations").mkdir(parents=True)
    (tmp_path / "a" / name).write_text(content)
    with pytest.raises(InputError, match=f"{name}.*: damaged, "):
        compare_runs(CompareConfig(runs=(tmp_path / "a", tmp_path / "b"), out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_summary_says_what_is_shown_and_what_is_not(pipeline: tuple[Path, Comparison]) -> None:
    sentences = summary(pipeline[1])
    assert "sft: accuracy +50.0 points over start [50.0, 50.0]" in sentences
    assert "dpo: accuracy -50.0 points against sft [-50.0, -50.0]" in sentences
    assert any(s.startswith("rl: no difference in accuracy shown against sft (+0.0 points [") for s in sentences)
    assert "sft: retention is worse than that of start: knowledge -100.0 points [-100.0, -100.0]; " in sentences[6]
    assert sentences[-1] == (
        "cost: sft 60 s, 1k tokens, 1T FLOPs; dpo 7 s, 15 tokens, 2G FLOPs; rl 7 s, 30 tokens, 2G FLOPs"
    )


def contrast(low: float, high: float, n: int = 50, evaluation: str = "accuracy") -> Contrast:
    return {"of": "a", "against": "b", "evaluation": evaluation, "value": 0.5, "low": low, "high": high, "n": n}


def test_verdicts() -> None:
    assert verdict(contrast(0.1, 0.2)) == "up"
    assert verdict(contrast(-0.2, -0.1)) == "down"
    assert verdict(contrast(-0.1, 0.1)) == verdict(contrast(0, 0.1)) == verdict(contrast(-0.1, 0)) == "none"
    assert verdict(contrast(0.1, 0.2, n=9)) == "few"


def test_few_tasks_give_no_verdict(tmp_path: Path) -> None:
    runs = {
        "start": write_run(tmp_path / "start", {"accuracy": [0.0] * 3}),
        "a": write_run(tmp_path / "a", {"accuracy": [1.0] * 3}),
    }
    sentences = summary(compare(runs, {"start": None, "a": "start"}, tmp_path))
    assert sentences == ["a: accuracy +100.0 points against start, too few tasks (3) to tell"]


def test_scores_outside_zero_to_one_are_not_per_cent(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {"accuracy": [1.5, 3.0], "greedy": [0.0, 1.0]})
    (part,) = sections(compare({"run": run}, {"run": None}, tmp_path))
    assert part.shares == set()
    assert [part.label(n) for n in part.names] == ["mean reward", "greedy reward"]


def test_tables_hold_every_number(pipeline: tuple[Path, Comparison]) -> None:
    console = Console(width=120, record=True, file=io.StringIO())
    for table in format_tables(pipeline[1]):
        console.print(table)
    text = console.export_text()
    for shown in ("accuracy %", "greedy %", "[29.9, 70.1]", "perplexity", "knowledge %", "20.1", "–", "1T", "from"):
        assert shown in text


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (999, "999"), (1234, "1.23k"), (1.7e14, "170T"), (2e18, "2E"), (999_600, "1M")]
)
def test_quantities(value: float, text: str) -> None:
    assert format_quantity(value) == text


def test_names_and_numbers_survive_a_narrow_terminal(pipeline: tuple[Path, Comparison]) -> None:
    console = Console(width=60, record=True, file=io.StringIO())
    for table in format_tables(pipeline[1]):
        console.print(table)
    text = console.export_text()
    assert "…" not in text and "[29.9, 70.1]" in text


def test_five_evaluations_and_names_of_a_recipe_fit_80_columns(tmp_path: Path) -> None:
    """No cell wraps: a stage takes two lines, its values and its intervals."""
    values = {n: [0.35, 0.45] * 10 for n in ("accuracy", "pass@4")} | {"kl": [6.1, 7.3] * 10, "greedy": [0.0, 1.0] * 10}
    runs = {
        n: write_run(tmp_path / n, {**values, "response_length": [11.1, 11.5] * 10}) for n in ("sft-continued", "b")
    }
    table = format_tables(compare(runs, dict.fromkeys(runs), tmp_path / "out"))[0]
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(table)
    lines = console.export_text().strip().splitlines()
    assert lines[1].split() == ["stage", "accuracy", "%", "greedy", "%", "pass@4", "%", "KL", "tokens"]
    assert lines[2].split() == ["sft-continued", "40.0", "50.0", "40.0", "6.7", "11.3"]
    assert lines[3].count("[") == lines[3].count("]") == 5
    assert lines[-1].strip() == "95% intervals in brackets"
    assert len(lines) == 2 + 2 * 2 + 1


def test_a_circle_of_parents_is_refused() -> None:
    stage: Any = {"seconds": 0, "tokens": 0, "flops": 0, "evaluations": {}}
    with pytest.raises(ValueError, match="descends from itself"):
        root_of({"a": stage | {"parent": "b"}, "b": stage | {"parent": "a"}}, "a")


# -- the command ------------------------------------------------------------------------------------------------------


def run_compare(out: Path, *runs: Path) -> Comparison:
    compare_runs(CompareConfig(runs=runs, out=out))
    comparison: Comparison = json.loads((out / "compare.json").read_text())
    return comparison


def test_compare_runs_finds_parents_by_path_and_by_hash(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start = write_run(tmp_path / "start", {"accuracy": [0.0, 0.5] * 6}, weights_hash="h0")
    sft = write_run(
        tmp_path / "sft",
        {"accuracy": [0.5] * 12},
        lineage={"parents": ["smol"], "parent_weights_hash": "h0", "weights_hash": "h1"},
    )
    rl = write_run(
        tmp_path / "rl", {"accuracy": [0.75] * 12}, lineage={"parents": [str(sft / "model")], "weights_hash": "h2"}
    )
    comparison = run_compare(tmp_path / "out", start, sft, rl)
    assert {n: s["parent"] for n, s in comparison["stages"].items()} == {"start": None, "sft": "start", "rl": "sft"}
    printed = capsys.readouterr().out
    assert "rl: accuracy +25.0 points over sft [25.0, 25.0]" in printed and "report.html" in printed
    assert (tmp_path / "out" / "report.html").read_text().startswith("<!DOCTYPE html>")


def test_a_run_that_changed_nothing_does_not_become_its_siblings_parent(tmp_path: Path) -> None:
    same = {"parents": ["smol"], "parent_weights_hash": "h", "weights_hash": "h"}
    runs = [write_run(tmp_path / n, {"accuracy": [0.0, 1.0]}, lineage=same) for n in "ab"]
    comparison = run_compare(tmp_path / "out", *runs)
    assert [s["parent"] for s in comparison["stages"].values()] == [None, None]
    assert [(c["of"], c["against"]) for c in comparison["contrasts"]] == [("b", "a")]


def test_names(tmp_path: Path) -> None:
    folders = [tmp_path / p for p in ("x/sft", "y/sft", "y/rl", "z/y/rl")]
    assert list(name_runs(folders)) == ["x/sft", "y/sft", str(tmp_path / "y/rl"), str(tmp_path / "z/y/rl")]
    with pytest.raises(InputError, match="given twice"):
        name_runs([tmp_path / "a", tmp_path / "b" / ".." / "a"])


def test_a_run_without_evaluations_is_shown_with_a_hint(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text("seed: 0\n")
    (run / "lineage.json").write_text("{}")
    assert summary(run_compare(tmp_path / "out", run)) == [
        "run: not evaluated; `posttrain eval RUN --data DATA --reward REWARD --out RUN` does it"
    ]


def test_wrong_folders_are_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {"accuracy": [1.0]})
    out = tmp_path / "out"
    with pytest.raises(InputError, match="missing: no such folder"):
        run_compare(out, run, tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty: not a run folder"):
        run_compare(out, tmp_path / "empty")
    whole = tmp_path / "whole"
    write_run(whole / "sft", {"accuracy": [1.0]})
    (whole / "recipe.yaml").write_text("")
    with pytest.raises(InputError, match=r"whole: holds several runs.*whole/sft"):
        run_compare(out, whole)
    with pytest.raises(InputError, match=r"holds a run \(recipe.yaml\)"):
        run_compare(whole, run)
    with pytest.raises(InputError, match=r"holds a run \(evaluations\)"):
        run_compare(run, run)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "report.txt").write_text("mine")
    with pytest.raises(InputError, match="mine: not empty and not a comparison; choose another folder"):
        run_compare(tmp_path / "mine", run)
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["report.txt"]
    assert not (run / "compare.json").exists() and not (run / "report.html").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        run_compare(tmp_path / "file", run)
    assert not out.exists()


def test_an_earlier_comparison_is_replaced(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / n, {"accuracy": [0.0, 1.0]}) for n in "ab"]
    assert list(run_compare(tmp_path / "out", runs[0])["stages"]) == ["a"]
    assert list(run_compare(tmp_path / "out", *runs)["stages"]) == ["a", "b"]


def test_an_unfinished_run_is_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {"accuracy": [1.0, 0.0]})
    (run / "config.yaml").write_text("model: tiny-random\n")
    with pytest.raises(InputError, match=r"run: the run is not finished; continue it with --resume first"):
        compare_runs(CompareConfig(runs=(run,), out=tmp_path / "out"))


def test_what_a_reward_was_worth_by_hand(tmp_path: Path) -> None:
    """rl has 1 on all of 20 tasks, the coin 0.5, majority 1, format 2: +50 points, none, less. Another seed is no
    control of it."""
    values = {
        "rl": [1.0] * 20,
        "coin": [0.5] * 20,
        "majority": [0.0, 2.0] * 10,
        "format": [2.0] * 20,
        "far": [0.0] * 20,
    }
    runs = {name: write_run(tmp_path / name, {"accuracy": of}) for name, of in values.items()}
    for name, folder in runs.items():
        control = f"control: {name}\n" if name in ("coin", "majority", "format") else ""
        control = "control: coin\nseed: 2\n" if name == "far" else control + "seed: 1\n"
        (folder / "config.yaml").write_text(f"model: m\nout: {folder}\nreward: [math]\n{control}")
    found = compare(runs, dict.fromkeys(runs), tmp_path)
    assert [(c["of"], c["against"], c["control"], c["value"]) for c in found["worth"]] == [
        ("rl", "coin", "coin", 0.5),
        ("rl", "majority", "majority", 0.0),
        ("rl", "format", "format", -1.0),
    ]
    told = [sentence for sentence in summary(found) if sentence.startswith("what the reward was worth")]
    begin, same = "what the reward was worth", "the same run paid"
    assert told == [
        f"{begin}: mean reward +0.5 [0.5, 0.5], rl over coin, {same} by chance",
        f"{begin}: no difference in mean reward shown between rl and majority, {same} for the most frequent answer of "
        f"its group ({format_difference(found['worth'][1], False)})",
        f"{begin}: mean reward -1 [-1, -1], rl below format, {same} for the form of an answer alone",
    ]
    assert read_comparison(tmp_path) == found
    few = compare({n: runs[n] for n in ("rl", "coin")}, {"rl": None, "coin": None}, tmp_path)
    few["worth"][0]["n"] = 1
    assert any("too few tasks (1) to tell rl from coin, the same run paid by chance" in s for s in summary(few))
    data = json.loads((tmp_path / "compare.json").read_text())
    data["worth"][0]["against"] = "gone"
    (tmp_path / "compare.json").write_text(json.dumps(data))
    with pytest.raises(InputError, match="a contrast is of 'gone', which is no stage"):
        read_comparison(tmp_path)
