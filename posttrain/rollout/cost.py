"""What rollouts are made of, in tokens and operations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from posttrain.batch.packing import nodes_of, radix
from posttrain.batch.types import Node
from posttrain.models.flops import FlopCounter
from posttrain.types import Group, Rollout, Segment


def prompt_ids(rollout: Rollout) -> tuple[int, ...]:
    """The tokens before the first sampled one."""
    segment = rollout.segments[0]
    return segment.token_ids[: segment.sampled.index(True)] if True in segment.sampled else segment.token_ids


def sampled_ids(rollout: Rollout) -> tuple[int, ...]:
    """All sampled tokens, end tokens included."""
    return tuple(t for s in rollout.segments for t, sampled in zip(s.token_ids, s.sampled, strict=True) if sampled)


def sampled_spans(segment: Segment) -> Iterator[range]:
    """Where the turns of the policy lie in a row, in order."""
    start = 0
    for sampled, run in groupby(segment.sampled):
        stop = start + sum(1 for _ in run)
        if sampled:
            yield range(start, stop)
        start = stop


def sampling_flops(flops: FlopCounter, groups: Sequence[Group]) -> float:
    """What it takes to sample these groups together. Every round of turns is a forest of its distinct prompts,
    forwarded once from their first tokens on (nothing is kept from one turn to the next), and of each answer all tokens
    but the last. Every sampled token takes a row of the head; the first ones after equal prompts share it.
    Where decoding merges an adapter into the weights, it is merged once for all of them."""
    turns = [_turns(rollout) for group in groups for rollout in group.rollouts]
    rounds = max(map(len, turns), default=0)
    merge = float(flops.merge) if rounds else 0.0
    return merge + sum(_round_flops(flops, [of[n] for of in turns if n < len(of)]) for n in range(rounds))


def _turns(rollout: Rollout) -> list[tuple[tuple[int, ...], int]]:
    """Of each turn its prompt and how many tokens were sampled; one of none where nothing was."""
    turns = [(s.token_ids[: span.start], len(span)) for s in rollout.segments for span in sampled_spans(s)]
    return turns or [(prompt_ids(rollout), 0)]


def _round_flops(flops: FlopCounter, turns: Sequence[tuple[tuple[int, ...], int]]) -> float:
    prompts = dict.fromkeys(ids for ids, _ in turns)
    spans = radix([(ids, len(ids) - 1) for ids in prompts])
    leaf = dict(zip(prompts, (i for i, span in enumerate(spans) if span.leaf), strict=True))
    nodes = list(nodes_of(spans)) + [Node(leaf[ids], max(0, sampled - 1)) for ids, sampled in turns]
    decoded = sum(node.length for node in nodes[len(spans) :])
    return flops.sampling(nodes, decoded, len(prompts) + decoded)
