"""Training on preferences: what each loss takes, and the configuration of the stage."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from posttrain.config.base import (
    Group,
    Named,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Temperature,
    UnitFloat,
    as_tuple,
)
from posttrain.config.sampling import MonitorOptions, RegradingOptions, SamplingOptions
from posttrain.config.training import TrainConfig


@dataclass(frozen=True)
class LossSpec:
    """What a preference loss takes.

    `numbers`: its own parameters with their defaults. `takes`: the options that change what it reads. `reads`: `pairs`,
    `labels` (single responses, good or bad) or `chosen` (the good responses alone). `mean`: it reads a response's
    log-probability per token rather than summed. `reference`: it needs the reference."""

    numbers: Mapping[str, float]
    takes: frozenset[str] = frozenset()
    reads: Literal["pairs", "labels", "chosen"] = "pairs"
    mean: bool = False
    reference: bool = True
    learning_rate: float = 1e-6


MARGIN = frozenset({"length", "ld_alpha", "reference_free", "reference_every", "reference_mix"})
"""Options of losses that read a difference of two log-ratios."""
ANCHORED = frozenset({"ld_alpha", "reference_every", "reference_mix"})
"""Options of losses that place each response against the reference."""
LOSSES: Mapping[str, LossSpec] = {
    "sigmoid": LossSpec({"beta": 0.1, "label_smoothing": 0.0}, MARGIN),
    "cdpo": LossSpec({"beta": 0.1, "label_smoothing": 0.1}, MARGIN),
    "robust": LossSpec({"beta": 0.1, "label_smoothing": 0.1}, MARGIN),
    "ipo": LossSpec({"beta": 0.1}, MARGIN, mean=True),
    "hinge": LossSpec({"beta": 0.1}, MARGIN - {"length"}),
    "simpo": LossSpec({"beta": 2.0, "gamma": 1.0}, mean=True, reference=False),
    "orpo": LossSpec({"beta": 0.1}, mean=True, reference=False, learning_rate=8e-6),
    "kto": LossSpec(
        {"beta": 0.1, "desirable_weight": 1.0, "undesirable_weight": 1.0}, ANCHORED - {"ld_alpha"}, reads="labels"
    ),
    "apo_zero": LossSpec({"beta": 0.1}, ANCHORED),
    "apo_down": LossSpec({"beta": 0.1}, ANCHORED),
    "sft": LossSpec({}, reads="chosen", mean=True, reference=False),
}
MEAN_BETA = 5.0
"""β of length-normalised DPO: a mean over tokens is smaller than a sum (Tülu 3, arXiv:2411.15124)."""
CHOICES = ("label_smoothing", "gamma", "desirable_weight", "undesirable_weight", *sorted(MARGIN))


@dataclass(frozen=True)
class Term:
    """One loss of a weighted sum, resolved: its `numbers`, and what it reads of a response (see `LossSpec`)."""

    loss: str
    weight: float
    numbers: Mapping[str, float]
    mean: bool
    reference: bool

    @property
    def spec(self) -> LossSpec:
        return LOSSES[self.loss]


class DpoConfig(TrainConfig):
    """Direct preference optimisation and its family: prefer good answers over bad ones, without a reward model
    (arXiv:2305.18290).

    Default learning rate: 1e-6 full weights (SmolLM2, arXiv:2502.02737), 8e-6 for `orpo`, which replaces SFT
    (arXiv:2403.07691); ten times that with LoRA."""

    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "posttrain dpo --model smollm2-135m --data examples/data/style_train.jsonl --out runs/dpo",
        "posttrain dpo --model smollm2-135m --data examples/data/style_train.jsonl --out runs/orpo --loss orpo",
    )

    LOSS: ClassVar[Group] = Group("Loss")
    loss: Annotated[tuple[str, ...], BeforeValidator(as_tuple), Field(min_length=1)] = ("sigmoid",)
    """A loss, or several for a weighted sum, as `sigmoid` and `sft=0.2`. On pairs: `sigmoid` (DPO), `cdpo` and
    `robust` (labels with noise), `ipo`, `hinge`, `simpo` and `orpo` (without a reference), `apo_zero`, `apo_down`. On
    rows with a `label`: `kto`, which splits pairs in two. Beside another: `sft` on the good answers."""
    beta: PositiveFloat | None = None
    """Temperature β of the implicit reward β·log(π/π_ref); τ of `ipo`, the weight λ of `orpo`. Default 0.1 (Rafailov et
    al., arXiv:2305.18290; KTO; ORPO), 2 for `simpo` (arXiv:2405.14734), 5 with `length` mean (Tülu 3)."""
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] | None = None
    """Assumed share ε of flipped labels. Default 0.1 for `cdpo` (Mitchell, 2023) and `robust` (arXiv:2403.00409), 0 for
    `sigmoid`."""
    gamma: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """Margin γ that `simpo` asks of the rewards. Default 1, half of β (arXiv:2405.14734, section 4)."""
    desirable_weight: PositiveFloat | None = None
    """Weight of good responses in `kto`. Default 1 (arXiv:2402.01306); raise that of the rarer kind."""
    undesirable_weight: PositiveFloat | None = None
    """Weight of bad responses in `kto`. Default 1."""
    length: Literal["sum", "mean"] | None = None
    """How tokens make a response's log-ratio: their `sum`, or their `mean`, so that long responses count no more than
    short ones. Default `mean` for `ipo`, else `sum`."""
    ld_alpha: Annotated[float, Field(ge=0, le=1)] | None = None
    """Weight α of the tokens of the longer response beyond the length of the shorter (LD-DPO, arXiv:2409.06411)."""
    REFERENCE: ClassVar[Group] = Group("Reference")
    reference_free: bool = False
    """Compare log-probabilities rather than ratios to the reference, which is then not computed."""
    reference_every: PositiveInt | None = None
    """Move the reference towards the policy every so many steps (TR-DPO, arXiv:2404.09656)."""
    reference_mix: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share α of the policy's weights in the moved reference: α·policy + (1−α)·reference. Default 1: it becomes the
    policy."""
    MORE_OF_LOSS: ClassVar[Group] = Group("Loss")
    mask_formatting: bool = False
    """Leave the end token of every response out of the loss, as Llama 3 did (arXiv:2407.21783, section 4.1.4)."""

    @model_validator(mode="after")
    def _fits_its_losses(self) -> DpoConfig:
        terms = self.terms()
        names = [term.loss for term in terms]
        if names == ["sft"]:
            raise ValueError("loss 'sft' stands beside another, as in sigmoid and sft=0.2; alone it is posttrain sft")
        if len(set(names)) < len(names):
            raise ValueError(f"loss names one loss twice: {', '.join(names)}")
        reads = {term.spec.reads for term in terms}
        if {"pairs", "labels"} <= reads:
            raise ValueError("loss 'kto' reads single responses and cannot be added to a loss that reads pairs")
        if "labels" in reads and self.batch_size < 2:
            raise ValueError("loss 'kto' compares prompts with the responses of others; use batch_size 2 or more")
        for option in CHOICES:
            if getattr(self, option) not in (None, False):
                self._used(option, terms)
        if self.ld_alpha is not None and any(t.mean and "ld_alpha" in t.spec.takes for t in terms):
            raise ValueError("ld_alpha weighs a sum over tokens; use it with length sum")
        if self.reference_mix is not None and self.reference_every is None:
            raise ValueError("reference_mix needs reference_every, the steps between updates of the reference")
        if self.reference_mix not in (None, 1.0) and self.lora_rank:
            raise ValueError("reference_mix below 1 mixes full weights; with lora_rank leave it at 1")
        if self.reference_every is not None and self.reference_free:
            raise ValueError("reference_every moves a reference, and reference_free has none; choose one")
        return self

    def _used(self, option: str, terms: tuple[Term, ...]) -> None:
        if any(option in term.spec.numbers or option in term.spec.takes for term in terms):
            return
        users = [name for name, spec in LOSSES.items() if option in spec.numbers or option in spec.takes]
        names = " + ".join(f"'{term.loss}'" for term in terms)
        raise ValueError(f"{option} does nothing for loss {names}; it belongs to {', '.join(users)}")

    def terms(self) -> tuple[Term, ...]:
        """The losses with their weights and parameters: what was given, else each loss' own defaults. Raises ValueError
        for a loss that is unknown or has no positive weight."""
        return tuple(self._term(text) for text in self.loss)

    def _term(self, text: str) -> Term:
        name, equals, number = text.partition("=")
        spec = LOSSES.get(name)
        if spec is None:
            raise ValueError(f"loss {name!r} is unknown; use one of {', '.join(LOSSES)}")
        mean = self.length == "mean" if self.length and "length" in spec.takes else spec.mean
        numbers: dict[str, Any] = dict(spec.numbers)
        if mean and not spec.mean:
            numbers["beta"] = MEAN_BETA
        numbers |= {key: given for key in spec.numbers if (given := getattr(self, key)) is not None}
        reference = spec.reference and not (self.reference_free and "reference_free" in spec.takes)
        return Term(name, _weight(text, number) if equals else 1.0, numbers, mean, reference)


