"""Which rows each step of a run takes, and how many steps that makes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from posttrain.config import TrainConfig


def epoch_order(rows: int, seed: int, epoch: int) -> list[int]:
    """The order of the rows in one pass: a permutation from (seed, epoch) alone, so that a resume needs no state."""
    return [int(i) for i in np.random.default_rng([seed, epoch]).permutation(rows)]


def rows_drawn(config: TrainConfig, rows: int) -> int | None:
    """How many rows a run draws from `rows` in all: `epochs` times as many (to the nearest, and one at least), one pass
    where nothing says how long it is; None where steps or operations end it."""
    if config.epochs is None and (config.max_steps is not None or config.max_flops is not None):
        return None
    return max(1, round((config.epochs or 1) * rows))


def step_rows(rows: int, seed: int, step: int, batch_size: int, drawn: int | None) -> list[int]:
    """The rows of step `step` (from 1) when passes over the data follow each other, each reshuffled; a batch may reach
    into the next pass. The last batch is smaller where it would go beyond the rows that are `drawn` in all."""
    start, end = (step - 1) * batch_size, step * batch_size
    return rows_between(rows, seed, start, end if drawn is None else min(end, drawn))


def rows_between(rows: int, seed: int, start: int, end: int) -> list[int]:
    """Places [start, end) of the endless stream of rows that passes over the data make, each reshuffled."""
    out: list[int] = []
    epoch, order = -1, []
    for i in range(start, end):
        if i // rows != epoch:
            epoch = i // rows
            order = epoch_order(rows, seed, epoch)
        out.append(order[i % rows])
    return out


def bounded_steps(config: TrainConfig, rows: int, batch_size: int) -> int | None:
    """Steps after which a run over `rows` rows ends, whatever they take; None where operations alone end it."""
    drawn = rows_drawn(config, rows)
    return config.max_steps if drawn is None else -(-drawn // batch_size)


def planned_steps(config: TrainConfig, rows: int, step_flops: Callable[[list[int]], float]) -> int:
    """How many steps a run over `rows` rows takes at most. `step_flops` says what a step over some of them takes, since
    `max_flops` ends the run with the first step that reaches it."""
    bound = bounded_steps(config, rows, config.batch_size)
    if bound is not None and config.max_flops is None:
        return bound
    steps, spent, drawn = 0, 0.0, rows_drawn(config, rows)
    while (bound is None or steps < bound) and (config.max_flops is None or spent < config.max_flops):
        steps += 1
        spent += step_flops(step_rows(rows, config.seed, steps, config.batch_size, drawn))
    return steps
