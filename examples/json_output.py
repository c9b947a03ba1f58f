"""The reward of json_output.yaml."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def fields(response: str, expected: Mapping[str, Any]) -> float:
    """The share of the expected fields that the JSON object in the response has with the same value and type; a field
    too many costs as much as a wrong one. 0.0 for what is no JSON object."""
    try:
        found = json.loads(response)
    except (ValueError, RecursionError):
        return 0.0
    if not isinstance(found, dict):
        return 0.0
    right = sum(name in found and _same(found[name], value) for name, value in expected.items())
    return right / len(expected.keys() | found.keys())


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and one == other  # "3" is not 3, nor is True 1
