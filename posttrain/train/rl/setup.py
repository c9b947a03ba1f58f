"""Online reinforcement learning: sample, score, reinforce."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from posttrain.alerts import Observer
from posttrain.chat.template_date import on_one_date
from posttrain.config import RlConfig
from posttrain.config.compute import on_its_device
from posttrain.console import info_once
from posttrain.data.formats import load_sft, load_tasks
from posttrain.engine.open import open_engine
from posttrain.rows import TaskColumns
from posttrain.runs.log import RunLog
from posttrain.text import printable
from posttrain.train.data_order import bounded_steps
from posttrain.train.dataset_stage import load_rows
from posttrain.train.loop import Prepared, load_trained, make_policy, open_stage, train
from posttrain.train.rl.controllers import Constraints
from posttrain.train.rl.critic import Critic, SeparateCritic
from posttrain.train.rl.pretraining_mix import PretrainingMix
from posttrain.train.rl.rollouts import Rollouts, fit_task_rows
from posttrain.train.rl.sources import open_sources
from posttrain.train.rl.stage import Rl
from posttrain.train.settings import resolved_settings

LEARNING_RATE = 1e-6
CRITIC_FACTOR = 10
"""A separate critic's learning rate by the policy's, unless the user sets one."""


@on_its_device
@on_one_date
def train_rl(config: RlConfig, observers: Sequence[Observer] = ()) -> None:
    """Train `config.model` on rewards of its own samples and write the run folder `config.out`; with `dry_run` print
    what would be trained on. Raises InputError for bad input, before anything is written, and RunFailed when surely too
    many rollouts could not be scored."""
    if config.epochs is not None:
        info_once(
            "note: epochs counts passes over the tasks; the optimizer's passes over a batch of rollouts, which older "
            "versions called so, are --updates-per-batch"
        )
    if not config.dry_run:
        train(config, partial(_prepare, config), LEARNING_RATE, observers)
        return
    with TemporaryDirectory() as folder, ExitStack() as stack:
        here = config.model_copy(update={"out": Path(folder) / "run", "resume": False})
        _, stage = open_stage(here, partial(_prepare, config), resolved_settings(config, LEARNING_RATE), stack)
        assert isinstance(stage, Rl)
        print(printable(stage.describe()))


def _prepare(config: RlConfig, stack: ExitStack) -> Prepared:
    rows, held_out = load_rows(config, load_tasks)
    mixed = load_sft(config.ptx_data) if config.ptx_data else []
    columns = TaskColumns([*rows, *held_out])
    sources = open_sources(config, columns, stack)
    lm = load_trained(config)
    tools = sources.environment.tools if sources.environment is not None else None
    tasks = fit_task_rows(config, lm, rows, held_out, tools)
    rollouts = Rollouts(config, tasks.train, lm, open_engine(config, lm), sources)
    total = _total_steps(config, rollouts)
    names = rollouts.recorded_parts or set(sources.weights(1))
    Constraints(config.constraint, config.constraint_rate).check(names)
    mix = PretrainingMix(config, lm, mixed) if mixed else None
    fitted = [*tasks.fitted, (config.ptx_data, mix.fitted, config.max_length)] if mix is not None else tasks.fitted

    def stage(log: RunLog, rate: float) -> Rl:
        updates = total and total * config.updates_per_step
        has_head = config.baseline == "critic" and config.critic == "head"
        if has_head:
            lm.add_value_head()
        policy = make_policy(lm, config, rate, updates)
        critic = Critic(policy) if has_head else None
        if config.baseline == "critic" and not has_head:
            critic = SeparateCritic(config, policy, config.critic_learning_rate or rate * CRITIC_FACTOR, updates)
        return Rl(config, policy, rollouts, tasks.held_out, log, total, critic, mix)

    return Prepared(lm, tasks.train, fitted, stage, (sources.writes_date,))


def _total_steps(config: RlConfig, rollouts: Rollouts) -> int | None:
    """Steps of the run; None where only its operations are bounded."""
    if config.replay is None:
        return bounded_steps(config, len(rollouts.tasks), rollouts.prompts)
    recorded = rollouts.replay(config.replay)
    return recorded if config.max_steps is None else min(recorded, config.max_steps)
