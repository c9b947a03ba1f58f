"""Expressions, composition, and weights over steps."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from posttrain.expressions import Expression, parse_entry
from posttrain.rewards.compose import gate, minimum, product, weighted_sum
from posttrain.rewards.registry import Spec, Weight
from posttrain.rewards.scorer import Scorer
from posttrain.rewards.wrappers import clip
from posttrain.types import InputError, Message, Sample, Score

CODE = """
import asyncio, os, time

def words(response, *, at_most=3, unit="w"):
    return float(len(response.split()) <= at_most)

def size(response):
    return {"score": len(response), "half": len(response) / 2}

def maybe(response):
    return None if response == "skip" else 1.0

def picky(response):
    if response == "bad":
        raise ValueError("no luck")
    if response == "hang":
        time.sleep(60)
    if response == "kill":
        os.kill(os.getpid(), 9)
    return 2.0

def many(completions, *, scale=1):
    return [scale * len(c) for c in completions]

async def slow(response):
    await asyncio.sleep(0.2)
    return float(len(response))

def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    return float(solution_str == ground_truth)

def twice(reward):
    def doubled(response):
        return 2 * reward(response)
    return doubled
"""


def short(response: str) -> float:
    return float(len(response) < 3)


def half(response: str) -> float:
    return 0.5


def odd(completions: list[str]) -> list[float | None]:
    return [None if c == "skip" else float(len(c) % 2) for c in completions]


def sample(text: str, **columns: Any) -> Sample:
    return Sample("q", (Message("assistant", text),), (), columns)


@pytest.fixture
def file(tmp_path: Path) -> str:
    (tmp_path / "r.py").write_text(CODE)
    return f"{tmp_path}/r.py"


def score(
    specs: str | list[str], texts: list[str], timeout: float = 60, step: int | None = None, **columns: Any
) -> list[Score]:
    specs = [specs] if isinstance(specs, str) else specs
    with Scorer(specs, columns=list(columns), timeout_seconds=timeout, workers=1) as scorer:
        return scorer.score([sample(text, **columns) for text in texts], {} if step is None else {"step": step})


# The grammar.


def test_a_nested_entry() -> None:
    text = (
        'gate(format, clip( dir one/r.py:f ,low = -1.5, names=["a, b)", null]) as inner, threshold=1e-1) as q = 0:1,9:2'
    )
    expression, weight = parse_entry(text)
    assert weight == "0:1,9:2"
    assert (expression.target, expression.renamed, expression.options) == ("gate", "q", {"threshold": 0.1})
    form, inner = expression.arguments
    assert form == Expression("format", "format")
    assert (inner.target, inner.renamed) == ("clip", "inner")
    assert inner.options == {"low": -1.5, "names": ["a, b)", None]}
    assert inner.arguments[0].target == "dir one/r.py:f"
    assert [part.target for part in expression.walk()] == ["gate", "format", "clip", "dir one/r.py:f"]


@pytest.mark.parametrize(
    ("text", "target", "weight"),
    [
        ("math", "math", "1"),
        ("reasoning-gym=0.5", "reasoning-gym", "0.5"),
        ("/a=b/r.py:f=2", "/a=b/r.py:f", "2"),
        ("a.b:c", "a.b:c", "1"),
        ('"odd (1), dir/r.py:f"=3', "odd (1), dir/r.py:f", "3"),
        (" format() ", "format", "1"),
    ],
)
def test_targets_and_weights(text: str, target: str, weight: str) -> None:
    expression, weight_text = parse_entry(text)
    assert (expression.target, weight_text) == (target, weight)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "character 1: expected a reward (a name, file.py:function or package.module:function); found its end"),
        ("gate(format", "character 12: expected ',' or ')'; found its end"),
        ("gate(format,)", "character 13: expected a reward"),
        ("gate(format math)", "character 13: expected ',' or ')'; found 'math)'"),
        ("clip(low=0, math)", "character 13: expected NAME=value, since rewards stand before named options"),
        ("clip(math, low=zero)", "character 16: expected a value: a number"),
        ("clip(math, low=NaN)", "character 16: expected a value: a number"),
        ("clip(math, low=1e999)", "character 16: expected a value: a number"),
        ("clip(math, low=yes)", "true, false, null"),
        ("clip(math, low='a')", '"text" in double quotes'),
        ("clip(math, low=0, low=1)", "low was given before"),
        ("math)", "character 5: expected '=' and a weight, or the end; found ')'"),
        ("math as", "character 6: expected '=' and a weight, or the end; found 'as'"),
        ("clip()", "reward clip is made of other rewards; write clip(REWARD, ...)"),
        ("clip", "reward clip is made of other rewards"),
        ("gate(maths, format)", "unknown reward 'maths'; did you mean 'math'? built in are math, format"),
        ("math(format)", "reward math takes no rewards in its brackets; those that do: weighted_sum, product"),
        ("math=1,2", "the weight '1,2' is not a number"),
        ("math=0:1,0:2", "the steps must rise"),
        ("math=0:1,5:inf", "inf is not finite"),
        ("math=0:1:2,5:1", "is not a number, nor points in order of their step"),
        ("math=", "the weight '' is not a number"),
    ],
)
def test_what_is_wrong_and_where(text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        Spec.parse(text)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "{file}:words(most=2)",
            "r.py:words(most=2) could not be loaded: it has no option 'most'; did you mean 'at_most'? it has at_m",
        ),
        ('{file}:words(response="x")', "it has no option 'response'; it has at_most, unit"),
        ("clip({file}:size, lo=1)", "it has no option 'lo'; did you mean 'low'? it has low, high"),
        ("clip({file}:size, reward=1)", "it has no option 'reward'; it has low, high"),
        ("clip({file}:size, low=2)", "clip has low=2 above high=1"),
        ("gate({file}:size)", "missing 1 required positional argument: 'reward'"),
        ("product({file}:size, {file}:size)", "product has two parts named 'size'; rename one: size as NAME"),
        ("par({file}:size)", "par needs the reference: column=NAME of a number, or reference=NAME of a text"),
        ('par({file}:size, column="base")', "par asks for 'base', which is no column"),
        ("clip(math)", "reward math needs a column 'answer' or 'solution' or 'ground_truth'"),
        ("gate(format, {file}:compute_score)", "compute_score asks for 'ground_truth'"),
        ("{file}:size({file}:maybe)", "could not be loaded: "),
    ],
)
def test_what_cannot_be_loaded(file: str, text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        score(text.format(file=file), ["a"])
    assert message in str(caught.value)


# Options and names.


def test_an_option_binds_a_parameter_whatever_the_columns(file: str) -> None:
    """A column of the same name fills it only where no option does."""
    assert [s.total for s in score(f"{file}:words(at_most=1)", ["a", "a b"], at_most=9)] == [1, 0]
    assert [s.total for s in score(f"{file}:words", ["a", "a b"], at_most=1)] == [1, 0]
    assert [s.total for s in score(f"{file}:words", ["a", "a b"])] == [1, 1]
    assert [s.total for s in score(f"{file}:many(scale=3)", ["a", "bb"])] == [3, 6]


def test_an_option_can_be_the_reference_that_is_no_column() -> None:
    assert score('math(answer="4")', ["4", "5"])[0] == Score(1.0, {"math": 1.0})


def test_two_rewards_of_one_function_are_told_apart_by_as(file: str) -> None:
    (first,) = score([f"{file}:words(at_most=1) as brief=2", f"{file}:words(at_most=5)"], ["a b"])
    assert first == Score(1.0, {"brief": 0.0, "words": 1.0})
    with pytest.raises(InputError, match="two rewards are named 'words'.*words as NAME"):
        score([f"{file}:words(at_most=1)", f"{file}:words"], ["a"])


def test_a_wrapper_of_the_users_own(file: str) -> None:
    assert score(f"{file}:twice({file}:maybe)", ["a"])[0] == Score(2.0, {"twice": 2.0})


# Composition.


def test_parts_are_kept_under_the_name_of_the_whole(file: str) -> None:
    (first,) = score(f"weighted_sum({file}:size, clip({file}:maybe, high=0.5), weights=[1, 10]) as all=2", ["abcd"])
    assert first.total == 2 * (4 + 10 * 0.5)
    assert first.parts == {"all": 9.0, "all/size": 4.0, "all/size/half": 2.0, "all/clip": 0.5, "all/clip/maybe": 1.0}


@pytest.mark.parametrize(
    ("expression", "values"),
    [
        ("weighted_sum({0}:words, {0}:size)", [3, 2, 5]),
        ("weighted_sum({0}:words, {0}:size, weights=[2, -1])", [0, 1, -5]),
        ("product({0}:words, {0}:size)", [2, 1, 0]),
        ("minimum({0}:words, {0}:size)", [1, 1, 0]),
        ("gate({0}:words, {0}:size)", [2, 1, 0]),
        ("gate({0}:size, {0}:words, threshold=2)", [1, 0, 0]),
    ],
)
def test_composition_by_hand(file: str, expression: str, values: list[float]) -> None:
    """`words` (at most 0 blanks) is 1, 1, 0 and `size` 2, 1, 5."""
    text = expression.format(file).replace("words", "words(at_most=1)")
    assert [s.total for s in score(text, ["aa", "b", "c d e"])] == values


def test_a_part_that_does_not_apply_takes_the_whole_with_it(file: str) -> None:
    for expression in ("gate({0}:words(at_most=0), {0}:maybe)", "product({0}:maybe, {0}:words)"):
        (one,) = score(expression.format(file), ["skip"])
        assert (one.total, one.reason) == (None, None)


def test_a_failing_hanging_or_killing_sample_inside_costs_only_itself(file: str) -> None:
    scores = score(f"clip(gate({file}:words, {file}:picky), high=1.5)", ["a", "bad", "hang", "kill", "b"], timeout=2)
    assert [s.total for s in scores] == [1.5, None, None, None, 1.5]
    assert scores[1].reason == "clip: ValueError: no luck at r.py:15"
    assert scores[2].reason == "clip: timed out after 2 s"
    assert scores[3].reason == "clip: the worker process was killed by SIGKILL"


def test_a_reward_behind_one_that_failed_or_ran_out_of_time_is_not_called(file: str, tmp_path: Path) -> None:
    """It would take the time of the sample anew. Async samples have a clock each, so the others are scored."""
    (tmp_path / "timed.py").write_text(
        "import asyncio\nfrom pathlib import Path\n"
        "async def first(response):\n"
        "    await asyncio.sleep(60 if response == 'hang' else 0)\n"
        "    return {'bad': 'text'}.get(response, 1.0)\n"
        "def second(response):\n"
        "    Path(__file__).with_name(response).touch()\n"
        "    return 2.0\n"
    )
    own = tmp_path / "timed.py"
    hung, bad, good = score(f"gate({own}:first, {own}:second)", ["hang", "bad", "good"], timeout=0.5)
    assert (hung.reason, bad.reason) == ("gate: timed out after 0.5 s", "gate: score is a str, not a number")
    assert good.total == 2.0 and {name for name in ("hang", "bad", "good") if (tmp_path / name).exists()} == {"good"}


def test_beside_a_batched_reward_a_failing_sample_still_costs_only_itself(file: str) -> None:
    scores = score(f"weighted_sum({file}:many, {file}:picky)", ["a", "bad", "ccc"])
    assert [s.total for s in scores] == [3, None, 5]
    assert scores[1].reason == "weighted_sum: ValueError: no luck at r.py:15"


def test_every_kind_together(file: str) -> None:
    """Per sample, batched, async and verl's names in one expression."""
    text = f"weighted_sum({file}:size, {file}:many, {file}:slow, {file}:compute_score)"
    assert [s.total for s in score(text, ["ab", "c"], ground_truth="c")] == [6, 4]


