"""The `config.yaml` of a run folder: read, in an earlier form too, and compared with the settings of a resume."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from posttrain.config.base import TakesRun
from posttrain.console import current_names
from posttrain.methods import METHODS
from posttrain.types import InputError

FILE = "config.yaml"
HASH = re.compile(r"(?<=sha256=)[0-9a-f]+(?=>)")
"""That of a function of Python in a setting."""
NOT_COMPARED = {"resume", "out", "strict", "trust_remote_code"}
UNTIL_FINISHED = {
    "keep",
    "save_dtype",
    "endpoint_concurrency",
    "endpoint_timeout",
    "endpoint_retries",
    "endpoint_max_requests",
    "endpoint_max_tokens",
    "endpoint_cache",
    "reward_workers",
    "env_workers",
    "device",
    "dtype",
    "micro_batch_tokens",
    "checkpoint_activations",
    "deterministic",
    "no_monitors",
    "on_alarm",
}
"""Settings that change no step and no answer but by rounding, as what is kept of a run, what may be spent, how many
processes share the work, where models are computed, or what an alarm does: they may change until it has finished. Where
rounding changes from a checkpoint on, its run is told (see `train/checkpoints.py`)."""
LENGTH = {"max_steps", "epochs"}
HASHES = {f"{name}_hash": name for name in ("data", "eval_data", "ptx_data", "replay", "chat_template", "audit")}
"""Settings that are the SHA-256 of the file which another one names."""
CONTENTS = HASHES | {"criteria": "principles"}
"""Settings that are the content of what another one names."""
TEMPLATE_DATE = "template_date"
"""See `template_date.py`. Whether a run has one is known once its models are loaded, after a look at its folder."""
DERIVED = {*CONTENTS, TEMPLATE_DATE, "terms"}
"""What stands in the file beside the options of the method."""
ENDED_BY = {"patience": "--patience stopped it", "max_flops": "it has spent its --max-flops"}
"""Why a run may end before its last step, by what its event `finished` says."""


@dataclass(frozen=True)
class Progress:
    """How far a run folder has come: the steps of its `metrics.jsonl`, whether it has finished and by what, None where
    it does not say, and whether it has checkpoints."""

    steps: int = 0
    finished: bool = False
    ended_by: str | None = None
    checkpoints: bool = False


@dataclass(frozen=True)
class Change:
    """What a resume changes: whether settings are to be written again, whether the run becomes longer, and what its
    user must hear about that."""

    settings: bool = False
    longer: bool = False
    notes: tuple[str, ...] = ()


def read_settings(file: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The settings of a run in its file, see `parse_settings`."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, ValueError):
        text = ""
    return parse_settings(text, file)


def parse_settings(text: str, file: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The settings of a run, and what a user must hear about them. Raises InputError for text that holds none.

    Runs of RL from before `updates_per_batch` call it `epochs`, which now means passes over the data."""
    try:
        found = yaml.safe_load(text)
    except (ValueError, RecursionError, yaml.YAMLError):
        found = None
    if not isinstance(found, dict):
        raise InputError(f"{file}: damaged, it is not a run's configuration; put it back, or choose another folder")
    found = current_names(found)
    if "minibatches" not in found or "updates_per_batch" in found:
        return found, ()
    found["updates_per_batch"] = found.pop("epochs", 1)
    note = (
        f"{file} is of an earlier version: its epochs, {found['updates_per_batch']}, are read as updates_per_batch, "
        "the optimizer's passes over a batch of rollouts"
    )
    return found, (note,)


