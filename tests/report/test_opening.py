"""The first lines of a report: what may be said of the best stage in each situation, and of a single run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from posttrain.evals.compare import compare
from posttrain.report.html import write_report
from posttrain.report.opening import Opening, comparison_opening, format_flop
from posttrain.report.run_view import RunView, run_opening
from posttrain.report.words import winner
from posttrain.runs.comparison import Comparison, sections
from posttrain.runs.reader import Run
from posttrain.stats import paired_bootstrap
from posttrain.types import InputError

Scores = Sequence[float | None]
N = 40
CHAIN = {"start": None, "sft": "start", "dpo": "sft", "grpo": "sft"}


def ones(n: int, of: int = N) -> list[float]:
    return [float(i < n) for i in range(of)]


def evaluation(folder: Path, suite: str, values: Mapping[str, Scores], settings: dict[str, Any] | None = None) -> None:
    suites = folder / "evaluations"
    suites.mkdir(parents=True, exist_ok=True)
    n = max(map(len, values.values()))
    rows = [{"task": f"t{i}", "values": {k: v[i] for k, v in values.items()}, "samples": []} for i in range(n)]
    (suites / f"{suite}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (suites / f"{suite}.json").write_text(json.dumps({"suite": suite, "settings": settings or {}}))


def compared(
    out: Path,
    accuracy: Mapping[str, Scores | None],
    parents: Mapping[str, str | None] = CHAIN,
    retention: Mapping[str, Mapping[str, Scores]] | None = None,
    settings: Mapping[str, dict[str, Any]] | None = None,
) -> Comparison:
    runs = {}
    for name, scores in accuracy.items():
        runs[name] = out / name
        runs[name].mkdir(parents=True)
        if scores is not None:
            evaluation(runs[name], "held_out", {"accuracy": scores}, (settings or {}).get(name))
        if retention:
            evaluation(runs[name], "retention", retention[name])
        if parents.get(name) is not None:
            (runs[name] / "cost.json").write_text('{"seconds": 100.0, "tokens": 2000, "flops": 3e12}')
    return compare(runs, {name: parents.get(name) for name in runs}, out, loose=True)


def opened(out: Path, accuracy: Mapping[str, Scores | None], **rest: Any) -> Opening:
    return comparison_opening(compared(out, accuracy, **rest))


def best(comparison: Comparison) -> str | None:
    return winner(sections(comparison)[0])


def test_a_clear_winner_is_called_best(tmp_path: Path) -> None:
    found = compared(tmp_path, {"start": ones(2), "sft": ones(12), "dpo": ones(20), "grpo": ones(38)})
    opening = comparison_opening(found)
    assert best(found) == "grpo"
    assert opening.sentence.startswith("grpo is best: accuracy 95.0%, +90.0 points over start [")
    assert "], and ahead of every other stage (next: dpo, by 45.0 points [" in opening.sentence
    score, gain, cost = opening.numbers
    assert (score.label, score.value) == ("Best: grpo", "95.0%")
    assert (gain.label, gain.value) == ("Gain over start", "+90.0 points") and gain.note.endswith("from 5.0%")
    # what grpo stands on was paid for too: sft and grpo, 100 s each
    assert (cost.label, cost.value, cost.note) == ("Cost of sft + grpo", "200 s", "6 TFLOP, 4k tokens")
    assert "all 3 differences" in opening.note


def test_a_lead_within_the_noise_may_be_chance(tmp_path: Path) -> None:
    found = compared(tmp_path, {"start": ones(2), "sft": ones(12), "dpo": [0.0, *ones(27)[1:]], "grpo": ones(28)})
    sentence = comparison_opening(found).sentence
    assert best(found) is None
    assert sentence.startswith("grpo scored highest, accuracy 70.0%, +65.0 points over start [")
    assert "; its lead over dpo, 5.0 points [" in sentence and sentence.endswith("], may be chance.")
    assert comparison_opening(found).numbers[0].label == "Highest: grpo"
    write_report(tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "★" not in page and "No winner is marked" in page


def test_all_that_the_highest_is_not_separated_from_are_counted(tmp_path: Path) -> None:
    three = opened(tmp_path / "a", {"start": ones(2), "sft": ones(27), "dpo": ones(28), "grpo": ones(29)}).sentence
    assert "; its lead over dpo, 2.5 points [" in three and three.endswith("], and over sft may be chance.")
    equal = {"start": ones(2), "sft": ones(20), "dpo": ones(20), "grpo": ones(20)}
    assert "over dpo, 0.0 points [0.0, 0.0], and over grpo may be chance" in opened(tmp_path / "b", equal).sentence
    four = {**equal, "rl": ones(20)}
    parents = CHAIN | {"rl": "sft"}
    assert "[0.0, 0.0], and over 2 other stages may be chance" in opened(tmp_path / "c", four, parents=parents).sentence


def test_intervals_are_widened_for_choosing_the_highest(tmp_path: Path) -> None:
    """Three differences to the highest: each covers 1 - 5%/3, so it spans the 0.83rd to the 99.17th percentile."""
    a, b = ones(28), [0.0] * 4 + ones(16, 36)
    found = compared(tmp_path, {"start": ones(2), "sft": ones(12), "dpo": b, "grpo": a})
    wide = paired_bootstrap(a, b, 0, comparisons=3)
    narrow = paired_bootstrap(a, b, 0)
    lead = next(c for c in found["leads"]["held_out"]["others"] if c["against"] == "dpo")
    plain = next(c for c in found["contrasts"] if (c["of"], c["against"]) == ("grpo", "dpo"))
    assert (lead["low"], lead["high"]) == (wide["low"], wide["high"])
    assert (plain["low"], plain["high"]) == (narrow["low"], narrow["high"])
    assert wide["low"] < narrow["low"] and wide["high"] > narrow["high"]


def test_no_gain_and_worse_than_the_start(tmp_path: Path) -> None:
    none = opened(tmp_path / "a", {"start": ones(20), "sft": [0.0, *ones(22)[1:]]}).sentence
    assert none.startswith("No gain over start is shown: sft scored highest, accuracy 52.5%, but its +2.5 points over")
    assert none.endswith("] may be chance.")
    worse = compared(tmp_path / "b", {"start": ones(38), "sft": ones(10), "dpo": ones(12)})
    opening = comparison_opening(worse)
    assert opening.sentence.startswith("Training did not raise accuracy: the highest trained stage, dpo with accuracy")
    assert "is at -65.0 points against start [" in opening.sentence and "chance" not in opening.sentence
    assert opening.numbers[0].label == "Highest trained: dpo"
    assert best(worse) == "start"  # which is what its page must say


def test_one_arm_is_compared_with_its_start_alone(tmp_path: Path) -> None:
    opening = opened(tmp_path, {"start": ones(4), "sft": ones(30)})
    assert opening.sentence.startswith("sft is better than start: accuracy 75.0%, +65.0 points over start [")
    assert "Bonferroni" not in opening.note  # nothing was chosen


def test_one_run_alone_and_runs_without_a_start(tmp_path: Path) -> None:
    alone = opened(tmp_path / "a", {"sft": ones(30)}, parents={})
    assert alone.sentence.startswith("sft with accuracy 75.0% [") and "nothing to compare it with" in alone.sentence
    assert alone.numbers[1].value == "–" and alone.numbers[1].note == "its start is not here"
    two = opened(tmp_path / "b", {"a": ones(30), "b": ones(4)}, parents={})
    assert two.sentence.startswith("a is best: accuracy 75.0%, ahead of b by 65.0 points [")
    tied = opened(tmp_path / "c", {"a": ones(30), "b": ones(29)}, parents={})
    assert tied.sentence.startswith("a scored highest, accuracy 75.0%; its lead over b, 2.5 points [")


def test_few_tasks_tell_nothing(tmp_path: Path) -> None:
    found = compared(tmp_path, {"start": ones(0, 3), "sft": ones(3, 3)})
    assert comparison_opening(found).sentence == (
        "sft scored highest, accuracy 100.0%, +100.0 points over start, but 3 tasks are too few to tell."
    )
    assert best(found) is None


def test_a_reward_that_is_no_share_has_no_per_cent(tmp_path: Path) -> None:
    sentence = opened(tmp_path, {"start": [0.25] * N, "sft": [1.5] * N}).sentence
    assert sentence == "sft is better than start: mean reward 1.5, +1.25 over start [1.25, 1.25]."


def test_a_start_without_an_evaluation_is_named(tmp_path: Path) -> None:
    opening = opened(tmp_path, {"start": None, "sft": ones(30), "dpo": ones(3)})
    assert "start, was not evaluated" in opening.sentence
    assert opening.numbers[1].note == "start not measured"


def test_nothing_evaluated(tmp_path: Path) -> None:
    opening = opened(tmp_path, {"start": None, "sft": None, "dpo": None})
    assert opening.sentence.startswith("Nothing was evaluated, so no stage can be called better")
    assert [n.value for n in opening.numbers] == ["200 s"]
    run(tmp_path / "sft", [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}], stage="sft", config="model: m\n")
    page = write_report(tmp_path).read_text()
    assert "SFT from m: training loss went from 2 to 1 in 2 steps" in page
    assert "not evaluated;" not in page  # once is enough


def test_incomparable_runs_have_no_best(tmp_path: Path) -> None:
    settings = {"start": {"samples": 4}, "sft": {"samples": 8}}
    found = compared(tmp_path, {"start": ones(4), "sft": ones(30)}, settings=settings)
    opening = comparison_opening(found)
    assert opening.sentence.startswith("No run can be called best: their evaluations were not made alike")
    assert best(found) is None
    page = write_report(tmp_path).read_text()
    assert "★" not in page and 'class="warning">evaluation held_out, no difference is shown' in page


def test_forgetting_stands_in_the_first_lines(tmp_path: Path) -> None:
    accuracy = {"start": ones(2), "sft": ones(12), "dpo": ones(20), "grpo": ones(38)}
    kept, lost = {"knowledge": ones(30)}, {"knowledge": ones(10)}
    runs = {"start": kept, "sft": kept, "dpo": lost, "grpo": lost}
    (warning,) = opened(tmp_path / "a", accuracy, retention=runs).warnings
    assert warning.startswith(
        "Forgetting: grpo lost some of what it was not trained on: knowledge 75.0% → 25.0% (-50.0"
    )
    assert "]). dpo lost knowledge 75.0% → 25.0% (-50.0 points [" in warning
    (warning,) = opened(tmp_path / "b", accuracy, retention=runs | {"grpo": kept}).warnings
    assert warning.startswith("Forgetting: dpo lost knowledge 75.0% → 25.0% (-50.0 points [")
    none = opened(tmp_path / "c", accuracy, retention=dict.fromkeys(runs, kept))
    assert none.warnings == () and none.reassurance == "No forgetting of grpo is shown by the retention suite."


def test_another_suite_may_have_another_best_stage(tmp_path: Path) -> None:
    accuracy = {"start": ones(2), "sft": ones(12), "dpo": ones(38)}
    for name, n in (("start", 2), ("sft", 38), ("dpo", 12)):
        evaluation(tmp_path / name, "hard", {"accuracy": ones(n)})
    runs = {name: tmp_path / name for name in accuracy}
    for name, scores in accuracy.items():
        evaluation(runs[name], "held_out", {"accuracy": scores})
    found = compare(runs, {name: CHAIN[name] for name in runs}, tmp_path)
    opening = comparison_opening(found)
    assert opening.sentence.startswith("dpo is best: accuracy 95.0%")
    assert opening.warnings == ("On hard another stage is best: sft.",)


def test_a_further_suite_may_tell_where_the_first_cannot(tmp_path: Path) -> None:
    runs = {name: tmp_path / name for name in ("start", "sft")}
    for name, n in (("start", 2), ("sft", 38)):
        evaluation(runs[name], "hard", {"accuracy": ones(n)})
        evaluation(runs[name], "held_out", {"accuracy": [0.0, 1.0, float(name == "sft")]})
    opening = comparison_opening(compare(runs, {name: CHAIN[name] for name in runs}, tmp_path))
    assert "too few to tell" in opening.sentence
    assert opening.warnings == ("On hard sft is best.",)


def test_a_comparison_written_without_a_lead_crowns_nobody(tmp_path: Path) -> None:
    found = compared(tmp_path, {"start": ones(4), "sft": ones(30)})
    del found["leads"]
    assert "Run the comparison again" in comparison_opening(found).sentence
    (tmp_path / "compare.json").write_text(json.dumps(found))
    assert "★" not in write_report(tmp_path).read_text()


def test_operations_have_their_unit() -> None:
    assert [format_flop(x) for x in (1.7e14, 3e12, 12.0)] == ["170 TFLOP", "3 TFLOP", "12 FLOP"]


# -- one run ----------------------------------------------------------------------------------------------------------


def run(
    out: Path, rows: list[dict[str, Any]], events: Sequence[dict[str, Any]] = (), stage: str = "", config: str = ""
) -> Opening:
    out.mkdir(parents=True, exist_ok=True)
    (out / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (out / "events.jsonl").write_text("".join(json.dumps(row) + "\n" for row in events))
    if config:
        (out / "config.yaml").write_text(config)
    if stage:
        (out / "lineage.json").write_text(json.dumps({"stage": stage}))
    return run_opening(RunView(Run(out), "run"))


def test_an_sft_run_says_how_far_held_out_loss_went_and_that_it_stopped(tmp_path: Path) -> None:
    rows = [
        {"step": s, "loss": 3.0, **({"eval/loss": e} if e else {})} for s, e in ((1, 0), (2, 2.0), (3, 1.5), (4, 1.8))
    ]
    best_step = {"event": "best_step", "step": 3, "objective": 1.5}
    opening = run(tmp_path, rows, [best_step], "sft", "model: runs/a/start\nmax_steps: 9\n")
    assert opening.sentence == (
        "SFT from a/start: held-out loss went from 2 to 1.5 in 4 steps, stopped early; the weights are those of step "
        "3, the best on held-out data."
    )
    assert [(n.label, n.value) for n in opening.numbers] == [("Held-out loss", "2 → 1.5"), ("Steps", "4 of 9")]
    assert opening.numbers[0].note == "step 2 to step 3"
    kept = run(tmp_path / "kept", rows, [], "sft", "model: runs/a/start\nmax_steps: 4\n")
    assert "held-out loss went from 2 to 1.8 (lowest: 1.5 at step 3) in 4 steps" in kept.sentence


def test_an_rl_run_averages_its_first_and_last_steps(tmp_path: Path) -> None:
    """Ten steps, two at each end: (0.1 + 0.3)/2 and (0.5 + 0.9)/2."""
    rewards = [0.1, 0.3, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4, 0.5, 0.9]
    rows = [{"step": i, "reward": r, "loss": 0.0} for i, r in enumerate(rewards, start=1)]
    opening = run(tmp_path, rows, (), "rl", "model: m\nalgorithm: grpo\nmax_steps: 10\n")
    assert (
        opening.sentence
        == "GRPO from m: mean reward went from 0.2 to 0.7 (means of the first and last 2 steps) in 10 steps."
    )
    assert opening.numbers[0].note == "first and last 2 of 10 steps; single steps lie between 0.1 and 0.9"
    assert opening.numbers[1].note == "as planned"


def test_a_run_that_stopped_or_is_not_finished(tmp_path: Path) -> None:
    rows = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": None}]
    stopped = {"event": "stopped", "step": 3, "reason": "step 3: loss is nan; the run has diverged"}
    opening = run(tmp_path / "a", rows, [stopped], config="model: m\n")
    assert opening.sentence.startswith("run from m did not finish: it stopped after 2 steps")
    assert opening.warnings == ("Stopped: step 3: loss is nan; the run has diverged",)
    again = run(tmp_path / "b", rows, [stopped, {"event": "resumed_from", "resumed_from": 0}], config="model: m\n")
    assert again.sentence.startswith("run from m has not finished: this is after 2 steps") and again.warnings == ()


def test_a_run_that_learnt_nothing_says_so_first(tmp_path: Path) -> None:
    event = {"event": "nothing_learnt", "steps": 1, "reason": "nothing was learnt: no scores differ"}
    opening = run(tmp_path, [{"step": 1, "loss": None, "reward": 0.0}], [event], "rl")
    assert opening.warnings == ("Nothing was learnt: no scores differ",)


def test_a_config_that_is_no_yaml_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"config\.yaml: damaged"):
        run(tmp_path, [], config="a: [")
