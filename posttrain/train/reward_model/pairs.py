"""Reward models: a score of whole responses, learnt from preferences."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from posttrain.alerts import Observer
from posttrain.batch.packing import Tree, pack
from posttrain.batch.types import Batch, LossOutput, Metrics, number, read_numbers
from posttrain.chat.template_date import on_one_date
from posttrain.config import RewardModelConfig
from posttrain.config.compute import on_its_device
from posttrain.console import print_numbers, warn
from posttrain.data.fitting import Fitted
from posttrain.data.formats import load_judged, load_preferences
from posttrain.data.shapes import Names
from posttrain.losses.preference import agreement
from posttrain.losses.reward_model import correlation, head_overlap, odin_loss, pair_loss
from posttrain.models import LanguageModel, load_reward_model, model_writes_date
from posttrain.models.heads import RewardHead
from posttrain.models.read import SCORES, read
from posttrain.models.token_logprobs import RewardOutputs
from posttrain.rows import PreferenceRow
from posttrain.runs.files import write_atomic
from posttrain.runs.log import RunLog
from posttrain.stats import wilson
from posttrain.train.dataset_stage import DatasetMethod, DatasetStage, prepare_dataset
from posttrain.train.loop import Prepared, train
from posttrain.train.reward_model.data import SHOWN, Pair, encode_pairs, pair_trees, untrained, weighted
from posttrain.train.reward_model.process import process_method, validate_process_model
from posttrain.train.reward_model.samples import fit_policy, held_out_prompts, member_scores, sampled
from posttrain.train.reward_model.validate import best_of_n, validation
from posttrain.train.settings import tokens_at_once
from posttrain.types import InputError, RunFailed

LEARNING_RATE = 1e-5
VALIDATION = "reward_model.json"


@on_its_device
@on_one_date
def train_reward_model(config: RewardModelConfig, observers: Sequence[Observer] = ()) -> None:
    """Train a reward model on pairs, or a process model on answers in steps, and write the run folder `config.out`;
    with held-out data `evaluations/reward_model.json` too. Raises InputError for bad input, before anything is
    written."""
    train(config, partial(prepare_reward_model, config), LEARNING_RATE, observers)
    file = config.out / "evaluations" / VALIDATION
    if config.eval_data is not None and not file.exists():
        lm = load_reward_model(str(config.out))
        separator = lm.reward_head.step_separator
        found = _validate(config, lm) if separator is None else validate_process_model(config, lm, separator)
        file.parent.mkdir(exist_ok=True)
        write_atomic(file, json.dumps(found, indent=1) + "\n")
        print_numbers(found, lists=False)


def _validate(config: RewardModelConfig, lm: LanguageModel) -> dict[str, Any]:
    source = str(config.eval_data)
    rows = load_preferences(source, config.columns, optional=True)
    pairs = encode_pairs(lm, rows, config.max_length, config.members).checked(source, config.strict)
    scores = torch.cat(read(lm, pair_trees(pairs), tokens_at_once(config, lm), SCORES)).mean(1).reshape(-1, 2)
    found = validation(pairs, scores.double().numpy())
    found["best_of_n"] = _best_of_n(config, lm) if config.best_of else None
    return found


def _best_of_n(config: RewardModelConfig, lm: LanguageModel) -> dict[str, Any]:
    """The curve over prompts whose answers all fit the model. Raises RunFailed without such a prompt."""
    source = str(config.eval_data)
    tasks = fit_policy(config, held_out_prompts(config), source).checked(source, config.strict)
    answers = sampled(config, tasks, config.best_of, config.seed)
    scores = np.stack([member_scores(lm, of) for of in answers])
    whole = ~np.isnan(scores).any((1, 2))
    if not whole.any():
        raise RunFailed("best_of: no prompt has answers that all fit the reward model's context")
    if not whole.all():
        warn(f"best_of: {(~whole).sum()} of {len(tasks)} prompts have answers that do not fit and are left out")
    lengths = np.array([[len(answer.completion_ids) for answer in of] for of in answers], dtype=np.float64)
    return best_of_n(scores[whole], lengths[whole])


def prepare_reward_model(config: RewardModelConfig, stack: ExitStack) -> Prepared:
    rows, solutions = load_judged(config.data, config.columns)
    if solutions:
        return prepare_dataset(config, process_method(config, solutions), stack)
    prepared = prepare_dataset(config, pairs_method(config, rows), stack)
    if not config.best_of:
        return prepared
    source = str(config.eval_data)
    fitted = fit_policy(config, held_out_prompts(config), source)
    fitted.checked(source, config.strict)
    policy_date = bool(config.policy) and model_writes_date(str(config.policy))
    return replace(prepared, fitted=[*prepared.fitted, (source, fitted, None)], writes_date=(policy_date,))


def pairs_method(config: RewardModelConfig, rows: Sequence[PreferenceRow]) -> DatasetMethod[PreferenceRow, Pair]:
    """Training on pairs. Raises InputError for an option that means nothing there."""
    if config.step_separator is not None:
        raise InputError(f"--step-separator is for data in steps, and {config.data} holds pairs; leave it out")

    def load(source: str, columns: Names | None = None, optional: bool = False) -> list[PreferenceRow]:
        if not optional:
            return list(rows)
        return load_preferences(source, columns, "posttrain reward-model with data in pairs", optional=True)

    def encode(lm: LanguageModel, rows: Sequence[PreferenceRow], held_out: bool) -> Fitted[Pair]:
        fitted = encode_pairs(lm, rows, config.max_length, config.members)
        return fitted if held_out or not fitted.kept else replace(fitted, kept=weighted(fitted.kept, config))

    return DatasetMethod(
        kind="reward-model",
        shown=SHOWN,
        load=load,
        model=lambda _: untrained(config, 2 if config.length_head else config.members, config.members),
        encode=encode,
        trees=pair_trees,
        what=SCORES,
        stage=RewardModel,
    )


class RewardModel(DatasetStage[Pair]):
    def prepare(self, log: RunLog) -> None:
        if self.config.length_balanced and not log.resuming:
            used = sum(1 for pair in self.examples if any(pair.weights))
            log.event("length_balanced", pairs=len(self.examples), of_weight_above_zero=used)

    def gradient(self, examples: Sequence[Pair]) -> tuple[dict[str, Any], int]:
        trees = pair_trees(examples)
        if self.config.length_head:
            metrics = self._by_length_head(examples, trees)
        else:
            loss = partial(batch_loss, pairs=len(trees), centre_coefficient=self.config.centre_coefficient)
            metrics = self.policy.forward_backward(trees, loss, SCORES)
        return metrics, sum(tree.size for tree in trees)

    def evaluate(self) -> dict[str, Any] | None:
        if not self.held_out:
            return None
        trees, n = pair_trees(self.held_out), len(self.held_out)
        outputs = RewardOutputs(self._scores(trees)[..., : self.config.members].flatten(0, 1))
        loss = batch_loss(pack(trees), outputs, pairs=n, centre_coefficient=self.config.centre_coefficient)
        metrics = read_numbers(loss.metrics)
        low, high = wilson(round(metrics["accuracy"] * n), n)
        return {**metrics, "accuracy_low": low, "accuracy_high": high}

    def _by_length_head(self, pairs: Sequence[Pair], trees: Sequence[Tree]) -> Metrics:
        """ODIN's gradient, with correlations over the step: its slope in each score, then the scores' own gradients."""
        scores = self._scores(trees).requires_grad_()
        lengths = torch.tensor([pair.lengths for pair in pairs], dtype=scores.dtype)
        margins, _, probabilities = labels(pack(trees))
        loss = odin_loss(scores, margins, lengths, probabilities)
        (slopes,) = torch.autograd.grad(loss, scores)
        overlap = head_overlap(self.policy.weights()[f"{RewardHead.NAME}.weight"])
        overlap.backward()
        sloped = [with_slopes(tree, of_pair) for tree, of_pair in zip(trees, slopes.tolist(), strict=True)]
        self.policy.forward_backward(sloped, linear_loss, SCORES)
        seen = scores.detach()
        return {
            "loss": loss.item() + number(overlap),  # the one is in main memory, the other on the device
            **read_numbers(step_metrics(seen[..., :1], probabilities, len(pairs))),
            "length_correlation": float(correlation(seen[..., 0], lengths)),
            "length_head_correlation": float(correlation(seen[..., 1], lengths)),
        }

    def _scores(self, trees: Sequence[Tree]) -> torch.Tensor:
        return torch.cat(self.policy.read(trees, SCORES)).reshape(len(trees), 2, -1)


def batch_loss(batch: Batch, outputs: RewardOutputs, *, pairs: int, centre_coefficient: float) -> LossOutput:
    """What the pairs of a micro-batch add to the loss of a step of so many `pairs`, and to its metrics."""
    scores = outputs.scores.reshape(batch.sequences // 2, 2, -1)
    margins, weights, probabilities = labels(batch)
    loss = pair_loss(scores, margins, weights, probabilities, pairs=pairs, centre_coefficient=centre_coefficient)
    return LossOutput(loss, {"loss": loss.detach(), **step_metrics(scores.detach(), probabilities, pairs)})


def with_slopes(tree: Tree, slopes: Sequence[Sequence[float]]) -> Tree:
    """The tree of a pair, whose responses carry the slope of the step's loss in each of their scores."""
    branches = (replace(b, row={"slopes": s}) for b, s in zip(tree.branches, slopes, strict=True))
    return replace(tree, branches=tuple(branches))


def linear_loss(batch: Batch, outputs: RewardOutputs) -> LossOutput:
    """Σ slope · score: what has the gradient of the loss that the slopes are of."""
    return LossOutput((batch.row["slopes"] * outputs.scores).sum())


def labels(batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Margins [P], weights [P, K] and probabilities [P] of a batch of pairs, both responses of which carry them."""
    return batch.row["margin"][::2], batch.row["member_weights"][::2], batch.row["probability"][::2]


def step_metrics(scores: torch.Tensor, probabilities: torch.Tensor, of: int) -> Metrics:
    """What the scores [P, 2, K] of pairs and the probabilities [P] of their labels add to the numbers of a step of `of`
    pairs, by the mean score over members: `accuracy` (see `agreement`), `margin` r_w − r_l, and each side's mean."""
    chosen, rejected = scores.mean(2).unbind(1)
    right = agreement(chosen - rejected, probabilities).sum()
    better, worse = number(chosen.sum()) / of, number(rejected.sum()) / of
    return {
        "accuracy": number(right) / of,
        "margin": better - worse,
        "chosen_score": better,
        "rejected_score": worse,
    }
