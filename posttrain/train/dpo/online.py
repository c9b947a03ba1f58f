"""Online DPO: pairs of the policy's own samples, which a reward or a judge ranks, by the losses of the DPO family."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from posttrain.chat.template_date import dated, on_one_date
from posttrain.config import OnlineDpoConfig
from posttrain.data.formats import load_tasks
from posttrain.engine.open import open_engine
from posttrain.rewards.scorer import Scorer
from posttrain.rollout import fit_tasks, prompt_ids, sampling_flops
from posttrain.rollout.cost import sampled_ids
from posttrain.runs.log import RunLog
from posttrain.train.data_order import bounded_steps
from posttrain.train.dpo.data import Example, counts_of, example_trees
from posttrain.train.dpo.reference import MovingReference
from posttrain.train.dpo.stage import DIAGNOSTICS, StepLoss, leading
from posttrain.train.events import fitting, special_tokens
from posttrain.train.loop import Evaluation, Stage, finished, load_trained, make_policy, resolved, run_stage
from posttrain.train.policy import LocalPolicy
from posttrain.train.rl.advantages import PerToken, Signal
from posttrain.train.rl.batch import by_rollout, group_metrics, kl_metrics, rollout_trees
from posttrain.train.rl.rollouts import Rollouts, Sources
from posttrain.types import Group, Rollout, Task

STATE = "online.json"
Pair = tuple[Rollout, Rollout]
"""A better and a worse rollout."""


@on_one_date
def train_online_dpo(config: OnlineDpoConfig) -> None:
    """Train `config.model` on pairs of its own samples and write the run folder `config.out`.

    Raises InputError for bad input, before anything is written, and RunFailed when surely too many rollouts could not
    be scored."""
    terms = config.terms()
    settings = resolved(config, leading(terms).spec.learning_rate)
    settings["terms"] = [{**asdict(term), "numbers": dict(term.numbers)} for term in terms]
    if finished(config.out, settings, config.resume):
        return
    tasks = load_tasks(config.data, config.columns)
    held_out = load_tasks(config.eval_data, config.columns, optional=True) if config.eval_data else []
    columns = set.intersection(*(set(t.columns) for t in (*tasks, *held_out)))
    with ExitStack() as held:
        scorer = held.enter_context(Scorer(config.reward, columns=columns, timeout_seconds=config.reward_timeout))
        lm = load_trained(config)
        fitted, fitted_held_out = (
            fit_tasks(lm.chat, rows, lm.context, config.max_new_tokens, str(source))
            for source, rows in ((config.data, tasks), (config.eval_data, held_out))
        )
        tasks = fitted.checked(config.data, config.strict)
        held_out = fitted_held_out.checked(str(config.eval_data), config.strict)
        rollouts = Rollouts(config, tasks, lm, open_engine(config, lm), Sources(scorer))
        total = bounded_steps(config, len(tasks), rollouts.prompts)
        policy = make_policy(lm, config, settings["learning_rate"], total)
        log = held.enter_context(
            RunLog(config.out, dated(settings, lm.chat.writes_date, scorer.writes_date), config.resume)
        )
        fitting(log, config.data, fitted)
        fitting(log, config.eval_data, fitted_held_out)
        special_tokens(log, lm.chat, config.data, tasks)
        run_stage(log, config, OnlineDpo(config, policy, rollouts, held_out, log, total))


class OnlineDpo(Stage):
    """See `Stage`. Online AI feedback (Guo et al. 2024, arXiv:2402.04792) on the rollouts of online RL: a step samples
    groups, takes a pair of each (`pair_signals`) and makes one optimizer step on the pairs.

    The losses read log-probabilities at temperature 1, whatever the pairs were sampled with."""

    kind = "online-dpo"

    def __init__(
        self,
        config: OnlineDpoConfig,
        policy: LocalPolicy,
        rollouts: Rollouts,
        held_out: Sequence[Task],
        log: RunLog,
        total_steps: int | None,
    ) -> None:
        self.config = config
        self.terms = config.terms()
        self.policy = policy
        self.rollouts = rollouts
        self.held_out = held_out
        self.log = log
        self.total_steps = total_steps
        self.reference: MovingReference | None = None
        if any(term.reference for term in self.terms):
            self.reference = MovingReference(policy, config.reference_every, config.reference_mix or 1.0)

    def step(self, n: int) -> dict[str, Any]:
        step = self.rollouts.step(n)
        self.policy.flops += sampling_flops(self.policy.lm.flops, step.all)
        groups = step.used or step.all  # where no refill brought one that differs, the step has nothing to learn
        signals = [pair_signals(group) for group in groups]
        self.rollouts.record(self.log, n, step, signals)
        references = self._references([g.rollouts for g in groups])
        pairs = [pair for members in signals for pair in pairs_of(members)]
        metrics = group_metrics(groups, signals) | kl_metrics(groups, references) | {"pairs": len(pairs)}
        metrics |= {f"weight/{name}": weight for name, weight in self.rollouts.sources.curriculum(n).items()}
        metrics |= {"sampled_groups": len(step.all)} if self.config.max_refills else {}
        metrics |= dict.fromkeys(("loss", *DIAGNOSTICS)) | self._gradient(pairs, references) | self.policy.step()
        if not pairs:
            self.log.event("no_loss_token", step=n)
        if self.reference is not None:
            self.reference.follow(n)
        self.rollouts.engine.update(None, n)
        return metrics

    def evaluate(self) -> Evaluation | None:
        """Mean score of the greedy answers to the held-out tasks."""
        return self.rollouts.evaluate(self.held_out) if self.held_out else None

    def save(self, folder: Path) -> None:
        (folder / STATE).write_text(json.dumps({"position": self.rollouts.position}))
        if self.reference is not None:
            self.reference.save(folder)

    def load(self, folder: Path) -> None:
        self.rollouts.go_to(json.loads((folder / STATE).read_text())["position"])
        if self.reference is not None:
            self.reference.load(folder)

    def rewind(self, log: RunLog, step: int) -> None:
        """Recorded steps past the checkpoint are trained on again as they are."""
        self.rollouts.rewind(log, step)
        self.rollouts.engine.update(None, step)

    def _gradient(self, pairs: Sequence[Pair], references: PerToken) -> dict[str, float]:
        """Add the gradient of the losses over the pairs of the step; there may be none."""
        examples = [pair_example(pair) for pair in pairs]
        given: list[tuple[float, ...]] | None = None
        if self.reference is not None and self.config.draws_the_policy:
            given = [references[id(rollout)] for pair in pairs for rollout in pair]
        elif self.reference is not None:
            given = self.reference.logprobs(examples)
        loss = StepLoss(self.terms, counts_of(examples))
        trees = example_trees(examples, given, self.config.ld_alpha)
        return self.policy.forward_backward(trees, loss) | loss.weights()

    def _references(self, groups: Sequence[Sequence[Rollout]]) -> PerToken:
        """log π_ref of every sampled token, as the sampler draws; empty where no loss needs a reference."""
        if self.reference is None:
            return {}
        with self.reference.reference.active():
            return by_rollout(groups, self.policy.logprobs(rollout_trees(groups), self.config.temperature))


def pair_signals(group: Group) -> list[Signal]:
    """The scored rollouts of a group: +1 for the tokens of the first with the highest score, −1 for those of the first
    with the lowest, 0 for the others. All are 0 where the two are equal in score or tokens, and there are none where
    fewer than two could be scored: such a group gives no pair."""
    scored = [(s.total, r) for r, s in zip(group.rollouts, group.scores, strict=True) if s.total is not None]
    scored = [(total, rollout) for total, rollout in scored if rollout.response_length]
    if len(scored) < 2:
        return []
    (high, best), (low, worst) = (pick(scored, key=lambda entry: entry[0]) for pick in (max, min))
    tie = high == low or sampled_ids(best) == sampled_ids(worst)
    signs = [0.0 if tie else float(r is best) - float(r is worst) for _, r in scored]
    return [Signal(r, (sign,) * r.response_length) for (_, r), sign in zip(scored, signs, strict=True)]


def pairs_of(signals: Sequence[Signal]) -> list[Pair]:
    """The pair of a group, if it has one."""
    better = [s.rollout for s in signals if s.advantages[0] > 0]
    worse = [s.rollout for s in signals if s.advantages[0] < 0]
    return list(zip(better, worse, strict=True))


def pair_example(pair: Pair) -> Example:
    chosen, rejected = pair
    return Example("", prompt_ids(chosen), (sampled_ids(chosen), sampled_ids(rejected)), (True, False), chosen.task_id)
