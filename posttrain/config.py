"""The configuration of every stage: one frozen class each. The attribute docstrings are the help text.

The command line, recipes and Python share these classes; nothing here imports torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[int, Field(ge=1)]
NonNegative = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Temperature = Annotated[float, Field(ge=1e-3, le=1e3)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Config(BaseModel):
    """Frozen; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True)


class TrainConfig(Config):
    """What every training stage takes."""

    model: str
    """Model to start from: a folder, a hub id, `smollm2-135m` or `tiny-random`."""
    data: str
    """Training data: a JSONL, JSON, CSV or Parquet file, a hub id, `reasoning-gym:NAME?size=…&seed=…`, `humaneval`."""
    out: Path
    """Run folder to write."""
    max_steps: Positive | None = None
    """Steps to train; data repeats, reshuffled, until then. Without it: one pass over the data."""
    max_flops: Rate | None = None
    """Stop once this many floating-point operations are spent (sampling and reference passes included)."""
    learning_rate: Rate | None = None
    """Peak learning rate; the default depends on the method and on LoRA (see above)."""
    warmup_steps: NonNegative = 0
    """Steps of linear warm-up: step i of n uses i/n of the rate."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """What the rate does after the warm-up; `linear` and `cosine` end at a tenth of it and need a number of steps."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """AdamW decay of matrices; biases and norms are never decayed. Default 0: Tülu 3 (arXiv:2411.15124), table 10."""
    max_grad_norm: Rate = 1.0
    """Gradients are clipped to this global norm. Default: Tülu 3 and TRL."""
    batch_size: Positive = 16
    """Rows (sft), pairs (dpo) or rollouts (rl) of one step, whatever the micro-batches."""
    micro_batch_tokens: Positive = 4096
    """Tokens that go through the model at once; changes memory and speed, never the gradient."""
    max_length: Positive = 1024
    """Longest row in tokens; longer ones are cut at the end, counted and reported."""
    lora_rank: NonNegative = 0
    """Rank of LoRA adapters on every linear layer; 0 trains the full weights."""
    lora_alpha: Positive = 32
    """LoRA scale: the update is alpha/rank · B·A. Default: "LoRA Without Regret" (Thinking Machines, 2025)."""
    seed: Seed = 0
    """Seed of data order, sampling and adapters."""
    raw: bool = False
    """Take string prompts as raw text even where the tokenizer has a chat template."""
    save_every: Positive = 20
    """Steps between checkpoints."""
    keep: Positive = 1
    """Checkpoints to keep."""
    eval_data: str | None = None
    """Held-out data for an evaluation during training."""
    eval_every: Positive | None = None
    """Steps between evaluations on `eval_data`."""
    patience: Positive | None = None
    """Stop after this many evaluations without a better held-out loss, and keep the best weights."""
    resume: bool = False
    """Continue the run in `out`: from its last checkpoint, or from the beginning where there is none."""

    @model_validator(mode="after")
    def _needs_each_other(self) -> TrainConfig:
        if self.schedule != "constant" and self.max_steps is None:
            raise ValueError(f"schedule {self.schedule!r} needs max_steps")
        if (self.eval_every is not None or self.patience is not None) and self.eval_data is None:
            raise ValueError("eval_every and patience need eval_data")
        if self.eval_data is not None and self.eval_every is None:
            raise ValueError("eval_data needs eval_every, the steps between evaluations")
        if self.patience is not None and self.eval_every is None:
            raise ValueError("patience counts evaluations and needs eval_every")
        return self


class SftConfig(TrainConfig):
    """Supervised fine-tuning: imitate example answers by the mean negative log-likelihood of their tokens.

    Default learning rate: 2e-5 full weights (Zephyr, arXiv:2310.16944), ten times that with LoRA ("LoRA Without
    Regret", Thinking Machines, 2025)."""


class DpoConfig(TrainConfig):
    """Direct preference optimisation: prefer a good answer over a bad one, without a reward model (arXiv:2305.18290).

    Default learning rate: 1e-6 full weights (SmolLM2, arXiv:2502.02737), ten times that with LoRA."""

    loss: Literal["sigmoid"] = "sigmoid"
    """The preference loss."""
    beta: Rate = 0.1
    """Temperature β of the implicit reward β·log(π/π_ref). Default: Rafailov et al., arXiv:2305.18290."""
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """Assumed share of flipped labels ε: the loss is −(1−ε)·log σ(m) − ε·log σ(−m)."""


class RlConfig(TrainConfig):
    """Online reinforcement learning: sample, score, reinforce.

    Default learning rate: 1e-6 full weights (DeepSeekMath, arXiv:2402.03300), ten times that with LoRA."""

    reward: Annotated[tuple[str, ...], Field(min_length=1)]
    """A reward; repeat for several. Built in (`posttrain score --list`), or `file.py:function`, or
    `package.module:function`; with options, `clip(file.py:function, low=0)`, or made of others, `gate(format, math)`.
    `=0.5` weighs it, `=0:1,200:0.5` goes from weight 1 to 0.5 in 200 steps; `as NAME` renames it."""
    algorithm: Literal["grpo"] = "grpo"
    """The algorithm: how scores become advantages, and the policy loss."""
    aggregation: Literal["sum", "gdpo"] = "sum"
    """How several rewards become one advantage: `sum` normalises their weighted sum in each group; `gdpo` normalises
    each reward in each group, then sums, then scales over the step (arXiv:2601.05242)."""
    group_size: Annotated[int, Field(ge=2)] = 8
    """Completions sampled for each prompt (G)."""
    max_new_tokens: Positive = 256
    """Longest completion in tokens."""
    temperature: Temperature = 1.0
    """Sampling temperature."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Nucleus: the smallest set of tokens with this mass is kept."""
    top_k: NonNegative = 0
    """Keep the k most likely tokens; 0 keeps all."""
    beta: Annotated[float, Field(ge=0)] = 0.0
    """Coefficient β of the KL to the reference (the start of this stage). Default 0: DAPO (arXiv:2503.14476)."""
    kl_in: Literal["loss", "reward"] = "loss"
    """Where the KL goes: the k3 estimate in the loss, or the k1 estimate subtracted from the reward."""
    epochs: Positive = 1
    """Passes over a batch of rollouts."""
    minibatches: Positive = 1
    """Optimizer steps in one pass over a batch of rollouts."""
    clip: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Range ε of the probability ratio, which is clipped to [1−ε, 1+ε]. Default: PPO (arXiv:1707.06347)."""
    engine_slots: Positive = 64
    """Completions decoded at once."""
    max_unscored_share: Share = 0.1
    """The run stops when surely (Wilson 95%) more than this share of the last 200 rollouts could not be scored."""
    reward_timeout: Rate = 30.0
    """Seconds a reward may take for one batch of one worker before it is killed."""

    @model_validator(mode="after")
    def _divides(self) -> RlConfig:
        if self.batch_size % self.group_size:
            raise ValueError(
                f"batch_size counts rollouts and must be a multiple of group_size: {self.batch_size} is not one of "
                f"{self.group_size}"
            )
        if (self.batch_size // self.group_size) % self.minibatches:
            raise ValueError(
                f"minibatches={self.minibatches} must divide the {self.batch_size // self.group_size} prompts of a "
                "step (batch_size / group_size)"
            )
        if self.aggregation == "gdpo" and self.beta > 0 and self.kl_in == "reward":
            raise ValueError("aggregation 'gdpo' normalises each reward and the KL is none of them; use kl_in 'loss'")
        return self


class EvalConfig(Config):
    """Accuracy of a model on tasks, with intervals."""

    model: str
    """Model to evaluate: a folder, a run folder, a hub id, `smollm2-135m` or `tiny-random`."""
    data: str
    """Tasks: rows with a `prompt` and the columns the reward reads, or a built-in set."""
    reward: Annotated[tuple[str, ...], Field(min_length=1)]
    """What scores an answer; as in `posttrain rl`."""
    out: Path | None = None
    """Folder for `evaluations/held_out.json` and `.jsonl`; the run folder itself will do."""
    samples: NonNegative = 4
    """Samples per task at `temperature` for the mean and pass@k (a sample passes where every reward of positive weight
    that applies gives at least 1); the greedy answer comes on top."""
    temperature: Temperature = 1.0
    """Sampling temperature of the samples."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Nucleus mass of the samples."""
    max_new_tokens: Positive = 256
    """Longest answer in tokens."""
    limit: Positive | None = None
    """Evaluate only the first tasks."""
    engine_slots: Positive = 64
    """Answers decoded at once."""
    reward_timeout: Rate = 30.0
    """Seconds a reward may take for one batch of one worker before it is killed."""
    seed: Seed = 0
    """Seed of the samples."""
    raw: bool = False
    """Take string prompts as raw text even where the tokenizer has a chat template."""


class ScoreConfig(Config):
    """Score given completions with a reward; needs no model."""

    reward: Annotated[tuple[str, ...], Field(min_length=1)]
    """What scores a completion; as in `posttrain rl`."""
    data: str
    """JSONL file with `prompt`, `completion` and the columns the reward reads; `-` reads standard input."""
    reward_timeout: Rate = 30.0
    """Seconds a reward may take for one batch of one worker before it is killed."""


class RunConfig(Config):
    """A whole pipeline: the stages of a recipe, evaluated and compared in one report.

    Stages that are already finished in the folder are not run again."""

    recipe: str
    """A shipped recipe (`quickstart`) or a YAML file."""
    out: Path | None = None
    """Folder for the stages and the report. Default: `runs/RECIPE`."""
    set: tuple[str, ...] = ()
    """Change a setting of the recipe, `stage.key=value` (also `evaluate.key=value`, `model=…`, `seed=…`)."""


class CompareConfig(Config):
    """Compare finished runs side by side, with intervals; writes `report.html` and `compare.json`."""

    runs: Annotated[tuple[Path, ...], Field(min_length=1)]
    """Run folders to compare."""
    out: Path
    """Folder for the two files."""


class CheckDataConfig(Config):
    """Check a data file and name every fault by file and line; exits with 1 where there is one."""

    file: str
    """Data to check: a JSONL, JSON, CSV or Parquet file, a hub id or a built-in set."""
    against: tuple[str, ...] = ()
    """Other data, such as the training set, whose prompts are looked for in this one."""


class ReportConfig(Config):
    """Write the HTML report of a run folder or of a pipeline's folder."""

    run: Path
    """The folder."""


class ChatConfig(Config):
    """Talk to a model in the terminal, one line a turn. `/reset` forgets the conversation, `/exit` ends it."""

    model: str
    """Model to talk to: a folder, a run folder, a hub id, `smollm2-135m` or `tiny-random`."""
    system: str | None = None
    """System message put before the conversation."""
    max_new_tokens: Positive = 256
    """Longest answer in tokens."""
    temperature: Annotated[float, Field(ge=0)] = 0.7
    """Sampling temperature; 0 always takes the most likely token."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Nucleus: the smallest set of tokens with this mass is kept."""
    seed: Seed = 0
    """Seed of the sampling."""


class PairsConfig(Config):
    """Preference pairs from a model's own samples, labelled by a reward."""

    model: str
    """Model to sample from; as in training."""
    data: str
    """Tasks; as in `posttrain rl`."""
    out: Path
    """Folder for `pairs.jsonl`."""
    reward: Annotated[tuple[str, ...], Field(min_length=1)]
    """What labels an answer; as in `posttrain rl`."""
    samples: Annotated[int, Field(ge=2)] = 8
    """Answers sampled to each task."""
    limit: Positive | None = None
    """Use only the first tasks."""
    max_new_tokens: Positive = 256
    """Longest answer in tokens."""
    temperature: Temperature = 1.0
    """Sampling temperature."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Nucleus mass."""
    top_k: NonNegative = 0
    """Keep the k most likely tokens; 0 keeps all."""
    engine_slots: Positive = 64
    """Answers decoded at once."""
    max_unscored_share: Share = 0.1
    """As in `posttrain rl`."""
    reward_timeout: Rate = 30.0
    """Seconds a reward may take for one batch of one worker before it is killed."""
    seed: Seed = 0
    """Seed of the samples and of ties."""
    raw: bool = False
    """Take string prompts as raw text even where the tokenizer has a chat template."""
    resume: bool = False
    """Continue an unfinished run."""


class HeldOut(Config):
    """How a pipeline evaluates every model."""

    data: str
    """Held-out tasks; those whose prompt occurs in any training data of the recipe are removed and counted."""
    reward: Annotated[tuple[str, ...], Field(min_length=1)]
    """What scores an answer."""
    samples: NonNegative = 4
    """Samples per task; the greedy answer comes on top."""
    temperature: Temperature = 1.0
    """Sampling temperature of the samples."""
    max_new_tokens: Positive = 256
    """Longest answer in tokens."""
    retention: bool = True
    """Whether to run the retention suite too."""
    seed: Seed = 0
    """Seed of the samples."""


class Recipe(Config):
    """A pipeline: an order of stages and their numbers, no algorithm."""

    description: str = ""
    """What it is, in a line or two."""
    model: str
    """The start: the model the first stages begin from."""
    seed: Seed = 0
    """Seed of every stage that does not set its own."""
    evaluate: HeldOut
    """The evaluation of the start and of every stage's model."""
    stages: dict[str, dict[str, Any]]
    """Stages in order. Each names its `method` (sft, dpo, rl, pairs), its `parent` (`start` or an earlier stage), its
    `data` (as on the command line, or an earlier `pairs` stage), perhaps `flops_of` (an earlier stage: spend as many
    operations as that one did, those of its own data stage included), and options of the method."""
