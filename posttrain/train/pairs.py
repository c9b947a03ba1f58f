"""Preference pairs from a policy's own samples, labelled by a reward."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from posttrain.config import PairsConfig
from posttrain.console import Progress, short_path
from posttrain.data.formats import load_tasks
from posttrain.engine.local import LocalEngine
from posttrain.models import load_model, weights_hash
from posttrain.rewards.base import FailureWatch, Scorer
from posttrain.rollout import Plan, check_prompts, collect, prompt_ids, rollout_seed, sampling_flops
from posttrain.runlog import RunLog, check_out
from posttrain.train.loop import data_hash, versions, with_hashes
from posttrain.train.notices import special_tokens, unscored
from posttrain.types import Group, InputError, RunFailed, Sampling

FILE = "pairs.jsonl"


def sample_pairs(config: PairsConfig) -> None:
    """Sample `config.samples` answers to each task, and write `OUT/pairs.jsonl`: for each task whose scores differ, one
    pair of an answer with the highest and one with the lowest score (drawn from equals by the seed), with both scores.

    Raises InputError for bad input and RunFailed where too much could not be scored or no pair was found."""
    settings = with_hashes(config.model_dump(mode="json"))
    if check_out(config.out, settings, config.resume):
        return
    tasks = load_tasks(config.data)[: config.limit]
    columns = set.intersection(*(set(t.columns) for t in tasks))
    start = time.perf_counter()
    with Scorer(config.reward, columns=columns, timeout_seconds=config.reward_timeout) as scorer:
        lm = load_model(config.model, raw=config.raw)
        check_prompts(lm.chat, tasks, lm.context - config.max_new_tokens, config.data)
        engine = LocalEngine(lm, slots=config.engine_slots)
        watch = FailureWatch(config.max_unscored_share)
        sampling = Sampling(config.max_new_tokens, config.temperature, config.top_k, config.top_p)
        rows: list[dict[str, Any]] = []
        tokens, flops = 0, 0.0
        chunk = max(1, 4 * config.engine_slots // config.samples)
        with (
            RunLog(config.out, settings, config.resume) as log,
            Progress(f"pairs {short_path(config.model)}", len(tasks)) as progress,
        ):
            special_tokens(log, lm.chat, config.data, tasks)
            for i in range(0, len(tasks), chunk):
                plans = [
                    Plan(task, k, sampling, rollout_seed(config.seed, 0, i + j, k))
                    for j, task in enumerate(tasks[i : i + chunk])
                    for k in range(config.samples)
                ]
                groups = collect(engine, lm.chat, scorer, plans)
                scores = [score for group in groups for score in group.scores]
                unscored(log, watch, scores, scorer.first_traceback, tasks_done=i)
                for j, group in enumerate(groups):
                    tokens += len(prompt_ids(group.rollouts[0])) + sum(r.response_length for r in group.rollouts)
                    rows += _pair(group, np.random.default_rng([config.seed, i + j]))
                flops += sampling_flops(lm.flops, groups)
                progress.advance(min(i + chunk, len(tasks)), {"pairs": len(rows)})
            if not rows:
                raise RunFailed(f"{config.data}: no task had answers of different scores; there is nothing to prefer")
            log.write_lines(FILE, rows)
            cost = {"steps": 0, "seconds": time.perf_counter() - start, "tokens": tokens, "flops": flops}
            log.write_json("cost.json", cost)
            log.write_json(
                "lineage.json",
                {
                    "stage": "pairs",
                    "parents": [config.model],
                    "parent_weights_hash": weights_hash(lm.source),
                    "data": config.data,
                    "data_hash": data_hash(config.data),
                    "pairs": len(rows),
                    "of_tasks": len(tasks),
                    "versions": versions(),
                },
            )


def _pair(group: Group, rng: np.random.Generator) -> list[dict[str, Any]]:
    scored = [(r.text, s.total) for r, s in zip(group.rollouts, group.scores, strict=True) if s.total is not None]
    if not scored:
        return []
    best, worst = max(t for _, t in scored), min(t for _, t in scored)
    if best == worst:
        return []
    chosen = _draw([text for text, t in scored if t == best], rng)
    rejected = _draw([text for text, t in scored if t == worst], rng)
    prompt = group.task.prompt
    return [
        {
            "prompt": prompt if isinstance(prompt, str) else [m.to_dict() for m in prompt],
            "chosen": chosen if isinstance(prompt, str) else [{"role": "assistant", "content": chosen}],
            "rejected": rejected if isinstance(prompt, str) else [{"role": "assistant", "content": rejected}],
            "chosen_score": best,
            "rejected_score": worst,
            "task": group.task.id,
        }
    ]


def _draw(texts: Sequence[str], rng: np.random.Generator) -> str:
    return texts[int(rng.integers(len(texts)))]


def pairs_file(run: Path) -> Path:
    """The pairs of a finished run of `sample_pairs`."""
    file = run / FILE
    if not file.exists():
        raise InputError(f"{run}: holds no {FILE}")
    return file
