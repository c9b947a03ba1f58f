"""Running a recipe: its stages in order, an evaluation after each, the comparison at the end.

A pipeline folder has a run folder for each stage, named after it, and beside them `recipe.yaml`, `compare.json` and
`report.html`. A finished stage or evaluation is not run again.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing, nullcontext
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from posttrain.chat.template_date import KEY, fixed_date, kept_date, template_date
from posttrain.config import Recipe, RunConfig
from posttrain.config.base import RENAMED
from posttrain.config.compute import on_its_device
from posttrain.recipes.audited import run_audits, same_audits
from posttrain.recipes.check import read_recipe
from posttrain.recipes.evaluate import Evaluator, training_prompts
from posttrain.recipes.load import RecipeFaults, load_recipe
from posttrain.recipes.paths import KINDS
from posttrain.recipes.stages import START, StageSpec
from posttrain.runs.config import UNTIL_FINISHED
from posttrain.runs.files import refuse_links, write_atomic
from posttrain.runs.log import LINEAGE, make_folder
from posttrain.runs.reader import Run
from posttrain.runs.records import Cost, read_suite
from posttrain.types import InputError
from posttrain.wording import format_quantity

NOT_COMPARED = (
    "nothing was compared: the recipe has no evaluate. Add `evaluate: {data: TASKS, reward: [REWARD]}` to it and run "
    "it again; what is trained is not trained again"
)


@on_its_device
def run_recipe(config: RunConfig) -> None:
    """Run a shipped recipe or a YAML file, all of it on one date (see `template_date`). Raises InputError for a recipe
    that is not right, before anything runs."""
    with fixed_date(_date_of(config.folder)):
        _run_recipe(config)


def _date_of(out: Path) -> date:
    """The date of the first evaluation, which comes before all else, or of the first stage that has one, where nothing
    is evaluated; where there is neither, the one they will have."""
    file = out / START / "evaluations" / "held_out.json"
    settings = read_suite(file).get("settings") or {}
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
        evaluator = None if recipe.evaluate is None else Evaluator(recipe, stages, out)
        if evaluator is None:
            training_prompts(stages)
    except RecipeFaults as error:
        raise checked.text.told(error) from error
    with nullcontext() if evaluator is None else closing(evaluator):
        _claim(out, checked.written)
        if evaluator is not None:
            evaluator.check_earlier([START, *(s.name for s in stages)])
            evaluator.evaluate(START, recipe.model)
        run_audits(recipe, out)
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
    from posttrain.evals.compare import compare
    from posttrain.report.html import write_report
    from posttrain.report.terminal import print_comparison

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
    print_comparison(comparison, write_report(out), () if compared else (NOT_COMPARED,))


def _claim(out: Path, recipe: Recipe) -> None:
    """Write `recipe.yaml`, or check that the folder holds a run of this recipe.

    The settings of a stage that has not begun may change, and what is kept or spent until it has finished; the data of
    all stages may not, because the held-out tasks are those that none of them shows. Where nothing at all has begun, as
    after a start that could not be loaded, any recipe may take the folder."""
    file = out / "recipe.yaml"
    if file.exists():
        refuse_links(*out.iterdir())
        before = load_recipe(str(file))
        text = file.read_text(encoding="utf-8")
        for old, new in RENAMED.items():
            text = text.replace(f"    {old}: ", f"    {new}: ")
        if _text(before) != text:
            raise InputError(f"--out {out}: its recipe.yaml was not written by a run; choose another folder")
        if any(path != file for path in out.iterdir()):
            _same_recipe(before.model_dump(mode="json"), recipe.model_dump(mode="json"), out)
        write_atomic(file, _text(recipe))
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"--out {out}: not empty and not a pipeline; choose another folder")
    make_folder(out)
    write_atomic(file, _text(recipe))


def _text(recipe: Recipe) -> str:
    exclude: dict[str, Any] = {"shape": True}
    if not recipe.audits:
        exclude["audits"] = True
    if recipe.chat_template is None:
        exclude["chat_template"] = True
    if recipe.evaluate is None:
        exclude["evaluate"] = True
    elif recipe.evaluate.columns is None:
        exclude["evaluate"] = {"columns"}
    return yaml.safe_dump(recipe.model_dump(mode="json", exclude=exclude), sort_keys=False, allow_unicode=True)


def _same_recipe(before: dict[str, Any], now: dict[str, Any], out: Path) -> None:
    same_audits(before.get("audits", {}), now.get("audits", {}), out)
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
    if len(stage.data) > 1 and not (out / stage.name / "lineage.json").exists():
        _pool(stage, out)
    model = recipe.model if stage.parent in (START, None) else str(out / str(stage.parent) / "model")
    config = stage.config(out, model, recipe.seed, _budget(stage, stages, out))
    _same_places(out / stage.name / "config.yaml", config.model_dump(mode="json"))
    from posttrain.report.html import shown_in_pauses

    with shown_in_pauses(config.out):
        stage.about.run(config)


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
    from posttrain.data.formats import pooled_text

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
