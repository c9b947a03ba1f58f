"""What every training stage takes, supervised fine-tuning, and distillation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from posttrain.config.base import (
    Columns,
    Group,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Resume,
    SaveDtype,
    Seed,
    Temperature,
    UnitFloat,
)
from posttrain.config.compute import ComputeOptions
from posttrain.config.sampling import SamplingOptions

MICRO_BATCH_TOKENS, ON_CUDA = 4_096, 16_384
"""What `micro_batch_tokens: auto` is. A GPU needs so many to be busy."""


class TrainConfig(ComputeOptions):
    """What every training stage takes."""

    MODEL_AND_DATA: ClassVar[Group] = Group("Model and data")
    model: str
    """Model to start from: a folder, a hub id, `smollm2-135m` or `tiny-random`."""
    data: str
    """Training data: a JSONL, JSON, CSV, TSV or Parquet file, a hub id `owner/name?split=…&config=…&revision=…`,
    `reasoning-gym:NAME?size=…&seed=…`, `humaneval`; several joined by commas, `FILE*0.3` takes 30% of its rows and
    `FILE?split=train[:90%]` the first 90%.
    docs/data.md shows the rows that are read: messages, prompt and completion, Alpaca, ShareGPT and more."""
    columns: Columns = None
    """Columns of `data` and `eval_data` that have other names: `prompt=question,completion=answer`."""
    out: Path
    """Run folder to write."""
    TRAINING: ClassVar[Group] = Group("Training")
    max_steps: PositiveInt | None = None
    """Steps to train; data repeats, reshuffled, until then. With --resume a larger number makes a run longer that has
    kept a checkpoint (`keep`)."""
    epochs: PositiveFloat | None = None
    """Passes over the data (rl and online-dpo: over the tasks), each reshuffled, in place of `max_steps`; 0.5 is half a
    pass. Rows that are left out do not count. Default: one pass, unless `max_steps` or `max_flops` is given."""
    max_flops: PositiveFloat | None = None
    """Stop once this many floating-point operations are spent (sampling and reference passes included), or with
    `max_steps` or `epochs` at whichever comes first."""
    learning_rate: PositiveFloat | None = None
    """Peak learning rate; the default depends on the method, and with LoRA is ten times as high."""
    warmup_steps: NonNegativeInt = 0
    """Steps of linear warm-up: step i of n uses i/n of the rate."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """What the rate does after the warm-up; `linear` and `cosine` end at a tenth of it with the last step, of which
    `max_flops` alone says nothing."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """AdamW decay of matrices; biases and norms are never decayed. Default 0, as in Tülu 3 (arXiv:2411.15124)."""
    max_grad_norm: PositiveFloat = 1.0
    """Gradients are clipped to this global norm. Default: Tülu 3 and TRL."""
    batch_size: PositiveInt = 16
    """Rows (sft), pairs (dpo) or rollouts (rl) of one step, whatever the micro-batches."""
    micro_batch_tokens: PositiveInt | Literal["auto"] = "auto"
    """Tokens that go through the model at once; changes memory and speed, and the gradient by rounding alone. `auto`:
    4,096, on `cuda` 16,384."""
    max_length: PositiveInt = 1024
    """Longest row in tokens; longer ones are cut at the end, counted and reported."""
    strict: bool = False
    """Stop where rows do not fit (a prompt longer than `max_length` or the model's context, nothing left to train after
    a cut) and name them; without it they are left out, counted and reported."""
    LORA: ClassVar[Group] = Group("LoRA")
    lora_rank: NonNegativeInt = 0
    """Rank of LoRA adapters on every linear layer; 0 trains the full weights."""
    lora_alpha: PositiveInt = 32
    """LoRA scale: the update is alpha/rank · B·A. Default: "LoRA Without Regret" (Thinking Machines, 2025)."""
    use_rslora: bool = False
    """Scale by alpha/√rank instead (rank-stabilised LoRA, arXiv:2312.03732), so that a larger rank does not learn more
    slowly. At rank 16 that is 4 times the scale: take a lower `lora_alpha` or `learning_rate`."""
    use_dora: bool = False
    """Train the length of each row of W + scale · B·A as well (DoRA, arXiv:2402.09353): often better at small ranks, at
    the cost of one more product of the size of B·A for each matrix and pass, and of memory for the layers' outputs."""
    GENERAL: ClassVar[Group] = Group("General")
    seed: Seed = 0
    """Seed of data order, sampling and adapters."""
    raw: bool = False
    """Take string prompts as raw text even where the tokenizer has a chat template."""
    chat_template: str | None = None
    """Chat template in place of the tokenizer's own: a Jinja file, or `hermes` (ChatML with tools). It is saved with
    the model that is trained. docs/chat-templates.md says what it must do."""
    trust_remote_code: bool = False
    """Run the Python that the model's folder or hub repository brings along. It can do whatever you can."""
    RUN_FOLDER: ClassVar[Group] = Group("Run folder")
    save_every: PositiveInt = 20
    """Steps between checkpoints."""
    keep: NonNegativeInt = 0
    """Checkpoints kept once the run has finished. While it runs the newest ones stay, one at least. Each holds the
    weights and AdamW's state, three times the size of the model in float32; a run that keeps one can be made longer."""
    save_dtype: SaveDtype = "float32"
    """Type of the weights that are written at the end (model and adapter); `auto` is that of the model it started from.
    Training and checkpoints stay in float32. bfloat16 and float16 take half the space and round the weights to 8 and 11
    significant bits, and whoever starts from them, a next stage too, starts from what was rounded. At small learning
    rates that takes back what was learnt: steps of 1e-6 on weights of 0.03 are lost in bfloat16 until they add up to
    6e-5."""
    EVALUATION: ClassVar[Group] = Group("Evaluation during training")
    eval_data: str | None = None
    """Held-out data for an evaluation during training."""
    eval_every: PositiveInt | None = None
    """Steps between evaluations on `eval_data`; the last step has one too."""
    patience: PositiveInt | None = None
    """Stop after this many evaluations without a better held-out loss, and keep the best weights."""
    MORE_OF_RUN_FOLDER: ClassVar[Group] = Group("Run folder")
    resume: Resume = False
    """Continue the run in `out`: from its last checkpoint, or from the beginning where there is none. Options
    must be the run's, but for a larger `max_steps` or `epochs`, and `keep` and `save_dtype` until it has finished."""

    MORE_OF_DEVICE: ClassVar[Group] = Group("Device", last=True)
    checkpoint_activations: bool = False
    """Keep only the input of each layer for the backward pass and compute the rest again: less memory, a third more
    operations."""
    deterministic: bool = False
    """Let a GPU give the same bits in every run, which is slower. On a CPU that is so anyway."""

    def tokens_at_once(self, device: str) -> int:
        """`micro_batch_tokens` on a kind of device."""
        if self.micro_batch_tokens == "auto":
            return ON_CUDA if device == "cuda" else MICRO_BATCH_TOKENS
        return self.micro_batch_tokens

    @property
    def keeps_reference(self) -> bool:
        """Whether a copy of the trained weights as they were stays in memory; adapters are switched off instead."""
        return False

    @property
    def trains_critic(self) -> bool:
        """Whether a critic of its own weights is trained beside the model."""
        return False

    @model_validator(mode="after")
    def _needs_each_other(self) -> TrainConfig:
        if (self.use_rslora or self.use_dora) and not self.lora_rank:
            raise ValueError(f"{'use_dora' if self.use_dora else 'use_rslora'} changes an adapter and needs lora_rank")
        altered = self.lora_alpha != TrainConfig.model_fields["lora_alpha"].default
        if altered and not self.lora_rank and not self.resume:  # runs of earlier versions may have it
            raise ValueError("lora_alpha changes an adapter and needs lora_rank")
        if self.epochs is not None and self.max_steps is not None:
            raise ValueError("epochs and max_steps both say how long to train; give one of them")
        if self.schedule != "constant" and self.max_flops and self.max_steps is None and self.epochs is None:
            raise ValueError(
                f"schedule {self.schedule!r} needs max_steps or epochs beside max_flops, which does not say at which "
                "step it ends"
            )
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

    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "posttrain sft --model smollm2-135m --data examples/data/math_demos.jsonl --out runs/sft",
        "posttrain sft --model smollm2-135m --data examples/data/math_demos.jsonl --out runs/lora --lora-rank 16",
    )


