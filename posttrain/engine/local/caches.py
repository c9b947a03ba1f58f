"""Keys and values of prompts and completions, and how many of them the memory holds."""

from __future__ import annotations

import torch


class Cache:
    """Keys [layers, slots, key heads, D, tokens], laid out as the products with them read them, and values [layers,
    slots, key heads, tokens, D]. What was never written is 0."""

    def __init__(self) -> None:
        self.keys = torch.empty(0, 0, 0, 0, 0)
        self.values = torch.empty(0, 0, 0, 0, 0)

    def reserve(self, slots: int, tokens: int, like: torch.Tensor) -> None:
        """Make room for so many slots of so many tokens, of the layers, heads and type of `like` [layers, .., key
        heads, tokens, D]. What was there stays."""
        have_slots, have_tokens = self.values.shape[1], self.values.shape[3]
        if slots <= have_slots and tokens <= have_tokens:
            return
        slots, tokens = max(slots, have_slots), max(tokens, have_tokens)
        layers, heads, dim = like.shape[0], like.shape[-3], like.shape[-1]
        keys = like.new_zeros(layers, slots, heads, dim, tokens)
        values = like.new_zeros(layers, slots, heads, tokens, dim)
        if have_slots:
            keys[:, :have_slots, :, :, :have_tokens] = self.keys
            values[:, :have_slots, :, :have_tokens] = self.values
        self.keys, self.values = keys, values

    def grow(self, slots: int, tokens: int, like: torch.Tensor) -> None:
        """`reserve`, and some more if that is needed at all."""
        have_slots, have_tokens = self.values.shape[1], self.values.shape[3]
        slots = slots if slots <= have_slots else max(slots, have_slots * 3 // 2)
        tokens = tokens if tokens <= have_tokens else max(tokens, have_tokens * 3 // 2, 16)
        self.reserve(slots, tokens, like)

    def put(self, slot: int, kept: torch.Tensor) -> None:
        self.keys[:, slot, :, :, : kept.shape[3]] = kept[:, 0].transpose(2, 3)
        self.values[:, slot, :, : kept.shape[3]] = kept[:, 1]

    def move(self, source: int, target: int, tokens: int) -> None:
        if not tokens:
            return  # the slot may not even exist yet
        self.keys[:, target, :, :, :tokens] = self.keys[:, source, :, :, :tokens]
        self.values[:, target, :, :tokens] = self.values[:, source, :, :tokens]
