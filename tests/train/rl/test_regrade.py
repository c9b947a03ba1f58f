"""A second grading of rollouts, against values worked out by hand; runs with it train as without, bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from posttrain.arrays import floats, ints
from posttrain.cli.main import main
from posttrain.config import OnlineDpoConfig, RlConfig
from posttrain.engine.base import Request
from posttrain.engine.local.engine import LocalEngine
from posttrain.models import LanguageModel
from posttrain.rewards.protocol import Needs, Signature
from posttrain.rewards.registry import check_sealed, references_read
from posttrain.rollout import regroup, rollout_to_json
from posttrain.rollout.cut import answers_after_cuts, asked, reasoning_of
from posttrain.rollout.record import regraded_from_json
from posttrain.train.dpo.online import train_online_dpo
from posttrain.train.rl.regrade import Regrader, Swaps, regraded_metrics
from posttrain.train.rl.setup import train_rl
from posttrain.types import (
    Completion,
    Group,
    InputError,
    Message,
    Rollout,
    RunFailed,
    Sample,
    Sampling,
    Score,
    Segment,
    Task,
)
from tests.train.rl.test_rl_options import equal
from tests.training_helpers import events, metrics, read_rows, write_rows

REWARDS = """
def spread(response, answer=None):
    return (len(response) * 7 % 11) / 10

def strict(response):
    return float(len(response) % 2)

def breaks(response):
    if len(response) % 2:
        raise ValueError("an odd answer")
    return 1.0

def first(response, answer):
    return float(response[:1].lower() == answer)

def hidden(response, solution):
    return 1.0

def logs(completions, answer, log_metric):
    log_metric("calls", len(completions))
    return [len(c) % 5 / 4 for c in completions]
"""
TASKS = [{"prompt": p, "answer": a} for p, a in (("Say a word", "a"), ("Name a colour", "b"), ("Count", "a"))]


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., Path]:
    """Train tiny-random by RL in `tmp_path` and return the run folder; rewards run in the test's process."""
    (tmp_path / "own.py").write_text(REWARDS)
    data = write_rows(tmp_path / "tasks.jsonl", TASKS)

    def run(name: str = "run", reward: str = "spread", sealed: str | None = None, **options: Any) -> Path:
        fixed = {"model": "tiny-random", "data": str(data), "out": tmp_path / name, "max_new_tokens": 8}
        sizes = {"group_size": 2, "batch_size": 6, "max_steps": 3, "learning_rate": 1e-3, "reward_workers": 0}
        named = {"reward": (f"{tmp_path}/own.py:{reward}",)} if reward else {}
        more = {"sealed_reward": (f"{tmp_path}/own.py:{sealed}",)} if sealed else {}
        train_rl(RlConfig(**{**fixed, **sizes, **named, **more, **options}))
        return tmp_path / name

    return run


def without(rows: Sequence[Mapping[str, Any]], *beginnings: str) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if not k.startswith(beginnings)} for row in rows]


MEASURED = ("sealed", "canary", "effort", "regrade")


def test_a_second_grading_changes_no_bit(start: Callable[..., Path]) -> None:
    """Metrics, rollouts, events and weights are those of a run without, whatever is measured beside; the reward's own
    log is not touched by the canaries."""
    plain = start("plain", "logs")
    both = start("both", "logs", "strict", canaries=2, effort_every=1)
    assert without(metrics(both, timeless=True), *MEASURED) == metrics(plain, timeless=True)
    assert without(read_rows(both / "rollouts.jsonl"), "regraded") == read_rows(plain / "rollouts.jsonl")
    assert events(both, "reward_metrics") == events(plain, "reward_metrics")
    assert equal(both, plain)


def test_what_is_measured_is_recorded_and_summarised(start: Callable[..., Path]) -> None:
    run = start("run", "spread", "strict", canaries=4)
    for row in metrics(run):
        rollouts = [line for line in read_rows(run / "rollouts.jsonl") if line["step"] == row["step"]]
        sealed = [float(len(line["text"]) % 2) for line in rollouts]
        assert [line["regraded"]["sealed"] for line in rollouts] == sealed
        assert row["sealed_reward"] == pytest.approx(sum(sealed) / 6)
        assert row["sealed_gap"] == pytest.approx(row["reward"] - row["sealed_reward"])
        swapped = [line["regraded"]["swapped"] for line in rollouts if line["regraded"].get("swapped") is not None]
        assert len(swapped) == 4 and row["canary_rate"] == sum(v >= 0.5 for v in swapped) / 4
        paid = [line["score"] for line in rollouts if line["regraded"].get("swapped") is not None]
        assert swapped == paid  # this reward does not look at the answer that it asks for
        assert row["regrade_seconds"] > 0


