"""The convention of environments, and what one may do without harming another."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from posttrain.envs.pool import EnvPool, Lost, Outcome, Reply
from posttrain.envs.server import Episode
from posttrain.envs.tools import RESULT_CHARACTERS, cut, result_text, schemas_of
from posttrain.rewards.scorer import Scorer
from posttrain.types import InputError, Message, RunFailed, Sample
from tests.processes import running

# Written as for TRL's environment_factory: reset(**columns), tools, get_reward, and nothing of ours.
COUNTER = '''
class Counter:
    """Counts up to the goal of its task."""

    def __init__(self):
        self.value = 0
        self.goal = None

    def reset(self, goal, **kwargs) -> str | None:
        self.value = 0
        self.goal = goal
        return f" Count to {goal}."

    def add(self, amount: int, times: int = 1) -> str:
        """
        Adds to the count.

        Args:
            amount: How much is added.
            times: How often.

        Returns:
            The count.
        """
        self.value += amount * times
        return f"now {self.value}"

    def look(self) -> dict:
        """Tells the count and the goal."""
        return {"count": self.value, "goal": self.goal}

    async def fetch(self, key: str | None = None) -> str:
        """
        Fetches a value from far away.

        Args:
            key: What to fetch.
        """
        import asyncio

        await asyncio.sleep(0)
        return f"value of {key}"

    def fail(self) -> str:
        """Always fails."""
        raise ValueError("no such\\nthing")

    def get_reward(self) -> float:
        return 1.0 if self.value == self.goal else 0.0

    def _hidden(self):
        return "private"
'''


def env_file(folder: Path, code: str) -> str:
    path = folder / "my_env.py"
    path.write_text(code)
    return str(path)


def one(folder: Path, code: str, name: str = "E", columns: Mapping[str, Any] | None = None, **options: Any) -> EnvPool:
    """A pool of a class in a file, with one worker and episode 0 begun."""
    columns = columns or {}
    given = {"timeout_seconds": 60, "workers": 1, **options}
    pool = EnvPool(f"{env_file(folder, code)}:{name}", columns=list(columns), **given)
    pool.reset({0: (columns, 7)})
    return pool


def call(name: str, arguments: Any = None, id: str = "a") -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def calls(*some: dict[str, Any]) -> Message:
    return Message("assistant", "", tool_calls=some)


def said(text: str) -> Message:
    return Message("assistant", text)


def results(reply: Reply | Lost) -> list[str]:
    assert isinstance(reply, Reply), reply
    return [message.content for message in reply.messages]


@pytest.fixture(scope="module")
def counters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EnvPool]:
    """One pool for many tests: where there are tools, torch is imported to describe them."""
    file = env_file(tmp_path_factory.mktemp("counter"), COUNTER)
    with EnvPool(f"{file}:Counter", columns=["goal"], timeout_seconds=60, workers=2) as pool:
        yield pool


@pytest.fixture
def counter(counters: EnvPool) -> EnvPool:
    """Episode 0 counts to 3."""
    counters.reset({0: ({"goal": 3}, 7)})
    return counters


@pytest.fixture(scope="module")
def hanging(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EnvPool]:
    file = env_file(tmp_path_factory.mktemp("hangs"), HANGS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("posttrain.envs.pool.GRACE_SECONDS", 1.0)
        with EnvPool(f"{file}:E", columns=["how"], timeout_seconds=1, workers=2) as pool:
            yield pool


# The convention.


def test_a_class_for_trl_runs_unchanged(counters: EnvPool) -> None:
    pool = counters
    assert pool.has_reward
    assert pool.reset({4: ({"goal": 6}, 0), 9: ({"goal": 1}, 0)}) == {4: " Count to 6.", 9: " Count to 1."}
    first = pool.act({4: calls(call("add", {"amount": 3}, "x"), call("add", '{"amount": 1, "times": 3}', "y"))})
    assert first == {
        4: Reply(
            (
                Message("tool", "now 3", tool_call_id="x", name="add"),
                Message("tool", "now 6", tool_call_id="y", name="add"),
            ),
            False,
        )
    }
    assert results(pool.act({9: calls(call("look"))})[9]) == ['{"count": 0, "goal": 1}']
    assert pool.act({4: said("done"), 9: said("I give up")}) == {4: Reply((), True), 9: Reply((), True)}
    assert pool.finish([4, 9]) == {4: Outcome(1.0, None), 9: Outcome(0.0, None)}


def test_schemas_come_from_signature_and_docstring(counter: EnvPool) -> None:
    schemas = {tool["function"]["name"]: tool["function"] for tool in counter.tools}
    assert sorted(schemas) == ["add", "fail", "fetch", "look"]
    assert all(tool["type"] == "function" for tool in counter.tools)
    assert schemas["add"]["description"] == "Adds to the count."
    assert schemas["add"]["parameters"] == {
        "type": "object",
        "properties": {
            "amount": {"type": "integer", "description": "How much is added."},
            "times": {"type": "integer", "description": "How often."},
        },
        "required": ["amount"],
    }
    assert schemas["fetch"]["parameters"]["properties"]["key"]["type"] == "string"
    assert schemas["look"]["parameters"] == {"type": "object", "properties": {}}


def test_async_tools_are_awaited_in_order(counter: EnvPool) -> None:
    reply = counter.act(
        {0: calls(call("fetch", {"key": "a"}), call("add", {"amount": 1}), call("fetch", {"key": None}))}
    )
    assert results(reply[0]) == ["value of a", "now 1", "value of None"]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (call("fail"), "error: ValueError: no such thing"),
        (call("missing"), "error: there is no tool 'missing'; there are: add, fail, fetch, look"),
        (call("_hidden"), "error: there is no tool '_hidden'"),
        (call("get_reward"), "error: there is no tool 'get_reward'"),
        (
            call("add", {}),
            "error: add needs the argument 'amount'; its arguments are: amount (integer), times (integer, ",
        ),
        (call("add", {"amount": 1, "by": 2}), "error: add has no argument 'by'; its arguments are: amount (integer)"),
        (call("add", {"amount": "three"}), "error: the argument 'amount' of add does not fit: 'three' is not of type"),
        (call("look", {"at": 1}), "error: look has no argument 'at'; it takes no arguments"),
    ],
)
def test_a_bad_call_is_told_to_the_model(counter: EnvPool, bad: dict[str, Any], message: str) -> None:
    reply = counter.act({0: calls(bad, call("add", {"amount": 1}))})[0]
    told, after = results(reply)
    assert told.startswith(message) and "\n" not in told
    assert after == "now 1" and isinstance(reply, Reply) and not reply.done


def test_reply_answers_with_the_next_turn(tmp_path: Path) -> None:
    code = (
        "class E:\n"
        "    done = False\n"
        "    def reset(self): return 'begin'\n"
        "    def reply(self, text):\n"
        "        self.done = text == 'stop'\n"
        "        return None if text == 'leave' else text.upper()\n"
    )
    with one(tmp_path, code) as pool:
        assert not pool.tools and not pool.has_reward
        assert pool.act({0: said("on")})[0] == Reply((Message("user", "ON"),), False)
        assert pool.act({0: said("stop")})[0] == Reply((Message("user", "STOP"),), True)
        assert pool.act({0: said("leave")})[0] == Reply((), True)
        assert pool.finish([0])[0] == Outcome(None, None)


def test_done_ends_the_episode_and_later_calls_do_nothing(hanging: EnvPool) -> None:
    hanging.reset({0: ({}, 0)})
    reply = hanging.act({0: calls(*[call("hit")] * 4)})[0]
    assert results(reply) == ["1", "2", "error: the episode is over", "error: the episode is over"]
    assert isinstance(reply, Reply) and reply.done
    assert hanging.finish([0])[0] == Outcome(2.0, None)


def test_reset_gets_what_it_names(tmp_path: Path) -> None:
    code = (
        "class Named:\n"
        "    def reset(self, a, seed, b=5): return repr((a, seed, b))\n"
        "class All:\n"
        "    def reset(self, **columns): return repr(columns)\n"
    )
    file = env_file(tmp_path, code)
    with EnvPool(f"{file}:Named", columns=["a", "b", "c"], timeout_seconds=60, workers=1) as pool:
        rows = {0: ({"a": 1, "b": 2, "c": 3}, 7), 1: ({"c": 3}, 8)}
        assert pool.reset(rows) == {0: "(1, 7, 2)", 1: "(None, 8, 5)"}
        assert pool.reset({2: ({"a": 1, "seed": 40}, 7)}) == {2: "(1, 40, 5)"}
    with EnvPool(f"{file}:All", columns=["a"], timeout_seconds=60, workers=1) as pool:
        assert pool.reset({0: ({"a": 1}, 7)}) == {0: "{'a': 1}"}


def test_a_factory_makes_an_instance_with_options_for_each_episode(tmp_path: Path) -> None:
    code = (
        "class E:\n"
        "    def __init__(self, start): self.n = start\n"
        "    def reset(self): return str(self.n)\n"
        "    def reply(self, text):\n"
        "        self.n += 1\n"
        "        return str(self.n)\n"
        "def make(start=0): return E(start)\n"
    )
    with EnvPool(f"{env_file(tmp_path, code)}:make(start=4)", columns=(), timeout_seconds=60, workers=1) as pool:
        assert pool.reset({0: ({}, 0), 1: ({}, 0)}) == {0: "4", 1: "4"}
        assert results(pool.act({0: said("up")})[0]) == ["5"]
        assert results(pool.act({1: said("up")})[1]) == ["5"]
        assert pool.reset({0: ({}, 0)}) == {0: "4"}


def test_close_is_called_and_is_no_tool(tmp_path: Path) -> None:
    code = (
        "class E:\n"
        "    def reset(self, where): self.where = where\n"
        "    def _close(self):\n"
        "        if hasattr(self, 'where'): open(self.where, 'w').write('closed')\n"
    )
    with one(tmp_path, code, columns={"where": str(tmp_path / "mark")}) as pool:
        pool.finish([0])
        assert (tmp_path / "mark").read_text() == "closed"


def test_results_as_text() -> None:
    assert result_text("as it is") == "as it is"
    assert result_text({"ä": [1, None]}) == '{"ä": [1, null]}'
    assert result_text({1}) == "{1}"
    assert cut("x" * RESULT_CHARACTERS) == "x" * RESULT_CHARACTERS
    assert cut("x" * 10_000) == "x" * 8192 + "… [cut: 8192 of 10000 characters]"
    assert cut("half \ud83d") == "half ?"


# What cannot be used.


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("class E:\n    def tool(self): pass\n", "E is no environment: it has no method reset"),
        ("E = 3\n", "it is a int; an environment is a class"),
        ("class F: pass\n", "has no class or function 'E'; it has F"),
        ("class E:\n    def __init__(self): raise OSError('no server')\n", r"OSError: no server at my_env.py:2"),
        ("import nowhere_to_be_found\n", "ModuleNotFoundError"),
        (
            "class E:\n    def reset(self, goal, level): pass\n",
            "E.reset asks for 'level', which is no column.*are: goal",
        ),
        ("class E:\n    def reset(self, a, /): pass\n", "'a' of E.reset is positional-only"),
    ],
)
def test_a_class_that_cannot_be_used(tmp_path: Path, code: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        EnvPool(f"{env_file(tmp_path, code)}:E", columns=["goal"], timeout_seconds=60)


class Undescribed:
    def reset(self) -> None: ...

    def tool(self, x: int) -> int:
        return x


class Untyped:
    def reset(self) -> None: ...

    def tool(self, x):  # type: ignore[no-untyped-def]
        """Do it.

        Args:
            x: How often.
        """


class Picture:
    def reset(self) -> None: ...

    def tool(self, x: torch.Tensor) -> None:
        """Do it.

        Args:
            x: What JSON cannot hold.
        """


@pytest.mark.parametrize(
    ("environment", "why"),
    [
        (Undescribed(), "Undescribed.tool cannot be described: .*no docstring.*Give it a docstring whose 'Args:'"),
        (Untyped(), "Untyped.tool cannot be described: .*missing a type hint.*each parameter a type hint"),
        (Picture(), "Picture.tool cannot be described: 'audio' is not"),
    ],
)
def test_a_tool_that_cannot_be_described(environment: Any, why: str) -> None:
    with pytest.raises(InputError, match=why):
        schemas_of(environment)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("calculater", "unknown environment 'calculater'; did you mean 'calculator'?"),
        ("no_such.py:E", "there is no file no_such.py"),
        ("calculator(digits=3)", "TypeError: Calculator() takes no arguments"),
        ("search(nowhere.jsonl)", "there is no file nowhere.jsonl"),
        ("calculator=0.5", "environment 'calculator=0.5', character 11: expected the end"),
        ("", "expected an environment"),
    ],
)
def test_a_specification_that_cannot_be_used(spec: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        EnvPool(spec, columns=(), timeout_seconds=60)
    assert message in str(error.value)


def test_numbers_that_cannot_be_used() -> None:
    for options in ({"timeout_seconds": 0}, {"timeout_seconds": 1, "workers": 0}):
        with pytest.raises(InputError, match="at least one worker and a timeout above 0"):
            EnvPool("calculator", columns=(), **options)


# Failures.


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("def reset(self): raise KeyError('x')", "reset(): KeyError: 'x' at my_env.py:2"),
        ("def reset(self): return 3", "reset(): reset() returned a int, not text or None"),
    ],
)
def test_a_reset_that_fails_is_lost(tmp_path: Path, body: str, reason: str) -> None:
    with EnvPool(f"{env_file(tmp_path, f'class E:{chr(10)}    {body}')}:E", columns=(), timeout_seconds=60) as pool:
        assert pool.reset({0: ({}, 0)}) == {0: Lost(reason)}
        assert pool.act({0: said("x")}) == {0: Lost(reason)}
        assert pool.finish([0]) == {0: Lost(reason)}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("float('nan')", "get_reward(): get_reward() is nan"),
        ("'much'", "get_reward(): get_reward() is a str, not a number"),
        ("1 / 0", "get_reward(): ZeroDivisionError: division by zero at my_env.py:3"),
    ],
)
def test_a_reward_that_fails_is_lost_and_never_zero(tmp_path: Path, value: str, reason: str) -> None:
    code = f"class E:\n    def reset(self): pass\n    def get_reward(self): return {value}\n"
    with one(tmp_path, code) as pool:
        assert pool.finish([0]) == {0: Lost(reason)}


def test_a_reward_may_not_apply_and_may_be_async(tmp_path: Path) -> None:
    code = (
        "class E:\n"
        "    def reset(self, known): self.known = known\n"
        "    async def get_reward(self): return 0.5 if self.known else None\n"
    )
    with one(tmp_path, code, columns={"known": True}) as pool:
        pool.reset({1: ({"known": False}, 0)})
        assert pool.finish([0, 1]) == {0: Outcome(0.5, None), 1: Outcome(None, None)}


def test_a_reply_that_fails_is_lost(tmp_path: Path) -> None:
    code = "class E:\n    def reset(self): pass\n    def reply(self, text): return 1 if text == 'n' else text[9]\n"
    with one(tmp_path, code) as pool:
        assert pool.act({0: said("n")})[0] == Lost("reply(): reply() returned a int, not text or None")
        pool.reset({1: ({}, 0)})
        assert pool.act({1: said("x")})[1] == Lost("reply(): IndexError: string index out of range at my_env.py:3")


HANGS = '''
import asyncio, os, signal, threading, time

class E:
    def reset(self, how=""):
        self.done, self.hits = False, 0
        if how == "reset":
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])  # as native code that never comes back
            time.sleep(60)
        return how

    def sleep(self) -> str:
        """Hangs."""
        try:
            time.sleep(60)
        except Exception:
            return "went on"

    async def wait(self) -> str:
        """Hangs."""
        await asyncio.sleep(60)

    def freeze(self) -> str:
        """Hangs where Python cannot interrupt it."""
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
        time.sleep(60)

    def die(self) -> str:
        """Dies."""
        os.kill(os.getpid(), signal.SIGKILL)

    def doom(self) -> str:
        """Dies after its answer."""
        threading.Timer(1, os._exit, [4]).start()
        return f"{os.getpid()} {os.getppid()}"

    def quit(self) -> str:
        """Gives up."""
        raise SystemExit(3)

    def live(self) -> str:
        """Lives."""
        return "alive"

    def hit(self) -> int:
        """Ends at the second."""
        self.hits += 1
        self.done = self.hits == 2
        return self.hits

    def get_reward(self):
        return self.hits
'''


@pytest.mark.parametrize("tool", ["sleep", "wait"])
def test_a_hung_tool_costs_only_its_own_episode(hanging: EnvPool, tool: str) -> None:
    hanging.reset({0: ({}, 0), 1: ({}, 0), 2: ({}, 0)})  # 0 and 2 in one worker
    replies = hanging.act({0: calls(call(tool)), 2: calls(call("live"))})
    assert replies[0] == Lost(f"{tool}(): timed out after 1 s")
    assert results(replies[2]) == ["alive"]
    assert results(hanging.act({2: calls(call("live"), call("quit"))})[2]) == ["alive", "error: SystemExit: 3"]
    hanging.finish([0, 1, 2])


@pytest.mark.parametrize(
    ("tool", "reason"),
    [("die", "the worker process was killed by SIGKILL"), ("freeze", "timed out after 2 s")],
)
def test_a_worker_that_must_be_killed_takes_its_episodes_along(hanging: EnvPool, tool: str, reason: str) -> None:
    hanging.reset({key: ({}, 0) for key in range(5)})  # 0, 2, 4 in one worker, 1 and 3 in the other
    replies = hanging.act({0: calls(call("live")), 2: calls(call(tool)), 3: calls(call("live"))})
    assert results(replies[0]) == results(replies[3]) == ["alive"]
    assert replies[2] == Lost(reason)
    along = Lost(f"its process was lost with episode 2, which {reason}")
    assert hanging.act({0: calls(call("live")), 4: calls(call("live"))}) == {0: along, 4: along}
    whole = Outcome(0.0, None)
    assert hanging.finish(range(5)) == {0: along, 1: whole, 2: Lost(reason), 3: whole, 4: along}
    assert hanging.reset({5: ({"how": "new"}, 0)}) == {5: "new"}  # in a new process
    hanging.finish([5])


def test_a_worker_that_dies_between_two_calls(hanging: EnvPool) -> None:
    for again in (False, True):
        hanging.reset({key: ({}, 0) for key in range(4)})  # 0 and 2 in one worker
        (pids,) = results(hanging.act({2: calls(call("doom"))})[2])
        while any(running(int(pid)) for pid in pids.split()):  # the worker, and its supervisor
            time.sleep(0.01)
        if again:
            assert hanging.reset({0: ({"how": "new"}, 0)}) == {0: "new"}
            assert hanging.act({2: calls(call("live"))}) == {2: Lost("its process has ended")}
        else:
            reason = "the worker process ended with exit code 4"
            along = Lost(f"its process was lost with episode 0, which {reason}")
            assert hanging.act({0: said("x"), 2: said("x"), 3: said("x")}) == {
                0: Lost(reason),
                2: along,
                3: Reply((), True),
            }
        hanging.finish(range(4))


def test_a_hung_reset_is_lost_and_the_others_begin_again(hanging: EnvPool) -> None:
    shown = hanging.reset({key: ({"how": how}, 0) for key, how in enumerate(["a", "b", "reset", "d", "e"])})
    assert shown == {0: "a", 1: "b", 2: Lost("timed out after 2 s"), 3: "d", 4: "e"}
    assert [results(reply) for reply in hanging.act({0: calls(call("live")), 4: calls(call("live"))}).values()] == [
        ["alive"],
        ["alive"],
    ]
    hanging.finish(range(5))


def test_huge_output_is_cut(tmp_path: Path) -> None:
    code = (
        "class E:\n    def reset(self): print('noise on standard output')\n"
        "    def reply(self, text): return 'x' * 30_000_000\n"
    )
    with one(tmp_path, code) as pool:
        assert results(pool.act({0: said("go")})[0])[0].endswith("… [cut: 8192 of 30000000 characters]")


def test_a_closed_pool_is_closed(tmp_path: Path) -> None:
    pool = one(tmp_path, "class E:\n    def reset(self): pass\n")
    pool.close()
    pool.close()
    with pytest.raises(RunFailed, match="closed"):
        pool.reset({1: ({}, 0)})


# Determinism.

CHANCE = """
import os, random

