"""posttrain's side of the training parts: the functions that its stages call, on models of random weights."""

from __future__ import annotations

import json
import random
import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

from on_gpu.measure import (
    PEAK_FLOPS,
    Steps,
    fragmented_gb,
    peak_gb,
    reset_peak,
    round_figures,
    synchronize,
    timed,
)
from on_gpu.parts import Record
from on_gpu.setting import LEARNING_RATE, LORA, SEED, Setting, letters, ragged_lengths, sft_rows
from posttrain.chat import EncodedRow
from posttrain.config import DpoConfig, RlConfig
from posttrain.data.formats import load_tasks
from posttrain.engine.base import Request
from posttrain.engine.local.engine import LocalEngine
from posttrain.engine.open import open_engine
from posttrain.models import LanguageModel
from posttrain.rewards.scorer import open_scorer
from posttrain.runs.log import RunLog
from posttrain.train.dpo.data import Example, counts_of, example_trees
from posttrain.train.dpo.stage import StepLoss
from posttrain.train.loop import make_policy
from posttrain.train.policy import LocalPolicy, Optimization
from posttrain.train.rl.rollouts import Rollouts, Sources, StepGroups, fit_task_rows
from posttrain.train.rl.stage import Rl
from posttrain.train.sft import loss_of, sft_trees
from posttrain.types import Sampling

BETA = 0.04
SHOWN = ("response_length", "kl", "mismatch_kl", "reward", "grad_norm", "loss")
REWARD = f"{Path(__file__).parents[1] / 'shapes.py'}:distinct_characters"


def sft(setting: Setting, record: Record, shape: str, equal: bool = False) -> None:
    """Full weights on ragged rows, or on rows of one length."""
    sizes = setting.sizes
    lengths = [sizes.row] * sizes.rows if equal else ragged_lengths(sizes.rows, sizes.row)
    lm = setting.model(shape)
    reset_peak(setting.device)
    train_sft(setting, lm, lengths, sizes.pass_tokens, record)


def lora(setting: Setting, record: Record, shape: str) -> None:
    """An adapter of rank 16 beside every linear layer of a model that is held in the device's type."""
    sizes = setting.sizes
    lm = setting.model(shape, trained=False)
    lm.add_adapter(LORA["rank"], LORA["alpha"], SEED)
    reset_peak(setting.device)
    train_sft(setting, lm, ragged_lengths(sizes.lora_rows, sizes.row), sizes.lora_pass_tokens, record)


def train_sft(setting: Setting, lm: LanguageModel, lengths: list[int], pass_tokens: int, record: Record) -> None:
    sizes = setting.sizes
    policy = LocalPolicy(lm, Optimization(LEARNING_RATE), pass_tokens)
    data = sft_rows(sizes.warm + sizes.steps, lengths)
    losses, flops = [], [0.0]

    def step(n: int) -> float:
        trees = sft_trees([EncodedRow(tuple(ids), tuple(mask), "row") for ids, mask in data[n]])
        losses.append(policy.forward_backward(trees, loss_of)["loss"])
        policy.step()
        flops.append(policy.flops)
        return sum(lengths)

    note = lambda steps: record({"losses": losses, **figures(setting, steps, flops, "tokens/s")})  # noqa: E731
    timed(setting.device, step, sizes.warm, sizes.steps, note)


def figures(setting: Setting, steps: Steps, flops: Sequence[float], unit: str) -> dict[str, Any]:
    """Rate, seconds a step, MFU and memory; `flops` is what the policy had counted before and after every step."""
    counted = [b - a for a, b in pairwise(flops)][-len(steps.seconds) :]
    share = statistics.median(f / s for f, s in zip(counted, steps.seconds, strict=True)) / PEAK_FLOPS
    found = {
        unit: steps.rate,
        "seconds": steps.median,
        "MFU": share,
        "TFLOP a step": counted[-1] / 1e12,
        "GB": peak_gb(setting.device),
        "GB reserved beyond": fragmented_gb(setting.device),
    }
    return round_figures(found) | {"each": [round(s, 4) for s in steps.seconds]}


def pairs_of(setting: Setting, steps: int) -> list[list[tuple[str, str, str]]]:
    """Prompt, chosen and rejected answer of the pairs of each step, without the end token of an answer."""
    sizes, rnd = setting.sizes, random.Random(SEED)
    answer = sizes.pair_answer - 1
    return [
        [(letters(rnd, sizes.pair_prompt), letters(rnd, answer), letters(rnd, answer)) for _ in range(sizes.pairs)]
        for _ in range(steps)
    ]


