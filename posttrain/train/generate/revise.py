"""Critique and revision: a model rewrites its own answers by principles, and the last ones become rows for SFT."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from posttrain.chat.template_date import dated, on_one_date
from posttrain.config import ReviseConfig
from posttrain.config.compute import on_its_device
from posttrain.console import Progress, short_path
from posttrain.data.formats import load_tasks
from posttrain.rewards.judge.prompts import Criterion, read_rubric
from posttrain.rollout import RolloutRequest, rollout_seed
from posttrain.runs.files import read_recorded
from posttrain.runs.log import RunLog
from posttrain.train.generate.loop import Generation, Step, sampling_from, write_data
from posttrain.train.generate.sources import Source, messages_of, source_of
from posttrain.train.settings import nothing_to_do, with_hashes
from posttrain.types import InputError, Message, Task

CRITIQUE = """\
Look at your last answer by this principle:

{principle}

Name concretely where the answer falls short of it, and say so if it does not. Do not rewrite the answer yet."""
REVISE = """\
Now rewrite your answer so that it keeps to the principle and mends what you named, and is still of use to the person \
who asked. Write the new answer alone, as if it were the first."""

Conversation = tuple[Message, ...]


@dataclass
class Revised:
    """A task on its way. `dropped` says why there is no row of it, `error` what an endpoint said."""

    task: str
    first_answer: str = ""
    answer: str = ""
    rounds: list[dict[str, str]] = field(default_factory=list)
    dropped: str | None = None
    error: str | None = None


@on_its_device
@on_one_date
def revise_answers(config: ReviseConfig) -> None:
    """Answer each task, then `config.revisions` times: draw a principle, criticise the answer by it, rewrite it; write
    `OUT/sft.jsonl`. A critique sees prompt and answer alone. Source: Constitutional AI (arXiv:2212.08073, section 3).

    A resume goes on from the recorded steps. Raises InputError for bad input and RunFailed where an endpoint's budget
    is spent or no row is left."""
    principles = read_rubric(config.principles, "1-10")
    settings = with_hashes(config.model_dump(mode="json"))
    settings["criteria"] = {principle.name: principle.text for principle in principles}
    if nothing_to_do(config.out, settings, config.resume):
        return
    tasks = load_tasks(config.data, config.columns)[: config.limit]
    for task in tasks:
        if task.tools:
            raise InputError(f"{config.data}: task {task.id} has tools, and a revision is text alone; drop them")
    source = source_of(config, tasks)
    fitted = source.fitting([replace(task, prompt=messages_of(task)) for task in tasks])
    asked = fitted.checked(config.data, config.strict)
    tasks = [task for task in tasks if task.id in {fits.id for fits in asked}]
    with RunLog(config.out, dated(settings, source.writes_date), config.resume) as log:
        with sampling_from(source, log, config.data, fitted):
            done = _Revising(config, principles, tasks, source, log).all()
        dropped = Counter(one.dropped for one in done if one.dropped is not None)
        rows = [_row(task, one, source) for task, one in zip(tasks, done, strict=True) if one.dropped is None]
        failure = (
            "no answer could be revised to its end ({left_out}); where they are cut, raise "
            f"max_new_tokens={config.max_new_tokens}"
        )
        write_data(log, config, source, rows, dropped, failure, stage="revise", principles=config.principles)


class _Revising(Generation[Revised]):
    file = "revisions.jsonl"

    def __init__(
        self, config: ReviseConfig, principles: Sequence[Criterion], tasks: Sequence[Task], source: Source, log: RunLog
    ) -> None:
        super().__init__(source, tasks, log, config.max_concurrent)
        self.config = config
        self.principles = principles
        self.tokens = 0
        self.flops = 0.0

    def all(self) -> list[Revised]:
        done: list[Revised] = []
        with Progress(f"revise {short_path(self.config.source)}", len(self.tasks), unit="tasks") as progress:
            for _, revised, _ in self.steps():
                done += revised
                progress.advance(len(done))
        return done

    def recorded(self, steps: Container[int]) -> Iterator[tuple[int, Revised]]:
        self.log.keep_lines(self.file, lambda row: row["step"] in steps)
        for row in read_recorded(self.log.out / self.file, _read):
            yield row["step"], _read(row)

    def record(self, n: int, items: Sequence[Revised]) -> None:
        self.log.revisions({"step": n, **asdict(one)} for one in items)

    def make(self, n: int, places: range) -> Step[Revised]:
        self.tokens, self.flops = 0, 0.0
        ones = {place: Revised(self.tasks[place].id) for place in places}
        for place, text in self._said(ones, 0, {i: messages_of(self.tasks[i]) for i in ones}).items():
            ones[place].answer = ones[place].first_answer = text
        for turn in range(1, self.config.revisions + 1):
            self._revise(ones, turn)
        return Step(list(ones.values()), {}, self.tokens, self.flops)

    def _revise(self, ones: dict[int, Revised], turn: int) -> None:
        drawn = {place: self._principle(place, turn) for place in ones}
        asked = {
            place: (
                *messages_of(self.tasks[place]),
                Message("assistant", one.answer),
                Message("user", CRITIQUE.format(principle=drawn[place].text)),
            )
            for place, one in ones.items()
        }
        critiques = self._said(ones, 2 * turn - 1, asked)
        again = {
            place: (*asked[place], Message("assistant", critique), Message("user", REVISE))
            for place, critique in critiques.items()
        }
        for place, text in self._said(ones, 2 * turn, again).items():
            ones[place].answer = text
            round_ = {"principle": drawn[place].name, "critique": critiques[place], "revision": text}
            ones[place].rounds.append(round_)

    def _said(self, ones: dict[int, Revised], turn: int, asked: dict[int, Conversation]) -> dict[int, str]:
        """The whole replies to what is asked about the tasks that are still there; the others are dropped."""
        seed, sampling = self.config.seed, self.config.sampling()
        plans: dict[int, RolloutRequest] = {}
        for place, messages in asked.items():
            plan = RolloutRequest(Task(str(place), messages), 0, sampling, rollout_seed(seed, turn, place, 0))
            if ones[place].dropped is None and not self.source.fitting([plan.task]).left_out:
                plans[place] = plan
            else:
                ones[place].dropped = ones[place].dropped or "too_long"
        sampled = self.source.sample(list(plans.values()))
        self.tokens += sampled.tokens
        self.flops += sampled.flops
        replies = dict(zip(plans, sampled.rollouts, strict=True))
        for place, rollout in replies.items():
            if rollout.status != "ok":
                ones[place].dropped, ones[place].error = rollout.status, rollout.error
            elif not rollout.text.strip():
                ones[place].dropped = "empty"
        return {place: rollout.text for place, rollout in replies.items() if ones[place].dropped is None}

    def _principle(self, place: int, turn: int) -> Criterion:
        """Drawn from seed, task and turn alone; the same one twice only where there are too few."""
        order = np.random.default_rng([self.config.seed, place]).permutation(len(self.principles))
        return self.principles[order[(turn - 1) % len(order)]]


def _read(row: Mapping[str, Any]) -> Revised:
    return Revised(**{name: value for name, value in row.items() if name != "step"})


def _row(task: Task, one: Revised, source: Source) -> dict[str, Any]:
    text = isinstance(task.prompt, str)
    return {
        "prompt": task.prompt if isinstance(task.prompt, str) else [m.to_dict() for m in task.prompt],
        "completion": one.answer if text else [Message("assistant", one.answer).to_dict()],
        "task": task.id,
        "first_answer": one.first_answer,
        "rounds": one.rounds,
        "model": source.name,
        "weights_hash": source.weights_hash,
    }