class E:
    def reset(self, seed):
        self.seed = seed
        return f"{random.random()}"

    def reply(self, text):
        import numpy
        return f"{self.seed} {random.randint(1, 10**9)} {numpy.random.randint(10**9)} {sorted({'a', 'b', 'c'})}"
"""


def test_answers_depend_on_seeds_and_not_on_workers(tmp_path: Path) -> None:
    file = env_file(tmp_path, CHANCE)
    found = []
    for workers in (1, 3):
        with EnvPool(f"{file}:E", columns=(), timeout_seconds=60, workers=workers) as pool:
            shown = pool.reset({key: ({}, key % 4) for key in range(7)})
            rolls = [pool.act({key: said("roll") for key in range(7)}) for _ in range(2)]
            found.append((shown, rolls))
    assert found[0] == found[1]
    shown, rolls = found[0]
    assert shown[0] == shown[4] and shown[0] != shown[1]
    assert len({roll for turn in rolls for key in range(4) for roll in results(turn[key])}) == 8


def test_episodes_are_spread_over_the_workers(tmp_path: Path) -> None:
    code = "import os\nclass E:\n    def reset(self): return str(os.getpid())\n"
    with EnvPool(f"{env_file(tmp_path, code)}:E", columns=(), timeout_seconds=60, workers=3) as pool:
        homes = pool.reset({key: ({}, 0) for key in range(6)})
        assert [list(homes.values()).count(home) for home in set(homes.values())] == [2, 2, 2]
        assert str(os.getpid()) not in homes.values()


# Rewards that see the environments.

WITH_REWARD = """
class E:
    def reset(self, goal): self.value = goal + 2

