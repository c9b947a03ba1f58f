"""Understanding the names of other trainers: what stands here for an option or a command of theirs."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence

from posttrain.config.algorithms import ALGORITHMS
from posttrain.config.peer_tables import COMMANDS, TRAINERS, Ours
from posttrain.config.preference import LOSSES

NAMES: Mapping[str, Ours] = {
    name: ours for trainer in TRAINERS.values() for ours, names in trainer for name in names.split()
}


def look_up(name: str) -> Ours | None:
    """What stands here for a name of another trainer, however it is written: `--num-generations`, `num_generations`,
    `trl.num_generations`, `actor_rollout_ref.rollout.n`, `rollout.n`, `--no-packing`. None where the name is not
    known."""
    key = name.lstrip("-+").replace("-", "_")
    if key in NAMES:
        return NAMES[key]
    if "." in key or "_" in key:  # the end of a longer name, unless it is a plain word like `name`
        for known, ours in NAMES.items():
            if known.endswith("." + key):
                return ours
    last = key.rpartition(".")[2]
    return NAMES.get(last) or NAMES.get(last.removeprefix("no_"))


def meant(name: str, options: Iterable[str]) -> str | None:
    """Which of `options` (the names of fields, as `batch_size`) another trainer calls `name`, or a sentence where it is
    none of them; None where the name is not known or stands for an option that is not among them."""
    ours = look_up(name)
    if ours is None:
        return None
    have = set(options)
    return next((field for field in ours.fields if field in have), None if ours.fields else ours.words)


def meant_command(name: str, commands: Sequence[str]) -> str:
    """What to say where `name` is no command: the one that other trainers call so, or that resembles it."""
    name = name.replace("_", "-").lower()
    if name in COMMANDS:
        return COMMANDS[name]
    if name in ALGORITHMS:
        return f"did you mean posttrain rl --algorithm {name}?"
    if name in LOSSES:
        return f"did you mean posttrain dpo --loss {name}?"
    close = difflib.get_close_matches(name, commands, n=1)
    return f"did you mean {close[0]}?" if close else f"the commands are {', '.join(commands)}"