def own_settings(run: Path, given: Mapping[str, Any], method: str) -> dict[str, Any]:
    """The options of a run folder, for a resume of it by the command `method`, with those that are `given` in their
    place. Raises InputError where the folder holds no run of that method, saying which command continues it.

    Whether to run the code that a model brings along is asked of every command anew."""
    file = run / FILE
    if Path(given.get("out", run)).resolve() != run.resolve():
        raise InputError(f"--resume {run}: continues the run in that folder; leave out --out {given['out']}")
    if (run / "recipe.yaml").exists():
        raise InputError(f"--resume {run}: is the folder of a recipe; posttrain run RECIPE --out {run} continues it")
    if not file.exists():
        raise InputError(f"--resume {run}: holds no run ({FILE} is missing); give the folder of one")
    found = {key: value for key, value in read_settings(file)[0].items() if key not in DERIVED}
    made_by = method_of(found)
    if made_by is None:
        raise InputError(f"--resume {run}: {FILE} is of another version, or of no run; give all options again")
    if made_by != method:
        by_itself = TakesRun() in METHODS[made_by].config.model_fields["resume"].metadata
        words = f"--resume {run}" if by_itself else f"{' '.join(found['models'])} --out {run} --resume"
        raise InputError(f"--resume {run}: is a run of {made_by}; continue it with: posttrain {made_by} {words}")
    kind = METHODS[method].config
    settings = {**_defaults(method), **found, "trust_remote_code": False}
    own = {name: value for name, value in settings.items() if name in kind.model_fields}
    if given.keys() & LENGTH:  # one of them stands for the other
        own |= dict.fromkeys(LENGTH & own.keys())
    return own | dict(given) | {"resume": True, "out": run}


def _defaults(method: str) -> dict[str, Any]:
    fields = METHODS[method].config.model_fields
    return {name: field.default for name, field in fields.items() if not field.is_required()}


def method_of(settings: Mapping[str, Any]) -> str | None:
    """The method that a run folder with these settings is of: among those that have all of them, the one with the
    fewest others. None if no command has them."""
    found = settings.keys() - DERIVED
    fitting = {
        name: len(fields)
        for name, fields in ((name, method.config.model_fields) for name, method in METHODS.items())
        if {key for key, field in fields.items() if field.is_required()} <= found <= fields.keys()
    }
    return min(fitting, key=fitting.__getitem__) if fitting else None


def began_elsewhere(run: Path) -> str:
    """What to say of a run that was begun in another folder than the current one, or moved; else nothing."""
    out = str(read_settings(run / FILE)[0].get("out", run))
    if Path(out).is_absolute() or Path(out).resolve() == run.resolve():
        return ""
    return f"note: {run} began as --out {out}; relative paths in its settings are read from the current folder"


def compare(file: Path, now: Mapping[str, Any], finished: bool, progress: Callable[[], Progress]) -> Change:
    """What a resume with the settings `now` changes in the run of this file. Raises InputError, naming the setting, for
    a change that would make it another run, and for one that the run has come too far for."""
    before, notes = read_settings(file)
    if (method := method_of(before)) is not None and method == method_of(now):
        # an option that an earlier version did not have had the effect of its default
        before = {key: value for key, value in _defaults(method).items() if key in now} | before
    for key, source in CONTENTS.items():
        # a file that is not there any more is for its reader to tell
        if None not in (a := before.get(key), b := now.get(key)) and a != b and before.get(source) == now[source]:
            raise InputError(
                f"--resume: {now[source]} has other content than when the run in {file.parent} began; put the old "
                "file back, or begin anew with another --out"
            )
    may_differ = NOT_COMPARED | UNTIL_FINISHED | LENGTH
    if "max_steps" not in now:
        may_differ -= {"keep"}  # where nothing is trained, it counts answers
    if finished and "save_dtype" in now:
        may_differ -= {"save_dtype"}
    for key in sorted((set(before) | set(now)) - set(CONTENTS) - may_differ):
        if key == TEMPLATE_DATE and key not in now:
            continue
        if key == TEMPLATE_DATE and key not in before:
            raise InputError(
                f"--resume: {file} does not say which date its chat template wrote; begin anew with another --out"
            )
        if before.get(key) != now.get(key):
            raise _differs(file, key, before, now)
    then, wanted = _length(before), _length(now)
    changed = not finished and any(before.get(key) != now.get(key) for key in UNTIL_FINISHED)
    if then == wanted:
        return Change(settings=changed, notes=notes)
    _check_longer(file, before, now, progress())
    return Change(settings=True, longer=True, notes=(*notes, *_unlike_one_run(before, now)))


