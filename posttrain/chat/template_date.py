"""The date that chat templates write where they write today's: one for a whole run.

Llama 3's templates and others put the date into the system prompt. A run that is resumed on another day must train on
the same tokens, so its date is kept in `config.yaml`. It travels as an environment variable, because the workers of a
run hold models too (a judge's), and because a user may want another day than today.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml

from posttrain.types import InputError

VARIABLE = "POSTTRAIN_TEMPLATE_DATE"
CLOCK = "strftime_now"
"""What templates call for the date; transformers gives it to them."""
KEY = "template_date"
"""Its name in `config.yaml` and in the settings of evaluations; it stands there only if a template writes the date."""


Stage = TypeVar("Stage", bound=Callable[..., None])


def template_date() -> date:
    """The date in $POSTTRAIN_TEMPLATE_DATE (YYYY-MM-DD), else today's. Raises InputError for one that is no date."""
    given = os.environ.get(VARIABLE)
    try:
        return date.fromisoformat(given) if given else date.today()
    except ValueError:
        raise InputError(f"{VARIABLE} is {given!r}; give a date as 2025-01-31") from None


def dated(settings: dict[str, Any], *written: bool) -> dict[str, Any]:
    """The settings with the date, if one of the templates in use writes it."""
    return settings | {KEY: template_date().isoformat()} if any(written) else settings


@contextmanager
def fixed_date(day: date) -> Iterator[None]:
    """As long as it is entered, `template_date` is that day, in this process and in the workers it starts."""
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = day.isoformat()
    try:
        yield
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before


def on_one_date(stage: Stage) -> Stage:
    """The stage with one date from its beginning to its end: the one that its run folder names, if it does."""

    @wraps(stage)
    def run(config: Any, *arguments: Any, **named: Any) -> None:
        with fixed_date(kept_date(config.out / "config.yaml") or template_date()):
            stage(config, *arguments, **named)

    return cast(Stage, run)


def kept_date(file: Path) -> date | None:
    """The date in a run's `config.yaml`. A file that is none is left to whoever opens the run."""
    try:
        settings = yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else {}
        return date.fromisoformat(settings[KEY])
    except (OSError, ValueError, TypeError, KeyError, RecursionError, yaml.YAMLError):
        return None
