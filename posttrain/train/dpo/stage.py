"""Direct preference optimisation and its family: one stage for every loss on pairs or labelled responses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from posttrain.alerts import Observer
from posttrain.batch.packing import Tree, pack
from posttrain.batch.types import Batch, LossOutput, Metrics, number
from posttrain.chat.template_date import on_one_date
from posttrain.config import DpoConfig
from posttrain.config.compute import on_its_device
from posttrain.config.preference import Term
from posttrain.console import warn
from posttrain.data.formats import load_feedback, load_preferences
from posttrain.data.shapes import Names
from posttrain.losses.policy import kl_k3, sequence_sums
from posttrain.losses.preference import Counts, Responses, dpo_weights, kto_baseline, step_loss, step_metrics
from posttrain.models.token_logprobs import TokenOutputs
from posttrain.rows import PreferenceRow, UnpairedRow
from posttrain.runs.log import RunLog
from posttrain.train.dataset_stage import DatasetMethod, DatasetStage, prepare_dataset
from posttrain.train.dpo.data import Example, counts_of, encode_examples, example_trees, shuffled_for_kl
from posttrain.train.dpo.reference import MovingReference, StoredReference, stored_reference
from posttrain.train.loop import train
from posttrain.types import InputError

SIDES = tuple(f"{side}_{what}" for side in ("chosen", "rejected") for what in ("reward", "logprob", "drift"))
DIAGNOSTICS = ("accuracy", "margin", *SIDES, "beta_kl", "dpo_weight", "dpo_weight_p95")
"""Metrics of every step; null where there is no reference, or no response of a kind."""


@on_its_device
@on_one_date
def train_dpo(config: DpoConfig, observers: Sequence[Observer] = ()) -> None:
    """Train `config.model` on preferences and write the run folder `config.out`. The reference is the start of the
    stage, unless told to follow the policy. Raises InputError for bad input, before anything is written."""
    terms = config.terms()
    single = any(term.spec.reads == "labels" for term in terms)

    def load(source: str, columns: Names | None = None, optional: bool = False) -> list[PreferenceRow | UnpairedRow]:
        rows = (load_feedback if single else load_preferences)(source, columns, optional=optional)
        check_labels(rows, terms)
        return list(rows)

    method = DatasetMethod(
        kind="dpo",
        shown=("loss", "margin", "accuracy", "chosen_drift"),
        load=load,
        encode=lambda lm, rows, held_out: encode_examples(
            lm,
            rows,
            config.max_length,
            single=single,
            mask_formatting=config.mask_formatting,
            prefix="held-out-" if held_out else "",
        ),
        trees=example_trees,  # the reference pass comes on top, so a budget may end the run earlier
        stage=Dpo,
    )
    rate = primary_term(terms).spec.learning_rate
    train(config, partial(prepare_dataset, config, method), rate, observers, described(terms))


def described(terms: Sequence[Term]) -> dict[str, Any]:
    return {"terms": [{**asdict(term), "numbers": dict(term.numbers)} for term in terms]}


def check_labels(rows: Sequence[PreferenceRow | UnpairedRow], terms: Sequence[Term]) -> None:
    """Raises InputError for a pair whose label may be wrong where a loss takes it as certain."""
    soft = next((row for row in rows if isinstance(row, PreferenceRow) and row.probability < 1), None)
    certain = next((term.loss for term in terms if term.spec.reads != "pairs"), None)
    if soft is not None and certain is not None:
        raise InputError(
            f"{soft.where}: the label has the probability {soft.probability:g}, and loss {certain!r} takes labels as "
            "certain; use losses on pairs alone, or leave out the column"
        )


def primary_term(terms: Sequence[Term]) -> Term:
    """The first loss of a sum that reads bad responses too: diagnostics use its rewards."""
    return next(term for term in terms if term.spec.reads != "chosen")


def preference_loss(
    batch: Batch, outputs: TokenOutputs, *, terms: Sequence[Term], counts: Counts, baseline: float
) -> LossOutput:
    """The losses over the responses of a micro-batch (see `step_loss`), with their diagnostics. `beta_kl` is β x the
    mean over responses of Σ_t k3(log π, log π_ref): β KL(π‖π_ref) if π had drawn them; on given ones a distance to
    watch."""
    logprobs, share, reference = outputs.logprobs, batch.token["share"], batch.token.get("ref_logprobs")
    sums = partial(sequence_sums, sequence=batch.sequence, sequences=batch.sequences)
    good, bad = batch.index["desirable"], batch.index["not desirable"]
    responses = Responses(
        logprobs=sums(logprobs),
        lengths=sums(torch.ones_like(logprobs)),
        good=good,
        bad=bad,
        policy=sums(share * logprobs),
        reference=None if reference is None else sums(share * reference),
        probability=batch.row["probability"].index_select(0, good),
    )
    loss = step_loss(responses, terms, counts, baseline)
    lead = primary_term(terms)
    metrics = {"loss": loss.detach(), **step_metrics(responses, lead, counts, baseline)}
    if reference is not None:
        total = number(kl_k3(logprobs.detach(), reference).sum())
        metrics["beta_kl"] = lead.numbers["beta"] * total / (counts.desirable + counts.undesirable)
    of_pairs = dpo_weights(responses, terms)
    return LossOutput(loss, metrics, {} if of_pairs is None else {"dpo_weight": of_pairs})


class StepLoss:
    """`preference_loss` over micro-batches; keeps DPO's weight of each pair for the step's mean and 95th percentile."""

    def __init__(self, terms: Sequence[Term], counts: Counts, baseline: float = 0.0) -> None:
        self._loss = partial(preference_loss, terms=terms, counts=counts, baseline=baseline)
        self._weights: list[torch.Tensor] = []

    def __call__(self, batch: Batch, outputs: TokenOutputs) -> LossOutput:
        result = self._loss(batch, outputs)
        self._weights += result.entries.values()
        return result

    def weights(self) -> Metrics:
        """`dpo_weight` and `dpo_weight_p95` over all pairs so far; nothing for losses without these weights."""
        if not self._weights:
            return {}
        weights = torch.cat(self._weights).float()
        return {"dpo_weight": weights.mean(), "dpo_weight_p95": weights.quantile(0.95)}


class Dpo(DatasetStage[Example]):
    reference: StoredReference | MovingReference | None = None
    _steps_done = 0
    _step_baseline = 0.0
    """The baseline of the last step."""

    def prepare(self, log: RunLog) -> None:
        """Make the reference, if a loss needs one."""
        self.terms = self.config.terms()
        self.single = any(term.spec.reads == "labels" for term in self.terms)
        _, fitted, _ = self.data.fitted[0]
        if len(self.examples) > fitted.fitting and not log.resuming:
            n = fitted.fitting
            log.event("pairs_split", pairs=n, responses=2 * n)
            warn(f"kto reads single responses: {n} pairs became {n} good and {n} bad ones, shuffled apart")
        if not any(term.reference for term in self.terms):
            return
        if self.config.reference_every is None:
            self.reference = stored_reference(log, self.policy, self._visited)
        else:
            self.reference = MovingReference(self.policy, self.config.reference_every, self.config.reference_mix or 1.0)

    def after_step(self, n: int) -> dict[str, Any]:
        if self.reference is not None:
            self.reference.follow(n)
        self._steps_done = n
        return {"baseline": self._step_baseline} if self.single else {}

    def gradient(self, examples: Sequence[Example]) -> tuple[dict[str, Any], int]:
        self._step_baseline = self._baseline(examples)
        trees, loss = self._problem(examples, self._step_baseline)
        metrics = dict.fromkeys(DIAGNOSTICS) | self.policy.forward_backward(trees, loss) | loss.weights()
        return metrics, sum(tree.size for tree in trees)

    def evaluate(self) -> dict[str, Any] | None:
        """The same loss and metrics on the held-out data, and how far the accuracy on as many examples that were
        trained last is above it: the sign of over-fitting."""
        if not self.held_out:
            return None
        baseline = self._baseline(self.held_out)
        metrics = self._judge(self.held_out, baseline)
        seen = self._judge(self._trained_last(len(self.held_out)), baseline)["accuracy"]
        metrics |= {"train_accuracy": seen, "accuracy_gap": seen - metrics["accuracy"]}
        return metrics

    def save(self, folder: Path) -> None:
        if self.reference is not None:
            self.reference.save(folder)

    def load(self, folder: Path) -> None:
        if self.reference is not None:
            self.reference.load(folder)

    def _problem(self, examples: Sequence[Example], baseline: float) -> tuple[list[Tree], StepLoss]:
        reference = None if self.reference is None else self.reference.logprobs(examples)
        loss = StepLoss(self.terms, counts_of(examples), baseline)
        return example_trees(examples, reference, self.config.ld_alpha), loss

    def _baseline(self, examples: Sequence[Example]) -> float:
        """KTO's, over all of these examples; 0 for other losses and where no two prompts differ."""
        others = shuffled_for_kl(examples, self.limit) if self.single else []
        if not others or self.reference is None:
            return 0.0
        policy = self.policy.logprobs(example_trees(others))
        reference = self.reference.logprobs(others)
        return kto_baseline(
            torch.tensor([sum(p.tolist()) - sum(r.tolist()) for p, r in zip(policy, reference, strict=True)])
        )

    def _judge(self, examples: Sequence[Example], baseline: float) -> Metrics:
        trees, loss = self._problem(examples, baseline)
        values = torch.from_numpy(np.concatenate(self.policy.logprobs(trees))).float()
        return {**loss(pack(trees), TokenOutputs(values)).metrics, **loss.weights()}

    def _trained_last(self, count: int) -> list[Example]:
        """At most `count` examples, those of the last steps, each once."""
        seen: dict[str, Example] = {}
        count = min(count, len(self.examples))
        for n in range(self._steps_done, 0, -1):
            seen |= {example.key: example for example in self.step_examples(n)}
            if len(seen) >= count:
                break
        return list(seen.values())[:count]

    def _visited(self) -> list[list[Example]]:
        """Every example of which the run will want the reference, once, in the groups in which they are wanted."""
        steps = [self.step_examples(n) for n in range(1, (self.total_steps or 0) + 1)]
        groups = [*steps, self.held_out]
        if self.single:
            groups += [shuffled_for_kl(group, self.limit) for group in groups]
        seen: set[str] = set()
        new: list[list[Example]] = []
        for group in groups:
            new.append(list({example.key: example for example in group if example.key not in seen}.values()))
            seen.update(example.key for example in group)
        return [group for group in new if group]
