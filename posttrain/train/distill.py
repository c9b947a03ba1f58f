"""On-policy distillation: a student learns a teacher's next-token distributions along its own answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from posttrain.alerts import Observer
from posttrain.batch.packing import Branch, Tree, share_prefix
from posttrain.batch.types import Batch, LossOutput, Metrics, number
from posttrain.chat import EncodedRow
from posttrain.chat.template_date import on_one_date
from posttrain.config import DistillConfig
from posttrain.config.compute import on_its_device
from posttrain.data.fitting import Fitted, Limit, fit
from posttrain.data.formats import load_prompts
from posttrain.engine.open import open_engine
from posttrain.models import LanguageModel, load_model, weights_hash
from posttrain.models.divergence import batch_divergence
from posttrain.models.read import Reading
from posttrain.models.token_logprobs import TokenOutputs
from posttrain.rollout import (
    RolloutRequest,
    fitting_prompt,
    regroup,
    rollout_from_json,
    rollout_seed,
    rollout_to_json,
    sample,
    sampling_flops,
)
from posttrain.rows import CompletionRow
from posttrain.runs.files import read_rollouts
from posttrain.runs.log import RunLog
from posttrain.train.data_order import bounded_steps, rows_drawn, step_rows
from posttrain.train.dataset_stage import fit_rows, load_rows
from posttrain.train.loop import Prepared, Stage, StepResult, load_trained, make_policy, train
from posttrain.train.policy import Policy
from posttrain.train.rl.advantages import trainable
from posttrain.train.sft import encode_row
from posttrain.types import InputError, Rollout, Score, Task

LEARNING_RATE = 2e-5


@dataclass(frozen=True)
class Prompted:
    """A prompt to sample from, and the data's completion as token rows (none where the student samples every time)."""

    task: Task
    given: tuple[EncodedRow, ...] = ()


@on_its_device
@on_one_date
def train_distill(config: DistillConfig, observers: Sequence[Observer] = ()) -> None:
    """Distil `config.teacher` into `config.model` and write the run folder `config.out`.

    The loss of a step is the mean over its answers of the mean over their tokens of the generalised Jensen-Shannon
    divergence between the teacher's next-token distribution P and the student's Q (arXiv:2306.13649, equations 1 and
    2; see `models.divergence.generalised_jsd`). A share λ of the answers, drawn row by row, is sampled by the student
    as it is before the step, without a gradient through the sampling; the others are the data's. Raises InputError for
    bad input, before anything is written."""
    train(config, partial(_prepare, config), LEARNING_RATE, observers)


def _prepare(config: DistillConfig, stack: ExitStack) -> Prepared:
    rows, held_out = load_rows(config, load_prompts)
    lm = load_trained(config)
    try:
        teacher = load_model(config.teacher, raw=config.raw, trust_remote_code=config.trust_remote_code)
    except InputError as error:
        raise InputError(str(error).replace("--model", "--teacher", 1)) from None
    _check_vocabulary(lm, teacher)
    data = fit_rows(config, rows, held_out, partial(_encoded, config, lm, teacher), config.max_length)
    total = bounded_steps(config, len(data.train), config.batch_size)

    def stage(log: RunLog, rate: float) -> Distill:
        if not log.resuming:
            log.event("teacher", model=config.teacher, weights_hash=weights_hash(teacher.source))
        policy = make_policy(lm, config, rate, total)
        return Distill(config, policy, lm, teacher, data.train, data.held_out, log, total)

    return Prepared(lm, rows, data.fitted, stage)


