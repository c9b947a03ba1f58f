"""Reward functions written for TRL, verl and verifiers run unchanged."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

from posttrain.rewards.libraries.adapters import adapt
from posttrain.rewards.scorer import Scorer
from posttrain.types import InputError, Message, Prompt, Sample, Score

CHAT = (Message("system", "Be brief."), Message("user", "q"))


def sample(text: str, prompt: Prompt = "q", ids: tuple[int, ...] = (), **columns: Any) -> Sample:
    return Sample(prompt, (Message("assistant", text),), ids, columns)


def score(code: str, folder: Path, name: str, samples: list[Sample]) -> tuple[list[Score], Scorer]:
    (folder / "theirs.py").write_text(code)
    columns = {column for one in samples for column in one.columns}
    with Scorer([f"{folder}/theirs.py:{name}"], columns=columns, timeout_seconds=30, workers=1) as scorer:
        return scorer.score(samples, {"step": 1}), scorer


def totals(scores: list[Score]) -> list[float | None]:
    assert all(one.reason is None for one in scores), [one.reason for one in scores]
    return [one.total for one in scores]


# TRL: the kinds of function that its guide to custom rewards shows.

TRL = """
import asyncio, re

def longer(completion_ids, **kwargs):
    return [float(len(ids)) for ids in completion_ids]

def distinct(completions, **kwargs):
    return [float(len(set(text))) for text in completions]

def tagged(completions, **kwargs):
    texts = [turns[0]["content"] for turns in completions]
    return [1.0 if re.match(r"^<think>.*?</think><answer>.*?</answer>$", text) else 0.0 for text in texts]

def right(prompts, completions, ground_truth, **kwargs):
    assert all(isinstance(prompt, str) for prompt in prompts)
    found = [re.search(r"\\\\boxed\\{(.*?)\\}", text) for text in completions]
    return [float(bool(match) and match.group(1) == truth) for match, truth in zip(found, ground_truth)]

def math_only(prompts, completions, task, **kwargs):
    return [float(text == "4") if kind == "math" else None for text, kind in zip(completions, task)]

async def asked(prompts, completions, **kwargs):
    async def one(text):
        await asyncio.sleep(0)
        return float(len(text))
    return await asyncio.gather(*map(one, completions))

def logged(completions, answer, log_extra=None, log_metric=None, **kwargs):
    hits = [float(text == wanted) for text, wanted in zip(completions, answer)]
    if log_extra:
        log_extra("said", completions)
    if log_metric:
        log_metric("accuracy", sum(hits) / len(hits))
    return hits

def by_step(completions, trainer_state, **kwargs):
    return [float(trainer_state.step)] * len(completions)
