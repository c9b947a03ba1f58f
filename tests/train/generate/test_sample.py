"""The sample stage: which answers become which rows, what is left out, endpoints, and resuming."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from posttrain.cli.main import main
from posttrain.config import SampleConfig
from posttrain.data.formats import load_preferences, load_sft
from posttrain.models import load_model, weights_hash
from posttrain.rewards.check import check_soft_labels
from posttrain.train.generate.sample import sample_answers
from posttrain.train.generate.select import preference, rows_of
from posttrain.types import Group, InputError, Message, Rollout, RunFailed, Sampling, Score, Task
from tests.processes import assert_same_run, cut
from tests.servers.chat import ChatServer
from tests.training_helpers import events, metrics, read_rows, write_rows

REWARDS = """
def digits(response):
    return sum(c in "0123456789" for c in response)

def seed_digit(response):
    return int(response.split()[-1])

def picky(response):
    if "e" in response:
        raise ValueError("an e")
    return len(set(response))
"""


def config(**options: Any) -> SampleConfig:
    return SampleConfig(**{"model": "m", "data": "d", "out": Path("o"), "reward": ("math",), **options})


def group(
    answers: Sequence[tuple[str, float | None]], prompt: Any = "p", statuses: Sequence[str] = (), tools: Any = ()
) -> Group:
    """A task's answers with their scores."""
    rollouts = tuple(
        Rollout("t", i, Sampling(4), 100 + i, (Message("assistant", text),), (), statuses[i] if statuses else "ok")  # type: ignore[arg-type]
        for i, (text, _) in enumerate(answers)
    )
    scores = tuple(Score(total, {"r": total}, None if total is not None else "broke") for _, total in answers)
    return Group(Task("t", prompt, {}, tools), rollouts, scores)


def chosen(rows: Sequence[dict[str, Any]]) -> list[int]:
    return [row["index"] for row in rows]


def rows(found: Group, seed: int = 0, **options: Any) -> tuple[list[dict[str, Any]], Counter[str]]:
    return rows_of(found, config(**options), np.random.default_rng(seed))


# -- choosing ---------------------------------------------------------------------------------------------------------


def test_the_best_answers_in_order_of_score() -> None:
    answers = group([("a", 0.2), ("b", 0.9), ("c", None), ("d", 0.5), ("b", 0.9), ("e", 0.1)])
    written, dropped = rows(answers, keep=3)
    assert [row["completion"] for row in written] == ["b", "d", "a"]
    assert [row["score"] for row in written] == [0.9, 0.5, 0.2]
    assert dropped == {"unscored": 1, "duplicates": 1}
    (row,), _ = rows(group([("a", 0.2), ("b", 0.9)]))
    assert row == {
        "prompt": "p",
        "completion": "b",
        "score": 0.9,
        "parts": {"r": 0.9},
        "status": "ok",
        "index": 1,
        "seed": 101,
        "task": "t",
    }


def test_ties_are_drawn_by_the_seed_and_evenly() -> None:
    answers = group([("a", 1.0), ("b", 1.0), ("c", 0.0), ("d", 1.0)])
    drawn = Counter(chosen(rows(answers, seed)[0])[0] for seed in range(600))
    assert set(drawn) == {0, 1, 3}
    assert all(150 < n < 250 for n in drawn.values())
    assert rows(answers, 7) == rows(answers, 7)


def test_a_threshold_lets_only_good_answers_through() -> None:
    answers = group([("a", 0.4), ("b", 0.5), ("c", 0.6)])
    written, dropped = rows(answers, keep=3, threshold=0.5)
    assert [row["completion"] for row in written] == ["c", "b"]
    assert dropped == {"below_threshold": 1}
    written, dropped = rows(answers, threshold=0.7)
    assert written == [] and dropped == {"below_threshold": 3, "tasks_without_a_row": 1}
    written, dropped = rows(group([("a", 0.4), ("b", None)]), write="all", threshold=0.1)
    assert chosen(written) == [0] and dropped == {"unscored": 1}


