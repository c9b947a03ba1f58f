"""Post-train language models by examples (SFT), preferences (DPO) and rewards (RL), and measure what worked.

    import posttrain as pt

    run = pt.sft("smollm2-135m", data=rows, out="runs/sft", max_steps=50)

docs/api.md has more. Nothing here imports torch before a function needs it."""

from importlib import import_module
from typing import Any

_HOMES = {
    "posttrain.alerts": ("Alert", "Observer", "StepRecord"),
    "posttrain.api.commands": ("check_data", "compare", "evaluate", "load", "run", "score", "steps"),
    "posttrain.api.inputs": ("reward",),
    "posttrain.api.methods": (
        *("adversarial", "average", "distill", "dpo", "online_dpo", "revise", "reward_model", "rl", "sample", "sft"),
    ),
    "posttrain.api.results": ("Comparison", "DataReport", "Evaluation", "Report", "Run", "write_report"),
    "posttrain.config": (
        *("AdversarialConfig", "AverageConfig", "CheckDataConfig", "CompareConfig", "DistillConfig", "DpoConfig"),
        *("EvalConfig", "OnlineDpoConfig", "ReviseConfig", "RewardModelConfig", "RlConfig", "RunConfig"),
        *("SampleConfig", "ScoreConfig", "SftConfig"),
    ),
    "posttrain.rewards.scorer": ("Scorer",),
    "posttrain.runs.table": ("Table",),
    "posttrain.types": ("InputError", "Message", "RunFailed", "RunPaused", "Sample", "Score"),
}
"""Where each name is; `__init__.pyi` says the same to editors."""
_HOME = {name: module for module, names in _HOMES.items() for name in names}
__all__ = list(_HOME)
_THEIRS = {
    "sft": "pt.sft(model, data=rows, out=folder)",
    "dpo": "pt.dpo(model, data=pairs, out=folder)",
    "kto": 'pt.dpo(…, loss="kto")',
    "orpo": 'pt.dpo(…, loss="orpo")',
    "reward": "pt.reward_model(model, data=pairs, out=folder)",
    "grpo": "pt.rl(model, data=tasks, reward=function, out=folder)",
    "ppo": 'pt.rl(…, algorithm="ppo")',
    "rloo": 'pt.rl(…, algorithm="rloo")',
    "eval": "pt.evaluate(model, data=tasks, reward=function)",
    "train": "pt.sft, pt.dpo or pt.rl",
}
"""What stands for other names of methods, and for the trainers and configurations of TRL."""


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        ours = _THEIRS.get(name.lower().removesuffix("trainer").removesuffix("config"))
        hint = f"; use {ours}" if ours else ""
        raise AttributeError(f"module 'posttrain' has no attribute {name!r}{hint}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
