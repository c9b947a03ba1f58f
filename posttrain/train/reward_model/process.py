"""Process reward models: a score of each step of an answer, learnt from labels of steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from posttrain.batch.packing import Branch, Tree
from posttrain.batch.types import Batch, LossOutput
from posttrain.chat import ChatFormat, Ids
from posttrain.chat.template_date import dated
from posttrain.config import RewardModelConfig
from posttrain.data.fitting import DoesNotFit, Fitted, Limit, fit
from posttrain.data.formats import load_stepwise
from posttrain.losses.reward_model import stepwise_loss
from posttrain.models import LanguageModel
from posttrain.models.read import SCORES, read
from posttrain.models.token_logprobs import TokenOutputs
from posttrain.rows import StepwiseRow, split_steps
from posttrain.runs.log import RunLog
from posttrain.train.data_order import planned_steps, rows_drawn, step_rows
from posttrain.train.events import fitting, special_tokens
from posttrain.train.loop import Evaluation, Stage, load_trained, make_policy, run_stage
from posttrain.train.policy import LocalPolicy, training_flops
from posttrain.train.reward_model.validate import RIGHT, Scores, stepwise_validation
from posttrain.types import InputError

PAIRS_ONLY = ("members", "centre_coefficient", "length_balanced", "length_head", "best_of")
"""Options that mean nothing to a process model."""


@dataclass(frozen=True)
class Solution:
    """The tokens of a prompt and an answer in steps, which of them end a step, and a label for each that does."""

    token_ids: Ids
    ends: tuple[bool, ...]
    labels: tuple[float, ...]


def train_process_model(config: RewardModelConfig, settings: dict[str, Any], rows: Sequence[StepwiseRow]) -> None:
    """Train on answers in steps and write the run folder. Raises InputError for bad input, before anything is
    written."""
    for name in PAIRS_ONLY:
        if getattr(config, name) != type(config).model_fields[name].default:
            option = "--" + name.replace("_", "-")
            raise InputError(f"{option} is for pairs, and {config.data} holds answers in steps; leave it out")
    held_out_rows = load_stepwise(config.eval_data, config.columns, optional=True) if config.eval_data else []
    lm = load_trained(config)
    separator = config.step_separator or separator_of(rows)
    lm.add_reward_head(1, config.seed, step_separator=separator)
    fitted, fitted_held_out = (encode_solutions(lm, of, config.max_length, separator) for of in (rows, held_out_rows))
    solutions = fitted.checked(config.data, config.strict)
    held_out = fitted_held_out.checked(str(config.eval_data), config.strict)

    def flops(chosen: list[int]) -> float:
        trees = solution_trees([solutions[i] for i in chosen])
        return training_flops(lm, trees, config.micro_batch_tokens, head=False)

    steps = planned_steps(config, len(solutions), flops)
    policy = make_policy(lm, config, settings["learning_rate"], steps)
    with RunLog(config.out, dated(settings, lm.chat.writes_date), config.resume) as log:
        fitting(log, config.data, fitted, config.max_length)
        fitting(log, config.eval_data, fitted_held_out, config.max_length)
        special_tokens(log, lm.chat, config.data, rows)
        run_stage(log, config, ProcessModel(config, policy, solutions, held_out, steps))


def validate_process_model(config: RewardModelConfig, lm: LanguageModel, separator: str) -> dict[str, Any]:
    """The numbers of a model on the held-out answers."""
    rows = load_stepwise(str(config.eval_data), config.columns, optional=True)
    fitted = encode_solutions(lm, rows, config.max_length, separator)
    solutions = fitted.checked(str(config.eval_data), config.strict)
    scores = step_scores(lm, solutions, config.micro_batch_tokens)
    return stepwise_validation([np.array(solution.labels) for solution in solutions], scores)


def separator_of(rows: Sequence[StepwiseRow]) -> str:
    """What the rows can be divided by: a line break, or an empty line where steps hold line breaks."""
    return "\n\n" if any("\n" in step for row in rows for step in row.steps) else "\n"


def encode_solutions(
    lm: LanguageModel, rows: Sequence[StepwiseRow], max_length: int, separator: str
) -> Fitted[Solution]:
    """Rows as tokens; see `encode_solution`."""
    limit = Limit.of(max_length, lm.context)
    chat = lm.chat_within(limit.tokens)

    def ready(row: StepwiseRow) -> tuple[list[Solution], bool]:
        solution, cut = encode_solution(chat, row, limit, separator)
        return [solution], cut

    return fit(rows, ready)


def encode_solution(chat: ChatFormat, row: StepwiseRow, limit: Limit, separator: str) -> tuple[Solution, bool]:
    """A row as tokens, without the steps that end beyond the limit, and whether it lost some.

    Raises DoesNotFit where no step is left, and InputError naming a row whose steps the separator would not find again
    in the answer."""
    if split_steps(separator.join(row.steps), separator) != row.steps:
        raise InputError(
            f"{row.where}: a step holds the separator {separator!r}, and would be taken for several; give another by "
            "--step-separator, or write the steps without it"
        )
    encoded = chat.encode_steps(row.where, row.prompt, row.steps, separator, row.tools)
    stop = max((i + 1 for i, end in enumerate(encoded.mask[: limit.tokens]) if end), default=0)
    if not stop:
        length = chat.counted(encoded.mask.index(True) + 1)
        raise DoesNotFit(row.where, f"prompt and first step have {length} and {limit.text}", limit.advice)
    ends = encoded.mask[:stop]
    return Solution(encoded.token_ids[:stop], ends, row.labels[: sum(ends)]), sum(ends) < len(row.labels)


def solution_trees(solutions: Sequence[Solution]) -> list[Tree]:
    """A tree an answer, trained at the ends of its steps. A step weighs 1/(steps of all the answers)."""
    weight = 1 / max(1, sum(len(solution.labels) for solution in solutions))
    return [Tree((), (Branch(s.token_ids, s.ends, (weight,) * len(s.labels), {"label": s.labels}),)) for s in solutions]


def step_scores(lm: LanguageModel, solutions: Sequence[Solution], micro_batch_tokens: int) -> list[Scores]:
    """The scores of each answer's steps."""
    found = read(lm, solution_trees(solutions), micro_batch_tokens, SCORES)
    return [scores[:, 0].double().cpu().numpy() for scores in found]


