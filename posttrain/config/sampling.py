"""How methods sample answers, grade them once more and watch them, and the stages that sample and write data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from posttrain.config.base import (
    Columns,
    Config,
    Group,
    Named,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Resume,
    Seed,
    Temperature,
    UnitFloat,
)
from posttrain.config.compute import ComputeOptions
from posttrain.types import Sampling

REWARDS = ("reward", "sealed_reward")
"""Options that hold reward expressions, several each."""


class SamplingOptions(Config):
    """How a method samples answers, and how many at once."""

    SAMPLING: ClassVar[Group] = Group("Sampling")
    max_new_tokens: PositiveInt = 256
    """Longest answer in tokens."""
    temperature: Temperature = 1.0
    """Sampling temperature."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Nucleus: the smallest set of tokens with this mass is kept."""
    top_k: NonNegativeInt = 0
    """Keep the k most likely tokens; 0 keeps all."""
    max_concurrent: PositiveInt = 64
    """Answers decoded at once."""

    def sampling(self) -> Sampling:
        return Sampling(self.max_new_tokens, self.temperature, self.top_k, self.top_p)


class RegradingOptions(Config):
    """What else a step's rollouts are graded by. It is logged and recorded; no weight, no draw and no count of
    operations depends on it."""

    REGRADING: ClassVar[Group] = Group("A second grading, never trained on", last=True)
    sealed_reward: tuple[Named, ...] = ()
    """A second grader, as `reward`, that is not trained on. Where `reward` rises and this does not, what is paid is
    something else than what is wanted. Its mean is logged, and as `sealed_gap` how much more `reward` gave."""
    sealed_rollouts: PositiveInt | None = None
    """Rollouts of a step that `sealed_reward` grades, drawn by the seed. Default: all."""
    canaries: NonNegativeInt = 0
    """Rollouts of a step, drawn by the seed, that `reward` grades again with the reference answer of another task.
    None of them can know that answer: where they are paid (`canary_rate`, the share with at least 0.5), the reward
    pays for something else."""
    effort_every: PositiveInt | None = None
    """Steps after which the reward of cut reasoning is measured, beginning with the first: reasoning is cut at 25, 50
    and 75% of its tokens, the model answers at once and greedily, and `reward` grades that (`effort/25` to
    `effort/75`, and `effort/100` for the whole; TRACE, arXiv:2510.01367). A hack needs little of its reasoning."""
    effort_rollouts: PositiveInt = 8
    """Rollouts whose reasoning is cut, drawn by the seed among those that have some before their answer."""

    @model_validator(mode="after")
    def _regrades_something(self) -> RegradingOptions:
        if self.sealed_rollouts is not None and not self.sealed_reward:
            raise ValueError("sealed_rollouts has no effect here; it needs sealed_reward")
        if self.effort_rollouts != RegradingOptions.model_fields["effort_rollouts"].default and not self.effort_every:
            raise ValueError("effort_rollouts has no effect here; it needs effort_every")
        return self

    @property
    def regrades(self) -> bool:
        return bool(self.sealed_reward or self.canaries or self.effort_every)


class MonitorOptions(Config):
    """The monitors of a run on rewards of its own samples."""

    MONITORS: ClassVar[Group] = Group("Monitors", last=True)
    no_monitors: bool = False
    """Do not watch the steps for signs that the policy games the reward. Without this, alarms are printed, and stand in
    `events.jsonl` and in the report; docs/monitors.md says what each monitor watches."""
    audit: Path | None = None
    """Folder of an audit of the reward, from which monitors take limits and the scale of the reward."""
    on_alarm: Literal["warn", "pause", "stop", "rollback"] = "warn"
    """What an alarm of the monitors M1, M2 and M9 does: `warn` only; `pause` the run, which --resume continues; `stop`
    it, as after its last step; or `rollback` to the last checkpoint and go on with other tasks. A run in which nothing
    is wrong has such an alarm with a probability of at most 5%, however long it is; other monitors only warn."""

    @model_validator(mode="after")
    def _watched(self) -> MonitorOptions:
        for option in ("audit", "on_alarm"):
            if self.no_monitors and getattr(self, option) != MonitorOptions.model_fields[option].default:
                raise ValueError(f"{option} has no effect with no_monitors")
        return self


