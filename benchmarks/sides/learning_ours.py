"""posttrain's side of learning.py: the stages that the command line runs. `python learning_ours.py REQUEST.json`"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from posttrain.threads import configure_threads

configure_threads()

from learning_settings import NEW_TOKENS, Settings  # noqa: E402

from posttrain.config import RlConfig, SftConfig  # noqa: E402
from posttrain.train.rl.setup import train_rl  # noqa: E402
from posttrain.train.sft import train_sft  # noqa: E402


def common(request: dict[str, Any], settings: Settings) -> dict[str, Any]:
    return {
        "model": request["model"],
        "data": request["data"],
        "out": Path(request["out"]),
        "max_steps": settings.steps,
        "batch_size": settings.batch,
        "learning_rate": settings.learning_rate,
        "warmup_steps": settings.warmup,
        "schedule": settings.schedule,
        "weight_decay": settings.weight_decay,
        "max_grad_norm": 1.0,
        "seed": settings.seed,
        "save_every": 10_000,
    }


def sft(request: dict[str, Any], settings: Settings) -> dict[str, Any]:
    train_sft(SftConfig(**common(request, settings)))
    rows = metrics(Path(request["out"]))
    return {name: [r[name] for r in rows] for name in ("loss", "grad_norm")} | {"seconds": seconds(rows)}


def grpo(request: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """With `replay`, training on the recorded completions and scores of the other side."""
    replay = {"replay": request["replay"], "mismatch": "off"} if "replay" in request else {"reward": ("reasoning-gym",)}
    train_rl(
        RlConfig(
            **common(request, settings),
            **replay,
            raw=True,
            algorithm="grpo",
            clip=0.2,
            beta=0.0,
            group_size=settings.group_size,
            max_new_tokens=NEW_TOKENS,
            temperature=1.0,
            max_concurrent=128,
        )
    )
    rows = metrics(Path(request["out"]))
    names = ("reward", "grad_norm", "entropy", "response_length", "zero_variance_groups")
    return {name: [r[name] for r in rows] for name in names} | {"seconds": seconds(rows)}


def metrics(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def seconds(rows: list[dict[str, Any]]) -> list[float]:
    return [row["step_seconds"] for row in rows]


def run(request: dict[str, Any]) -> dict[str, Any]:
    return {"sft": sft, "grpo": grpo}[request["method"]](request, Settings(**request["settings"]))


if __name__ == "__main__":
    asked = json.loads(Path(sys.argv[1]).read_text())
    Path(asked["result"]).write_text(json.dumps(run(asked)))