class DistillConfig(SamplingOptions, TrainConfig):
    """On-policy distillation: match a teacher's next-token distributions along answers that the student samples
    (generalised knowledge distillation, arXiv:2306.13649).

    Default learning rate: 2e-5 full weights (TRL's GKD trainer), ten times that with LoRA."""

    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "posttrain distill --model runs/sft --teacher runs/rl --data examples/data/math_tasks.jsonl --out runs/distill",
    )

    TEACHER: ClassVar[Group] = Group("Teacher")
    teacher: str
    """Model to learn from, as `model`; its vocabulary must be the student's. It reads the student's tokens, so the
    student's chat template counts."""
    on_policy_share: UnitFloat = 1.0
    """Share λ of answers that the student samples; the others are the completions of the data, which must have some.
    Default 1: the most on-policy data did best in arXiv:2306.13649."""
    jsd_beta: UnitFloat = 0.5
    """β of the generalised Jensen-Shannon divergence β·KL(P‖m) + (1−β)·KL(Q‖m), m = βP + (1−β)Q, with teacher P and
    student Q. 0 is the forward KL(P‖Q), which covers all that the teacher does; 1 the reverse KL(Q‖P), which keeps to
    what it does most. Default 0.5: TRL's GKD trainer."""
    temperature: Temperature = 1.0
    """Temperature of sampling, and of both distributions that are compared; these are whole, whatever `top_p` and
    `top_k` are."""
