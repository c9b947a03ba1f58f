"""TRL's side of learning.py: SFTTrainer and GRPOTrainer, set so that they do what posttrain does.

    python learning_trl.py REQUEST.json

With `"as_it_comes"` in the request, SFT keeps TRL's own template handling, padding token and schedule.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from datasets import Dataset
from learning_settings import NEW_TOKENS, Settings, exact, group_advantages
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer
from trl_clock import Clock


def scheduled(trainer: type, settings: Settings) -> type:
    """The trainer with our schedule: transformers' warm-up begins with a step of rate 0, and its decay ends at 0."""

    class Scheduled(trainer):  # type: ignore[misc]
        def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
            share = lambda done: settings.rate(done + 1) / settings.learning_rate  # noqa: E731
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer or self.optimizer, share)
            return self.lr_scheduler

    return Scheduled


def loaded(model: str, as_it_comes: bool = False) -> tuple[Any, Any]:
    """The model and its tokenizer. SmolLM2's padding token is its end token, which also stands after every turn: torch
    leaves the padding token's embedding without a gradient."""
    module = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, attn_implementation="sdpa")
    if not as_it_comes:
        module.get_input_embeddings().padding_idx = None
    return module, AutoTokenizer.from_pretrained(model)


def common(request: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """Settings of both trainers."""
    return {
        "output_dir": request["out"],
        "per_device_train_batch_size": settings.micro_batch,
        "gradient_accumulation_steps": settings.batch // settings.micro_batch,
        "max_steps": settings.steps,
        "learning_rate": settings.learning_rate,
        "warmup_steps": settings.warmup,
        "lr_scheduler_type": settings.schedule,
        "weight_decay": settings.weight_decay,
        "adam_beta1": 0.9,
        "adam_beta2": 0.999,
        "adam_epsilon": 1e-8,
        "max_grad_norm": 1.0,
        "optim": "adamw_torch_fused",
        "seed": settings.seed,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "logging_steps": 1,
        "report_to": "none",
        "save_strategy": "no",
        "dataloader_num_workers": 0,
        "disable_tqdm": True,
    }


def sft(request: dict[str, Any], settings: Settings) -> dict[str, Any]:
    as_it_comes = "as_it_comes" in request
    module, tokenizer = loaded(request["model"], as_it_comes)
    if not as_it_comes:  # no line break after the last end token: TRL would train on it
        tokenizer.chat_template = tokenizer.chat_template.replace(
            "+ '<|im_end|>' + '\n'}}",
            "+ '<|im_end|>' }}{% if not (loop.last and message['role'] == 'assistant') %}{{ '\n' }}{% endif %}",
        )
        assert "loop.last and message" in tokenizer.chat_template
    rows = [
        {
            "prompt": [{"role": "user", "content": row["prompt"]}],
            "completion": [{"role": "assistant", "content": row["completion"]}],
        }
        for row in read(request["ordered"])
    ]
    trainer = (SFTTrainer if as_it_comes else scheduled(SFTTrainer, settings))(
        model=module,
        args=SFTConfig(**common(request, settings), train_sampling_strategy="sequential", max_length=1024),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=[clock := Clock()],
    )
    trainer.train()
    return logged(trainer, "loss", "grad_norm") | {"seconds": clock.seconds}


def grpo(request: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """The reward function hands advantages over, normalised in each group as posttrain does it: TRL's own divide by the
    sample standard deviation plus 1e-4. `scale_rewards="none"` then takes off a mean of 0."""
    module, tokenizer = loaded(request["model"])
    rewards: list[float] = []
    record: list[str] = []

    def reward(prompts: list[str], completions: list[str], completion_ids: list[list[int]], **rest: Any) -> list[float]:
        scores = [exact(text, gold) for text, gold in zip(completions, rest["answer"], strict=True)]
        rewards.append(sum(scores) / len(scores))
        for task, prompt, text, ids, score in zip(
            rest["task"], prompts, completions, completion_ids, scores, strict=True
        ):
            row = {"step": len(rewards), "task": task, "prompt": prompt, "text": text, "ids": ids, "score": score}
            record.append(json.dumps(row) + "\n")
        return group_advantages(scores, settings.group_size)

    trainer = scheduled(GRPOTrainer, settings)(
        model=module,
        reward_funcs=reward,
        args=GRPOConfig(
            **common(request, settings),
            num_generations=settings.group_size,
            max_completion_length=NEW_TOKENS,
            temperature=1.0,
            top_p=1.0,
            top_k=0,
            beta=0.0,
            epsilon=0.2,
            num_iterations=1,
            loss_type="grpo",
            scale_rewards="none",
            mask_truncated_completions=False,
            shuffle_dataset=False,
        ),
        train_dataset=Dataset.from_list(read(request["ordered"])),
        processing_class=tokenizer,
        callbacks=[clock := Clock()],
    )
    trainer.train()
    Path(request["completions"]).write_text("".join(record))
    trainer.model.save_pretrained(Path(request["out"]) / "model")
    tokenizer.save_pretrained(Path(request["out"]) / "model")
    shown = logged(trainer, "grad_norm", "entropy", "completions/mean_length")
    return {
        "reward": rewards,
        "response_length": shown.pop("completions/mean_length"),
        "seconds": clock.seconds,
    } | shown


def read(file: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(file).read_text().splitlines()]


def logged(trainer: Any, *names: str) -> dict[str, list[float]]:
    return {name: [float(h[name]) for h in trainer.state.log_history if name in h] for name in names}


if __name__ == "__main__":
    asked = json.loads(Path(sys.argv[1]).read_text())
    method = {"sft": sft, "grpo": grpo}[asked["method"]]
    result = method(asked, Settings(**asked["settings"]))
    Path(asked["result"]).write_text(json.dumps(result))
