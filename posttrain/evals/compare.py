"""Comparing evaluated runs: values with intervals, paired contrasts, costs. Everything is read from run folders."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path

from posttrain.chat.template_date import KEY as TEMPLATE_DATE
from posttrain.chat.template_date import VARIABLE as TEMPLATE_DATE_VARIABLE
from posttrain.evals.contrasts import contrast, kept_from, leads, transform_of
from posttrain.evals.settings import grouped, setting_difference
from posttrain.runs.comparison import Apart, Comparison, Contrast, Spent, StageResult, label, root_of
from posttrain.runs.log import write_atomic
from posttrain.runs.reader import Run
from posttrain.runs.records import Cost, Evaluation
from posttrain.stats import estimate
from posttrain.types import InputError

Suites = Mapping[str, Evaluation]


def compare(
    runs: Mapping[str, Path],
    parents: Mapping[str, str | None],
    out: Path,
    costs: Mapping[str, Sequence[Path]] | None = None,
    others: Mapping[str, tuple[str | None, Path]] | None = None,
    *,
    loose: bool = False,
) -> Comparison:
    """Compare the runs and write `OUT/compare.json`.

    `parents` names the run each one started from, None for a start. `costs` lists folders whose cost belongs to a run
    as well, such as the one in which its data was sampled. A run without `cost.json` cost nothing. `others` are stages
    that are not compared, each with what it started from and its folder: what they cost is told too.

    Contrasts are of every run against its parent, against its start, and against each earlier run with the same parent;
    only tasks that both have scored count. Raises InputError, and writes nothing, where evaluations of one name differ
    in tasks, reward, sampling or limits; with `loose` there is no contrast between those, and the comparison says what
    differs."""
    found = {name: Run(folder).evaluations for name, folder in runs.items()}
    apart = _apart(found)
    if apart and not loose:
        raise InputError(_refusal(apart))
    stages: dict[str, StageResult] = {}
    for name, folder in runs.items():
        stages[name] = {
            "parent": parents[name],
            **_cost([folder, *(costs or {}).get(name, ())]),
            "evaluations": {
                e.name(value): estimate(e.values[value].values(), transform_of(e.name(value)))
                for e in found[name].values()
                for value in e.values
            },
        }
    pairs = list(_pairs(stages))
    comparison: Comparison = {"stages": stages, "contrasts": list(_contrasts(pairs, found, apart))}
    if graded := _graded(found):
        comparison["graded"] = graded
    if apart:
        comparison["apart"] = apart
    if leading := leads(comparison, found):
        comparison["leads"] = leading
    if notes := _notes(pairs, found, apart):
        comparison["notes"] = notes
    if others:
        comparison["others"] = {
            name: {
                "parent": parent,
                **_cost([folder]),
                "charged_to": [of for of, folders in (costs or {}).items() if folder in folders],
            }
            for name, (parent, folder) in others.items()
        }
        comparison["total"] = _cost([*runs.values(), *(folder for _, folder in others.values())])
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {out}: cannot be made ({error.strerror}); choose another folder") from error
    write_atomic(out / "compare.json", json.dumps(comparison, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    return comparison


def _apart(found: Mapping[str, Suites]) -> list[Apart]:
    """The suites whose evaluations cannot all be compared."""
    apart: list[Apart] = []
    for suite in dict.fromkeys(suite for suites in found.values() for suite in suites):
        groups, words = grouped({name: suites[suite] for name, suites in found.items() if suite in suites})
        if words:
            apart.append({"suite": suite, "groups": groups, "differences": words})
    return apart


def _refusal(apart: Sequence[Apart]) -> str:
    lines = [f"evaluation {entry['suite']}: {words}" for entry in apart for words in entry["differences"]]
    return (
        "these evaluations were not made alike, so their difference says nothing about the models:\n  "
        + "\n  ".join(lines)
        + "\nevaluate again with equal settings (posttrain eval --name keeps several evaluations in a run folder), "
        "or add --loose to see them beside each other without a difference"
    )


def _graded(found: Mapping[str, Suites]) -> dict[str, list[str]]:
    graded: dict[str, list[str]] = {}
    for name, suites in found.items():
        for suite, evaluation in suites.items():
            if evaluation.graded:
                graded.setdefault(suite, []).append(name)
    return graded


def _cost(folders: Sequence[Path]) -> Spent:
    """The sum over the folders' `cost.json`."""
    total = Cost.total(map(Cost.read, folders))
    return {"seconds": total.seconds, "tokens": total.tokens, "flops": total.flops}


def _pairs(stages: dict[str, StageResult]) -> Iterator[tuple[str, str]]:
    """(of, against): parents first, then starts, then siblings."""
    for name, stage in stages.items():
        if stage["parent"] is not None:
            yield name, stage["parent"]
    for name, stage in stages.items():
        if stage["parent"] not in (None, start := root_of(stages, name)):
            yield name, start
    for earlier, later in combinations(stages, 2):
        if stages[earlier]["parent"] == stages[later]["parent"]:
            yield later, earlier


def _comparable(
    of: str, against: str, found: Mapping[str, Suites], apart: Sequence[Apart]
) -> Iterator[tuple[Evaluation, Evaluation]]:
    """The evaluations that both stages have and that were made alike."""
    for suite in found[of]:
        groups = next((entry["groups"] for entry in apart if entry["suite"] == suite), None)
        if suite in found[against] and (groups is None or any(of in g and against in g for g in groups)):
            yield found[of][suite], found[against][suite]


def _contrasts(
    pairs: Sequence[tuple[str, str]], found: Mapping[str, Suites], apart: Sequence[Apart]
) -> Iterator[Contrast]:
    for of, against in pairs:
        for a, b in _comparable(of, against, found, apart):
            for value in a.values:
                if (c := contrast((of, a), (against, b), value)) is not None:
                    yield c


def _notes(pairs: Sequence[tuple[str, str]], found: Mapping[str, Suites], apart: Sequence[Apart]) -> list[str]:
    notes = []
    for of, against in pairs:
        for a, b in _comparable(of, against, found, apart):
            if why := setting_difference(TEMPLATE_DATE, a.settings, b.settings):
                notes.append(
                    f"{of}: the prompts of evaluation {a.suite} name another day than those of {against} {why}, which "
                    f"the chat template writes; {TEMPLATE_DATE_VARIABLE} sets it"
                )
            notes += [
                f"{of}: {label(a.name(value), a.graded)} has no difference to that of {against}, since they differ in "
                f"{why}"
                for value in a.values
                if value in b.values and (why := kept_from(value, a, b))
            ]
    return notes