def test_a_resume_and_a_replay_have_the_same_numbers(start: Callable[..., Path], tmp_path: Path) -> None:
    options: dict[str, Any] = {"canaries": 2, "sealed_rollouts": 3, "save_every": 1, "keep": 3}
    whole = start("whole", "spread", "strict", **options)
    start("cut", "spread", "strict", **options)
    cut = tmp_path / "cut"
    (cut / "lineage.json").unlink()
    for step in ("00000002", "00000003"):
        for file in sorted((cut / "checkpoints" / f"step-{step}").rglob("*"), reverse=True):
            file.unlink() if file.is_file() else file.rmdir()
        (cut / "checkpoints" / f"step-{step}").rmdir()
    start("cut", "spread", "strict", **options, resume=True)
    assert metrics(cut, timeless=True) == metrics(whole, timeless=True)
    assert read_rows(cut / "rollouts.jsonl") == read_rows(whole / "rollouts.jsonl")
    again = start("again", "", replay=str(whole / "rollouts.jsonl"), mismatch="off")
    named = [{k: v for k, v in row.items() if k.startswith(MEASURED)} for row in metrics(whole, timeless=True)]
    assert [{k: row[k] for k in first} for row, first in zip(metrics(again), named, strict=True)] == named
    assert all(row["sealed_graded"] == 3 for row in metrics(again))


