"""Games by turns of text: guess the number (by a tool too), a text adventure, and the items of reasoning-gym."""

from __future__ import annotations

import importlib
import random
import re
from collections.abc import Mapping
from typing import Any

from posttrain.rewards.libraries.reasoning_gym import reasoning_gym
from posttrain.types import InputError

INTEGER = re.compile(r"[+-]?\d{1,18}")
Place = tuple[int, int]
WAYS: Mapping[str, Place] = {"north": (0, 1), "east": (1, 0), "south": (0, -1), "west": (-1, 0)}
COMMANDS = "go north, go east, go south, go west, take key, open door"


class Game:
    """The secret, what was guessed and what that earns; see `GuessNumber`."""

    def __init__(self, *, low: int = 1, high: int = 20, guesses: int | None = None) -> None:
        self._low, self._high = low, high
        self._guesses = (high - low + 1).bit_length() if guesses is None else guesses
        if low > high or self._guesses < 1:
            raise InputError(f"guess_number: low={low}, high={high}, guesses={guesses} leave nothing to guess")
        self._begin(low)

    def reset(self, secret: int | None = None, seed: int = 0) -> str:
        self._begin(random.Random(seed).randint(self._low, self._high) if secret is None else int(secret))
        if not self._low <= self._secret <= self._high:
            raise ValueError(f"the secret {self._secret} is not from {self._low} to {self._high}")
        return f"Guess my number from {self._low} to {self._high}. You have {self._left} guesses."

    def get_reward(self) -> float:
        return float(self._found)

    def _begin(self, secret: int) -> None:
        self._secret = secret
        self._left = self._guesses
        self._found = self.done = False

    def _judge(self, guess: int | None) -> str:
        self._left -= 1
        self._found = guess == self._secret
        self.done = self._found or self._left == 0
        if self._found:
            return "Right."
        verdict = "That is no number." if guess is None else "Higher." if guess < self._secret else "Lower."
        return f"{verdict} {self._left} left."


class GuessNumber(Game):
    """The model guesses a whole number from `low` to `high` and is told higher or lower; the last number of its answer
    is its guess. The secret is the column `secret`, else drawn from the seed.

    It is over when the number is found or `guesses` are used up; the default is what halving the range needs at worst.
    An answer without a number uses up a guess. Reward 1.0 if found, else 0.0. Raises InputError for an empty range,
    ValueError for a secret outside it."""

    def reply(self, text: str) -> str:
        numbers = INTEGER.findall(text)
        return self._judge(int(numbers[-1]) if numbers else None)


class GuessNumberTool(Game):
    """The same game with a tool, `guess`. An answer without a call gives up."""

    def guess(self, number: int) -> str:
        """Guess the number.

        Args:
            number: The guess.

        Returns:
            Whether the secret is higher or lower, or that the guess is right.
        """
        return self._judge(number)


class Rooms:
    """A grid of `width` x `height` rooms, each open to its neighbours. A key lies in one, a locked door is in another,
    the game begins in a third; all three are drawn from the seed. Commands are one line: `go north`, `take key`,
    `open door`; the last line of an answer is its command.

    The shortest game walks from the start to the key, takes it, walks to the door and opens it:
    n = |start - key| + 1 + |key - door| + 1 commands, with distances |dx| + |dy|. It is over when the door is open or
    after `patience` times n commands, those that do nothing included. Reward: n over the commands used if the door is
    open, so 1.0 for the best play, else 0.0."""

    def __init__(self, *, width: int = 3, height: int = 3, patience: int = 3) -> None:
        if min(width, height) < 1 or width * height < 3 or patience < 1:
            raise InputError("rooms needs three rooms at least, and a patience of 1 or more")
        self._size = (width, height)
        self._patience = patience
        self._begin((0, 0), (0, 0), (0, 0))

    def reset(self, seed: int = 0) -> str:
        places = [(x, y) for x in range(self._size[0]) for y in range(self._size[1])]
        self._begin(*random.Random(seed).sample(places, 3))
        return (
            "You are in a house of many rooms. Find the key, then open the locked door.\n"
            f"Commands: {COMMANDS}. Answer with one of them.\n{self._look()}"
        )

    def reply(self, text: str) -> str:
        lines = text.strip().splitlines()
        said = self._do(" ".join(lines[-1].lower().strip(" .!`\"'").split()) if lines else "")
        self._used += 1
        self.done = self._open or self._used >= self._patience * self._best
        return said

    def get_reward(self) -> float:
        return self._best / self._used if self._open else 0.0

    def _begin(self, start: Place, key: Place, door: Place) -> None:
        self._here, self._key, self._door = start, key, door
        self._best = distance(start, key) + distance(key, door) + 2
        self._used = 0
        self._has_key: bool = False
        self._open: bool = False
        self.done = False

    def _do(self, command: str) -> str:
        match command.split(" "):
            case ["go", way] if way in self._exits():
                self._here = self._exits()[way]
                return self._look()
            case ["go", way] if way in WAYS:
                return f"There is a wall. {self._look()}"
            case ["take", "key"] if self._here == self._key and not self._has_key:
                self._has_key = True
                return "You have the key."
            case ["take", "key"]:
                return "There is no key here."
            case ["open", "door"] if self._here == self._door and self._has_key:
                self._open = True
                return "The door is open. You are free."
            case ["open", "door"]:
                return "It is locked." if self._here == self._door else "There is no door here."
        return f"I know only: {COMMANDS}."

    def _exits(self) -> dict[str, Place]:
        x, y = self._here
        around = {way: (x + dx, y + dy) for way, (dx, dy) in WAYS.items()}
        width, height = self._size
        return {way: (x, y) for way, (x, y) in around.items() if 0 <= x < width and 0 <= y < height}

    def _look(self) -> str:
        seen = [f"Exits: {', '.join(self._exits())}."]
        if self._here == self._key and not self._has_key:
            seen.append("There is a key.")
        if self._here == self._door:
            seen.append("There is a locked door.")
        return " ".join(seen)


def distance(one: Place, other: Place) -> int:
    """Steps between two rooms: |dx| + |dy|."""
    return abs(one[0] - other[0]) + abs(one[1] - other[1])


class Gym:
    """The question is the prompt and the item the column `entry`, as `--data reasoning-gym:NAME` gives them.

    Reward: that of `rewards.reasoning_gym` for the last answer, 1.0 or 0.0. With `tries` above 1 a wrong answer is
    told to be wrong and may be mended. Raises InputError for fewer than one try, and what the verifier raises."""

    def __init__(self, *, tries: int = 1) -> None:
        if tries < 1:
            raise InputError(f"gym: tries={tries} must be at least 1")
        importlib.import_module("reasoning_gym.factory")  # takes seconds, which no episode should pay
        self._tries = self._left = tries
        self._entry: Mapping[str, Any] = {}
        self._reward = 0.0

    def reset(self, entry: Mapping[str, Any]) -> None:
        self._entry, self._left, self._reward = entry, self._tries, 0.0

    def reply(self, text: str) -> str | None:
        self._reward = reasoning_gym(text, self._entry)
        self._left -= 1
        return None if self._reward or not self._left else "That is not right. Try again."

    def get_reward(self) -> float:
        return self._reward
