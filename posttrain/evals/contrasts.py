"""One evaluated run minus another over the tasks that both have scored, and the highest of several against the rest."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from posttrain.config.evaluation import RETENTION_SUITE
from posttrain.evals.settings import value_difference
from posttrain.runs.comparison import Comparison, Contrast, Lead, Section, ranked, root_of, sections
from posttrain.runs.records import PERPLEXITY, TEXT_NLL, Evaluation
from posttrain.stats import Transform, difference

Named = tuple[str, Evaluation]
"""A run's name and its evaluation of one suite."""


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
    assert shown["value"] is not None
    return {
        "of": name,
        "against": other,
        "evaluation": key,
        "value": shown["value"],
        "low": shown["low"],
        "high": shown["high"],
        "n": shown["n"],
    }


def kept_from(value: str, a: Evaluation, b: Evaluation) -> str | None:
    """Why this value of two evaluations that were otherwise made alike cannot be subtracted."""
    if value == TEXT_NLL and a.values[value].keys() != b.values[value].keys():
        return f"windows ({len(a.values[value])} and {len(b.values[value])})"
    return value_difference(value, a.settings, b.settings)


def transform_of(key: str) -> Transform | None:
    """Perplexity is exp of the mean negative log-likelihood over the windows of the text."""
    return np.exp if key == PERPLEXITY else None


def leads(comparison: Comparison, found: Mapping[str, Mapping[str, Evaluation]]) -> dict[str, Lead]:
    """The highest stage of every suite that has a headline and whose evaluations can all be compared.

    With K stages there are K - 1 differences to the highest. To call a stage best that is not, it must be separated
    from the truly best one, which each of the K - 1 others is with a probability of at most 2.5%/(K - 1): together at
    most 2.5%, and at most 5% where several are equally good."""
    return {
        part.suite: lead
        for part in sections(comparison)
        if part.headline and part.suite != RETENTION_SUITE and not part.apart
        if (lead := _lead(comparison, part, part.headline, found)) is not None
    }


def _lead(
    comparison: Comparison, part: Section, headline: str, found: Mapping[str, Mapping[str, Evaluation]]
) -> Lead | None:
    stages = comparison["stages"]
    order = ranked(stages, headline)
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