def test_a_sealed_reward_that_fails_costs_its_numbers_alone(
    start: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run = start("run", "spread", "breaks", max_unscored_share=0.0)
    counted = events(run, "not_regraded")
    lines = read_rows(run / "rollouts.jsonl")
    for event in counted:
        odd = [line for line in lines if line["step"] == event["step"] and len(line["text"]) % 2]
        assert event["count"] == len(odd) and event["of"] == 6 and "an odd answer" in event["first_reason"]
    assert counted and capsys.readouterr().err.count("the grading 'sealed' failed") == 1
    assert all(row["unscored"] == 0 for row in metrics(run))
    assert [line["regraded"]["sealed"] for line in lines] == [None if len(t["text"]) % 2 else 1.0 for t in lines]


def test_online_dpo_is_graded_again_too(start: Callable[..., Path], tmp_path: Path) -> None:
    start("rl", max_steps=1)
    config = OnlineDpoConfig(
        model="tiny-random",
        data=str(tmp_path / "tasks.jsonl"),
        out=tmp_path / "dpo",
        reward=(f"{tmp_path}/own.py:spread",),
        sealed_reward=(f"{tmp_path}/own.py:strict",),
        canaries=2,
        max_new_tokens=8,
        batch_size=4,
        max_steps=1,
        reward_workers=0,
    )
    train_online_dpo(config)
    assert {"sealed_reward", "sealed_gap", "canary_rate"} <= metrics(tmp_path / "dpo")[0].keys()


# -- by hand -----------------------------------------------------------------------------------------------------------


def rollout(text: str = "x", index: int = 0, task: str = "0") -> Rollout:
    segment = Segment((1, 2), (False, True), (0.0, -1.0), (-1, 0))
    return Rollout(task, index, Sampling(8), 0, (Message("assistant", text),), (segment,))


def group(totals: Sequence[float | None], **regraded: Sequence[float | None]) -> Group:
    scores = tuple(Score(total) for total in totals)
    more = {name.replace("_", "/"): tuple(values) for name, values in regraded.items()}
    return Group(Task("0", "p"), tuple(rollout(index=i) for i in range(len(totals))), scores, more)


def test_metrics_by_hand() -> None:
    """Totals 1, 1, 0 and sealed 0, 1, not graded: sealed 1/2, gap (1 + 0)/2. Canaries 0.4, 0.5: half are paid. After a
    cut 0 and 1, uncut 1 and 1. A group that was not trained on counts for canaries alone."""
    trained = group([1, 1, 0], sealed=[0, 1, None], swapped=[0.4, None, None], cut_25=[0, 1, None])
    left_out = group([1, 1], sealed=[0, 0], swapped=[None, 0.5])
    assert regraded_metrics([trained], [trained, left_out]) == {
        "sealed_reward": 0.5,
        "sealed_gap": 0.5,
        "sealed_graded": 2,
        "canary_rate": 0.5,
        "canary_reward": pytest.approx(0.45),
        "effort/25": 0.5,
        "effort/100": 1.0,
    }
    assert regraded_metrics([group([1])], [group([1])]) == {}
    none = regraded_metrics([group([1], sealed=[None])], [])
    assert none == {"sealed_reward": None, "sealed_gap": None, "sealed_graded": 0}
    controlled = Group(Task("0", "p"), (rollout(),), (Score(0.0, {"true": 1.0, "coin": 0.0}),), {"sealed": (0.25,)})
    assert regraded_metrics([controlled], [])["sealed_gap"] == 0.75


def test_a_group_refuses_gradings_of_another_length() -> None:
    with pytest.raises(ValueError, match="2 rollouts but 1 sealed"):
        group([1, 1], sealed=[0])


def test_gradings_are_read_as_they_were_written(tiny: LanguageModel) -> None:
    value = {"sealed": 0.1 + 0.2, "swapped": None}
    line = rollout_to_json(1, Task("0", "p"), rollout(), Score(1.0), 0.0, value)
    assert regraded_from_json(line) == value
    assert "regraded" not in rollout_to_json(1, Task("0", "p"), rollout(), Score(1.0), 0.0)
    for wrong in ({"sealed": "1"}, {"sealed": True}, {"sealed": float("nan")}):
        with pytest.raises(ValueError, match="no number"):
            regraded_from_json({"regraded": wrong})
    pair = [rollout(index=0), rollout(index=1)]
    (again,) = regroup([Task("0", "p")] * 2, pair, [Score(1.0)] * 2, [{"sealed": 1.0}, {}])
    assert again.regraded == {"sealed": (1.0, None)}


class Grader:
    """Stands for a Scorer: a fixed value for each sample, or what it raises."""

    def __init__(self, value: float | Exception = 1.0) -> None:
        self.value = value
        self.metrics: dict[str, float] = {"kept": 1.0}
        self.first_traceback: str | None = None
        self.seen: list[Sample] = []

    def references(self, columns: set[str]) -> list[str]:
        return references_read([], [Needs((Signature("f", "sample", ("answer", "test"), (), False),))], columns)

    def score(self, samples: Sequence[Sample], state: Mapping[str, Any]) -> list[Score]:
        self.metrics, self.first_traceback = {}, "of this call"
        self.seen += samples
        if isinstance(self.value, Exception):
            raise self.value
        return [Score(self.value) for _ in samples]


def options(**given: Any) -> RlConfig:
    return RlConfig(**{"model": "m", "data": "d", "out": "o", "reward": ("r",), "batch_size": 8, **given})


def regrader(config: RlConfig, tasks: Sequence[Task], trained: Any, sealed: Any = None) -> Regrader:
    found = Regrader.of(config, tasks, None, None, trained, sealed)  # type: ignore[arg-type]
    assert found is not None
    return found


def test_a_canary_is_graded_by_all_reference_columns_of_a_task_that_differs() -> None:
    """Three of four tasks share a reference, so the fourth's is the only other one for them; other columns stay."""
    tasks = [Task(str(i), "p", {"answer": a, "test": a * 2, "level": i}) for i, a in enumerate("aaab")]
    groups = [Group(task, (rollout(task=task.id),), (Score(1.0),)) for task in tasks]
    trained = Grader()
    graded = regrader(options(canaries=4), tasks, trained).regrade(1, groups)
    assert [(s.columns["answer"], s.columns["test"]) for s in trained.seen] == [("b", "bb")] * 3 + [("a", "aa")]
    assert [sample.columns["level"] for sample in trained.seen] == [0, 1, 2, 3]
    assert [g.regraded for g in graded] == [{"swapped": (1.0,)}] * 4
    assert (trained.metrics, trained.first_traceback) == ({"kept": 1.0}, None)
    assert [g.task for g in graded] == tasks  # what is recorded is the task as it is


def test_draws_depend_on_seed_and_step_alone() -> None:
    tasks = [Task(str(i), "p", {"answer": str(i)}) for i in range(8)]
    groups = [Group(task, (rollout(str(i), task=task.id),), (Score(1.0),)) for i, task in enumerate(tasks)]

    def drawn(step: int, seed: int) -> list[str]:
        sealed = Grader()
        regrader(options(sealed_reward=("s",), sealed_rollouts=3, seed=seed), tasks, Grader(), sealed).regrade(
            step, groups
        )
        return [sample.text for sample in sealed.seen]

    assert len(drawn(1, 0)) == 3 and drawn(1, 0) == drawn(1, 0)
    assert len({tuple(drawn(step, seed)) for step in (1, 2, 3) for seed in (0, 1)}) > 3


def test_a_failed_rollout_is_not_graded_again() -> None:
    failed = Rollout("0", 0, Sampling(8), 0, (), (Segment.of((1,)),), "failed", "it hung")
    sealed = Grader()
    (graded,) = regrader(options(sealed_reward=("s",)), [], Grader(), sealed).regrade(
        1, [Group(Task("0", "p"), (failed, rollout(index=1)), (Score(None, reason="it hung"), Score(1.0)))]
    )
    assert graded.regraded == {"sealed": (None, 1.0)} and len(sealed.seen) == 1


def test_a_sealed_judge_whose_budget_is_spent_ends_the_grading_and_not_the_run() -> None:
    found = regrader(options(sealed_reward=("s",)), [], Grader(), Grader(RunFailed("the budget is spent")))
    one = [group([1.0])]
    assert found.regrade(1, one)[0].regraded == {}
    assert [(f.step, f.count, f.first_reason) for f in found.failures] == [(1, 1, "it gave up: the budget is spent")]
    assert found.regrade(2, one)[0].regraded == {} and not found.failures
    spent = regrader(options(canaries=1), [Task(a, "p", {"answer": a}) for a in "ab"], Grader(RunFailed("spent")))
    with pytest.raises(RunFailed, match="spent"):  # the reward that is trained on cannot go on either
        spent.regrade(1, one)


# -- cut reasoning -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "reasoning", "ask"),
    [
        ("<think>\n2 and 2\n</think>\n\nSo \\boxed{4}.", "<think>\n2 and 2\n", "\n</think>\n\\boxed{"),
        ("2 and 2</think>4", "2 and 2", "\n</think>\n"),
        ("<think>2 and 2 and", "<think>2 and 2 and", "\n</think>\n"),
        ("Two. Answer: 3\nNo.\n**Answer:** 4", "Two. Answer: 3\nNo.\n", "\n**Answer:**"),
        ("Two and two.\n#### 4", "Two and two.\n", "\n####"),
        ("It is <answer>4</answer>", "It is ", "\n<answer>"),
        ("It is $\\boxed{\\frac{1}{b}}$", "It is $", "\n\\boxed{"),
        ("It is $\\boxed 4$", "It is $", "\n\\boxed{"),
    ],
)
def test_where_reasoning_ends_and_how_an_answer_is_asked_for(text: str, reasoning: str, ask: str) -> None:
    assert asked(text) == (len(reasoning), ask)


