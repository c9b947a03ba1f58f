"""An environment with a tool: a shop that the model buys in. See docs/environments.md."""

from __future__ import annotations


class Shop:
    """Sells fruit at a coin each; the reward is 1 where the bag holds what was asked for."""

    def reset(self, item: str, count: int, budget: int) -> str:  # columns of the data, by name
        self.wanted, self.left, self.bag = [item] * count, budget, []
        return f"You have {budget} coins."  # appended to the last message of the user

    def buy(self, item: str, count: int = 1) -> str:
        """Buy something.

        Args:
            item: What to buy.
            count: How many.
        """
        if count > self.left:
            raise ValueError("too expensive")  # the model reads: error: ValueError: too expensive
        self.left -= count
        self.bag += [item] * count
        return f"{self.left} coins left"

    def get_reward(self) -> float:
        return float(self.bag == self.wanted)
