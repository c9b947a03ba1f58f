"""Running evaluations: a model on tasks with a verifier, and on the retention suite."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from posttrain.batch.packing import Branch, Tree, share_prefix
from posttrain.batch.types import Node
from posttrain.chat import ChatFormat
from posttrain.chat.template_date import dated, fixed_date, template_date
from posttrain.config import EvalConfig, HeldOut
from posttrain.config.compute import on_its_device
from posttrain.config.evaluation import RETENTION_SUITE
from posttrain.console import Progress, short_path, warn
from posttrain.data.formats import load_tasks
from posttrain.engine.base import Engine
from posttrain.engine.open import open_engine
from posttrain.evals.kl import FORWARD_TOKENS, KlOfAnswers
from posttrain.evals.retention.retention import (
    MAX_ANSWER_WORDS,
    MAX_NEW_TOKENS,
    as_tasks,
    retention_tasks,
    retention_text,
    score_retention,
)
from posttrain.evals.runs import check_free, other_weights
from posttrain.evals.settings import hash_of, task_settings, tasks_hash
from posttrain.models import LanguageModel, load_model, weights_hash
from posttrain.models.flops import FlopCounter
from posttrain.models.read import read
from posttrain.rewards.scorer import Scorer, open_scorer
from posttrain.rollout import (
    RolloutRequest,
    fit_tasks,
    regroup,
    rollout_seed,
    sample,
    sampling_flops,
    score,
)
from posttrain.rows import TaskColumns
from posttrain.runs.comparison import label, label_note
from posttrain.runs.files import refuse_links
from posttrain.runs.log import make_folder
from posttrain.runs.records import PERPLEXITY, TEXT_NLL, Cost, Evaluation, is_graded
from posttrain.runs.table import Table
from posttrain.stats import Estimate, estimate, pass_at_k
from posttrain.text import printable
from posttrain.types import Group, InputError, RunFailed, Sampling, Score, Task
from posttrain.wording import TOO_FEW

WINDOW = 512
"""Tokens of one window of the retention text."""
STRIDE = 2
"""One of so many windows is read: as good a sample of the text, for half of the work."""


@dataclass(frozen=True)
class SuiteResult:
    """One line a task (`task`, `values`, `samples`), what the evaluation cost, and the settings that it depends on."""

    rows: list[dict[str, Any]]
    tokens: int
    flops: float
    seconds: float
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def cost(self) -> Cost:
        return Cost(seconds=self.seconds, tokens=self.tokens, flops=self.flops)


@on_its_device
def run_eval(config: EvalConfig) -> Evaluation:
    """`posttrain eval`: evaluate a model, and write `OUT/evaluations/NAME.json[l]` where there is an `out`."""
    check_free(config)
    with fixed_date(template_date()):
        lm, result = _eval_retention(config) if config.suite == "retention" else _eval_tasks(config)
    evaluation = evaluation_of(config.file, lm, result, kept=config.out is not None)
    if config.out is not None:
        evaluation.write(config.out, result.cost)
    return evaluation


def _eval_retention(config: EvalConfig) -> tuple[LanguageModel, SuiteResult]:
    lm = _loaded(config)
    _make_folder(config)
    result = evaluate_retention(open_engine(config, lm), lm, title=f"retention {short_path(config.model)}")
    settings = config.model_dump(mode="json", include={"suite", "model", "raw", "chat_template"}) | result.settings
    return lm, replace(result, settings=dated(settings, lm.chat.writes_date))


def _eval_tasks(config: EvalConfig) -> tuple[LanguageModel, SuiteResult]:
    assert config.data is not None
    tasks = load_tasks(config.data, config.columns)[: config.limit]
    columns = TaskColumns(tasks)
    with open_scorer(config, columns) as scorer:
        sampling = Sampling(config.max_new_tokens, config.temperature, top_p=config.top_p)
        lm = _loaded(config)
        settings = task_settings(tasks, scorer, sampling, samples=config.samples, raw=config.raw)
        tasks, left_out = fitting_tasks(lm, tasks, config)
        _make_folder(config)
        settings = dated(settings, lm.chat.writes_date, scorer.writes_date)
        engine, title = open_engine(config, lm), f"eval {short_path(config.model)}"
        result = evaluate_tasks(
            engine, lm.chat, lm.flops, tasks, scorer, config.samples, sampling, config.seed, title=title
        )
    failed = [s["reason"] for row in result.rows for s in row["samples"] if s["reason"] is not None]
    if failed:
        of = sum(len(row["samples"]) for row in result.rows)
        print(f"unscored         {len(failed)} of {of}: {printable(failed[0])}")
    if all(s["score"] is None for row in result.rows for s in row["samples"]):
        raise RunFailed(f"no answer could be scored: {(failed or ['no reward applied'])[0]}")
    return lm, replace(result, settings=config.model_dump(mode="json") | settings | {"left_out": left_out})


def fitting_tasks(
    lm: LanguageModel, tasks: Sequence[Task], config: EvalConfig | HeldOut, quiet: bool = False
) -> tuple[list[Task], int]:
    """The tasks whose prompt leaves the model room for an answer, and how many do not and are left out, which is told
    unless `quiet`. Raises InputError where none does, and with `strict` where one does not."""
    assert config.data is not None
    fitted = fit_tasks(lm.chat, tasks, lm.context, config.max_new_tokens, config.data)
    kept = fitted.checked(config.data, config.strict)
    if fitted.left_out and not quiet:
        warn(fitted.told())
    return kept, len(fitted.left_out)


def _loaded(config: EvalConfig) -> LanguageModel:
    """The model. Raises InputError where the folder to write to is of other weights."""
    lm = load_model(
        config.model, raw=config.raw, trust_remote_code=config.trust_remote_code, chat_template=config.chat_template
    )
    if config.out is not None and (place := other_weights(config.out, weights_hash(lm.source))):
        raise InputError(
            f"--out {config.out}: {place} there is of other weights than --model {config.model}; a run folder holds "
            "evaluations of one model, choose another folder"
        )
    return lm


def _make_folder(config: EvalConfig) -> None:
    """Make the folder once the input is known to be good, and before the work."""
    if config.out is not None:
        refuse_links(config.out / "evaluations")
        make_folder(config.out, "evaluations")


def print_result(evaluation: Evaluation) -> None:
    """Print each value with its interval."""
    graded = evaluation.graded
    for name, found in summarise(evaluation.rows).items():
        interval = f"[{TOO_FEW}]"
        if found["low"] is not None and found["high"] is not None:
            interval = f"[{found['low']:.3f}, {found['high']:.3f}]"
        print(f"{label(name, graded):16} {found['value']:8.3f}  {interval}  n={found['n']}")
    print("n tasks or windows of text each; 95% intervals in brackets")
    if evaluation.suite != RETENTION_SUITE:
        print(label_note(graded))


def summarise(rows: Sequence[dict[str, Any]]) -> dict[str, Estimate]:
    """The mean over tasks of every value that some task has, with its interval; perplexity for log-likelihoods."""
    out: dict[str, Estimate] = {}
    for name in dict.fromkeys(name for row in rows for name in row["values"]):
        values = [row["values"][name] for row in rows if row["values"].get(name) is not None]
        shown = PERPLEXITY if name == TEXT_NLL else name
        if values:
            out[shown] = estimate(values, np.exp if name == TEXT_NLL else None)
    return out


def evaluate_tasks(
    engine: Engine,
    chat: ChatFormat,
    counter: FlopCounter,
    tasks: Sequence[Task],
    scorer: Scorer,
    samples: int,
    sampling: Sampling,
    seed: int,
    kl: KlOfAnswers | None = None,
    title: str = "evaluating",
) -> SuiteResult:
    """The greedy answer and `samples` sampled ones to every task, scored.

    Values of a task: `greedy` and `accuracy` (mean score over samples), `pass@k` for k = samples (a sample passes with
    full marks: every reward of positive weight that applies gives at least 1), `response_length` in tokens,
    `truncated`, and where there is a `kl` and samples are drawn `kl`: KL(model‖reference) of a response in nats, exact
    over the vocabulary before each of its tokens, summed over them and averaged over samples (see `kl_of_answers`)."""
    start = time.perf_counter()
    greedy = Sampling(sampling.max_new_tokens, temperature=0, stop=sampling.stop)
    rows: list[dict[str, Any]] = []
    tokens, flops = 0, 0.0
    chunk = max(1, engine.slots * 4 // (samples + 1))
    with Progress(title, len(tasks), unit="tasks") as progress:
        for i in range(0, len(tasks), chunk):
            part = tasks[i : i + chunk]
            plans = [
                plan
                for j, task in enumerate(part)
                for plan in (
                    RolloutRequest(task, 0, greedy, 0),
                    *(RolloutRequest(task, k + 1, sampling, rollout_seed(seed, 0, i + j, k)) for k in range(samples)),
                )
            ]
            rollouts = sample(engine, chat, plans)
            scores = score(scorer, [p.task for p in plans], rollouts)
            groups = regroup([p.task for p in plans], rollouts, scores)
            drawn = [group.rollouts[1:] for group in groups] if sampling.temperature > 0 else []
            kls, spent = kl(drawn) if kl is not None and drawn else ([[] for _ in groups], 0.0)
            rows += [_task_row(group, scorer, kl_values) for group, kl_values in zip(groups, kls, strict=True)]
            for group in groups:
                tokens += len(group.rollouts[0].prompt_ids) + sum(r.response_length for r in group.rollouts)
            flops += sampling_flops(counter, groups) + spent
            graded = is_graded(rows)
            shown = {label(n, graded): e["value"] for n, e in summarise(rows).items() if n in ("greedy", "accuracy")}
            progress.advance(len(rows), shown)
    return SuiteResult(rows, tokens, flops, time.perf_counter() - start)


def _task_row(group: Group, scorer: Scorer, kls: Sequence[float]) -> dict[str, Any]:
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
        values["kl"] = sum(kls) / len(kls)
    samples = [
        {"text": r.text, "score": s.total, "reason": s.reason}
        for r, s in zip(group.rollouts, group.scores, strict=True)
    ]
    return task_row(group.task) | {"values": values, "samples": samples}


def task_row(task: Task) -> dict[str, Any]:
    """How a line of results names its task."""
    return {"task": task.id, "prompt": task.asked}


def evaluate_retention(engine: Engine, lm: LanguageModel, title: str = "retention") -> SuiteResult:
    """What a model could do before: short greedy answers of three kinds, scored 0 or 1, and the mean negative
    log-likelihood (nats a token) of each window of a text that no training task produces, which `lm` reads."""
    start = time.perf_counter()
    items = retention_tasks()
    greedy = Sampling(MAX_NEW_TOKENS, temperature=0)
    plans = [RolloutRequest(task, 0, greedy, 0) for task in as_tasks()]
    with Progress(title, 2, unit="part") as progress:
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
        for i, logprobs in enumerate(read(lm, trees, FORWARD_TOKENS)):
            nll = -sum(logprobs.tolist()) / len(logprobs)
            rows.append({"task": f"text-{STRIDE * i}", "values": {"text_nll": nll}, "samples": []})
        progress.advance(2, {})
    tokens = sum(t.size for t in trees) + sum(len(r.segments[0].token_ids) for r in rollouts)
    flops = lm.flops.forward([Node(-1, t.size) for t in trees], sum(t.trained for t in trees))
    groups = [Group(plan.task, (r,), (Score(None),)) for plan, r in zip(plans, rollouts, strict=True)]
    flops += sampling_flops(lm.flops, groups)
    settings = {
        "max_new_tokens": MAX_NEW_TOKENS,
        "max_answer_words": MAX_ANSWER_WORDS,
        "tasks_hash": tasks_hash(as_tasks(), lambda column: True),
        "text_hash": hash_of(str([tuple(tree.branches[0].token_ids.tolist()) for tree in trees])),
    }
    return SuiteResult(rows, tokens, flops, time.perf_counter() - start, settings)


def text_windows(lm: LanguageModel, text: str) -> list[Tree]:
    """Every other window of 512 tokens of the text; all tokens of a window but its first are predicted."""
    ids = lm.chat.known(tuple(lm.tokenizer(text, add_special_tokens=False)["input_ids"]))
    windows = [tuple(ids[i : i + WINDOW]) for i in range(0, len(ids) - WINDOW + 1, STRIDE * WINDOW)]
    return [share_prefix([Branch.of(w, (False,) + (True,) * (WINDOW - 1), 0.0)]) for w in windows]


def evaluation_of(suite: str, lm: LanguageModel, result: SuiteResult, *, kept: bool = True) -> Evaluation:
    """The result as the evaluation of a model. Only one that is `kept` has the hash of the weights, which takes a third
    of a second for 500 MB. Its settings name the type that products see; comparisons ignore it,
    because it moves values by rounding alone."""
    settings = result.settings | {"template_hash": lm.chat.template.hash, "dtype": lm.compute.dtype_name}
    weights = weights_hash(lm.source) if kept else None
    return Evaluation(suite, Table(result.rows), lm.name, weights, settings)