@pytest.mark.parametrize("text", ["", "4", "Answer: 4", "<think></think>4", "<think>\n", "Two and two make four."])
def test_without_reasoning_before_an_answer_there_is_nothing_to_cut(text: str) -> None:
    assert asked(text) is None


class Says:
    """An engine that says the same after every prompt, and keeps what it was asked."""

    def __init__(self, ids: Sequence[int]) -> None:
        self.ids = ids
        self.asked: list[Request] = []

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[int, Completion]]:
        self.asked += requests
        n = len(self.ids)
        for request in reversed(requests):
            yield request.id, Completion(ints(self.ids), floats([0.0] * n), ints([0] * n), "length")


def sampled(lm: LanguageModel, text: str) -> tuple[Task, Rollout]:
    task = Task("0", "2 + 2?", {"answer": "4"})
    prompt, ids = lm.chat.prompt_ids(task.prompt), lm.chat.continued(text)
    n = len(prompt) + len(ids)
    row = Segment((*prompt, *ids), [i >= len(prompt) for i in range(n)], (0.0,) * n, (0,) * n)
    return task, Rollout("0", 0, Sampling(64), 0, (Message("assistant", text),), (row,))


def test_reasoning_is_cut_by_tokens_and_the_answer_ends_with_its_mark(tiny: LanguageModel) -> None:
    """A quarter, a half and three quarters of the tokens before the last mark; what follows the answer is no part."""
    chat = tiny.chat
    task, whole = sampled(tiny, "one two three four five six seven eight\nAnswer: 8")
    reasoning = reasoning_of(chat, task, whole)
    assert reasoning is not None and chat.decode(reasoning.token_ids) == "one two three four five six seven eight\n"
    engine = Says(chat.continued(" 9\nAnswer: 7"))
    found = answers_after_cuts(engine, chat, tiny.context, [(task, whole, reasoning)])  # type: ignore[arg-type]
    n = len(reasoning.token_ids)
    for request, share in zip(engine.asked, (25, 50, 75), strict=True):
        kept = reasoning.token_ids[: n * share // 100]
        assert request.prompt_ids == (*whole.prompt_ids, *kept, *chat.continued("\nAnswer:"))
        assert request.sampling == Sampling(24, temperature=0)
        sample = found[0, share]
        assert sample.text == chat.decode(kept) + "\nAnswer: 9" and sample.columns == {"answer": "4"}
        assert sample.completion_ids == request.prompt_ids[len(whole.prompt_ids) :] + tuple(engine.ids)
    short = answers_after_cuts(engine, chat, len(engine.asked[0].prompt_ids) + 2, [(task, whole, reasoning)])  # type: ignore[arg-type]
    assert list(short) == [(0, 25)] and engine.asked[-1].sampling.max_new_tokens == 2
    assert reasoning_of(chat, task, replace(whole, status="failed", error="it hung")) is None
    assert reasoning_of(chat, replace(task, tools=({"name": "f"},)), whole) is None
    assert reasoning_of(chat, *sampled(tiny, "Yes Answer: 8")) is None or len(chat.continued("Yes ")) > 3


def test_effort_is_measured_every_so_many_steps(tiny: LanguageModel) -> None:
    task, whole = sampled(tiny, "one two three four five six seven eight\nAnswer: 8")
    engine, trained = Says(tiny.chat.continued(" 9")), Grader(0.5)
    found = Regrader.of(options(effort_every=3, effort_rollouts=2), [task], tiny, engine, trained, None)  # type: ignore[arg-type]
    assert found is not None
    members = (whole, replace(whole, index=1), replace(whole, index=2), rollout("4"))
    one = Group(task, members, tuple(map(Score, (1.0, 0.0, 1.0, 1.0))))
    measured = [found.regrade(n, [one])[0].regraded for n in (1, 2, 3, 4)]
    assert [sorted(of) for of in measured] == [["cut/25", "cut/50", "cut/75"], [], [], ["cut/25", "cut/50", "cut/75"]]
    values = measured[0]["cut/25"]
    assert sorted(values[:3], key=str) == [0.5, 0.5, None] and values[3] is None
    assert regraded_metrics([], found.regrade(1, [one]))["effort/75"] == 0.5
    assert found.regrade(1, [group([1.0])])[0].regraded == {}
    assert [(f.count, f.first_reason[:24]) for f in found.failures] == [(1, "no answer reasons before")]


def test_greedy_answers_leave_the_draws_of_the_engine_alone(tiny: LanguageModel) -> None:
    """What a request draws is its seed's, whether or not others were answered before."""
    task, whole = sampled(tiny, "one two three four five six seven eight\nAnswer: 8")
    reasoning = reasoning_of(tiny.chat, task, whole)
    assert reasoning is not None
    request = Request(0, whole.prompt_ids, Sampling(6), seed=5)
    engine = LocalEngine(tiny)
    ((_, before),) = engine.generate([request])
    assert len(answers_after_cuts(engine, tiny.chat, tiny.context, [(task, whole, reasoning)])) == 3
    ((_, after),) = engine.generate([request])
    assert before == after


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trained", "sealed", "same"),
    [
        (["math"], ["math=0.5"], True),
        (["math as m"], ["math"], True),
        (["gate(format, math)", "length=0"], ["gate( format,math )=2"], True),
        (["./a.py:f(x=1, y=2)"], ["a.py:f(y=2, x=1)"], True),
        (["format", "math"], ["math=3", "format"], True),
        (["math"], ["math(lenient=true)"], False),
        (["math", "format"], ["math"], False),
        (["a.py:f"], ["a.py:g"], False),
    ],
)
def test_a_sealed_reward_is_another_one(trained: list[str], sealed: list[str], same: bool) -> None:
    if same:
        with pytest.raises(InputError, match="is the one that is trained on"):
            check_sealed(trained, sealed)
    else:
        check_sealed(trained, sealed)
    check_sealed(trained, ())


