"""A function for every command. Options are the fields of the command's configuration, which `help` and an editor list;
where the command reads a name or a file, Python may hand over the thing itself (see `inputs`).

All raise InputError for bad input before anything is written, and RunFailed for a run that cannot go on."""

from __future__ import annotations

import inspect
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from queue import Queue
from tempfile import TemporaryDirectory
from threading import Thread
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic.fields import FieldInfo

from posttrain import config as configs
from posttrain.api.inputs import DATA, MODELS, Data, Folder, Model, configured, folder_of, inputs_of, say_loading
from posttrain.api.results import Audit, Comparison, DataReport, Evaluation, Run
from posttrain.api.words import PRINTED_ONLY, in_python, python_words, speaks_python
from posttrain.config import REWARDS, Config, TrainConfig
from posttrain.config.evaluation import MAIN_SUITE
from posttrain.methods import METHODS
from posttrain.runs import reader
from posttrain.runs.comparison import RUNS_FILE
from posttrain.runs.files import write_atomic
from posttrain.runs.log import LINEAGE
from posttrain.runs.table import Table
from posttrain.text import printable
from posttrain.threads import configure_threads
from posttrain.types import InputError

if TYPE_CHECKING:
    from typing import Unpack

    from posttrain.alerts import Alert, Observer, StepRecord
    from posttrain.api import options as of

OURS = {"compare.json", RUNS_FILE, "report.html"}
"""What a comparison writes, and may replace."""
OR_GIVEN = {
    **dict.fromkeys(MODELS, "Or a Run, or a transformers model with its tokenizer: (model, tokenizer)."),
    **dict.fromkeys(DATA, "Or rows: a list of dicts, a datasets.Dataset or a pandas.DataFrame."),
    **dict.fromkeys((*REWARDS, "gold"), "Or a function or class, see pt.reward."),
    "env": "Or a class, or a function that returns an instance.",
    "columns": "Or a dict.",
    "audit": "Or an Audit.",
    "replay": "Or a Run.",
}
"""What an option takes from Python beside a text."""
Function = TypeVar("Function", bound=Callable[..., Any])


def listed(kind: type[Config], by_place: str = "") -> Callable[[Function], Function]:
    """Lists the options of a configuration where a notebook looks for them, in the signature and the docstring, and
    has the function's messages name them as Python does."""

    def listed(function: Function) -> Function:
        own = [p for p in inspect.signature(function).parameters.values() if p.kind is not p.VAR_KEYWORD]
        named = {by_place, *PRINTED_ONLY, *(p.name for p in own)}
        fields = [  # `options.pyi` has their types
            p.replace(annotation=p.empty) for p in inspect.signature(kind).parameters.values() if p.name not in named
        ]
        shown = speaks_python(function)
        shown.__signature__ = inspect.Signature([*own, *fields])  # type: ignore[attr-defined]
        documented = [p.name for p in (*own, *fields) if p.name in kind.model_fields]
        about = [f"{name}: {_explained(kind.model_fields[name], name)}" for name in documented]
        words = [inspect.cleandoc(function.__doc__ or ""), "Options:", *about]
        shown.__doc__ = in_python("\n\n".join(words))
        return shown

    return listed


def _explained(field: FieldInfo, name: str) -> str:
    """What an option is, and what Python may give in place of a text."""
    return " ".join([*(field.description or "").split(), OR_GIVEN.get(name, "")]).strip()


def made(method: str, given: Mapping[str, Any], observers: Sequence[Observer] = ()) -> Run:
    observers = _checked(observers)
    with configured(METHODS[method].config, given, inputs_of(given)) as config:
        return train(method, config, observers)


def _checked(observers: Sequence[Observer]) -> Sequence[Observer]:
    """Raises InputError for what is no list of functions."""
    found = [*observers] if isinstance(observers, Iterable) else [] if observers is None else [None]
    if not all(map(callable, found)):
        raise InputError("observers: give a list of functions, as observers=[my_monitor]")
    return found


def train(method: str, config: Any, observers: Sequence[Observer] = ()) -> Run:
    """Run a method, and write the page of what it trained, of a paused run too."""
    from posttrain.report.html import shown_in_pauses, write_report

    with shown_in_pauses(config.out):
        METHODS[method].run(config, observers)
    page = config.out / "report.html"
    if METHODS[method].writes != "data" and not _follows(page, config.out / LINEAGE):
        write_report(config.out)  # a finished run gets its page once
    return Run(config.out)


