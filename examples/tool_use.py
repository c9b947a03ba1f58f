"""The environment and the reward of tool_use.yaml: a calculator that is asked in plain text.

SmolLM2's chat template has no place for tools, so calls are a convention of their own here: a line `CALC: expression`
is answered by a turn of the user, `Result: value`. With a model whose template writes tools take the environment
`calculator` as it ships; nothing else changes.
"""

from __future__ import annotations

import re

from posttrain.envs.shipped.calculator import value_of, written

CALL = re.compile(r"CALC:(.*)")


class Calculator:
    """Answers `CALC: expression`; any other answer ends the episode. What that is worth, a reward says."""

    def reset(self) -> None:
        """Nothing to prepare."""

    def reply(self, text: str) -> str | None:
        """The value of the last expression, or what is wrong with it."""
        if not (calls := CALL.findall(text)):
            return None
        try:
            return f"Result: {written(value_of(calls[-1].strip()))}"
        except (ValueError, ZeroDivisionError) as error:
            return f"Error: {error}"


def first_step(response: str, answer: str) -> float:
    """1.0 if the response is one call whose value is the answer, else 0.0: a right first turn, without the second."""
    match = CALL.fullmatch(response.strip())
    try:
        return float(match is not None and written(value_of(match[1].strip())) == answer)
    except (ValueError, ZeroDivisionError):
        return 0.0
