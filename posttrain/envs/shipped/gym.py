"""reasoning-gym as an environment: its items, its verifier, and further tries if asked for."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from posttrain.rewards.libraries.reasoning_gym import reasoning_gym
from posttrain.types import InputError


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
