"""Online DPO: pairs of the policy's own samples, which a reward or a judge ranks, by the losses of the DPO family."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from posttrain.chat.template_date import on_one_date
from posttrain.config import OnlineDpoConfig
from posttrain.data.formats import load_tasks
from posttrain.engine.open import open_engine
from posttrain.rewards.scorer import open_scorer
from posttrain.rollout import prompt_ids, sampling_flops
from posttrain.rollout.cost import sampled_ids
from posttrain.runs.log import RunLog
from posttrain.train.data_order import bounded_steps
from posttrain.train.dataset_stage import load_rows
from posttrain.train.dpo.data import Example, counts_of, example_trees
from posttrain.train.dpo.reference import MovingReference
from posttrain.train.dpo.stage import DIAGNOSTICS, StepLoss, described, primary_term
from posttrain.train.loop import Prepared, StepResult, load_trained, make_policy, train
from posttrain.train.observers import Observer
from posttrain.train.policy import Policy
from posttrain.train.rl.advantages import PerToken, Signal
from posttrain.train.rl.batch import by_rollout, group_metrics, kl_metrics, rollout_trees
from posttrain.train.rl.rollouts import Rollouts, RolloutStage, Sources, fit_task_rows
from posttrain.types import Group, Rollout, Task

STATE = "online.json"
Pair = tuple[Rollout, Rollout]
"""A better and a worse rollout."""


@on_one_date
def train_online_dpo(config: OnlineDpoConfig, observers: Sequence[Observer] = ()) -> None:
    """Train `config.model` on pairs of its own samples and write the run folder `config.out`.

    Raises InputError for bad input, before anything is written, and RunFailed when surely too many rollouts could not
    be scored."""
    terms = config.terms()
    train(config, partial(_prepare, config), primary_term(terms).spec.learning_rate, observers, described(terms))


def _prepare(config: OnlineDpoConfig, stack: ExitStack) -> Prepared:
    rows, held_out = load_rows(config, load_tasks)
    columns = set.intersection(*(set(t.columns) for t in (*rows, *held_out)))
    scorer = stack.enter_context(open_scorer(config, columns))
    lm = load_trained(config)
    tasks = fit_task_rows(config, lm, rows, held_out)
    rollouts = Rollouts(config, tasks.train, lm, open_engine(config, lm), Sources(scorer))
    total = bounded_steps(config, len(tasks.train), rollouts.prompts)

    def stage(log: RunLog, rate: float) -> OnlineDpo:
        return OnlineDpo(config, make_policy(lm, config, rate, total), rollouts, tasks.held_out, log, total)

    return Prepared(lm, tasks.train, tasks.fitted, stage, (scorer.writes_date,))


class OnlineDpo(RolloutStage):
    """See `Stage`. Online AI feedback (Guo et al. 2024, arXiv:2402.04792) on the rollouts of online RL: a step samples
    groups, takes a pair of each (`pair_signals`) and makes one optimizer step on the pairs.

    The losses read log-probabilities at temperature 1, whatever the pairs were sampled with."""

    kind = "online-dpo"
    shown = ("reward", "kl", "margin", "accuracy", "response_length", "loss")

    def __init__(
        self,
        config: OnlineDpoConfig,
        policy: Policy,
        rollouts: Rollouts,
        held_out: Sequence[Task],
        log: RunLog,
        total_steps: int | None,
    ) -> None:
        self.config = config
        self.terms = config.terms()
        self.policy = policy
        super().__init__(rollouts, held_out)
        self.log = log
        self.total_steps = total_steps
        self.reference: MovingReference | None = None
        if any(term.reference for term in self.terms):
            self.reference = MovingReference(policy, config.reference_every, config.reference_mix or 1.0)

    def step(self, n: int) -> StepResult:
        step = self.rollouts.step(n)
        self.policy.flops += sampling_flops(self.rollouts.lm.flops, step.all)
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
        return StepResult(metrics, step.all, [signal for group in signals for signal in group])

    def save(self, folder: Path) -> None:
        (folder / STATE).write_text(json.dumps({"position": self.rollouts.position}))
        if self.reference is not None:
            self.reference.save(folder)

    def load(self, folder: Path) -> None:
        self.rollouts.go_to(json.loads((folder / STATE).read_text())["position"])
        if self.reference is not None:
            self.reference.load(folder)

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
