"""What sampling takes, in operations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from posttrain.arrays import ints
from posttrain.batch.packing import nodes_of, prefix_forest
from posttrain.batch.types import Node
from posttrain.models.flops import FlopCounter
from posttrain.types import Group, Rollout


def sampling_flops(flops: FlopCounter, groups: Sequence[Group]) -> float:
    """What it takes to sample these groups together. Every round of turns is a forest of its distinct prompts,
    forwarded once from their first tokens on (nothing is kept from one turn to the next), and of each answer all tokens
    but the last. Every sampled token takes a row of the head; the first ones after equal prompts share it.
    Where decoding merges an adapter into the weights, it is merged once for all of them."""
    turns = [_turns(rollout) for group in groups for rollout in group.rollouts]
    rounds = max(map(len, turns), default=0)
    merge = float(flops.merge) if rounds else 0.0
    return merge + sum(_round_flops(flops, [of[n] for of in turns if n < len(of)]) for n in range(rounds))


def _turns(rollout: Rollout) -> list[tuple[bytes, int]]:
    """Of each turn the tokens of its prompt and how many were sampled; one of none where nothing was."""
    turns = [(s.token_ids[: span.start].tobytes(), len(span)) for s in rollout.segments for span in s.sampled_spans]
    return turns or [(ints(rollout.prompt_ids).tobytes(), 0)]


def _round_flops(flops: FlopCounter, turns: Sequence[tuple[bytes, int]]) -> float:
    prompts = {prompt: np.frombuffer(prompt, np.int32) for prompt, _ in turns}
    prompt_nodes = prefix_forest([(ids, len(ids) - 1) for ids in prompts.values()])
    leaf = dict(zip(prompts, (i for i, node in enumerate(prompt_nodes) if node.leaf), strict=True))
    nodes = list(nodes_of(prompt_nodes)) + [Node(leaf[prompt], max(0, sampled - 1)) for prompt, sampled in turns]
    decoded = sum(node.length for node in nodes[len(prompt_nodes) :])
    return flops.sampling(nodes, decoded, len(prompts) + decoded)