def test_canaries_need_two_references_that_the_reward_reads() -> None:
    tasks = [Task(str(i), "p", {"answer": "a", "solution": str(i)}) for i in range(2)]
    with pytest.raises(InputError, match=r"all 2 tasks have one reference answer \(answer\)"):
        Swaps.of(tasks, Grader())  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"reads no column with a reference .* the data has solution"):
        Swaps.of([Task("0", "p", {"solution": "1"})], Grader())  # type: ignore[arg-type]
    with pytest.raises(InputError, match="reads no column with a reference .* the data has none of them"):
        Swaps.of([Task("0", "p")], None)


def test_nothing_is_written_where_a_grader_is_wrong(start: Callable[..., Path], tmp_path: Path) -> None:
    for message, given in {
        "--sealed-reward: reward .*asks for 'solution', which is no column": {"sealed": "hidden"},
        "is the one that is trained on": {"sealed": "spread"},
        "reads no column with a reference": {"reward": "strict", "canaries": 1},
        "could not be": {"sealed": "nothing"},
    }.items():
        with pytest.raises(InputError, match=message):
            start("bad", **given)
    assert not (tmp_path / "bad").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sealed_rollouts": 4}, "it needs sealed_reward"),
        ({"effort_rollouts": 4}, "it needs effort_every"),
        ({"replay": "f", "reward": (), "sealed_reward": ("s",)}, "nothing is graded there"),
        ({"replay": "f", "reward": (), "control": "coin"}, "nothing is graded there"),
        ({"env": "e", "effort_every": 2}, "an episode of env has many"),
    ],
)
def test_options_without_effect_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        options(**given)


