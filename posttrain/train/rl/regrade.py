"""A second grading of a step's rollouts: measured, recorded in `Group.regraded`, and never trained on."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from posttrain.config import OnlineDpoConfig, RlConfig
from posttrain.console import warn
from posttrain.engine.base import Engine
from posttrain.models import LanguageModel
from posttrain.rewards.registry import references_read
from posttrain.rewards.scorer import Scorer
from posttrain.rollout import by_grading, sample_of
from posttrain.rollout.cut import CUTS, answers_after_cuts, reasoning_of
from posttrain.runs.log import RunLog
from posttrain.train.rl.batch import mean
from posttrain.types import Group, InputError, Rollout, RunFailed, Sample, Score, Task

SEALED, SWAPPED, CUT = "sealed", "swapped", "cut"
"""The names of gradings; a cut's is `cut/25`."""
PAID = 0.5
"""From which total on a canary counts as paid."""
REFERENCE = "reference"
DRAWS = {SEALED: 1, SWAPPED: 2, REFERENCE: 3, CUT: 4}
"""What tells the draws of one step apart."""
Drawn = Sequence[tuple[Task, Rollout]]


@dataclass
class Failures:
    """Of one grading in one step: how many of how many rollouts got no number though they should, and the first
    reason."""

    step: int
    grading: str
    count: int
    of: int
    first_reason: str


class Swaps:
    """Reference answers of other tasks, for rewards that read `columns`."""

    def __init__(self, tasks: Sequence[Task], columns: Sequence[str]) -> None:
        self._tasks = tasks
        self._columns = columns
        self._references = [self._reference(task) for task in tasks]

    @staticmethod
    def of(tasks: Sequence[Task], trained: Scorer | None) -> Swaps:
        """Raises InputError where the reward reads no reference, and where the tasks have fewer than two."""
        present = {name for task in tasks for name in task.columns}
        swaps = Swaps(tasks, references_read((), (), present) if trained is None else trained.references(present))
        if len(set(swaps._references)) < 2:
            raise InputError(
                f"canaries: all {len(tasks)} tasks have one reference answer ({', '.join(swaps._columns)}), so there "
                "is no other one to grade by; leave canaries out, or give tasks with different answers"
            )
        return swaps

    def task(self, task: Task, random: np.random.Generator) -> Task:
        """The task with the reference answer of another one: of the first after a place that is drawn whose answer
        differs."""
        own, n = self._reference(task), len(self._tasks)
        first = int(random.integers(n))
        other = next(i for k in range(n) if self._references[i := (first + k) % n] != own)
        kept = {name: value for name, value in task.columns.items() if name not in self._columns}
        theirs = {name: value for name, value in self._tasks[other].columns.items() if name in self._columns}
        return replace(task, columns=kept | theirs)

    def _reference(self, task: Task) -> str:
        return json.dumps([task.columns.get(name) for name in self._columns], sort_keys=True, default=str)


