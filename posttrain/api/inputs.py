"""What Python hands over in place of names: runs, loaded models, rows and functions; and the configuration it becomes.

Rows and loaded models are written into `inputs/` of the run folder, so that hashes, resume and lineage hold for them as
for files."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol, TypeVar

from pydantic import ValidationError

from posttrain.api.words import FUNCTIONS, PRINTED_ONLY
from posttrain.config import REWARDS, Config, EvalConfig
from posttrain.config.faults import messages
from posttrain.config.peer_names import ALIKE, meant
from posttrain.console import loading, speaking
from posttrain.evals.runs import check_free
from posttrain.functions import FunctionText
from posttrain.runs.config import FILE
from posttrain.runs.files import ROLLOUTS, write_atomic
from posttrain.runs.folders import write_folder
from posttrain.runs.log import check_place
from posttrain.runs.reader import Run
from posttrain.threads import configure_threads
from posttrain.types import InputError


class Frame(Protocol):
    """A pandas.DataFrame."""

    columns: Any

    def to_dict(self, *args: Any, **options: Any) -> Any: ...


class Written:
    """A result that has a folder, if it was written."""

    path: Path | None


Folder = str | Path | Run | Written
Model = str | Path | Run | tuple[Any, Any]
"""A name or folder, a run, or a loaded transformers model with its tokenizer."""
Data = str | Path | Iterable[Mapping[str, Any]] | Frame
"""A source as on the command line, a list of dicts, a datasets.Dataset or a pandas.DataFrame."""
Reward = str | Callable[..., Any]
"""An expression as on the command line, or a function or class."""

ConfigT = TypeVar("ConfigT", bound=Config)
MODELS = ("model", "teacher", "policy", "models")
SEVERAL = (*REWARDS, "constraint", "set")
DATA = ("data", "eval_data", "ptx_data", "file")
INPUTS = "inputs"


def reward(function: Callable[..., Any], *, weight: float = 1.0, name: str | None = None) -> str:
    """A function or class as a reward, with a weight and a name for its part of the score:
    `reward=["math", pt.reward(concise, weight=0.2)]`. A function by itself has the weight 1 and its own name. Raises
    InputError for anything else, and for a weight that is no number."""
    if not callable(function):
        raise InputError(f"pt.reward: {function!r} is no function; write an expression with its weight, as 'math=0.5'")
    try:
        weight = float(weight)
    except (TypeError, ValueError):
        raise InputError(f"pt.reward: the weight {weight!r} is not a number") from None
    return FunctionText.of(function, f"{f' as {name}' if name else ''}={weight!r}")


def folder_of(given: Folder) -> Path:
    """The folder of a result, or that is named. Raises InputError for a result that was not written, and for anything
    that has no folder."""
    if isinstance(given, Run | Written):
        if given.path is None:
            raise InputError(f"the {type(given).__name__.lower()} was not written; give out, a folder for it")
        return given.path
    if not isinstance(given, str | Path):
        raise InputError(f"{type(given).__name__} has no folder; give the folder of a run")
    return Path(given)


def inputs_of(given: Mapping[str, Any]) -> Path | None:
    """Where the inputs of a run belong; None where nothing says where it is written."""
    out = given.get("out")
    return None if out is None else folder_of(out) / INPUTS


@contextmanager
def configured(kind: type[ConfigT], given: Mapping[str, Any], inputs: Path | None) -> Iterator[ConfigT]:
    """The configuration that these options describe. Rows and loaded models among them are written into the folder
    `inputs`; without one into a temporary folder, which is removed at the end.

    Raises InputError as the command does, before anything is written."""
    from posttrain.api.named_files import check_named

    is_run = "resume" in kind.model_fields and inputs is not None
    with TemporaryDirectory(prefix="posttrain-") as scratch:
        files = _Inputs(inputs or Path(scratch) / INPUTS, Path(scratch))
        config = checked_config(kind, {name: files.named(name, value) for name, value in given.items()})
        configure_threads()
        if is_run:
            check_place(files.folder.parent, config.resume)  # type: ignore[attr-defined]
        elif isinstance(config, EvalConfig):
            check_free(config)
        files.write(begun=is_run and (files.folder.parent / FILE).exists())
        try:
            check_named(config)
            say_loading(config)
            with speaking(files.by_option):
                yield config
        except BaseException as error:
            if not (is_run and (files.folder.parent / FILE).exists()):
                files.remove()
            if isinstance(error, InputError):
                raise InputError(files.by_option(str(error))) from None
            raise


def checked_config(kind: type[ConfigT], values: Mapping[str, Any]) -> ConfigT:
    """The configuration of these options. Raises InputError for one that is unknown or wrong."""
    for name in sorted(values.keys() & PRINTED_ONLY):
        raise InputError(f"{name} only prints, and is for the command line: --{name.replace('_', '-')}")
    unknown = [name for name in values if name not in kind.model_fields]
    if unknown:
        raise InputError("\n".join(f"unknown option {name}; {_instead(name, kind)}" for name in unknown))
    try:
        return kind(**values)
    except ValidationError as error:
        raise InputError("\n".join(messages(kind, error, str, str))) from None


def _instead(name: str, kind: type[Config]) -> str:
    """What to give in place of an option that there is not: what another trainer's name means, or what resembles it."""
    known = [*kind.model_fields]
    if said := meant(name, known):
        return f"did you mean {said}?" if said in known else said
    if close := difflib.get_close_matches(name, known, n=1, cutoff=ALIKE):
        return f"did you mean {close[0]}?"
    command = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", kind.__name__.removesuffix("Config")).lower()
    return f"help(pt.{FUNCTIONS[command]}) lists them"