class ProcessModel(Stage):
    """See `Stage`."""

    kind = "reward-model"

    def __init__(
        self,
        config: RewardModelConfig,
        policy: LocalPolicy,
        solutions: Sequence[Solution],
        held_out: Sequence[Solution],
        total_steps: int,
    ) -> None:
        self.config = config
        self.policy = policy
        self.solutions = solutions
        self.held_out = held_out
        self.total_steps: int | None = total_steps
        self.drawn = rows_drawn(config, len(solutions))

    def step(self, n: int) -> dict[str, Any]:
        config = self.config
        chosen = step_rows(len(self.solutions), config.seed, n, config.batch_size, self.drawn)
        trees = solution_trees([self.solutions[i] for i in chosen])
        metrics = self.policy.forward_backward(trees, batch_loss, SCORES)
        return {**metrics, **self.policy.step(), "tokens": sum(tree.size for tree in trees)}

    def evaluate(self) -> Evaluation | None:
        """Loss, a mean over the held-out steps, and accuracy with its interval."""
        if not self.held_out:
            return None
        scores = step_scores(self.policy.lm, self.held_out, self.policy.micro_batch_tokens)
        labels = [np.array(solution.labels) for solution in self.held_out]
        given, wanted = torch.from_numpy(np.concatenate(scores)), torch.from_numpy(np.concatenate(labels))
        loss = float(stepwise_loss(given, wanted, torch.full_like(given, 1 / len(given))))
        accuracy = stepwise_validation(labels, scores)["accuracy"]
        metrics = {"accuracy": accuracy["value"], "accuracy_low": accuracy["low"], "accuracy_high": accuracy["high"]}
        return Evaluation({"loss": loss, **metrics}, loss)


def batch_loss(batch: Batch, outputs: TokenOutputs) -> LossOutput:
    """What the steps of a micro-batch add to the loss of the training step, and to its metrics: `accuracy`, the mean
    `probability` that the model gives to a step, and the mean `label`."""
    scores, labels, weights = outputs.logprobs[:, 0], batch.token["label"], batch.weights
    loss = stepwise_loss(scores, labels, weights)
    said = scores.detach()
    numbers = {"accuracy": (said >= 0) == (labels >= RIGHT), "probability": torch.sigmoid(said), "label": labels}
    metrics = {name: float((weights * values).sum()) for name, values in numbers.items()}
    return LossOutput(loss, {"loss": float(loss.detach()), **metrics})
