"""Environments of other libraries, played by hand-written ones with the same interface."""

from __future__ import annotations

from pathlib import Path

import pytest

from posttrain.envs.adapters import shown
from posttrain.envs.pool import EnvPool, Lost, Outcome, Reply
from posttrain.types import InputError, Message


def file_of(folder: Path, code: str) -> str:
    path = folder / "theirs.py"
    path.write_text(code)
    return str(path)


def say(pool: EnvPool, text: str) -> Reply | Lost:
    return pool.act({0: Message("assistant", text)})[0]


def turn(text: str) -> tuple[Message, ...]:
    return (Message("user", text),)


GYMNASIUM = """
class Countdown:
    def __init__(self, start=3): self.start = start

    def reset(self, *, seed=None, options=None):
        self.n = self.start + (options or {}).get('more', 0)
        return f'{self.n} to go (seed {seed})', {}

    def step(self, action):
        self.n -= int(action)
        return f'{self.n} to go', -0.25 if self.n > 0 else 1.0, self.n == 0, self.n < 0, {}

    def close(self): open(__file__ + '.closed', 'w').close()
"""


def test_gymnasium(tmp_path: Path) -> None:
    file = file_of(tmp_path, GYMNASIUM)
    with EnvPool(f"gymnasium({file}:Countdown)", columns=["more"], timeout_seconds=60, workers=1) as pool:
        assert pool.has_reward and not pool.tools
        assert pool.reset({0: ({"more": 5}, 7)}) == {0: "3 to go (seed 7)"}
        assert say(pool, " 1\n") == Reply(turn("2 to go"), False)
        assert say(pool, "2") == Reply(turn("0 to go"), True)
        assert pool.finish([0]) == {0: Outcome(0.75, None)}
        assert (tmp_path / "theirs.py.closed").exists()
        pool.reset({0: ({}, 1)})
        assert say(pool, "4") == Reply(turn("-1 to go"), True)  # truncated
        pool.reset({0: ({}, 1)})
        lost = Lost("reply(): ValueError: invalid literal for int() with base 10: 'up' at theirs.py:10")
        assert say(pool, "up") == lost
        pool.reset({0: ({}, 1)})
        assert pool.finish([0]) == {0: Outcome(None, None)}  # no step, no reward


def test_gymnasium_with_options(tmp_path: Path) -> None:
    spec = f'gymnasium({file_of(tmp_path, GYMNASIUM)}:Countdown(start=1), options=["more"])'
    with EnvPool(spec, columns=["more"], timeout_seconds=60, workers=1) as pool:
        assert pool.reset({0: ({"more": 5}, 7)}) == {0: "6 to go (seed 7)"}


OPENENV = """
import dataclasses

@dataclasses.dataclass
class Observation:
    text: str
    done: bool = False
    reward: float | None = None

@dataclasses.dataclass
class Result:
    observation: object
    reward: float | None = None
    done: bool = False

class Client:
    log = []

    async def reset(self, **kwargs):
        self.log.append(kwargs)
        return Result(Observation(f'begin {kwargs}'))

    async def step(self, action):
        over = action == {'move': 'end'}
        return Result(Observation(f'did {action}', over), None if over else 0.5, over)

    async def close(self):
        open(__file__ + '.closed', 'a').write('x')

def connect(): return Client()

class Plain(Client):
    '''As the client's synchronous form.'''
    def reset(self, **kwargs): return Result({'said': 'begin', 'reward': None})
    def step(self, action): return Result({'said': action}, 1, False)
    def close(self): pass

def action(text): return {'move': text}
def show(observation): return observation.text
"""


def test_openenv(tmp_path: Path) -> None:
    file = file_of(tmp_path, OPENENV)
    spec = f'openenv({file}:connect, {file}:action, {file}:show, columns=["level"])'
    with EnvPool(spec, columns=["level", "answer"], timeout_seconds=60, workers=1) as pool:
        assert pool.reset({0: ({"level": 2, "answer": "x"}, 7)}) == {0: "begin {'seed': 7, 'level': 2}"}
        assert say(pool, "on") == Reply(turn("did {'move': 'on'}"), False)
        assert say(pool, "end") == Reply(turn("did {'move': 'end'}"), True)
        assert pool.finish([0]) == {0: Outcome(0.5, None)}
        assert (tmp_path / "theirs.py.closed").read_text() == "x"