ONLINE = ("sigmoid", "cdpo", "robust", "ipo", "hinge", "simpo", "apo_zero", "sft")
"""Losses for pairs of the policy's own samples. Not `kto`, which reads no pairs, nor `orpo`, which stands for SFT on
others' answers, nor `apo_down`, which would lower everything the policy says."""


class OnlineDpoConfig(MonitorOptions, RegradingOptions, SamplingOptions, DpoConfig):
    """Online DPO: sample answers from the policy, let a reward or a judge say which is the best and which the worst to
    each prompt, and train on these pairs by a loss of the DPO family (arXiv:2402.04792).

    The other options are those of `posttrain dpo` and `posttrain rl`; `max_length` is not used, and `batch_size` counts
    rollouts. Default learning rate: as in `posttrain dpo`."""

    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "posttrain online-dpo --model runs/sft --data examples/data/math_tasks.jsonl --reward math --out runs/online",
    )

    REWARD: ClassVar[Group] = Group("Reward")
    reward: Annotated[tuple[Named, ...], Field(min_length=1)]
    """What ranks the answers, as in `posttrain rl`: a reward, a reward model or a judge; `judge_pair` compares those to
    one prompt with each other. Several are a weighted sum."""
    SAMPLING: ClassVar[Group] = Group("Sampling")
    group_size: Annotated[int, Field(ge=2)] = 2
    """Answers sampled to each prompt, of which the best and the worst are the pair. Default: arXiv:2402.04792."""
    max_refills: NonNegativeInt = 0
    """Rounds in which groups of equal scores are replaced by groups of further prompts."""
    temperature: Temperature = 1.0
    """Sampling temperature. It and the next two decide what is sampled; losses read the policy at temperature 1."""
    FAILURES: ClassVar[Group] = Group("Reward")
    max_unscored_share: UnitFloat = 0.1
    """As in `posttrain rl`."""
    reward_timeout: PositiveFloat = 30.0
    """As in `posttrain rl`."""
    reward_workers: NonNegativeInt | None = None
    """As in `posttrain rl`: processes that rewards run in."""

    @model_validator(mode="after")
    def _samples_its_pairs(self) -> OnlineDpoConfig:
        for term in self.terms():
            if term.loss not in ONLINE:
                raise ValueError(f"loss {term.loss!r} is not for pairs of own samples; use one of {', '.join(ONLINE)}")
        if self.batch_size % self.group_size:
            raise ValueError(
                f"batch_size counts rollouts and must be a multiple of group_size: {self.batch_size} is not one of "
                f"{self.group_size}"
            )
        if self.mask_formatting:
            raise ValueError("mask_formatting would leave open where an answer ends, and here that is what is learnt")
        return self

    @property
    def keeps_reference(self) -> bool:
        return any(term.reference for term in self.terms())

    @property
    def draws_the_policy(self) -> bool:
        """Whether tokens are drawn from the distribution that losses read."""
        return self.temperature == 1 and not self.top_k and self.top_p == 1


def _weight(text: str, number: str) -> float:
    try:
        weight = float(number)
    except ValueError:
        weight = math.nan
    if not 0 < weight < math.inf:
        raise ValueError(f"loss {text!r}: write it as NAME or NAME=WEIGHT with a weight above 0")
    return weight
