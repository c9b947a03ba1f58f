"""TRL's side of the training parts: its trainers on the same rows, prompts and pairs, with fused AdamW and without
activation checkpointing. It trains bfloat16 weights with bfloat16 moments, or float32 weights under autocast."""

from __future__ import annotations

import copy
import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from on_gpu.correctness import check_rows
from on_gpu.measure import Steps, fragmented_gb, peak_gb, reset_peak, round_figures
from on_gpu.ours import BETA, pairs_of, prompts_of
from on_gpu.parts import NotInstalled, Record, several
from on_gpu.setting import LEARNING_RATE, LORA, Setting, ragged_lengths, sft_rows
from posttrain.models.tiny import tiny_tokenizer

sys.path += [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "sides")]
from shapes import distinct_characters
from trl_clock import Clock

IGNORED = -100
"""The label of a token that is not trained."""
TINY_CACHE = {"num_blocks": 8, "max_batch_tokens": 64}
"""Left to itself, continuous batching takes half of the memory."""
MOST_OF_MEAN = 2
"""No row is longer than so many times the mean: the length of a pack."""


def trl() -> Any:
    """The package. Raises NotInstalled."""
    try:
        import datasets  # noqa: F401

        return importlib.import_module("trl")
    except ImportError as error:
        raise NotInstalled(f"TRL: {error}") from None


def common(setting: Setting, batch: int, rows: int, steps: int) -> dict[str, Any]:
    """Settings of every trainer: `batch` rows a pass, `rows` a step."""
    return {
        "output_dir": str(setting.scratch / "trl"),
        "per_device_train_batch_size": batch,
        "gradient_accumulation_steps": rows // batch,
        "max_steps": steps,
        "learning_rate": LEARNING_RATE,
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        "max_grad_norm": 1.0,
        "optim": "adamw_torch_fused",
        "bf16": setting.dtype == torch.bfloat16,
        "use_cpu": setting.device.type == "cpu",
        "gradient_checkpointing": False,
        "logging_steps": 1,
        "report_to": "none",
        "save_strategy": "no",
        "train_sampling_strategy": "sequential",
        "dataloader_num_workers": 0,
        "disable_tqdm": True,
    }


def train(
    setting: Setting, trainer: Any, clock: Clock, warm: int, amounts: Sequence[float] | None, unit: str, record: Record
) -> None:
    """Train, and record the rate of the steps after the first `warm` ones by what each did: `amounts`, else the tokens
    that TRL counts."""

    def note(history: Sequence[Mapping[str, float]]) -> None:
        counted = [0.0, *(float(h["num_tokens"]) for h in history if "num_tokens" in h)]
        done = [after - before for before, after in pairwise(counted)] if amounts is None else list(amounts)
        steps = Steps(clock.seconds[warm:], done[warm : len(clock.seconds)])
        if not steps.seconds:
            return
        found = {
            unit: steps.rate,
            "seconds": steps.median,
            "GB": peak_gb(setting.device),
            "GB reserved beyond": fragmented_gb(setting.device),
        }
        losses = [float(h["loss"]) for h in history if "loss" in h]
        record({"losses": losses, **round_figures(found), "each": [round(s, 4) for s in steps.seconds]})

    trainer.add_callback(Notes(note))
    reset_peak(setting.device)
    trainer.train()
    if len(clock.seconds) != trainer.args.max_steps:
        raise RuntimeError(f"TRL made {len(clock.seconds)} steps, not {trainer.args.max_steps}")


class Notes(TrainerCallback):
    """Calls a function with the log of all steps after each of them."""

    def __init__(self, note: Callable[[Sequence[Mapping[str, float]]], None]) -> None:
        self.note = note

    def on_log(self, args: Any, state: Any, *rest: Any, **kwargs: Any) -> None:
        self.note(state.log_history)


