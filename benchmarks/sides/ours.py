"""posttrain's side of a case: the stages that the command line runs, timed step by step by their own log.

python ours.py CASE MODEL DATA OUT
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from posttrain.threads import configure_threads

configure_threads()

from shapes import CASES, NEW_TOKENS, WARM_UP, Case  # noqa: E402

from posttrain.config import DpoConfig, RlConfig, SftConfig  # noqa: E402
from posttrain.engine.base import Request  # noqa: E402
from posttrain.engine.local.engine import LocalEngine  # noqa: E402
from posttrain.models import load_model  # noqa: E402
from posttrain.train.dpo.stage import Dpo, train_dpo  # noqa: E402
from posttrain.train.rl.setup import train_rl  # noqa: E402
from posttrain.train.sft import train_sft  # noqa: E402
from posttrain.types import Sampling  # noqa: E402


def train(case: Case, model: str, data: str, out: Path) -> dict[str, object]:
    common = {
        "model": model,
        "data": data,
        "out": out,
        "raw": True,
        "batch_size": case.batch,
        "max_steps": case.steps + WARM_UP,
        "learning_rate": 1e-5,
        "lora_rank": case.lora_rank,
        "max_length": max(2048, case.length),
        "save_every": 1000,
    }
    once = [0.0]
    if case.method == "sft":
        train_sft(SftConfig(**common))
    elif case.method == "dpo":
        prepare = Dpo.prepare

        def timed(self: Dpo, log: object) -> None:
            start = time.perf_counter()
            prepare(self, log)  # type: ignore[arg-type]
            once[0] = time.perf_counter() - start

        Dpo.prepare = timed  # type: ignore[method-assign, assignment]
        train_dpo(DpoConfig(**common))
    else:
        del common["max_length"]
        reward = f"{Path(__file__).parents[1] / 'shapes.py'}:distinct_characters"
        train_rl(RlConfig(**common, reward=(reward,), group_size=case.group_size, max_new_tokens=NEW_TOKENS, beta=0.04))
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    shared = once[0] / len(rows)  # the reference pass serves every step
    flops = [b["flops"] - a["flops"] for a, b in zip([{"flops": 0.0}, *rows], rows, strict=False)]
    if case.method == "dpo":  # the first holds the reference pass of all
        flops = [rows[-1]["flops"] / len(rows)] * len(rows)
    return {
        "seconds": [r["step_seconds"] + shared for r in rows][WARM_UP:],
        "tokens": [r["tokens"] for r in rows][WARM_UP:],
        "flops": flops[WARM_UP:],
        "first_loss": rows[0]["loss"],
        "response_length": [r.get("response_length") for r in rows][WARM_UP:],
    }


def generate(case: Case, model: str, data: str) -> dict[str, object]:
    lm = load_model(model, raw=True)
    engine = LocalEngine(lm, slots=case.batch)
    prompts = [json.loads(line)["prompt"] for line in Path(data).read_text().splitlines()]
    ids = [tuple(lm.tokenizer(p)["input_ids"]) for p in prompts]
    seconds, tokens = [], []
    for n in range(case.steps + WARM_UP):
        sampling = Sampling(NEW_TOKENS)
        start = time.perf_counter()
        answers = list(engine.generate([Request(i, p, sampling, seed=1000 * n + i) for i, p in enumerate(ids)]))
        seconds.append(time.perf_counter() - start)
        tokens.append(sum(len(c.token_ids) for _, c in answers))
    return {"seconds": seconds[WARM_UP:], "tokens": tokens[WARM_UP:]}


if __name__ == "__main__":
    name, model, data, out = sys.argv[1:]
    case = CASES[name]
    result = generate(case, model, data) if case.method == "generate" else train(case, model, data, Path(out))
    print(json.dumps(result))
