"""Where the groups of a step come from: the engine, what was recorded before a resume, or the file of another run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from posttrain.alerts import Observer
from posttrain.arrays import Floats
from posttrain.config import OnlineDpoConfig, RlConfig
from posttrain.data.fitting import Fitted
from posttrain.data.readers import replay_file
from posttrain.engine.base import Engine
from posttrain.models import LanguageModel
from posttrain.rollout import (
    Limits,
    RolloutRequest,
    collect,
    fit_tasks,
    regraded_from_json,
    regroup,
    rollout_from_json,
    rollout_seed,
    rollout_to_json,
)
from posttrain.runs.files import read_jsonl, read_rollouts
from posttrain.runs.log import RunLog
from posttrain.runs.rollouts import by_step, locate
from posttrain.train.data_order import rows_between
from posttrain.train.dataset_stage import Data, fit_rows
from posttrain.train.loop import Stage
from posttrain.train.observers import UnscoredWatch
from posttrain.train.policy import Policy
from posttrain.train.rl.advantages import Rows, scored_rows, trainable
from posttrain.train.rl.controls import controlled
from posttrain.train.rl.regrade import Regrader, regraded_metrics
from posttrain.train.rl.sources import Sources
from posttrain.types import Group, InputError, Rollout, Sampling, Score, Task

Row = dict[str, Any]


@dataclass(frozen=True)
class StepGroups:
    """The groups of a step and which are `used`: a refill replaced the others. `new`: not recorded yet."""

    all: list[Group]
    used: list[bool]
    new: bool

    @property
    def trained(self) -> list[Group]:
        """Those to train on; all where no refill brought one that differs, which then have nothing to learn."""
        return [group for group, used in zip(self.all, self.used, strict=True) if used] or self.all


class Rollouts:
    """The groups of each step, in the order of an endless stream of reshuffled tasks.

    `position` is how far the stream is read: a step may read further than its own prompts, since groups of equal scores
    are replaced by the next in the stream. It belongs into checkpoints."""

    def __init__(
        self,
        config: RlConfig | OnlineDpoConfig,
        tasks: Sequence[Task],
        lm: LanguageModel,
        engine: Engine,
        sources: Sources,
    ) -> None:
        self.config = config
        self.tasks = tasks
        self.lm = lm
        self.engine = engine
        self.sources = sources
        self.sampling = config.sampling()
        self.position = 0
        self.prompts = config.batch_size // config.group_size
        self.regrader = Regrader.of(config, tasks, lm, engine, sources.scorer, sources.sealed)
        self.recorded_parts: set[str] = set()
        self.told: set[int] = set()
        """Steps whose unscored rollouts have their event already, here or in the run that is replayed."""
        self._recorded: dict[int, list[Row]] = {}
        self._by_id = {task.id: task for task in tasks}

    def step(self, n: int) -> StepGroups:
        """The groups of step n; the recorded ones where there are some."""
        if n in self._recorded:
            recorded = self._groups_of(self._recorded[n])
            self.position += len(recorded.all)
            return recorded
        groups: list[Group] = []
        used: list[bool] = []
        for _ in range(self.config.max_refills + 1):
            more = self._sample(n, self.prompts - sum(used), groups)
            groups += more
            used += [not self.config.max_refills or _differs(group) for group in more]
            if sum(used) == self.prompts:
                break
        if self.regrader is not None:
            groups = self.regrader.regrade(n, groups)
        self.engine.pause()
        return StepGroups(groups, used, new=True)

    def regraded_metrics(self, step: StepGroups) -> dict[str, float | None]:
        """What the second grading of a step says, and the seconds that it took; nothing without one."""
        took = {"regrade_seconds": self.regrader.seconds} if step.new and self.regrader is not None else {}
        return regraded_metrics(step.trained, step.all) | took

    def record(self, log: RunLog, n: int, step: StepGroups, rows: Rows) -> None:
        """Write the step's rollouts and its rewards' metrics, if it is new; `rows` are those of the trained groups."""
        if not step.new:
            return
        of = sum(len(g.rollouts) for g in step.all)
        trained = iter(rows)
        lines = []
        for group, used in zip(step.all, step.used, strict=True):
            members = next(trained) if used or not any(step.used) else scored_rows([group])[0]
            for i, row in enumerate(members):
                regraded = {name: values[i] for name, values in group.regraded.items()}
                line = rollout_to_json(n, group.task, row.rollout, row.score, _shown(row.advantages), regraded)
                lines.append(line | {"used": used, "of": of})
        log.rollouts(lines)
        if self.regrader is not None:
            self.regrader.report(log)
        scorer = self.sources.scorer
        if scorer is not None and scorer.metrics:
            log.event("reward_metrics", step=n, **{f"logged/{k}": v for k, v in scorer.metrics.items()})
        if sum(step.used) < self.prompts:
            found = {"groups": sum(step.used), "wanted": self.prompts, "sampled": len(step.all)}
            log.event("short_batch", step=n, **found)  # it trains on those there are

    def go_to(self, position: int) -> None:
        """Go on from a `position` of the stream. Raises ValueError for what is none."""
        if type(position) is not int or position < 0:
            raise ValueError(f"its position in the data is {position!r}")
        self.position = position

    def rewind(self, log: RunLog, step: int) -> None:
        """Keep the whole steps of `rollouts.jsonl`. Those past the checkpoint at `step` are trained on again as they
        are, not sampled or scored again, but for one that stopped the run: its reward may have been mended."""
        if getattr(self.config, "replay", None) is not None:
            return
        steps = read_rollouts(log.out, self._known)
        whole = {n: rows for n, rows in steps.items() if len(rows) == rows[0].get("of", self.config.batch_size)}
        events = read_jsonl(log.out / "events.jsonl")
        stops = [event.get("step") for event in events if event.get("event") == "stopped"]
        if stops and whole and stops[-1] == max(whole):
            del whole[max(whole)]
        log.keep_rollouts(whole)
        self._recorded = whole
        self.told.update(event.get("step", 0) for event in events if event.get("event") == "unscored")

    def past_groups(self, n: int) -> list[Group]:
        """The groups of a step before the one of `rewind`, once."""
        return self._groups_of(self._recorded.pop(n)).all if n in self._recorded else []

    def replay(self, source: str) -> int:
        """Take every step from the `rollouts.jsonl` of another run instead of sampling; the number of steps.

        Raises InputError, naming the line, for a file that is not the whole rollouts of such a run: of these tasks,
        this vocabulary and this temperature."""
        file = replay_file(source)
        rows = read_jsonl(file)
        for i, row in enumerate(rows, start=1):
            self._check_row(row, file.parent, f"--replay {source}:{i}")
        steps = by_step(rows)
        for n, members in steps.items():
            if len(members) != members[0].get("of", len(members)):
                raise InputError(f"--replay {source}: step {n} is not whole; cut the file before it")
            if not any(row.get("used", True) for row in members):
                raise InputError(f"--replay {source}: step {n} has no rollout that was trained on; take it out")
        if not steps:
            raise InputError(f"--replay {source}: holds no rollouts")
        self.recorded_parts = {name for row in rows for name in row["parts"]}
        self._recorded = {n: steps[old] for n, old in enumerate(sorted(steps), start=1)}
        self.told.update(self._recorded)
        return len(steps)

    def _check_row(self, row: Any, folder: Path, where: str) -> None:
        """Raise InputError for a line of a folder that is no rollout which could be trained on."""
        try:
            rollout, _ = self._read(locate(row, folder))
            fits = isinstance(row["step"], int) and trainable(rollout, self.lm.vocabulary)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{where}: not a rollout of a run ({type(error).__name__}: {error})") from error
        if not fits:
            raise InputError(f"{where}: not a rollout that this model can be trained on (tokens, logprobs or status)")
        if row["task"] not in self._by_id:
            raise InputError(f"{where}: is of task {row['task']!r}, which --data does not have")
        if not self._asks(rollout, self._by_id[row["task"]]):
            raise InputError(f"{where}: is of another prompt than task {row['task']} of --data; give the data it is of")
        if row.get("temperature", self.config.temperature) != self.config.temperature:
            raise InputError(f"{where}: was sampled at temperature {row['temperature']}; give --temperature that")

    def _asks(self, rollout: Rollout, task: Task) -> bool:
        """Whether a recorded prompt holds what the task asks last: ids alone may be row numbers of another file."""
        chat = self.lm.chat
        encoded = chat.decode(self.lm.tokenizer(task.asked, add_special_tokens=False)["input_ids"])
        recorded = " ".join(chat.decode(rollout.prompt_ids).split())
        return any(" ".join(text.split()) in recorded for text in (task.asked, encoded))

    def _sample(self, n: int, prompts: int, before: Sequence[Group]) -> list[Group]:
        """Groups of the next prompts of the stream. A prompt that comes twice in a step gets other seeds."""
        rows = rows_between(len(self.tasks), self.config.seed, self.position, self.position + prompts)
        self.position += prompts
        seen = [group.task.id for group in before]
        size = self.config.group_size
        plans: list[RolloutRequest] = []
        for row in rows:
            task = self.tasks[row]
            first = size * seen.count(task.id)
            seen.append(task.id)
            seeds = [rollout_seed(self.config.seed, n, row, first + i) for i in range(size)]
            plans += [RolloutRequest(task, i, self.sampling, seed, seeds[0]) for i, seed in enumerate(seeds)]
        groups, control = self.collect(plans, {"step": n, "global_step": n - 1}), self.sources.control
        return groups if control is None else [controlled(control, group) for group in groups]

    def collect(self, plans: Sequence[RolloutRequest], trainer_state: Mapping[str, Any] | None = None) -> list[Group]:
        """Sample and score with the engine, the rewards and the environment of the run."""
        sources = self.sources
        limits = Limits(sources.max_turns, self.lm.context) if sources.environment is not None else None
        return collect(self.engine, self.lm.chat, sources.scorer, plans, trainer_state, sources.environment, limits)

    def evaluate(self, held_out: Sequence[Task]) -> dict[str, Any] | None:
        greedy = Sampling(self.config.max_new_tokens, temperature=0)
        groups = self.collect([RolloutRequest(t, 0, greedy, 0, i) for i, t in enumerate(held_out)])
        scores = [s.total for g in groups for s in g.scores if s.total is not None]
        if not scores:
            return None
        return {"reward": sum(scores) / len(scores), "unscored": 1 - len(scores) / len(groups)}

    def _groups_of(self, rows: Sequence[Row]) -> StepGroups:
        pairs = [self._read(row) for row in rows]
        tasks = [self._by_id[row["task"]] for row in rows]
        groups = regroup(tasks, [r for r, _ in pairs], [s for _, s in pairs], list(map(regraded_from_json, rows)))
        firsts = np.cumsum([0, *(len(group.rollouts) for group in groups[:-1])])
        return StepGroups(groups, [bool(rows[i].get("used", True)) for i in firsts], new=False)

    def _known(self, row: Row) -> None:
        """Raises what reading a line raises that is no rollout of these tasks."""
        if not trainable(self._read(row)[0], self.lm.vocabulary):
            raise ValueError("its tokens, log-probabilities or status are no rollout's")
        if row["task"] not in self._by_id:
            raise ValueError(f"there is no task {row['task']!r}")

    def _read(self, row: Row) -> tuple[Rollout, Score]:
        regraded_from_json(row)  # which says what is wrong there too
        return rollout_from_json(row, self.sampling, self.lm.chat)


def fit_task_rows(
    config: RlConfig | OnlineDpoConfig,
    lm: LanguageModel,
    rows: Sequence[Task],
    held_out: Sequence[Task],
    tools: tuple[Mapping[str, Any], ...] | None = None,
) -> Data[Task]:
    """The tasks and held-out tasks that leave room for an answer. Raises what `fit_rows` raises."""

    def encode(tasks: Sequence[Task], held_out: bool) -> Fitted[Task]:
        source = config.eval_data if held_out else config.data
        return fit_tasks(lm.chat, tasks, lm.context, config.max_new_tokens, str(source), tools)

    return fit_rows(config, rows, held_out, encode, None)


@dataclass
class RolloutStage(Stage):
    """What stages on rollouts have in common. See `Stage`."""

    config: Any
    policy: Policy
    rollouts: Rollouts
    held_out: Sequence[Task]
    log: RunLog
    total_steps: int | None

    @property
    def observers(self) -> Sequence[Observer]:  # type: ignore[override]
        return (UnscoredWatch(self.config.max_unscored_share, self.rollouts.sources.scorer, self.rollouts.told),)

    def evaluate(self) -> dict[str, Any] | None:
        return self.rollouts.evaluate(self.held_out) if self.held_out else None

    def objective(self, metrics: Mapping[str, Any]) -> float | None:
        return None if metrics.get("eval/reward") is None else -metrics["eval/reward"]

    def rewind(self, log: RunLog, step: int) -> None:
        self.rollouts.rewind(log, step)
        self.rollouts.engine.update(None, step)

    def past_groups(self, step: int) -> Sequence[Group]:
        return self.rollouts.past_groups(step)


def _differs(group: Group) -> bool:
    totals = [s.total for s in group.scores if s.total is not None]
    return bool(totals) and min(totals) != max(totals)


def _shown(advantages: Floats | None) -> float | list[float] | None:
    """One number where all tokens have the same."""
    if advantages is None:
        return None
    return float(advantages[0]) if (advantages == advantages[0]).all() else advantages.tolist()