def say_loading(config: Config) -> None:
    """Say which model the work begins with, unless it is a run that has finished: libraries and weights take some
    seconds."""
    given: dict[str, Any] = dict(config)
    finished = given.get("resume") and (given["out"] / "lineage.json").exists()
    if isinstance(name := given.get("model"), str) and not finished:
        loading(name)


class _Inputs:
    """Names for what has none, and the files that they will be the names of."""

    def __init__(self, folder: Path, scratch: Path) -> None:
        self.folder, self.scratch = folder, scratch
        self.made = [place for place in (folder, *folder.parents) if not place.exists()]
        self.rows: dict[Path, str] = {}
        self.models: dict[Path, Path] = {}

    def named(self, name: str, value: Any) -> Any:
        """An option's value as a configuration takes it."""
        if name == "replay" and isinstance(value, Run):
            value = value.path / ROLLOUTS
        if isinstance(value, Run | Written | Path):
            value = str(folder_of(value))
        if name in SEVERAL and (isinstance(value, str) or not isinstance(value, Sequence)):
            return (value,)
        if name in ("models", "against"):
            return tuple(self.named("model" if name == "models" else "data", each) for each in value)
        if value is None or isinstance(value, str) or name not in (*DATA, *MODELS):
            return value
        return self._rows(name, value) if name in DATA else self._model(name, value)

    def write(self, *, begun: bool) -> None:
        """Write the files. Raises InputError where a run that has `begun` did so with others."""
        run = self.folder.parent
        for file, text in self.rows.items():
            if begun and (not file.exists() or file.read_bytes() != text.encode(errors="replace")):
                raise InputError(
                    f"resume: {file.stem} has other rows than when the run in {run} began; give the same rows, or "
                    "begin anew with another out"
                )
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(file, text)
        for target, saved in self.models.items():
            if begun and not target.exists():
                raise InputError(
                    f"resume: the model is another than when the run in {run} began; give the same, or begin anew with "
                    "another out"
                )
            if not target.exists():
                write_folder(target, partial(_move_files, saved))

    def remove(self) -> None:
        """Remove what was written, and the folders that are empty then."""
        for path in (*self.rows, *self.models):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        for folder in self.made:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()

    def by_option(self, text: str) -> str:
        """A message about files that the user has not written, about the rows they hold: `data:3` is the third."""
        for file in self.rows:
            text = text.replace(str(file), "data" if file.stem == "file" else file.stem)
        return text

    def _rows(self, name: str, value: Any) -> str:
        if hasattr(value, "to_dict") and hasattr(value, "columns"):
            columns = [*value.columns]
            if twice := [column for column in columns if columns.count(column) > 1]:
                raise InputError(f"{name}: has several columns {twice[0]!r}; rename all but one")
            value = value.astype(object).where(value.notna(), None).to_dict("records")
        if isinstance(value, Mapping):
            if not any(isinstance(row, Mapping) for part in value.values() for row in _first(part)):
                raise InputError(
                    f"{name}: a dict with {', '.join(map(str, value))} is one row or has columns; give a list with a "
                    "dict for each row, or a pandas.DataFrame of the columns"
                )
            raise InputError(f"{name}: has the keys {', '.join(map(str, value))}; give the rows of one of them")
        try:
            rows = list(value)
        except TypeError:
            raise InputError(f"{name}: a {type(value).__name__} is no data; give a path or rows as dicts") from None
        file = self.folder / f"{name}.jsonl"
        while file in self.rows:  # several of one name
            file = file.with_stem(f"{file.stem}-more")
        self.rows[file] = "".join(_line(name, number, row) for number, row in enumerate(rows, start=1))
        return str(file)

    def _model(self, name: str, value: Any) -> str:
        """Saved under the hash of its files, so that another model is another name."""
        if not (isinstance(value, tuple) and len(value) == 2 and all(hasattr(v, "save_pretrained") for v in value)):
            raise InputError(
                f"{name}: is a {type(value).__name__}; give a name, a folder, a run, or a transformers model with its "
                f"tokenizer: {name}=(model, tokenizer)"
            )
        saved = self.scratch / f"{name}-{len(self.models)}"
        for part in value:
            part.save_pretrained(saved)
        digest = hashlib.sha256()
        for file in sorted(saved.iterdir()):
            digest.update(file.name.encode() + file.read_bytes())
        target = self.folder / f"{name}-{digest.hexdigest()[:16]}"
        self.models[target] = saved
        return str(target)


def _first(part: Any) -> Sequence[Any]:
    """The first of what may be rows."""
    try:
        return [*islice(part, 1)]
    except TypeError:
        return ()


def _line(name: str, number: int, row: Any) -> str:
    if not isinstance(row, Mapping):
        raise InputError(f"{name}: row {number} is a {type(row).__name__}; give each row as a dict")
    try:
        return json.dumps(dict(row), ensure_ascii=False, default=_plain) + "\n"
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{name}: row {number} cannot be written as JSON: {error}") from None


def _plain(value: Any) -> Any:
    """What JSON has no form for, as numpy's numbers, arrays and dates."""
    for form in ("tolist", "isoformat"):
        if callable(getattr(value, form, None)):
            return getattr(value, form)()
    raise TypeError(f"it holds a {type(value).__name__}")


def _move_files(source: Path, target: Path) -> None:
    for file in source.iterdir():
        shutil.move(file, target / file.name)
