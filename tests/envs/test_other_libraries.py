"""Environments and rewards of the libraries themselves, where these are installed (`make test-newest`)."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from posttrain.envs.pool import EnvPool, Lost, Outcome, Reply
from posttrain.types import InputError, Message
from tests.rewards.test_compat import sample, score

GUESS = """
import verifiers.v1 as vf

class Data(vf.TaskData):
    secret: str
    level: int = 1

class State(vf.State):
    seen: int = 0

class Guess(vf.Task[Data, State]):
    async def setup(self, trace, runtime):
        trace.state.seen = 10

    @vf.reward(weight=2.0)
    async def found(self, task, trace):
        return float(trace.last_reply == task.secret)

    @vf.reward(weight=0.25)
    async def turns(self, trace):
        if trace.last_reply == "fail":
            raise KeyError("gone")
        return float(trace.num_turns + trace.state.seen)

    @vf.stop
    async def gave_up(self, trace: vf.Trace) -> bool:
        return trace.last_reply == "I give up"

class Tasks(vf.Taskset[Guess]):
    def load(self):
        raise AssertionError("the tasks are rows of ours")

class GuessConfig(vf.EnvConfig):
    player: vf.AgentConfig = vf.AgentConfig()

class GuessEnv(vf.Env[GuessConfig]):
    async def run(self, task, agents):
        async with agents.player.interaction(task) as talk:
            segment = await talk.turn()
            while not segment.terminated and segment.last_reply != task.data.secret:
                if segment.last_reply == "break":
                    raise RuntimeError("broken")
                segment = await talk.turn(f"no, not {segment.last_reply}")
        talk.trace.record_reward("level", task.data.level, 0.5)

__all__ = ["Tasks", "GuessEnv"]
"""
LOAD = """
import verifiers.v1 as vf
from guess_tasks import Guess, Tasks

HERE = {"taskset": {"id": "guess_tasks"}}

def game(): return vf.load_environment(vf.resolve_env_config(HERE))
def single(): return vf.SingleAgentEnv(vf.SingleAgentEnvConfig(**HERE))
def two(): return vf.load_environment(vf.resolve_env_config({"id": "user_sim", **HERE}))
def boxed():
    Guess.NEEDS_CONTAINER = True
    return single()

class Machine(vf.Task[vf.TaskData]):
    @vf.reward
    async def ran(self, runtime): return float((await runtime.run(["true"])).exit_code == 0)

class Machines(vf.Taskset[Machine]):
    def load(self): return []

tasks, machines = Tasks(vf.TasksetConfig()), Machines(vf.TasksetConfig())
"""
ROW = {"prompt": [{"role": "user", "content": "Guess"}], "secret": "b", "level": 3}


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    pytest.importorskip("verifiers.v1")
    (tmp_path / "guess_tasks.py").write_text(GUESS)
    file = tmp_path / "theirs.py"
    file.write_text(LOAD)
    return file


def opened(spec: str) -> EnvPool:
    return EnvPool(spec, columns=["prompt", "secret", "level"], timeout_seconds=60, workers=1)


def say(pool: EnvPool, text: str) -> Reply | Lost:
    return pool.act({0: Message("assistant", text)})[0]


def user(text: str, done: bool = False) -> Reply:
    return Reply((Message("user", text),), done)


def test_a_game_of_verifiers(theirs: Path) -> None:
    with opened(f"verifiers({theirs}:game)") as pool:
        assert pool.reset({0: (ROW, 0)}) == {0: None}
        assert say(pool, "a") == user("no, not a")
        assert say(pool, "b") == Reply((), True)
        assert pool.finish([0]) == {0: Outcome(2.0 + 0.25 * (2 + 10) + 0.5 * 3, None)}
        pool.reset({0: (ROW, 0)})
        say(pool, "a")
        assert pool.finish([0]) == {0: Outcome(0.25 * (1 + 10) + 0.5 * 3, None)}  # cut off by our limit of turns
        pool.reset({0: (ROW, 0)})
        assert say(pool, "I give up") == Reply((), True)  # its own @stop
        pool.reset({0: (ROW, 0)})
        assert say(pool, "break") == Lost("reply(): RuntimeError: broken at guess_tasks.py:42")
        pool.reset({0: (ROW, 0)})
        say(pool, "fail")
        (lost,) = pool.finish([0]).values()
        assert isinstance(lost, Lost) and "KeyError" in lost.reason  # and not a 0
        (lost,) = pool.reset({0: ({"prompt": "Guess"}, 0)}).values()
        assert isinstance(lost, Lost) and "secret" in lost.reason and "Field required" in lost.reason


def test_a_taskset_of_verifiers_has_one_turn(theirs: Path) -> None:
    with opened(f"verifiers({theirs}:single)") as pool:
        assert pool.reset({0: (ROW, 0)}) == {0: None}
        assert say(pool, "b") == Reply((), True)
        assert pool.finish([0]) == {0: Outcome(2.0 + 0.25 * (1 + 10), None)}


@pytest.mark.parametrize(("name", "message"), [("two", "has 2 agents"), ("boxed", "needs a container")])
def test_what_of_verifiers_is_more_than_text(theirs: Path, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        opened(f"verifiers({theirs}:{name})")


def test_rewards_of_a_taskset(theirs: Path, tmp_path: Path) -> None:
    rows = [sample(text, (Message("user", "Guess"),), secret="b") for text in ("b", "c", "fail")]
    scores, _ = score(LOAD, tmp_path, "tasks", rows)
    assert [one.total for one in scores] == [2.25, 0.25, None]  # without an episode nothing is set up
    assert dict(scores[0].parts) == {"tasks": 2.25, "tasks/found": 1, "tasks/turns": 1}
    (needs,), _ = score(LOAD, tmp_path, "machines", [sample("b")])
    assert needs.total is None and "the task uses runtime.run" in (needs.reason or "")


SERVER = """
import sys, uvicorn
from openenv.core import Action, Environment, Observation, State, create_fastapi_app

