"""Adversarial reward models: rounds of training, and of search for answers that fool what was trained.

The run folder holds a reward model run a round, `round-0`, `round-1`, …, what each later one was trained on,
`pairs-1.jsonl`, …, the last model as `model`, and the numbers of all rounds in `adversarial.json`.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from posttrain.alerts import Observer
from posttrain.chat.template_date import dated, on_one_date
from posttrain.config import AdversarialConfig, RewardModelConfig
from posttrain.config.compute import on_its_device
from posttrain.console import info, print_numbers, warn
from posttrain.data.formats import load_preferences
from posttrain.models import LanguageModel, load_reward_model, model_writes_date, weights_hash
from posttrain.rewards.scorer import Scorer
from posttrain.rows import PreferenceRow, Response, TaskColumns
from posttrain.runs.files import read_object
from posttrain.runs.log import RunLog
from posttrain.runs.records import Cost, Lineage
from posttrain.selection import mean_interval
from posttrain.train.events import warn_fitted
from posttrain.train.reward_model.pairs import LEARNING_RATE, VALIDATION, prepare_reward_model, train_reward_model
from posttrain.train.reward_model.samples import fit_policy, held_out_prompts, member_scores, sampled
from posttrain.train.reward_model.search import Scores, calibrate, hill_climb, text_edits
from posttrain.train.settings import data_hash, nothing_to_do, resolved_settings, versions
from posttrain.types import InputError, Message, Prompt, RunFailed, Sample, Task

FOUND = "found"
"""The column of an added pair that says where it comes from."""
GOLD_SEED = 1 << 20
"""Added to the seed, so that no search has drawn the answers that are judged by gold."""


@on_its_device
@on_one_date
def train_adversarial(config: AdversarialConfig, observers: Sequence[Observer] = ()) -> None:
    """Train a reward model in `rounds` + 1 rounds, each from `config.model` on the data and all that was found before,
    and write the run folder `config.out`.

    Raises InputError for bad input, before anything is trained, and RunFailed where gold could not be measured."""
    settings = resolved_settings(config, LEARNING_RATE)
    if nothing_to_do(config.out, settings, config.resume):
        return
    rows = load_preferences(config.data, config.columns, "posttrain adversarial")
    searched = [row for row in rows if not row.tools and None not in (_answer(row.chosen), _answer(row.rejected))]
    if not searched:
        raise InputError(f"{config.data}: every row has tools or tool calls, and only plain answers are searched")
    fitted = fit_policy(config, _tasks(searched), config.data)
    answered = {task.id for task in fitted.checked(config.data, config.strict)}
    searched = [row for row in searched if row.where in answered]
    with ExitStack() as stack:  # what the first round would refuse is refused while nothing is written
        prepare_reward_model(_round(config, 0, config.data), stack)
    judged = None
    if config.gold is not None:
        source = str(config.eval_data)
        judged = fit_policy(config, held_out_prompts(config), source)
        # a reward that is none is told now and not after the rounds
        _truth(config.gold, judged.checked(source, config.strict)).close()
    start = model_writes_date(config.model, config.chat_template)
    writes_date = start, bool(config.policy) and model_writes_date(str(config.policy))
    with RunLog(config.out, dated(settings, *writes_date), config.resume) as log:
        warn_fitted(log, config.data, fitted)
        if judged is not None:
            warn_fitted(log, config.eval_data, judged)
        given, config = config, _in_our_columns(config, rows, log)
        data = config.data
        for k in range(config.rounds + 1):
            info(f"round {k} of {config.rounds}")
            train_reward_model(_round(config, k, data), observers)
            file = config.out / f"pairs-{k + 1}.jsonl"
            if k < config.rounds and not file.exists():
                _add(config, k + 1, searched, data, log)
            data = str(file)
        found = {"rounds": _rounds(config), "gold": _gold(config, judged.kept if judged is not None else [])}
        log.write_json("adversarial.json", found)
        print_numbers(found)
        last = config.out / f"round-{config.rounds}" / "model"
        model = log.write_folder("model", partial(shutil.copytree, last, dirs_exist_ok=True))
        _finish(given, log, model)


def _in_our_columns(config: AdversarialConfig, rows: Sequence[PreferenceRow], log: RunLog) -> AdversarialConfig:
    """The configuration of the rounds: `columns` are renamed, in files of the run folder, to those of later pairs."""
    if config.columns is None:
        return config
    data: dict[str, Any] = {"columns": None, "data": str(config.out / "data.jsonl")}
    if config.eval_data is not None:
        held_out = load_preferences(config.eval_data, config.columns, optional=True)
        log.write_lines("eval_data.jsonl", map(_pair, held_out))
        data["eval_data"] = str(config.out / "eval_data.jsonl")
    log.write_lines("data.jsonl", map(_pair, rows))
    return config.model_copy(update=data)


def _round(config: AdversarialConfig, k: int, data: str) -> RewardModelConfig:
    own = {name: getattr(config, name) for name in RewardModelConfig.model_fields}
    own |= {"data": data, "out": config.out / f"round-{k}", "resume": True}
    own |= {"policy": config.policy if config.best_of else None}
    own |= {"max_flops": config.max_flops and config.max_flops / (config.rounds + 1)}
    return RewardModelConfig(**own)


def _add(config: AdversarialConfig, k: int, rows: Sequence[PreferenceRow], data: str, log: RunLog) -> None:
    """Write the pairs of the next round: those of `data`, and what fools the model that was trained on them."""
    lm = load_reward_model(str(config.out / f"round-{k - 1}"))
    rng = np.random.default_rng([config.seed, k])
    rows = [rows[i] for i in sorted(rng.permutation(len(rows))[: config.prompts])]
    accepted = member_scores(lm, [_sample(row, str(_answer(row.chosen))) for row in rows], config.max_length)
    drawn = len(rows)
    fit = np.flatnonzero(~np.isnan(accepted).any(1)).tolist()  # what would be cut in training is not searched
    rows, accepted = [rows[i] for i in fit], accepted[fit]
    added = search(config, lm, rows, accepted, k, rng) if rows else []
    if not added:
        warn(f"round {k}: nothing was found that fools the model, so that the next is trained on the same pairs")
    before = [_pair(row) for row in load_preferences(data)]
    log.write_lines(f"pairs-{k}.jsonl", [*before, *added])
    log.event("found", round=k, pairs=len(added), of_prompts=len(rows), left_out=drawn - len(rows))


def search(
    config: AdversarialConfig,
    lm: LanguageModel,
    rows: Sequence[PreferenceRow],
    accepted: Scores,
    k: int,
    rng: np.random.Generator,
) -> list[dict[str, Any]]:
    """Pairs of the rows' accepted answers (with their scores [P, K]) over answers that fool the reward model: of each
    row the sample of the policy with the highest attack score, and what its accepted answer has become by edits."""
    texts = [str(_answer(row.chosen)) for row in rows]
    others = [str(_answer(row.rejected)) for row in rows]
    ordinary = member_scores(lm, [_sample(row, text) for row, text in zip(rows, others, strict=True)])
    calibration = calibrate(np.concatenate([accepted, ordinary[~np.isnan(ordinary).any(1)]]), config.quantile)

    def attack_scores(candidates: Sequence[Sequence[str]]) -> list[Scores]:
        flat = [_sample(row, text) for row, of in zip(rows, candidates, strict=True) for text in of]
        scores = np.split(member_scores(lm, flat, config.max_length), np.cumsum([len(of) for of in candidates])[:-1])
        return [calibration.attack_score(of, better[None]) for of, better in zip(scores, accepted, strict=True)]

    tasks = _tasks(rows)
    drawn = [[answer.text for answer in of] for of in sampled(config, tasks, config.samples, config.seed + k)]
    best = [of[int(worth.argmax())] for of, worth in zip(drawn, attack_scores(drawn), strict=True)]
    words = sorted({word for text in (*texts, *others) for word in text.split()})
    edits = partial(text_edits, words=words, tries=config.edit_tries, rng=rng)
    climbed = hill_climb(texts, edits, attack_scores, config.edit_steps) if config.edit_steps else []
    added = []
    for by, answers in (("policy", best), ("edit", climbed)):
        if not answers:
            continue
        asked = [_sample(row, text) for row, text in zip(rows, answers, strict=True)]
        scores = member_scores(lm, asked, config.max_length)
        for i in np.flatnonzero(calibration.is_adversarial(scores, accepted)).tolist():
            if answers[i].strip() and answers[i] != texts[i]:
                told = {"round": k, "by": by, "of": rows[i].where, "threshold": calibration.threshold}
                told |= {"scores": scores[i].tolist(), "chosen_scores": accepted[i].tolist()}
                added.append(_pair(rows[i], answers[i], told))
    return added


def _rounds(config: AdversarialConfig) -> list[dict[str, Any]]:
    """Of each round: the pairs it was trained on, what was added to them by which search, and how many of all that were
    ever added its model still ranks above the accepted answer; with held-out pairs its accuracy."""
    pairs = load_preferences(str(config.out / f"pairs-{config.rounds}.jsonl"))
    added = pairs[len(load_preferences(config.data)) :]  # the data may have a column of that name too
    out = []
    for k in range(config.rounds + 1):
        lm = load_reward_model(str(config.out / f"round-{k}"))
        own = [row.columns[FOUND] for row in added if row.columns[FOUND]["round"] == k]
        better, worse = (
            member_scores(lm, [_sample(row, str(_answer(response))) for row, response in side]).mean(1)
            for side in ([(row, row.chosen) for row in added], [(row, row.rejected) for row in added])
        )
        file = config.out / f"round-{k}" / "evaluations" / VALIDATION
        out.append(
            {
                "round": k,
                "added": {by: sum(found["by"] == by for found in own) for by in ("policy", "edit")},
                "ranked_above_accepted": float((worse > better).mean()) if added else None,
                "accuracy": read_object(file).get("accuracy"),
            }
        )
    return out


def _gold(config: AdversarialConfig, tasks: Sequence[Task]) -> dict[str, Any] | None:
    """The mean gold score of each round's best of n answers to held-out prompts, of a random one and of the best there
    is, and the gain of the last round on the first, with bootstrap intervals; prompts without all scores are left
    out."""
    if config.gold is None:
        return None
    answers = sampled(config, tasks, config.samples, config.seed + GOLD_SEED)
    with _truth(config.gold, tasks) as scorer:
        scored = scorer.score([answer for of in answers for answer in of])
    gold = np.array([np.nan if s.total is None else s.total for s in scored]).reshape(len(tasks), -1)
    models = [load_reward_model(str(config.out / f"round-{k}")) for k in range(config.rounds + 1)]
    proxies = [np.stack([member_scores(lm, of).mean(1) for of in answers]) for lm in models]
    whole = ~np.isnan(gold).any(1) & ~np.isnan(proxies).any((0, 2))
    if not whole.any():
        reason = next((score.reason for score in scored if score.reason), "answers do not fit the models")
        raise RunFailed(f"gold {config.gold}: no prompt has answers that could all be scored ({reason})")
    if not whole.all():
        warn(f"gold: {(~whole).sum()} of {len(tasks)} prompts have answers that could not be scored and are left out")
    picked = [np.take_along_axis(gold, p.argmax(1)[:, None], 1)[whole, 0] for p in proxies]
    return {
        "n": config.samples,
        "random": mean_interval(gold[whole].mean(1)),
        "best": mean_interval(gold[whole].max(1)),
        "rounds": [mean_interval(of) for of in picked],
        "gain": mean_interval(picked[-1] - picked[0]),
    }


def _tasks(rows: Sequence[PreferenceRow]) -> list[Task]:
    return [Task(row.where, row.prompt, where=row.where) for row in rows]


def _truth(gold: str, tasks: Sequence[Task]) -> Scorer:
    columns = TaskColumns(tasks)
    return Scorer((gold,), columns=columns, timeout_seconds=60.0)


def _finish(config: AdversarialConfig, log: RunLog, model: Path) -> None:
    runs = [config.out / f"round-{k}" for k in range(config.rounds + 1)]
    Cost.total(Cost.read(run) for run in runs).save(log)
    first = Lineage.read(runs[0])
    assert first is not None  # the round has finished
    Lineage(
        stage="adversarial",
        parents=[config.model],
        parent_weights_hash=first.parent_weights_hash,
        policy=config.policy or config.model,
        model=str(model),
        weights_hash=weights_hash(model),
        data=config.data,
        data_hash=data_hash(config.data),
        versions=versions(),
        device=first.device,
        card=first.card,
        dtype=first.dtype,
    ).save(log)


def _answer(response: Response) -> str | None:
    """The text of a plain answer; None for messages that are more than that."""
    if isinstance(response, str):
        return response
    plain = len(response) == 1 and not response[0].tool_calls and response[0].reasoning is None
    return response[0].content if plain else None


def _sample(row: PreferenceRow, text: str) -> Sample:
    return Sample(row.prompt, (Message("assistant", text),), (), row.columns)


def _pair(row: PreferenceRow, rejected: str | None = None, found: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The row as a line of a data file; with another `rejected` answer it has no column but `found`."""
    prompt, chosen = _json(row.prompt), _json(row.chosen)
    if rejected is not None:
        other = rejected if isinstance(row.chosen, str) else [Message("assistant", rejected).to_dict()]
        return {"prompt": prompt, "chosen": chosen, "rejected": other, FOUND: found}
    tools = {"tools": [dict(tool) for tool in row.tools]} if row.tools else {}
    soft = {"probability": row.probability} if row.probability < 1 else {}
    return {"prompt": prompt, "chosen": chosen, "rejected": _json(row.rejected), **tools, **soft, **row.columns}


def _json(text: Prompt | Response) -> str | list[dict[str, Any]]:
    return text if isinstance(text, str) else [message.to_dict() for message in text]
