"""Online reinforcement learning: sample, score, reinforce."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from posttrain.chat.template_date import dated, on_one_date
from posttrain.config import RlConfig
from posttrain.console import info_once
from posttrain.data.formats import load_sft, load_tasks
from posttrain.engine.open import open_engine
from posttrain.envs.pool import EnvPool
from posttrain.rewards.scorer import Scorer
from posttrain.rollout import fit_tasks
from posttrain.rollout.collect import ENVIRONMENT_PART
from posttrain.runs.log import RunLog
from posttrain.text import printable
from posttrain.train.data_order import bounded_steps
from posttrain.train.events import fitting, special_tokens
from posttrain.train.loop import finished, load_trained, make_policy, resolved, run_stage
from posttrain.train.rl.controllers import Constraints
from posttrain.train.rl.critic import Critic, HeadCritic, SeparateCritic
from posttrain.train.rl.pretraining_mix import Mix
from posttrain.train.rl.rollouts import Rollouts, Sources
from posttrain.train.rl.stage import Rl
from posttrain.types import InputError, Task

LEARNING_RATE = 1e-6
CRITIC_FACTOR = 10
"""A separate critic's learning rate by the policy's, where none is given."""


@on_one_date
def train_rl(config: RlConfig) -> None:
    """Train `config.model` on rewards of its own samples and write the run folder `config.out`; with `dry_run` only
    print what the first rollouts would be trained on.

    Raises InputError for bad input, before anything is written, and RunFailed when surely too many rollouts could not
    be scored."""
    settings = resolved(config, LEARNING_RATE)
    if config.epochs is not None:
        info_once(
            "note: epochs counts passes over the tasks; the optimizer's passes over a batch of rollouts, which older "
            "versions called so, are --updates-per-batch"
        )
    if not config.dry_run and finished(config.out, settings, config.resume):
        return
    tasks = load_tasks(config.data, config.columns)
    held_out = load_tasks(config.eval_data, config.columns, optional=True) if config.eval_data else []
    mixed = load_sft(config.ptx_data) if config.ptx_data else []
    columns = set.intersection(*(set(t.columns) for t in (*tasks, *held_out)))
    with ExitStack() as held:
        sources = _sources(config, columns, held)
        lm = load_trained(config)
        tools = sources.environment.tools if sources.environment is not None else None
        fitted, fitted_held_out = (
            fit_tasks(lm.chat, rows, lm.context, config.max_new_tokens, str(source), tools)
            for source, rows in ((config.data, tasks), (config.eval_data, held_out))
        )
        tasks = fitted.checked(config.data, config.strict)
        held_out = fitted_held_out.checked(str(config.eval_data), config.strict)
        rollouts = Rollouts(config, tasks, lm, open_engine(config, lm), sources)
        total = _total_steps(config, rollouts)
        names = rollouts.recorded_parts or set(sources.weights(1))
        Constraints(config.constraint, config.constraint_rate).check(names)
        mix = Mix(config, lm, mixed) if mixed else None
        if config.dry_run:
            log = RunLog(Path(held.enter_context(TemporaryDirectory())) / "run", settings, resume=False)
        else:
            judged = sources.scorer is not None and sources.scorer.writes_date
            log = RunLog(config.out, dated(settings, lm.chat.writes_date, judged), config.resume)
        held.enter_context(log)
        fitting(log, config.data, fitted)
        fitting(log, config.eval_data, fitted_held_out)
        if mix is not None:
            fitting(log, config.ptx_data, mix.fitted, config.max_length)
        stage = _stage(config, settings["learning_rate"], rollouts, held_out, mix, log, total)
        if config.dry_run:
            print(printable(stage.describe()))
            return
        special_tokens(log, lm.chat, config.data, tasks)
        run_stage(log, config, stage)


def _sources(config: RlConfig, columns: Collection[str], held: ExitStack) -> Sources:
    """What scores and what answers, as the configuration says; `held` closes them."""
    scorer = None
    if config.reward:
        scorer = held.enter_context(Scorer(config.reward, columns=columns, timeout_seconds=config.reward_timeout))
    names = set(scorer.weights(1)) if scorer is not None else set()
    environment = None
    if config.env is not None:
        environment = held.enter_context(
            EnvPool(
                config.env,
                columns={*columns, "prompt"},
                timeout_seconds=config.env_timeout,
                keep_state=scorer is not None and scorer.wants_environments,
            )
        )
        if not names and not environment.has_reward:
            raise InputError(f"--env {config.env}: has no get_reward, so --reward is required")
        if ENVIRONMENT_PART in names:
            raise InputError(
                f"--reward: {ENVIRONMENT_PART!r} is the name of the environment's own; write REWARD as NAME"
            )
    return Sources(scorer, environment, config.max_turns)


def _total_steps(config: RlConfig, rollouts: Rollouts) -> int | None:
    """Steps of the run; None where only its operations are bounded."""
    if config.replay is None:
        return bounded_steps(config, len(rollouts.tasks), rollouts.prompts)
    recorded = rollouts.replay(config.replay)
    return recorded if config.max_steps is None else min(recorded, config.max_steps)


def _stage(
    config: RlConfig,
    rate: float,
    rollouts: Rollouts,
    held_out: Sequence[Task],
    mix: Mix | None,
    log: RunLog,
    total: int | None,
) -> Rl:
    """The stage with what its options ask for: a critic, a pre-training mix."""
    lm = rollouts.lm
    updates = total and total * config.updates_per_step
    if config.baseline == "critic" and config.critic == "head":
        lm.add_scalar_head()
    policy = make_policy(lm, config, rate, updates)
    critic: Critic | None = None
    if config.baseline == "critic" and config.critic == "head":
        critic = HeadCritic(policy)
    elif config.baseline == "critic":
        critic = SeparateCritic(config, policy, config.critic_learning_rate or rate * CRITIC_FACTOR, updates)
    return Rl(config, policy, rollouts, held_out, log, total, critic, mix)
