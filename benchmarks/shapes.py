"""What `bench.py` runs: the cases, and data of fixed lengths that every side reads from the same files."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SEED = 20
WARM_UP = 1
"""First steps of a run that are not counted."""
NEW_TOKENS = 64


@dataclass(frozen=True)
class Case:
    """`batch` rows, pairs, completions or prompts a step; `shape` says it in words for the table."""

    name: str
    method: str
    batch: int
    shape: str
    steps: int = 3
    lora_rank: int = 0
    group_size: int = 1
    length: int = 0


CASES = {
    case.name: case
    for case in (
        Case("sft-ragged", "sft", 8, "8 rows, prompts of 20-90 words, answers of 20-60"),
        Case("sft-ragged-lora", "sft", 8, "the same, LoRA of rank 16", lora_rank=16),
        Case("sft-equal", "sft", 8, "8 rows of 110 tokens"),
        Case("dpo", "dpo", 8, "8 pairs, prompts of 100 tokens, answers of 10-40"),
        Case("dpo-lora", "dpo", 8, "the same, LoRA of rank 16", lora_rank=16),
        Case("grpo-2x8", "grpo", 16, "2 prompts of 68 tokens x 8 completions of up to 64, KL", group_size=8, length=68),
        Case(
            "grpo-4x8", "grpo", 32, "4 prompts of 200 tokens x 8 completions of up to 64, KL", group_size=8, length=200
        ),
        Case("generate-32", "generate", 32, "32 prompts of 68 tokens, 64 new tokens each", length=68),
        Case("generate-64", "generate", 64, "64 prompts of 68 tokens, 64 new tokens each", length=68),
        Case("rows-256", "sft", 16, "16 rows of 256 tokens", steps=2, length=256),
        Case("rows-1024", "sft", 4, "4 rows of 1,024 tokens", steps=2, length=1024),
        Case("rows-4096", "sft", 1, "1 row of 4,096 tokens", steps=2, length=4096),
    )
}


def write_data(case: Case, tokenizer: Any, file: Path) -> None:
    """JSONL rows for every step of a case, warm-up included; raw strings, so that no chat template differs."""
    rnd = random.Random(SEED)
    words = _words(tokenizer)

    def text(n: int) -> str:
        return "".join(rnd.choice(words) for _ in range(n))

    # a row ends with the end token, which both sides add
    row: Callable[[], dict[str, str]]
    if case.method == "dpo":
        row = lambda: {"prompt": text(100), "chosen": text(rnd.randint(10, 40)), "rejected": text(rnd.randint(10, 40))}  # noqa: E731
    elif case.method != "sft":
        row = lambda: {"prompt": text(case.length)}  # noqa: E731
    elif case.name == "sft-equal":
        row = lambda: {"prompt": text(55), "completion": text(54)}  # noqa: E731
    elif case.length:
        row = lambda: {"prompt": text(case.length // 2), "completion": text(case.length - case.length // 2 - 1)}  # noqa: E731
    else:
        row = lambda: {"prompt": text(rnd.randint(20, 90)), "completion": text(rnd.randint(20, 60))}  # noqa: E731
    rows = case.batch // case.group_size * (case.steps + WARM_UP if case.method != "generate" else 1)
    file.write_text("".join(json.dumps(row()) + "\n" for _ in range(rows)))


def _words(tokenizer: Any) -> list[str]:
    """Lower-case words that are one token with the space before them."""
    words = [tokenizer.convert_tokens_to_string([t]) for t in tokenizer.get_vocab()]
    words = [w for w in words if w.startswith(" ") and w[1:].isascii() and w[1:].isalpha() and w[1:].islower()]
    return sorted(w for w in words if 3 <= len(w) <= 9)[:4000]


def distinct_characters(response: str) -> float:
    """A reward that differs within nearly every group: distinct characters / characters."""
    return len(set(response)) / max(1, len(response))
