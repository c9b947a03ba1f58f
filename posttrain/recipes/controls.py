"""Control arms of a recipe: a stage of `rl` with `controls` becomes that stage and one more for each control."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from posttrain.config import RlConfig, as_tuple

KEY = "controls"
CONTROLS: tuple[str, ...] = get_args(get_args(RlConfig.model_fields["control"].annotation)[0])


@dataclass(frozen=True)
class Arm:
    """A stage of the expanded recipe: its settings, and the stage of the file that it stands for."""

    name: str
    settings: Any
    of: str


def arms(stages: Mapping[str, Any]) -> Iterator[Arm]:
    """The stages, after each that has `controls` its control arms: `NAME-coin` has the settings of `NAME` (data, start,
    seed, steps or operations) and `control: coin`. Stages without `controls`, and what is none, stay as they are."""
    for name, raw in stages.items():
        if not isinstance(raw, Mapping) or KEY not in raw:
            yield Arm(name, raw, name)
            continue
        settings = {key: value for key, value in raw.items() if key != KEY}
        yield Arm(name, settings, name)
        for control in _listed(raw):
            yield Arm(f"{name}-{control}", {**settings, "control": control}, name)


def faults(stages: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(stage, what is wrong) with its `controls`."""
    for name, raw in stages.items():
        if not isinstance(raw, Mapping) or KEY not in raw:
            continue
        listed = as_tuple(raw[KEY])
        known = isinstance(listed, list | tuple) and all(control in CONTROLS for control in listed)
        if not known or len(set(listed)) < len(listed):
            yield name, f"{KEY} is {raw[KEY]!r}; give a list of {', '.join(CONTROLS)}, each once"
        elif raw.get("method") != "rl":
            yield name, f"{KEY} are for stages with method: rl, not {raw.get('method')!r}"
        elif "control" in raw:
            yield name, f"it is a control itself (control: {raw['control']}); leave {KEY} out"
        for control in _listed(raw):
            if (taken := f"{name}-{control}") in stages:
                yield name, f"{KEY} would make the stage {taken}, and the recipe has one of that name"


def _listed(raw: Mapping[str, Any]) -> list[str]:
    listed = as_tuple(raw[KEY])
    return [c for c in listed if c in CONTROLS] if isinstance(listed, list | tuple) else []
