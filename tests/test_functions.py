"""Functions that Python hands over: told apart, refused by name, and run in worker processes."""

from __future__ import annotations

import linecache
import pickle
import re
import subprocess
import sys
import threading
from functools import lru_cache, partial, wraps
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from posttrain import functions
from posttrain.api.inputs import reward
from posttrain.config import RlConfig
from posttrain.functions import FunctionText, contents, identity
from posttrain.rewards.registry import Spec
from posttrain.rewards.scorer import Scorer
from posttrain.types import InputError, Message, Sample

NOTEBOOK = "__main__"


def cell(code: str, **names: Any) -> Any:
    """The last function or class that a notebook's cell defines, whose module no worker can import."""
    space: dict[str, Any] = {"__name__": NOTEBOOK, **names}
    exec(code, space)
    return [value for value in space.values() if isinstance(value, FunctionType | type)][-1]


def sample(text: str) -> Sample:
    return Sample("?", (Message("assistant", text),), (), {})


def total(function: Any, text: str = "abc", **options: Any) -> float | None:
    with Scorer((FunctionText.of(function),), columns=(), timeout_seconds=60, workers=1, **options) as scorer:
        return scorer.score([sample(text)])[0].total


def closing(value: Any) -> Any:
    def reward(response: str) -> float:
        return float(value is not None)

    return reward


def concise(response: str, limit: int = 3) -> float:
    return float(len(response) <= limit)


def test_the_text_names_the_function_and_its_hash():
    assert re.fullmatch(r"<function concise sha256=[0-9a-f]{64}>=0.5", FunctionText.of(concise, "=0.5"))
    assert FunctionText.of(lambda response: 1.0).startswith("<function lambda sha256=")
    assert FunctionText.of(cell("class Brevity: pass")).startswith("<class Brevity sha256=")


def test_the_identity_is_of_code_defaults_and_values():
    assert identity(closing(1)) == identity(closing(1)) != identity(closing(2))
    assert identity(closing([1, {"a": 2}])) == identity(closing([1, {"a": 2}])) != identity(closing([1, {"a": 3}]))
    assert identity(closing(torch.ones(2))) == identity(closing(torch.ones(2))) != identity(closing(torch.zeros(2)))
    assert identity(partial(concise, limit=3)) != identity(partial(concise, limit=4))
    shorter, longer = (lambda response: 1.0), (lambda response: 2.0)  # of one line, whose source is the same
    assert identity(shorter) != identity(longer)


def twice(function: Any) -> Any:
    return wraps(function)(lambda *given, **named: 2 * function(*given, **named))


def doubled(function: Any) -> Any:
    @wraps(function)
    def inner(*given: Any, **named: Any) -> Any:
        return function(*given, **named) + function(*given, **named)

    return inner


class Slotted:
    __slots__ = ("limit",)

    def __init__(self, limit: int) -> None:
        self.limit = limit


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (closing([[1, 2], 3]), closing([[1, 2, 3]])),
        (lambda response: len(response), lambda prompt: len(prompt)),
        (twice(concise), doubled(concise)),
        (closing(Slotted(1)), closing(Slotted(2))),
        (closing(re.compile("a" * 300)), closing(re.compile("a" * 301))),
        (closing(torch.tensor([1 + 1j])), closing(torch.tensor([1 + 2j]))),
        (closing(pd.DataFrame({"a": [1]})), closing(pd.DataFrame({"b": [1]}))),
    ],
)
def test_what_does_something_else_has_another_identity(one: Any, other: Any):
    assert identity(one) != identity(other)


CHANGED = {
    "a cached helper": "@lru_cache\ndef helper(x): return 1\ndef reward(response): return helper(response)",
    "a partial helper": "helper = partial(lambda a, b: 1, 2)\ndef reward(response): return helper(response)",
    "a tuple": "LIMITS = (1, 2)\ndef reward(response): return LIMITS[0]",
    "a base": "class Base:\n def f(self): return 1\nclass Reward(Base):\n def __call__(self, x): return self.f()",
    "a property": "class Reward:\n @property\n def w(self): return 1\n def __call__(self, response): return self.w",
}


@pytest.mark.parametrize("case", CHANGED)
def test_what_it_uses_of_the_notebook_is_part_of_it(case: str):
    code, other = CHANGED[case], CHANGED[case].replace("1", "3", 1)
    one, same, changed = (cell(text, lru_cache=lru_cache, partial=partial) for text in (code, code, other))
    assert identity(one) == identity(same) != identity(changed)


def test_a_constant_or_helper_of_the_notebook_is_part_of_it_and_its_state_is_not():
    reads = "def reward(response): return helper(response) * SCALE"
    helper, other = cell("def helper(x): return len(x)"), cell("def helper(x): return 2 * len(x)")
    known = identity(cell(reads, SCALE=1.0, helper=helper))
    assert known == identity(cell(reads, SCALE=1.0, helper=helper))
    assert known != identity(cell(reads, SCALE=2.0, helper=helper))
    assert known != identity(cell(reads, SCALE=1.0, helper=other))
    counts = "def reward(response): seen.append(response); return 1.0"
    assert identity(cell(counts, seen=[])) == identity(cell(counts, seen=["said"]))


