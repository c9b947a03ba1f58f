"""What somebody meant who wrote an unknown name: ours for that of another trainer, or the one closest to it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from types import MappingProxyType

ELSEWHERE: Mapping[str, str] = MappingProxyType(
    {
        "model_name_or_path": "model",
        "model_name": "model",
        "output_dir": "out",
        "dataset_name": "data",
        "train_file": "data",
        "lr": "learning_rate",
        "num_train_epochs": "max_steps",
        "epochs": "max_steps",
        "per_device_train_batch_size": "batch_size",
        "max_completion_length": "max_new_tokens",
        "reward_funcs": "reward",
        "num_generations": "group_size",
        "lora_r": "lora_rank",
        "save_steps": "save_every",
        "eval_steps": "eval_every",
        "resume_from_checkpoint": "resume",
    }
)
"""Options of other trainers (TRL, transformers, peft) that nothing here resembles, and ours for the same purpose."""


def meant(name: str, options: Iterable[str]) -> str | None:
    """Which of `options` somebody meant by `name`, both with underscores; None where none is close."""
    known = list(options)
    if (ours := ELSEWHERE.get(name)) in known:
        return ours
    return next(iter(difflib.get_close_matches(name, known, n=1)), None)
