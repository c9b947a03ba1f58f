"""Each environment that ships, played to a known result."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from posttrain.envs.pool import EnvPool, Reply
from posttrain.envs.server import Episode
from posttrain.envs.shipped.calculator import MAX_CHARACTERS, Calculator, value_of, written
from posttrain.envs.shipped.games import GuessNumber, GuessNumberTool, Rooms
from posttrain.envs.shipped.python import Python
from posttrain.envs.shipped.search import Search, collection
from posttrain.envs.tools import schemas_of
from posttrain.types import InputError, Message


class Play:
    """One episode in this process, with the calls and messages of a real one."""

    def __init__(self, instance: Any, seed: int = 0, **columns: Any) -> None:
        self._episode = Episode(instance, seed, schemas_of(instance), lambda value: value)
        self.shown = self._episode.reset(columns)["observation"]
        self.done = False

    def tool(self, name: str, **arguments: Any) -> str:
        call = {"id": "a", "type": "function", "function": {"name": name, "arguments": arguments}}
        answer = self._episode.act({"role": "assistant", "content": "", "tool_calls": [call]})
        self.done = answer["done"]
        (message,) = answer["messages"]
        return str(message["content"])

    def say(self, text: str) -> str | None:
        answer = self._episode.act({"role": "assistant", "content": text})
        self.done = answer["done"]
        return answer["messages"][0]["content"] if answer["messages"] else None

    @property
    def reward(self) -> float | None:
        value: float | None = self._episode.finish()["reward"]
        return value


# calculator


@pytest.mark.parametrize(
    ("expression", "result"),
    [
        ("2*(3+4)", "14"),
        ("2 * -3 + 1", "-5"),
        ("0.1+0.2", "0.3"),
        ("1/3", "0.333333333333"),
        ("-7/2", "-3.5"),
        ("1/1000000000000", "0.000000000001"),
        ("-1/8", "-0.125"),
        ("2^10", "1024"),
        ("-2**2", "-4"),
        ("2**-2", "0.25"),
        ("2**0.5", "1.41421356237"),
        ("17 // 5 * 10 + 17 % 5", "32"),
        ("6 × 7 ÷ 2 − 1", "20"),
        ("10**30", "1" + "0" * 30),
        ("1e3", "1000"),
    ],
)
def test_the_calculator(expression: str, result: str) -> None:
    assert written(value_of(expression)) == result


@pytest.mark.parametrize(
    ("expression", "error"),
    [
        ("1/0", "error: ZeroDivisionError"),
        ("2+", r"error: ValueError: '2\+' is no arithmetic expression"),
        ("__import__('os').system('true')", "error: ValueError: .* is no arithmetic"),
        ("x + 1", "error: ValueError: 'x' is no arithmetic"),
        ("True + 1", "error: ValueError: 'True' is no arithmetic"),
        ("9**9**9**9", "error: ValueError: the power is too large"),
        ("(-8)**0.5", "error: ValueError: a negative number has no such power"),
        ("1" * (MAX_CHARACTERS + 1), "error: ValueError: the expression is longer"),
        ("(" * 400, "error: ValueError"),
        ("10.0**400.5", "error: OverflowError"),
        ("*".join(["10**300"] * 20), "error: ValueError: the number is too large"),
    ],
)
def test_what_the_calculator_refuses(expression: str, error: str) -> None:
    play = Play(Calculator())
    assert re.match(error, play.tool("calculate", expression=expression))
    assert not play.done and play.reward is None


def test_the_calculator_in_a_pool() -> None:
    with EnvPool("calculator", columns=["answer"], timeout_seconds=60, workers=1) as pool:
        assert not pool.has_reward
        assert pool.reset({0: ({"answer": 14}, 0)}) == {0: None}
        call = {"id": "a", "type": "function", "function": {"name": "calculate", "arguments": {"expression": "2*7"}}}
        message = Message("assistant", "", tool_calls=(call,))
        assert pool.act({0: message})[0] == Reply((Message("tool", "14", tool_call_id="a", name="calculate"),), False)


# python


def test_python_runs_in_the_sandbox() -> None:
    play = Play(Python())
    assert play.tool("python", code="print(sum(range(10)))") == "45\n"
    assert play.tool("python", code="x = 1") == "(no output)"
    assert play.tool("python", code="print(x)").endswith("NameError: name 'x' is not defined\n")
    shown = play.tool("python", code="def f():\n    return 1 / 0\nprint('before')\nf()")
    assert shown.startswith("before\nTraceback") and 'File "<code>", line 2, in f' in shown
    assert "    return 1 / 0" in shown and "<candidate>" not in shown
    assert "SyntaxError" in play.tool("python", code="1 +")
    assert (
        play.tool("python", code="import sys; print('a'); sys.exit(3)") == "a\nerror: the program ended with status 3"
    )
    assert "FileNotFoundError" in play.tool("python", code=f"open({__file__!r})")  # the machine's files are not there
    assert "cut: 8192 of 1000" in play.tool("python", code="print('x' * 100_000)")
    assert play.tool("python", code="print('x' * 2_000_000)").startswith(
        "error: the program was stopped: it wrote more"
    )


def test_python_has_a_clock() -> None:
    play = Play(Python(seconds=1))
    assert (
        play.tool("python", code="import time; time.sleep(30)") == "error: the program was stopped: it ran out of time"
    )


# search

CORPUS = [
    {"id": "a", "title": "Apples", "text": "The apple is a round fruit. An apple grows on a tree."},
    {"id": "b", "title": "Bears", "text": "A bear eats fruit and honey, and sleeps in winter."},
    {"text": "Cars have wheels."},
]


@pytest.fixture
def corpus(tmp_path: Path) -> str:
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in CORPUS))
    return str(path)


def test_search_finds_and_reads(corpus: str) -> None:
    play = Play(Search(corpus, k=2))
    found = json.loads(play.tool("search", query="Which fruit is an APPLE?"))
    assert [one["id"] for one in found] == ["a", "b"] and found[0]["title"] == "Apples"
    assert play.tool("search", query="submarine") == "[]"
    assert play.tool("read", id="3") == "Cars have wheels."
    assert play.tool("read", id="z") == "error: LookupError: there is no document 'z'; search for one first"


def test_bm25_by_hand(corpus: str) -> None:
    """`winter` is in 1 of 3 texts, once; that text has 11 words with its title, and all have 13 + 11 + 3 = 27."""
    documents = collection(corpus)
    rarity = 0.9808292530117262  # ln(1 + 2.5 / 1.5)
    share = 1.2 * (0.25 + 0.75 * 11 / 9)
    (found,) = documents.scores("winter").items()
    assert found == ("b", pytest.approx(rarity * 2.2 / (1 + share)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"id": 1}\n', "corpus.jsonl:1: 'text'"),
        ('{"text": "a", "id": 1}\n{"text": "b", "id": "1"}\n', "corpus.jsonl:2: the id '1' was there before"),
        ('{"text": "a"}\n{"text"\n', "corpus.jsonl:2"),
        ("", "has no texts"),
        ('{"text": ""}\n', "has no texts"),
    ],
)
def test_a_collection_that_cannot_be_read(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        Search(str(path))


def test_search_in_a_pool(corpus: str) -> None:
    with EnvPool(f'search("{corpus}", k=1)', columns=(), timeout_seconds=60, workers=1) as pool:
        assert [tool["function"]["name"] for tool in pool.tools] == ["read", "search"]
        pool.reset({0: ({}, 0)})
        call = {"id": "a", "type": "function", "function": {"name": "search", "arguments": '{"query": "bear"}'}}
        reply = pool.act({0: Message("assistant", "", tool_calls=(call,))})[0]
        assert isinstance(reply, Reply) and json.loads(reply.messages[0].content)[0]["id"] == "b"


# guess_number


@pytest.mark.parametrize("secret", range(1, 21))
def test_halving_always_finds_the_number(secret: int) -> None:
    play = Play(GuessNumber(), secret=secret)
    assert play.shown == "Guess my number from 1 to 20. You have 5 guesses."
    low, high = 1, 20
    while not play.done:
        guess = (low + high) // 2
        answer = play.say(f"I try {guess}.")
        low, high = (guess + 1, high) if str(answer).startswith("Higher") else (low, guess - 1)
    assert answer == "Right." and play.reward == 1.0


def test_guesses_run_out() -> None:
    play = Play(GuessNumber(low=1, high=100, guesses=3), secret=50)
    assert play.say("between 10 and 60") == "Lower. 2 left."
    assert play.say("no idea") == "That is no number. 1 left."
    assert play.say("-5") == "Higher. 0 left." and play.done and play.reward == 0.0


def test_the_secret_comes_from_the_seed() -> None:
    def found(seed: int) -> int:
        for number in range(1, 21):
            if Play(GuessNumber(), seed=seed).say(str(number)) == "Right.":
                return number
        raise AssertionError

    secrets = [found(seed) for seed in range(10)]
    assert secrets == [found(seed) for seed in range(10)] and len(set(secrets)) > 3


def test_guessing_by_a_tool() -> None:
    play = Play(GuessNumberTool(low=1, high=4), secret=3)
    assert play.tool("guess", number=2) == "Higher. 2 left."
    assert play.tool("guess", number="three").startswith("error: the argument 'number' of guess does not fit")
    assert play.tool("guess", number=3) == "Right." and play.done and play.reward == 1.0
    assert Play(GuessNumberTool(), secret=3).say("I give up") is None


def test_a_range_that_is_empty_and_a_secret_outside() -> None:
    with pytest.raises(InputError, match="low=5, high=4"):
        GuessNumber(low=5, high=4)
    with pytest.raises(ValueError, match="the secret 30 is not from 1 to 20"):
        Play(GuessNumber(), secret=30)


# rooms


def explore(play: Play) -> dict[tuple[int, int], str]:
    """What each room shows, by a walk through all of them, as a player who does not know the house."""
    steps: Mapping[str, tuple[int, int]] = {"north": (0, 1), "east": (1, 0), "south": (0, -1), "west": (-1, 0)}
    back = {"north": "south", "south": "north", "east": "west", "west": "east"}
    seen: dict[tuple[int, int], str] = {}

    def visit(place: tuple[int, int], text: str) -> None:
        seen[place] = text
        for way in text.split("Exits: ")[1].split(".")[0].split(", "):
            there = (place[0] + steps[way][0], place[1] + steps[way][1])
            if there not in seen:
                visit(there, str(play.say(f"go {way}")))
                play.say(f"go {back[way]}")

    visit((0, 0), str(play.shown))
    return seen


def walk(start: tuple[int, int], goal: tuple[int, int]) -> list[str]:
    across, up = goal[0] - start[0], goal[1] - start[1]
    return [f"go {'east' if across > 0 else 'west'}"] * abs(across) + [f"go {'north' if up > 0 else 'south'}"] * abs(up)


@pytest.mark.parametrize("seed", range(6))
def test_the_best_play_of_rooms_earns_one(seed: int) -> None:
    seen = explore(Play(Rooms(width=4, patience=20), seed=seed))
    assert len(seen) == 12
    key = next(place for place, text in seen.items() if "a key" in text)
    door = next(place for place, text in seen.items() if "a locked door" in text)
    best = [*walk((0, 0), key), "take key", *walk(key, door), "open door"]
    play = Play(Rooms(width=4), seed=seed)
    answers = [play.say(f"I think.\n{command.title()}.") for command in best]
    assert answers[-1] == "The door is open. You are free." and play.done and play.reward == 1.0
    slow = Play(Rooms(width=4), seed=seed)
    for command in ["dance", *best]:
        slow.say(command)
    assert slow.reward == len(best) / (len(best) + 1)


def test_rooms_refuses_and_ends() -> None:
    play = Play(Rooms(width=3, height=1, patience=1), seed=1)
    assert play.say("sing a song") == ("I know only: go north, go east, go south, go west, take key, open door.")
    assert str(play.say("go north")).startswith("There is a wall. Exits: ")
    turns = 2
    while not play.done:
        play.say("open door")
        turns += 1
    assert turns in (4, 5) and play.reward == 0.0  # three rooms in a row: 2 or 3 steps, the key and the door
    with pytest.raises(InputError, match="three rooms"):
        Rooms(width=1, height=2)


# gym


def test_reasoning_gym_with_a_second_try() -> None:
    entry = {"question": "How many?", "answer": "42", "metadata": {"source_dataset": "basic_arithmetic"}}
    with EnvPool("gym(tries=2)", columns=["entry"], timeout_seconds=30, workers=1) as pool:
        pool.reset({key: ({"entry": entry}, 0) for key in range(3)})
        first = pool.act({0: Message("assistant", "42"), 1: Message("assistant", "41"), 2: Message("assistant", "40")})
        again = Reply((Message("user", "That is not right. Try again."),), False)
        assert first == {0: Reply((), True), 1: again, 2: again}
        second = pool.act({1: Message("assistant", "<answer>42</answer>"), 2: Message("assistant", "39")})
        assert second == {1: Reply((), True), 2: Reply((), True)}
        assert [outcome.reward for outcome in pool.finish([0, 1, 2]).values()] == [1.0, 1.0, 0.0]  # type: ignore[union-attr]