class Move(Action):
    move: str

class Seen(Observation):
    text: str

class Walk(Environment):
    def reset(self, seed=None, episode_id=None, level=1, **kwargs):
        self.place = level
        return Seen(text=f"at {self.place}, seed {seed}")

    def step(self, action, timeout_s=None, **kwargs):
        self.place += {"on": 1, "back": -1}[action.move]
        return Seen(text=f"at {self.place}", reward=0.5, done=self.place == 0)

    @property
    def state(self): return State()

app = create_fastapi_app(Walk, Move, Seen)
server = uvicorn.Server(uvicorn.Config(app, port=0, ws_ping_interval=0.2, ws_ping_timeout=0.2, log_level="warning"))

async def main():
    import asyncio
    task = asyncio.create_task(server.serve())
    while not server.started: await asyncio.sleep(0.01)
    print(server.servers[0].sockets[0].getsockname()[1], flush=True)
    await task

import asyncio
asyncio.run(main())
"""
CLIENT = """
from openenv.core import GenericEnvClient
def connect(): return GenericEnvClient(base_url="http://127.0.0.1:PORT")
def action(text): return {"move": text}
"""


@pytest.fixture
def walk(tmp_path: Path) -> Iterator[str]:
    """The file of a client of a running server, which hangs up on who leaves a ping unanswered for 0.2 s."""
    pytest.importorskip("openenv.core")
    (tmp_path / "walk.py").write_text(SERVER)
    process = subprocess.Popen([sys.executable, str(tmp_path / "walk.py")], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        file = tmp_path / "client.py"
        file.write_text(CLIENT.replace("PORT", process.stdout.readline().strip()))
        yield str(file)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_server_of_openenv(walk: str) -> None:
    spec = f'openenv({walk}:connect, {walk}:action, columns=["level"])'
    with EnvPool(spec, columns=["level"], timeout_seconds=60, workers=1) as pool:
        assert pool.reset({0: ({"level": 1}, 7)}) == {0: '{"text": "at 1, seed 7"}'}
        assert say(pool, "on") == user('{"text": "at 2"}')
        time.sleep(1.0)  # the model thinks
        assert say(pool, "back") == user('{"text": "at 1"}')
        assert say(pool, "back") == user('{"text": "at 0"}', done=True)
        assert pool.finish([0]) == {0: Outcome(1.5, None)}
        pool.reset({0: ({"level": 1}, 0)})
        broken: Any = say(pool, "up")
        assert (isinstance(broken, Lost) and "KeyError" in broken.reason) or "up" in broken.reason
