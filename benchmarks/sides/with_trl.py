"""TRL's side of a case: its trainers on the same rows, every step timed by a callback.

    python with_trl.py CASE MODEL DATA OUT

Its best configuration on a CPU whose loss is that of padded rows: see benchmarks/README.md.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from datasets import load_dataset
from peft import LoraConfig
from shapes import CASES, NEW_TOKENS, WARM_UP, Case, distinct_characters
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer
from trl_clock import Clock

SFT_VARIANTS = {"padded": {}, "padding-free": {"padding_free": True}, "chunked": {"loss_type": "chunked_nll"}}


def common(case: Case, out: str) -> dict[str, Any]:
    """Settings of every trainer."""
    return {
        "output_dir": out,
        "per_device_train_batch_size": case.batch,
        "max_steps": case.steps + WARM_UP,
        "learning_rate": 1e-5,
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        "max_grad_norm": 1.0,
        "optim": "adamw_torch_fused",
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "logging_steps": 1,
        "report_to": "none",
        "save_strategy": "no",
        "train_sampling_strategy": "sequential",
        "dataloader_num_workers": 0,
        "disable_tqdm": True,
    }


def trainer_of(case: Case, out: str, lengths: list[float], **rest: Any) -> Any:
    """The trainer of the case's method; GRPO's notes the mean length of each step's completions in `lengths`."""
    if case.method == "sft":
        variant = SFT_VARIANTS[os.environ.get("TRL_SFT", "padded")]
        args = SFTConfig(**common(case, out), **variant, max_length=max(2048, case.length))
        return SFTTrainer(args=args, **rest)
    if case.method == "dpo":
        return DPOTrainer(args=DPOConfig(**common(case, out), beta=0.1, max_length=2048), **rest)

    def reward(completions: list[str], completion_ids: list[list[int]], **kwargs: Any) -> list[float]:
        lengths.append(sum(map(len, completion_ids)) / len(completion_ids))
        return [distinct_characters(c) for c in completions]

    args = GRPOConfig(
        **common(case, out),
        num_generations=case.group_size,
        max_completion_length=NEW_TOKENS,
        temperature=1.0,
        top_k=0,
        beta=0.04,
        loss_type="grpo",
        num_iterations=1,
        shuffle_dataset=False,
    )
    return GRPOTrainer(reward_funcs=reward, args=args, **rest)


def tokens_of(case: Case, tokenizer: Any, rows: list[dict[str, str]], lengths: list[float]) -> list[float]:
    """Useful tokens of each step: those of its rows with the end tokens the trainer adds, a prompt counted once."""
    if case.method == "grpo":
        return [case.batch // case.group_size * case.length + case.batch * n for n in lengths]
    ends = 1 if case.method == "sft" else 2
    sizes = [sum(len(tokenizer(text)["input_ids"]) for text in row.values()) + ends for row in rows]
    return [sum(sizes[i : i + case.batch]) for i in range(0, len(sizes), case.batch)]


def main(case: Case, model: str, data: str, out: str) -> dict[str, object]:
    tokenizer = AutoTokenizer.from_pretrained(model)
    clock = Clock()
    lengths: list[float] = []
    peft = None
    if case.lora_rank:
        peft = LoraConfig(r=case.lora_rank, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    trainer = trainer_of(
        case,
        out,
        lengths,
        model=AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, attn_implementation="sdpa"),
        train_dataset=load_dataset("json", data_files=data, split="train", cache_dir=f"{out}/cache"),
        processing_class=tokenizer,
        peft_config=peft,
        callbacks=[clock],
    )
    trainer.train()
    rows = [json.loads(line) for line in Path(data).read_text().splitlines()]
    return {
        "seconds": clock.seconds[WARM_UP:],
        "tokens": tokens_of(case, tokenizer, rows, lengths)[WARM_UP:],
        "first_loss": next(h["loss"] for h in trainer.state.log_history if "loss" in h),
        "response_length": lengths[WARM_UP:],
    }


if __name__ == "__main__":
    name, model, data, out = sys.argv[1:]
    print(json.dumps(main(CASES[name], model, data, out)))
