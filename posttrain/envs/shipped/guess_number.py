"""Guess the number: a game by turns of text, and the same game by a tool."""

from __future__ import annotations

import random
import re

from posttrain.types import InputError

INTEGER = re.compile(r"[+-]?\d{1,18}")


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
