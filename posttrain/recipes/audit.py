"""`posttrain audit`: the probes, and with `--train` a policy that is trained against the reward."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain.config import AuditConfig, RlConfig, SampleConfig, SftConfig
from posttrain.config.model_names import TINY
from posttrain.runs.audit import AuditRecord

if TYPE_CHECKING:
    from posttrain.audits.demonstrations import TrainingData
    from posttrain.audits.training import TrainedRuns

LEASHES = (0.05, 0.01, 0.0)
"""β of the KL to the start of each leg of RL."""
BATCH = 128
START_SAMPLES = 2000
"""Answers that are sampled before RL, at least."""
BYTES_A_TOKEN = 3
"""English text has about four; numbers and marks have fewer."""
SPARE_TOKENS = 8
FROM_NOTHING = (150, 2e-3, 3e-4)
"""Steps and learning rate of SFT, and the learning rate of RL, where weights are random (`tiny-random`)."""
PRETRAINED = (24, 4e-5, 1e-5)


@dataclass(frozen=True)
class Settings:
    """How a policy learns the form (SFT) and is trained against the reward (RL). `sampled` are options of both that
    sample."""

    sft_steps: int
    sft_rate: float
    rl_rate: float
    general: dict[str, Any] = field(default_factory=dict)
    sampled: dict[str, Any] = field(default_factory=dict)


def audit_reward(config: AuditConfig) -> AuditRecord:
    """`run_audit`, which trains against the reward where `config` says so."""
    from posttrain.audits.run import run_audit

    return run_audit(config, partial(train_against, config) if config.train else None)


def train_against(config: AuditConfig, data: TrainingData, out: Path) -> TrainedRuns:
    """Train the policy in run folders in `out`: SFT on the demonstrations, answers that its result samples, then RL on
    the reward, by GRPO."""
    from posttrain.audits.training import TrainedRuns
    from posttrain.train.generate.sample import sample_answers

    settings = settings_of(config, data)
    model = learn_form(config, settings, data, out / "sft")
    start, samples = out / "start", -(-START_SAMPLES // data.n)
    sample_answers(
        SampleConfig(model=model, out=start, write="all", truncated="keep", samples=samples, **settings.sampled)
    )
    return TrainedRuns(start, reinforce(config, settings, data, model, out))


def settings_of(config: AuditConfig, data: TrainingData) -> Settings:
    general = {"seed": config.seed, "device": config.device, "dtype": config.dtype}
    tiny = _policy(config) == TINY
    longest = data.longest if tiny else -(-data.longest // BYTES_A_TOKEN)
    sampled = general | {
        "data": str(data.tasks),
        "reward": config.reward,
        "reward_timeout": config.reward_timeout,
        "reward_workers": config.reward_workers,
        "max_unscored_share": 1.0,
        "max_new_tokens": longest + SPARE_TOKENS,
        "max_concurrent": BATCH,
    }
    return Settings(*(FROM_NOTHING if tiny else PRETRAINED), general, sampled)


def learn_form(config: AuditConfig, settings: Settings, data: TrainingData, out: Path) -> str:
    """SFT on the demonstrations; the model it makes."""
    from posttrain.train.sft import train_sft

    train_sft(
        SftConfig(
            model=_policy(config),
            data=str(data.demonstrations),
            out=out,
            max_steps=settings.sft_steps,
            learning_rate=settings.sft_rate,
            warmup_steps=settings.sft_steps // 10,
            schedule="cosine",
            **settings.general,
        )
    )
    return str(out / "model")


def reinforce(config: AuditConfig, settings: Settings, data: TrainingData, model: str, out: Path) -> Iterator[Path]:
    """The runs of RL, of which each goes on from the one before and has it as its reference. Right answers get no more
    than empty ones: what is left to learn is what the reward pays without reason."""
    from posttrain.train.rl.setup import train_rl

    for number, beta in enumerate(LEASHES, start=1):
        leg = out / f"rl-{number}"
        train_rl(
            RlConfig(
                model=model,
                out=leg,
                beta=beta,
                max_steps=config.train_steps,
                batch_size=BATCH,
                learning_rate=settings.rl_rate,
                **settings.sampled | {"reward": (*config.reward, data.earned)},
            )
        )
        model = str(leg / "model")
        yield leg


def _policy(config: AuditConfig) -> str:
    return config.policy or TINY
