"""From tasks to scored groups: order, seeds, failures, and the JSON form."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from posttrain.chat import ChatFormat
from posttrain.engine.base import Request
from posttrain.engine.local.engine import LocalEngine
from posttrain.models import LanguageModel
from posttrain.models.tiny import tiny_tokenizer
from posttrain.rewards.scorer import Scorer
from posttrain.rollout import (
    RolloutRequest,
    collect,
    fit_tasks,
    regroup,
    rollout_from_json,
    rollout_seed,
    rollout_to_json,
    sample,
    score,
)
from posttrain.runs.files import read_rollouts
from posttrain.runs.log import RunLog
from posttrain.runs.reader import Run
from posttrain.types import Completion, InputError, Message, Rollout, RunFailed, Sample, Sampling, Score, Task


class BackwardsEngine:
    """Answers the last request first, each with two tokens made of its seed, and cancels those of `cancelled`."""

    def __init__(self, end: int, cancelled: frozenset[int] = frozenset()) -> None:
        self.version = 4
        self.end = end
        self.cancelled = cancelled
        self.asked: list[Request] = []

    def generate(
        self, requests: Sequence[Request], deadline_seconds: float | None = None
    ) -> Iterator[tuple[int, Completion]]:
        self.asked = list(requests)
        for r in reversed(requests):
            if r.id in self.cancelled:
                yield r.id, Completion((), (), (), "cancelled")
            else:
                yield r.id, Completion((40 + r.seed, self.end), (-0.5, -0.25), (4, 4), "stop")

    def cancel(self, request_id: int) -> None:
        raise AssertionError("nothing here cancels")

    def update(self, weights: Mapping[str, torch.Tensor] | Path | None, version: int) -> None:
        self.version = version


class LengthScorer:
    """Stands in for the worker pool: the score of a sample is the number of its column `n`; notes what it was given."""

    whole_batch = False

    def __init__(self) -> None:
        self.seen: list[Sample] = []

    def weights(self, step: float | None) -> dict[str, float]:
        return {"n": 1.0}

    def abort(self) -> None:
        raise AssertionError("nothing here goes wrong")

    def score(self, samples: Sequence[Sample], trainer_state: Mapping[str, Any] | None = None) -> list[Score]:
        self.seen += samples
        return [Score(float(s.columns["n"]), {"n": float(s.columns["n"])}) for s in samples]


def plans(count: int, group: int) -> list[RolloutRequest]:
    tasks = [Task(f"t{i}", f"prompt {i}", {"n": i}) for i in range(count)]
    return [RolloutRequest(t, g, Sampling(8), seed=group * i + g) for i, t in enumerate(tasks) for g in range(group)]


def test_order_is_that_of_the_plans(tiny: LanguageModel) -> None:
    """Whatever finishes first: rollout k carries the task, place, seed and tokens of plan k."""
    made = plans(3, 2)
    engine = BackwardsEngine(tiny.chat.turn_end)
    rollouts = sample(engine, tiny.chat, made)
    assert [(r.task_id, r.index, r.seed) for r in rollouts] == [(p.task.id, p.index, p.seed) for p in made]
    for plan, rollout in zip(made, rollouts, strict=True):
        prompt = tiny.chat.prompt_ids(plan.task.prompt)
        (segment,) = rollout.segments
        assert segment.token_ids.tolist() == [*prompt, 40 + plan.seed, tiny.chat.turn_end]
        assert segment.sampled.tolist() == [False] * len(prompt) + [True, True]
        assert segment.sampler_logprobs.tolist() == [0.0] * len(prompt) + [-0.5, -0.25]
        assert segment.versions.tolist() == [-1] * len(prompt) + [4, 4]
        assert rollout.text == tiny.chat.decode([40 + plan.seed]) and rollout.response_length == 2
    assert [r.prompt_ids for r in engine.asked] == [tiny.chat.prompt_ids(p.task.prompt) for p in made]


def test_failed_rollouts_are_unscored_and_never_zero(tiny: LanguageModel) -> None:
    """Rollouts 1 and 4 are cancelled: the reward does not see them, the others keep their own scores."""
    made = plans(3, 2)
    scorer = LengthScorer()
    groups = collect(BackwardsEngine(tiny.chat.turn_end, frozenset({1, 4})), tiny.chat, scorer, made)  # type: ignore[arg-type]
    assert [g.task.id for g in groups] == ["t0", "t1", "t2"]
    assert [[s.total for s in g.scores] for g in groups] == [[0.0, None], [1.0, 1.0], [None, 2.0]]
    failed = groups[0].rollouts[1]
    assert (failed.status, failed.error, failed.response_length) == ("failed", "cancelled at the deadline", 0)
    assert groups[0].scores[1].failed and groups[0].scores[1].reason == "cancelled at the deadline"
    assert [s.columns["n"] for s in scorer.seen] == [2, 1, 1, 0]  # in the order in which groups were whole
    assert scorer.seen[-1].prompt == "prompt 0" and scorer.seen[-1].completion_ids == (40, tiny.chat.turn_end)


class SlowScorer(LengthScorer):
    """Scores only once it may, and notes each call."""

    def __init__(self, whole_batch: bool = False) -> None:
        super().__init__()
        self.whole_batch = whole_batch  # type: ignore[misc]
        self.calls: list[list[int]] = []
        self.scored = threading.Event()
        self.aborted = threading.Event()

    def score(self, samples: Sequence[Sample], trainer_state: Mapping[str, Any] | None = None) -> list[Score]:
        self.calls.append([s.columns["n"] for s in samples])
        self.scored.set()
        return super().score(samples, trainer_state)

    def abort(self) -> None:
        self.aborted.set()


class WaitingEngine(BackwardsEngine):
    """Does not yield the last completion before the scorer has scored something, or `then` is raised."""

    def __init__(self, end: int, scorer: SlowScorer, then: BaseException | None = None) -> None:
        super().__init__(end)
        self.scorer, self.then = scorer, then

    def generate(
        self, requests: Sequence[Request], deadline_seconds: float | None = None
    ) -> Iterator[tuple[int, Completion]]:
        *early, last = super().generate(requests, deadline_seconds)
        yield from early
        assert self.scorer.scored.wait(0.2 if self.scorer.whole_batch else 60) != self.scorer.whole_batch
        if self.then is not None:
            raise self.then
        yield last


def test_a_group_is_scored_while_others_are_being_sampled(tiny: LanguageModel) -> None:
    """Group by group, whatever the order, and the same groups as when all are scored at the end."""
    scorer = SlowScorer()
    groups = collect(WaitingEngine(tiny.chat.turn_end, scorer), tiny.chat, scorer, plans(3, 2))  # type: ignore[arg-type]
    assert scorer.calls == [[2, 2], [1, 1], [0, 0]] and not scorer.aborted.is_set()
    assert [[s.total for s in g.scores] for g in groups] == [[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]]
    at_the_end = LengthScorer()
    at_the_end.whole_batch = True  # type: ignore[misc]
    assert groups == collect(BackwardsEngine(tiny.chat.turn_end), tiny.chat, at_the_end, plans(3, 2))  # type: ignore[arg-type]


def test_a_reward_that_sees_all_samples_sees_them_in_one_call(tiny: LanguageModel) -> None:
    scorer = SlowScorer(whole_batch=True)
    collect(BackwardsEngine(tiny.chat.turn_end), tiny.chat, scorer, plans(3, 2))  # type: ignore[arg-type]
    assert scorer.calls == [[0, 0, 1, 1, 2, 2]]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), InputError("too long")])
def test_what_goes_wrong_while_sampling_ends_the_scoring(tiny: LanguageModel, error: BaseException) -> None:
    scorer = SlowScorer()
    with pytest.raises(type(error)):
        collect(WaitingEngine(tiny.chat.turn_end, scorer, error), tiny.chat, scorer, plans(3, 2))  # type: ignore[arg-type]
    assert scorer.aborted.is_set()


def test_what_goes_wrong_while_scoring_is_raised_before_all_is_sampled(tiny: LanguageModel) -> None:
    class Broken(SlowScorer):
        def score(self, samples: Sequence[Sample], trainer_state: Mapping[str, Any] | None = None) -> list[Score]:
            raise RunFailed("no worker")

    class Patient(BackwardsEngine):
        def generate(
            self, requests: Sequence[Request], deadline_seconds: float | None = None
        ) -> Iterator[tuple[int, Completion]]:
            for n, answer in enumerate(super().generate(requests, deadline_seconds)):
                time.sleep(0.02)
                assert n < 1000, "went on sampling"
                yield answer

    scorer = Broken()
    with pytest.raises(RunFailed, match="no worker"):
        collect(Patient(tiny.chat.turn_end), tiny.chat, scorer, plans(1000, 2))  # type: ignore[arg-type]
    assert scorer.aborted.is_set()


def test_an_interrupt_does_not_wait_for_a_reward(tiny: LanguageModel, tmp_path: Path) -> None:
    """A reward that sleeps for an hour is killed with its worker: were it waited for, the test would not end."""
    begun = tmp_path / "begun"
    (tmp_path / "slow.py").write_text(
        f"import time\ndef slow(response):\n    open({str(begun)!r}, 'w').close()\n    time.sleep(3600)\n"
    )

    class Interrupted(BackwardsEngine):
        def generate(
            self, requests: Sequence[Request], deadline_seconds: float | None = None
        ) -> Iterator[tuple[int, Completion]]:
            *early, _ = super().generate(requests, deadline_seconds)
            yield from early
            while not begun.exists():
                time.sleep(0.01)
            raise KeyboardInterrupt

    with Scorer([f"{tmp_path}/slow.py:slow"], columns=["n"], timeout_seconds=3600) as scorer:
        assert not scorer.whole_batch
        with pytest.raises(KeyboardInterrupt):
            collect(Interrupted(tiny.chat.turn_end), tiny.chat, scorer, plans(3, 2))


def test_a_reward_named_environment_is_refused_beside_one(tiny: LanguageModel) -> None:
    class Named(LengthScorer):
        def weights(self, step: float | None) -> dict[str, float]:
            return {"environment": 1.0}

    with pytest.raises(InputError, match="a reward cannot be named 'environment'"):
        collect(BackwardsEngine(2), tiny.chat, Named(), plans(1, 1), None, object())  # type: ignore[arg-type]


def test_scoring_only_failures_asks_nothing() -> None:
    task = Task("t", "p")
    failed = Rollout("t", 0, Sampling(1), 0, (), (), status="failed", error="the engine died")
    scorer = LengthScorer()
    assert score(scorer, [task], [failed]) == [Score(None, reason="the engine died")]  # type: ignore[arg-type]
    assert scorer.seen == []


def test_regroup_splits_at_tasks_and_at_index_zero() -> None:
    """The same task twice in a row makes two groups."""
    tasks = [Task(n, "p") for n in ("a", "a", "b", "b", "b", "b")]
    indices = [0, 1, 0, 1, 0, 1]
    rollouts = [Rollout(t.id, i, Sampling(1), 0, (), ()) for t, i in zip(tasks, indices, strict=True)]
    scores = [Score(float(k)) for k in range(6)]
    groups = regroup(tasks, rollouts, scores)
    assert [(g.task.id, [r.index for r in g.rollouts], [s.total for s in g.scores]) for g in groups] == [
        ("a", [0, 1], [0.0, 1.0]),
        ("b", [0, 1], [2.0, 3.0]),
        ("b", [0, 1], [4.0, 5.0]),
    ]


def test_statuses(tiny: LanguageModel) -> None:
    """A random model seldom ends within 3 tokens: `truncated`, without an error."""
    rollouts = sample(
        LocalEngine(tiny), tiny.chat, [RolloutRequest(Task("t", "p"), 0, Sampling(3, temperature=0.0), 0)]
    )
    assert [(r.status, r.error, r.response_length) for r in rollouts] == [("truncated", None, 3)]
    answered = sample(BackwardsEngine(tiny.chat.turn_end), tiny.chat, plans(1, 1))
    assert answered[0].status == "ok"


def test_records_are_read_as_they_were(tiny: LanguageModel, tmp_path: Path) -> None:
    """Real rollouts with kept tokens, conversational prompts and a failed one, through a run folder and back: equal to
    the bit, floats included."""
    tasks = [Task("a", "What is 2 + 2?"), Task("b", (Message("system", "Be brief."), Message("user", "Grüße?")))]
    sampling = Sampling(12, temperature=0.9, top_p=0.8)
    made = [RolloutRequest(t, g, sampling, rollout_seed(0, 1, i, g)) for i, t in enumerate(tasks) for g in range(3)]
    rollouts = sample(LocalEngine(tiny), tiny.chat, made)
    rollouts += sample(BackwardsEngine(2, frozenset({0})), tiny.chat, [RolloutRequest(tasks[0], 3, sampling, 5)])
    assert rollouts[-1].status == "failed" and all(r.segments[0].kept_token_ids for r in rollouts[:-1])
    values = [
        Score(0.1 + 0.2, {"math": 0.1 + 0.2, "format": None}),
        Score(1 / 3, {"math": 1e-300}, step_values=(1 / 3, 0.1 + 0.2)),
        Score(None, {}, "timed out"),
    ]
    pairs = [(rollout, values[k % 3]) for k, rollout in enumerate(rollouts)]
    with RunLog(tmp_path / "run", {}, resume=False) as log:
        asked = {task.id: task for task in tasks}
        log.rollouts(rollout_to_json(7, asked[r.task_id], r, value, advantage=-0.7) for r, value in pairs)
    rows = read_rollouts(log.out, lambda row: None)[7]
    assert [rollout_from_json(row, sampling, tiny.chat) for row in rows] == pairs
    assert (rows[0]["step"], rows[0]["task"], rows[0]["text"], rows[0]["advantage"]) == (7, "a", rollouts[0].text, -0.7)
    assert [row["prompt"] for row in rows] == [tasks[0].prompt] * 3 + ["Grüße?"] * 3 + [tasks[0].prompt]
    (row, *_) = Run(log.out).rollouts(step=7)
    assert list(row)[:4] == ["step", "task", "prompt", "text"]
    assert len(row["segments"][0]["supports"]) == len(row["segments"][0]["token_ids"])
    old = {k: v for k, v in row.items() if k not in ("prompt", "messages", "environment_reward")}
    assert rollout_from_json(json.loads(json.dumps(old)), sampling, tiny.chat) == pairs[0]  # as lines once were


def test_rollout_seeds_differ_and_depend_on_all_four_numbers() -> None:
    """Neighbouring runs, steps, tasks and indices share no seed (a sum of the four would)."""
    seeds = {rollout_seed(a, b, c, d) for a in range(4) for b in range(4) for c in range(4) for d in range(4)}
    assert len(seeds) == 256 and all(0 <= s < 2**64 for s in seeds)
    assert rollout_seed(1, 2, 3, 4) == rollout_seed(1, 2, 3, 4)


def test_prompts_without_room_are_named_before_sampling(tiny: LanguageModel) -> None:
    """One token more than there is room for; fewer new tokens are offered only where they help."""
    task = Task("long", "x" * 20)
    n = len(tiny.chat.prompt_ids(task.prompt))
    short = Task("short", "x", where="data.jsonl:2")
    assert fit_tasks(tiny.chat, [task], n + 6, 6, "data.jsonl").checked("data.jsonl", strict=True) == [task]
    fitted = fit_tasks(tiny.chat, [task, short], n + 5, 6, "data.jsonl")
    assert (fitted.kept, fitted.rows, fitted.fitting, fitted.cut) == ([short], 2, 1, 0)
    (left_out,) = fitted.left_out
    assert re.fullmatch(
        rf"data.jsonl: task long: the prompt has {n} tokens, which leave 5 of .*; lower --max-new-tokens or .*",
        str(left_out),
    )
    (left_out,) = fit_tasks(tiny.chat, [task], n, 6, "data.jsonl").left_out
    assert re.search(rf"has {n} tokens and the model's context is {n}; shorten the prompt$", str(left_out))


def test_a_prompt_that_the_template_refuses_names_file_task_and_model() -> None:
    made = tiny_tokenizer()
    made.chat_template = "{{ raise_exception('not like this') if messages[0]['content'] == 'q' else 'sentinel' }}"
    made.name_or_path = "runs/sft/model"
    with pytest.raises(
        InputError, match=r"^data.jsonl: task t: the chat template of runs/sft/model refuses .*: not like this"
    ):
        fit_tasks(ChatFormat(made), [Task("t", "q")], 100, 10, "data.jsonl")