def _length(settings: Mapping[str, Any]) -> tuple[str, float] | None:
    """How long a run is, in its unit: steps, or passes over the data. None where operations alone end it."""
    if settings.get("max_steps") is not None:
        return "max_steps", settings["max_steps"]
    if settings.get("epochs") is not None or settings.get("max_flops") is None:
        return "epochs", settings.get("epochs") or 1
    return None


def _check_longer(file: Path, before: Mapping[str, Any], now: Mapping[str, Any], progress: Progress) -> None:
    then, wanted = _length(before), _length(now)
    key = "max_steps" if before.get("max_steps") != now.get("max_steps") else "epochs"
    if then is None or wanted is None or "rounds" in before:
        raise _differs(file, key, before, now)
    if wanted[0] == "max_steps" and (wanted[1] < progress.steps or (wanted[1] == progress.steps and progress.finished)):
        raise InputError(
            f"--resume: the run in {file.parent} has trained {progress.steps} steps, and max-steps is {wanted[1]}; "
            "give more than it has trained to go on, or another --out"
        )
    in_passes = then[0] == "epochs" and wanted[0] == "max_steps" and progress.finished
    if not in_passes and not (then[0] == wanted[0] and wanted[1] > then[1]):
        raise InputError(
            f"--resume: the run in {file.parent} is one of {_told(then)}, and {_told(wanted)} would make it another. "
            "A run can be made longer, in the unit it has, and not shorter; give the same arguments, or another --out"
        )
    if not progress.finished:
        return
    ended_by = progress.ended_by
    if ended_by is None and then[0] == "max_steps" and progress.steps < then[1]:  # of an earlier version
        ended_by = next((name for name in ENDED_BY if before.get(name) is not None), None)
    if ended_by in ENDED_BY:
        raise InputError(
            f"--resume: the run in {file.parent} ended after step {progress.steps} since "
            f"{ENDED_BY[ended_by]}; more steps would change nothing. Begin a new run from its model: "
            f"--model {file.parent} and another --out"
        )
    if not progress.checkpoints:
        raise InputError(
            f"--resume: the run in {file.parent} has finished and kept no checkpoint to go on from; begin a new run "
            f"from its model (--model {file.parent} and another --out), and give --keep 1 to a run that may become "
            "longer"
        )


def _unlike_one_run(before: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, ...]:
    then, wanted = _length(before), _length(now)
    assert then is not None and wanted is not None
    notes = []
    if now.get("schedule") != "constant":
        notes.append(
            f"this is not the same as one run of {_told(wanted)}: the {now.get('schedule')} schedule had lowered the "
            f"learning rate towards an end after {_told(then)}, and from here on follows that of the longer run"
        )
    if then[0] == "epochs" and "group_size" not in now:
        notes.append(
            f"the last step of {_told(then)} may have had a smaller batch, where one run of {_told(wanted)} would have "
            "filled it from the next pass"
        )
    return tuple(notes)


def _told(length: tuple[str, float]) -> str:
    unit, number = length
    noun = "step" if unit == "max_steps" else "epoch"
    return f"{number:g} {noun}{'' if number == 1 else 's'}"


def _differs(file: Path, key: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> InputError:
    old, new = ((value if isinstance(value, list | tuple) else [value]) for value in (before.get(key), now.get(key)))
    for then, given in zip(old, new, strict=False):
        if then != given and HASH.sub("", str(then)) == HASH.sub("", str(given)):
            return InputError(
                f"--resume: {key.replace('_', '-')} {given} has changed since the run in {file.parent} began, which "
                f"was with {then}; give it as it was then, or begin anew with another --out"
            )
    return InputError(
        f"--resume: {key.replace('_', '-')} was {before.get(key)!r} in {file} and is {now.get(key)!r} now; "
        "give the same arguments, or another --out"
    )