"""


@pytest.mark.parametrize(
    ("name", "samples", "wanted"),
    [
        ("longer", [sample("a", ids=(1, 2)), sample("b", ids=(1,))], [2, 1]),
        ("distinct", [sample("aab"), sample("abc")], [2, 3]),
        ("tagged", [sample("<think>a</think><answer>b</answer>", CHAT), sample("b", CHAT)], [1, 0]),
        ("right", [sample(r"so \boxed{4}", ground_truth="4"), sample("4", ground_truth="4")], [1, 0]),
        ("math_only", [sample("4", task="math"), sample("4", task="code")], [1, None]),
        ("asked", [sample("ab"), sample("c")], [2, 1]),
        ("by_step", [sample("ab")], [1]),
    ],
)
def test_trl_functions(tmp_path: Path, name: str, samples: list[Sample], wanted: list[float | None]) -> None:
    assert totals(score(TRL, tmp_path, name, samples)[0]) == wanted


def test_what_a_trl_function_logs(tmp_path: Path) -> None:
    scores, scorer = score(TRL, tmp_path, "logged", [sample("4", answer="4"), sample("5", answer="4")])
    assert totals(scores) == [1, 0]
    assert scorer.metrics == {"accuracy": 0.5}


@pytest.mark.parametrize(
    ("made", "samples", "wanted"),
    [
        (
            "accuracy_reward",
            [
                sample(r"\boxed{\frac{1}{3}}", CHAT, solution=r"\frac{1}{3}"),
                sample(r"\boxed{2}", CHAT, solution=r"\frac{1}{3}"),
            ],
            [1, 0],
        ),
        (
            "reasoning_accuracy_reward",
            [sample(r"a</think> \boxed{3}", CHAT, solution="$3$"), sample(r"\boxed{3}", CHAT, solution="$3$")],
            [1, 0],
        ),
        ("think_format_reward", [sample("<think>a</think>b", CHAT), sample("b", CHAT)], [1, 0]),
        (
            "get_soft_overlong_punishment(max_completion_len=100, soft_punish_cache=20)",
            [sample("a", CHAT, (1,) * 90), sample("a", CHAT, (1,) * 80)],
            [-0.5, 0],
        ),
        (
            "get_repetition_penalty_reward(ngram_size=2)",
            [sample("a", CHAT, (5,) * 5), sample("a", CHAT, (1, 2, 3))],
            [-0.75, 0],
        ),
        ("get_cosine_scaled_reward(max_len=100)", [sample(r"\boxed{3}", CHAT, (1,) * 50, solution="$3$")], [0.75]),
    ],
)
def test_the_rewards_that_come_with_trl(
    tmp_path: Path, made: str, samples: list[Sample], wanted: list[float | None]
) -> None:
    rewards = pytest.importorskip("trl.rewards")
    if not hasattr(rewards, made.partition("(")[0]):
        pytest.skip(f"this version of TRL has no {made}")
    code = f"from trl import rewards\nf = rewards.{made}\n"
    assert totals(score(code, tmp_path, "f", samples)[0]) == wanted


def test_ours_equal_those_of_trl() -> None:
    """The same numbers for the soft overlong punishment, the repetition penalty and the cosine, for all lengths."""
    theirs = pytest.importorskip("trl.rewards")
    from posttrain.rewards.math.reward import math
    from posttrain.rewards.rules.length import overlong, repetition
    from posttrain.rewards.wrappers import cosine_length

    ids = [[1 + i % 7 for i in range(n)] for n in range(130)]
    wanted = theirs.get_soft_overlong_punishment(100, 20)(completion_ids=ids)
    assert [overlong("", one, max_tokens=100, cache_tokens=20) for one in ids] == pytest.approx(wanted)
    wanted = theirs.get_repetition_penalty_reward(3, -1.0)(completion_ids=ids)
    assert [repetition("", one, unit="tokens") for one in ids] == pytest.approx(wanted)
    for text in (r"\boxed{3}", r"\boxed{4}"):
        wanted = theirs.get_cosine_scaled_reward(max_len=200)(
            completions=[[{"content": text}]] * 130, solution=["$3$"] * 130, completion_ids=ids
        )
        ours = cosine_length(math, max_length=200)
        given = {"completions": [text] * 129, "completion_ids": ids[1:], "solution": ["3"] * 129}
        assert ours(["?"] * 129, **given) == pytest.approx(wanted[1:])


# verl: the file that custom_reward_function.path names.

VERL = """
def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    if data_source != "openai/gsm8k":
        raise NotImplementedError(data_source)
    found = solution_str.rsplit("####", 1)[-1].strip()
    return 1.0 if found == ground_truth else 0.1 * ("####" in solution_str)

def with_parts(data_source, solution_str, ground_truth, extra_info=None, **kwargs):
    hit = solution_str == ground_truth
    return {"score": 1.0 if hit else -1.0, "acc": hit, "pred": solution_str, "index": extra_info["index"]}

async def waits(data_source, solution_str, ground_truth, extra_info):
    return float(solution_str == ground_truth)

def compute_score_batched(data_sources, solution_strs, ground_truths, extra_infos, bonus=0.0):
    assert len(data_sources) == len(solution_strs) == len(ground_truths) == len(extra_infos)
    return [float(said == truth) + bonus for said, truth in zip(solution_strs, ground_truths)]

def batched_parts(data_sources, solution_strs, ground_truths, extra_infos):
    return [{"score": 1.0, "length": len(said)} for said in solution_strs]
