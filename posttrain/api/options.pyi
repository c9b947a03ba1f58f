"""The options of Python's functions, with their types. Made by `python -m tests.api.make_options`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Required, TypedDict

from posttrain.api.inputs import Data, Folder, Model, Reward

class ComputeOptions(TypedDict, total=False):
    device: Literal["auto", "cpu", "cuda", "mps"]
    dtype: Literal["auto", "float32", "bfloat16"]

class TrainOptions(ComputeOptions, total=False):
    data: Required[Data]
    columns: str | Mapping[str, str]
    out: Required[str | Path]
    max_steps: int | None
    epochs: float | None
    max_flops: float | None
    learning_rate: float | None
    warmup_steps: int
    schedule: Literal["constant", "linear", "cosine"]
    weight_decay: float
    max_grad_norm: float
    batch_size: int
    micro_batch_tokens: int | Literal["auto"]
    max_length: int
    strict: bool
    lora_rank: int
    lora_alpha: int
    use_rslora: bool
    use_dora: bool
    seed: int
    raw: bool
    chat_template: str | Path | None
    trust_remote_code: bool
    save_every: int
    keep: int
    save_dtype: Literal["float32", "bfloat16", "float16", "auto"]
    eval_data: Data | None
    eval_every: int | None
    patience: int | None
    resume: bool
    checkpoint_activations: bool
    deterministic: bool

class SftOptions(TrainOptions, total=False):
    pass

class DpoOptions(TrainOptions, total=False):
    loss: str | Sequence[str]
    beta: float | None
    label_smoothing: float | None
    gamma: float | None
    desirable_weight: float | None
    undesirable_weight: float | None
    length: Literal["sum", "mean"] | None
    ld_alpha: float | None
    reference_free: bool
    reference_every: int | None
    reference_mix: float | None
    mask_formatting: bool

class MonitorOptions(TypedDict, total=False):
    no_monitors: bool
    audit: Folder | None
    on_alarm: Literal["warn", "pause", "stop", "rollback"]

class RegradingOptions(TypedDict, total=False):
    sealed_reward: Reward | Sequence[Reward]
    sealed_rollouts: int | None
    canaries: int
    effort_every: int | None
    effort_rollouts: int

class SamplingOptions(TypedDict, total=False):
    max_new_tokens: int
    temperature: float
    top_p: float
    top_k: int
    max_concurrent: int

class OnlineDpoOptions(MonitorOptions, RegradingOptions, SamplingOptions, DpoOptions, total=False):
    reward: Required[Reward | Sequence[Reward]]
    group_size: int
    max_refills: int
    max_unscored_share: float
    reward_timeout: float
    reward_workers: int | None

class RewardModelOptions(TrainOptions, total=False):
    members: int
    centre_coefficient: float
    length_balanced: bool
    length_head: bool
    step_separator: str | None
    best_of: int
    policy: Model | None
    max_new_tokens: int

class AdversarialOptions(RewardModelOptions, total=False):
    rounds: int
    prompts: int
    samples: int
    edit_steps: int
    edit_tries: int
    quantile: float
    gold: Reward | None

class RlOptions(MonitorOptions, RegradingOptions, SamplingOptions, TrainOptions, total=False):
    reward: Reward | Sequence[Reward]
    control: Literal["coin", "majority", "format"] | None
    algorithm: Literal[
        "reinforce", "ppo", "rloo", "reinforce++", "reinforce++-baseline", "grpo", "dr-grpo", "dapo", "gspo", "cispo"
    ]
    baseline: Literal["none", "group", "leave-one-out", "critic"]
    scale: Literal["none", "group", "batch"]
    normalisation: Literal["sequence", "token", "constant", "sum"]
    surrogate: Literal["clip", "sequence-clip", "cispo", "reinforce"]
    clip: float
    clip_high: float | None
    dual_clip: float | None
    beta: float
    kl_in: Literal["loss", "reward"]
    kl_estimator: Literal["k1", "k2", "k3"]
    group_size: int
    max_refills: int
    overlong_share: float
    gamma: float
    gae_lambda: float
    critic: Literal["separate", "head"]
    critic_learning_rate: float | None
    value_coefficient: float
    value_clip: float | None
    whiten_rewards: bool
    updates_per_batch: int
    minibatches: int
    kl_stop: float | None
    kl_target: float | None
    reference_every: int | None
    entropy_bonus: float
    ptx_data: Data | None
    ptx_coefficient: float
    ptx_batch_size: int
    mismatch: Literal["auto", "off", "token-truncate", "token-mask", "sequence-truncate", "sequence-mask"]
    mismatch_limit: float
    aggregation: Literal["sum", "gdpo"]
    constraint: str | Sequence[str]
    constraint_rate: float
    env: Reward | None
    max_turns: int
    env_timeout: float
    env_workers: int | None
    replay: Folder | None
    max_unscored_share: float
    reward_timeout: float
    reward_workers: int | None

class DistillOptions(SamplingOptions, TrainOptions, total=False):
    teacher: Required[Model]
    on_policy_share: float
    jsd_beta: float

class _OriginOptions(TypedDict, total=False):
    endpoint: str | None
    endpoint_model: str | None
    endpoint_key: str
    endpoint_concurrency: int
    endpoint_timeout: float
    endpoint_retries: int
    endpoint_max_requests: int | None
    endpoint_max_tokens: int | None
    endpoint_cache: str | Path | None
    data: Required[Data]
    columns: str | Mapping[str, str]
    out: Required[str | Path]
    limit: int | None

class SourceOptions(ComputeOptions, SamplingOptions, _OriginOptions, total=False):
    raw: bool
    chat_template: str | Path | None
    trust_remote_code: bool
    strict: bool
    resume: bool

class SampleOptions(SourceOptions, total=False):
    reward: Reward | Sequence[Reward]
    write: Literal["best", "pairs", "all"]
    keep: int
    threshold: float | None
    soft_labels: bool
    truncated: Literal["drop", "keep"]
    samples: int
    max_unscored_share: float
    reward_timeout: float
    reward_workers: int | None
    seed: int

class ReviseOptions(SourceOptions, total=False):
    principles: str
    revisions: int
    seed: int

class AverageOptions(TypedDict, total=False):
    out: Required[str | Path]
    save_dtype: Literal["float32", "bfloat16", "float16", "auto"]
    resume: bool

class EvalOptions(ComputeOptions, total=False):
    suite: Literal["tasks", "retention"]
    data: Data | None
    columns: str | Mapping[str, str]
    reward: Reward | Sequence[Reward]
    name: str | None
    out: str | Path | None
    samples: int
    temperature: float
    top_p: float
    max_new_tokens: int
    limit: int | None
    strict: bool
    max_concurrent: int
    reward_timeout: float
    reward_workers: int | None
    seed: int
    raw: bool
    chat_template: str | Path | None
    trust_remote_code: bool

class ScoreOptions(ComputeOptions, total=False):
    reward: Reward | Sequence[Reward]
    columns: str | Mapping[str, str]
    reward_timeout: float
    reward_workers: int | None

class AuditOptions(ComputeOptions, total=False):
    data: Required[Data]
    columns: str | Mapping[str, str]
    answer_column: str | None
    limit: int | None
    only: str | Sequence[str]
    calls: int
    judge: str | None
    train: bool
    policy: Model | None
    train_steps: int
    fix: bool
    seed: int
    reward_timeout: float
    reward_workers: int | None

class CheckDataOptions(TypedDict, total=False):
    columns: str | Mapping[str, str]
    against: Sequence[Data]
    model: Model | None
    max_length: int
    max_new_tokens: int
    raw: bool
    chat_template: str | Path | None
    trust_remote_code: bool
    strict: bool

class RunOptions(ComputeOptions, total=False):
    out: str | Path | None
    size: str | None
    set: str | Sequence[str]

class ChatOptions(ComputeOptions, total=False):
    chat_template: str | Path | None
    trust_remote_code: bool
    system: str | None
    max_new_tokens: int
    temperature: float
    top_p: float
    seed: int
