"""Comparing evaluated runs: values with intervals, paired contrasts, costs. Everything is read from run folders."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import cast

import numpy as np

from posttrain.chat.template_date import KEY as TEMPLATE_DATE
from posttrain.chat.template_date import VARIABLE as TEMPLATE_DATE_VARIABLE
from posttrain.config.evaluation import RETENTION_SUITE
from posttrain.evals.controls import controls_of
from posttrain.evals.settings import grouped, setting_difference, value_difference
from posttrain.runs.comparison import (
    Apart,
    Comparison,
    Contrast,
    Lead,
    Section,
    Spent,
    StageResult,
    Worth,
    label,
    root_of,
    sections,
)
from posttrain.runs.files import write_atomic
from posttrain.runs.log import make_folder
from posttrain.runs.reader import Run
from posttrain.runs.records import PERPLEXITY, TEXT_NLL, Cost, Evaluation
from posttrain.stats import Transform, difference, estimate
from posttrain.types import InputError

Suites = Mapping[str, Evaluation]
Named = tuple[str, Evaluation]
"""A run's name and its evaluation of one suite."""


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
    if worth := list(_worth(comparison, found, runs)):
        comparison["worth"] = worth
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
    make_folder(out)
    write_atomic(out / "compare.json", json.dumps(comparison, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    return comparison


def _apart(found: Mapping[str, Suites]) -> list[Apart]:
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
        + "\nevaluate again with equal settings (another --name keeps both evaluations in a run folder), or give "
        "--loose to see them beside each other without a difference"
    )


def _graded(found: Mapping[str, Suites]) -> dict[str, list[str]]:
    graded: dict[str, list[str]] = {}
    for name, suites in found.items():
        for suite, evaluation in suites.items():
            if evaluation.graded:
                graded.setdefault(suite, []).append(name)
    return graded


def _cost(folders: Sequence[Path]) -> Spent:
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


# -- contrasts ---------------------------------------------------------------------------------------------------------


def contrast(of: Named, against: Named, value: str, comparisons: int = 1) -> Contrast | None:
    """The difference in one value of a suite; None where they cannot be subtracted or have scored no task in common.
    `comparisons` as in `paired_bootstrap`."""
    (name, a), (other, b) = of, against
    theirs = b.values.get(value, {})
    paired = [(v, w) for t, v in a.values.get(value, {}).items() if v is not None and (w := theirs.get(t)) is not None]
    if not paired or kept_from(value, a, b):
        return None
    key = a.name(value)
    shown = difference([v for v, _ in paired], [w for _, w in paired], transform_of(key), comparisons)
    return cast(Contrast, {"of": name, "against": other, "evaluation": key, **shown})


def kept_from(value: str, a: Evaluation, b: Evaluation) -> str | None:
    """Why this value of two evaluations that were otherwise made alike cannot be subtracted."""
    if value == TEXT_NLL and a.values[value].keys() != b.values[value].keys():
        return f"windows ({len(a.values[value])} and {len(b.values[value])})"
    return value_difference(value, a.settings, b.settings)


def transform_of(key: str) -> Transform | None:
    """Perplexity is exp of the mean negative log-likelihood over the windows of the text."""
    return np.exp if key == PERPLEXITY else None


def leads(comparison: Comparison, found: Mapping[str, Suites]) -> dict[str, Lead]:
    """The highest stage of every suite that has a headline and whose evaluations can all be compared.

    With K stages there are K - 1 differences to the highest. To call a stage best that is not, it must be separated
    from the truly best one, which each of the K - 1 others is with a probability of at most 2.5%/(K - 1): together at
    most 2.5%, and at most 5% where several are equally good."""
    return {
        part.suite: lead
        for part in sections(comparison)
        if part.headline and part.suite != RETENTION_SUITE and not part.apart
        if (lead := _lead(part, part.headline, found)) is not None
    }


def _worth(comparison: Comparison, found: Mapping[str, Suites], runs: Mapping[str, Path]) -> Iterator[Worth]:
    controls = list(controls_of({name: Run(folder).config for name, folder in runs.items()}))
    for part in sections(comparison):
        if part.headline is None or part.suite == RETENTION_SUITE:
            continue
        value = part.headline.rpartition("/")[2]
        suites = {name: found[name][part.suite] for name in part.stages if part.suite in found[name]}
        for of, against, control in controls:
            if of in suites and against in suites:
                difference = contrast((of, suites[of]), (against, suites[against]), value)
                if difference is not None:
                    yield {**difference, "control": control}


def _lead(part: Section, headline: str, found: Mapping[str, Suites]) -> Lead | None:
    stages, order = part.comparison["stages"], part.ranked
    if not order:
        return None
    suites = {name: found[name][part.suite] for name in order}
    comparisons = max(len(order) - 1, 1)

    def minus(of: str, against: str) -> Contrast | None:
        value = headline.rpartition("/")[2]
        return contrast((of, suites[of]), (against, suites[against]), value, comparisons)

    lead: Lead = {
        "of": order[0],
        "comparisons": comparisons,
        "others": [c for name in order[1:] if (c := minus(order[0], name)) is not None],
    }
    trained = next((name for name in order if stages[name]["parent"] is not None), None)
    start = root_of(stages, trained) if trained is not None else None
    if trained is not None and start in suites and (gain := minus(trained, start)) is not None:
        lead["gain"] = gain
    return lead