"""


def verl_row(text: str, prompt: Prompt = CHAT) -> Sample:
    truth = {"style": "rule", "ground_truth": "4"}
    return sample(text, prompt, data_source="openai/gsm8k", reward_model=truth, extra_info={"index": 3})


@pytest.mark.parametrize(
    ("name", "texts", "wanted"),
    [
        ("compute_score", ["so #### 4", "so #### 5", "4."], [1, 0.1, 0]),
        ("with_parts", ["4", "5"], [1, -1]),
        ("waits", ["4", "5"], [1, 0]),
        ("compute_score_batched", ["4", "5"], [1, 0]),
        ("batched_parts", ["4", "55"], [1, 1]),
    ],
)
@pytest.mark.parametrize("prompt", [CHAT, "q"], ids=["chat", "text"])
def test_verl_functions(tmp_path: Path, name: str, texts: list[str], wanted: list[float], prompt: Prompt) -> None:
    assert totals(score(VERL, tmp_path, name, [verl_row(text, prompt) for text in texts])[0]) == wanted


def test_a_batched_verl_function_reads_the_column_answer(tmp_path: Path) -> None:
    rows = [sample("4", answer="4"), sample("5", answer="4")]
    assert totals(score(VERL, tmp_path, "compute_score_batched", rows)[0]) == [1, 0]


def test_parts_of_verl_functions(tmp_path: Path) -> None:
    (one,), _ = score(VERL, tmp_path, "with_parts", [verl_row("4")])
    assert dict(one.parts) == {"with_parts": 1, "with_parts/acc": 1, "with_parts/index": 3}
    (one,), _ = score(VERL, tmp_path, "batched_parts", [verl_row("55")])
    assert dict(one.parts) == {"batched_parts": 1, "batched_parts/length": 2}


# verifiers: rubrics, whose functions ask by name.

RUBRIC = """
class Parser:
    def parse_answer(self, completion):
        return completion[-1]["content"] if isinstance(completion, list) else completion

class Rubric:
    def __init__(self, funcs=(), weights=None, rubrics=(), **objects):
        self.funcs, self.rubrics = list(funcs), rubrics
        self.weights = weights or [1.0] * len(self.funcs)
        self.parser = Parser()
        self.class_objects = {"parser": self.parser, **objects}

def right(parser, completion, answer):
    return 1.0 if parser.parse_answer(completion) == answer else 0.0

async def asks(prompt, completion, state, info, task, limit):
    assert state["prompt"] is prompt and state["completion"] is completion and state["answer"] == "4"
    if isinstance(prompt, list):
        assert [turn["role"] for turn in prompt] == ["system", "user"], prompt
        assert [turn["role"] for turn in completion] == ["assistant"], completion
    return float(info["level"] + limit)

def everything(completion, **kwargs):
    return float(kwargs["level"])

def fine(completion):
    if "bad" in str(completion):
        raise KeyError("gone")
    return 1.0

def relative(completions, answers):
    return [0.0] * len(completions)

rubric = Rubric([right, asks], [1.0, 0.5], limit=2)
group = Rubric(rubrics=[Rubric([right], [2.0]), Rubric([everything])])
fragile = Rubric([fine])
comparing = Rubric([relative])
nothing = 3
"""


@pytest.mark.parametrize("prompt", [CHAT, "q"], ids=["chat", "text"])
def test_rubrics(tmp_path: Path, prompt: Prompt) -> None:
    rows = [sample(text, prompt, answer="4", info={"level": 4}, level=7) for text in ("4", "5")]
    scores, _ = score(RUBRIC, tmp_path, "rubric", rows)
    assert totals(scores) == [4, 3]
    assert dict(scores[0].parts) == {"rubric": 4, "rubric/right": 1, "rubric/asks": 6}
    assert totals(score(RUBRIC, tmp_path, "group", rows)[0]) == [9, 7]


def test_a_rubric_function_that_raises_is_no_zero(tmp_path: Path) -> None:
    scores, _ = score(RUBRIC, tmp_path, "fragile", [sample("good"), sample("bad"), sample("good")])
    assert [one.total for one in scores] == [1, None, 1]
    assert "KeyError: 'gone'" in (scores[1].reason or "")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("comparing", "rubric function 'relative' compares a group (answers, completions)"),
        ("nothing", "a reward is a function or a rubric, not a int"),
    ],
)
def test_what_cannot_be_a_reward(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        score(RUBRIC, tmp_path, name, [sample("a")])
    assert message in str(caught.value)


def test_a_rubric_of_the_library() -> None:
    verifiers = pytest.importorskip("verifiers")
    if not hasattr(verifiers, "Rubric"):
        pytest.skip("this version of verifiers has no Rubric")

    def right(parser: Any, completion: Any, answer: str) -> float:
        return float(parser.parse_answer(completion) == answer)

    reward = adapt(verifiers.Rubric(funcs=[right], weights=[2.0]))
    awaiting = reward(prompt="q", response="4", messages=[], prompt_messages=None, answer="4")
    assert inspect.iscoroutine(awaiting)
    with pytest.raises(StopIteration) as done:
        awaiting.send(None)
    assert done.value.value == {"right": 1.0, "score": 2.0}
