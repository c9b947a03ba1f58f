"""Running a recipe: its stages in order, an evaluation after each, the comparison at the end.

A pipeline folder has a run folder for each stage, named after it, and beside them `recipe.yaml`, `compare.json` and
`report.html`. A finished stage or evaluation is not run again.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import yaml

from posttrain.comparison import format_quantity
from posttrain.config import Recipe, RunConfig
from posttrain.recipe import START, StageSpec, check_stages, load_recipe
from posttrain.runlog import write_atomic
from posttrain.types import InputError, Prompt, Task


def run_recipe(config: RunConfig) -> None:
    """Run a shipped recipe or a YAML file. Raises InputError for a recipe that is not right, before anything runs."""
    out = config.out or Path("runs") / Path(config.recipe).stem
    recipe = load_recipe(config.recipe, config.set)
    stages = check_stages(recipe, out)
    from posttrain.evals.compare import compare, format_tables, summary
    from posttrain.report.html import write_report

    # the evaluator reads all data: a bad row is found before anything is written
    with closing(_Evaluator(recipe, stages, out)) as evaluator:
        _claim(out, recipe)
        evaluator.evaluate(START, recipe.model)
        for i, stage in enumerate(stages):
            _run_stage(stage, stages, recipe, out)
            known = {s.name for s in stages[: i + 1]}
            for later in stages[i + 1 :]:  # a budget that leaves nothing is told as soon as it is known
                if later.flops_of in known and later.data_stage in known:
                    _budget(later, stages, out)
            if stage.makes_model:
                evaluator.evaluate(stage.name, str(out / stage.name / "model"))
                write_report(out / stage.name)
    models = [s for s in stages if s.makes_model]
    comparison = compare(
        {START: out / START, **{s.name: out / s.name for s in models}},
        {START: None, **{s.name: s.parent for s in models}},
        out,
        costs={s.name: [out / s.data_stage] for s in models if s.data_stage},
    )
    write_report(out)
    from rich.console import Console

    console = Console()
    for table in format_tables(comparison):
        console.print(table)
    for sentence in summary(comparison):
        console.print(f"- {sentence}", highlight=False, markup=False)
    console.print(f"\nreport: {out / 'report.html'}", highlight=False, soft_wrap=True)


def _claim(out: Path, recipe: Recipe) -> None:
    """Write `recipe.yaml`, or check that the folder holds a run of this recipe.

    The settings of a stage that has not begun may change; the data of all stages may not, because the held-out tasks
    are those that none of them shows."""
    file = out / "recipe.yaml"
    if file.exists():
        before = load_recipe(str(file))
        if _text(before) != file.read_text(encoding="utf-8"):
            raise InputError(f"--out {out}: its recipe.yaml was not written by a run; choose another folder")
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
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _same_recipe(before: dict[str, Any], now: dict[str, Any], out: Path) -> None:
    """Raise InputError naming the first thing that differs and must not."""
    changed = [key for key in ("model", "seed", "evaluate") if before[key] != now[key]]
    if list(before["stages"]) != list(now["stages"]):
        changed.append("the list of stages")
    for name, settings in now["stages"].items():
        then = before["stages"].get(name, {})
        begun = (out / name).exists()
        changed += [
            f"{name}.{key}"
            for key in sorted({*then, *settings})
            if (begun or key == "data") and then.get(key) != settings.get(key)
        ]
    if changed:
        raise InputError(
            f"--out {out}: holds a run of another recipe or other settings ({changed[0]} differs); only stages that "
            "have not begun may change, in anything but their data. Choose another folder"
        )


def _run_stage(stage: StageSpec, stages: list[StageSpec], recipe: Recipe, out: Path) -> None:
    """Run one stage, with the budget of the stage whose operations it copies."""
    model = recipe.model if stage.parent in (START, None) else str(out / str(stage.parent) / "model")
    _trainer(stage.method)(stage.config(out, model, recipe.seed, _budget(stage, stages, out)))


def _budget(stage: StageSpec, stages: list[StageSpec], out: Path) -> float | None:
    """The operations a stage may spend itself: those of the stage it copies, less those of its own data stage. None
    for a stage that copies none. Raises InputError where nothing is left to train with."""
    if stage.flops_of is None:
        return None
    target = next(s for s in stages if s.name == stage.flops_of)
    budget, data = _flops(out, target.name, target.data_stage), _flops(out, stage.data_stage)
    if budget <= data:
        raise InputError(
            f"stage {stage.name}: making its data in {stage.data_stage} took {format_quantity(data)} operations, and "
            f"flops_of: {target.name} allows {format_quantity(budget)} in all, so none are left to train with; remove "
            f"{out / str(stage.data_stage)} and run again with a lower limit or fewer samples there "
            f"(--set {stage.data_stage}.limit=…), or give {stage.name} max_steps in place of flops_of"
        )
    return budget - data


def _flops(out: Path, *stages: str | None) -> float:
    return sum(json.loads((out / s / "cost.json").read_text())["flops"] for s in stages if s is not None)


def _trainer(method: str) -> Callable[[Any], None]:
    if method == "sft":
        from posttrain.train.sft import train_sft

        return train_sft
    if method == "dpo":
        from posttrain.train.preference import train_dpo

        return train_dpo
    if method == "online-dpo":
        from posttrain.train.preference_online import train_online_dpo

        return train_online_dpo
    if method == "reward-model":
        from posttrain.train.reward_model import train_reward_model

        return train_reward_model
    if method == "adversarial":
        from posttrain.train.reward_model_adversarial import train_adversarial

        return train_adversarial
    if method == "rl":
        from posttrain.train.rl import train_rl

        return train_rl
    if method == "distill":
        from posttrain.train.distill import train_distill

        return train_distill
    if method == "revise":
        from posttrain.train.revise import revise_answers

        return revise_answers
    from posttrain.train.sample import sample_answers

    return sample_answers


class _Evaluator:
    """Evaluates the start and every stage's model alike."""

    def __init__(self, recipe: Recipe, stages: list[StageSpec], out: Path) -> None:
        from posttrain.data.builtin import drop_overlap
        from posttrain.data.formats import load_tasks
        from posttrain.rewards.base import Scorer

        self.recipe = recipe
        self.out = out
        held_out = load_tasks(recipe.evaluate.data)
        self.tasks: list[Task]
        self.tasks, self.removed = drop_overlap(_training_prompts(stages), held_out)
        if not self.tasks:
            raise InputError(f"{recipe.evaluate.data}: every held-out prompt occurs in the training data")
        columns = set.intersection(*(set(t.columns) for t in self.tasks))
        self.scorer = Scorer(recipe.evaluate.reward, columns=columns, timeout_seconds=30.0)

    def evaluate(self, name: str, model: str) -> None:
        from posttrain.engine.local import LocalEngine
        from posttrain.evals.run import evaluate_retention, evaluate_tasks, write_suite
        from posttrain.models import load_model
        from posttrain.types import Sampling

        settings = self.recipe.evaluate
        folder = self.out / name
        suites = ["held_out", *(["retention"] if settings.retention else [])]
        todo = [s for s in suites if not (folder / "evaluations" / f"{s}.json").exists()]
        if not todo:
            return
        engine = LocalEngine(load_model(model))
        if "held_out" in todo:
            reference = None if name == START else load_model(self.recipe.model)
            sampling = Sampling(settings.max_new_tokens, settings.temperature)
            result = evaluate_tasks(
                engine,
                self.tasks,
                self.scorer,
                settings.samples,
                sampling,
                settings.seed,
                reference,
                title=f"evaluate {name}",
            )
            shown = settings.model_dump(mode="json") | {"removed_as_overlap": self.removed}
            write_suite(folder, "held_out", engine.lm, result, shown)
        if "retention" in todo:
            result = evaluate_retention(engine, title=f"retention {name}")
            write_suite(folder, "retention", engine.lm, result, {})

    def close(self) -> None:
        self.scorer.close()


def _training_prompts(stages: list[StageSpec]) -> list[Prompt]:
    """The prompts of every stage's data; a data stage's own tasks stand for what it makes."""
    from posttrain.data.formats import load_feedback, load_prompts, load_sft, load_tasks
    from posttrain.rows import CompletionRow

    prompts: list[Prompt] = []
    for stage in stages:
        source = str(stage.options.get("data"))
        if stage.data_stage is not None:
            continue
        if stage.method == "sft":
            prompts += [row.prompt for row in load_sft(source) if isinstance(row, CompletionRow)]
        elif stage.method in ("dpo", "reward-model", "adversarial"):
            prompts += [row.prompt for row in load_feedback(source)]
        elif stage.method == "distill":
            prompts += [row.prompt for row in load_prompts(source)]
        else:
            prompts += [task.prompt for task in load_tasks(source)]
    return prompts