def test_openenv_with_a_synchronous_client_shows_fields(tmp_path: Path) -> None:
    file = file_of(tmp_path, OPENENV)
    with EnvPool(f"openenv({file}:Plain, {file}:action)", columns=(), timeout_seconds=60, workers=1) as pool:
        assert pool.reset({0: ({}, 0)}) == {0: '{"said": "begin"}'}
        assert say(pool, "go") == Reply(turn('{"said": {"move": "go"}}'), False)
        assert pool.finish([0]) == {0: Outcome(1.0, None)}


VERIFIERS = """
class Rubric:
    def __init__(self, funcs, weights):
        self.funcs, self.weights = funcs, weights
        self.parser = None
        self.class_objects = {}

def solved(state, answer): return float(state['found'] == answer)
async def turns(trajectory, completion): return float(len(trajectory) + len(completion))
def broken(completion): raise RuntimeError('no judge')

class Env:
    tool_defs = []

    def __init__(self, funcs=(solved, turns), weights=(1.0, 0.25)):
        self.rubric = Rubric(list(funcs), list(weights))

    async def setup_state(self, state):
        state['found'] = None
        return state

    async def is_completed(self, state, **kwargs):
        return len(state['trajectory']) >= 3 or state.get('final_env_response') is not None

    async def env_response(self, messages, state, **kwargs):
        assert messages[0]['content'] == messages[0].content == state['prompt'][0]['content']
        guess = messages[-1]['content']
        state['found'] = guess
        if guess == state['answer']:
            state['final_env_response'] = [{'role': 'user', 'content': 'yes'}]
            return state['final_env_response']
        return f'no, not {guess} ({len(messages)})'

def load_environment(): return Env()
def load_broken(): return Env((broken,), (1.0,))
def load_tools():
    env = Env()
    env.tool_defs = [{'name': 'x'}]
    return env
"""


def test_verifiers(tmp_path: Path) -> None:
    file = file_of(tmp_path, VERIFIERS)
    prompt = [{"role": "user", "content": "Guess"}]
    columns = {"prompt": prompt, "answer": "b"}
    with EnvPool(f"verifiers({file}:load_environment)", columns=["prompt"], timeout_seconds=60, workers=1) as pool:
        assert pool.reset({0: (columns, 0)}) == {0: None}
        assert say(pool, "a") == Reply(turn("no, not a (2)"), False)
        assert say(pool, "b") == Reply(turn("yes"), True)
        assert pool.finish([0]) == {0: Outcome(1.0 + 0.25 * (2 + 4), None)}
        pool.reset({0: ({"prompt": "Guess", "answer": "b"}, 0)})
        said = [say(pool, "a") for _ in range(3)]
        assert said[1:] == [Reply(turn("no, not a (4)"), False), Reply((), True)]
        assert pool.finish([0]) == {0: Outcome(0.25 * (3 + 5), None)}
    with EnvPool(f"verifiers({file}:load_broken)", columns=["prompt"], timeout_seconds=60, workers=1) as pool:
        pool.reset({0: (columns, 0)})
        assert pool.finish([0]) == {0: Lost("get_reward(): RuntimeError: no judge at theirs.py:10")}  # and not a 0
    with pytest.raises(InputError, match="Env has tools"):
        EnvPool(f"verifiers({file}:load_tools)", columns=["prompt"], timeout_seconds=60)


def test_an_adapter_needs_what_it_adapts() -> None:
    with pytest.raises(InputError, match="missing 1 required positional argument: 'make'"):
        EnvPool("gymnasium", columns=(), timeout_seconds=60)


def test_observations_as_text() -> None:
    assert shown("as it is") == "as it is"
    assert shown({"text": "ä", "reward": 1, "done": False}) == '{"text": "ä"}'
    assert shown(3.5) == "3.5"