# In Python.


def test_a_composed_reward_is_a_batched_function_and_can_be_pickled() -> None:
    """As other trainers call it; completions may be messages; null stays null."""
    reward = gate(short, weighted_sum(half, odd, weights=[1, 2]))
    for one in (reward, pickle.loads(pickle.dumps(reward))):
        arguments = {"prompts": ["q"] * 4, "completion_ids": [[1]] * 4, "trainer_state": object(), "level": [1] * 4}
        assert one(completions=["a", "bb", "ccc", "skip"], **arguments) == [2.5, 0.5, 0.0, None]
    assert reward.__name__ == "gate"
    chat = [[{"role": "assistant", "content": "a"}]]
    assert clip(half, low=0.7)(prompts=[[{"role": "user", "content": "q"}]], completions=chat) == [0.7]


def test_in_python_a_failure_is_raised() -> None:
    def broken(response: str) -> float:
        raise ValueError("no luck")

    with pytest.raises(RuntimeError, match=r"2 of 2 samples failed; the first:\n(.|\n)*ValueError: no luck"):
        minimum(half, broken)(prompts=["q", "q"], completions=["a", "b"])


def test_what_is_no_reward_is_refused() -> None:
    with pytest.raises(InputError, match=r"product is made of rewards, and 0\.5 is none; options are given by name"):
        product(half, 0.5)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="minimum needs at least one reward"):
        minimum()
    with pytest.raises(InputError, match="2 rewards and 1 weights"):
        weighted_sum(half, short, weights=[1])