class _Origin(Config):
    """Model or endpoint, and the tasks it answers."""

    SOURCE: ClassVar[Group] = Group("Model or endpoint")
    model: str | None = None
    """Model to sample from; as in training. Either this or `endpoint`."""
    endpoint: str | None = None
    """URL of an OpenAI-compatible API to sample from, as `http://localhost:8000/v1`. Needs `pip install
    'posttrain[openai]'`."""
    endpoint_model: str | None = None
    """Name of the model there."""
    endpoint_key: str = "OPENAI_API_KEY"
    """Environment variable that holds the key; it may be unset where the endpoint asks for none."""
    endpoint_concurrency: PositiveInt = 8
    """Requests under way at once."""
    endpoint_timeout: PositiveFloat = 120.0
    """Seconds one try of a request may take."""
    endpoint_retries: NonNegativeInt = 5
    """Further tries, each after a longer wait, of a request that timed out or got 429 or 5xx."""
    endpoint_max_requests: PositiveInt | None = None
    """Stop after this many requests; answers from the cache are free."""
    endpoint_max_tokens: PositiveInt | None = None
    """Stop once answers have used this many tokens, prompts included."""
    endpoint_cache: Path | None = None
    """Folder of answers that were given before; the same request is answered from there. Default: one in `out`."""
    DATA: ClassVar[Group] = Group("Data and run folder")
    data: str
    """Tasks; as in `posttrain rl`."""
    columns: Columns = None
    """Columns that have other names: `prompt=question`."""
    out: Path
    """Folder of the run."""
    limit: PositiveInt | None = None
    """Use only the first tasks."""


class SourceConfig(ComputeOptions, SamplingOptions, _Origin):
    """What is sampled from, a model or an OpenAI-compatible endpoint, and how."""

    GENERAL: ClassVar[Group] = Group("General")
    raw: bool = False
    """Take string prompts as raw text even where the tokenizer has a chat template."""
    chat_template: str | None = None
    """Chat template in place of the model's own: a Jinja file, or `hermes` (ChatML with tools)."""
    trust_remote_code: bool = False
    """Run the Python that the model's folder or hub repository brings along. It can do whatever you can."""
    strict: bool = False
    """Stop where prompts do not fit the model's context and name them; without it they are left out, counted and
    reported."""
    RESUME: ClassVar[Group] = Group("Data and run folder")
    resume: Resume = False
    """Continue an unfinished run: what was sampled is not sampled again."""

    @property
    def source(self) -> str:
        """What is sampled from, in a word."""
        return self.model or self.endpoint_model or ""

    @model_validator(mode="after")
    def _one_source(self) -> SourceConfig:
        if (self.model is None) == (self.endpoint is None):
            raise ValueError("give either model or endpoint")
        if (self.endpoint is None) != (self.endpoint_model is None):
            raise ValueError("endpoint and endpoint_model need each other")
        if self.endpoint is not None and not self.endpoint.startswith(("http://", "https://")):
            raise ValueError(f"endpoint must begin with http:// or https://, not {self.endpoint!r}")
        refused = [name for name in ("top_k", "raw", "chat_template") if getattr(self, name)]
        if self.endpoint is not None and refused:
            raise ValueError(f"an endpoint takes no {refused[0]}; leave it out")
        return self


