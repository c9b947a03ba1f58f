"""`posttrain audit`: the probes, and with `--train` a policy that is trained against the reward."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain.config import AuditConfig, RlConfig, SampleConfig, SftConfig
from posttrain.config.model_names import TINY
from posttrain.runs.audit import AuditRecord

if TYPE_CHECKING:
    from posttrain.audit.demonstrations import TrainingData
    from posttrain.audit.training import TrainedRuns

LEASHES = (0.05, 0.01, 0.0)
"""β of the KL to the start of each leg of RL."""
START_SAMPLES = 2000
"""Answers that are sampled before RL, at least."""
BYTES_A_TOKEN = 3
"""English text has about four; numbers and marks have fewer."""
SPARE_TOKENS = 8


@dataclass(frozen=True)
class Settings:
    """How a policy learns the form (SFT), and how it is trained against the reward (RL)."""

    sft_rate: float
    sft_steps: int
    rl_rate: float
    batch: int


FROM_NOTHING = Settings(sft_rate=2e-3, sft_steps=150, rl_rate=3e-4, batch=128)
"""For `tiny-random`, whose weights are random."""
PRETRAINED = Settings(sft_rate=4e-5, sft_steps=24, rl_rate=1e-5, batch=128)


def audit_reward(config: AuditConfig) -> AuditRecord:
    """`run_audit`, which trains against the reward where `config` says so."""
    from posttrain.audit.run import run_audit

    return run_audit(config, partial(train_against, config) if config.train else None)


def train_against(config: AuditConfig, data: TrainingData, out: Path) -> TrainedRuns:
    """Train the policy in run folders in `out`: SFT on the demonstrations, answers that its result samples, then RL on
    the reward by GRPO, in legs of which each goes on from the one before and has it as its reference."""
    from posttrain.audit.training import TrainedRuns
    from posttrain.train.generate.sample import sample_answers
    from posttrain.train.rl.setup import train_rl
    from posttrain.train.sft import train_sft

    settings = FROM_NOTHING if config.policy == TINY else PRETRAINED
    longest = data.longest if config.policy == TINY else -(-data.longest // BYTES_A_TOKEN)
    general: dict[str, Any] = {"seed": config.seed, "device": config.device, "dtype": config.dtype}
    graded: dict[str, Any] = {
        "data": str(data.tasks),
        "reward": config.reward,
        "reward_timeout": config.reward_timeout,
        "reward_workers": config.reward_workers,
        "max_unscored_share": 1.0,
        "max_new_tokens": longest + SPARE_TOKENS,
        "max_concurrent": settings.batch,
    }
    sft, start = out / "sft", out / "start"
    train_sft(
        SftConfig(
            model=config.policy,
            data=str(data.demonstrations),
            out=sft,
            max_steps=settings.sft_steps,
            learning_rate=settings.sft_rate,
            warmup_steps=settings.sft_steps // 10,
            schedule="cosine",
            **general,
        )
    )
    samples = -(-START_SAMPLES // data.n)
    model = str(sft / "model")
    sample_answers(
        SampleConfig(model=model, out=start, write="all", truncated="keep", samples=samples, **graded, **general)
    )
    legs = []
    for number, beta in enumerate(LEASHES, start=1):
        leg = out / f"rl-{number}"
        train_rl(
            RlConfig(
                model=model,
                out=leg,
                beta=beta,
                max_steps=config.train_steps,
                batch_size=settings.batch,
                learning_rate=settings.rl_rate,
                **graded,
                **general,
            )
        )
        legs.append(leg)
        model = str(leg / "model")
    return TrainedRuns(start, legs)
