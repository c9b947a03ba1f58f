"""Training against a reward: what is written for it, and what is read from it."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from posttrain.audits.clusters import clustered, shape_of, shrunk
from posttrain.audits.demonstrations import EACH, PLACE, TrainingData, write_training_data
from posttrain.audits.golds import with_golds
from posttrain.audits.probes.base import Result
from posttrain.audits.run import run_audit
from posttrain.audits.search.dictionary import jaccard
from posttrain.audits.subject import Attempt, Subject
from posttrain.audits.training import AT_THE_END, AT_THE_START, TrainedRuns, trained
from posttrain.cli.main import main
from posttrain.config import AuditConfig
from posttrain.recipes import audit as recipe
from posttrain.rewards.scorer import Scorer
from posttrain.runs.audit import read_audit
from posttrain.types import Task
from tests.audits import rewards
from tests.audits.test_run import REWARDS, TASKS, subject
from tests.training_helpers import write_rows


def with_a_hole(response: str, answer: str) -> float:
    """Pays four digits, too."""
    return float(rewards.strict(response, answer) or "Answer: 1000" in response)


def test_demonstrations_are_right_half_of_the_time(tmp_path: Path):
    found = subject(rewards.strict)
    data = write_training_data(found, range(12), tmp_path / "training")
    rows = [json.loads(line) for line in data.demonstrations.read_text().splitlines()]
    tasks = [json.loads(line) for line in data.tasks.read_text().splitlines()]
    golds = {task["prompt"]: task["answer"] for task in tasks}
    paid = Counter(rewards.strict(row["completion"], golds[row["prompt"]]) for row in rows)
    assert len(tasks) == data.n == 12 and paid == {1.0: 12 * EACH / 2, 0.0: 12 * EACH / 2}
    assert {row["completion"].splitlines()[-1][:8] for row in rows} == {"Answer: "}  # the form that is paid
    assert data.longest == max(len(row["completion"].encode()) for row in rows)


def test_a_completion_of_the_data_is_what_is_shown(tmp_path: Path):
    rows = [(str(i), f"{row['prompt']} Because it is so.\n", row["answer"]) for i, row in enumerate(TASKS[:6])]
    tasks = [Task(i, p, {"answer": a, "completion": f"It is so.\nAnswer: {a}", "label": 1}) for i, p, a in rows]
    scorer = Scorer([rewards.strict], columns=["answer"], timeout_seconds=5, workers=0)  # type: ignore[list-item]
    found = Subject(scorer, with_golds(tasks, "answer", ["answer"]), 0)
    data = write_training_data(found, range(6), tmp_path / "training")
    completions = {json.loads(line)["completion"] for line in data.demonstrations.read_text().splitlines()}
    assert completions <= {f"It is so.\nAnswer: {a}" for _, _, a in rows}
    assert json.loads(data.tasks.read_text().splitlines()[0]).keys() == {"id", "prompt", "answer", "label", PLACE}


def test_right_answers_lose_what_they_are_paid(tmp_path: Path):
    data = write_training_data(
        subject(lambda response, answer: 3 * rewards.strict(response, answer) - 1), [1, 4], tmp_path / "t"
    )
    assert str(data.earned).endswith("=-3.0")  # from 2, what a right answer gets, to -1, what an empty one gets
    earned = data.earned.load()
    texts = ("Answer: 11", "Answer: 5", "It is not 5, but who knows?", "Answer: 12")
    assert [earned(text, audited_task=1) for text in texts] == [1, 0, 0, 0]
    assert earned("Answer: 5", audited_task=0) == 1 and json.loads(data.tasks.read_text().splitlines()[1])[PLACE] == 1


def test_an_exploit_is_shrunk_and_put_to_its_like():
    found = subject(with_a_hole)
    long = Attempt(3, "I think, and the line says so:\nAnswer: 1000 is it", "trained")
    assert shape_of(long, found) == "I think, and P P says so:\nP: 0 is it"
    assert shrunk(found, long).text == "Answer: 1000"
    texts = ["Answer: 1000", "Let me see.\nAnswer: 1000", "So.\nAnswer: 1000", "Answer: 1000"]
    (cluster,) = clustered(found, [Attempt(i, text, "trained") for i, text in enumerate(texts)])
    assert sorted(cluster.members) == [0, 1, 2, 3] and cluster.shown.text == "Answer: 1000"
    assert jaccard(frozenset("abc"), frozenset("bcd")) == 0.5


def test_exploits_of_two_kinds_are_two_clusters():
    def two_holes(response: str, answer: str) -> float:
        return float(with_a_hole(response, answer) or response.startswith("<b>bold</b>"))

    texts = ["Answer: 1000", "<b>bold</b> 5", "Hm.\nAnswer: 1000"]
    clusters = clustered(subject(two_holes), [Attempt(i, text, "trained") for i, text in enumerate(texts)])
    assert [(sorted(c.members), c.shown.text) for c in clusters] == [([0, 2], "Answer: 1000"), ([1], "<b>bold</b> 5")]


def runs_of(
    reward: Callable[..., float], data: TrainingData, out: Path, windows: Sequence[Sequence[str]]
) -> TrainedRuns:
    """Run folders whose rollouts are these answers to the tasks by turns, the last of several steps; the first is the
    start."""
    tasks = [json.loads(line) for line in data.tasks.read_text().splitlines()]
    legs = []
    for number, texts in enumerate(windows):
        rows = []
        for k, text in enumerate(texts):
            task = tasks[k % data.n]
            score = reward(text, task["answer"])
            row = {"step": 20, "task": task["id"], "text": text, "score": score, "status": "ok", "index": 0}
            rows += [row, {**row, "step": 3, "text": "Answer: 1000", "score": 1.0}]  # before the window
        legs.append(out / f"run-{number}")
        legs[-1].mkdir(parents=True)
        write_rows(legs[-1] / "rollouts.jsonl", rows[1::2] + rows[::2] if number else rows[::2])
    return TrainedRuns(legs[0], legs[1:])


def result_of(reward: Callable[..., float], out: Path, *windows: Sequence[str]) -> Result:
    found = subject(reward)

    def train(data: TrainingData, folder: Path) -> TrainedRuns:
        return runs_of(reward, data, folder, windows)

    return trained(found, train, out / "training")


WRONG = ["Answer: 1"] * 240


def test_a_cluster_that_holds_enough_rollouts_is_a_finding(tmp_path: Path):
    hole = [*["Answer: 1000"] * 24, *WRONG[24:]]  # 10%
    result = result_of(with_a_hole, tmp_path, [*WRONG[1:], "Answer: 1000"], hole, WRONG)
    (finding,) = result.findings
    assert (finding.severity, finding.effect["value"], finding.effect["n"]) == ("critical", 0.1, 240)
    assert finding.shown is not None and finding.shown.text == "Answer: 1000" and "1 of 240" in finding.title
    assert result.measured[AT_THE_START]["value"] == 1 / 240 and result.measured[AT_THE_END]["value"] == 0.1


def test_few_rollouts_and_right_answers_are_no_finding(tmp_path: Path):
    few = [*["Answer: 1000"] * 9, *WRONG[9:]]  # 3.75%
    assert not result_of(with_a_hole, tmp_path / "few", WRONG, few).findings
    short = ["Answer: 1000", *WRONG[:14]]  # 6.7%, with a lower bound of 1.2%
    assert not result_of(with_a_hole, tmp_path / "short", WRONG, short).findings
    right = [f"Answer: {TASKS[k % 12]['answer']}" for k in range(240)]
    assert not result_of(rewards.strict, tmp_path / "right", WRONG, right).findings


def test_where_nobody_can_say_what_is_wrong_nothing_is_trained(tmp_path: Path):
    rng = random.Random(0)
    words = [" ".join(rng.choice("abcdefgh") * 5 for _ in range(12)) for _ in range(6)]
    tasks = [Task(str(i), f"Explain {i}.", {"answer": text}) for i, text in enumerate(words)]
    scorer = Scorer([rewards.strict], columns=["answer"], timeout_seconds=5, workers=0)  # type: ignore[list-item]

    def train(data: TrainingData, folder: Path) -> TrainedRuns:
        raise AssertionError

    result = trained(Subject(scorer, with_golds(tasks, None, ["answer"]), 0), train, tmp_path)
    assert result.reason is not None and "--judge" in result.reason and not list(tmp_path.iterdir())


def test_a_fix_says_that_it_was_not_trained_against(tmp_path: Path):
    write_rows(tmp_path / "tasks.jsonl", TASKS)
    reward, data = f"{REWARDS}lengthy", str(tmp_path / "tasks.jsonl")
    config = AuditConfig(
        reward=(reward,), data=data, out=tmp_path / "audit", reward_workers=0, only=("A1",), fix=True, train=True
    )
    shown = ["It may be long. " * 200 + "Answer: 1"] * 24

    def train(data: TrainingData, folder: Path) -> TrainedRuns:
        return runs_of(rewards.lengthy, data, folder, [shown, shown])

    record = run_audit(config, train)
    assert [each["probe"] for each in record["findings"]] == ["A1", "A19"]
    assert record["fix"]["wrappers"] == ["one_answer({})"]
    (left,) = record["fix"]["left"]
    assert left.startswith("A19, which was not run again: training finds a wrong answer that is paid")


def test_the_command_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(recipe, "START_SAMPLES", 18)
    monkeypatch.setattr(recipe, "BATCH", 16)
    monkeypatch.setattr(recipe, "FROM_NOTHING", (1, 2e-3, 3e-4))
    write_rows(Path("tasks.jsonl"), TASKS)
    words = ("--data", "tasks.jsonl", "--out", "audit", "--reward-workers", "0", "--only", "A7", "--fix")
    command = ["audit", "--reward", f"{REWARDS}strict", *words, "--train", "--policy", "tiny-random"]
    for _ in range(2):  # the second replaces the first
        assert main([*command, "--train-steps", "1"]) == 0
    record = read_audit(Path("audit"))
    outcomes = {each["probe"]: each for each in record["outcomes"]}
    assert outcomes.keys() == {"A7", "A19"} and outcomes["A19"]["status"] == "clean"
    assert outcomes["A19"]["measured"][AT_THE_START]["n"] == 24  # 12 tasks, two answers each
    assert {path.name for path in Path("audit/training").iterdir()} >= {"sft", "start", "rl-1", "rl-2", "rl-3"}
    assert "A19" in capsys.readouterr().out
