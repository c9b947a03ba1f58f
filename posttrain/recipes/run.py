"""Running a recipe: its stages in order, an evaluation after each, the comparison at the end.

A pipeline folder has a run folder for each stage, named after it, and beside them `recipe.yaml`, `compare.json` and
`report.html`. A finished stage or evaluation is not run again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing, nullcontext
from datetime import date
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from posttrain.chat.template_date import KEY, dated, fixed_date, kept_date, template_date
from posttrain.config import HeldOut, Recipe, RunConfig
from posttrain.config.evaluation import MAIN_SUITE, RETENTION_SUITE
from posttrain.recipes.check import read_recipe
from posttrain.recipes.load import Findings, RecipeFaults, load_recipe
from posttrain.recipes.paths import KINDS
from posttrain.recipes.stages import READS, START, StageSpec
from posttrain.rows import Row
from posttrain.runs.config import UNTIL_FINISHED
from posttrain.runs.log import LINEAGE, read_object, refuse_links, write_atomic
from posttrain.runs.reader import Run
from posttrain.runs.records import Cost, Evaluation
from posttrain.runs.table import Table
from posttrain.text import printable
from posttrain.types import InputError, Prompt, Sampling, Task
from posttrain.wording import format_quantity

if TYPE_CHECKING:
    from posttrain.data.formats import Kind

NOT_COMPARED = (
    "nothing was compared: the recipe has no evaluate. Add `evaluate: {data: TASKS, reward: [REWARD]}` to it and run "
    "it again; what is trained is not trained again"
)


def run_recipe(config: RunConfig) -> None:
    """Run a shipped recipe or a YAML file, all of it on one date (see `template_date`). Raises InputError for a recipe
    that is not right, before anything runs."""
    with fixed_date(_date_of(config.folder)):
        _run_recipe(config)


def _date_of(out: Path) -> date:
    """The date of the first evaluation, which comes before all else, or of the first stage that has one, where nothing
    is evaluated; where there is neither, the one they will have."""
    file = out / START / "evaluations" / "held_out.json"
    settings = read_object(file).get("settings", {})
    if not file.exists():
        return next(filter(None, map(kept_date, sorted(out.glob("*/config.yaml")))), None) or template_date()
    try:
        return date.fromisoformat(settings[KEY]) if KEY in settings else template_date()
    except (ValueError, TypeError):
        raise InputError(f"{file}: damaged, its settings hold no date") from None


def _run_recipe(config: RunConfig) -> None:
    out = config.folder
    checked = read_recipe(config)
    recipe, stages = checked.recipe, checked.stages
    from posttrain.report.html import write_report

    # all data is read: a bad row is found before anything is written
    try:
        evaluator = None if recipe.evaluate is None else _Evaluator(recipe, stages, out)
        if evaluator is None:
            _training_prompts(stages)
    except RecipeFaults as error:
        raise checked.text.told(error) from error
    with nullcontext() if evaluator is None else closing(evaluator):
        _claim(out, checked.written)
        if evaluator is not None:
            evaluator.check_earlier([START, *(s.name for s in stages)])
            evaluator.evaluate(START, recipe.model)
        for i, stage in enumerate(stages):
            _run_stage(stage, stages, recipe, out)
            known = {s.name for s in stages[: i + 1]}
            for later in stages[i + 1 :]:  # a budget that leaves nothing is told as soon as it is known
                if later.flops_of in known and known.issuperset(later.data_stages):
                    _budget(later, stages, out)
            if stage.makes_model and evaluator is not None:
                evaluator.evaluate(stage.name, str(out / stage.name / "model"))
            write_report(out / stage.name)
    _conclude(stages, out, compared=evaluator is not None)


def _conclude(stages: list[StageSpec], out: Path, *, compared: bool) -> None:
    """Write the comparison of all models, or what they cost where nothing was evaluated, and show it."""
    from rich.console import Console

    from posttrain.evals.compare import compare
    from posttrain.report.html import write_report
    from posttrain.report.terminal import format_tables
    from posttrain.report.words import summary

    models = [s for s in stages if s.makes_model]
    comparison = compare(
        ({START: out / START} if compared else {}) | {s.name: out / s.name for s in models},
        ({START: None} if compared else {})
        | {s.name: s.parent if compared or s.parent != START else None for s in models},
        out,
        costs={s.name: [out / data for data in s.data_stages] for s in models},
        others={s.name: (s.parent, out / s.name) for s in stages if not s.makes_model},
        loose=True,  # the evaluator has checked what it writes; evaluations that were added by hand spoil no run
    )
    write_report(out)
    console = Console()
    for table in format_tables(comparison):
        console.print(table)
    for sentence in summary(comparison):
        console.print(f"- {printable(sentence)}", highlight=False, markup=False)
    if not compared:
        console.print(f"- {NOT_COMPARED}", highlight=False, markup=False)
    console.print(f"\nreport: {printable(out / 'report.html')}", highlight=False, markup=False, soft_wrap=True)


def _claim(out: Path, recipe: Recipe) -> None:
    """Write `recipe.yaml`, or check that the folder holds a run of this recipe.

    The settings of a stage that has not begun may change, and what is kept or spent until it has finished; the data of
    all stages may not, because the held-out tasks are those that none of them shows. Where nothing at all has begun, as
    after a start that could not be loaded, any recipe may take the folder."""
    file = out / "recipe.yaml"
    if file.exists():
        refuse_links(*out.iterdir())
        before = load_recipe(str(file))
        if _text(before) != file.read_text(encoding="utf-8"):
            raise InputError(f"--out {out}: its recipe.yaml was not written by a run; choose another folder")
        if any(path != file for path in out.iterdir()):
            _same_recipe(before.model_dump(mode="json"), recipe.model_dump(mode="json"), out)
        write_atomic(file, _text(recipe))
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"--out {out}: not empty and not a pipeline; choose another folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {out}: cannot be made ({error.strerror}); choose another folder") from error
    write_atomic(file, _text(recipe))


def _text(recipe: Recipe) -> str:
    exclude: dict[str, Any] = {"shape": True}
    if recipe.chat_template is None:
        exclude["chat_template"] = True
    if recipe.evaluate is None:
        exclude["evaluate"] = True
    elif recipe.evaluate.columns is None:
        exclude["evaluate"] = {"columns"}
    return yaml.safe_dump(recipe.model_dump(mode="json", exclude=exclude), sort_keys=False, allow_unicode=True)


def _same_recipe(before: dict[str, Any], now: dict[str, Any], out: Path) -> None:
    """Raise InputError naming the first thing that differs and must not."""
    changed = [key for key in ("model", "seed", "chat_template") if before[key] != now[key]]
    if before["evaluate"] not in (None, now["evaluate"]):  # what was not evaluated can be yet
        changed.append("evaluate")
    if list(before["stages"]) != list(now["stages"]):
        changed.append("the list of stages")
    for name, settings in now["stages"].items():
        then = before["stages"].get(name, {})
        begun, free = (out / name).exists(), () if (out / name / LINEAGE).exists() else UNTIL_FINISHED
        changed += [
            f"{name}.{key}"
            for key in sorted({*then, *settings}.difference(free))
            if (begun or key in ("data", "columns", "ptx_data")) and then.get(key) != settings.get(key)
        ]
    if changed:
        raise InputError(
            f"--out {out}: holds a run of another recipe or other settings ({changed[0]} differs); only stages that "
            "have not begun may change, in anything but their data. Choose another folder"
        )


def _run_stage(stage: StageSpec, stages: list[StageSpec], recipe: Recipe, out: Path) -> None:
    """Run one stage, with the budget of the stage whose operations it copies."""
    from posttrain.methods import METHODS

    if len(stage.data) > 1 and not (out / stage.name / "lineage.json").exists():
        _pool(stage, out)
    model = recipe.model if stage.parent in (START, None) else str(out / str(stage.parent) / "model")
    config = stage.config(out, model, recipe.seed, _budget(stage, stages, out))
    _same_places(out / stage.name / "config.yaml", config.model_dump(mode="json"))
    METHODS[stage.method](config)


def _same_places(file: Path, config: Mapping[str, Any]) -> None:
    """Have a stage that has begun know its files by their paths from the current directory, which may be another than
    that of its beginning. That they are those of the recipe has been checked, see `_same_recipe`."""
    try:
        before = yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else None
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return  # whoever opens the run tells what is wrong
    moved = {
        key: config[key]
        for key in (*KINDS, "models")
        if isinstance(before, dict) and before.get(key) and config.get(key)
    }
    if isinstance(before, dict) and any(before[key] != value for key, value in moved.items()):
        write_atomic(file, yaml.safe_dump(before | moved, sort_keys=False, allow_unicode=True))


def _pool(stage: StageSpec, out: Path) -> None:
    """Write the rows of all sources of a stage to the one file that it reads, in the order in which they are named."""
    from posttrain.data.concat import pooled_text

    file = Path(stage.data_path(out))
    file.parent.mkdir(exist_ok=True)
    write_atomic(file, pooled_text((source.path(out) for source in stage.data), stage.columns))
    if stage.renames and (held_out := stage.options.get("eval_data")) is not None:
        write_atomic(Path(stage.held_out_path(out)), pooled_text([held_out], stage.columns, optional=True))


def _budget(stage: StageSpec, stages: list[StageSpec], out: Path) -> float | None:
    """The operations a stage may spend itself: those of the stage it copies, less those of its own data stages. None
    for a stage that copies none. Raises InputError where nothing is left to train with."""
    if stage.flops_of is None:
        return None
    target = next(s for s in stages if s.name == stage.flops_of)
    budget, data = _flops(out, target.name, *target.data_stages), _flops(out, *stage.data_stages)
    if budget <= data:
        made = stage.data_stages[-1]
        raise InputError(
            f"stage {stage.name}: making its data in {', '.join(stage.data_stages)} took {format_quantity(data)} "
            f"operations, and flops_of: {target.name} allows {format_quantity(budget)} in all, so none are left to "
            f"train with; remove {out / made} and run again with a lower limit or fewer samples there "
            f"(--set {made}.limit=…), or give {stage.name} max_steps in place of flops_of"
        )
    return budget - data


def _flops(out: Path, *stages: str) -> float:
    return Cost.total(Run(out / stage).cost for stage in stages).flops


class _Evaluator:
    """Evaluates the start and every stage's model alike."""

    def __init__(self, recipe: Recipe, stages: list[StageSpec], out: Path) -> None:
        from posttrain.data.builtin import drop_overlap
        from posttrain.data.formats import load_tasks
        from posttrain.evals.settings import task_settings
        from posttrain.rewards.scorer import Scorer

        assert recipe.evaluate is not None
        self.recipe = recipe
        self.held_out: HeldOut = recipe.evaluate
        self.out = out
        settings = self.held_out
        held_out = load_tasks(settings.data, settings.columns)
        self.tasks: list[Task]
        self.tasks, self.removed = drop_overlap(_training_prompts(stages), held_out)
        if not self.tasks:
            raise InputError(
                f"{settings.data}: every held-out prompt occurs in the training data; give evaluate.data others"
            )
        columns = set.intersection(*(set(t.columns) for t in self.tasks))
        self.scorer = Scorer(settings.reward, columns=columns, timeout_seconds=30.0)
        self.sampling = Sampling(settings.max_new_tokens, settings.temperature)
        alike = task_settings(self.tasks, self.scorer, self.sampling, samples=settings.samples, raw=False)
        self.settings = settings.model_dump(mode="json") | {"removed_as_overlap": self.removed} | alike

    def check_earlier(self, names: Sequence[str]) -> None:
        """Raise InputError where a stage was evaluated on other tasks or by another reward: a file has changed."""
        from posttrain.evals.evaluations import differences
        from posttrain.evals.run import task_row

        def unscored(task: Task) -> dict[str, Any]:
            return task_row(task) | {"values": {"greedy": None}}

        for name in names:
            file = self.out / name / "evaluations" / f"{MAIN_SUITE}.jsonl"
            if not file.exists():
                continue
            earlier = Evaluation.read(file)
            # the hash is of all tasks; which of them fit the model, and have rows, is not known before it is loaded
            rows = earlier.rows if "tasks_hash" in earlier.settings else Table(map(unscored, self.tasks))
            now = Evaluation(MAIN_SUITE, rows, settings=self.settings)
            if changed := differences(earlier, now):
                raise InputError(
                    f"--out {self.out}: {name} was evaluated when something else stood in a file of the recipe: it "
                    f"differs in {'; '.join(changed)}; choose another folder, or remove the evaluations of every "
                    "stage to evaluate all of them again"
                )

    def evaluate(self, name: str, model: str) -> None:
        from posttrain.engine.open import Slots, open_engine
        from posttrain.evals.kl import kl_of_answers
        from posttrain.evals.run import evaluate_retention, evaluate_tasks, fitting_tasks, write_suite
        from posttrain.models import load_model, weights_hash
        from posttrain.models.load import model_folder

        settings = self.held_out
        folder = self.out / name
        suites = [MAIN_SUITE, *([RETENTION_SUITE] if settings.retention else [])]
        todo = [s for s in suites if not (folder / "evaluations" / f"{s}.json").exists()]
        if not todo:
            return
        trusted = self.recipe.trust_remote_code
        template = self.recipe.chat_template if name == START else None
        lm = load_model(model, trust_remote_code=trusted, chat_template=template)
        engine = open_engine(Slots(), lm)
        writes_date = lm.chat.writes_date, self.scorer.writes_date
        if MAIN_SUITE in todo:
            kl = None
            if name != START and settings.samples > 0 and settings.temperature > 0:
                kl = partial(kl_of_answers, lm, load_model(self.recipe.model, trust_remote_code=trusted))
            start = Path(model_folder(self.recipe.model))
            source, new_tokens, again = settings.data, settings.max_new_tokens, name != START
            tasks, left_out = fitting_tasks(lm, self.tasks, new_tokens, source, settings.strict, quiet=again)
            result = evaluate_tasks(
                engine,
                lm.chat,
                lm.flops,
                tasks,
                self.scorer,
                settings.samples,
                self.sampling,
                settings.seed,
                kl,
                title=f"evaluate {name}",
            )
            told = self.settings | {"reference": weights_hash(start), "left_out": left_out, "chat_template": template}
            write_suite(folder, MAIN_SUITE, lm, result, dated(told, *writes_date))
        if RETENTION_SUITE in todo:
            result = evaluate_retention(engine, lm, title=f"retention {name}")
            told = {"raw": False, "chat_template": template} | result.settings
            write_suite(folder, RETENTION_SUITE, lm, result, dated(told, lm.chat.writes_date))

    def close(self) -> None:
        self.scorer.close()


