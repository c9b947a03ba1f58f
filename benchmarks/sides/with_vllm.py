"""vLLM's side of a generation case, on its CPU build.

python with_vllm.py CASE MODEL DATA OUT
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")

from shapes import CASES, NEW_TOKENS, WARM_UP, Case
from vllm import LLM, SamplingParams


def main(case: Case, model: str, data: str) -> dict[str, object]:
    llm = LLM(model=model, dtype="float32", max_model_len=512, max_num_seqs=case.batch, enable_prefix_caching=False)
    prompts = [json.loads(line)["prompt"] for line in Path(data).read_text().splitlines()]
    seconds, tokens = [], []
    for _ in range(case.steps + WARM_UP):
        sampling = SamplingParams(temperature=1.0, max_tokens=NEW_TOKENS, ignore_eos=True, seed=None, logprobs=0)
        start = time.perf_counter()
        answers = llm.generate(prompts, sampling, use_tqdm=False)
        seconds.append(time.perf_counter() - start)
        tokens.append(sum(len(a.outputs[0].token_ids) for a in answers))
    return {"seconds": seconds[WARM_UP:], "tokens": tokens[WARM_UP:]}


if __name__ == "__main__":
    name, model, data, _ = sys.argv[1:]
    print(json.dumps(main(CASES[name], model, data)))
