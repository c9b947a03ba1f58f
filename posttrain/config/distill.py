"""On-policy distillation."""

from __future__ import annotations

from typing import ClassVar

from posttrain.config.base import Group, Temperature, UnitFloat
from posttrain.config.sampling import SamplingOptions
from posttrain.config.training import TrainConfig


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