def _training_prompts(stages: list[StageSpec]) -> list[Prompt]:
    """The prompts of every stage's data and pre-training mix; a data stage's own tasks stand for what it makes.

    All that stages read is looked at, held-out data too, so that what is wrong with it is told now and not when a stage
    begins. Raises InputError for a row that is wrong, and for pooled sources that are not of one kind."""
    from posttrain.rows import row_prompts

    found, rows = Findings(), list[Row]()
    for stage in stages:
        with found.collect(("stages", stage.name, "data"), f"stage {stage.name}: "):
            rows += _training_rows(stage)
    found.check()
    return [prompt for row in rows for prompt in row_prompts(row)]


def _training_rows(stage: StageSpec) -> list[Row]:
    """The rows of a stage that are not an earlier stage's."""
    from posttrain.data.concat import KINDS, check_one_kind

    rows: list[Row] = []
    made: Kind = "preference" if READS.get(stage.method) == ("pairs",) else "completion"
    kinds: dict[str, Kind] = {}
    for source in stage.data:
        own = _rows_of(stage.method, source.name, stage.columns, len(stage.data) > 1) if source.file is None else ()
        kinds[source.name] = KINDS[type(own[0])] if own else made
        rows += own
    check_one_kind(kinds)
    if (mix := stage.options.get("ptx_data")) is not None:
        rows += _rows_of("sft", mix)
    if (held_out := stage.options.get("eval_data")) is not None:
        _rows_of(stage.method, held_out, stage.columns, True)
    return rows


def _rows_of(
    method: str, source: str, columns: Mapping[str, str] | None = None, optional: bool = False
) -> Sequence[Row]:
    """What a method reads from a source, whose `columns` have other names, or none of these where they are optional."""
    from posttrain.data.formats import load_feedback, load_judged, load_prompts, load_sft, load_tasks

    if method == "sft":
        return load_sft(source, columns, optional=optional)
    if method in ("dpo", "adversarial"):
        return load_feedback(source, columns, optional=optional)
    if method == "reward-model":
        pairs, solutions = load_judged(source, columns, optional=optional)
        return [*pairs, *solutions]
    if method == "distill":
        return load_prompts(source, columns, optional=optional)
    return load_tasks(source, columns, optional=optional)