@dataclass
class Regrader:
    """Grades the rollouts of a step again. Which ones follows from the seed and the step; sampling after a cut is
    greedy and draws no number, and what the reward logs of it is not kept: the run goes on as without.

    A grading that fails costs its number alone: it is None, counted in the events, and the first is a warning. A sealed
    reward that cannot go on, as a judge whose budget is spent, grades no further step."""

    config: RlConfig | OnlineDpoConfig
    lm: LanguageModel
    engine: Engine
    trained: Scorer | None
    sealed: Scorer | None
    swaps: Swaps | None
    seconds: float | None = field(default=None, init=False)
    """What the last step took."""
    failures: list[Failures] = field(default_factory=list, init=False)
    """Of the last step."""
    _warned: set[str] = field(default_factory=set, init=False)

    @staticmethod
    def of(
        config: RlConfig | OnlineDpoConfig,
        tasks: Sequence[Task],
        lm: LanguageModel,
        engine: Engine,
        trained: Scorer | None,
        sealed: Scorer | None,
    ) -> Regrader | None:
        """What the configuration asks for; None where that is nothing. Raises what `Swaps.of` raises."""
        if not config.regrades:
            return None
        swaps = Swaps.of(tasks, trained) if config.canaries else None
        return Regrader(config, lm, engine, trained, sealed, swaps)

    def regrade(self, n: int, groups: Sequence[Group]) -> list[Group]:
        """The groups of step n with what else grades them."""
        start = time.perf_counter()
        self.failures = []
        members = [(group.task, rollout) for group in groups for rollout in group.rollouts]
        found: list[dict[str, float | None]] = [{} for _ in members]
        for name, scorer, samples in self._gradings(n, members):
            scores = self._graded(n, scorer, list(samples.values()), name)
            for i, score in zip(samples, scores, strict=False):  # none where the grader gave up
                found[i][name] = score.total
        self.seconds = time.perf_counter() - start
        rest = iter(found)
        return [replace(group, regraded=by_grading([next(rest) for _ in group.rollouts])) for group in groups]

    def report(self, log: RunLog) -> None:
        """Write the failures of the last step; the first of a grading is a warning."""
        for failed in self.failures:
            log.event("not_regraded", **vars(failed))
            if failed.grading not in self._warned:
                self._warned.add(failed.grading)
                warn(
                    f"{log.out}: step {failed.step}: the grading '{failed.grading}' failed for {failed.count} of "
                    f"{failed.of} rollouts ({failed.first_reason}); training goes on without these numbers"
                )

    def _gradings(self, n: int, members: Drawn) -> Iterator[tuple[str, Scorer, dict[int, Sample]]]:
        """(name, grader, what it sees by the place of the rollout)."""
        config = self.config
        alive = [i for i, (_, rollout) in enumerate(members) if rollout.status != "failed"]
        if self.sealed is not None:
            drawn = alive if config.sealed_rollouts is None else self._drawn(n, SEALED, alive, config.sealed_rollouts)
            yield SEALED, self.sealed, {i: sample_of(*members[i]) for i in drawn}
        if self.trained is None:
            return
        if self.swaps is not None:
            random = self._random(n, REFERENCE)
            drawn = self._drawn(n, SWAPPED, alive, config.canaries)
            tasks = {i: self.swaps.task(members[i][0], random) for i in drawn}
            yield SWAPPED, self.trained, {i: sample_of(task, members[i][1]) for i, task in tasks.items()}
        if config.effort_every is not None and (n - 1) % config.effort_every == 0:
            for per_cent, samples in self._after_cuts(n, members, alive).items():
                yield f"{CUT}/{per_cent}", self.trained, samples

    def _after_cuts(self, n: int, members: Drawn, alive: Sequence[int]) -> dict[int, dict[int, Sample]]:
        with_reasoning = {i: r for i in alive if (r := reasoning_of(self.lm.chat, *members[i])) is not None}
        if not with_reasoning:
            reason = "no answer reasons before it marks an answer, so there is nothing to cut"
            self.failures.append(Failures(n, CUT, len(alive), len(alive), reason))
        drawn = self._drawn(n, CUT, list(with_reasoning), self.config.effort_rollouts)
        cut = [(*members[i], with_reasoning[i]) for i in drawn]
        samples = answers_after_cuts(self.engine, self.lm.chat, self.lm.context, cut)
        return {
            per_cent: {i: samples[k, per_cent] for k, i in enumerate(drawn) if (k, per_cent) in samples}
            for per_cent in CUTS
        }

    def _graded(self, n: int, scorer: Scorer, samples: Sequence[Sample], name: str) -> list[Score]:
        """The scores of the samples; none where a sealed reward gives up."""
        logged, traceback = scorer.metrics, scorer.first_traceback
        try:
            scores = scorer.score(samples, {"step": n, "global_step": n - 1})
        except RunFailed as error:
            if scorer is not self.sealed:
                raise
            self.sealed = None
            self.failures.append(Failures(n, name, len(samples), len(samples), f"it gave up: {error}"))
            return []
        finally:
            scorer.metrics, scorer.first_traceback = logged, traceback
        failed = [score.reason for score in scores if score.reason is not None]
        if failed:
            self.failures.append(Failures(n, name, len(failed), len(scores), failed[0]))
        return scores

    def _drawn(self, n: int, name: str, places: Sequence[int], count: int) -> list[int]:
        """So many of these places, or all there are, in order."""
        chosen = self._random(n, name).permutation(len(places))[:count]
        return [places[i] for i in sorted(chosen.tolist())]

    def _random(self, n: int, name: str) -> np.random.Generator:
        return np.random.default_rng([self.config.seed, n, 0, 0, DRAWS[name]])


def regraded_metrics(trained: Sequence[Group], sampled: Sequence[Group]) -> dict[str, float | None]:
    """What the second grading of a step says: means over the rollouts that were graded so, null where none could be;
    nothing where there was none.

    `sealed_reward` is over the groups that are `trained` on, as `reward` is, over `sealed_graded` rollouts, and
    `sealed_gap` the mean of reward − sealed reward over those that have both. Canaries and effort are over all that
    were `sampled`: `canary_rate` is the share of canaries paid at least 0.5, `canary_reward` their mean; `effort/25` to
    `effort/75` are rewards after a cut, `effort/100` those of the same rollouts uncut."""
    out: dict[str, float | None] = {}
    sealed = _pairs(trained, SEALED)
    if sealed is not None:
        known = [(whole, other) for whole, other in sealed if other is not None]
        out["sealed_reward"] = mean([other for _, other in known])
        out["sealed_gap"] = mean([whole - other for whole, other in known if whole is not None])
        out["sealed_graded"] = len(known)
    swapped = _pairs(sampled, SWAPPED)
    if swapped is not None:
        paid = [other for _, other in swapped if other is not None]
        out |= {"canary_rate": mean([float(value >= PAID) for value in paid]), "canary_reward": mean(paid)}
    cuts = {per_cent: found for per_cent in CUTS if (found := _pairs(sampled, f"{CUT}/{per_cent}")) is not None}
    for per_cent, found in cuts.items():
        out[f"effort/{per_cent}"] = mean([other for _, other in found if other is not None])
    if cuts:
        uncut = next(iter(cuts.values()))
        out["effort/100"] = mean([whole for whole, other in uncut if other is not None and whole is not None])
    return out


def _pairs(groups: Sequence[Group], name: str) -> list[tuple[float | None, float | None]] | None:
    """(what the reward gave, the value of this grading) of each rollout of the groups that have one; None without."""
    having = [group for group in groups if name in group.regraded]
    if not having:
        return None
    return [
        (score.by_reward, value)
        for group in having
        for score, value in zip(group.scores, group.regraded[name], strict=True)
    ]