@pytest.mark.stress
def test_cut_reasoning_of_a_model_that_reasons(tmp_path: Path) -> None:
    """A model that learnt to count to six before it answers: the run with effort and canaries has the bits of the run
    without, and what it answers too early is measured."""
    rows = [{"prompt": f"Say {a}", "completion": f"one two three four five six\nAnswer: {a}"} for a in "ab"] * 8
    write_rows(tmp_path / "sft.jsonl", rows)
    write_rows(tmp_path / "tasks.jsonl", [{"prompt": f"Say {a}", "answer": a} for a in "ab"])
    command = f"sft --model tiny-random --data {tmp_path}/sft.jsonl --out {tmp_path}/sft --max-steps 30"
    assert main([*command.split(), "--learning-rate", "5e-3", "--batch-size", "8"]) == 0
    (tmp_path / "own.py").write_text("def last(response, answer):\n    return float(response.endswith(answer))\n")

    def run(name: str, **more: Any) -> Path:
        sizes = {"max_new_tokens": 40, "max_steps": 3, "learning_rate": 1e-3, "reward_workers": 0}
        places = {"model": str(tmp_path / "sft"), "data": str(tmp_path / "tasks.jsonl"), "out": tmp_path / name}
        train_rl(RlConfig(**{**places, **sizes, "reward": (f"{tmp_path}/own.py:last",), **more}))
        return tmp_path / name

    measured, plain = run("measured", effort_every=1, effort_rollouts=4, canaries=4), run("plain")
    assert without(metrics(measured, timeless=True), *MEASURED) == metrics(plain, timeless=True)
    assert equal(measured, plain)
    last = metrics(measured)[-1]
    assert last["effort/25"] < last["effort/100"] and 0 <= last["canary_rate"] <= 1
