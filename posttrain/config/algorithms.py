"""The algorithms of online RL as data: a baseline, a scale, a normalisation, a surrogate and a place for the KL each.

Every field is an option of `RlConfig` by the same name; an algorithm is the values those options have where they are
not given. The training loop reads the options and does not know the name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Baseline = Literal["none", "group", "leave-one-out", "critic"]
Scale = Literal["none", "group", "batch"]
Normalisation = Literal["sequence", "token", "constant", "sum"]
Surrogate = Literal["clip", "sequence-clip", "cispo", "reinforce"]


@dataclass(frozen=True)
class Algorithm:
    """The defaults an algorithm gives to the options of `RlConfig`; what a field means is said there."""

    baseline: Baseline = "group"
    scale: Scale = "group"
    normalisation: Normalisation = "sequence"
    surrogate: Surrogate = "clip"
    clip: float = 0.2
    clip_high: float | None = None
    beta: float = 0.0
    kl_in: Literal["loss", "reward"] = "loss"
    kl_estimator: Literal["k1", "k2", "k3"] = "k3"
    group_size: int = 8
    max_refills: int = 0
    overlong_share: float = 0.0


ALGORITHMS: dict[str, Algorithm] = {
    # Williams 1992, the score times the gradient of the log-probability: for teaching.
    "reinforce": Algorithm("none", "none", "sum", "reinforce", kl_in="reward", kl_estimator="k1", group_size=1),
    # Ouyang et al. 2022 (InstructGPT, arXiv:2203.02155, appendix C.4) and Schulman et al. 2017 (arXiv:1707.06347).
    "ppo": Algorithm("critic", "batch", "token", beta=0.02, kl_in="reward", kl_estimator="k1", group_size=1),
    # Ahmadian et al. 2024 (arXiv:2402.14740, section 3.2), with TRL's coefficient.
    "rloo": Algorithm("leave-one-out", "none", "sum", beta=0.05, kl_in="reward", kl_estimator="k1", group_size=4),
    # Hu et al. 2025 (arXiv:2501.03262): returns of every token, whitened over the step.
    "reinforce++": Algorithm("none", "batch", "token", beta=0.01, kl_in="reward", kl_estimator="k1", group_size=1),
    # The same paper, section 3.3: the group's mean off, the rest whitened over the step, KL by k2 in the loss.
    "reinforce++-baseline": Algorithm("group", "batch", "token", beta=0.01, kl_estimator="k2"),
    # Shao et al. 2024 (DeepSeekMath, arXiv:2402.03300, section 4.1); β 0 since DAPO.
    "grpo": Algorithm(),
    # Liu et al. 2025 (arXiv:2503.20783): neither length nor standard deviation divides.
    "dr-grpo": Algorithm(scale="none", normalisation="constant"),
    # Yu et al. 2025 (arXiv:2503.14476, section 3): clip-higher, token mean, dynamic sampling, soft overlong punishment
    # over the last fifth of the length.
    "dapo": Algorithm(normalisation="token", clip_high=0.28, max_refills=8, overlong_share=0.2),
    # Zheng et al. 2025 (arXiv:2507.18071, equations 5 and 7, section 5.1): the ratio of a sequence, length-normalised.
    "gspo": Algorithm(surrogate="sequence-clip", clip=3e-4, clip_high=4e-4),
    # MiniMax-M1 (arXiv:2506.13585, equation 4): the clipped ratio weighs, every token keeps its gradient. The upper
    # bound of 5 on the ratio is ScaleRL's (arXiv:2510.13786).
    "cispo": Algorithm(normalisation="token", surrogate="cispo", clip=0.999, clip_high=4.0),
}
