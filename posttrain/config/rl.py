"""Training on rewards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator
from pydantic.functional_validators import ModelWrapValidatorHandler

from posttrain.config.algorithms import ALGORITHMS, Baseline, Normalisation, Scale, Surrogate
from posttrain.config.base import Group, Named, NonNegativeInt, PositiveFloat, PositiveInt, UnitFloat
from posttrain.config.sampling import MonitorOptions, RegradingOptions, SamplingOptions
from posttrain.config.training import TrainConfig

NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Discount = Annotated[float, Field(ge=0, le=1)]


class RlConfig(MonitorOptions, RegradingOptions, SamplingOptions, TrainConfig):
    """Online reinforcement learning: sample, score, reinforce.

    An algorithm is the values it gives to the options from `baseline` to `overlong_share`; the defaults shown for
    these are grpo's, and what is given replaces the algorithm's. Default learning rate: 1e-6 full weights
    (DeepSeekMath, arXiv:2402.03300), ten times that with LoRA."""

    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "posttrain rl --model runs/sft --data examples/data/math_tasks.jsonl --reward math --out runs/rl --dry-run",
        "posttrain rl --model runs/sft --data examples/data/math_tasks.jsonl --reward math --out runs/rl --max-steps 9",
    )

    REWARD: ClassVar[Group] = Group("Reward")
    reward: tuple[Named, ...] = ()
    """A reward, or several. Built in (`posttrain score --list`), or `file.py:function`, or
    `package.module:function`; with options, `clip(file.py:function, low=0)`, or made of others, `gate(format, math)`.
    `=0.5` weighs it, `=0:1,200:0.5` goes from weight 1 to 0.5 in 200 steps; `as NAME` renames it."""
    control: Literal["coin", "majority", "format"] | None = None
    """Train on this in place of `reward`, all else alike, to see what the reward itself is worth; `reward` is graded
    and logged all the same (`reward/true`). `coin`: 0 or 1 by chance (spurious rewards, arXiv:2506.10947). `majority`:
    1 where the final answer is the most frequent one of its group (TTRL, arXiv:2504.16084). `format`: 1 where exactly
    one answer is marked after the thinking."""
    ALGORITHM: ClassVar[Group] = Group("Algorithm")
    algorithm: Literal[
        "reinforce", "ppo", "rloo", "reinforce++", "reinforce++-baseline", "grpo", "dr-grpo", "dapo", "gspo", "cispo"
    ] = "grpo"
    """The algorithm: how scores become advantages, and the policy loss."""
    baseline: Baseline = "group"
    """What a score is compared with: nothing, the mean of its group, the mean of the others of its group, or what a
    critic expects (GAE)."""
    scale: Scale = "group"
    """What advantages are divided by: nothing, the standard deviation of the group's scores, or that of all tokens'
    advantages of the step, of which the mean is taken off too (whitening)."""
    normalisation: Normalisation = "sequence"
    """How tokens are weighed: the mean over responses of their token means; the mean over all tokens; the sum over
    tokens by responses times `max_new_tokens`; or that sum by responses alone."""
    surrogate: Surrogate = "clip"
    """The policy loss: PPO's clipped ratio by token, GSPO's by sequence, CISPO's weight, or plain log-probability."""
    clip: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Range ε of the probability ratio, which is clipped to [1−ε, 1+ε]. Default: PPO (arXiv:1707.06347)."""
    clip_high: PositiveFloat | None = None
    """Another ε for the upper side. Default: the same as the lower."""
    dual_clip: Annotated[float, Field(gt=1, allow_inf_nan=False)] | None = None
    """Bound c on the ratio where the advantage is negative (dual-clip PPO, arXiv:1912.09729). Default: none."""
    KL: ClassVar[Group] = Group("KL to the reference")
    beta: NonNegativeFloat = 0.0
    """Coefficient β of the KL to the reference (the start of this stage). Default 0: DAPO (arXiv:2503.14476)."""
    kl_in: Literal["loss", "reward"] = "loss"
    """Where the KL goes: into the loss, or off the reward."""
    kl_estimator: Literal["k1", "k2", "k3"] = "k3"
    """How the KL is estimated: k1 in the reward, k2 or k3 in the loss (Schulman, 2020)."""
    GROUPS: ClassVar[Group] = Group("Sampling")
    group_size: PositiveInt = 8
    """Completions sampled for each prompt (G)."""
    max_refills: NonNegativeInt = 0
    """Rounds in which groups of equal scores are replaced by groups of further prompts (DAPO's dynamic sampling)."""
    OVERLONG: ClassVar[Group] = Group("Reward")
    overlong_share: UnitFloat = 0.0
    """Last share of the longest response (`max_new_tokens`, with an environment in all turns) over which a penalty
    grows from 0 to −1 (DAPO's soft overlong punishment)."""
    CRITIC: ClassVar[Group] = Group("Returns and critic")
    gamma: Discount = 1.0
    """Discount γ of later tokens' rewards, without baseline or with a critic. Default: InstructGPT."""
    gae_lambda: Discount = 0.95
    """λ of generalised advantage estimation (arXiv:1506.02438). Default: PPO (arXiv:1707.06347, appendix A)."""
    critic: Literal["separate", "head"] = "separate"
    """What estimates values: a model of its own that begins as the start, or a head on the policy."""
    critic_learning_rate: PositiveFloat | None = None
    """Peak learning rate of a separate critic. Default: ten times the policy's (verl: 1e-5 beside 1e-6)."""
    value_coefficient: PositiveFloat = 0.1
    """Weight of the value loss where the critic is a head. Default: Ziegler et al. (arXiv:1909.08593)."""
    value_clip: PositiveFloat | None = 0.2
    """Range within which a value may move from what it was before the step. Default: Ziegler et al."""
    whiten_rewards: bool = False
    """Divide the tokens' rewards by their standard deviation over the step, before a critic's advantages."""
    UPDATES: ClassVar[Group] = Group("Updates per batch")
    updates_per_batch: PositiveInt = 1
    """Passes of the optimizer over one batch of rollouts (TRL's `num_iterations`, verl's `ppo_epochs`)."""
    minibatches: PositiveInt = 1
    """Optimizer steps in one pass over a batch of rollouts."""
    kl_stop: PositiveFloat | None = None
    """End the passes over a batch once the policy is so far (KL a token, nats, by k3) from where it was before them."""
    MORE_OF_KL: ClassVar[Group] = Group("KL to the reference")
    kl_target: PositiveFloat | None = None
    """Adapt β so that the KL of a rollout (k1 summed over its tokens, nats) comes near this (arXiv:1909.08593, section
    2.2)."""
    reference_every: Annotated[int, Field(ge=2)] | None = None
    """Steps after which the reference becomes the policy as it is."""
    ENTROPY: ClassVar[Group] = Group("Algorithm")
    entropy_bonus: NonNegativeFloat = 0.0
    """Coefficient of the entropy of the next-token distribution, added to the objective."""
    PTX: ClassVar[Group] = Group("Pre-training mix")
    ptx_data: str | None = None
    """Rows as in `posttrain sft`, trained on beside the RL loss in every optimizer step (InstructGPT's pre-training
    mix)."""
    ptx_coefficient: PositiveFloat = 1.0
    """Weight of the mean negative log-likelihood of the `ptx_data` rows."""
    ptx_batch_size: PositiveInt = 16
    """Rows of `ptx_data` in an optimizer step."""
    MISMATCH: ClassVar[Group] = Group("Importance weights")
    mismatch: Literal["auto", "off", "token-truncate", "token-mask", "sequence-truncate", "sequence-mask"] = "auto"
    """Importance weights for sampling by another engine or an older policy: π_trainer/π_sampler of a token, or the
    length-normalised one of a sequence, truncated at the limit or 0 outside [1/limit, limit]. `auto`: `token-truncate`
    unless the trainer's own engine sampled in float32."""
    mismatch_limit: Annotated[float, Field(gt=1, allow_inf_nan=False)] = 2.0
    """Limit of these weights. Default: Yao et al., "Your efficient RL framework secretly brings you off-policy RL
    training" (2025)."""
    SEVERAL_REWARDS: ClassVar[Group] = Group("Reward")
    aggregation: Literal["sum", "gdpo"] = "sum"
    """How several rewards become one advantage: `sum` normalises their weighted sum in each group; `gdpo` normalises
    each reward in each group, then sums, then scales over the step (arXiv:2601.05242)."""
    constraint: tuple[str, ...] = ()
    """A reward to keep at a level in the mean, `NAME>=LEVEL`: its excess is added with a multiplier λ ≥ 0 that grows
    while the level is missed (Lagrangian; Safe RLHF, arXiv:2310.12773). Give the reward weight 0 to only constrain."""
    constraint_rate: PositiveFloat = 0.1
    """How fast multipliers move: λ ← max(0, λ + rate·(level − mean))."""
    max_new_tokens: PositiveInt = 256
    """Longest answer in tokens; with an environment, longest turn."""
    ENVIRONMENT: ClassVar[Group] = Group("Environment")
    env: Named | None = None
    """An environment with tools or many turns: `file.py:Class`, `package.module:Class` or built in."""
    max_turns: PositiveInt = 8
    """Answers of the model in one episode of the environment."""
    env_timeout: PositiveFloat = 30.0
    """Seconds an environment may take for one answer before its process is killed."""
    env_workers: PositiveInt | None = None
    """Processes that environments run in. Default: one less than the usable cores, at least 1."""
    LOOKING: ClassVar[Group] = Group("Look and replay")
    replay: str | None = None
    """Train on the `rollouts.jsonl` of another run, step by step and by its scores, instead of sampling and scoring."""
    dry_run: bool = False
    """Show ten rollouts with their scores, advantages and trained tokens; train and write nothing."""
    FAILURES: ClassVar[Group] = Group("Reward")
    max_unscored_share: UnitFloat = 0.1
    """The run stops when surely more than this share of rollouts cannot be scored, on average over tasks. A run within
    the limit is stopped with a probability of at most 5%, however long it is, unless one cause fails many tasks of a
    step at once. 0 stops at the first failure, 1 never."""
    reward_timeout: PositiveFloat = 30.0
    """Seconds a reward may take for one batch of one worker before it is killed."""
    reward_workers: NonNegativeInt | None = None
    """Processes that rewards run in. Default: one less than the usable cores, at least 1. With 0 they run in the
    process of the command, as a debugger wants it: without limits of time and memory."""

    @classmethod
    def defaults(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        algorithm = ALGORITHMS.get(settings.get("algorithm", "grpo"))
        return super().defaults(settings) | (asdict(algorithm) if algorithm is not None else {})

    @model_validator(mode="wrap")
    @classmethod
    def _by_algorithm(cls, data: Any, handler: ModelWrapValidatorHandler[RlConfig]) -> RlConfig:
        """Fill in what the algorithm says, and refuse what has no meaning beside it."""
        if not isinstance(data, Mapping) or data.get("algorithm", "grpo") not in ALGORITHMS:
            return handler(data)  # the fields' own checks say what is wrong
        filled = asdict(ALGORITHMS[data.get("algorithm", "grpo")]) | dict(data)
        if "kl_in" in data and "kl_estimator" not in data:
            filled["kl_estimator"] = "k1" if data["kl_in"] == "reward" else "k3"
        config = handler(filled)
        if data.keys() >= cls.model_fields.keys():
            return config  # a run's own settings, all of them: they do not say what its user asked for
        for option, (used, when) in config.uses().items():
            if data.get(option, False) is not False and not used:  # a flag that is off says nothing
                raise ValueError(f"{option} has no effect here; it needs {when}")
        return config

    @model_validator(mode="after")
    def _divides(self) -> RlConfig:
        if self.batch_size % self.group_size:
            raise ValueError(
                f"batch_size counts rollouts and must be a multiple of group_size: {self.batch_size} is not one of "
                f"{self.group_size}"
            )
        prompts = self.batch_size // self.group_size
        if prompts % self.minibatches:
            raise ValueError(
                f"minibatches={self.minibatches} must divide the {prompts} prompts of a step (batch_size / group_size)"
            )
        if self.group_size < 2 and self.groups_matter:
            raise ValueError("group_size must be at least 2, not 1: a group of one has no baseline, scale or variance")
        return self

    @model_validator(mode="after")
    def _fits_together(self) -> RlConfig:
        if not self.reward and self.env is None and self.replay is None:
            raise ValueError("reward is required; only an environment with one of its own does without")
        if self.has_kl and self.kl_in == "loss" and self.kl_estimator == "k1":
            raise ValueError(
                "kl_estimator 'k1' has an expected gradient of 0 in the loss and would hold nothing back; use k2 or k3 "
                "there, or kl_in 'reward'"
            )
        if self.has_kl and self.kl_in == "reward" and self.kl_estimator != "k1":
            raise ValueError(f"kl_estimator {self.kl_estimator!r} belongs in the loss; in the reward it is k1")
        if self.scale == "group" and self.baseline == "critic":
            raise ValueError(
                "scale 'group' divides scores of a group, but a critic's advantages are by token; use batch"
            )
        if self.surrogate == "reinforce" and self.updates_per_step > 1:
            raise ValueError(
                "surrogate 'reinforce' is right for one optimizer step a batch only; use another one with more "
                "updates_per_batch or minibatches"
            )
        if self.aggregation == "gdpo" and (
            self.baseline != "group" or self.scale != "group" or self.constraint or self.overlong_share or self.replay
        ):
            raise ValueError(
                "aggregation 'gdpo' normalises each reward in its group; it needs baseline and scale 'group', and goes "
                "with neither constraint, overlong_share nor replay"
            )
        if self.aggregation == "gdpo" and self.has_kl and self.kl_in == "reward":
            raise ValueError("aggregation 'gdpo' normalises each reward and the KL is none of them; use kl_in 'loss'")
        if self.replay is not None and (self.max_refills or self.dry_run or self.env is not None):
            raise ValueError("replay samples nothing; it goes with neither max_refills, dry_run nor env")
        if self.replay is not None and (self.regrades or self.control is not None):
            raise ValueError("replay trains on the recorded scores; nothing is graded there, by a control neither")
        if self.replay is not None and self.epochs is not None:
            raise ValueError("replay goes through its recorded steps once; leave epochs out")
        if self.replay is not None and self.reward and self.eval_data is None:
            raise ValueError("replay trains on the recorded scores; reward is for eval_data there, so leave it out")
        if self.env is not None and self.effort_every is not None:
            raise ValueError("effort_every cuts the reasoning of one answer, and an episode of env has many")
        return self

    @model_validator(mode="after")
    def _controlled(self) -> RlConfig:
        if self.control == "majority" and self.group_size < 2:
            raise ValueError("control 'majority' needs a group_size of at least 2: one answer is its own majority")
        if self.control is not None and (self.constraint or self.aggregation == "gdpo"):
            raise ValueError("control is paid in place of all rewards; it goes with neither constraint nor gdpo")
        return self

    @property
    def groups_matter(self) -> bool:
        """Whether advantages compare the rollouts of a group."""
        return self.baseline in ("group", "leave-one-out") or self.scale == "group" or self.max_refills > 0

    @property
    def has_kl(self) -> bool:
        return self.beta > 0

    @property
    def keeps_reference(self) -> bool:
        return self.has_kl

    @property
    def trains_critic(self) -> bool:
        return self.baseline == "critic" and self.critic == "separate"

    @property
    def longest_response(self) -> int:
        """Tokens a rollout can sample in all its turns."""
        return self.max_new_tokens * (self.max_turns if self.env is not None else 1)

    @property
    def updates_per_step(self) -> int:
        """Optimizer steps on one batch of rollouts."""
        return self.updates_per_batch * self.minibatches

    def uses(self) -> dict[str, tuple[bool, str]]:
        """Of each option that is not for everyone: whether something uses it in this configuration, and what would."""
        critic = (self.baseline == "critic", "baseline critic (ppo)")
        kl = (self.has_kl, "beta above 0")
        ratio = (self.surrogate != "reinforce", "another surrogate than reinforce")
        of_critic = ("gae_lambda", "critic", "value_clip", "whiten_rewards")
        head = (critic[0] and self.critic == "head", "baseline critic and critic head")
        separate = (critic[0] and self.critic == "separate", "baseline critic and critic separate")
        return {
            "gamma": (self.baseline in ("none", "critic"), "baseline none or critic"),
            **dict.fromkeys(of_critic, critic),
            "value_coefficient": head,
            "critic_learning_rate": separate,
            **dict.fromkeys(("clip", "clip_high"), ratio),
            "dual_clip": (self.surrogate in ("clip", "sequence-clip"), "surrogate clip or sequence-clip"),
            **dict.fromkeys(("kl_in", "kl_estimator", "kl_target", "reference_every"), kl),
            "kl_stop": (self.updates_per_step > 1, "more than one of updates_per_batch x minibatches"),
            **dict.fromkeys(("ptx_coefficient", "ptx_batch_size"), (self.ptx_data is not None, "ptx_data")),
            "constraint_rate": (bool(self.constraint), "a constraint"),
            "mismatch_limit": (
                self.mismatch != "off" and (self.mismatch != "auto" or self.replay is not None or self.asks_bfloat16),
                "importance weights (mismatch)",
            ),
            **dict.fromkeys(("max_turns", "env_timeout", "env_workers"), (self.env is not None, "env")),
        }