def _follows(page: Path, finished: Path) -> bool:
    """Whether a page was written after the end of the run that it shows, and not in a pause."""
    return page.exists() and page.stat().st_mtime_ns >= finished.stat().st_mtime_ns


def steps(config: TrainConfig, *, observers: Sequence[Observer] = ()) -> Iterator[StepRecord]:
    """The run of a configuration step by step: `for step in pt.steps(pt.RlConfig(...))`. The next step begins when the
    next record is asked for; a loop that is left early pauses the run, which `resume` continues with the next step.

    Training runs in a thread of its own, and raises here what it raises."""
    observers = _checked(observers)
    method = next((name for name, method in METHODS.items() if type(config) is method.config), None)
    if method is None or not isinstance(config, TrainConfig):
        raise InputError(
            f"pt.steps: {type(config).__name__} has no steps; give the configuration of what trains a model"
        )
    records: Queue[StepRecord | None] = Queue()
    turns: Queue[bool] = Queue()
    failed: list[BaseException] = []

    def wait(record: StepRecord) -> Iterator[Alert]:
        from posttrain.alerts import Alert

        if not record.replayed:
            records.put(record)
            if not turns.get():
                yield Alert("left", "the loop over its steps was left", "pause")

    def work() -> None:
        try:
            with python_words():
                train(method, config, [*observers, wait])
        except BaseException as error:
            failed.append(error)
        finally:
            records.put(None)

    say_loading(config)
    configure_threads()
    thread = Thread(target=work, name="posttrain", daemon=True)  # or a program that forgets the loop could not end
    thread.start()
    try:
        while (record := records.get()) is not None:
            yield record
            turns.put(True)
    finally:
        turns.put(False)
        thread.join()
    if failed:
        raise failed[0]


@listed(configs.EvalConfig)
def evaluate(model: Model, **options: Unpack[of.EvalOptions]) -> Evaluation:
    """Measure a model on held-out tasks. What a `Run` is measured by is kept in its folder unless
    `out` says otherwise, so that `compare` finds it."""
    given: dict[str, Any] = {"model": model, **options}
    if isinstance(model, reader.Run):
        given.setdefault("out", model.path)
    inputs = inputs_of(given)
    place = None if inputs is None else inputs / str(given.get("name") or MAIN_SUITE)
    with configured(configs.EvalConfig, given, place) as config:
        from posttrain.evals.run import run_eval

        return Evaluation(**vars(run_eval(config)))


@speaks_python
def compare(
    runs: Mapping[str, Folder] | Sequence[Folder], *, out: str | Path | None = None, loose: bool = False
) -> Comparison:
    """Compare finished runs side by side. They are called by the keys of a mapping, else by their folders;
    `compare.json` and the page are written where there is an `out`. `loose` also shows evaluations that were not made
    alike, in tables of their own."""
    if isinstance(runs, str | Path | reader.Run) or not runs:
        raise InputError("compare: give a list of runs, or a dict from name to run")
    for run in runs.values() if isinstance(runs, Mapping) else runs:
        if not isinstance(run, str | Path | reader.Run):
            raise InputError(
                f"compare: {type(run).__name__} is no run; give runs or their folders. An evaluation of a model that "
                "is no run is in the folder that pt.evaluate got as `out`"
            )
    folders = [folder_of(run) for run in (runs.values() if isinstance(runs, Mapping) else runs)]
    return compare_folders(folders, [*runs] if isinstance(runs, Mapping) else None, out, loose)


def compare_folders(
    folders: Sequence[Path], names: Sequence[str] | None, out: str | Path | None, loose: bool
) -> Comparison:
    """See `compare`, without its words: by `names`, else by the folders."""
    from posttrain.evals.compare import compare as measure
    from posttrain.evals.runs import check_run, find_parents, name_runs
    from posttrain.report import html

    for folder in folders:
        check_run(folder)
    found = name_runs(folders)
    if names is not None:
        found = dict(zip(names, found.values(), strict=True))
    with TemporaryDirectory(prefix="posttrain-") as scratch:
        path = Path(out or scratch)
        _check_out(path)
        data = measure(found, find_parents(found), path, loose=loose)
        if out is not None:
            places = {name: os.path.relpath(folder, path) for name, folder in found.items()}
            write_atomic(path / RUNS_FILE, json.dumps(places, indent=1, ensure_ascii=False) + "\n")
            html.write_report(path)
    return Comparison(data, {name: Run(folder) for name, folder in found.items()}, None if out is None else path)


