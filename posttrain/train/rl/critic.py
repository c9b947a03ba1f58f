"""Critics: what estimates the value of the tokens so far (PPO)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from posttrain.arrays import Floats
from posttrain.batch.packing import Tree
from posttrain.batch.types import Metrics
from posttrain.config import RlConfig
from posttrain.models.read import VALUES
from posttrain.train.loop import load_trained, make_policy
from posttrain.train.policy import Policy
from posttrain.train.rl.batch import critic_loss


class Critic:
    """Values of tokens, read before each, by a value head on the policy: they come with its log-probabilities and are
    trained in its steps, and its checkpoint holds the head."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy

    def values(self, trees: Sequence[Tree]) -> list[Floats]:
        """V of every trained token, an array a branch in order."""
        return self.policy.numbers(trees, VALUES)

    def train(self, trees: Sequence[Tree]) -> Metrics:
        """An optimizer step on the returns that the trees carry; its metrics. Nothing where the policy's does it."""
        return {}

    def save(self, folder: Path) -> None:
        """Write what the policy's checkpoint does not hold."""

    def load(self, folder: Path) -> None:
        """The inverse of `save`."""


class SeparateCritic(Critic):
    """A model and optimizer of its own, which begins as the policy does and is charged to its account."""

    def __init__(self, config: RlConfig, policy: Policy, rate: float, total_updates: int | None) -> None:
        lm = load_trained(config)
        lm.add_value_head()
        super().__init__(policy)
        self.own = make_policy(lm, config, rate, total_updates)
        self.loss = partial(critic_loss, clip=config.value_clip)

    def values(self, trees: Sequence[Tree]) -> list[Floats]:
        values = self.own.numbers(trees, VALUES)
        self._charge()
        return values

    def train(self, trees: Sequence[Tree]) -> Metrics:
        metrics = self.own.forward_backward(trees, self.loss, VALUES)
        stepped = self.own.step()
        self._charge()
        return {**metrics, "critic_grad_norm": stepped["grad_norm"]}

    def save(self, folder: Path) -> None:
        target = folder / "critic"
        target.mkdir()
        self.own.save(target)

    def load(self, folder: Path) -> None:
        self.own.load(folder / "critic")

    def _charge(self) -> None:
        self.policy.flops += self.own.flops
        self.own.flops = 0.0