class SampleConfig(SourceConfig):
    """Sample answers to tasks and write them as training data: the best by a reward, pairs of a better and a worse one,
    or all of them, from a model or from an OpenAI-compatible endpoint."""

    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "posttrain sample --model runs/sft --data examples/data/math_tasks.jsonl --reward math --out runs/best",
        "posttrain sample --model runs/sft --data examples/data/plain_tasks.jsonl --write all --out runs/answers",
    )

    out: Path
    """Folder for `sft.jsonl` or `pairs.jsonl`."""
    REWARD: ClassVar[Group] = Group("Reward")
    reward: tuple[Named, ...] = ()
    """What scores an answer; as in `posttrain rl`. `write: all` does without."""
    WRITTEN: ClassVar[Group] = Group("What is written")
    write: Literal["best", "pairs", "all"] = "best"
    """`best`: the best answers to each task, as rows for SFT. `pairs`: a best and a worst one, as rows for DPO. `all`:
    every answer, as rows for SFT."""
    keep: PositiveInt = 1
    """How many of the best answers to a task are written."""
    threshold: Annotated[float, Field(allow_inf_nan=False)] | None = None
    """Write only answers with at least this score (`best`, `all`)."""
    soft_labels: bool = False
    """Write with each pair how likely the chosen answer is the better one, by the win rates of `judge_pair`, for
    `reward-model` and `dpo` to train on (Constitutional AI, arXiv:2212.08073, section 4). Needs that reward alone."""
    truncated: Literal["drop", "keep"] = "drop"
    """Whether `best` and `all` leave out answers that the token limit cut: trained on, one teaches to end there."""
    MORE_OF_SAMPLING: ClassVar[Group] = Group("Sampling")
    samples: PositiveInt = 8
    """Answers sampled to each task."""
    FAILURES: ClassVar[Group] = Group("Reward")
    max_unscored_share: UnitFloat = 0.1
    """As in `posttrain rl`; answers that could not be had count too."""
    reward_timeout: PositiveFloat = 30.0
    """Seconds a reward may take for one batch of one worker before it is killed."""
    reward_workers: NonNegativeInt | None = None
    """As in `posttrain rl`: processes that rewards run in."""
    SEED: ClassVar[Group] = Group("Sampling")
    seed: Seed = 0
    """Seed of the samples and of ties."""
    resume: Resume = False
    """Continue an unfinished run: what was sampled and scored is not sampled or scored again."""

    @property
    def file(self) -> str:
        """The file that is written in `out`."""
        return "pairs.jsonl" if self.write == "pairs" else "sft.jsonl"

    @model_validator(mode="after")
    def _can_be_written(self) -> SampleConfig:
        if self.write != "all" and not self.reward:
            raise ValueError(f"reward is required to write {self.write}")
        if self.write == "pairs" and self.samples < 2:
            raise ValueError("samples must be at least 2 to write pairs")
        if self.soft_labels and self.write != "pairs":
            raise ValueError("soft_labels are of pairs; give write: pairs")
        if self.write != "best" and self.keep != 1:
            raise ValueError("keep counts the best answers and needs write 'best'")
        if self.keep > self.samples:
            raise ValueError(f"keep={self.keep} is more than the samples={self.samples} of a task")
        if self.threshold is not None and (self.write == "pairs" or not self.reward):
            raise ValueError("threshold needs a reward, and write 'best' or 'all'")
        return self


class ReviseConfig(SourceConfig):
    """Let a model criticise and rewrite its own answers by written principles, and write the last ones as rows for SFT
    (the supervised half of Constitutional AI, arXiv:2212.08073)."""

    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "posttrain revise --model smollm2-135m --data examples/data/plain_tasks.jsonl --out runs/revised",
    )

    out: Path
    """Folder for `sft.jsonl`."""
    PRINCIPLES: ClassVar[Group] = Group("Principles")
    principles: str = "harmless"
    """`harmless`, `honest`, a YAML file with `criteria` as a judge's rubric has them, or one principle as a text."""
    revisions: PositiveInt = 2
    """How often an answer is criticised and rewritten, each time by a principle drawn for it."""
    SEED: ClassVar[Group] = Group("Sampling")
    seed: Seed = 0
    """Seed of the samples and of the principles drawn."""

    @property
    def write(self) -> str:
        """What is written, in the words of `SampleConfig`."""
        return "all"

    @property
    def file(self) -> str:
        """The file that is written in `out`."""
        return "sft.jsonl"

    @model_validator(mode="after")
    def _has_turns(self) -> ReviseConfig:
        if self.raw:
            raise ValueError("a critique is a turn of a conversation; leave raw out")
        return self
