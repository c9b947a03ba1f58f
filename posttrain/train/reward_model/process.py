"""Process reward models: a score of each step of an answer, learnt from labels of steps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from posttrain.batch.packing import Branch, Tree, share_prefix
from posttrain.batch.types import Batch, LossOutput
from posttrain.chat import ChatFormat, Ids
from posttrain.config import RewardModelConfig
from posttrain.data.fitting import DoesNotFit, Fitted, Limit, fit
from posttrain.data.formats import load_stepwise
from posttrain.data.shapes import Names
from posttrain.losses.reward_model import stepwise_loss
from posttrain.models import LanguageModel
from posttrain.models.read import SCORES, read
from posttrain.models.token_logprobs import RewardOutputs
from posttrain.rows import StepwiseRow, split_steps
from posttrain.train.dataset_stage import DatasetMethod
from posttrain.train.policy import Policy
from posttrain.train.reward_model.data import SHOWN, untrained
from posttrain.train.reward_model.validate import RIGHT, Scores, stepwise_validation
from posttrain.train.settings import tokens_at_once
from posttrain.types import InputError

PAIRS_ONLY = ("members", "centre_coefficient", "length_balanced", "length_head", "best_of")
"""Options that mean nothing to a process model."""


@dataclass(frozen=True)
class Solution:
    """The tokens of a prompt and an answer in steps, which of them end a step, and a label for each that does."""

    token_ids: Ids
    ends: tuple[bool, ...]
    labels: tuple[float, ...]


def process_method(config: RewardModelConfig, rows: Sequence[StepwiseRow]) -> DatasetMethod[StepwiseRow, Solution]:
    """Training on answers in steps. Raises InputError for options that mean nothing there."""
    for name in PAIRS_ONLY:
        if getattr(config, name) != type(config).model_fields[name].default:
            option = "--" + name.replace("_", "-")
            raise InputError(f"{option} is for pairs, and {config.data} holds answers in steps; leave it out")

    def load(source: str, columns: Names | None = None, optional: bool = False) -> list[StepwiseRow]:
        return load_stepwise(source, columns, optional=True) if optional else list(rows)

    separator = config.step_separator or separator_of(rows)
    return DatasetMethod(
        kind="reward-model",
        shown=SHOWN,
        load=load,
        model=lambda _: untrained(config, 1, step_separator=separator),
        encode=lambda lm, rows, _: encode_solutions(lm, rows, config.max_length, separator),
        trees=solution_trees,
        loss=batch_loss,
        evaluate=evaluate_steps,
        what=SCORES,
    )


def validate_process_model(config: RewardModelConfig, lm: LanguageModel, separator: str) -> dict[str, Any]:
    """The numbers of a model on the held-out answers."""
    rows = load_stepwise(str(config.eval_data), config.columns, optional=True)
    fitted = encode_solutions(lm, rows, config.max_length, separator)
    solutions = fitted.checked(str(config.eval_data), config.strict)
    scores = _first(read(lm, solution_trees(solutions), tokens_at_once(config, lm), SCORES))
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
    """A row as tokens, without the steps that end beyond the limit, and whether it lost some. Raises DoesNotFit where
    none is left, and InputError naming a row whose steps the separator would not find again."""
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
    return [share_prefix([Branch.of(s.token_ids, s.ends, weight, {"label": s.labels})]) for s in solutions]


def _first(found: Iterable[torch.Tensor]) -> list[Scores]:
    """The scores of each answer's steps."""
    return [scores[:, 0].double().numpy() for scores in found]


def evaluate_steps(policy: Policy, solutions: Sequence[Solution]) -> dict[str, Any]:
    """Loss, a mean over the steps of the solutions, and accuracy with its interval."""
    scores = _first(policy.read(solution_trees(solutions), SCORES))
    labels = [np.array(solution.labels) for solution in solutions]
    given, wanted = torch.from_numpy(np.concatenate(scores)), torch.from_numpy(np.concatenate(labels))
    loss = float(stepwise_loss(given, wanted, torch.full_like(given, 1 / len(given))))
    accuracy = stepwise_validation(labels, scores)["accuracy"]
    return {
        "loss": loss,
        "accuracy": accuracy["value"],
        "accuracy_low": accuracy["low"],
        "accuracy_high": accuracy["high"],
    }


def batch_loss(batch: Batch, outputs: RewardOutputs) -> LossOutput:
    """What the steps of a micro-batch add to the loss of the training step, and to its metrics: `accuracy`, the mean
    `probability` that the model gives to a step, and the mean `label`."""
    scores, labels, weights = outputs.scores[:, 0], batch.token["label"], batch.weights
    loss = stepwise_loss(scores, labels, weights)
    said = scores.detach()
    numbers = {"accuracy": (said >= 0) == (labels >= RIGHT), "probability": torch.sigmoid(said), "label": labels}
    metrics = {name: (weights * values).sum() for name, values in numbers.items()}
    return LossOutput(loss, {"loss": loss.detach(), **metrics})