# Weights over steps.


def test_a_curriculum_by_hand() -> None:
    """From 1 to 0.5 between steps 100 and 200, then to 2 at 300."""
    weight = Weight.parse("100:1,200:0.5,300:2")
    assert [weight.at(n) for n in (0, 100, 150, 200, 250, 300, 1000)] == [1, 1, 0.75, 0.5, 1.25, 2, 2]
    assert weight.at(None) == 2 and weight.varies
    constant = Weight.parse("-0.5")
    assert [constant.at(n) for n in (None, 0, 7)] == [-0.5] * 3 and not constant.varies


def test_the_weight_is_that_of_the_trainers_step(file: str) -> None:
    both = [f"{file}:size=0:1,10:0", f"{file}:maybe=3"]
    assert [score(both, ["abcd"], step=n)[0].total for n in (1, 5, 10, 20)] == [3.6 + 3, 2 + 3, 3, 3]
    assert score(both, ["abcd"])[0] == Score(3.0, {"size": 4.0, "size/half": 2.0, "maybe": 1.0})
    with Scorer(both, columns=[], timeout_seconds=60, workers=1) as scorer:
        assert scorer.weights(5) == {"size": 0.5, "maybe": 3.0} and scorer.curriculum(5) == {"size": 0.5}
        assert not scorer.full_marks(Score(0.0, {"size": 4.0, "maybe": 0.0}))


def test_literals_may_be_written_as_in_python() -> None:
    expression, _ = parse_entry("math(lenient=True, other=None)")
    assert expression.options == {"lenient": True, "other": None}