def test_answers_that_were_cut_are_no_examples() -> None:
    answers = group([("a", 0.4), ("b", 0.9)], statuses=["ok", "truncated"])
    written, dropped = rows(answers)
    assert chosen(written) == [0] and dropped == {"truncated": 1}
    written, dropped = rows(answers, truncated="keep")
    assert chosen(written) == [1] and not dropped


def test_all_writes_every_answer_there_is() -> None:
    answers = group([("a", None), ("a", None), ("", None)], statuses=["ok", "ok", "failed"])
    written, dropped = rows(answers, write="all", reward=())
    assert [row["completion"] for row in written] == ["a", "a"]
    assert dropped == {"failed": 1}


def test_pairs_of_the_best_and_the_worst() -> None:
    answers = group([("a", 0.2), ("b", 0.9), ("c", None), ("d", 0.5)])
    (row,), dropped = rows(answers, write="pairs")
    assert (row["chosen"], row["rejected"]) == ("b", "a")
    assert (row["chosen_score"], row["rejected_score"]) == (0.9, 0.2)
    assert (row["chosen_index"], row["rejected_index"], row["chosen_seed"], row["rejected_seed"]) == (1, 0, 101, 100)
    assert dropped == {"unscored": 1}
    assert rows(group([("a", 1.0), ("b", 1.0)]), write="pairs") == ([], {"tasks_of_equal_scores": 1})
    assert rows(group([("a", None)] * 2), write="pairs") == ([], {"unscored": 2, "tasks_without_a_score": 1})
    assert rows(group([("a", 1.0), ("a", 0.0)]), write="pairs") == ([], {"tasks_of_equal_answers": 1})


JUDGE = 'judge_pair(model="m", url="http://127.0.0.1:9/v1", rubric="good?", clamp=0.1)'


def test_a_soft_label_of_two_answers_is_what_the_judge_made_of_them() -> None:
    (row,), _ = rows(group([("a", 0.4), ("b", 0.6)]), write="pairs", soft_labels=True, reward=(JUDGE,))
    assert (row["chosen"], row["rejected"], row["probability"]) == ("b", "a", 0.6)
    (plain,), _ = rows(group([("a", 0.4), ("b", 0.6)]), write="pairs", reward=(JUDGE,))
    assert plain == {name: value for name, value in row.items() if name != "probability"}
    assert rows(group([("a", 0.5), ("b", 0.5)]), write="pairs", soft_labels=True) == ([], {"tasks_of_equal_scores": 1})


def test_a_soft_label_of_many_answers_is_the_mean_over_the_ways_between_two() -> None:
    """p of each against each by hand; the best is the first and the worst the last."""
    p = {(0, 1): 0.9, (0, 2): 0.5, (0, 3): 0.9, (1, 2): 0.9, (1, 3): 0.5, (2, 3): 0.9}
    p |= {(j, i): 1 - value for (i, j), value in p.items()}
    wins = [sum(p[i, j] for j in range(4) if j != i) / 3 for i in range(4)]
    assert max(wins) == wins[0] and min(wins) == wins[3]
    ways = [p[0, 3], *((p[0, k] + p[k, 3]) / 2 for k in (1, 2))]
    assert preference(wins[0], wins[3]) == pytest.approx(sum(ways) / 3)
    assert preference(0.9, 0.1) == 0.9 and preference(1.0, 0.0) == 1.0


