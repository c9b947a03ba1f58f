"""Online reinforcement learning: sample, score, reinforce."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from posttrain.config import RlConfig
from posttrain.data.formats import load_tasks
from posttrain.data.packing import share_prefix
from posttrain.engine.local import LocalEngine
from posttrain.models import LanguageModel, load_model
from posttrain.rewards.base import FailureWatch, Scorer
from posttrain.rollout import (
    Plan,
    check_prompts,
    collect,
    regroup,
    rollout_from_json,
    rollout_seed,
    rollout_to_json,
    sampling_flops,
)
from posttrain.runlog import RunLog, check_out, read_jsonl
from posttrain.train.loop import Evaluation, make_policy, resolved, run_stage
from posttrain.train.notices import special_tokens, unscored
from posttrain.train.policy import LocalPolicy, step_rows
from posttrain.train.rl_batch import (
    Signal,
    branch_of,
    group_metrics,
    group_signals,
    kl_metrics,
    mean,
    policy_loss,
    step_trees,
)
from posttrain.types import Group, Sampling, Task

LEARNING_RATE = 1e-6


def train_rl(config: RlConfig) -> None:
    """Train `config.model` on rewards of its own samples and write the run folder `config.out`.

    Raises InputError for bad input, before anything is written, and RunFailed when surely too many rollouts could not
    be scored."""
    settings = resolved(config, LEARNING_RATE)
    if check_out(config.out, settings, config.resume):
        return
    tasks = load_tasks(config.data)
    held_out = load_tasks(config.eval_data) if config.eval_data else []
    columns = set.intersection(*(set(t.columns) for t in (*tasks, *held_out)))
    with Scorer(config.reward, columns=columns, timeout_seconds=config.reward_timeout) as scorer:
        lm = load_model(config.model, raw=config.raw)
        for source, rows in ((config.data, tasks), (config.eval_data or "", held_out)):
            check_prompts(lm.chat, rows, lm.context - config.max_new_tokens, source)
        total = config.max_steps
        if total is None and config.max_flops is None:
            total = -(-len(tasks) // (config.batch_size // config.group_size))
        policy = make_policy(
            lm, config, settings["learning_rate"], total and total * config.epochs * config.minibatches
        )
        with RunLog(config.out, settings, config.resume) as log:
            special_tokens(log, lm.chat, config.data, tasks)
            run_stage(log, config, Rl(config, policy, tasks, held_out, scorer, log, total))


class Rl:
    """See `Stage`. GRPO (DeepSeekMath, arXiv:2402.03300) with the options of `RlConfig`."""

    kind = "rl"

    def __init__(
        self,
        config: RlConfig,
        policy: LocalPolicy,
        tasks: Sequence[Task],
        held_out: Sequence[Task],
        scorer: Scorer,
        log: RunLog,
        total_steps: int | None,
    ) -> None:
        self.config = config
        self.policy = policy
        self.tasks = tasks
        self.held_out = held_out
        self.scorer = scorer
        self.log = log
        self.total_steps = total_steps
        self.engine = LocalEngine(policy.lm, slots=config.engine_slots)
        self.watch = FailureWatch(config.max_unscored_share)
        self.sampling = Sampling(config.max_new_tokens, config.temperature, config.top_k, config.top_p)
        self.recorded: dict[int, list[dict[str, Any]]] = {}
        self.reference: LanguageModel | None = None
        if config.beta > 0 and policy.lm.adapter is None:
            self.reference = load_model(config.model, raw=config.raw)

    def step(self, n: int) -> dict[str, Any]:
        """Sample and score a batch of groups (or take the recorded one), then train on it."""
        groups = self._groups(n)
        references = self._reference_logprobs(groups)
        gdpo = self.scorer.weights(n) if self.config.aggregation == "gdpo" else None
        signals = group_signals(groups, references, self.config.beta if self.config.kl_in == "reward" else 0.0, gdpo)
        self._record(n, groups, signals)
        metrics = group_metrics(groups, signals) | kl_metrics(groups, references)
        metrics |= {f"weight/{name}": weight for name, weight in self.scorer.curriculum(n).items()}
        metrics |= self._train(n, signals, references)
        self.engine.update(None, n)
        return metrics

    def evaluate(self) -> Evaluation | None:
        """Mean score of the greedy answers to the held-out tasks."""
        if not self.held_out:
            return None
        greedy = Sampling(self.config.max_new_tokens, temperature=0)
        groups = collect(self.engine, self.policy.lm.chat, self.scorer, [Plan(t, 0, greedy, 0) for t in self.held_out])
        scores = [s.total for g in groups for s in g.scores if s.total is not None]
        if not scores:
            return None
        reward = sum(scores) / len(scores)
        return Evaluation({"reward": reward, "unscored": 1 - len(scores) / len(groups)}, -reward)

    def rewind(self, log: RunLog, step: int) -> None:
        """Recorded steps past the checkpoint are trained on again as they are, not sampled or scored again."""
        steps: dict[int, list[dict[str, Any]]] = {}
        for row in read_jsonl(log.out / "rollouts.jsonl"):
            steps.setdefault(row["step"], []).append(row)
        whole = {n: rows for n, rows in steps.items() if len(rows) == self.config.batch_size}
        log.keep_lines("rollouts.jsonl", lambda row: row["step"] in whole)
        for n in sorted(whole):
            if n <= step:
                for row in whole[n]:
                    self.watch.add(rollout_from_json(row, self.sampling, self.policy.lm.chat)[1])
            else:
                self.recorded[n] = whole[n]
        self.engine.update(None, step)

    def close(self) -> None:
        self.scorer.close()

    def _groups(self, n: int) -> list[Group]:
        config = self.config
        chat = self.policy.lm.chat
        rows = step_rows(len(self.tasks), config.seed, n, config.batch_size // config.group_size, True)
        if n in self.recorded:
            tasks = [self.tasks[row] for row in rows for _ in range(config.group_size)]
            pairs = [rollout_from_json(row, self.sampling, chat) for row in self.recorded[n]]
            groups = regroup(tasks, [r for r, _ in pairs], [s for _, s in pairs])
        else:
            plans = [
                Plan(self.tasks[row], i, self.sampling, rollout_seed(config.seed, n, row, i))
                for row in rows
                for i in range(config.group_size)
            ]
            groups = collect(self.engine, chat, self.scorer, plans, {"step": n, "global_step": n - 1})
            self.engine.pause()
            if self.scorer.metrics:
                self.log.event("reward_metrics", step=n, **{f"logged/{k}": v for k, v in self.scorer.metrics.items()})
        self.policy.flops += sampling_flops(self.policy.lm.flops, groups)
        return groups

    def _record(self, n: int, groups: Sequence[Group], signals: Sequence[Sequence[Signal]]) -> None:
        """Write the step's rollouts, and stop the run if too many could not be scored."""
        scores = [score for group in groups for score in group.scores]
        new = n not in self.recorded
        if new:
            advantage = {id(s.rollout): s.advantage for members in signals for s in members}
            self.log.rollouts(
                rollout_to_json(n, r, s, advantage.get(id(r)))
                for g in groups
                for r, s in zip(g.rollouts, g.scores, strict=True)
            )
        unscored(self.log, self.watch, scores, self.scorer.first_traceback, new, step=n)

    def _reference_logprobs(self, groups: Sequence[Group]) -> dict[int, tuple[float, ...]]:
        """log π_ref of every rollout's sampled tokens by the rollout's identity; empty where no KL is asked for."""
        if self.config.beta == 0:
            return {}
        rollouts = [r for g in groups for r in g.rollouts if r.response_length]
        members = [[branch_of(r, 0.0) for r in g.rollouts if r.response_length] for g in groups]
        trees = [share_prefix(branches) for branches in members if branches]
        if self.reference is None:
            with self.policy.lm.without_adapter():
                values = self.policy.logprobs(trees, self.config.temperature)
        else:
            values = self.policy.logprobs(trees, self.config.temperature, self.reference)
        return {id(r): v for r, v in zip(rollouts, values, strict=True)}

    def _train(
        self, n: int, signals: Sequence[Sequence[Signal]], references: dict[int, tuple[float, ...]]
    ) -> dict[str, Any]:
        """`epochs` x `minibatches` optimizer steps on the groups of a step."""
        config = self.config
        in_loss = config.beta if config.kl_in == "loss" else 0.0
        once = config.epochs * config.minibatches == 1
        proximal: dict[int, tuple[float, ...]] = {}
        if not once:
            trees = [share_prefix([branch_of(s.rollout, 0.0) for s in members]) for members in signals if members]
            values = self.policy.logprobs(trees, config.temperature)
            proximal = {id(s.rollout): v for s, v in zip((s for m in signals for s in m), values, strict=True)}
        loss = partial(policy_loss, clip=config.clip, beta=in_loss)
        updates: list[dict[str, float]] = []
        size = len(signals) // config.minibatches
        for _ in range(config.epochs):
            for i in range(0, len(signals), size):
                trees = step_trees(signals[i : i + size], proximal, references, keep_flat=in_loss > 0)
                metrics = self.policy.forward_backward(trees, loss, config.temperature, entropy=True)
                covered = sum(w for tree in trees for b in tree.branches for w in b.weights)
                if covered:
                    metrics["entropy"] /= covered
                updates.append({**metrics, **self.policy.step()})
        if not any("loss" in u for u in updates):
            self.log.event("no_loss_token", step=n)
        names = ("loss", "clip_fraction", "entropy", "grad_norm", "learning_rate")
        return {name: mean([u[name] for u in updates if name in u]) for name in names}