def high(environments, **kwargs):
    return [None if e is None else float(e.value) + isinstance(e, E) for e in environments]
"""


def test_a_reward_gets_the_environments(tmp_path: Path) -> None:
    file = env_file(tmp_path, WITH_REWARD)
    with one(tmp_path, WITH_REWARD, columns={"goal": 3}, keep_state=True) as pool:
        outcome = pool.finish([0])[0]
    assert isinstance(outcome, Outcome) and outcome.state is not None
    states = [outcome.state, None]
    samples = [Sample("q", (said("x"),), (), {"goal": 3}, environment=state) for state in states]
    with Scorer([f"{file}:high", f"clip({file}:high, high=2) as low"], columns=["goal"], timeout_seconds=60) as scorer:
        assert scorer.wants_environments
        scores = scorer.score(samples)
        assert scores[0].parts == {"high": 6.0, "low": 2.0, "low/high": 6.0}
        assert scores[1].total is None and scores[1].reason is None
    with Scorer(["format"], columns=(), timeout_seconds=60) as scorer:
        assert not scorer.wants_environments


def test_a_fault_of_the_machine_is_no_answer_to_the_model() -> None:
    class E:
        def reset(self) -> None: ...

        def run(self) -> str:
            """Run."""
            raise InputError("the sandbox does not start")

    episode = Episode(E(), 0, schemas_of(E()), lambda value: value)
    with pytest.raises(InputError, match="does not start"):
        episode.act(calls(call("run")).to_dict())


def test_what_cannot_be_pickled_has_no_state(tmp_path: Path) -> None:
    code = "class E:\n    def reset(self): self.file = open(__file__)\n"
    with one(tmp_path, code, keep_state=True) as pool:
        assert pool.finish([0])[0] == Outcome(None, None)


def test_messages_cross_as_they_are(counter: EnvPool) -> None:
    """A reply can be written down and read again."""
    reply = counter.act({0: calls(call("look", id="call_1"))})[0]
    assert isinstance(reply, Reply)
    rows = json.loads(json.dumps([message.to_dict() for message in reply.messages]))
    assert rows == [{"role": "tool", "content": '{"count": 0, "goal": 3}', "tool_call_id": "call_1", "name": "look"}]