def sft(
    setting: Setting,
    record: Record,
    *,
    shape: str,
    packed: bool,
    float32: bool = False,
    equal: bool = False,
    lora: bool = False,
) -> None:
    """SFTTrainer on token rows, those of a step sorted so that a pass pads little, or `packed` without padding."""
    library, sizes = trl(), setting.sizes
    from datasets import Dataset

    count, tokens = (sizes.lora_rows, sizes.lora_pass_tokens) if lora else (sizes.rows, sizes.pass_tokens)
    lengths = [sizes.row] * count if equal else ragged_lengths(count, sizes.row)
    steps = sizes.warm + sizes.steps
    data = [row for rows in sft_rows(steps, lengths) for row in sorted(rows, key=lambda row: len(row[0]))]
    dataset = Dataset.from_list(
        [{"input_ids": i, "labels": [t if m else IGNORED for t, m in zip(i, mask, strict=True)]} for i, mask in data]
    )
    length = MOST_OF_MEAN * sizes.row
    if packed:  # a pack is as long as two rows in the mean, and a step has half as many
        ways = {"packing": True, "packing_strategy": "bfd", "max_length": length}
        arguments = common(setting, max(1, tokens // length), count // MOST_OF_MEAN, steps)
    else:
        ways = {"max_length": None}
        arguments = common(setting, max(1, tokens // sizes.row), count, steps)
    peft_config = None
    if lora:
        from peft import LoraConfig

        peft_config = LoraConfig(
            r=LORA["rank"], lora_alpha=LORA["alpha"], target_modules="all-linear", task_type="CAUSAL_LM"
        )
    clock = Clock()
    trainer = library.SFTTrainer(
        model=setting.module(shape, torch.float32 if float32 else setting.dtype),
        args=library.SFTConfig(**arguments, **ways),
        train_dataset=dataset,
        processing_class=tiny_tokenizer(),
        peft_config=peft_config,
        callbacks=[clock],
    )
    train(setting, trainer, clock, sizes.warm, None, "tokens/s", record)


def dpo(setting: Setting, record: Record, shape: str) -> None:
    """DPOTrainer; its reference is a copy of the model, in the step."""
    library, sizes = trl(), setting.sizes
    from datasets import Dataset

    steps = sizes.warm + sizes.steps
    data = [pair for pairs in pairs_of(setting, steps) for pair in pairs]
    module = setting.module(shape, setting.dtype)
    batch = max(1, sizes.pass_tokens // (2 * (sizes.pair_prompt + sizes.pair_answer)))
    while sizes.pairs % batch:
        batch -= 1
    clock = Clock()
    trainer = library.DPOTrainer(
        model=module,
        ref_model=copy.deepcopy(module),
        args=library.DPOConfig(
            **common(setting, batch, sizes.pairs, steps),
            beta=0.1,
            max_length=2 * (sizes.pair_prompt + sizes.pair_answer),
        ),
        train_dataset=Dataset.from_list([{"prompt": p, "chosen": c, "rejected": r} for p, c, r in data]),
        processing_class=tiny_tokenizer(),
        callbacks=[clock],
    )
    train(setting, trainer, clock, sizes.warm, [sizes.pairs] * steps, "pairs/s", record)


def grpo(setting: Setting, record: Record, shape: str, continuous: bool) -> None:
    """GRPOTrainer with transformers' `generate`, or with its continuous batching."""
    library, sizes = trl(), setting.sizes
    from datasets import Dataset

    module = setting.module(shape, setting.dtype)
    # it loads its reference by the model's name, and these weights have none
    importlib.import_module("trl.trainer.grpo_trainer").create_model_from_path = lambda *args, **kwargs: copy.deepcopy(
        module
    )
    rows, steps = sizes.prompts * sizes.group, sizes.rl_warm + sizes.rl_steps
    batch = max(sizes.group, sizes.pass_tokens // (sizes.prompt + sizes.answer) // sizes.group * sizes.group)
    while rows % batch:
        batch -= sizes.group
    made: list[float] = []

    def reward(completions: list[str], completion_ids: list[list[int]], **kwargs: Any) -> list[float]:
        made.append(sizes.prompts * sizes.prompt + sum(map(len, completion_ids)))
        return [distinct_characters(c) for c in completions]

    clock = Clock()
    trainer = library.GRPOTrainer(
        model=module,
        reward_funcs=reward,
        args=library.GRPOConfig(
            **common(setting, batch, rows, steps),
            num_generations=sizes.group,
            max_completion_length=sizes.answer,
            temperature=1.0,
            top_k=0,
            beta=BETA,
            loss_type="grpo",
            num_iterations=1,
            shuffle_dataset=False,
            use_transformers_continuous_batching=continuous,
            transformers_continuous_batching_config=TINY_CACHE if continuous and setting.tiny else None,
        ),
        train_dataset=Dataset.from_list([{"prompt": p} for p in prompts_of(setting, steps)]),
        processing_class=tiny_tokenizer(),
        callbacks=[clock],
    )
    train(setting, trainer, clock, sizes.rl_warm, made, "tokens/s", record)


def first_loss(setting: Setting, record: Record, packed: bool) -> None:
    """The loss of TRL's first step in float32 on the rows that `correctness.first_loss` takes: a pack whose rows saw
    each other, or a mean of means, would differ in the third digit."""
    library = trl()
    from datasets import Dataset

    rows = check_rows(setting)
    data = [
        {
            "input_ids": list(row.token_ids),
            "labels": [t if m else IGNORED for t, m in zip(row.token_ids, row.mask, strict=True)],
        }
        for row in rows
    ]
    length = sum(len(row.token_ids) for row in rows)
    ways = {"packing": True, "packing_strategy": "bfd", "max_length": length} if packed else {"max_length": None}
    arguments = common(setting, 1 if packed else len(rows), 1 if packed else len(rows), 1)
    trainer = library.SFTTrainer(
        model=setting.module("0.5b", torch.float32),
        args=library.SFTConfig(**{**arguments, "bf16": False}, **ways),
        train_dataset=Dataset.from_list(data),
        processing_class=tiny_tokenizer(),
    )
    trainer.train()
    record({"loss": float(trainer.state.log_history[0]["loss"])})


def first_losses(setting: Setting, record: Record) -> None:
    several(
        record,
        ("padded", partial(first_loss, setting, packed=False)),
        ("packed", partial(first_loss, setting, packed=True)),
    )
