"""How often the host reads what was decoded, and steps that a device records and replays."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch

Step = Callable[[], tuple[torch.Tensor, ...]]
Capture = Callable[[Step], Step]
"""Gives a step that does what the given one does, with the tensors that it saw when it was recorded. What a recorded
step returns belongs to the caller."""

log = logging.getLogger("posttrain")


@dataclass(frozen=True)
class Pace:
    """`every`: steps between two reads by the host. `capture`: makes what records steps; sizes are then rounded up to
    powers of two, so that few recordings serve, and the cache never moves."""

    every: int = 1
    capture: Callable[[], Capture] | None = None

    def size(self, wanted: int, least: int, most: int) -> int:
        """The size with which steps are taken that need `wanted`."""
        if self.capture is None:
            return wanted
        return min(max(least, 1 << (wanted - 1).bit_length()), most)


def pace_for(device: torch.device) -> Pace:
    """On CUDA a read would stop the device, and launching the kernels of a step takes longer than they run."""
    return Pace(8, CudaGraphs) if device.type == "cuda" else Pace()


class CudaGraphs:
    """CUDA graphs that share their memory. A step runs as it is the first time, which compiles what is to be compiled,
    and is recorded the second time. Where that fails all go on as they are."""

    def __init__(self) -> None:
        self.pool = torch.cuda.graph_pool_handle()
        self.fails = False

    def __call__(self, step: Step) -> Step:
        taken = 0
        replay: Step | None = None

        def take() -> tuple[torch.Tensor, ...]:
            nonlocal taken, replay
            if taken == 1 and not self.fails:
                try:
                    replay = self.record(step)
                except RuntimeError as error:
                    self.fails = True
                    log.warning(f"decoding without CUDA graphs, which is slower: {str(error).splitlines()[0]}")
            taken += 1
            return replay() if replay else step()

        return take

    def record(self, step: Step) -> Step:
        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        try:
            # another thread may score with a model of its own meanwhile
            with torch.cuda.graph(graph, pool=self.pool, capture_error_mode="thread_local"):
                results = step()
        finally:
            torch.cuda.set_stream(stream)  # after an error it is still that of the recording

        def replay() -> tuple[torch.Tensor, ...]:
            graph.replay()
            return tuple(result.clone() for result in results)  # the next replay overwrites them

        return replay
