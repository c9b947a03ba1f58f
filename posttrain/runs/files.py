"""The forms of files in run folders. Folders may come from somebody else, or be damaged: what is not of the form that
we write is refused with its file and line."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Annotated, Any, NotRequired

from pydantic import AllowInfNan, TypeAdapter, ValidationError
from typing_extensions import TypedDict  # the one that pydantic reads before Python 3.12

from posttrain.types import InputError

Finite = Annotated[float, AllowInfNan(False)]


class SampleText(TypedDict):
    """Of an answer in `evaluations/SUITE.jsonl`."""

    text: str
    score: Finite | None


class TaskLine(TypedDict):
    """Of a line there."""

    task: str
    prompt: NotRequired[str]
    values: dict[str, Finite | None]
    samples: list[SampleText]


class SettingsPart(TypedDict):
    """Of the settings there."""

    reward: NotRequired[list[str]]
    reward_contents: NotRequired[dict[str, str]]
    tasks_hash: NotRequired[str]
    prompts_hash: NotRequired[str]


class SuiteFile(TypedDict):
    """Of `evaluations/SUITE.json`."""

    model: NotRequired[str | None]
    weights_hash: NotRequired[str | None]
    settings: NotRequired[SettingsPart | None]


class LineageFile(TypedDict):
    """Of `lineage.json`."""

    parents: NotRequired[list[str]]
    parent_weights_hash: NotRequired[str | None]
    weights_hash: NotRequired[str | None]


class CostFile(TypedDict):
    """Of `cost.json`."""

    seconds: Finite
    tokens: int
    flops: Finite


def checked(value: Any, form: type, where: Path | str) -> dict[str, Any]:
    """The value, which has the form of a TypedDict; more keys may be there. Raises InputError for any other."""
    try:
        _adapter(form).validate_python(value, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "it"
        raise InputError(f"{where}: damaged, {place}: {first['msg'].lower()}") from None
    return dict(value)


@cache
def _adapter(form: type) -> TypeAdapter[Any]:
    return TypeAdapter(form)
