"""transformers' side of decoding: `generate` on a padded batch, and its continuous batching with log-probabilities."""

from __future__ import annotations

import random

import torch
from transformers import ContinuousBatchingConfig, GenerationConfig

from on_gpu.measure import Steps, peak_gb, reset_peak, round_figures, timed
from on_gpu.parts import Record
from on_gpu.setting import SEED, Setting, letters
from posttrain.models.tiny import tiny_tokenizer


def decode(setting: Setting, record: Record, shape: str, continuous: bool) -> None:
    """As many new tokens in every row as ours may make; the end token does not end a row."""
    sizes = setting.sizes
    module = setting.module(shape, setting.dtype)
    reset_peak(setting.device)
    rnd, tokenizer = random.Random(SEED), tiny_tokenizer()
    ids = [tokenizer(letters(rnd, sizes.prompt))["input_ids"] for _ in range(sizes.decode_rows)]
    rows = torch.tensor(ids, device=setting.device)
    config = GenerationConfig(
        do_sample=True, temperature=1.0, top_k=0, max_new_tokens=sizes.answer, eos_token_id=-1, pad_token_id=2
    )
    cache = {"num_blocks": 8, "max_batch_tokens": 64} if setting.tiny else {}

    def step(n: int) -> float:
        if continuous:  # it sets the gradient mode of its own thread
            batching = ContinuousBatchingConfig(return_logprobs=True, **cache)
            answers = module.generate_batch(
                inputs=ids,
                generation_config=config,
                continuous_batching_config=batching,
                progress_bar=False,
                persistent_manager=True,  # its graphs are captured in the first step alone
            )
            made = sum(len(a.generated_tokens) for a in answers.values())
        else:
            with torch.inference_mode():
                out = module.generate(rows, attention_mask=torch.ones_like(rows), generation_config=config)
            made = (out.shape[1] - sizes.prompt) * len(out)
        if made != len(ids) * sizes.answer:
            raise RuntimeError(f"{made} tokens were made, {len(ids) * sizes.answer} were asked for")
        return float(made)

    def note(steps: Steps) -> None:
        found = {"tokens/s": steps.rate, "seconds": steps.median, "GB": peak_gb(setting.device)}
        record(round_figures(found) | {"each": [round(s, 3) for s in steps.seconds]})

    try:
        timed(setting.device, step, 1, sizes.decode_steps, note)
    finally:
        if continuous:
            module.destroy_cached_continuous_batching_manager()
