"""transformers' side of a generation case: `generate`, or its continuous batching with CONTINUOUS=1.

python with_transformers.py CASE MODEL DATA OUT
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
from shapes import CASES, NEW_TOKENS, WARM_UP, Case
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig


def main(case: Case, model: str, data: str, continuous: bool) -> dict[str, object]:
    tokenizer = AutoTokenizer.from_pretrained(model)
    module: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, attn_implementation="sdpa")
    prompts = [json.loads(line)["prompt"] for line in Path(data).read_text().splitlines()]
    ids = [tokenizer(p)["input_ids"] for p in prompts]
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    config = GenerationConfig(
        do_sample=True, temperature=1.0, top_k=0, max_new_tokens=NEW_TOKENS, eos_token_id=-1, pad_token_id=pad
    )
    width = max(map(len, ids))
    rows = torch.tensor([[pad] * (width - len(i)) + i for i in ids])
    mask = torch.tensor([[0] * (width - len(i)) + [1] * len(i) for i in ids])
    seconds, tokens = [], []
    for _ in range(case.steps + WARM_UP):
        start = time.perf_counter()
        if continuous:  # it sets the gradient mode of its own thread, and fails in an outer inference mode
            answers = module.generate_batch(inputs=ids, generation_config=config, progress_bar=False)
            made = sum(len(a.generated_tokens) for a in answers.values())
        else:
            out = module.generate(rows, attention_mask=mask, generation_config=config)
            made = (out.shape[1] - width) * len(out)
        seconds.append(time.perf_counter() - start)
        if made != len(ids) * NEW_TOKENS:
            raise SystemExit(f"{made} tokens were made, {len(ids) * NEW_TOKENS} were asked for")
        tokens.append(made)
    return {"seconds": seconds[WARM_UP:], "tokens": tokens[WARM_UP:]}


if __name__ == "__main__":
    name, model, data, _ = sys.argv[1:]
    print(json.dumps(main(CASES[name], model, data, os.environ.get("CONTINUOUS") == "1")))