def test_the_parts_of_an_identity_say_what_differs():
    def changed(one: Any, other: Any) -> list[str]:
        mine, theirs = contents(one), contents(other)
        return [name for name in dict.fromkeys([*mine, *theirs]) if mine.get(name) != theirs.get(name)]

    code = "def reward(response, most=1): return helper(response) * SCALE"
    one, other = cell("def helper(x): return 1"), cell("def helper(x): return 2")
    given = {"helper": one, "SCALE": 1}
    assert changed(cell(code, **given), cell(code, **given)) == []
    assert changed(cell(code, **given), cell(code, helper=other, SCALE=1)) == ["helper, which it reads"]
    assert changed(cell(code, **given), cell(code, helper=one, SCALE=2)) == ["SCALE, which it reads"]
    assert changed(cell(code, **given), cell(code.replace("most=1", "most=2"), **given)) == ["its defaults"]
    assert changed(cell(code, **given), cell(code.replace("*", "+"), **given)) == ["its bytecode"]
    assert changed(concise, closing(1)) == ["its source", "its defaults", "value, which it reads"]
    assert changed(cell(CHANGED["a property"]), cell(CHANGED["a property"].replace("1", "2"))) == ["its w"]
    assert changed(partial(concise, limit=3), partial(concise, limit=4)) == ["its content"]
    assert contents(closing(np.float64(1)))["value, which it reads"].startswith(f"numpy {np.__version__} ")


def test_a_function_may_name_itself():
    assert identity(cell("def count(response): return count(response[1:]) + 1 if response else 0"))


def test_the_identity_is_the_same_in_every_process():
    code = (
        "from posttrain.functions import identity\n"
        "names = {'a', 'b', 'c', 'd'}\n"
        "def make(names):\n    def reward(response): return float(response in names)\n    return reward\n"
        "print(identity(make(names)))"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, timeout=60)
        for seed in ("1", "2")
    ]
    assert runs[0].stdout == runs[1].stdout != b""


@pytest.mark.parametrize(
    "code",
    [
        "def reward(response): return float(len(response))",
        "reward = lambda response: 3.0\ndef named(): pass\nnamed = reward",
        "class Reward:\n    def __call__(self, response): return 3.0",
        "from functools import lru_cache\n@lru_cache\ndef size(text): return 1.0 + size(text[1:]) if text else 0.0\n"
        "def reward(response): return size(response)",
    ],
)
def test_what_a_notebook_defines_scores_in_a_worker(code: str):
    assert total(cell(code)) == 3.0


def test_a_weight_and_a_name_may_follow():
    spec = Spec.parse(FunctionText.of(concise, " as short=0.5"))
    assert (spec.name, spec.weight.at(None)) == ("short", 0.5)
    assert Spec.parse(FunctionText.of(concise)).name == "concise"
    assert reward(concise, weight=np.float32(0.5)).endswith("=0.5")
    for given, weight, fault in (("math", 1.0, "'math' is no function"), (concise, "much", "'much' is not a number")):
        with pytest.raises(InputError, match=fault):
            reward(given, weight=weight)  # type: ignore[arg-type]


def test_a_function_that_is_not_there_is_named():
    written = str(FunctionText.of(concise))
    with pytest.raises(InputError, match=r"reward <function concise sha256=.*: is Python .* resume=True"):
        Spec.parse(written)
    assert isinstance(RlConfig(model="m", data="d", out="o", reward=(concise,)).reward[0], FunctionText)  # type: ignore[arg-type]


def test_a_configuration_writes_the_text_alone():
    config = RlConfig(model="m", data="d", out="o", reward=(concise,))  # type: ignore[arg-type]
    [written] = config.model_dump(mode="json")["reward"]
    assert type(written) is str and written == config.reward[0]


def test_large_values_and_device_tensors_are_refused_by_name(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(functions, "LARGEST_BYTES", 1 << 20)
    reads = "def reward(response): return float(len(table))"
    for table, fault in (
        ("x" * (1 << 20), "reward captures table, which takes more than 1 MB"),
        ([torch.ones(1, device="meta")], "reward captures table, which has a tensor on meta"),
        (torch.nn.Linear(1, 1, device="meta"), "reward captures table, which has a tensor on meta"),
    ):
        with pytest.raises(InputError, match=fault):
            pickle.dumps(FunctionText.of(cell(reads, table=table)))
    with pytest.raises(InputError, match="captures value, which takes more"):
        pickle.dumps(FunctionText.of(cell("def helper(response): return value", value="x" * (1 << 20))))
    with pytest.raises(InputError, match=r"reward cannot be sent to a worker \(.*\); make or load it inside"):
        pickle.dumps(FunctionText.of(cell(reads, table=threading.Lock())))


def test_what_cannot_be_unpickled_there_is_said():
    gone = ModuleType("nowhere_to_be_found")
    exec("def reward(response): return 1.0", vars(gone))
    sys.modules["nowhere_to_be_found"] = gone
    try:
        with pytest.raises(InputError, match="<function reward sha256=.*> could not be loaded: ModuleNotFoundError"):
            total(gone.reward)
    finally:
        del sys.modules["nowhere_to_be_found"]


def test_a_traceback_shows_the_line_of_a_notebook_that_failed():
    code = "# a cell\ndef broken(response):\n    return response['x']\n"
    name = "/nowhere/cell-1.py"
    linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
    space: dict[str, Any] = {"__name__": NOTEBOOK}
    exec(compile(code, name, "exec"), space)
    with Scorer((FunctionText.of(space["broken"]),), columns=(), timeout_seconds=60, workers=1) as scorer:
        (score,) = scorer.score([sample("abc")])
    assert score.reason is not None and score.reason.endswith("at <function broken>:3")
    assert scorer.first_traceback is not None and "    return response['x']\n" in scorer.first_traceback
