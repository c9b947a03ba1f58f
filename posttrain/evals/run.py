"""Running evaluations: a model on tasks with a verifier, and on the retention suite."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from posttrain.config import EvalConfig
from posttrain.console import Progress, short_path
from posttrain.data.formats import load_tasks
from posttrain.data.packing import Branch, Tree, micro_batches, pack
from posttrain.engine.local import LocalEngine
from posttrain.evals.kl import FORWARD_TOKENS, kl_of_answers
from posttrain.evals.retention.retention import (
    MAX_NEW_TOKENS,
    as_tasks,
    retention_tasks,
    retention_text,
    score_retention,
)
from posttrain.evals.stats import bootstrap_mean, is_binary, pass_at_k, wilson_interval
from posttrain.models import LanguageModel, load_model, weights_hash
from posttrain.rewards.base import Scorer
from posttrain.rollout import Plan, check_prompts, prompt_ids, regroup, rollout_seed, sample, sampling_flops, score
from posttrain.runlog import write_atomic
from posttrain.types import Group, InputError, Node, RunFailed, Sampling, Score, Task

WINDOW = 512
"""Tokens of one window of the retention text."""
STRIDE = 2
"""One of so many windows is read: as good a sample of the text, for half of the work."""


@dataclass(frozen=True)
class SuiteResult:
    """One line a task (`task`, `values`, `samples`), and what the evaluation cost."""

    rows: list[dict[str, Any]]
    tokens: int
    flops: float
    seconds: float


def run_eval(config: EvalConfig) -> None:
    """`posttrain eval`: evaluate a model, print the numbers, and write `OUT/evaluations/held_out.json[l]`."""
    if config.out is not None and (config.out / "evaluations" / "held_out.json").exists():
        raise InputError(f"--out {config.out}: already holds an evaluation; choose another folder")
    tasks = load_tasks(config.data)[: config.limit]
    columns = set.intersection(*(set(t.columns) for t in tasks))
    with Scorer(config.reward, columns=columns, timeout_seconds=config.reward_timeout) as scorer:
        lm = load_model(config.model, raw=config.raw)
        sampling = Sampling(config.max_new_tokens, config.temperature, top_p=config.top_p)
        check_prompts(lm.chat, tasks, lm.context, config.max_new_tokens, config.data)
        if config.out is not None:  # now that the input is known to be good, and before the work
            try:
                (config.out / "evaluations").mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise InputError(
                    f"--out {config.out}: cannot be made ({error.strerror}); choose another folder"
                ) from error
        engine = LocalEngine(lm, slots=config.engine_slots)
        result = evaluate_tasks(
            engine, tasks, scorer, config.samples, sampling, config.seed, title=f"eval {short_path(config.model)}"
        )
    for name, interval in summarise(result.rows).items():
        print(f"{name:16} {interval[0]:8.3f}  [{interval[1]:.3f}, {interval[2]:.3f}]  n={interval[3]}")
    failed = [s["reason"] for row in result.rows for s in row["samples"] if s["reason"] is not None]
    if failed:
        print(f"unscored         {len(failed)} of {sum(len(row['samples']) for row in result.rows)}: {failed[0]}")
    if all(s["score"] is None for row in result.rows for s in row["samples"]):
        raise RunFailed(f"no answer could be scored: {(failed or ['no reward applied'])[0]}")
    if config.out is not None:
        write_suite(config.out, "held_out", lm, result, config.model_dump(mode="json"))


def summarise(rows: Sequence[dict[str, Any]]) -> dict[str, tuple[float, float, float, int]]:
    """(value, low, high, n) of every value over tasks: Wilson where all are 0 or 1, else bootstrap over tasks."""
    out = {}
    for name in dict.fromkeys(name for row in rows for name in row["values"]):
        values = [row["values"][name] for row in rows if row["values"].get(name) is not None]
        if values:
            interval = wilson_interval(values) if is_binary(values) else bootstrap_mean(values, seed=0)
            out[name] = (interval.value, interval.low, interval.high, interval.n)
    return out


def evaluate_tasks(
    engine: LocalEngine,
    tasks: Sequence[Task],
    scorer: Scorer,
    samples: int,
    sampling: Sampling,
    seed: int,
    reference: LanguageModel | None = None,
    title: str = "evaluating",
) -> SuiteResult:
    """The greedy answer and `samples` sampled ones to every task, scored.

    Values of a task: `greedy` and `accuracy` (mean score over samples), `pass@k` for k = samples (a sample passes with
    full marks: every reward of positive weight that applies gives at least 1), `response_length` in tokens,
    `truncated`, and with a reference and samples that are drawn `kl`: KL(model‖reference) of a response in nats, exact
    over the vocabulary before each of its tokens, summed over them and averaged over samples (see `kl_of_answers`)."""
    start = time.perf_counter()
    lm = engine.lm
    greedy = Sampling(sampling.max_new_tokens, temperature=0, stop=sampling.stop)
    rows: list[dict[str, Any]] = []
    tokens, flops = 0, 0.0
    chunk = max(1, engine.slots * 4 // (samples + 1))
    with Progress(title, len(tasks)) as progress:
        for i in range(0, len(tasks), chunk):
            part = tasks[i : i + chunk]
            plans = [
                plan
                for j, task in enumerate(part)
                for plan in (
                    Plan(task, 0, greedy, 0),
                    *(Plan(task, k + 1, sampling, rollout_seed(seed, 0, i + j, k)) for k in range(samples)),
                )
            ]
            rollouts = sample(engine, lm.chat, plans)
            scores = score(scorer, [p.task for p in plans], rollouts)
            groups = regroup([p.task for p in plans], rollouts, scores)
            drawn = [group.rollouts[1:] for group in groups] if sampling.temperature > 0 else []
            kls, spent = kl_of_answers(lm, reference, drawn) if reference is not None else ({}, 0.0)
            rows += [_task_row(group, scorer, kls) for group in groups]
            for group in groups:
                tokens += len(prompt_ids(group.rollouts[0])) + sum(r.response_length for r in group.rollouts)
            flops += sampling_flops(lm.flops, groups) + spent
            shown = {name: interval[0] for name, interval in summarise(rows).items() if name in ("greedy", "accuracy")}
            progress.advance(len(rows), shown)
    return SuiteResult(rows, tokens, flops, time.perf_counter() - start)


def _task_row(group: Group, scorer: Scorer, kls: dict[int, float]) -> dict[str, Any]:
    """The first rollout is the greedy one, the others are samples."""
    totals = [s.total for s in group.scores]
    sampled = [t for t in totals[1:] if t is not None]
    rollouts = group.rollouts[1:] or group.rollouts
    values: dict[str, float | None] = {"greedy": totals[0]}
    if group.rollouts[1:]:
        values["accuracy"] = sum(sampled) / len(sampled) if sampled else None
        k = len(totals) - 1
        if k > 1:
            passed = sum(map(scorer.full_marks, group.scores[1:]))
            values[f"pass@{k}"] = pass_at_k(k, passed, k) if len(sampled) == k else None
    values["response_length"] = sum(r.response_length for r in rollouts) / len(rollouts)
    values["truncated"] = sum(r.status == "truncated" for r in rollouts) / len(rollouts)
    if kls:
        values["kl"] = sum(kls[id(r)] for r in rollouts) / len(rollouts)
    samples = [
        {"text": r.text, "score": s.total, "reason": s.reason}
        for r, s in zip(group.rollouts, group.scores, strict=True)
    ]
    prompt = group.task.prompt if isinstance(group.task.prompt, str) else group.task.prompt[-1].content
    return {"task": group.task.id, "prompt": prompt, "values": values, "samples": samples}


def _forward(lm: LanguageModel, trees: Sequence[Tree], temperature: float = 1.0) -> list[list[float]]:
    """Log-probabilities of the trained tokens, a list a branch."""
    out: list[list[float]] = []
    for part in micro_batches(trees, FORWARD_TOKENS):
        with torch.no_grad():
            values = lm.logprobs(pack(part), temperature).logprobs.tolist()
        for branch in (b for tree in part for b in tree.branches):
            out.append(values[: sum(branch.mask)])
            del values[: sum(branch.mask)]
    return out


def evaluate_retention(engine: LocalEngine, title: str = "retention") -> SuiteResult:
    """What a model could do before: short greedy answers of three kinds, scored 0 or 1, and the mean negative
    log-likelihood (nats a token) of each window of a text that no training task produces."""
    start = time.perf_counter()
    lm = engine.lm
    items = retention_tasks()
    greedy = Sampling(MAX_NEW_TOKENS, temperature=0)
    plans = [Plan(task, 0, greedy, 0) for task in as_tasks()]
    with Progress(title, 2) as progress:
        rollouts = sample(engine, lm.chat, plans)
        rows: list[dict[str, Any]] = [
            {
                "task": item.id,
                "prompt": item.prompt,
                "values": {item.kind: score_retention(rollout.text, item)},
                "samples": [{"text": rollout.text, "score": score_retention(rollout.text, item), "reason": None}],
            }
            for item, rollout in zip(items, rollouts, strict=True)
        ]
        progress.advance(1, {})
        trees = text_windows(lm, retention_text())
        for i, values in enumerate(_forward(lm, trees)):
            nll = -sum(values) / len(values)
            rows.append({"task": f"text-{STRIDE * i}", "values": {"text_nll": nll}, "samples": []})
        progress.advance(2, {})
    tokens = sum(t.size for t in trees) + sum(len(r.segments[0].token_ids) for r in rollouts)
    flops = lm.flops.forward([Node(-1, t.size) for t in trees], sum(t.trained for t in trees))
    groups = [Group(plan.task, (r,), (Score(None),)) for plan, r in zip(plans, rollouts, strict=True)]
    flops += sampling_flops(lm.flops, groups)
    return SuiteResult(rows, tokens, flops, time.perf_counter() - start)


def text_windows(lm: LanguageModel, text: str) -> list[Tree]:
    """Every other window of 512 tokens of the text; all tokens of a window but its first are predicted."""
    ids = lm.tokenizer(text, add_special_tokens=False)["input_ids"]
    windows = [tuple(ids[i : i + WINDOW]) for i in range(0, len(ids) - WINDOW + 1, STRIDE * WINDOW)]
    return [Tree((), (Branch(w, (False,) + (True,) * (WINDOW - 1), (0.0,) * (WINDOW - 1)),)) for w in windows]


def write_suite(run: Path, suite: str, lm: LanguageModel, result: SuiteResult, settings: dict[str, Any]) -> None:
    """`RUN/evaluations/SUITE.jsonl` (a line a task) and, last, `SUITE.json` (what it was and what it cost)."""
    folder = run / "evaluations"
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / f"{suite}.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in result.rows))
    meta = {
        "suite": suite,
        "model": lm.name,
        "weights_hash": weights_hash(lm.source),
        "seconds": result.seconds,
        "tokens": result.tokens,
        "flops": result.flops,
        "settings": settings,
    }
    write_atomic(folder / f"{suite}.json", json.dumps(meta, indent=1) + "\n")
