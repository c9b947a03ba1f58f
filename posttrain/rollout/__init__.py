"""engine x environment x rewards -> groups: where tasks become scored rollouts."""

from posttrain.rollout.collect import by_grading, collect, regroup, sample, sample_of, score
from posttrain.rollout.cost import sampling_flops
from posttrain.rollout.plan import Limits, RolloutRequest, fit_tasks, fitting_prompt, rollout_seed
from posttrain.rollout.record import regraded_from_json, rollout_from_json, rollout_to_json
from posttrain.rollout.turns import converse

__all__ = [
    "Limits",
    "RolloutRequest",
    "by_grading",
    "collect",
    "converse",
    "fit_tasks",
    "fitting_prompt",
    "regraded_from_json",
    "regroup",
    "rollout_from_json",
    "rollout_seed",
    "rollout_to_json",
    "sample",
    "sample_of",
    "sampling_flops",
    "score",
]
