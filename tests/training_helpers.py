"""Plain references for training: transformers on padded rows, masks and ChatML written out here, nothing of the code
under test but where the model's folder is."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from posttrain.cli.main import main
from posttrain.models.load import model_folder

WORDS = ["apple", "river", "stone", "cloud", "tiger", "lemon", "music", "paper", "garden", "window"]
CLOCK = ("_seconds", "_per_second", "_memory_bytes")
END = "<|im_end|>"


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def metrics(run: Path, timeless: bool = False) -> list[dict[str, Any]]:
    """The metrics of a run, without what depends on the clock if `timeless`."""
    rows = read_rows(run / "metrics.jsonl")
    return [{k: v for k, v in row.items() if not (timeless and k.endswith(CLOCK))} for row in rows]


def events(run: Path, kind: str) -> list[dict[str, Any]]:
    file = run / "events.jsonl"
    return [row for row in read_rows(file) if row["event"] == kind] if file.exists() else []


def sft_rows(n: int) -> list[dict[str, str]]:
    """Prompts and completions of different lengths."""
    return [
        {
            "prompt": f"Say {' '.join(WORDS[(i + k) % 10] for k in range(1 + i % 4))} number {i}",
            "completion": " ".join(WORDS[(3 * i + k) % 10] for k in range(1 + i % 5)),
        }
        for i in range(n)
    ]


def pair_rows(n: int) -> list[dict[str, str]]:
    return [
        {"prompt": row["prompt"], "chosen": row["completion"], "rejected": f"no {WORDS[i % 10]}" + "!" * (i % 3)}
        for i, row in enumerate(sft_rows(n))
    ]


def stepwise_rows(n: int) -> list[dict[str, Any]]:
    """Prompts and answers of a word a step, of which a third are wrong."""
    return [
        {
            "prompt": row["prompt"],
            "steps": row["completion"].split(),
            "labels": [(i + k) % 3 > 0 for k in range(len(row["completion"].split()))],
        }
        for i, row in enumerate(sft_rows(n))
    ]


def plain_model(name: str | Path) -> tuple[PreTrainedModel, Any]:
    """Model and tokenizer by transformers alone, float32. The padding token, which ends turns too, has its gradient."""
    folder = model_folder(str(name))
    module = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    module.get_input_embeddings().padding_idx = None
    return module.eval(), AutoTokenizer.from_pretrained(folder)


def chatml(tokenizer: Any, prompt: str, answer: str, system: str = "") -> tuple[list[int], list[bool]]:
    """The ids of a one-turn ChatML conversation that ends with the end token, and which are the answer's. `system` is
    the system message that the model's template puts first of its own accord."""
    before = f"<|im_start|>system\n{system}{END}\n" if system else ""
    start = tokenizer(f"{before}<|im_start|>user\n{prompt}{END}\n<|im_start|>assistant\n")["input_ids"]
    ids = tokenizer(answer + END)["input_ids"]
    return start + ids, [False] * len(start) + [True] * len(ids)


def padded_logprobs(
    module: PreTrainedModel,
    rows: Sequence[Sequence[int]],
    temperature: float = 1.0,
    supports: Sequence[Sequence[Sequence[int]]] | None = None,
) -> torch.Tensor:
    """log p of each token given those before it, [B, T]; 0 for the first token and for padding. `supports[b][t]` lists
    the tokens that could have been drawn at t, () where all could."""
    width = max(map(len, rows))
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    attention = torch.zeros(len(rows), width, dtype=torch.long)
    for b, row in enumerate(rows):
        ids[b, : len(row)] = torch.tensor(row)
        attention[b, : len(row)] = 1
    logits = module(input_ids=ids, attention_mask=attention).logits[:, :-1] / temperature
    if supports is not None:
        blocked = torch.zeros_like(logits, dtype=torch.bool)
        for b, kept in enumerate(supports):
            for t, tokens in enumerate(kept):
                if tokens:
                    blocked[b, t - 1] = True
                    blocked[b, t - 1, list(tokens)] = False
        logits = logits.masked_fill(blocked, float("-inf"))
    values = logits.log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0]
    return torch.nn.functional.pad(values * attention[:, 1:], (1, 0))


def mask_tensor(masks: Sequence[Sequence[bool]]) -> torch.Tensor:
    """Masks as one padded [B, T] tensor."""
    width = max(map(len, masks))
    return torch.tensor([[*mask, *[False] * (width - len(mask))] for mask in masks])


def adamw(module: PreTrainedModel, rate: float, decay: float = 0.0) -> torch.optim.AdamW:
    """AdamW as documented: betas 0.9 and 0.999, epsilon 1e-8, vectors without decay."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    return torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.dim() > 1], "weight_decay": decay},
            {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
        ],
        lr=rate,
        betas=(0.9, 0.999),
        eps=1e-8,
        fused=False,
    )


def ending_tiny(folder: Path) -> str:
    """tiny-random after some steps on short answers, so that it ends its own."""
    out = folder / "ending"
    if not out.exists():
        data = write_rows(folder / "short.jsonl", sft_rows(20))
        command = f"sft --model tiny-random --data {data} --out {out} --max-steps 25 --learning-rate 2e-3"
        assert main(command.split()) == 0
    return str(out / "model")


def algorithms() -> Any:
    """The module `benchmarks/algorithms.py`."""
    return benchmark_module("algorithms")


def benchmark_module(name: str) -> Any:
    """A module of the folder `benchmarks`."""
    file = Path(__file__).parents[1] / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # its dataclasses look for it there
    spec.loader.exec_module(module)
    return module
