"""Whether two evaluations may be compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from posttrain.evals.settings import reward_differences, settings_differences, tasks_words
from posttrain.runs.records import Evaluation


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
