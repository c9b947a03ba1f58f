"""`--config FILE`: the options of a command from YAML, such as the `config.yaml` of a run folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from posttrain.config import Config
from posttrain.console import current_names
from posttrain.recipes.load import UniqueKeys
from posttrain.runs.config import DERIVED, FILE, LENGTH, read_settings
from posttrain.runs.log import LINEAGE
from posttrain.types import InputError

FLAG = "--config"
ASKED_ANEW = ("resume", "trust_remote_code")
"""Options that a file does not set: the user says for each command whether to run the code of a model."""


def without_config(args: Sequence[str]) -> tuple[list[str], Path | None]:
    """A command line without `--config FILE`, and the file. Raises InputError without a file, or with two."""
    words = [part for arg in args for part in (arg.split("=", 1) if arg.startswith(FLAG + "=") else [arg])]
    places = [i for i, word in enumerate(words) if word == FLAG]
    if not places:
        return list(args), None
    if len(places) > 1:
        raise InputError(f"{FLAG} was given {len(places)} times; give it once")
    (i,) = places
    if i + 1 == len(words) or words[i + 1].startswith("-"):
        raise InputError(f"{FLAG} needs a YAML file, such as the config.yaml of a run folder")
    return words[:i] + words[i + 2 :], Path(words[i + 1])


def file_settings(file: Path, method: str, given: Mapping[str, Any], config_class: type[Config]) -> dict[str, Any]:
    """The options in a file, by field, without those that are `given` on the command line. Relative paths start at the
    current folder, as on the command line. Of a run's own `config.yaml`, hashes of files and values that equal a
    default are left out, since another option may change a default (as `--algorithm` does); the command line must name
    a new `--out`. Raises InputError for a file without options, or with those of another method."""
    of_a_run = file.name == FILE and any((file.parent / name).exists() for name in ("metrics.jsonl", LINEAGE))
    found = read_settings(file)[0] if of_a_run else _read(file)
    found = current_names({str(key).replace("-", "_"): value for key, value in found.items()})
    if (meant := found.pop("method", method)) != method:
        raise InputError(f"{FLAG} {file}: is for posttrain {meant}, not for posttrain {method}")
    if of_a_run:
        usual = config_class.defaults(found)
        found = {k: v for k, v in found.items() if k not in DERIVED and (k not in usual or v != usual[k])}
        if "out" not in given:
            raise InputError(f"{FLAG} {file}: is of the run in {file.parent}; add --out for the new one")
    hidden = {*ASKED_ANEW, *given, *(LENGTH if given.keys() & LENGTH else ())}
    return {key: value for key, value in found.items() if key not in hidden}


def _read(file: Path) -> dict[Any, Any]:
    try:
        found = yaml.load(file.read_text(encoding="utf-8"), UniqueKeys)
    except OSError as error:
        raise InputError(f"{FLAG} {file}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise InputError(f"{FLAG} {file}: is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(found, dict):
        raise InputError(f"{FLAG} {file}: holds no options; write one a line, as in `batch_size: 32`")
    return found