@pytest.mark.parametrize(
    "reward",
    [
        ("math",),
        (JUDGE, "repetition=0.1"),
        (f"{JUDGE}=0.5",),
        (f"{JUDGE}=0:1,10:2",),
        (f"clip({JUDGE}, low=0.2)",),
        (JUDGE.replace("judge_pair", "judge").replace(", clamp=0.1", ""),),
    ],
)
def test_soft_labels_need_win_rates(tmp_path: Path, reward: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match=r"soft_labels needs judge_pair\(\.\.\.\) as the only reward"):
        sample_answers(config(write="pairs", soft_labels=True, reward=reward, out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    check_soft_labels(config(write="pairs", reward=reward))


@pytest.mark.parametrize("reward", [JUDGE, f"sanitised(strip_thinking({JUDGE})) as better", f"{JUDGE}=1.0"])
def test_soft_labels_of_judges_that_compare(reward: str) -> None:
    check_soft_labels(config(write="pairs", soft_labels=True, reward=(reward,)))
    with pytest.raises(ValueError, match="soft_labels are of pairs"):
        config(soft_labels=True, reward=(reward,))


def test_conversations_and_tools_stay_what_they_are() -> None:
    prompt = (Message("system", "s"), Message("user", "u"))
    tool = {"type": "function", "function": {"name": "f"}}
    (row,), _ = rows(group([("a", 0.2), ("b", 0.9)], prompt, tools=(tool,)))
    assert row["prompt"] == [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    assert row["completion"] == [{"role": "assistant", "content": "b"}]
    assert row["tools"] == [tool]
    (row,), _ = rows(group([("a", 0.2), ("b", 0.9)], prompt), write="pairs")
    assert row["chosen"] == [{"role": "assistant", "content": "b"}]


# -- runs of the tiny model -------------------------------------------------------------------------------------------


def command(tmp_path: Path, *options: str, out: str = "out", tasks: int = 6, samples: int = 4) -> list[str]:
    """`posttrain sample` on a few tasks, without a source and a reward."""
    (tmp_path / "rewards.py").write_text(REWARDS)
    data = write_rows(tmp_path / "tasks.jsonl", [{"prompt": f"Say {i}"} for i in range(tasks)])
    fixed = ["sample", "--data", str(data), "--out", str(tmp_path / out), "--max-new-tokens", "6"]
    return [*fixed, "--samples", str(samples), "--max-concurrent", "8", "--truncated", "keep", *options]


def tiny(tmp_path: Path, *options: str, reward: str = "digits", **more: Any) -> list[str]:
    return command(tmp_path, "--model", "tiny-random", "--reward", f"{tmp_path}/rewards.py:{reward}", *options, **more)


def test_rows_are_the_best_of_what_was_sampled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(tiny(tmp_path, "--keep", "2")) == 0
    assert capsys.readouterr().out == f"{out / 'sft.jsonl'}\n"
    rollouts = read_rows(out / "rollouts.jsonl")
    written = read_rows(out / "sft.jsonl")
    assert len(rollouts) == 24 and len(written) == 12
    assert load_sft(str(out / "sft.jsonl"))
    for task in range(6):
        answers = [r for r in rollouts if r["task"] == str(task)]
        assert all(r["score"] == sum(c in "0123456789" for c in r["text"]) for r in answers)
        mine = [row for row in written if row["task"] == str(task)]
        assert [row["score"] for row in mine] == sorted((r["score"] for r in answers), reverse=True)[:2]
        for row in mine:
            (source,) = [r for r in answers if r["index"] == row["index"]]
            assert (row["completion"], row["seed"], row["parts"]) == (source["text"], source["seed"], source["parts"])
            assert row["prompt"] == f"Say {task}"
    assert {row["model"] for row in written} == {"tiny-random"}
    assert {row["weights_hash"] for row in written} == {weights_hash(load_model("tiny-random").source)}
    lineage = json.loads((out / "lineage.json").read_text())
    assert (lineage["stage"], lineage["rows"], lineage["of_tasks"]) == ("sample", 12, 6)
    cost = json.loads((out / "cost.json").read_text())
    assert cost["flops"] == metrics(out)[-1]["flops"] > 0
    prompts = {r["task"]: len(r["segments"][0]["sampled"]) - sum(r["segments"][0]["sampled"]) for r in rollouts}
    assert cost["tokens"] == sum(prompts.values()) + sum(sum(r["segments"][0]["sampled"]) for r in rollouts)


def test_what_was_left_out_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(tiny(tmp_path, "--threshold", "1", "--max-unscored-share", "0.9", reward="picky")) == 0
    (event,) = events(tmp_path / "out", "dropped")
    scores = [r["score"] for r in read_rows(tmp_path / "out" / "rollouts.jsonl")]
    assert event["unscored"] == scores.count(None) > 0
    assert f"warning: left out: {event['unscored']} unscored" in capsys.readouterr().err
    assert json.loads((tmp_path / "out" / "lineage.json").read_text())["dropped"]["unscored"] == event["unscored"]


def test_pairs_and_all(tmp_path: Path) -> None:
    assert main(tiny(tmp_path, "--write", "pairs", out="pairs", tasks=12)) == 0
    pairs = read_rows(tmp_path / "pairs" / "pairs.jsonl")
    assert len(load_preferences(str(tmp_path / "pairs" / "pairs.jsonl"))) == len(pairs) > 0
    assert all(row["chosen_score"] > row["rejected_score"] for row in pairs)
    assert main(command(tmp_path, "--model", "tiny-random", "--write", "all", out="all")) == 0
    written = read_rows(tmp_path / "all" / "sft.jsonl")
    assert len(written) == 24 and {row["score"] for row in written} == {None}


def test_pairs_whose_chosen_answer_was_cut_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(tiny(tmp_path, "--write", "pairs", out="pairs", tasks=12)) == 0
    pairs = read_rows(tmp_path / "pairs" / "pairs.jsonl")
    cut = sum(row["chosen_status"] == "truncated" for row in pairs)
    assert cut and f"{cut} of {len(pairs)} chosen answers were cut by max_new_tokens=" in capsys.readouterr().err


def test_nothing_to_write_is_a_failed_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(tiny(tmp_path, "--threshold", "99")) == 1
    assert "no answer gave a row to write (24 below threshold, 6 tasks without a row)" in capsys.readouterr().err
    assert not (tmp_path / "out" / "lineage.json").exists()


def test_too_many_failures_stop_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "broken.py").write_text("def broken(response):\n    return 1 / 0\n")
    assert main(command(tmp_path, "--model", "tiny-random", "--reward", f"{tmp_path}/broken.py:broken")) == 1
    assert "ZeroDivisionError" in capsys.readouterr().err
    assert events(tmp_path / "out", "stopped")


def test_resumed_from_a_cut_folder_equals_uninterrupted(tmp_path: Path) -> None:
    """24 tasks in steps of 4, as a kill after step 2 leaves them: what was done then is not done again."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    arguments = tiny(tmp_path, "--write", "pairs", out="whole", tasks=24, samples=8)
    assert main(arguments) == 0
    again = [str(killed) if a == str(whole) else a for a in arguments]
    cut(killed, whole, at=2)
    assert not (killed / "pairs.jsonl").exists()
    assert main([*again, "--resume"]) == 0
    assert_same_run(killed, whole, partial(metrics, timeless=True))
    assert (killed / "pairs.jsonl").read_bytes() == (whole / "pairs.jsonl").read_bytes()
    assert [e["resumed_from"] for e in events(killed, "resumed_from")] == [2]
    costs = [json.loads((run / "cost.json").read_text()) | {"seconds": 0} for run in (killed, whole)]
    assert costs[0] == costs[1]


def test_recorded_answers_are_not_scored_again(tmp_path: Path) -> None:
    arguments = tiny(tmp_path)
    assert main(arguments) == 0
    out = tmp_path / "out"
    before = (out / "sft.jsonl").read_bytes()
    for file in ("lineage.json", "sft.jsonl"):
        (out / file).unlink()
    (tmp_path / "rewards.py").write_text("def digits(response):\n    return -5.0\n")
    assert main([*arguments, "--resume"]) == 0
    assert (out / "sft.jsonl").read_bytes() == before


# -- endpoints --------------------------------------------------------------------------------------------------------


def from_endpoint(tmp_path: Path, server: ChatServer, *options: str, **more: Any) -> list[str]:
    return command(tmp_path, "--endpoint", server.url, "--endpoint-model", "teacher", *options, **more)


def test_answers_of_an_endpoint(tmp_path: Path, server: ChatServer) -> None:
    """The server ends each answer with the last digit of the request's seed."""
    reward = ["--reward", f"{tmp_path}/rewards.py:seed_digit"]
    assert main(from_endpoint(tmp_path, server, *reward)) == 0
    written = read_rows(tmp_path / "out" / "sft.jsonl")
    assert len(written) == 6
    for i, row in enumerate(written):
        asked = [r["request"] for r in server.requests() if r["request"]["messages"][0]["content"] == f"Say {i}"]
        assert len(asked) == 4 and len({r["seed"] for r in asked}) == 4
        assert row["completion"] == f"Say {i} {max(r['seed'] % 10 for r in asked)}"
        assert row["score"] == max(r["seed"] % 10 for r in asked)
        assert (row["model"], row["weights_hash"], row["task"]) == ("teacher", None, str(i))
    cost = json.loads((tmp_path / "out" / "cost.json").read_text())
    assert cost["tokens"] == 24 * 10 and cost["flops"] == 0
    assert "sk-of-the-test" not in "".join(f.read_text() for f in (tmp_path / "out").rglob("*.*") if f.is_file())


def test_a_spent_budget_is_raised_and_the_run_goes_on(
    tmp_path: Path, server: ChatServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every request is made once in all, and the result is that of a run with all the budget."""
    assert main(from_endpoint(tmp_path, server, "--write", "all", out="whole")) == 0
    made = len(server.requests())
    assert made == 24
    limited = from_endpoint(tmp_path, server, "--write", "all")
    assert main([*limited, "--endpoint-max-requests", "13"]) == 1
    assert "budget of max_requests=13 is spent" in capsys.readouterr().err
    assert len(server.requests()) == made + 13
    assert main([*limited, "--endpoint-max-requests", "30", "--resume"]) == 0
    assert len(server.requests()) == made + 24
    whole, resumed = ((tmp_path / run / "sft.jsonl").read_bytes() for run in ("whole", "out"))
    assert whole == resumed
    assert [e["requests"] for e in events(tmp_path / "out", "endpoint")] == [13, 11]


def test_a_shared_cache_makes_a_second_run_free(tmp_path: Path, server: ChatServer) -> None:
    cache = ["--write", "all", "--endpoint-cache", str(tmp_path / "cache")]
    assert main(from_endpoint(tmp_path, server, *cache, out="one")) == 0
    made = len(server.requests())
    assert main(from_endpoint(tmp_path, server, *cache, out="two")) == 0
    assert len(server.requests()) == made
    assert (tmp_path / "one" / "sft.jsonl").read_bytes() == (tmp_path / "two" / "sft.jsonl").read_bytes()


def test_an_answer_that_could_not_be_had_is_left_out(tmp_path: Path, server: ChatServer) -> None:
    data = write_rows(tmp_path / "some.jsonl", [{"prompt": p} for p in ("hello", "too long", "long", "hi")])
    options = {"data": str(data), "samples": 1, "write": "all", "endpoint": server.url, "endpoint_model": "m"}
    out = tmp_path / "out"
    sample_answers(SampleConfig(**options, out=out, max_unscored_share=0.9))
    assert [row["prompt"] for row in read_rows(out / "sft.jsonl")] == ["hello", "hi"]
    assert events(out, "dropped") == [{"event": "dropped", "failed": 1, "truncated": 1, "tasks_without_a_row": 2}]
    assert "answers 400" in read_rows(out / "rollouts.jsonl")[1]["error"]
    write_rows(data, [{"prompt": "too long", "id": i} for i in range(9)])
    with pytest.raises(RunFailed, match="could not be scored"):
        sample_answers(SampleConfig(**options, out=tmp_path / "bad"))


def test_an_endpoint_is_not_given_tools(tmp_path: Path) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    data = write_rows(tmp_path / "tools.jsonl", [{"prompt": "p", "tools": [tool]}])
    options = {"data": str(data), "write": "all", "endpoint": "http://127.0.0.1:9/v1", "endpoint_model": "m"}
    with pytest.raises(InputError, match=r"tools.jsonl: task 0 has tools"):
        sample_answers(SampleConfig(**options, out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()
