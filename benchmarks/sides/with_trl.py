"""TRL's side of a case: its trainers on the same rows, every step timed by a callback.

    python with_trl.py CASE MODEL DATA OUT

Its best configuration on a CPU whose loss is that of padded rows: see benchmarks/README.md.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from datasets import load_dataset
from peft import LoraConfig
from shapes import CASES, NEW_TOKENS, WARM_UP, Case, distinct_characters
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

SFT_VARIANTS = {"padded": {}, "padding-free": {"padding_free": True}, "chunked": {"loss_type": "chunked_nll"}}


class Clock(TrainerCallback):
    """Seconds of each step, optimizer included."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        self.start = time.perf_counter()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.seconds.append(time.perf_counter() - self.start)


def main(case: Case, model: str, data: str, out: str) -> dict[str, object]:
    dataset = load_dataset("json", data_files=data, split="train", cache_dir=f"{out}/cache")
    tokenizer = AutoTokenizer.from_pretrained(model)
    module = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, attn_implementation="sdpa")
    peft = None
    if case.lora_rank:
        peft = LoraConfig(r=case.lora_rank, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    common: dict[str, Any] = {
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
    clock = Clock()
    rest: dict[str, Any] = {"processing_class": tokenizer, "peft_config": peft, "callbacks": [clock]}
    rows = [json.loads(line) for line in Path(data).read_text().splitlines()]
    lengths: list[float] = []
    if case.method == "sft":
        variant = SFT_VARIANTS[os.environ.get("TRL_SFT", "padded")]
        args = SFTConfig(**common, **variant, max_length=max(2048, case.length))
        trainer: Any = SFTTrainer(module, args=args, train_dataset=dataset, **rest)
        tokens = [len(tokenizer(r["prompt"] + r["completion"])["input_ids"]) + 1 for r in rows]
    elif case.method == "dpo":
        args = DPOConfig(**common, beta=0.1, max_length=2048)
        trainer = DPOTrainer(module, args=args, train_dataset=dataset, **rest)
        tokens = [sum(len(tokenizer(r[k])["input_ids"]) for k in ("prompt", "chosen", "rejected")) + 2 for r in rows]
    else:

        def reward(completions: list[str], completion_ids: list[list[int]], **kwargs: Any) -> list[float]:
            lengths.append(sum(map(len, completion_ids)) / len(completion_ids))
            return [distinct_characters(c) for c in completions]

        args = GRPOConfig(
            **common,
            num_generations=case.group_size,
            max_completion_length=NEW_TOKENS,
            temperature=1.0,
            top_k=0,
            beta=0.04,
            loss_type="grpo",
            num_iterations=1,
            shuffle_dataset=False,
        )
        trainer = GRPOTrainer(module, reward_funcs=reward, args=args, train_dataset=dataset, **rest)
        tokens = []
    trainer.train()
    losses = [h["loss"] for h in trainer.state.log_history if "loss" in h]
    steps = len(clock.seconds)
    if case.method == "grpo":
        prompts = case.batch // case.group_size
        per_step = [prompts * case.length + case.batch * n for n in lengths]
    else:
        per_step = [sum(tokens[n * case.batch : (n + 1) * case.batch]) for n in range(steps)]
    return {
        "seconds": clock.seconds[WARM_UP:],
        "tokens": per_step[WARM_UP:],
        "first_loss": losses[0],
        "response_length": lengths[WARM_UP:],
    }


if __name__ == "__main__":
    name, model, data, out = sys.argv[1:]
    print(json.dumps(main(CASES[name], model, data, out)))
