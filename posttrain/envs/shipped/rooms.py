"""A small text adventure: find the key, find the locked door, open it."""

from __future__ import annotations

import random
from collections.abc import Mapping

from posttrain.types import InputError

Place = tuple[int, int]
WAYS: Mapping[str, Place] = {"north": (0, 1), "east": (1, 0), "south": (0, -1), "west": (-1, 0)}
COMMANDS = "go north, go east, go south, go west, take key, open door"


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
