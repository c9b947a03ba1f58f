"""Workers of an audit: what they print is thrown away, and one scores in other circumstances than those of training."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from posttrain.rewards.protocol import RewardResult
from posttrain.rewards.server import Server

QUIET, VARIED = (f"posttrain.audits.servers:{name}" for name in ("QuietServer", "VariedServer"))
CIRCUMSTANCE = "posttrain_audit"
"""The name in the trainer's state that says how to score; the reward does not see it."""
IN_A_THREAD, OTHER_RANDOM_STATE = "in a thread", "with another global random state"


class QuietServer(Server):
    """Throws away what rewards, and programs that they run, print."""

    def __init__(self) -> None:
        super().__init__()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for descriptor in (1, 2):
            os.dup2(nowhere, descriptor)
        os.close(nowhere)


class VariedServer(QuietServer):
    """Scores as `Server` does, in a thread beside the main one, or after the global random state was set."""

    def answer(self, request: Mapping[str, Any]) -> Iterator[Mapping[str, Any] | RewardResult]:
        state = dict(request.get("trainer_state", {}))
        circumstance = state.pop(CIRCUMSTANCE, None)
        if circumstance is not None:
            request = {**request, "trainer_state": state}
        if circumstance == OTHER_RANDOM_STATE:
            set_random_state(4711)
        if circumstance != IN_A_THREAD:
            yield from super().answer(request)
            return
        answer = super().answer
        with ThreadPoolExecutor(1) as thread:
            yield from thread.submit(lambda: list(answer(request))).result()


def set_random_state(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    if torch := sys.modules.get("torch"):
        torch.manual_seed(seed)