def dpo(setting: Setting, record: Record, shape: str) -> None:
    """DPO of full weights; a step is the reference pass of its pairs, the gradient and the update.

    A run makes the reference pass of all its pairs before the first step. Here it is made in the step, by the weights
    as they are then: the same work."""
    sizes, lm = setting.sizes, setting.model(shape)
    reset_peak(setting.device)
    policy = LocalPolicy(lm, Optimization(LEARNING_RATE), sizes.pass_tokens)
    terms = DpoConfig(model=shape, data="-", out=setting.scratch / "dpo").terms()
    losses, flops = [], [0.0]

    def ids(text: str) -> tuple[int, ...]:
        return tuple(lm.tokenizer(text)["input_ids"])

    end = (lm.tokenizer.eos_token_id,)
    data = [
        [
            Example(str(i), ids(prompt), (ids(good) + end, ids(bad) + end), (True, False), "pair")
            for i, (prompt, good, bad) in enumerate(pairs)
        ]
        for pairs in pairs_of(setting, sizes.warm + sizes.steps)
    ]

    def step(n: int) -> float:
        reference = policy.logprobs(example_trees(data[n]))
        trees = example_trees(data[n], reference)
        losses.append(policy.forward_backward(trees, StepLoss(terms, counts_of(data[n])))["loss"])
        policy.step()
        flops.append(policy.flops)
        return len(data[n])

    note = lambda steps: record({"losses": losses, **figures(setting, steps, flops, "pairs/s")})  # noqa: E731
    timed(setting.device, step, sizes.warm, sizes.steps, note)


def grpo(setting: Setting, record: Record, shape: str) -> None:
    """Whole steps of `posttrain rl`: sampling, scoring, the reference pass, the update, the record."""
    sizes, lm = setting.sizes, setting.model(shape)
    reset_peak(setting.device)
    steps = sizes.rl_warm + sizes.rl_steps
    data = setting.scratch / "tasks.jsonl"
    data.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts_of(setting, steps)))
    config = RlConfig(
        model=shape,
        data=str(data),
        out=setting.scratch / "grpo",
        reward=(REWARD,),
        reward_workers=sizes.reward_workers,
        group_size=sizes.group,
        batch_size=sizes.prompts * sizes.group,
        max_new_tokens=sizes.answer,
        max_concurrent=sizes.prompts * sizes.group,
        micro_batch_tokens=sizes.pass_tokens,
        beta=BETA,
        max_steps=steps,
        learning_rate=LEARNING_RATE,
        raw=True,
    )
    with ExitStack() as stack:
        scorer = stack.enter_context(open_scorer(config, {"prompt"}))
        tasks = fit_task_rows(config, lm, load_tasks(config.data), [])
        log = stack.enter_context(RunLog(config.out, {}, False))
        policy = make_policy(lm, config, LEARNING_RATE, steps)
        rollouts = TimedRollouts(config, tasks.train, lm, open_engine(config, lm), Sources(scorer))
        stage = Rl(config, policy, rollouts, [], log, steps, None, None)
        metrics: list[dict[str, Any]] = []
        flops = [0.0]

        def step(n: int) -> float:
            metrics.append(stage.step(n + 1).metrics)
            flops.append(policy.flops)
            return float(metrics[-1]["tokens"])

        def note(timing: Steps) -> None:
            last = {name: metrics[-1][name] for name in SHOWN if metrics[-1].get(name) is not None}
            sampling = [round(s, 3) for s in rollouts.seconds[sizes.rl_warm :]]
            record({"last": last, "sampling and scoring": sampling, **figures(setting, timing, flops, "tokens/s")})

        timed(setting.device, step, sizes.rl_warm, sizes.rl_steps, note)


class TimedRollouts(Rollouts):
    """Rollouts that note the seconds of each step's sampling and scoring."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.seconds: list[float] = []

    def step(self, n: int) -> StepGroups:
        start = time.perf_counter()
        groups = super().step(n)
        synchronize(self.lm.device)
        self.seconds.append(time.perf_counter() - start)
        return groups


def prompts_of(setting: Setting, steps: int) -> list[str]:
    rnd = random.Random(SEED)
    return [letters(rnd, setting.sizes.prompt) for _ in range(steps * setting.sizes.prompts)]


def decode(setting: Setting, record: Record, shape: str) -> None:
    """A prompt a row, all rows at once, until every row has its tokens or an end token."""
    sizes = setting.sizes
    lm = setting.model(shape, trained=False)
    reset_peak(setting.device)
    engine = LocalEngine(lm, slots=sizes.decode_rows)
    rnd = random.Random(SEED)
    ids = [tuple(lm.tokenizer(letters(rnd, sizes.prompt))["input_ids"]) for _ in range(sizes.decode_rows)]

    def step(n: int) -> float:
        sampling = Sampling(sizes.answer)
        requests = [Request(i, prompt, sampling, seed=1000 * n + i) for i, prompt in enumerate(ids)]
        return sum(len(completion.token_ids) for _, completion in engine.generate(requests))

    def note(steps: Steps) -> None:
        found = {"tokens/s": steps.rate, "seconds": steps.median, "GB": peak_gb(setting.device)}
        record(round_figures(found) | {"each": [round(s, 3) for s in steps.seconds]})

    timed(setting.device, step, 1, sizes.decode_steps, note)
