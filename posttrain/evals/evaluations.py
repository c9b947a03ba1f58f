"""Evaluations of a run folder as they were written, and whether two of them may be compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posttrain.config.evaluation import MAIN_SUITE, RETENTION_SUITE
from posttrain.evals.settings import reward_differences, settings_differences, tasks_words
from posttrain.runs.files import SuiteFile, TaskLine, checked
from posttrain.runs.log import numbered_jsonl, read_object
from posttrain.runs.records import PERPLEXITY, TaskKey, is_graded, task_keys

TEXT_NLL = "text_nll"
"""The value whose tasks are windows of a text, not questions."""


@dataclass(frozen=True)
class Evaluation:
    """One suite of a run: what it was made with, and its values by name and task; None where a task could not be
    scored."""

    suite: str
    weights_hash: str | None
    settings: Mapping[str, Any]
    values: Mapping[str, Mapping[TaskKey, float | None]]
    graded: bool

    @property
    def tasks(self) -> set[TaskKey]:
        return {task for name, values in self.values.items() if name != TEXT_NLL for task in values}

    def key(self, value: str) -> str:
        """The name of a value in `compare.json`: alone in the main suite, else after the suite's."""
        if self.suite == RETENTION_SUITE and value == TEXT_NLL:
            return PERPLEXITY
        return value if self.suite == MAIN_SUITE else f"{self.suite}/{value}"


def read_evaluations(folder: Path) -> dict[str, Evaluation]:
    """Every `FOLDER/evaluations/SUITE.jsonl` by its name, the main suite first. Raises InputError for a file that is
    not one of ours."""
    files = sorted((folder / "evaluations").glob("*.jsonl"), key=lambda f: (f.stem != MAIN_SUITE, f.stem))
    return {file.stem: _read(file) for file in files}


def differences(a: Evaluation, b: Evaluation) -> list[str]:
    """Every setting in which two evaluations differ, with both values; none if they may be compared.

    Tasks are the same if ids and prompts are, and hashes where both have one. Other settings are compared where both
    have them. Columns count by what a reward reads of them, so not where the rewards differ."""
    reward = reward_differences(a.settings, b.settings)
    name = "prompts_hash" if reward else "tasks_hash"
    hashed = name if name in a.settings and name in b.settings else None
    found = reward + settings_differences(a.settings, b.settings)
    if a.tasks == b.tasks and (hashed is None or a.settings[hashed] == b.settings[hashed]):
        return found
    words = [tasks_words(e.settings, len(e.tasks), hashed) for e in (a, b)]
    return [f"tasks ({words[0]} and {words[1]}; {len(a.tasks & b.tasks)} in both by id and prompt)", *found]


def _read(file: Path) -> Evaluation:
    rows = [checked(row, TaskLine, where) for where, row in numbered_jsonl(file)]
    values: dict[str, dict[TaskKey, float | None]] = {}
    for key, row in zip(task_keys(rows), rows, strict=True):
        for name, value in row["values"].items():
            values.setdefault(name, {})[key] = value
    meta = checked(read_object(about := file.with_suffix(".json")), SuiteFile, about)
    return Evaluation(file.stem, meta.get("weights_hash") or None, meta.get("settings") or {}, values, is_graded(rows))


def grouped(evaluations: Mapping[str, Evaluation]) -> tuple[list[list[str]], list[str]]:
    """Runs whose evaluations of one suite may all be compared with each other, in groups, and what keeps the groups
    apart, in words. Each run joins the first group that it fits."""
    groups: list[list[str]] = []
    for name, evaluation in evaluations.items():
        fits = (g for g in groups if not any(differences(evaluations[other], evaluation) for other in g))
        group = next(fits, None)
        if group is None:
            groups.append(group := [])
        group.append(name)
    return groups, [
        words for i, later in enumerate(groups) for g in groups[:i] for words in _apart(g, later, evaluations)
    ]


def _apart(earlier: Sequence[str], later: Sequence[str], evaluations: Mapping[str, Evaluation]) -> list[str]:
    """The first two of two groups that differ, and in what."""
    for a in earlier:
        for b in later:
            if found := differences(evaluations[a], evaluations[b]):
                return [f"{a} and {b} differ in {'; '.join(found)}"]
    return []
