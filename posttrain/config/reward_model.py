"""The reward model stages."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field, field_validator, model_validator

from posttrain.config.base import Group, Named, NonNegativeInt, PositiveInt, UnitFloat
from posttrain.config.training import TrainConfig


class RewardModelConfig(TrainConfig):
    """A reward model: a head on a language model that scores a whole response, trained so that chosen responses score
    above rejected ones (Bradley and Terry 1952; Stiennon et al. 2020, arXiv:2009.01325).

    A column `margin` says by how much, where the data has one (Llama 2, arXiv:2307.09288, section 3.2.2). Default
    learning rate: 1e-5 full weights (Llama 2, models below 70B), ten times that with LoRA (TRL's documentation:
    1e-3 beside 1e-4). One pass over the data is the rule: reward models over-fit in the second (arXiv:2203.02155, C.2).

    Data with columns `steps` and `labels` in place of pairs makes it a process model, which scores each step of a
    response (Lightman et al. 2023, arXiv:2305.20050)."""

    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "posttrain reward-model --model smollm2-135m --data examples/data/style_train.jsonl --out runs/rm",
    )

    REWARD_MODEL: ClassVar[Group] = Group("Reward model")
    members: PositiveInt = 1
    """Heads of an ensemble on one trunk, each from a seed of its own and on a bootstrap sample of the pairs. The score
    is their mean, unless the reward `learned` is told otherwise."""
    centre_coefficient: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Weight of (r_w + r_l)², which keeps scores around 0 (Eisenstein et al., arXiv:2312.09244; TRL's
    `center_rewards_coefficient`, for which 0.01 is usual)."""
    length_balanced: bool = False
    """Weigh pairs so that the difference in length does not predict the label: among pairs of similar difference, as
    much weight where the longer one was chosen as where the shorter one was."""
    length_head: bool = False
    """Train a second head that takes up what length explains, and is thrown away (ODIN, arXiv:2402.07319)."""
    step_separator: Annotated[str, Field(min_length=1)] | None = None
    r"""What ends a step of a response, for data in steps; `\n` is read as a line break. Default: a line break, or an
    empty line where steps of the data hold line breaks."""

    BEST_OF: ClassVar[Group] = Group("Best-of-n curve")
    best_of: NonNegativeInt = 0
    """Answers sampled to each held-out prompt for the best-of-n curve: members select, the others score. 0: none."""
    policy: str | None = None
    """Model that answers are sampled from. Default: `model`."""
    max_new_tokens: PositiveInt = 256
    """Longest sampled answer in tokens."""

    @field_validator("step_separator")
    @classmethod
    def _with_line_breaks(cls, separator: str | None) -> str | None:
        """As typed in a shell, where a line break is hard to write."""
        return None if separator is None else separator.replace(r"\n", "\n")

    @model_validator(mode="after")
    def _fits_together(self) -> RewardModelConfig:
        if self.best_of and (self.members < 2 or self.eval_data is None or self.best_of < 4):
            raise ValueError("best_of needs at least 4 answers, eval_data with prompts, and members that cross-score")
        if self.policy is not None and not self.samples_answers:
            raise ValueError("policy is sampled from for best_of; give that too")
        if self.length_head and self.members > 1:
            raise ValueError("length_head trains one scoring head; use it with members 1")
        if self.length_head and self.length_balanced:
            raise ValueError("length_head and length_balanced do the same by different means; choose one")
        if self.length_head and self.batch_size < 4:
            raise ValueError("length_head measures correlations over a step; use batch_size 4 or more")
        return self

    @property
    def samples_answers(self) -> bool:
        return self.best_of > 0


class AdversarialConfig(RewardModelConfig):
    """Adversarial reward models: train an ensemble, search for answers that one member scores high and the others
    dispute, add them as rejected, train anew, and so on (after Adv-RM, arXiv:2504.06141).

    What is disputed need not be bad: give `gold` to see whether the rounds helped. `max_steps` and `epochs` are for
    each training, `max_flops` for all of them in equal parts. Default learning rate: as in `posttrain reward-model`."""

    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "posttrain adversarial --model smollm2-135m --data examples/data/style_train.jsonl --out runs/adversarial",
    )

    members: PositiveInt = 4
    """Heads of the ensemble. Default: 4 to 5 (Coste et al., arXiv:2310.02743)."""
    SEARCH: ClassVar[Group] = Group("Search")
    rounds: PositiveInt = 2
    """Rounds of search and training after the first. Default: Adv-RM."""
    prompts: PositiveInt = 256
    """Rows of the data whose prompts are searched in a round."""
    samples: PositiveInt = 16
    """Answers sampled from `policy` to each of them, of which the most disputed one counts (policy search)."""
    edit_steps: NonNegativeInt = 8
    """Steps of hill climbing from each accepted answer (edit search). 0: none."""
    edit_tries: PositiveInt = 8
    """Random edits of a word or two that are tried in each step."""
    quantile: UnitFloat = 0.95
    """Share of the data's own answers that must be disputed less than an answer that is added."""
    gold: Named | None = None
    """A reward taken as the truth, as in `posttrain rl`: of each round's model the gold score of its best of `samples`
    answers to the prompts of `eval_data` is reported."""

    @model_validator(mode="after")
    def _has_something_to_dispute(self) -> AdversarialConfig:
        if self.members < 2:
            raise ValueError("members must be at least 2 here: of a single one nothing is disputed")
        if self.step_separator is not None:
            raise ValueError("step_separator is for process models, which posttrain reward-model trains")
        if self.gold is not None and (self.eval_data is None or self.samples < 2):
            raise ValueError("gold needs eval_data, whose prompts are answered, and at least 2 samples")
        return self

    @property
    def samples_answers(self) -> bool:
        return True
