"""The evaluation of a recipe's start and of every stage's model, on tasks that no stage trains on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from posttrain.chat.template_date import dated
from posttrain.config import HeldOut, Recipe
from posttrain.config.evaluation import MAIN_SUITE, RETENTION_SUITE
from posttrain.data.builtin import drop_overlap
from posttrain.data.formats import NEEDS, Loader, load_tasks
from posttrain.methods import METHODS, WRITTEN
from posttrain.recipes.load import Findings
from posttrain.recipes.stages import START, StageSpec
from posttrain.rows import KINDS, Kind, Row, TaskColumns, row_prompts
from posttrain.runs.records import Evaluation
from posttrain.runs.table import Table
from posttrain.types import InputError, Prompt, Sampling, Task


class Evaluator:
    """Evaluates the start and every stage's model alike."""

    def __init__(self, recipe: Recipe, stages: list[StageSpec], out: Path) -> None:
        from posttrain.evals.settings import task_settings
        from posttrain.rewards.scorer import Scorer

        assert recipe.evaluate is not None
        self.recipe = recipe
        self.held_out: HeldOut = recipe.evaluate
        self.out = out
        settings = self.held_out
        held_out = load_tasks(settings.data, settings.columns)
        self.tasks: list[Task]
        self.tasks, self.removed = drop_overlap(training_prompts(stages), held_out)
        if not self.tasks:
            raise InputError(
                f"{settings.data}: every held-out prompt occurs in the training data; give evaluate.data others"
            )
        columns = TaskColumns(self.tasks)
        self.scorer = Scorer(settings.reward, columns=columns, timeout_seconds=30.0)
        self.sampling = Sampling(settings.max_new_tokens, settings.temperature)
        alike = task_settings(self.tasks, self.scorer, self.sampling, samples=settings.samples, raw=False)
        self.settings = settings.model_dump(mode="json") | {"removed_as_overlap": self.removed} | alike

    def check_earlier(self, names: Sequence[str]) -> None:
        """Raise InputError where a stage was evaluated on other tasks or by another reward: a file has changed."""
        from posttrain.evals.run import task_row
        from posttrain.evals.settings import differences

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
        from posttrain.evals.run import evaluate_retention, evaluate_tasks, evaluation_of, fitting_tasks
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
            tasks, left_out = fitting_tasks(lm, self.tasks, settings, quiet=name != START)
            samples, seed, title = settings.samples, settings.seed, f"evaluate {name}"
            result = evaluate_tasks(
                engine, lm.chat, lm.flops, tasks, self.scorer, samples, self.sampling, seed, kl, title
            )
            told = self.settings | {"reference": weights_hash(start), "left_out": left_out, "chat_template": template}
            result = replace(result, settings=dated(told, *writes_date))
            evaluation_of(MAIN_SUITE, lm, result).write(folder, result.cost)
        if RETENTION_SUITE in todo:
            result = evaluate_retention(engine, lm, title=f"retention {name}")
            told = {"raw": False, "chat_template": template} | result.settings
            result = replace(result, settings=dated(told, lm.chat.writes_date))
            evaluation_of(RETENTION_SUITE, lm, result).write(folder, result.cost)

    def close(self) -> None:
        self.scorer.close()


def training_prompts(stages: Sequence[StageSpec]) -> list[Prompt]:
    """The prompts of every stage's data and pre-training mix; a data stage's own tasks stand for what it makes.

    Everything that stages read is checked, held-out data too: the user hears of a fault now and not when a stage
    begins. Raises InputError for a row that is wrong, and for pooled sources that are not of one kind."""
    found, rows = Findings(), list[Row]()
    for stage in stages:
        with found.collect(("stages", stage.name, "data"), f"stage {stage.name}: "):
            rows += training_rows(stage)
    found.check()
    return [prompt for row in rows for prompt in row_prompts(row)]


def training_rows(stage: StageSpec) -> list[Row]:
    """The rows of a stage that are not an earlier stage's."""

    def read(source: str, columns: Mapping[str, str] | None = None, optional: bool = False, *, name: str) -> list[Row]:
        return Loader[Row](METHODS[name].kinds, f"posttrain {name}")(source, columns, optional=optional)

    rows: list[Row] = []
    made: Kind = next((kind for kind in WRITTEN.values() if kind in stage.about.kinds), "task")
    kinds: dict[str, Kind] = {}
    for source in stage.data:
        own = []
        if source.file is None:
            own = read(source.name, stage.columns, len(stage.data) > 1, name=stage.method)
        kinds[source.name] = KINDS[type(own[0])] if own else made
        rows += own
    first = next(iter(kinds), "")
    for name, kind in kinds.items():
        if kind != kinds[first]:
            raise InputError(
                f"data: {name} has {NEEDS[kind]}, but {first} has {NEEDS[kinds[first]]}; sources that are pooled must "
                "be of one kind"
            )
    if (mix := stage.options.get("ptx_data")) is not None:
        rows += read(mix, name="sft")
    if (held_out := stage.options.get("eval_data")) is not None:
        read(held_out, stage.columns, True, name=stage.method)
    return rows