@dataclass
class Distill(Stage):
    config: DistillConfig
    policy: Policy
    student: LanguageModel
    teacher: LanguageModel
    rows: Sequence[Prompted]
    held_out: Sequence[Prompted]
    log: RunLog
    total_steps: int | None
    kind = "distill"
    shown = ("loss", "response_length")

    def __post_init__(self) -> None:
        self.drawn = rows_drawn(self.config, len(self.rows))
        self.engine = open_engine(self.config, self.student)
        self.sampling = self.config.sampling()
        self.recorded: dict[int, list[dict[str, Any]]] = {}

    def step(self, n: int) -> StepResult:
        plans, given = self._planned(n)
        if n in self.recorded:
            rollouts = [self._read(row) for row in self.recorded[n]]
        else:
            rollouts = self._sample(plans)
            asked = zip([plan.task for plan in plans], rollouts, strict=True)
            self.log.rollouts(rollout_to_json(n, task, rollout, Score(None), None) for task, rollout in asked)
        if groups := regroup([plan.task for plan in plans], rollouts, [Score(None)] * len(rollouts)):
            self.policy.flops += sampling_flops(self.student.flops, groups)
        answers = [*map(_answer, rollouts), *given]
        metrics: dict[str, Any] = self._divergence(answers, train=True) | self.policy.step()
        self.engine.update(None, n)
        lengths = [sum(answer.mask) for answer in answers]
        metrics |= {
            "response_length": sum(lengths) / len(lengths),
            "truncated": sum(r.status == "truncated" for r in rollouts) / len(rollouts) if rollouts else None,
            "on_policy": len(rollouts) / len(answers),
            "tokens": sum(len(answer.token_ids) for answer in answers),
        }
        return StepResult(metrics)

    def evaluate(self) -> dict[str, Any] | None:
        if not self.held_out:
            return None
        plans, given = self._plans(0, self.held_out, range(len(self.held_out)))
        rollouts = self._sample(plans)
        return self._divergence([*map(_answer, rollouts), *given], train=False)

    def rewind(self, log: RunLog, step: int) -> None:
        steps = read_rollouts(log.out, self._read)
        whole = {n: rows for n, rows in steps.items() if len(rows) == len(self._planned(n)[0])}
        log.keep_rollouts(whole)
        self.recorded = {n: rows for n, rows in whole.items() if n > step}
        self.engine.update(None, step)

    def _read(self, row: Mapping[str, Any]) -> Rollout:
        rollout = rollout_from_json(row, self.sampling, self.student.chat)[0]
        if not trainable(rollout, self.student.vocabulary):
            raise ValueError("its tokens, log-probabilities or status are no rollout's")
        return rollout

    def _planned(self, n: int) -> tuple[list[RolloutRequest], list[EncodedRow]]:
        config = self.config
        return self._plans(n, self.rows, step_rows(len(self.rows), config.seed, n, config.batch_size, self.drawn))

    def _plans(
        self, n: int, source: Sequence[Prompted], rows: Sequence[int]
    ) -> tuple[list[RolloutRequest], list[EncodedRow]]:
        """What the student is to sample in step n, and the answers that are given: a matter of seed and step alone."""
        seed = self.config.seed
        sampled = np.random.default_rng([seed, n, 1]).random(len(rows)) < self.config.on_policy_share
        plans = [
            RolloutRequest(source[row].task, 0, self.sampling, rollout_seed(seed, n, row, i))
            for i, row in enumerate(rows)
            if sampled[i]
        ]
        return plans, [answer for i, row in enumerate(rows) if not sampled[i] for answer in source[row].given]

    def _sample(self, plans: Sequence[RolloutRequest]) -> list[Rollout]:
        if not plans:  # the engine would lay out its weights for nothing
            return []
        rollouts = sample(self.engine, self.student.chat, plans)
        self.engine.pause()
        return rollouts

    def _divergence(self, answers: Sequence[EncodedRow], train: bool) -> Metrics:
        """The step's loss, with its gradient if `train`, a micro-batch at a time. `jsd` is the divergence a token, all
        tokens alike; `entropy` the student's, weighed as the loss is."""
        tokens = sum(sum(answer.mask) for answer in answers)

        def forward(student: LanguageModel, batch: Batch) -> TokenOutputs:
            beta, temperature = self.config.jsd_beta, self.config.temperature
            found = batch_divergence(student, self.teacher, batch, beta=beta, temperature=temperature)
            self.policy.flops += self.teacher.flops.forward(batch.nodes, len(found.entropy))
            return TokenOutputs(found.values, found.entropy)

        def loss(batch: Batch, outputs: TokenOutputs) -> LossOutput:
            divergence = outputs.logprobs
            weighted = (batch.weights * divergence).sum()
            return LossOutput(weighted, {"loss": weighted.detach(), "jsd": number(divergence.sum()) / tokens})

        run = self.policy.forward_backward if train else self.policy.evaluate
        return run(distillation_trees(answers), loss, Reading(forward))


def distillation_trees(answers: Sequence[EncodedRow]) -> list[Tree]:
    """A tree an answer; a trained token weighs 1/(answers x its trained tokens): the mean over answers of means."""
    n = len(answers)
    return [share_prefix([Branch.of(a.token_ids, a.mask, 1.0 / (n * sum(a.mask)))]) for a in answers]


def _answer(rollout: Rollout) -> EncodedRow:
    (segment,) = rollout.segments
    return EncodedRow(tuple(segment.token_ids.tolist()), tuple(segment.sampled.tolist()), rollout.task_id)


def _check_vocabulary(student: LanguageModel, teacher: LanguageModel) -> None:
    same = student.tokenizer.get_vocab() == teacher.tokenizer.get_vocab()
    if not same or student.vocabulary != teacher.vocabulary:
        differ = "other tokens" if student.vocabulary == teacher.vocabulary else f"{teacher.vocabulary} tokens"
        raise InputError(
            f"--teacher {teacher.name}: has {differ}, {student.name} has {student.vocabulary}; distributions can only "
            "be compared over the same vocabulary. Use a teacher of the same family, or train on its answers: "
            "posttrain sample, then posttrain sft"
        )


def _encoded(
    config: DistillConfig,
    lm: LanguageModel,
    teacher: LanguageModel,
    rows: Sequence[Task | CompletionRow],
    held_out: bool,
) -> Fitted[Prompted]:
    """Prompts and completions as tokens, cut at `max_length`; those without room for an answer or a trained token do
    not fit. Raises InputError where the data lacks completions that are asked for."""
    source = str(config.eval_data) if held_out else config.data
    context = min(lm.context, teacher.context)
    limit = Limit.of(config.max_length, context)
    within = lm.chat_within(limit.tokens)

    def ready(row: Task | CompletionRow) -> tuple[list[Prompted], bool]:
        task = row if isinstance(row, Task) else Task(row.where, row.prompt, {}, row.tools, row.where)
        fitting_prompt(lm.chat, task, context, config.max_new_tokens, source)
        if config.on_policy_share == 1:
            return [Prompted(task)], False
        if isinstance(row, Task):
            raise InputError(
                f"{source}: task {row.id} has no completion, and --on-policy-share {config.on_policy_share:g} takes "
                "some answers from the data; give rows with a completion, or leave the share at 1"
            )
        given, cut = encode_row(within, row, limit)
        return [Prompted(task, tuple(given))], cut

    return fit(rows, ready)
