"""What grades the rollouts of online RL, and what the model talks to."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import dataclass

from posttrain.config import OnlineDpoConfig, RlConfig
from posttrain.envs.pool import EnvPool
from posttrain.rewards.scorer import Scorer, open_scorer, open_sealed
from posttrain.rollout.collect import ENVIRONMENT_PART
from posttrain.train.rl.controls import check_names
from posttrain.types import InputError


@dataclass(frozen=True)
class Sources:
    """Where scores come from, and what the model talks to, in at most `max_turns` answers; one of them at least.
    `sealed` grades too and is never trained on; `control` is paid in place of the scores (see `controls`)."""

    scorer: Scorer | None
    environment: EnvPool | None = None
    max_turns: int = 1
    sealed: Scorer | None = None
    control: str | None = None

    def weights(self, step: float) -> dict[str, float]:
        """The weight of each part of a score at a step; an environment's own has 1, and so has a control, alone."""
        if self.control is not None:
            return {self.control: 1.0}
        weights = self.scorer.weights(step) if self.scorer is not None else {}
        own = self.environment is not None and self.environment.has_reward
        return weights | ({ENVIRONMENT_PART: 1.0} if own else {})

    def curriculum(self, step: float) -> dict[str, float]:
        """The weights that change during training, at a step."""
        return self.scorer.curriculum(step) if self.scorer is not None and self.control is None else {}

    @property
    def writes_date(self) -> bool:
        """Whether the chat template of a model that grades may write the date."""
        return any(scorer.writes_date for scorer in (self.scorer, self.sealed) if scorer is not None)


def open_sources(config: RlConfig | OnlineDpoConfig, columns: Collection[str], stack: ExitStack) -> Sources:
    """The sources that the configuration describes; `stack` closes them. Raises what `Scorer` raises."""
    scorer = stack.enter_context(open_scorer(config, columns)) if config.reward else None
    sealed = open_sealed(config, columns)
    if sealed is not None:
        stack.enter_context(sealed)
    names = set(scorer.weights(1)) if scorer is not None else set()
    if isinstance(config, OnlineDpoConfig):
        check_names(None, names)
        return Sources(scorer, sealed=sealed)
    check_names(config.control, names)
    environment = None
    if config.env is not None:
        environment = _open_environment(config, config.env, columns, stack, [s for s in (scorer, sealed) if s])
        if not names and not environment.has_reward:
            raise InputError(f"--env {config.env}: has no get_reward, so --reward is required")
        if ENVIRONMENT_PART in names:
            raise InputError(
                f"--reward: {ENVIRONMENT_PART!r} is the name of the environment's own; write REWARD as NAME"
            )
    return Sources(scorer, environment, config.max_turns, sealed, config.control)


def _open_environment(
    config: RlConfig, env: str, columns: Collection[str], stack: ExitStack, scorers: Collection[Scorer]
) -> EnvPool:
    return stack.enter_context(
        EnvPool(
            env,
            columns=columns,
            timeout_seconds=config.env_timeout,
            workers=config.env_workers,
            keep_state=any(scorer.wants_environments for scorer in scorers),
        )
    )