def _check_out(out: Path) -> None:
    """Raise InputError where a folder holds anything else than a comparison, which may be replaced."""
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out}: is a file; give a folder")
    held = {p.name for p in out.iterdir()} - OURS if out.exists() else set()
    if runs := sorted(held & {"config.yaml", "recipe.yaml", "lineage.json", "evaluations"}):
        raise InputError(f"--out {out}: holds a run ({runs[0]}); choose another folder")
    if held:
        raise InputError(f"--out {out}: not empty and not a comparison; choose another folder")


@listed(configs.ScoreConfig)
def score(data: Data | Sequence[str], **options: Unpack[of.ScoreOptions]) -> Table:
    """Score given completions with a reward. `data` are rows with a `prompt` and a `completion`, or
    completions alone. Returns the rows with `score`, with several rewards the value of each, and `error`."""
    if isinstance(data, Sequence) and not isinstance(data, str):
        data = [{"prompt": "", "completion": row} if isinstance(row, str) else row for row in data]
    with configured(configs.ScoreConfig, {"data": data, **options}, None) as config:
        from posttrain.rewards.score import read_samples, score_samples

        samples = read_samples(str(config.data), sys.stdin.buffer, config.columns)
        scores, _ = score_samples(config, samples)
    return Table(
        {"prompt": s.prompt_argument, "completion": s.completion_argument, **s.columns, "score": scored.total}
        | ({f"reward/{name}": value for name, value in scored.parts.items()} if len(scored.parts) > 1 else {})
        | ({"step_values": scored.step_values} if scored.step_values is not None else {})
        | {"error": scored.reason}
        for s, scored in zip(samples, scores, strict=True)
    )


@listed(configs.AuditConfig, by_place="reward")
def audit(reward: Any, *, out: str | Path | None = None, **options: Unpack[of.AuditOptions]) -> Audit:
    """Attack a reward before training with it. Without `out` nothing is kept on disk."""
    with TemporaryDirectory(prefix="posttrain-") as scratch:
        given: dict[str, Any] = {"reward": reward, "out": out or Path(scratch) / "audit", **options}
        with configured(configs.AuditConfig, given, None) as config:
            from posttrain.recipes.audit import audit_reward
            from posttrain.report.html import write_report

            record = audit_reward(config)
            write_report(config.out)
    if out is None:
        for finding in record["findings"]:
            finding.pop("command", None)  # of a file that is gone
        return Audit(record)
    return Audit(record, Path(out))


@listed(configs.CheckDataConfig, by_place="file")
def check_data(data: Data, **options: Unpack[of.CheckDataOptions]) -> DataReport:
    """Find faults in data before training. With a `model`, find what a run with it would."""
    with configured(configs.CheckDataConfig, {"file": data, **options}, None) as config:
        from posttrain.data.check import check_data as check
        from posttrain.data.check import format_report

        report = check(config.file, config.against, config.columns)
        ok, text = report.ok, format_report(report)
        if config.model is not None:
            from posttrain.train.check_data import check_tokens, format_tokens

            tokens = check_tokens(config)
            ok, text = ok and tokens.ok, f"{text}\n{format_tokens(tokens)}"
        text = printable(text if config.file == str(data) else text.replace(config.file, "data"))
        return DataReport(ok, in_python(text))


@listed(configs.RunConfig)
def run(recipe: str | Path, **options: Unpack[of.RunOptions]) -> Comparison:
    """Run a whole recipe, shipped or a YAML file, and compare its stages."""
    with configured(configs.RunConfig, {"recipe": recipe, **options}, None) as config:
        from posttrain.recipes.run import run_recipe

        run_recipe(config)
        return Comparison.load(config.folder)


@speaks_python
def load(folder: Folder) -> Run:
    """The run in a folder, old or new, finished or not. Raises InputError for a folder that is no run."""
    found = Run(folder_of(folder))
    if not any((found.path / name).exists() for name in ("config.yaml", "lineage.json", "evaluations")):
        stages = ", ".join(sorted(str(place.parent) for place in found.path.glob("*/config.yaml")))
        raise InputError(
            f"{found.path}: not a run folder" + (f"; it holds {stages}" if stages else ", it has no config.yaml")
        )
    return found
