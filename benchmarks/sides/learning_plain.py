"""The third side of learning.py's SFT: a loop of PyTorch and transformers alone, a row at a time without padding.

python learning_plain.py REQUEST.json
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from learning_settings import Settings
from transformers import AutoModelForCausalLM, AutoTokenizer


def encoded(tokenizer: Any, row: dict[str, str]) -> tuple[torch.Tensor, int]:
    """The ids [T] of a prompt and its answer up to the end token, and how many are the prompt's."""
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": row["prompt"]}], add_generation_prompt=True, tokenize=False
    )
    before = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    after = tokenizer(row["completion"] + tokenizer.eos_token, add_special_tokens=False)["input_ids"]
    return torch.tensor(before + after), len(before)


def run(request: dict[str, Any]) -> dict[str, Any]:
    settings = Settings(**request["settings"])
    tokenizer = AutoTokenizer.from_pretrained(request["model"])
    model = AutoModelForCausalLM.from_pretrained(request["model"], dtype=torch.float32)
    model.get_input_embeddings().padding_idx = None  # the padding token ends turns too: its embedding has a gradient
    rows = [encoded(tokenizer, json.loads(line)) for line in Path(request["ordered"]).read_text().splitlines()]
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.999), eps=1e-8)
    out: dict[str, list[float]] = {"loss": [], "grad_norm": [], "seconds": []}
    for step in range(1, settings.steps + 1):
        start = time.perf_counter()
        batch = rows[(step - 1) * settings.batch : step * settings.batch]
        trained = sum(len(ids) - before for ids, before in batch)
        loss = 0.0
        for ids, before in batch:
            logprobs = model(input_ids=ids[None]).logits[0, :-1].log_softmax(-1)
            chosen = logprobs.gather(1, ids[1:, None])[before - 1 :]
            part = -chosen.sum() / trained
            part.backward()
            loss += part.item()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = settings.rate(step)
        optimizer.step()
        optimizer.zero_grad()
        out["loss"].append(loss)
        out["grad_norm"].append(float(norm))
        out["seconds"].append(time.perf_counter() - start)
    return out


if __name__ == "__main__":
    asked = json.loads(Path(sys.argv[1]).read_text())
    Path(asked["result"]).write_text(json.dumps(run(asked)))
