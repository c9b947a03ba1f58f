"""Which runs of a comparison are controls, and of which run: the same one, paid by its reward."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from posttrain.runs.config import NOT_COMPARED, UNTIL_FINISHED

FREE = NOT_COMPARED | UNTIL_FINISHED | {"control"}
"""Settings in which a control may differ from its run."""


def controls_of(settings: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str, str]]:
    """(run, its control, what that was paid by), from the settings of runs by name: the two differ in nothing but the
    control, of which the first has none. The order is that of the controls."""
    for name, own in settings.items():
        if (control := own.get("control")) is not None:
            yield from (
                (of, name, str(control))
                for of, other in settings.items()
                if other.get("control") is None and _fixed(own) == _fixed(other)
            )


def _fixed(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in FREE}
